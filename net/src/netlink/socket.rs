//! Netlink sockets themselves: addresses, groups, and messages that wait.

use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use base::{Capability, Errno, Events, Result};
use fs::PollTable;
use hal::sync::SpinLock;
use mm::{Sink, Source};
use sched::{Sleep, WaitQueue};

use super::message::{Reply, Request};
use super::{NETLINK_GENERIC, NETLINK_ROUTE, NETLINK_SOCK_DIAG, answer_route, diag, generic};
use crate::AF_NETLINK;
use crate::options::Options;
use crate::socket::{
    Caller, ControlMessage, MessageFlags, Outgoing, Received, Shutdown, Socket, SocketKind, wait_error,
};

const NETLINK_USERSOCK: i32 = 2;
const NETLINK_KOBJECT_UEVENT: i32 = 15;

/// The highest group that a socket can join.
const GROUPS_MAX: u32 = 64;
/// The longest request.
const REQUEST_MAX: usize = 1 << 16;

/// A message that waits.
#[derive(Clone)]
struct Waiting {
    data: Vec<u8>,
    /// Who sent it, and to which group.
    from: (u32, u32),
    /// It counts against the socket's buffer; parts of a dump don't, since a socket has one dump at a time.
    counted: bool,
}

struct State {
    /// Our number; 0 while not bound.
    port: u32,
    /// One bit for each group, from 1.
    groups: u64,
    remote: (u32, u32),
    inbox: VecDeque<Waiting>,
    bytes: usize,
    /// Parts of a dump that wait.
    dumping: usize,
    drops: u32,
    /// Answers were lost for lack of room.
    overrun: bool,
}

impl State {
    /// Takes the next message out.
    fn take(&mut self) -> Option<Waiting> {
        let message = self.inbox.pop_front()?;
        if message.counted {
            self.bytes -= message.data.len();
        } else {
            self.dumping -= 1;
        }
        Some(message)
    }
}

/// Who asks, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Authority {
    /// May administer the network.
    pub(crate) admin: bool,
    pid: i32,
}

impl Authority {
    fn of(caller: &Caller) -> Authority {
        Authority { admin: caller.fs.cred.capable(Capability::NetAdmin), pid: caller.pid }
    }
}

/// A netlink socket.
pub struct NetlinkSocket {
    me: Weak<NetlinkSocket>,
    kind: SocketKind,
    protocol: i32,
    options: Options,
    creator: Authority,
    state: SpinLock<State>,
    flags: AtomicU32,
    news: Arc<WaitQueue>,
}

static NEXT_PORT: AtomicU32 = AtomicU32::new(0xffff_f000);
static SOCKETS: SpinLock<Vec<Weak<NetlinkSocket>>> = SpinLock::new(Vec::new());
/// Sockets that are in some group, so that nothing is told while nobody listens.
static LISTENERS: AtomicUsize = AtomicUsize::new(0);

/// Tells a group of sockets something.
pub(crate) fn publish(protocol: i32, group: u32, message: impl FnOnce() -> Vec<u8>) {
    if LISTENERS.load(Ordering::Relaxed) == 0 {
        return;
    }
    let listens = |s: &Arc<NetlinkSocket>| s.protocol == protocol && s.state.lock().groups & 1 << (group - 1) != 0;
    let listeners: Vec<_> = NetlinkSocket::others().into_iter().filter(listens).collect();
    if listeners.is_empty() {
        return;
    }
    let data = message();
    for socket in listeners {
        socket.queue(Waiting { data: data.clone(), from: (0, group), counted: true });
    }
}

/// `struct sockaddr_nl`.
fn address(port: u32, groups: u32) -> Vec<u8> {
    let mut out = (AF_NETLINK as u16).to_ne_bytes().to_vec();
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&port.to_ne_bytes());
    out.extend_from_slice(&groups.to_ne_bytes());
    out
}

fn parse(address: &[u8]) -> Result<(u32, u32)> {
    let raw: &[u8; 12] = address.first_chunk().ok_or(Errno::EINVAL)?;
    if i32::from(u16::from_ne_bytes([raw[0], raw[1]])) != AF_NETLINK {
        return Err(Errno::EINVAL);
    }
    let word = |at: usize| u32::from_ne_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
    Ok((word(4), word(8)))
}

