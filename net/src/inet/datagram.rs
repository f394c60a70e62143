//! Sockets that send and receive whole messages: UDP (udp(7)), ICMP echoes ("ping sockets", icmp(7)) and raw IP (raw(7)). They differ in the header
//! they put in front and in how packets find them: [`super::udp`], [`super::ping`], [`super::raw`].

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::net::IpAddr;
use core::sync::atomic::Ordering;

use base::{Errno, Events, Result};
use fs::PollTable;
use hal::sync::SpinLock;
use mm::{Sink, Source};
use sched::{Sleep, WaitQueue};

use super::address::{AF_UNSPEC, Endpoint, Family, family_of};
use super::errors::ErrorQueue;
use super::multicast::Memberships;
use super::options::Settings;
use super::port::{Binding, Claim, Ports};
use super::queue::{Datagram, Inbox};
use super::sending::normalise;
use super::{SOL_IP, check_bindable, check_port, control, multicast, ping, raw, udp};
use crate::backlog;
use crate::ip::protocol;
use crate::netlink::diag::inet::{Facts, facts};
use crate::options::{Options, option};
use crate::packet::{Filler, Rope};
use crate::route::{self, Kind, Path};
use crate::socket::{Caller, MessageFlags, Outgoing as Message, Received, Shutdown, Socket, SocketKind, wait_error};

/// What kind of messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flavour {
    /// UDP.
    Udp,
    /// UDP-Lite (RFC 3828), whose checksum may cover a part only.
    UdpLite,
    /// ICMP echo requests and replies.
    Ping,
    /// A protocol of IP, by its number.
    Raw(u8),
}

/// Where it is, and where its messages go.
pub(super) struct State {
    pub(super) local: Endpoint,
    pub(super) remote: Option<Endpoint>,
    pub(super) binding: Option<Arc<Binding>>,
    pub(super) path: Option<Path>,
    pub(super) error: Option<Errno>,
    shut_read: bool,
    shut_write: bool,
    /// UDP_CORK or MSG_MORE: what is collected, and where it goes.
    pub(super) cork: Option<(Endpoint, Rope)>,
    pub(super) corked: bool,
    /// UDP_SEGMENT.
    pub(super) segment: u16,
    pub(super) no_checksum: bool,
    /// UDP_GRO.
    pub(super) lumps: bool,
    /// UDPLITE_SEND_CSCOV and UDPLITE_RECV_CSCOV: bytes that the checksum covers, has to cover.
    pub(super) coverage: [u16; 2],
}

/// A socket for messages.
pub struct DatagramSocket {
    me: Weak<DatagramSocket>,
    pub(super) family: Family,
    pub(super) flavour: Flavour,
    pub(super) options: Options,
    pub(super) settings: SpinLock<Settings>,
    pub(super) memberships: SpinLock<Memberships>,
    pub(super) state: SpinLock<State>,
    inbox: SpinLock<Inbox>,
    pub(super) failures: SpinLock<ErrorQueue>,
    pub(super) news: Arc<WaitQueue>,
}

static UDP_PORTS: Ports = Ports::new();
static UDPLITE_PORTS: Ports = Ports::new();
static PING_PORTS: Ports = Ports::new();

impl DatagramSocket {
    /// A socket that is not bound (a raw one receives from now on).
    pub fn create(family: Family, flavour: Flavour) -> Arc<DatagramSocket> {
        let socket = Arc::new_cyclic(|me| DatagramSocket {
            me: me.clone(),
            family,
            flavour,
            options: Options::default(),
            settings: SpinLock::new(Settings::default()),
            memberships: SpinLock::default(),
            state: SpinLock::new(State {
                local: Endpoint::any(family),
                remote: None,
                binding: None,
                path: None,
                error: None,
                shut_read: false,
                shut_write: false,
                cork: None,
                corked: false,
                segment: 0,
                no_checksum: false,
                lumps: false,
                coverage: [0; 2],
            }),
            inbox: SpinLock::new(Inbox::default()),
            failures: SpinLock::new(ErrorQueue::default()),
            news: Arc::new(WaitQueue::new()),
        });
        if let Flavour::Raw(number) = flavour {
            raw::register(&socket);
            let mut settings = socket.settings.lock();
            settings.header_included = number == protocol::RAW;
            if family == Family::V6 && number == protocol::ICMPV6 {
                settings.checksum_at = 2;
            }
        }
        socket
    }

