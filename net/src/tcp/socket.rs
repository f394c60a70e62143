//! TCP sockets as programs see them (tcp(7)).
//!
//! A socket's core is under one spin lock. Segments that it sends under that lock only go into queues; what they cause is done when the lock is free
//! ([`crate::backlog`]).

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::net::IpAddr;

use base::{Errno, Events, Nanos, Result};
use fs::PollTable;
use hal::sync::SpinLock;
use mm::{Sink, Source};
use sched::{Sleep, WaitQueue};

use super::connection::{Connection, Effects, Out, Settings, State};
use super::fast_open::Keys;
use super::link::Link;
use super::listener::Listener;
use super::memory::{self, Share};
use super::segment::Segment;
use super::seq::Seq;
use super::sysctl;
use super::{congestion, opening, option as options, table, transfer};
use crate::alarm::{Alarm, Rings};
use crate::inet::errors::ErrorQueue;
use crate::inet::port::Binding;
use crate::inet::{self, Endpoint, Family};
use crate::ip::icmp::Report;
use crate::ip::protocol;
use crate::options::Options;
use crate::socket::{Caller, MessageFlags, Outgoing, Received, Shutdown, Socket, SocketKind};
use crate::statistics::{self, Counter};
use crate::{backlog, route};

/// What a socket is at the moment.
pub(super) enum Role {
    /// Neither connected nor listening.
    Fresh,
    /// A listener.
    Listening(Listener),
    /// One end of a connection, even if that has ended.
    Open(Box<Connection>),
}

/// What the lock protects.
pub(super) struct Core {
    pub(super) role: Role,
    pub(super) link: Link,
    /// The address that was bound; `link.local` also has what was chosen.
    pub(super) bound: Option<IpAddr>,
    pub(super) binding: Option<Arc<Binding>>,
    pub(super) settings: Settings,
    pub(super) congestion: &'static str,
    pub(super) error: Option<Errno>,
    pub(super) shut_write: bool,
    pub(super) shut_read: bool,
    /// The user has closed it.
    pub(super) closed: bool,
    /// It is in the table of connections.
    pub(super) listed: bool,
    /// connect(2) has told its outcome.
    pub(super) told: bool,
    pub(super) defer_accept: u32,
    pub(super) window_clamp: i32,
    pub(super) unsent_low: u32,
    /// TCP_FASTOPEN: connections that may be opened fast and unconfirmed; TCP_FASTOPEN_KEY.
    pub(super) fast_open: i32,
    pub(super) fast_keys: Option<Keys>,
    /// TCP_FASTOPEN_CONNECT, and where a connection is to be opened with the first data.
    pub(super) fast_connect: bool,
    pub(super) deferred: Option<Endpoint>,
    /// The listener that counts this one as unconfirmed.
    pub(super) parent: Weak<TcpSocket>,
    /// TCP_INQ.
    pub(super) tells_queue: bool,
    /// The number that timestamps of sent data count from.
    pub(super) stamps_from: u32,
    /// Its part of what all connections hold.
    pub(super) share: Share,
}

/// What a listener is bound to, as the table of listeners wants to know.
#[derive(Clone, Copy)]
pub(super) struct BoundTo {
    pub(super) ip: IpAddr,
    pub(super) v6_only: bool,
    pub(super) device: u32,
}

/// A TCP socket.
pub struct TcpSocket {
    pub(super) me: Weak<TcpSocket>,
    pub(super) family: Family,
    pub(super) options: Options,
    pub(super) settings: SpinLock<inet::Settings>,
    pub(super) core: SpinLock<Core>,
    /// Held from taking data to queueing it.
    pub(super) writing: sched::Mutex<()>,
    pub(super) reading: sched::Mutex<()>,
    /// What became of data that was sent, for recvmsg(2) with MSG_ERRQUEUE.
    pub(super) failures: SpinLock<ErrorQueue>,
    alarm: Alarm,
    /// Waited on for data and connections.
    pub(super) news: Arc<WaitQueue>,
    /// Waited on for room, and for the connection to be established.
    pub(super) room: Arc<WaitQueue>,
}

impl TcpSocket {
    /// A socket that is nothing yet.
    pub fn create(family: Family) -> Arc<TcpSocket> {
        let nowhere = Endpoint::any(family);
        let link = Link {
            local: nowhere,
            remote: nowhere,
            ttl: 64,
            tos: 0,
            device: 0,
            path: None,
            mss: u16::MAX,
            confirmed: 0,
        };
        let socket = TcpSocket::new(family, link, Role::Fresh);
        let (send, receive) = sysctl::first_buffers();
        socket.options.set_sizes(send, receive);
        socket
    }