impl NetlinkSocket {
    /// A socket for that protocol. `ESOCKTNOSUPPORT`, `EPROTONOSUPPORT`.
    pub fn create(caller: &Caller, kind: i32, protocol: i32) -> Result<Arc<NetlinkSocket>> {
        let kind = match kind {
            2 => SocketKind::Datagram,
            3 => SocketKind::Raw,
            _ => return Err(Errno::ESOCKTNOSUPPORT),
        };
        match protocol {
            NETLINK_ROUTE | NETLINK_USERSOCK | NETLINK_SOCK_DIAG | NETLINK_KOBJECT_UEVENT | NETLINK_GENERIC => {}
            _ => return Err(Errno::EPROTONOSUPPORT),
        }
        let socket = Arc::new_cyclic(|me| NetlinkSocket {
            me: me.clone(),
            kind,
            protocol,
            options: Options::default(),
            creator: Authority::of(caller),
            state: SpinLock::new(State {
                port: 0,
                groups: 0,
                remote: (0, 0),
                inbox: VecDeque::new(),
                bytes: 0,
                dumping: 0,
                drops: 0,
                overrun: false,
            }),
            flags: AtomicU32::new(0),
            news: Arc::new(WaitQueue::new()),
        });
        let mut sockets = SOCKETS.lock();
        sockets.retain(|other| other.strong_count() > 0);
        sockets.push(Arc::downgrade(&socket));
        drop(sockets);
        Ok(socket)
    }

