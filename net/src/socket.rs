//! What a socket of any protocol family can do.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

use base::{Errno, Events, Nanos, Result};
use bitflags::bitflags;
use fs::{FsContext, OpenFile, PollTable};
use mm::{PageCache, Sink, Source};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::options::Options;

/// The type of a socket, by Linux's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum SocketKind {
    /// SOCK_STREAM.
    Stream = 1,
    /// SOCK_DGRAM.
    Datagram = 2,
    /// SOCK_RAW.
    Raw = 3,
    /// SOCK_SEQPACKET.
    SeqPacket = 5,
}

bitflags! {
    /// MSG_* flags.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MessageFlags: u32 {
        /// MSG_OOB.
        const OOB = 1;
        /// MSG_PEEK.
        const PEEK = 2;
        /// MSG_DONTROUTE.
        const DONTROUTE = 4;
        /// MSG_CTRUNC.
        const CTRUNC = 8;
        /// MSG_TRUNC.
        const TRUNC = 0x20;
        /// MSG_DONTWAIT.
        const DONTWAIT = 0x40;
        /// MSG_EOR.
        const EOR = 0x80;
        /// MSG_WAITALL.
        const WAITALL = 0x100;
        /// MSG_CONFIRM.
        const CONFIRM = 0x800;
        /// MSG_ERRQUEUE.
        const ERRQUEUE = 0x2000;
        /// MSG_NOSIGNAL.
        const NOSIGNAL = 0x4000;
        /// MSG_MORE.
        const MORE = 0x8000;
        /// MSG_WAITFORONE.
        const WAITFORONE = 0x10000;
        /// MSG_ZEROCOPY.
        const ZEROCOPY = 0x400_0000;
        /// MSG_FASTOPEN.
        const FASTOPEN = 0x2000_0000;
        /// MSG_CMSG_CLOEXEC.
        const CMSG_CLOEXEC = 0x4000_0000;
    }
}

/// `struct ucred`: who sent something, or who is at the other end.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable)]
#[allow(missing_docs, reason = "unix(7) names the fields")]
pub struct Ucred {
    pub pid: i32,
    pub uid: u32,
    pub gid: u32,
}

impl Ucred {
    /// Nobody: what a socket without a peer shows.
    pub const NOBODY: Ucred = Ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
}

/// Who calls.
#[derive(Clone)]
pub struct Caller {
    /// Where in the file system, and with which rights.
    pub fs: FsContext,
    /// The process.
    pub pid: i32,
    /// Its RLIMIT_NOFILE.
    pub fd_limit: u64,
}

impl Caller {
    /// What SO_PEERCRED shows of the caller: the effective ids.
    pub fn effective(&self) -> Ucred {
        Ucred { pid: self.pid, uid: self.fs.cred.euid, gid: self.fs.cred.egid }
    }

    /// What a message carries of the caller by itself: the real ids.
    pub fn real(&self) -> Ucred {
        Ucred { pid: self.pid, uid: self.fs.cred.uid, gid: self.fs.cred.gid }
    }
}

/// A control message of a protocol (`struct cmsghdr` and its data).
#[derive(Clone, Debug)]
pub struct ControlMessage {
    /// The level.
    pub level: i32,
    /// The type.
    pub kind: i32,
    /// The data.
    pub data: Vec<u8>,
}

/// What goes with the bytes of a message.
#[derive(Default)]
pub struct Control {
    /// SCM_RIGHTS.
    pub files: Vec<Arc<OpenFile>>,
    /// SCM_CREDENTIALS.
    pub credentials: Option<Ucred>,
    /// All else.
    pub messages: Vec<ControlMessage>,
}

/// A message to be sent, apart from its bytes.
pub struct Outgoing<'a> {
    /// The destination, as `struct sockaddr`.
    pub to: Option<&'a [u8]>,
    /// What goes with it.
    pub control: Control,
    /// How to send it.
    pub flags: MessageFlags,
}

/// What came with the bytes of a message.
#[derive(Default)]
pub struct Received {
    /// Bytes, as the call is to return them (the whole length of a datagram with MSG_TRUNC).
    pub len: usize,
    /// MSG_TRUNC, MSG_EOR.
    pub flags: MessageFlags,
    /// Where it came from, as `struct sockaddr`; empty for connected streams.
    pub from: Vec<u8>,
    /// What came with it.
    pub control: Control,
}

/// Which halves shutdown(2) closes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shutdown {
    /// Nothing more is received.
    pub read: bool,
    /// Nothing more is sent.
    pub write: bool,
}