    fn new(family: Family, link: Link, role: Role) -> Arc<TcpSocket> {
        Arc::new_cyclic(|me| TcpSocket {
            me: me.clone(),
            family,
            options: Options::default(),
            settings: SpinLock::new(inet::Settings::default()),
            core: SpinLock::new(Core {
                role,
                link,
                bound: None,
                binding: None,
                settings: sysctl::settings(),
                congestion: congestion::default_name(),
                error: None,
                shut_write: false,
                shut_read: false,
                closed: false,
                listed: false,
                told: false,
                defer_accept: 0,
                window_clamp: 0,
                unsent_low: 0,
                fast_open: 0,
                fast_keys: None,
                fast_connect: false,
                deferred: None,
                parent: Weak::new(),
                tells_queue: false,
                stamps_from: 0,
                share: Share::default(),
            }),
            writing: sched::Mutex::new(()),
            reading: sched::Mutex::new(()),
            failures: SpinLock::default(),
            alarm: Alarm::default(),
            news: Arc::new(WaitQueue::new()),
            room: Arc::new(WaitQueue::new()),
        })
    }

    /// The socket of a connection that a listener has accepted.
    pub(super) fn child(listener: &TcpSocket, link: Link, mut connection: Connection) -> Arc<TcpSocket> {
        options::apply_buffers(&listener.options, &mut connection);
        let socket = TcpSocket::new(listener.family, link, Role::Open(Box::new(connection)));
        socket.options.inherit(&listener.options);
        *socket.settings.lock() = listener.settings.lock().clone();
        let theirs = listener.core.lock();
        let (binding, settings, name) = (theirs.binding.clone(), theirs.settings.clone(), theirs.congestion);
        drop(theirs);
        let mut core = socket.core.lock();
        core.bound = Some(core.link.local.ip);
        core.binding = binding;
        core.settings = settings;
        core.congestion = name;
        core.listed = true;
        core.told = true;
        drop(core);
        socket
    }

    /// The settings and congestion control that a child gets.
    pub(super) fn inherited(&self) -> (Settings, &'static str) {
        let core = self.core.lock();
        let mut settings = core.settings.clone();
        sysctl::refresh(&mut settings);
        (settings, core.congestion)
    }

    pub(super) fn max_segment(&self) -> Option<u16> {
        let most = self.core.lock().settings.max_segment;
        (most != 0).then_some(most)
    }

    /// Time to live and type of service towards a peer.
    pub(super) fn header_fields(&self, to: IpAddr) -> (u8, u8) {
        let settings = self.settings.lock();
        (settings.ttl_for(to), settings.tos_for(to))
    }

    pub(super) fn bound_to(&self) -> BoundTo {
        let ip = self.core.lock().link.local.ip;
        let settings = self.settings.lock();
        BoundTo { ip, v6_only: settings.v6_only, device: settings.device }
    }

    /// Uses the listener's queues; `None` if it does not listen (any more).
    pub(super) fn with_listener<R>(&self, f: impl FnOnce(&mut Listener) -> R) -> Option<R> {
        match &mut self.core.lock().role {
            Role::Listening(listener) => Some(f(listener)),
            _ => None,
        }
    }

    pub(super) fn listens(&self) -> bool {
        matches!(self.core.lock().role, Role::Listening(_))
    }

    /// A connection waits to be accepted.
    pub(super) fn announce_connection(&self) {
        self.news.wake_for(Events::READABLE, 1);
    }

    /// Uses the connection: lets it do something, sets its alarm, tells who waits. `None` where there is none. What it sends is received by
    /// others when the caller runs the backlog.
    pub(super) fn drive<R>(&self, f: impl FnOnce(&mut Connection, Nanos, Out) -> (R, Effects)) -> Option<R> {
        let now = sched::time::now();
        let mut core = self.core.lock();
        let Core { role, link, share, .. } = &mut *core;
        let Role::Open(connection) = role else { return None };
        let before = connection.retransmitted();
        let acknowledged = connection.counts.bytes_acked;
        let waited = connection.state() == State::TimeWait;
        connection.pressure = memory::pressure();
        let (result, mut effects) = f(connection, now, &mut |segment| link.send(segment));
        share.set(connection.held());
        if connection.state() == State::TimeWait && !waited && !share.enter_time_wait() {
            effects |= connection.abort(now, None, &mut |_| {});
        }
        if connection.counts.bytes_acked != acknowledged {
            link.confirm(now);
        }
        let again = connection.retransmitted().saturating_sub(before);
        if again > 0 {
            statistics::add(Counter::TcpRetransSegs, again);
        }
        let notices = if connection.has_notices() { connection.take_notices() } else { Vec::new() };
        let deadline = connection.deadline();
        self.alarm.set(deadline, || self.me.upgrade().map(|me| me as Arc<dyn Rings>));
        drop(core);
        if !notices.is_empty() {
            self.tell_notices(&notices);
        }
        if !effects.is_empty() {
            self.tell(effects);
        }
        Some(result)
    }