    fn others() -> Vec<Arc<NetlinkSocket>> {
        SOCKETS.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Takes a number: the process's, if no other socket has it. `EADDRINUSE`.
    fn take_port(&self, wanted: u32, pid: u32) -> Result<()> {
        if self.state.lock().port != 0 {
            return Ok(());
        }
        let taken = |port: u32| {
            NetlinkSocket::others().iter().any(|s| {
                !core::ptr::eq(Arc::as_ptr(s), self) && s.protocol == self.protocol && s.state.lock().port == port
            })
        };
        let port = match wanted {
            0 if pid != 0 && !taken(pid) => pid,
            0 => loop {
                let next = NEXT_PORT.fetch_sub(1, Ordering::Relaxed);
                if next != 0 && !taken(next) {
                    break next;
                }
            },
            port if taken(port) => return Err(Errno::EADDRINUSE),
            port => port,
        };
        self.state.lock().port = port;
        Ok(())
    }

    fn queue(&self, message: Waiting) {
        const NO_ENOBUFS: u32 = 5;
        let limit = self.options.receive_buffer.load(Ordering::Relaxed);
        let mut state = self.state.lock();
        let full = message.counted && state.bytes + message.data.len() > limit && state.bytes > 0;
        if full || state.inbox.try_reserve(1).is_err() {
            state.overrun = self.flags.load(Ordering::Relaxed) & 1 << NO_ENOBUFS == 0;
            state.drops += 1;
        } else {
            if message.counted {
                state.bytes += message.data.len();
            } else {
                state.dumping += 1;
            }
            state.inbox.push_back(message);
        }
        drop(state);
        self.news.wake_for(Events::READABLE, 1);
    }

    /// Puts bytes from the kernel into its inbox. Does not sleep.
    pub fn put(&self, data: &[u8]) {
        self.queue(Waiting { data: data.to_vec(), from: (0, 0), counted: true });
    }

    fn is_set(&self, option: u32) -> bool {
        self.flags.load(Ordering::Relaxed) & 1 << option != 0
    }

    /// What tables of sockets show: protocol, number, groups, bytes and messages that wait, messages that were lost.
    pub(crate) fn summary(&self) -> (i32, u32, u64, usize, u32) {
        let state = self.state.lock();
        (self.protocol, state.port, state.groups, state.bytes, state.drops)
    }

    /// Who it is connected to: port and groups.
    pub(crate) fn remote(&self) -> (u32, u32) {
        self.state.lock().remote
    }

    /// All of them.
    pub(crate) fn all() -> Vec<Arc<NetlinkSocket>> {
        NetlinkSocket::others()
    }

    /// Anyone may listen to routes, sockets and events; other protocols' groups are the administrator's. `EPERM`.
    fn check_listening(&self, caller: &Authority) -> Result<()> {
        if self.protocol == NETLINK_USERSOCK && !caller.admin { Err(Errno::EPERM) } else { Ok(()) }
    }

    /// Joins or leaves a group. `EINVAL`, `EPERM`.
    fn member(&self, caller: &Authority, group: u32, join: bool) -> Result<()> {
        self.check_listening(caller)?;
        if group == 0 || group > GROUPS_MAX {
            return Err(Errno::EINVAL);
        }
        self.set_groups(|groups| if join { groups | 1 << (group - 1) } else { groups & !(1 << (group - 1)) });
        Ok(())
    }

    fn set_groups(&self, change: impl FnOnce(u64) -> u64) {
        let mut state = self.state.lock();
        let before = state.groups;
        state.groups = change(before);
        match (before, state.groups) {
            (0, 1..) => LISTENERS.fetch_add(1, Ordering::Relaxed),
            (1.., 0) => LISTENERS.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
    }

    /// Answers all requests in a message.
    fn answer(&self, caller: &Authority, data: &[u8]) {
        let port = self.state.lock().port;
        let mut rest = data;
        while let Some((request, next)) = Request::parse(rest) {
            rest = next;
            if !request.is_request() {
                continue;
            }
            const CAP_ACK: u32 = 10;
            const GET_STRICT_CHK: u32 = 12;
            let mut reply = Reply::new(request.header.seq, port);
            reply.capped = self.is_set(CAP_ACK);
            reply.strict = self.is_set(GET_STRICT_CHK);
            let busy = request.is_dump() && self.state.lock().dumping > 0;
            let result = match self.protocol {
                _ if busy => Err(Errno::EBUSY),
                NETLINK_ROUTE => answer_route(caller, &request, &mut reply),
                NETLINK_SOCK_DIAG => diag::answer(caller, &request, &mut reply),
                NETLINK_GENERIC => generic::answer(caller, &request, &mut reply),
                _ => Err(Errno::EOPNOTSUPP),
            };
            let counted = !request.is_dump() || result.is_err();
            for data in reply.finish(&request, result) {
                self.queue(Waiting { data, from: (0, 0), counted });
            }
        }
    }

    /// A message to another program's socket, or to a group of them. `ECONNREFUSED`, `EPERM`.
    fn pass_on(&self, caller: &Authority, to: (u32, u32), data: Vec<u8>) -> Result<usize> {
        if self.protocol != NETLINK_USERSOCK && !caller.admin {
            return Err(Errno::EPERM);
        }
        let len = data.len();
        let from = self.state.lock().port;
        let others = NetlinkSocket::others();
        let others = others.iter().filter(|s| s.protocol == self.protocol && !core::ptr::eq(Arc::as_ptr(s), self));
        let mut found = to.0 == 0;
        for socket in others {
            let (port, groups) = {
                let state = socket.state.lock();
                (state.port, state.groups as u32)
            };
            let direct = to.0 != 0 && port == to.0;
            if direct || groups & to.1 != 0 {
                found |= direct;
                let group = if direct { 0 } else { (groups & to.1).trailing_zeros() + 1 };
                socket.queue(Waiting { data: data.clone(), from: (from, group), counted: true });
            }
        }
        if found { Ok(len) } else { Err(Errno::ECONNREFUSED) }
    }

    /// The next message; with `peek` it stays.
    fn next(&self, peek: bool, nonblocking: bool) -> Result<Waiting> {
        let deadline = self.options.receive_deadline();
        let attempt = || {
            let mut state = self.state.lock();
            if core::mem::take(&mut state.overrun) {
                return Some(Err(Errno::ENOBUFS));
            }
            let message = if peek { state.inbox.front().cloned() } else { state.take() };
            message.map(Ok).or(nonblocking.then_some(Err(Errno::EAGAIN)))
        };
        let waited = self.news.wait_exclusive(Sleep::Interruptible, deadline, attempt);
        waited.map_err(|e| wait_error(e, deadline.is_some()))?
    }
}

impl Socket for NetlinkSocket {
    fn family(&self) -> i32 {
        AF_NETLINK
    }

    fn kind(&self) -> SocketKind {
        self.kind
    }

    fn protocol(&self) -> i32 {
        self.protocol
    }

    fn options(&self) -> &Options {
        &self.options
    }

    fn bind(&self, caller: &Caller, address: &[u8]) -> Result<()> {
        let (port, groups) = parse(address)?;
        if groups != 0 {
            self.check_listening(&Authority::of(caller))?;
        }
        let bound = self.state.lock().port;
        if bound != 0 && port != bound {
            return Err(Errno::EINVAL);
        }
        self.take_port(port, caller.pid as u32)?;
        if groups != 0 {
            self.set_groups(|old| old & !0xffff_ffff | u64::from(groups));
        }
        Ok(())
    }

    fn connect(&self, caller: &Caller, address: &[u8], _nonblocking: bool) -> Result<()> {
        if address.first_chunk() == Some(&[0, 0]) {
            self.state.lock().remote = (0, 0);
            return Ok(());
        }
        let remote = parse(address)?;
        if remote != (0, 0) && self.protocol != NETLINK_USERSOCK && !Authority::of(caller).admin {
            return Err(Errno::EPERM);
        }
        self.take_port(0, caller.pid as u32)?;
        self.state.lock().remote = remote;
        Ok(())
    }

    fn listen(&self, _caller: &Caller, _backlog: i32) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn accept(&self, _nonblocking: bool) -> Result<Arc<dyn Socket>> {
        Err(Errno::EOPNOTSUPP)
    }

    fn shutdown(&self, _how: Shutdown) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn name(&self) -> Vec<u8> {
        let state = self.state.lock();
        address(state.port, state.groups as u32)
    }

    fn peer_name(&self) -> Result<Vec<u8>> {
        let (port, groups) = self.state.lock().remote;
        Ok(address(port, groups))
    }

    fn send(
        &self,
        caller: Option<&Caller>,
        source: &mut Source,
        message: Outgoing,
        _nonblocking: bool,
    ) -> Result<usize> {
        if message.flags.contains(MessageFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let to = match message.to {
            Some(raw) => parse(raw)?,
            None => self.state.lock().remote,
        };
        // For write(2) the rights of who made the socket count.
        let caller = &caller.map_or(self.creator, Authority::of);
        let len = source.remaining();
        if len > REQUEST_MAX {
            return Err(Errno::EMSGSIZE);
        }
        self.take_port(0, caller.pid as u32)?;
        let mut data = alloc::vec![0; len];
        if len > 0 && source.take(&mut data)? < len {
            return Err(Errno::EFAULT);
        }
        if to != (0, 0) {
            return self.pass_on(caller, to, data);
        }
        self.answer(caller, &data);
        Ok(len)
    }

    fn receive(&self, sink: &mut Sink, flags: MessageFlags, nonblocking: bool) -> Result<Received> {
        if flags.contains(MessageFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let nonblocking = nonblocking || flags.contains(MessageFlags::DONTWAIT);
        let next = self.next(flags.contains(MessageFlags::PEEK), nonblocking)?;
        let Waiting { data: message, from: (port, group), .. } = next;
        let stored = if sink.remaining() == 0 { 0 } else { sink.put(&message)? };
        let groups = if (1..=32).contains(&group) { 1 << (group - 1) } else { 0 };
        let mut received = Received { len: stored, from: address(port, groups), ..Received::default() };
        if stored < message.len() {
            received.flags |= MessageFlags::TRUNC;
            if flags.contains(MessageFlags::TRUNC) {
                received.len = message.len();
            }
        }
        const NETLINK_PKTINFO: i32 = 3;
        const SOL_NETLINK: i32 = 270;
        if self.flags.load(Ordering::Relaxed) & 1 << NETLINK_PKTINFO != 0 {
            let data = group.to_ne_bytes().to_vec();
            received.control.messages.push(ControlMessage { level: SOL_NETLINK, kind: NETLINK_PKTINFO, data });
        }
        Ok(received)
    }

    fn poll(&self, table: &mut PollTable) -> Events {
        table.register(&self.news);
        let mut ready = Events::WRITABLE | Events::WRBAND;
        let state = self.state.lock();
        if !state.inbox.is_empty() {
            ready |= Events::READABLE;
        }
        if state.overrun {
            ready |= Events::ERR;
        }
        ready
    }

    fn queued(&self) -> Result<(usize, usize)> {
        Ok((self.state.lock().inbox.front().map_or(0, |m| m.data.len()), 0))
    }

    fn set_option(&self, caller: &Caller, level: i32, name: i32, value: &[u8]) -> Option<Result<()>> {
        const SOL_NETLINK: i32 = 270;
        const ADD_MEMBERSHIP: i32 = 1;
        const DROP_MEMBERSHIP: i32 = 2;
        if level != SOL_NETLINK {
            return None;
        }
        let Some(word) = value.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b)) else {
            return Some(Err(Errno::EINVAL));
        };
        Some(match name {
            ADD_MEMBERSHIP | DROP_MEMBERSHIP => self.member(&Authority::of(caller), word, name == ADD_MEMBERSHIP),
            // PKTINFO, BROADCAST_ERROR, NO_ENOBUFS, LISTEN_ALL_NSID, CAP_ACK, EXT_ACK, GET_STRICT_CHK.
            3..=5 | 8 | 10..=12 => {
                let bit = 1u32 << name;
                if word != 0 {
                    self.flags.fetch_or(bit, Ordering::Relaxed);
                } else {
                    self.flags.fetch_and(!bit, Ordering::Relaxed);
                }
                Ok(())
            }
            _ => Err(Errno::ENOPROTOOPT),
        })
    }

    fn get_option(&self, level: i32, name: i32) -> Option<Result<Vec<u8>>> {
        const SOL_NETLINK: i32 = 270;
        if level != SOL_NETLINK {
            return None;
        }
        match name {
            // NETLINK_LIST_MEMBERSHIPS.
            9 => Some(Ok(self.state.lock().groups.to_ne_bytes().to_vec())),
            3..=5 | 8 | 10..=12 => {
                let on = i32::from(self.flags.load(Ordering::Relaxed) & 1 << name != 0);
                Some(Ok(on.to_ne_bytes().to_vec()))
            }
            _ => Some(Err(Errno::ENOPROTOOPT)),
        }
    }

    fn is_listening(&self) -> bool {
        false
    }

    fn take_error(&self) -> Option<Errno> {
        None
    }

    fn close(&self) {
        let me = self.me.clone();
        self.set_groups(|_| 0);
        SOCKETS.lock().retain(|other| !Weak::ptr_eq(other, &me));
        self.state.lock().inbox.clear();
    }
}