    /// The protocol in its packets.
    pub(super) fn protocol(&self) -> u8 {
        match (self.flavour, self.family) {
            (Flavour::Udp, _) => protocol::UDP,
            (Flavour::UdpLite, _) => protocol::UDPLITE,
            (Flavour::Ping, Family::V4) => protocol::ICMP,
            (Flavour::Ping, Family::V6) => protocol::ICMPV6,
            (Flavour::Raw(number), _) => number,
        }
    }

    /// Gives it a received message; false if there was no room.
    pub(super) fn receive_datagram(&self, datagram: Datagram) -> bool {
        let limit = self.options.receive_buffer.load(Ordering::Relaxed);
        let pushed = self.inbox.lock().push(datagram, limit);
        if pushed {
            self.news.wake_for(Events::READABLE, 1);
        }
        pushed
    }

    /// Has a packet at least the time to live that is wanted (IP_MINTTL, IPV6_MINHOPCOUNT)?
    pub(super) fn lives_enough(&self, source: IpAddr, ttl: u8) -> bool {
        ttl >= self.settings.lock().least_ttl[usize::from(source.is_ipv6())]
    }

    /// Does it take datagrams that were sent as one lump as such?
    pub(super) fn takes_lumps(&self) -> bool {
        self.state.lock().lumps
    }

    /// Does it want what a source sends to a group, as it came in by an interface?
    pub(super) fn wants_group(&self, group: IpAddr, source: IpAddr, interface: u32) -> bool {
        let all = {
            let settings = self.settings.lock();
            if group.is_ipv4() { settings.multicast_all } else { settings.multicast_all6 }
        };
        self.memberships.lock().wants(group, source, interface, all)
    }

    /// Tells it of an error that one of its messages met.
    pub(super) fn report_error(&self, errno: Errno, hard: bool) {
        let wanted = {
            let settings = self.settings.lock();
            settings.receive_errors || settings.receive_errors6
        };
        let mut state = self.state.lock();
        if wanted || hard && state.remote.is_some() {
            state.error = Some(errno);
            drop(state);
            self.news.wake_for(Events::ERR | Events::READABLE | Events::WRITABLE, usize::MAX);
        }
    }

    fn claim(&self, ip: IpAddr, user: u32) -> Claim {
        let settings = self.settings.lock();
        Claim {
            ip,
            v6_only: settings.v6_only,
            device: settings.device,
            reuse_address: self.options.flag(option::SO_REUSEADDR),
            reuse_port: self.options.flag(option::SO_REUSEPORT),
            user,
            steering: self.options.steering.lock().clone(),
        }
    }

    /// Takes a port (or echo identity) if it has none.
    fn auto_bind(&self) -> Result<()> {
        let Some(ports) = self.flavour.ports() else { return Ok(()) };
        let local = self.state.lock().local;
        if local.port != 0 {
            return Ok(());
        }
        let claim = self.claim(local.ip, 0);
        let binding = ports.bind_any(claim, false, |_| false).map_err(|_| Errno::EAGAIN)?;
        self.hold(binding)
    }

    fn hold(&self, binding: Arc<Binding>) -> Result<()> {
        let mut state = self.state.lock();
        state.local.port = binding.port;
        self.options.steering.lock().clone_from(&binding.steering);
        state.binding = Some(binding);
        let port = state.local.port;
        drop(state);
        let me = self.me.upgrade().ok_or(Errno::EINVAL)?;
        match self.flavour {
            Flavour::Udp | Flavour::UdpLite => udp::register((self.protocol(), port), me),
            Flavour::Ping => ping::register(port, me),
            Flavour::Raw(_) => {}
        }
        Ok(())
    }