    /// Tells those who wait what has happened.
    fn tell(&self, effects: Effects) {
        let over = effects.intersects(Effects::CLOSED | Effects::FAILED);
        if over || effects.contains(Effects::CONNECTED) {
            self.opened();
        }
        let mut read = Events::empty();
        let mut write = Events::empty();
        if effects.contains(Effects::READABLE) {
            read |= Events::READABLE;
        }
        if effects.contains(Effects::URGENT) {
            read |= Events::PRI;
            self.options.tell_urgent();
        }
        if effects.intersects(Effects::WRITABLE | Effects::CONNECTED) {
            write |= Events::WRITABLE;
        }
        if over {
            read |= Events::READABLE | Events::RDHUP | Events::HUP | Events::ERR;
            write |= Events::WRITABLE | Events::HUP | Events::ERR;
        }
        let count = if over { usize::MAX } else { 1 };
        if !read.is_empty() {
            self.news.wake_for(read, count);
        }
        if !write.is_empty() {
            self.room.wake_for(write, if effects.contains(Effects::CONNECTED) { usize::MAX } else { count });
        }
        if effects.contains(Effects::CLOSED) {
            self.forget();
        }
    }

    /// Nothing comes for this connection any more: out of the table with it.
    pub(super) fn forget(&self) {
        let (key, binding) = {
            let mut core = self.core.lock();
            let key = ((core.link.local.ip, core.link.local.port), (core.link.remote.ip, core.link.remote.port));
            if !core::mem::replace(&mut core.listed, false) {
                return;
            }
            core.share.clear();
            (key, core.binding.take())
        };
        self.alarm.cancel();
        table::remove(&key, self);
        drop(binding);
    }

    /// A segment for this connection; given back if it is a SYN that begins a new one in its place.
    pub(super) fn on_segment(&self, segment: Segment) -> Option<Segment> {
        let gives_way = match &self.core.lock().role {
            Role::Open(connection) => connection.state() == State::TimeWait && connection.gives_way_to(&segment),
            _ => false,
        };
        if gives_way {
            self.end_time_wait();
            return Some(segment);
        }
        self.take_segment(segment);
        None
    }

    /// Ends TIME_WAIT at once, for another connection with the same ends.
    pub(super) fn end_time_wait(&self) {
        self.drive(|connection, now, out| ((), connection.abort(now, None, out)));
        self.forget();
    }

    /// A segment for this connection.
    pub(super) fn take_segment(&self, segment: Segment) -> Effects {
        let effects = self.drive(|connection, now, out| {
            let effects = connection.on_segment(now, segment, out);
            (effects, effects)
        });
        effects.unwrap_or_default()
    }

    /// An ICMP error about one of its segments.
    pub(super) fn on_report(&self, seq: Seq, report: &Report) {
        self.drive(|connection, now, out| {
            if !connection.has_sent(seq) {
                return ((), Effects::empty());
            }
            if report.errno == Errno::EMSGSIZE {
                let headers = crate::ip::header_len(report.from) + super::segment::HEADER;
                let mss = (report.mtu.max(576) as usize).saturating_sub(headers);
                connection.on_smaller_path(now, mss, out);
                return ((), Effects::empty());
            }
            ((), connection.on_unreachable(report.errno, report.hard))
        });
    }

    /// Resets the connection.
    pub(super) fn abort(&self) {
        self.drive(|connection, now, out| ((), connection.abort(now, None, out)));
        self.forget();
    }

    fn close_now(&self, linger: Option<Nanos>) {
        let abort = linger == Some(0);
        self.drive(|connection, now, out| ((), connection.close(now, abort, out)));
        match self.state() {
            State::Closed => self.forget(),
            State::TimeWait => {}
            // Who does not acknowledge the end must not keep memory for it without bound.
            _ if !self.core.lock().share.enter_orphans() => self.abort(),
            _ => {}
        }
        backlog::run();
        if let Some(nanos) = linger.filter(|&nanos| nanos > 0) {
            let deadline = sched::time::now().saturating_add(nanos);
            let done = || {
                let waits = matches!(self.state(), State::FinWait1 | State::Closing | State::LastAck);
                (!waits).then_some(())
            };
            // Whether all was sent or time ran out: close(2) does not tell.
            let _ = self.room.wait_until(Sleep::Interruptible, Some(deadline), done);
        }
    }