impl Shutdown {
    /// From shutdown(2)'s argument. `EINVAL`.
    pub fn new(how: i32) -> Result<Shutdown> {
        match how {
            0 => Ok(Shutdown { read: true, write: false }),
            1 => Ok(Shutdown { read: false, write: true }),
            2 => Ok(Shutdown { read: true, write: true }),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// A socket. Addresses are the bytes of `struct sockaddr`. Calls sleep unless `nonblocking`.
pub trait Socket: Any + Send + Sync {
    /// Its family (AF_*).
    fn family(&self) -> i32;
    /// Its type.
    fn kind(&self) -> SocketKind;
    /// Its protocol, for SO_PROTOCOL.
    fn protocol(&self) -> i32 {
        0
    }
    /// The options that all sockets have.
    fn options(&self) -> &Options;
    /// bind(2). `EINVAL`, `EADDRINUSE`, `EACCES`, ...
    fn bind(&self, caller: &Caller, address: &[u8]) -> Result<()>;
    /// connect(2). `ECONNREFUSED`, `EPROTOTYPE`, `EISCONN`, `EAGAIN`, ...
    fn connect(&self, caller: &Caller, address: &[u8], nonblocking: bool) -> Result<()>;
    /// listen(2). `EOPNOTSUPP`, `EINVAL`.
    fn listen(&self, caller: &Caller, backlog: i32) -> Result<()>;
    /// accept(2): the new socket. `EINVAL`, `EOPNOTSUPP`, `EAGAIN`.
    fn accept(&self, nonblocking: bool) -> Result<Arc<dyn Socket>>;
    /// shutdown(2). `ENOTCONN`.
    fn shutdown(&self, how: Shutdown) -> Result<()>;
    /// getsockname(2).
    fn name(&self) -> Vec<u8>;
    /// getpeername(2). `ENOTCONN`.
    fn peer_name(&self) -> Result<Vec<u8>>;
    /// The other end of a connection as accept(2) shows it, even if that has ended meanwhile.
    fn accepted_name(&self) -> Vec<u8> {
        self.peer_name().unwrap_or_default()
    }
    /// Sends a message. `EPIPE`, `ENOTCONN`, `EDESTADDRREQ`, `EMSGSIZE`, `EAGAIN`, ... `caller` is `None` for write(2).
    fn send(&self, caller: Option<&Caller>, source: &mut Source, message: Outgoing, nonblocking: bool)
    -> Result<usize>;
    /// Receives a message. `ENOTCONN`, `EAGAIN`, `ECONNRESET`, ...
    fn receive(&self, sink: &mut Sink, flags: MessageFlags, nonblocking: bool) -> Result<Received>;
    /// What it is ready for.
    fn poll(&self, table: &mut PollTable) -> Events;
    /// Bytes that can be received (FIONREAD), and bytes that were not received yet (SIOCOUTQ). `EINVAL` for listeners.
    fn queued(&self) -> Result<(usize, usize)>;
    /// Sets an option of the family's or protocol's own, at any level; `None` where it has no such level or option. `ENOPROTOOPT`, `EINVAL`, ...
    fn set_option(&self, caller: &Caller, level: i32, name: i32, value: &[u8]) -> Option<Result<()>> {
        let _ = (caller, level, name, value);
        None
    }
    /// An option of the family's or protocol's own.
    fn get_option(&self, level: i32, name: i32) -> Option<Result<Vec<u8>>> {
        let _ = (level, name);
        None
    }
    /// Does the value of an option depend on what the program has put into its buffer?
    fn reads_buffer(&self, level: i32, name: i32) -> bool {
        let _ = (level, name);
        false
    }
    /// An option whose value may depend on that.
    fn get_option_for(&self, level: i32, name: i32, given: &[u8]) -> Option<Result<Vec<u8>>> {
        let _ = given;
        self.get_option(level, name)
    }
    /// An option at SOL_SOCKET was set.
    fn option_changed(&self, name: i32) {
        let _ = name;
    }
    /// An ioctl(2) of the protocol's own; `None` where it has no such request.
    fn ioctl(&self, request: u32, arg: usize) -> Option<Result<usize>> {
        let _ = (request, arg);
        None
    }
    /// The memory that it shares with its program by mmap(2). `ENODEV` where it has none to share, `EINVAL` where there is none yet.
    fn memory(&self) -> Result<Arc<PageCache>> {
        Err(Errno::ENODEV)
    }
    /// SO_PEERCRED.
    fn peer_credentials(&self) -> Ucred {
        Ucred::NOBODY
    }
    /// SO_PEERGROUPS. `ENODATA`.
    fn peer_groups(&self) -> Result<Vec<u32>> {
        Err(Errno::ENODATA)
    }
    /// SO_ACCEPTCONN.
    fn is_listening(&self) -> bool;
    /// Takes the pending error (SO_ERROR).
    fn take_error(&self) -> Option<Errno>;
    /// The last descriptor is gone.
    fn close(&self);
}

/// The error of a wait that ended early: `EAGAIN` for the socket's timeout; a signal restarts the call only where there is no timeout.
pub(crate) fn wait_error(error: sched::WaitError, timed: bool) -> Errno {
    match error {
        sched::WaitError::TimedOut => Errno::EAGAIN,
        sched::WaitError::Interrupted if timed => Errno::EINTR,
        sched::WaitError::Interrupted => Errno::ERESTARTSYS,
    }
}

/// When a wait with a socket's timeout ends.
pub(crate) fn deadline(timeout: Nanos) -> Option<Nanos> {
    (timeout != 0).then(|| sched::time::now().saturating_add(timeout))
}
