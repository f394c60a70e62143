//! Binding: which socket an address leads to.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use base::{Errno, Result};
use fs::vfs::{create, permission, walk};
use fs::{Access, DeviceNumber, FileKind};
use hal::sync::SpinLock;

use super::address::Address;
use super::{Socket, SocketKind, UnixSocket};
use crate::socket::Caller;

/// What is kept with the inode of a bound socket.
struct Endpoint(Weak<UnixSocket>);

static ABSTRACT: SpinLock<BTreeMap<Vec<u8>, Weak<UnixSocket>>> = SpinLock::new(BTreeMap::new());

/// bind(2). `EINVAL` where it has an address, `EADDRINUSE`, and what making the file gives.
pub(super) fn bind(socket: &UnixSocket, caller: &Caller, address: Address) -> Result<()> {
    if socket.state.lock().address.is_some() {
        // With the family alone, an address that is there will do.
        return if address == Address::Unnamed { Ok(()) } else { Err(Errno::EINVAL) };
    }
    match address {
        Address::Path(path) => bind_path(socket, caller, path),
        Address::Abstract(name) => bind_abstract(socket, name),
        Address::Unnamed => auto_bind(socket),
    }
}

fn bind_path(socket: &UnixSocket, caller: &Caller, path: Vec<u8>) -> Result<()> {
    let made = create::make_node(&caller.fs, None, &path, FileKind::Socket, 0o777, DeviceNumber::default());
    let made = made.map_err(|error| if error == Errno::EEXIST { Errno::EADDRINUSE } else { error })?;
    let inode = made.inode()?.clone();
    let me = socket.me.clone();
    inode.attach_or_get(move || Arc::new(Endpoint(me))).ok_or(Errno::EADDRINUSE)?;
    let mut state = socket.state.lock();
    state.address = Some(Address::Path(path));
    state.bound = Some(inode);
    Ok(())
}

fn claim(name: &[u8], socket: &UnixSocket) -> Result<()> {
    let mut names = ABSTRACT.lock();
    if names.get(name).is_some_and(|holder| holder.strong_count() > 0) {
        return Err(Errno::EADDRINUSE);
    }
    names.insert(name.to_vec(), socket.me.clone());
    Ok(())
}

fn bind_abstract(socket: &UnixSocket, name: Vec<u8>) -> Result<()> {
    claim(&name, socket)?;
    socket.state.lock().address = Some(Address::Abstract(name));
    Ok(())
}

/// A name of five hexadecimal digits that is free. `ENOSPC` where none is.
pub(super) fn auto_bind(socket: &UnixSocket) -> Result<()> {
    const NAMES: u64 = 1 << 20;
    let start = hal::random::word();
    for offset in 0..NAMES {
        let name = format!("{:05x}", start.wrapping_add(offset) % NAMES).into_bytes();
        if claim(&name, socket).is_ok() {
            socket.state.lock().address = Some(Address::Abstract(name));
            return Ok(());
        }
    }
    Err(Errno::ENOSPC)
}

/// The socket at an address, which must be of the same type. `ECONNREFUSED`, `EPROTOTYPE`, `ENOENT`, `EACCES`, `EINVAL`.
pub(super) fn find(caller: &Caller, raw: &[u8], kind: SocketKind) -> Result<Arc<UnixSocket>> {
    let found = match Address::parse(raw)? {
        Address::Unnamed => return Err(Errno::EINVAL),
        Address::Abstract(name) => ABSTRACT.lock().get(&name).and_then(Weak::upgrade),
        Address::Path(path) => {
            let path = walk::lookup(&caller.fs, None, &path, true)?;
            permission::check_path(&caller.fs, &path, Access::WRITE)?;
            let inode = path.inode()?;
            if inode.kind() != FileKind::Socket {
                return Err(Errno::ECONNREFUSED);
            }
            inode.attachment::<Endpoint>().and_then(|endpoint| endpoint.0.upgrade())
        }
    };
    let found = found.ok_or(Errno::ECONNREFUSED)?;
    if found.kind() != kind { Err(Errno::EPROTOTYPE) } else { Ok(found) }
}

/// The socket is gone: so is its address. A path stays, leading nowhere.
pub(super) fn release(socket: &UnixSocket) {
    let (address, bound) = {
        let mut state = socket.state.lock();
        (state.address.clone(), state.bound.take())
    };
    if let Some(inode) = bound {
        inode.detach();
    }
    if let Some(Address::Abstract(name)) = address {
        let mut names = ABSTRACT.lock();
        if names.get(&name).is_some_and(|holder| Weak::ptr_eq(holder, &socket.me)) {
            names.remove(&name);
        }
    }
}
