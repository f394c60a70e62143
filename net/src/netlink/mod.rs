//! Netlink sockets (netlink(7)): requests to the kernel and its answers, as messages. [`route`] answers NETLINK_ROUTE.

mod message;
mod route;

use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use base::{Errno, Events, Result};
use fs::PollTable;
use hal::sync::SpinLock;
use mm::{Sink, Source};
use sched::{Sleep, WaitQueue};

use crate::AF_NETLINK;
use crate::options::Options;
use crate::socket::{
    Caller, ControlMessage, MessageFlags, Outgoing, Received, Shutdown, Socket, SocketKind, wait_error,
};
use message::{Reply, Request};

const NETLINK_ROUTE: i32 = 0;
const NETLINK_KOBJECT_UEVENT: i32 = 15;
/// The longest request.
const REQUEST_MAX: usize = 1 << 16;

struct State {
    /// Our number; 0 while not bound.
    port: u32,
    groups: u32,
    remote: (u32, u32),
    inbox: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Answers were lost for lack of room.
    overrun: bool,
}

/// A netlink socket.
pub struct NetlinkSocket {
    me: Weak<NetlinkSocket>,
    kind: SocketKind,
    protocol: i32,
    options: Options,
    state: SpinLock<State>,
    flags: AtomicU32,
    news: Arc<WaitQueue>,
}

static NEXT_PORT: AtomicU32 = AtomicU32::new(0xffff_f000);
static SOCKETS: SpinLock<Vec<Weak<NetlinkSocket>>> = SpinLock::new(Vec::new());

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
    pub fn create(kind: i32, protocol: i32) -> Result<Arc<NetlinkSocket>> {
        let kind = match kind {
            2 => SocketKind::Datagram,
            3 => SocketKind::Raw,
            _ => return Err(Errno::ESOCKTNOSUPPORT),
        };
        if !matches!(protocol, NETLINK_ROUTE | NETLINK_KOBJECT_UEVENT) {
            return Err(Errno::EPROTONOSUPPORT);
        }
        let socket = Arc::new_cyclic(|me| NetlinkSocket {
            me: me.clone(),
            kind,
            protocol,
            options: Options::default(),
            state: SpinLock::new(State {
                port: 0,
                groups: 0,
                remote: (0, 0),
                inbox: VecDeque::new(),
                bytes: 0,
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
            0 => NEXT_PORT.fetch_sub(1, Ordering::Relaxed),
            port if taken(port) => return Err(Errno::EADDRINUSE),
            port => port,
        };
        self.state.lock().port = port;
        Ok(())
    }

    fn queue(&self, message: Vec<u8>) {
        let limit = self.options.receive_buffer.load(Ordering::Relaxed);
        let mut state = self.state.lock();
        if state.bytes + message.len() > limit && !state.inbox.is_empty() || state.inbox.try_reserve(1).is_err() {
            state.overrun = true;
        } else {
            state.bytes += message.len();
            state.inbox.push_back(message);
        }
        drop(state);
        self.news.wake_for(Events::READABLE, 1);
    }

    /// Answers all requests in a message.
    fn answer(&self, caller: &Caller, data: &[u8]) {
        let port = self.state.lock().port;
        let mut rest = data;
        while let Some((request, next)) = Request::parse(rest) {
            rest = next;
            if !request.is_request() {
                continue;
            }
            let mut reply = Reply::new(request.header.seq, port);
            let result = match self.protocol {
                NETLINK_ROUTE => route::answer(caller, &request, &mut reply),
                _ => Err(Errno::EOPNOTSUPP),
            };
            for message in reply.finish(&request, result) {
                self.queue(message);
            }
        }
    }

    fn wait(&self, nonblocking: bool) -> Result<()> {
        let deadline = self.options.receive_deadline();
        let attempt = || {
            let mut state = self.state.lock();
            if core::mem::take(&mut state.overrun) {
                return Some(Err(Errno::ENOBUFS));
            }
            if !state.inbox.is_empty() {
                return Some(Ok(()));
            }
            nonblocking.then_some(Err(Errno::EAGAIN))
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
        let bound = self.state.lock().port;
        if bound != 0 && port != bound {
            return Err(Errno::EINVAL);
        }
        self.take_port(port, caller.pid as u32)?;
        self.state.lock().groups = groups;
        Ok(())
    }

    fn connect(&self, caller: &Caller, address: &[u8], _nonblocking: bool) -> Result<()> {
        let remote = parse(address)?;
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
        address(state.port, state.groups)
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
        let Some(caller) = caller else { return Err(Errno::EOPNOTSUPP) };
        let len = source.remaining();
        if len > REQUEST_MAX {
            return Err(Errno::EMSGSIZE);
        }
        self.take_port(0, caller.pid as u32)?;
        let mut data = alloc::vec![0; len];
        if len > 0 && source.take(&mut data)? < len {
            return Err(Errno::EFAULT);
        }
        // Only the kernel answers; messages between programs have no receivers here.
        if to.0 != 0 {
            return Err(Errno::ECONNREFUSED);
        }
        self.answer(caller, &data);
        Ok(len)
    }

    fn receive(&self, sink: &mut Sink, flags: MessageFlags, nonblocking: bool) -> Result<Received> {
        if flags.contains(MessageFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        self.wait(nonblocking || flags.contains(MessageFlags::DONTWAIT))?;
        let message = {
            let mut state = self.state.lock();
            let message =
                if flags.contains(MessageFlags::PEEK) { state.inbox.front().cloned() } else { state.inbox.pop_front() };
            if let Some(message) = message.as_ref().filter(|_| !flags.contains(MessageFlags::PEEK)) {
                state.bytes -= message.len();
            }
            message
        };
        let message = message.ok_or(Errno::EAGAIN)?;
        let stored = if sink.remaining() == 0 { 0 } else { sink.put(&message)? };
        let mut received = Received { len: stored, from: address(0, 0), ..Received::default() };
        if stored < message.len() {
            received.flags |= MessageFlags::TRUNC;
            if flags.contains(MessageFlags::TRUNC) {
                received.len = message.len();
            }
        }
        const NETLINK_PKTINFO: i32 = 3;
        const SOL_NETLINK: i32 = 270;
        if self.flags.load(Ordering::Relaxed) & 1 << NETLINK_PKTINFO != 0 {
            let data = 0u32.to_ne_bytes().to_vec();
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
        Ok((self.state.lock().inbox.front().map_or(0, Vec::len), 0))
    }

    fn set_option(&self, _caller: &Caller, level: i32, name: i32, value: &[u8]) -> Option<Result<()>> {
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
            ADD_MEMBERSHIP | DROP_MEMBERSHIP if (1..=32).contains(&word) => {
                let mut state = self.state.lock();
                let bit = 1 << (word - 1);
                state.groups = if name == ADD_MEMBERSHIP { state.groups | bit } else { state.groups & !bit };
                Ok(())
            }
            ADD_MEMBERSHIP | DROP_MEMBERSHIP => Ok(()),
            // PKTINFO, BROADCAST_ERROR, NO_ENOBUFS, CAP_ACK, EXT_ACK, GET_STRICT_CHK: answers are as without them.
            3..=5 | 10..=12 => {
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
            3..=5 | 10..=12 => {
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
        SOCKETS.lock().retain(|other| !Weak::ptr_eq(other, &me));
        self.state.lock().inbox.clear();
    }
}