    /// Its state, as `ss` shows it.
    pub fn state(&self) -> State {
        match &self.core.lock().role {
            Role::Fresh => State::Closed,
            Role::Listening(_) => State::Listen,
            Role::Open(connection) => connection.state(),
        }
    }

    pub(super) fn close_listener(&self, waiting: VecDeque<Arc<TcpSocket>>, port: u16) {
        table::unlisten(port, self);
        for child in waiting {
            child.abort();
        }
        backlog::run();
    }
}

impl Rings for TcpSocket {
    fn ring(self: Arc<Self>, now: Nanos) {
        {
            let _core = self.core.lock();
            self.alarm.rung(now);
        }
        self.drive(|connection, now, out| ((), connection.on_time(now, out)));
        backlog::run();
    }
}

impl Socket for TcpSocket {
    fn family(&self) -> i32 {
        self.family.number()
    }

    fn kind(&self) -> SocketKind {
        SocketKind::Stream
    }

    fn protocol(&self) -> i32 {
        protocol::TCP.into()
    }

    fn options(&self) -> &Options {
        &self.options
    }

    fn bind(&self, caller: &Caller, address: &[u8]) -> Result<()> {
        opening::bind(self, caller, address)
    }

    fn connect(&self, caller: &Caller, address: &[u8], nonblocking: bool) -> Result<()> {
        opening::connect(self, caller, address, nonblocking)
    }

    fn listen(&self, caller: &Caller, backlog: i32) -> Result<()> {
        opening::listen(self, caller, backlog)
    }

    fn accept(&self, nonblocking: bool) -> Result<Arc<dyn Socket>> {
        Ok(opening::accept(self, nonblocking)?)
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        transfer::shutdown(self, how)
    }

    fn name(&self) -> Vec<u8> {
        self.core.lock().link.local.encode(self.family)
    }

    fn peer_name(&self) -> Result<Vec<u8>> {
        let core = self.core.lock();
        match &core.role {
            Role::Open(connection) if connection.state() != State::Closed && !connection.awaits_peer() => {
                Ok(core.link.remote.encode(self.family))
            }
            _ => Err(Errno::ENOTCONN),
        }
    }

    fn accepted_name(&self) -> Vec<u8> {
        self.core.lock().link.remote.encode(self.family)
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
        match &mut self.core.lock().role {
            Role::Listening(_) => Err(Errno::EINVAL),
            Role::Fresh => Ok((0, 0)),
            Role::Open(connection) => {
                connection.skip_urgent();
                Ok((connection.readable(), connection.unacknowledged()))
            }
        }
    }

    fn ioctl(&self, request: u32, arg: usize) -> Option<Result<usize>> {
        transfer::ioctl(self, request, arg)
    }

    fn set_option(&self, caller: &Caller, level: i32, name: i32, value: &[u8]) -> Option<Result<()>> {
        options::set(self, caller, level, name, value)
    }

    fn get_option(&self, level: i32, name: i32) -> Option<Result<Vec<u8>>> {
        options::get(self, level, name)
    }

    fn option_changed(&self, name: i32) {
        options::changed(self, name);
    }

    fn is_listening(&self) -> bool {
        self.listens()
    }

    fn take_error(&self) -> Option<Errno> {
        let mut core = self.core.lock();
        let own = core.error.take();
        own.or_else(|| match &mut core.role {
            Role::Open(connection) => connection.take_error().or_else(|| connection.soft_error.take()),
            _ => None,
        })
    }

    fn close(&self) {
        let mut core = self.core.lock();
        core.closed = true;
        let listener = match &mut core.role {
            Role::Listening(listener) => Some(core::mem::take(&mut listener.waiting)),
            _ => None,
        };
        if let Some(waiting) = listener {
            core.role = Role::Fresh;
            let port = core.link.local.port;
            let binding = core.binding.take();
            if let Some(binding) = &binding {
                binding.listening.store(false, core::sync::atomic::Ordering::Relaxed);
            }
            drop(core);
            self.close_listener(waiting, port);
            drop(binding);
            return;
        }
        let open = matches!(core.role, Role::Open(_));
        let binding = if open { None } else { core.binding.take() };
        drop(core);
        drop(binding);
        if open {
            self.close_now(self.options.linger_time());
        }
    }
}

/// Is a way to this address possible for a socket of that family?
pub(super) fn reachable(socket: &TcpSocket, to: &Endpoint) -> Result<route::Path> {
    let settings = socket.settings.lock();
    if settings.v6_only && to.ip.is_ipv4() && socket.family == Family::V6 {
        return Err(Errno::ENETUNREACH);
    }
    let device = if to.scope != 0 { to.scope } else { settings.device };
    drop(settings);
    route::lookup(to.ip, device)
}