    fn connect_to(&self, to: Endpoint) -> Result<()> {
        let to = normalise(to);
        let settings = self.settings.lock().clone();
        let device = if to.scope != 0 { to.scope } else { settings.device };
        let path = route::lookup(to.ip, device)?;
        if path.kind == Kind::Broadcast && !self.options.flag(option::SO_BROADCAST) {
            return Err(Errno::EACCES);
        }
        if settings.v6_only && to.ip.is_ipv4() && self.family == Family::V6 {
            return Err(Errno::ENETUNREACH);
        }
        self.auto_bind()?;
        let mut state = self.state.lock();
        if state.local.ip.is_unspecified() {
            state.local.ip = if settings.multicast_source.is_some() && to.ip.is_multicast() {
                settings.multicast_source.map_or(path.source, Into::into)
            } else {
                path.source
            };
        } else if state.local.ip.is_ipv4() != to.ip.is_ipv4() {
            return Err(Errno::ENETUNREACH);
        }
        let port = if self.flavour.is_udp() { to.port } else { 0 };
        state.remote = Some(Endpoint { port, ..to });
        state.path = Some(path);
        Ok(())
    }

    fn disconnect(&self) {
        let mut state = self.state.lock();
        state.remote = None;
        state.path = None;
        let explicit = state.binding.as_ref().map(|b| b.claim.ip);
        state.local.ip = explicit.unwrap_or(self.family.any());
    }

    fn wait_datagram(&self, nonblocking: bool) -> Result<bool> {
        let deadline = self.options.receive_deadline();
        let attempt = || {
            let mut state = self.state.lock();
            if let Some(error) = state.error.take() {
                return Some(Err(error));
            }
            let ended = state.shut_read;
            drop(state);
            match (self.inbox.lock().is_empty(), ended) {
                (false, _) => Some(Ok(true)),
                (true, true) => Some(Ok(false)),
                (true, false) if nonblocking => Some(Err(Errno::EAGAIN)),
                (true, false) => None,
            }
        };
        let waited = self.news.wait_exclusive(Sleep::Interruptible, deadline, attempt);
        waited.map_err(|e| wait_error(e, deadline.is_some()))?
    }

    fn give(&self, datagram: &Datagram, sink: &mut Sink, flags: MessageFlags) -> Result<Received> {
        let whole = datagram.data.len();
        let stored = if whole == 0 || sink.remaining() == 0 { 0 } else { datagram.data.put(sink)? };
        let mut received = Received { len: stored, ..Received::default() };
        received.from = datagram.from.encode(self.family);
        if stored < whole {
            received.flags |= MessageFlags::TRUNC;
            if flags.contains(MessageFlags::TRUNC) {
                received.len = whole;
            }
        }
        let port = self.state.lock().local.port;
        let settings = self.settings.lock();
        received.control.messages = control::write(&settings, self.family, datagram, port);
        drop(settings);
        crate::options::stamp(&self.options, datagram.received, &mut received.control.messages);
        let flags = self.options.timestamping.load(Ordering::Relaxed);
        super::errors::stamp(flags, datagram.received, &mut received.control.messages);
        Ok(received)
    }
}

impl Socket for DatagramSocket {
    fn family(&self) -> i32 {
        self.family.number()
    }

    fn kind(&self) -> SocketKind {
        if matches!(self.flavour, Flavour::Raw(_)) { SocketKind::Raw } else { SocketKind::Datagram }
    }

    fn protocol(&self) -> i32 {
        self.protocol().into()
    }

    fn options(&self) -> &Options {
        &self.options
    }

    fn bind(&self, caller: &Caller, address: &[u8]) -> Result<()> {
        let at = match family_of(address)? {
            AF_UNSPEC if self.family == Family::V4 && address.len() >= 16 && address[4..8] == [0; 4] => {
                let port = u16::from_be_bytes([address[2], address[3]]);
                Endpoint { port, ..Endpoint::any(self.family) }
            }
            _ => Endpoint::parse(address, self.family)?,
        };
        if self.family == Family::V6 && u16::from_ne_bytes([address[0], address[1]]) != super::address::AF_INET6 {
            return Err(Errno::EAFNOSUPPORT);
        }
        let settings = self.settings.lock().clone();
        check_bindable(&at, &settings, true)?;
        let raw = matches!(self.flavour, Flavour::Raw(_));
        if !raw {
            check_port(caller, at.port)?;
        }
        {
            let state = self.state.lock();
            if state.binding.is_some() || state.local.port != 0 {
                return Err(Errno::EINVAL);
            }
        }
        if raw {
            self.state.lock().local = Endpoint { port: self.protocol().into(), ..at };
            return Ok(());
        }
        let Some(ports) = self.flavour.ports() else { return Err(Errno::EINVAL) };
        let claim = self.claim(at.ip, caller.fs.cred.euid);
        let binding =
            if at.port == 0 { ports.bind_any(claim, false, |_| false)? } else { ports.bind(at.port, claim)? };
        self.state.lock().local = Endpoint { port: 0, ..at };
        self.hold(binding)
    }

