//! Sockets between a machine and its host, and inside one machine (vsock(7)): streams and sequences of messages, by loopback.
//!
//! [`wire`] carries packets of virtio's protocol, [`protocol`] is what they do to a connection, [`transfer`] what programs send and receive,
//! [`table`] who is bound to what. A sender sends no more than the other end has told to have room for.
//!
//! Lock order: a socket's reader lock (sleeps) -> its state (never two) -> the tables, the line. Packets go over the line under the carrier's lock
//! (sleeps) alone.

mod address;
mod protocol;
mod table;
mod transfer;
mod wire;

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use base::{Capability, Errno, Events, NANOS_PER_SEC, Result};
use fs::chardev::OpenWith;
use fs::{DeviceNumber, File, FileKind, Io, IoctlContext, OpenFlags, PollTable};
use hal::sync::SpinLock;
use hal::user::UserPtr;
use mm::{Sink, Source};
use sched::{Sleep, WaitQueue};

use crate::options::{Options, level};
use crate::socket::{Caller, MessageFlags, Outgoing, Received, Shutdown, Socket, SocketKind, wait_error};
pub(crate) use address::Address;
use address::{ANY, HOST, LOCAL};
use protocol::{Phase, RECEIVE, SEND, State};
use wire::Op;

/// AF_VSOCK, which is also the level of its options.
pub const AF_VSOCK: i32 = 40;

const BUFFER_SIZE: i32 = 0;
const BUFFER_LEAST: i32 = 1;
const BUFFER_MOST: i32 = 2;
/// SO_VM_SOCKETS_CONNECT_TIMEOUT, as it was numbered first, and with 64 bits of time.
const CONNECT_TIMEOUT: [i32; 2] = [6, 8];

/// A socket of this family.
pub struct VsockSocket {
    me: Weak<VsockSocket>,
    kind: SocketKind,
    options: Options,
    state: SpinLock<State>,
    /// Held while a stream's bytes are taken out, so that they stay in order.
    reading: sched::Mutex<()>,
    /// Waited on for data, connections, and the end.
    news: Arc<WaitQueue>,
    /// Waited on for room at the other end.
    room: Arc<WaitQueue>,
}

/// What tables of sockets show of one.
pub(crate) struct Summary {
    /// TCP's number of the state.
    pub(crate) state: u8,
    pub(crate) shutdown: u8,
    pub(crate) local: Address,
    pub(crate) remote: Address,
}

impl VsockSocket {
    fn new(kind: SocketKind, state: State) -> Arc<VsockSocket> {
        Arc::new_cyclic(|me| VsockSocket {
            me: me.clone(),
            kind,
            options: Options::default(),
            state: SpinLock::new(state),
            reading: sched::Mutex::new(()),
            news: Arc::new(WaitQueue::new()),
            room: Arc::new(WaitQueue::new()),
        })
    }

    /// A socket of that type. `EPROTONOSUPPORT`, `ESOCKTNOSUPPORT`; `ENODEV` for datagrams, which the loopback does not carry.
    pub fn create(kind: i32, protocol: i32) -> Result<Arc<VsockSocket>> {
        if protocol != 0 && protocol != AF_VSOCK {
            return Err(Errno::EPROTONOSUPPORT);
        }
        let kind = match kind {
            1 => SocketKind::Stream,
            2 => return Err(Errno::ENODEV),
            5 => SocketKind::SeqPacket,
            _ => return Err(Errno::ESOCKTNOSUPPORT),
        };
        Ok(VsockSocket::new(kind, State::new()))
    }

    fn announce(&self, events: Events) {
        self.news.wake_for(events, usize::MAX);
        self.room.wake_for(events, usize::MAX);
    }

    /// All sockets that are bound or connected.
    pub(crate) fn all() -> Vec<Arc<VsockSocket>> {
        table::all()
    }

    /// What tables of sockets show.
    pub(crate) fn summary(&self) -> Summary {
        let state = self.state.lock();
        let shown = match state.phase {
            Phase::Established => 1,
            Phase::Connecting => 2,
            Phase::Closed => 7,
            Phase::Listening => 10,
            Phase::Closing => 11,
        };
        Summary { state: shown, shutdown: state.shut as u8, local: state.local, remote: state.remote }
    }

    /// Waits for the answer to a request that was sent.
    fn wait_connected(&self, nonblocking: bool) -> Result<()> {
        let patience = self.state.lock().patience;
        let deadline = sched::time::now().saturating_add(patience);
        let attempt = || {
            let mut state = self.state.lock();
            match (state.error.take(), state.phase) {
                (Some(error), _) => Some(Err(error)),
                (None, Phase::Connecting) => nonblocking.then_some(Err(Errno::EINPROGRESS)),
                (None, Phase::Closed) => Some(Err(Errno::ECONNRESET)),
                _ => Some(Ok(())),
            }
        };
        self.room.wait_until(Sleep::Interruptible, Some(deadline), attempt).unwrap_or_else(|error| {
            self.state.lock().phase = Phase::Closed;
            Err(match wait_error(error, false) {
                Errno::EAGAIN => Errno::ETIMEDOUT,
                error => error,
            })
        })
    }

