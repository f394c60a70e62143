//! Unix sockets (unix(7)): stream, datagram and seqpacket; addresses in the file system, abstract ones, and none.
//!
//! Each socket has an inbox that its peers put messages into. A connected pair knows each other weakly: what keeps a socket alive is its
//! file alone (or the backlog of the listener that has not accepted it yet).

mod address;
mod connection;
mod garbage;
mod inbox;
mod inflight;
mod names;
mod transfer;

use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use base::{Errno, Events, Result};
use fs::PollTable;
use hal::sync::SpinLock;
use hal::user::UserPtr;
use mm::{Sink, Source};
use sched::WaitQueue;

use crate::AF_UNIX;
use crate::options::Options;
use crate::socket::{Caller, MessageFlags, Outgoing, Received, Shutdown, Socket, SocketKind, Ucred};
use address::Address;
use inbox::Inbox;

/// Messages that wait for a datagram socket at most (`net.unix.max_dgram_qlen`).
const DATAGRAMS_MAX: usize = 10;

/// What a socket is connected to.
struct State {
    address: Option<Address>,
    /// The inode that its path names, so that the name dies with the socket.
    bound: Option<Arc<fs::Inode>>,
    peer: Option<Weak<UnixSocket>>,
    /// The name of a peer that has gone.
    late_peer: Option<Vec<u8>>,
    /// A stream that was connected once stays so, even if the peer is gone.
    connected: bool,
    /// Connections that wait to be accepted, while it listens.
    backlog: Option<Backlog>,
    peer_credentials: Ucred,
    peer_groups: Option<Arc<[u32]>>,
    /// As of the call of listen or connect: what the other side sees.
    own_credentials: (Ucred, Option<Arc<[u32]>>),
    error: Option<Errno>,
}

struct Backlog {
    waiting: VecDeque<Arc<UnixSocket>>,
    max: usize,
}

/// What tables of sockets show of one.
pub(crate) struct Summary {
    pub(crate) inode: u64,
    pub(crate) kind: i32,
    /// TCP's number of the state.
    pub(crate) state: u8,
    pub(crate) name: Option<Vec<u8>>,
    /// Device and inode of its file.
    pub(crate) file: Option<(u32, u64)>,
    pub(crate) peer: Option<u64>,
    /// The inodes of connections that wait.
    pub(crate) waiting: Option<Vec<u64>>,
    /// Bytes to be received, for a listener connections that wait and how many may.
    pub(crate) queues: (usize, usize),
    pub(crate) shutdown: u8,
}

/// A unix socket.
pub struct UnixSocket {
    me: Weak<UnixSocket>,
    kind: SocketKind,
    options: Options,
    state: SpinLock<State>,
    inbox: SpinLock<Inbox>,
    /// Held while messages are taken out, so that a stream's bytes stay in order.
    reading: sched::Mutex<()>,
    /// This end has shut down writing.
    mute: AtomicBool,
    /// Waited on for messages, connections, and news of the connection.
    news: Arc<WaitQueue>,
    /// Waited on by those who send here, for room.
    room: Arc<WaitQueue>,
}

impl UnixSocket {
    fn new(kind: SocketKind, own: (Ucred, Option<Arc<[u32]>>)) -> Arc<UnixSocket> {
        Arc::new_cyclic(|me| UnixSocket {
            me: me.clone(),
            kind,
            options: Options::default(),
            state: SpinLock::new(State {
                address: None,
                bound: None,
                peer: None,
                late_peer: None,
                connected: false,
                backlog: None,
                peer_credentials: Ucred::NOBODY,
                peer_groups: None,
                own_credentials: own,
                error: None,
            }),
            inbox: SpinLock::new(Inbox::default()),
            reading: sched::Mutex::new(()),
            mute: AtomicBool::new(false),
            news: Arc::new(WaitQueue::new()),
            room: Arc::new(WaitQueue::new()),
        })
    }

    /// A socket of that type. `ESOCKTNOSUPPORT`, `EPROTONOSUPPORT`.
    pub fn create(caller: &Caller, kind: i32, protocol: i32) -> Result<Arc<UnixSocket>> {
        const RAW: i32 = 3;
        if protocol != 0 && protocol != AF_UNIX {
            return Err(Errno::EPROTONOSUPPORT);
        }
        let kind = match kind {
            1 => SocketKind::Stream,
            // Linux, too, takes SOCK_RAW for SOCK_DGRAM here.
            2 | RAW => SocketKind::Datagram,
            5 => SocketKind::SeqPacket,
            _ => return Err(Errno::ESOCKTNOSUPPORT),
        };
        Ok(UnixSocket::new(kind, own_credentials(caller)))
    }

    /// socketpair(2): two that are connected.
    pub fn pair(caller: &Caller, kind: i32, protocol: i32) -> Result<[Arc<UnixSocket>; 2]> {
        let pair = [UnixSocket::create(caller, kind, protocol)?, UnixSocket::create(caller, kind, protocol)?];
        for (one, other) in [(0, 1), (1, 0)] {
            pair[one].state.lock().join(&pair[other], own_credentials(caller));
        }
        Ok(pair)
    }

