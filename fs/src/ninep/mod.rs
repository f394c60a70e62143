//! 9P2000.L, the protocol by which a host shows folders to guests, over virtio-9p (QEMU's `-virtfs`).
//!
//! A [`session`] exchanges messages ([`wire`]) with a server; a [`Fid`](session::Fid) is its handle of a file. An inode ([`node`]) is known by the
//! number that the server gives the file. With `cache=none`, the default, names and attributes are asked for on each use, and reads and
//! writes ([`handle`]) go to the server as they are; pages are only kept for mappings. With `cache=loose` names, attributes and pages are
//! kept as if nobody else changed the files.
//!
//! What a server says is checked: a wrong answer is `EIO`. A server that does not answer can be given up by killing the caller, and is
//! given up after a minute.
//!
//! Lock order: a directory's content -> [`node::Node`]'s open handles -> the table of known inodes.

mod directory;
mod handle;
mod mount;
mod node;
mod session;
mod wire;

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};
use dev::ExchangeDevice;
use hal::sync::SpinLock;

pub(crate) use mount::Kind;

static SERVERS: SpinLock<Vec<Arc<dyn ExchangeDevice>>> = SpinLock::new(Vec::new());

/// Makes a server known to mount(2), which calls it by its tag.
pub fn add_server(server: Arc<dyn ExchangeDevice>) {
    log::info!("9p: the server {:?}", server.tag().escape_ascii());
    SERVERS.lock().push(server);
}

/// The server of that tag, which nobody else has mounted. `ENOENT`, `EBUSY`.
fn server(tag: &[u8]) -> Result<Arc<dyn ExchangeDevice>> {
    let all = SERVERS.lock().clone();
    let mut named = all.iter().filter(|server| server.tag() == tag).peekable();
    named.peek().ok_or(Errno::ENOENT)?;
    // A session holds a further reference, besides the list's two and the interrupt handler's.
    const UNUSED: usize = 3;
    named.find(|server| Arc::strong_count(server) <= UNUSED).cloned().ok_or(Errno::EBUSY)
}