    fn connect(&self, _caller: &Caller, address: &[u8], _nonblocking: bool) -> Result<()> {
        if family_of(address)? == AF_UNSPEC {
            self.disconnect();
            return Ok(());
        }
        self.connect_to(Endpoint::parse(address, self.family)?)
    }

    fn listen(&self, _caller: &Caller, _backlog: i32) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn accept(&self, _nonblocking: bool) -> Result<Arc<dyn Socket>> {
        Err(Errno::EOPNOTSUPP)
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        let mut state = self.state.lock();
        state.shut_read |= how.read;
        state.shut_write |= how.write;
        let connected = state.remote.is_some();
        drop(state);
        self.news.wake_for(Events::all(), usize::MAX);
        if connected { Ok(()) } else { Err(Errno::ENOTCONN) }
    }

    fn name(&self) -> Vec<u8> {
        self.state.lock().local.encode(self.family)
    }

    fn peer_name(&self) -> Result<Vec<u8>> {
        let remote = self.state.lock().remote.ok_or(Errno::ENOTCONN)?;
        Ok(remote.encode(self.family))
    }

    fn send(
        &self,
        _caller: Option<&Caller>,
        source: &mut Source,
        message: Message,
        _nonblocking: bool,
    ) -> Result<usize> {
        if message.flags.contains(MessageFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        {
            let mut state = self.state.lock();
            if state.shut_write {
                return Err(Errno::EPIPE);
            }
            if let Some(error) = state.error.take() {
                return Err(error);
            }
        }
        let wishes = control::read(&message.control.messages)?;
        let (target, path) = self.destination(message.to, &wishes)?;
        let len = source.remaining();
        self.check_size(len, &target)?;
        self.auto_bind()?;
        let data = Filler::shared(|filler| filler.take_all(source))?;
        let keep = message.flags.contains(MessageFlags::MORE);
        if self.flavour.is_udp() {
            let mut state = self.state.lock();
            if keep || state.corked || state.cork.is_some() {
                let (_, collected) = state.cork.get_or_insert((target, Rope::new()));
                collected.append(data);
                let go = !keep && !state.corked;
                drop(state);
                return if go { self.uncork().map(|()| len) } else { Ok(len) };
            }
        }
        let result = self.send_data(data, target, &path, &wishes);
        backlog::run();
        if result.is_ok() && message.flags.contains(MessageFlags::ZEROCOPY) && self.options.flag(option::SO_ZEROCOPY) {
            // The data was copied: the program's memory is free at once.
            let number = self.options.zero_copies.fetch_add(1, Ordering::Relaxed);
            self.failures.lock().release(number, self.options.receive_buffer.load(Ordering::Relaxed));
            self.news.wake_for(Events::ERR, usize::MAX);
        }
        result
    }

    fn receive(&self, sink: &mut Sink, flags: MessageFlags, nonblocking: bool) -> Result<Received> {
        if flags.contains(MessageFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        if flags.contains(MessageFlags::ERRQUEUE) {
            return self.receive_failure(sink);
        }
        let nonblocking = nonblocking || flags.contains(MessageFlags::DONTWAIT);
        loop {
            if !self.wait_datagram(nonblocking)? {
                return Ok(Received::default());
            }
            let datagram = {
                let mut inbox = self.inbox.lock();
                if flags.contains(MessageFlags::PEEK) { inbox.first().cloned() } else { inbox.pop() }
            };
            if let Some(datagram) = datagram {
                return self.give(&datagram, sink, flags);
            }
        }
    }

    fn poll(&self, table: &mut PollTable) -> Events {
        table.register(&self.news);
        let mut ready = Events::WRITABLE | Events::WRBAND;
        let state = self.state.lock();
        if state.error.is_some() || !self.failures.lock().is_empty() {
            ready |= Events::ERR;
        }
        if state.shut_read {
            ready |= Events::READABLE | Events::RDHUP;
        }
        if state.shut_read && state.shut_write {
            ready |= Events::HUP;
        }
        drop(state);
        if !self.inbox.lock().is_empty() {
            ready |= Events::READABLE;
        }
        ready
    }

    fn queued(&self) -> Result<(usize, usize)> {
        Ok((self.inbox.lock().first().map_or(0, |d| d.data.len()), 0))
    }

    fn set_option(&self, caller: &Caller, level: i32, name: i32, value: &[u8]) -> Option<Result<()>> {
        self.set_own_option(caller, level, name, value)
    }

    fn get_option(&self, level: i32, name: i32) -> Option<Result<Vec<u8>>> {
        self.own_option(level, name)
    }

    fn get_option_for(&self, level: i32, name: i32, given: &[u8]) -> Option<Result<Vec<u8>>> {
        if multicast::is_filter(level, name) && (level == SOL_IP || self.family == Family::V6) {
            return Some(self.memberships.lock().filter_of(name, given, level == SOL_IP));
        }
        self.get_option(level, name)
    }

    fn reads_buffer(&self, level: i32, name: i32) -> bool {
        multicast::is_filter(level, name)
    }

    fn is_listening(&self) -> bool {
        false
    }

    fn take_error(&self) -> Option<Errno> {
        self.state.lock().error.take()
    }

    fn close(&self) {
        // What is still collected is lost with the socket, as on Linux.
        let (port, binding) = {
            let mut state = self.state.lock();
            state.shut_read = true;
            state.cork = None;
            (state.local.port, state.binding.take())
        };
        if let Some(me) = self.me.upgrade() {
            match self.flavour {
                Flavour::Udp | Flavour::UdpLite => udp::unregister((self.protocol(), port), &me),
                Flavour::Ping => ping::unregister(port, &me),
                Flavour::Raw(_) => raw::unregister(&me),
            }
        }
        drop(binding);
        let memberships = core::mem::take(&mut *self.memberships.lock());
        drop(memberships);
        let unread = self.inbox.lock().drain();
        drop(unread);
    }
}

impl Flavour {
    pub(super) fn is_udp(self) -> bool {
        matches!(self, Flavour::Udp | Flavour::UdpLite)
    }

    fn ports(self) -> Option<&'static Ports> {
        match self {
            Flavour::Udp => Some(&UDP_PORTS),
            Flavour::UdpLite => Some(&UDPLITE_PORTS),
            Flavour::Ping => Some(&PING_PORTS),
            Flavour::Raw(_) => None,
        }
    }
}

impl DatagramSocket {
    /// What sock_diag tells.
    pub(crate) fn facts(&self) -> Facts {
        let (local, remote, waiting) = self.summary();
        let mut facts = facts(self, self.family, local, remote);
        let state = self.state.lock();
        facts.state = if state.remote.is_some() { 1 } else { 7 };
        facts.shutdown = u8::from(state.shut_read) | u8::from(state.shut_write) << 1;
        drop(state);
        let settings = self.settings.lock();
        (facts.tos, facts.class, facts.v6_only) = (settings.tos, settings.class, settings.v6_only);
        facts.device = settings.device;
        facts.receive_queue = waiting;
        if let Flavour::Raw(number) = self.flavour {
            facts.local.port = number.into();
        }
        facts
    }

    /// SOCK_DESTROY: who uses it finds it disconnected. Never fails.
    pub(crate) fn destroy(&self) -> Result<()> {
        self.disconnect();
        let mut state = self.state.lock();
        state.error = Some(Errno::ECONNABORTED);
        drop(state);
        self.news.wake_for(Events::all(), usize::MAX);
        Ok(())
    }

    /// Its entry in a table of `/proc/net`: local, remote, bytes that wait to be received, the owner's number.
    pub(crate) fn summary(&self) -> (Endpoint, Endpoint, usize) {
        let state = self.state.lock();
        let remote = state.remote.unwrap_or(Endpoint::any(self.family));
        (state.local, remote, self.inbox.lock().size())
    }

    /// Which family it is of.
    pub(crate) fn socket_family(&self) -> Family {
        self.family
    }
}