    /// What tables of sockets show.
    pub(crate) fn summary(&self) -> Summary {
        const ESTABLISHED: u8 = 1;
        const CLOSED: u8 = 7;
        const LISTENING: u8 = 10;
        let number = |socket: &UnixSocket| socket.options.inode.load(Ordering::Relaxed);
        let state = self.state.lock();
        let shown = match (&state.backlog, state.connected || state.peer.is_some()) {
            (Some(_), _) => LISTENING,
            (None, true) => ESTABLISHED,
            (None, false) => CLOSED,
        };
        let peer = state.peer.as_ref().and_then(Weak::upgrade);
        let mut summary = Summary {
            inode: number(self),
            kind: self.kind as i32,
            state: shown,
            // As in the address: without a path's NUL, with an abstract name's.
            name: state.address.as_ref().map(|address| address.encode()[2..].to_vec()),
            file: state.bound.as_ref().map(|inode| (0, inode.number())),
            peer: peer.as_ref().map(|peer| number(peer)),
            waiting: state.backlog.as_ref().map(|b| b.waiting.iter().map(|s| number(s)).collect()),
            queues: state.backlog.as_ref().map_or((0, 0), |b| (b.waiting.len(), b.max)),
            shutdown: 0,
        };
        drop(state);
        let inbox = self.inbox.lock();
        if shown != LISTENING {
            summary.queues.0 = inbox.bytes();
        }
        summary.shutdown = u8::from(inbox.ended) | u8::from(self.mute.load(Ordering::Relaxed)) << 1;
        summary
    }

    fn is_datagram(&self) -> bool {
        self.kind == SocketKind::Datagram
    }

    fn peer(&self) -> Option<Arc<UnixSocket>> {
        self.state.lock().peer.as_ref()?.upgrade()
    }

    /// Could the inbox take something more from a sender with that much buffer?
    fn has_room(&self, limit: usize) -> bool {
        let inbox = self.inbox.lock();
        inbox.refuses || inbox.bytes() < limit && (!self.is_datagram() || inbox.len() <= DATAGRAMS_MAX)
    }

    fn announce(&self, events: Events) {
        self.news.wake_for(events, if events.contains(Events::HUP) { usize::MAX } else { 1 });
    }

    /// The other end will send nothing more.
    fn end(&self, error: Option<Errno>) {
        self.inbox.lock().ended = true;
        if error.is_some() {
            self.state.lock().error = error;
        }
        self.announce(Events::READABLE | Events::RDHUP | Events::HUP);
        self.room.wake_all();
    }
}

fn own_credentials(caller: &Caller) -> (Ucred, Option<Arc<[u32]>>) {
    (caller.effective(), Some(caller.fs.cred.groups.clone()))
}

impl State {
    /// Connects with `peer`, which has those credentials.
    fn join(&mut self, peer: &Arc<UnixSocket>, credentials: (Ucred, Option<Arc<[u32]>>)) {
        self.peer = Some(Arc::downgrade(peer));
        self.connected = true;
        (self.peer_credentials, self.peer_groups) = credentials;
    }
}

impl Socket for UnixSocket {
    fn family(&self) -> i32 {
        AF_UNIX
    }

    fn kind(&self) -> SocketKind {
        self.kind
    }

    fn options(&self) -> &Options {
        &self.options
    }

    fn bind(&self, caller: &Caller, address: &[u8]) -> Result<()> {
        names::bind(self, caller, Address::parse(address)?)
    }

    fn connect(&self, caller: &Caller, address: &[u8], nonblocking: bool) -> Result<()> {
        connection::connect(self, caller, address, nonblocking)
    }

    fn listen(&self, caller: &Caller, backlog: i32) -> Result<()> {
        connection::listen(self, caller, backlog)
    }

    fn accept(&self, nonblocking: bool) -> Result<Arc<dyn Socket>> {
        Ok(connection::accept(self, nonblocking)?)
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        connection::shutdown(self, how)
    }

    fn name(&self) -> Vec<u8> {
        self.state.lock().address.clone().unwrap_or(Address::Unnamed).encode()
    }

    fn peer_name(&self) -> Result<Vec<u8>> {
        match self.peer() {
            Some(peer) => Ok(peer.name()),
            None => self.state.lock().late_peer.clone().ok_or(Errno::ENOTCONN),
        }
    }

    fn send(
        &self,
        caller: Option<&Caller>,
        source: &mut Source,
        message: Outgoing,
        nonblocking: bool,
    ) -> Result<usize> {
        transfer::send(self, caller, source, message, nonblocking)
    }

    fn receive(&self, sink: &mut Sink, flags: MessageFlags, nonblocking: bool) -> Result<Received> {
        transfer::receive(self, sink, flags, nonblocking)
    }

    fn poll(&self, table: &mut PollTable) -> Events {
        transfer::poll(self, table)
    }

    fn queued(&self) -> Result<(usize, usize)> {
        if self.is_listening() {
            return Err(Errno::EINVAL);
        }
        let unsent = self.peer().map_or(0, |peer| peer.inbox.lock().bytes());
        let inbox = self.inbox.lock();
        let readable = if self.kind == SocketKind::Stream { inbox.bytes() } else { inbox.first_len() };
        Ok((readable, if self.kind == SocketKind::Stream { unsent } else { 0 }))
    }

    fn ioctl(&self, request: u32, arg: usize) -> Option<Result<usize>> {
        const SIOCATMARK: u32 = 0x8905;
        if request != SIOCATMARK || self.kind != SocketKind::Stream {
            return None;
        }
        let at_mark = self.inbox.lock().at_mark();
        Some(UserPtr::new(arg).write(&i32::from(at_mark)).map(|()| 0))
    }

    fn peer_credentials(&self) -> Ucred {
        self.state.lock().peer_credentials
    }

    fn peer_groups(&self) -> Result<Vec<u32>> {
        let groups = self.state.lock().peer_groups.clone().ok_or(Errno::ENODATA)?;
        Ok(groups.to_vec())
    }

    fn is_listening(&self) -> bool {
        self.state.lock().backlog.is_some()
    }

    fn take_error(&self) -> Option<Errno> {
        self.state.lock().error.take()
    }

    fn close(&self) {
        connection::close(self);
        garbage::collect();
    }
}

impl UnixSocket {
    fn is_mute(&self) -> bool {
        self.mute.load(Ordering::Acquire)
    }
}