    /// Sets a buffer's size or a bound of it; the size stays between the bounds.
    fn set_size(&self, name: i32, value: u64) {
        let mut state = self.state.lock();
        let size = if name == BUFFER_SIZE { value } else { state.size };
        match name {
            BUFFER_LEAST => state.least = value,
            BUFFER_MOST => state.most = value,
            _ => {}
        }
        // As Linux: where the bounds contradict each other the larger one counts.
        state.size = size.min(state.most).max(state.least);
    }

    /// Takes it out of the tables, and tells the other end, which will hear no more.
    fn end(&self) {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Established if !state.done => {
                state.put(self.kind, Op::Shutdown, RECEIVE | SEND, Vec::new());
            }
            Phase::Connecting => {
                state.put(self.kind, Op::Reset, 0, Vec::new());
            }
            _ => {}
        }
        state.phase = Phase::Closed;
        state.shut = RECEIVE | SEND;
        let waiting = core::mem::take(&mut state.waiting);
        let unread = core::mem::take(&mut state.inbox);
        let (remote, local) = (state.remote, state.local);
        drop(state);
        drop(unread);
        table::remove(self, remote, local);
        waiting.iter().for_each(|child| child.end());
    }
}

/// Which context of those that exist carries packets to `cid`? Without a device only the loopback does. `ENODEV`.
fn check_reachable(cid: u32) -> Result<()> {
    if matches!(cid, LOCAL | HOST) { Ok(()) } else { Err(Errno::ENODEV) }
}

fn word(value: &[u8]) -> Result<u64> {
    value.first_chunk().map(|raw| u64::from_ne_bytes(*raw)).ok_or(Errno::EINVAL)
}

impl Socket for VsockSocket {
    fn family(&self) -> i32 {
        AF_VSOCK
    }

    fn kind(&self) -> SocketKind {
        self.kind
    }

    fn options(&self) -> &Options {
        &self.options
    }

    fn bind(&self, caller: &Caller, address: &[u8]) -> Result<()> {
        let address = Address::parse(address)?;
        let mut state = self.state.lock();
        if state.local != Address::UNSPECIFIED {
            return Err(Errno::EINVAL);
        }
        if !matches!(address.cid, ANY | LOCAL) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        if address.port <= table::LAST_RESERVED && !caller.fs.cred.capable(Capability::NetBindService) {
            return Err(Errno::EACCES);
        }
        state.local = table::bind(self, address)?;
        Ok(())
    }

