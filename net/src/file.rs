//! Sockets as files.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use base::{Errno, Events, Result};
use fs::async_notify::OwnerCell;
use fs::vfs::pseudo::SOCKETS;
use fs::{File, FileKind, FsContext, Hold, Io, IoctlContext, Mapping, OpenFile, OpenFlags, PollTable};
use hal::sync::SpinLock;
use hal::user::UserPtr;
use mm::{Sink, Source};

use crate::link;
use crate::netlink::NetlinkSocket;
use crate::socket::{Control, MessageFlags, Outgoing, Socket};

/// The file that descriptors of a socket refer to.
pub struct SocketFile {
    socket: Arc<dyn Socket>,
}

/// Sockets with a file, by the numbers of their inodes.
type Open = SpinLock<BTreeMap<u64, Weak<dyn Socket>>>;

const SHARDS: usize = 16;
static OPEN: [Open; SHARDS] = [const { SpinLock::new(BTreeMap::new()) }; SHARDS];

fn shard(number: u64) -> &'static Open {
    &OPEN[number as usize % SHARDS]
}

/// All sockets with a file, for tables.
pub(crate) fn all() -> Vec<Arc<dyn Socket>> {
    OPEN.iter().flat_map(|shard| shard.lock().values().filter_map(Weak::upgrade).collect::<Vec<_>>()).collect()
}

/// An open file on a socket. The status flags are O_NONBLOCK or none.
pub fn open_file(cx: &FsContext, socket: Arc<dyn Socket>, status: OpenFlags) -> Arc<OpenFile> {
    let inode = SOCKETS.inode(FileKind::Socket, 0o777, Some(cx), None);
    socket.options().inode.store(inode.number(), Ordering::Relaxed);
    socket.options().owner.store(cx.cred.euid, Ordering::Relaxed);
    shard(inode.number()).lock().insert(inode.number(), Arc::downgrade(&socket));
    let path = SOCKETS.numbered_path(&inode, "socket");
    OpenFile::new(Arc::new(SocketFile { socket }), path, inode, OpenFlags::RDWR | status, Hold::None)
}

/// The socket behind an open file. `ENOTSOCK`.
pub fn socket_of(open: &OpenFile) -> Result<&Arc<dyn Socket>> {
    open.file().downcast::<SocketFile>().map(|file| &file.socket).ok_or(Errno::ENOTSOCK)
}

/// The netlink socket behind an open file. `ENOTSOCK`, `EINVAL`.
pub fn netlink_socket_of(open: &OpenFile) -> Result<Arc<NetlinkSocket>> {
    let socket: Arc<dyn core::any::Any + Send + Sync> = socket_of(open)?.clone();
    socket.downcast().map_err(|_| Errno::EINVAL)
}

impl File for SocketFile {
    fn read(&self, sink: &mut Sink, io: &mut Io) -> Result<usize> {
        self.socket.receive(sink, MessageFlags::empty(), io.nonblocking()).map(|received| received.len)
    }

    fn write(&self, source: &mut Source, io: &mut Io) -> Result<usize> {
        let message = Outgoing { to: None, control: Control::default(), flags: MessageFlags::empty() };
        self.socket.send(None, source, message, io.nonblocking())
    }

    fn poll(&self, table: &mut PollTable) -> Events {
        self.socket.poll(table)
    }

    fn owned_by(&self, owner: &OwnerCell) {
        self.socket.options().set_async_owner(owner);
    }

    fn ioctl(&self, cx: &IoctlContext, request: u32, arg: usize) -> Result<usize> {
        const SIOCINQ: u32 = abi::ioctl::FIONREAD;
        const SIOCOUTQ: u32 = 0x5411;
        let count = match request {
            SIOCINQ => self.socket.queued()?.0,
            SIOCOUTQ => self.socket.queued()?.1,
            _ => match self.socket.ioctl(request, arg) {
                Some(result) => return result,
                None => return link::ioctl::request(cx.cred, request, arg),
            },
        };
        UserPtr::new(arg).write(&i32::try_from(count).unwrap_or(i32::MAX))?;
        Ok(0)
    }

    fn mapping(&self) -> Result<Mapping> {
        self.socket.memory().map(Mapping::Pages)
    }

    fn release(&self, _flags: OpenFlags) {
        let number = self.socket.options().inode.load(Ordering::Relaxed);
        shard(number).lock().remove(&number);
        self.socket.close();
    }
}