    fn connect(&self, _caller: &Caller, address: &[u8], nonblocking: bool) -> Result<()> {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Established | Phase::Closing => return Err(Errno::EISCONN),
            Phase::Connecting if nonblocking => return Err(Errno::EALREADY),
            Phase::Listening => return Err(Errno::EINVAL),
            Phase::Connecting => {}
            Phase::Closed => {
                let to = Address::parse(address)?;
                check_reachable(to.cid)?;
                if state.local == Address::UNSPECIFIED {
                    state.local = table::bind(self, Address::UNSPECIFIED)?;
                }
                *state = state.fresh(Phase::Connecting, state.local, to);
                state.put(self.kind, Op::Request, 0, Vec::new());
            }
        }
        drop(state);
        wire::run();
        self.wait_connected(nonblocking)
    }

    fn listen(&self, _caller: &Caller, backlog: i32) -> Result<()> {
        let mut state = self.state.lock();
        if !matches!(state.phase, Phase::Closed | Phase::Listening) || state.local == Address::UNSPECIFIED {
            return Err(Errno::EINVAL);
        }
        let most = crate::tcp::BACKLOG_MAX.load(Ordering::Relaxed) as usize;
        state.backlog = usize::try_from(backlog).unwrap_or(most).min(most);
        state.phase = Phase::Listening;
        Ok(())
    }

    fn accept(&self, nonblocking: bool) -> Result<Arc<dyn Socket>> {
        let deadline = self.options.receive_deadline();
        let attempt = || {
            let mut state = self.state.lock();
            if state.phase != Phase::Listening {
                return Some(Err(Errno::EINVAL));
            }
            match state.waiting.pop_front() {
                Some(child) => Some(Ok(child)),
                None => nonblocking.then_some(Err(Errno::EAGAIN)),
            }
        };
        let waited = self.news.wait_exclusive(Sleep::Interruptible, deadline, attempt);
        Ok(waited.map_err(|e| wait_error(e, deadline.is_some()))??)
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        let mut state = self.state.lock();
        if !matches!(state.phase, Phase::Established | Phase::Closing | Phase::Connecting) {
            return Err(Errno::ENOTCONN);
        }
        let halves = if how.read { RECEIVE } else { 0 } | if how.write { SEND } else { 0 };
        state.shut |= halves;
        if state.phase == Phase::Established {
            state.put(self.kind, Op::Shutdown, halves, Vec::new());
        }
        drop(state);
        wire::run();
        self.announce(Events::READABLE | Events::WRITABLE | Events::HUP | Events::RDHUP);
        Ok(())
    }

    fn name(&self) -> Vec<u8> {
        self.state.lock().local.encode()
    }

    fn peer_name(&self) -> Result<Vec<u8>> {
        let state = self.state.lock();
        let connected = matches!(state.phase, Phase::Established | Phase::Closing);
        if connected { Ok(state.remote.encode()) } else { Err(Errno::ENOTCONN) }
    }

    fn accepted_name(&self) -> Vec<u8> {
        self.state.lock().remote.encode()
    }

    fn send(&self, _: Option<&Caller>, source: &mut Source, message: Outgoing, nonblocking: bool) -> Result<usize> {
        transfer::send(self, source, &message, nonblocking)
    }

    fn receive(&self, sink: &mut Sink, flags: MessageFlags, nonblocking: bool) -> Result<Received> {
        transfer::receive(self, sink, flags, nonblocking)
    }

    fn poll(&self, table: &mut PollTable) -> Events {
        transfer::poll(self, table)
    }

    fn queued(&self) -> Result<(usize, usize)> {
        let state = self.state.lock();
        if state.phase == Phase::Listening { Err(Errno::EINVAL) } else { Ok((state.bytes, state.unread())) }
    }

    fn set_option(&self, _caller: &Caller, at: i32, name: i32, value: &[u8]) -> Option<Result<()>> {
        if at == level::SOL_SOCKET {
            return None;
        }
        Some(match name {
            _ if at != AF_VSOCK => Err(Errno::ENOPROTOOPT),
            BUFFER_SIZE | BUFFER_LEAST | BUFFER_MOST => word(value).map(|size| self.set_size(name, size)),
            _ if CONNECT_TIMEOUT.contains(&name) => set_patience(self, value),
            _ => Err(Errno::ENOPROTOOPT),
        })
    }

    fn get_option(&self, at: i32, name: i32) -> Option<Result<Vec<u8>>> {
        if at == level::SOL_SOCKET {
            return None;
        }
        let state = self.state.lock();
        let long = |n: u64| Ok(n.to_ne_bytes().to_vec());
        Some(match name {
            _ if at != AF_VSOCK => Err(Errno::ENOPROTOOPT),
            BUFFER_SIZE => long(state.size),
            BUFFER_LEAST => long(state.least),
            BUFFER_MOST => long(state.most),
            _ if CONNECT_TIMEOUT.contains(&name) => {
                let micros = state.patience % NANOS_PER_SEC / 1000;
                Ok([state.patience / NANOS_PER_SEC, micros].map(u64::to_ne_bytes).concat())
            }
            _ => Err(Errno::ENOPROTOOPT),
        })
    }

    fn is_listening(&self) -> bool {
        self.state.lock().phase == Phase::Listening
    }

    fn take_error(&self) -> Option<Errno> {
        self.state.lock().error.take()
    }

    fn close(&self) {
        self.end();
        wire::run();
    }
}

/// SO_VM_SOCKETS_CONNECT_TIMEOUT: a `struct timeval`; nothing means the default. `EINVAL`, `ERANGE`.
fn set_patience(socket: &VsockSocket, value: &[u8]) -> Result<()> {
    let (seconds, micros) = (word(value)?, word(value.get(8..).unwrap_or_default())?);
    if seconds > i32::MAX as u64 || micros >= 1_000_000 {
        return Err(Errno::ERANGE);
    }
    let wanted = seconds * NANOS_PER_SEC + micros * 1000;
    socket.state.lock().patience = if wanted == 0 { protocol::PATIENCE } else { wanted };
    Ok(())
}

/// An open `/dev/vsock`.
struct Device;

impl File for Device {
    fn read(&self, _sink: &mut Sink, _io: &mut Io) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    fn write(&self, _source: &mut Source, _io: &mut Io) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    fn poll(&self, _table: &mut PollTable) -> Events {
        fs::ALWAYS_READY
    }

    fn ioctl(&self, _cx: &IoctlContext, request: u32, arg: usize) -> Result<usize> {
        const GET_LOCAL_CID: u32 = 0x7b9;
        if request != GET_LOCAL_CID {
            return Err(Errno::ENOTTY);
        }
        // The loopback alone gives a machine no number of its own.
        UserPtr::new(arg).write(&ANY).map(|()| 0)
    }
}

/// Makes `/dev/vsock`. Once, at boot. `EBUSY`.
pub(crate) fn register() -> Result<()> {
    const NUMBER: DeviceNumber = DeviceNumber { major: 10, minor: 121 };
    let open = |_: DeviceNumber, _: &fs::FsContext, _: OpenFlags| Ok(Arc::new(Device) as Arc<dyn File>);
    fs::chardev::register("vsock", NUMBER.major, NUMBER.minor, NUMBER.minor, Arc::new(OpenWith(Box::new(open))))?;
    fs::devices::add_node("vsock", FileKind::CharDevice, 0o666, 0, NUMBER)
}
