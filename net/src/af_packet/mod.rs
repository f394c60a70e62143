//! Packet sockets (packet(7)): frames as they come and go, for tcpdump, arping and DHCP clients.
//!
//! [`queue`] is what waits to be read; [`ring`] the memory that is shared with programs instead; [`fanout`] spreads packets over a group of sockets, [`rollover`] from full ones to others;
//! [`option`] the options at SOL_PACKET; [`send`] what programs send.

mod fanout;
mod option;
mod queue;
mod ring;
mod rollover;
mod send;

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use base::{Capability, Errno, Events, Result};
use fs::PollTable;
use hal::sync::SpinLock;
use mm::{PageCache, Sink, Source};
use sched::{Sleep, WaitQueue};

use crate::filter::View;
use crate::link::{self, Interface, ethernet, ioctl};
use crate::options::Options;
use crate::packet::{Addressed, Packet};
use crate::socket::{Caller, MessageFlags, Outgoing, Received, Shutdown, Socket, SocketKind, wait_error};
use queue::{Captured, Queue};
use ring::Ring;

/// AF_PACKET.
pub const AF_PACKET: i32 = 17;
/// ETH_P_ALL.
const ALL: u16 = 3;
/// Bytes of `struct sockaddr_ll`.
const ADDRESS: usize = 20;

/// What it is bound to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Binding {
    /// The EtherType, ETH_P_ALL, or 0 for nothing.
    protocol: u16,
    /// The interface; 0 for all.
    interface: u32,
}

/// Counts since they were last asked for.
#[derive(Default)]
struct Counts {
    packets: AtomicU32,
    drops: AtomicU32,
    freezes: AtomicU32,
}

/// The options that change how packets look to the program.
#[derive(Default)]
struct Flags {
    auxiliary: AtomicBool,
    original_device: AtomicBool,
    vnet_header: AtomicBool,
    ignore_outgoing: AtomicBool,
    loss: AtomicBool,
    bypass: AtomicBool,
    version: AtomicU32,
    reserve: AtomicU32,
    time: AtomicU32,
}

/// A packet socket.
pub struct PacketSocket {
    me: Weak<PacketSocket>,
    kind: SocketKind,
    options: Options,
    binding: SpinLock<Binding>,
    queue: SpinLock<Queue>,
    error: SpinLock<Option<Errno>>,
    memberships: SpinLock<Vec<option::Membership>>,
    receive_ring: SpinLock<Option<Arc<Ring>>>,
    /// Held while what is in it is sent.
    send_ring: sched::Mutex<Option<Arc<Ring>>>,
    /// The memory of both rings, as mmap(2) maps it.
    memory: sched::Mutex<Option<Arc<PageCache>>>,
    group: SpinLock<Option<Arc<fanout::Group>>>,
    rollover: SpinLock<rollover::Rollover>,
    counts: Counts,
    flags: Flags,
    news: Arc<WaitQueue>,
}

static SOCKETS: SpinLock<Vec<Arc<PacketSocket>>> = SpinLock::new(Vec::new());
/// Sockets that want packets, so that these pass quickly while there are none.
static WATCHING: AtomicUsize = AtomicUsize::new(0);

/// Does any socket want packets?
#[inline]
pub(crate) fn is_watching() -> bool {
    WATCHING.load(Ordering::Relaxed) != 0
}

fn recount() {
    let sockets = SOCKETS.lock();
    WATCHING.store(sockets.iter().filter(|s| s.binding.lock().protocol != 0).count(), Ordering::Relaxed);
}

/// Shows a packet, with its link header in front if there is one, to the sockets that want it.
pub(crate) fn deliver(packet: &Packet, interface: &Interface) {
    let kind = if packet.link != 0 { ethernet::frame_type(packet) } else { ethernet::type_of(packet) };
    let outgoing = packet.addressed == Addressed::Outgoing;
    let sockets: Vec<Arc<PacketSocket>> = {
        let all = SOCKETS.lock();
        all.iter().filter(|socket| socket.wants(interface.index, kind, outgoing)).cloned().collect()
    };
    let mut groups: Vec<Arc<fanout::Group>> = Vec::new();
    for socket in sockets {
        let group = socket.group.lock().clone();
        match group {
            // Of a group one socket gets it.
            Some(group) if groups.iter().any(|seen| Arc::ptr_eq(seen, &group)) => {}
            Some(group) => {
                if let Some(chosen) = group.choose(packet) {
                    chosen.capture(packet, interface, kind);
                }
                groups.push(group);
            }
            None => socket.capture(packet, interface, kind),
        }
    }
}

/// An interface is down: who is bound to it hears so.
pub(crate) fn interface_down(index: u32) {
    if !is_watching() {
        return;
    }
    let sockets = SOCKETS.lock().clone();
    for socket in &sockets {
        let binding = *socket.binding.lock();
        if binding.interface == index && binding.protocol != 0 {
            socket.fail(Errno::ENETDOWN);
        }
    }
}

/// An interface is gone: who was bound to it hears so.
pub(crate) fn interface_gone(index: u32) {
    let sockets = SOCKETS.lock().clone();
    for socket in sockets.iter().filter(|socket| socket.binding.lock().interface == index) {
        socket.binding.lock().protocol = 0;
        socket.fail(Errno::ENETDOWN);
    }
    recount();
}

impl PacketSocket {
    /// A socket for an EtherType (in network order, as socket(2) has it). `EPERM`, `ESOCKTNOSUPPORT`.
    pub fn create(caller: &Caller, kind: i32, protocol: i32) -> Result<Arc<PacketSocket>> {
        if !caller.fs.cred.capable(Capability::NetRaw) {
            return Err(Errno::EPERM);
        }
        let kind = match kind {
            2 => SocketKind::Datagram,
            3 => SocketKind::Raw,
            _ => return Err(Errno::ESOCKTNOSUPPORT),
        };
        let protocol = u16::from_be(protocol as u16);
        let socket = Arc::new_cyclic(|me| PacketSocket {
            me: me.clone(),
            kind,
            options: Options::default(),
            binding: SpinLock::new(Binding { protocol, interface: 0 }),
            queue: SpinLock::new(Queue::default()),
            error: SpinLock::new(None),
            memberships: SpinLock::new(Vec::new()),
            receive_ring: SpinLock::new(None),
            send_ring: sched::Mutex::new(None),
            memory: sched::Mutex::new(None),
            group: SpinLock::new(None),
            rollover: SpinLock::default(),
            counts: Counts::default(),
            flags: Flags::default(),
            news: Arc::new(WaitQueue::new()),
        });
        SOCKETS.lock().push(socket.clone());
        recount();
        Ok(socket)
    }

    /// All of them.
    pub(crate) fn all() -> Vec<Arc<PacketSocket>> {
        SOCKETS.lock().clone()
    }

    /// What tables of sockets show: EtherType, interface, bytes that wait.
    pub(crate) fn summary(&self) -> (u16, u32, usize) {
        let binding = *self.binding.lock();
        (binding.protocol, binding.interface, self.queue.lock().bytes())
    }

    fn wants(&self, interface: u32, kind: u16, outgoing: bool) -> bool {
        let binding = *self.binding.lock();
        let fits = binding.protocol == ALL || binding.protocol == kind && !outgoing && kind != 0;
        fits && (binding.interface == 0 || binding.interface == interface)
            && !(outgoing && self.flags.ignore_outgoing.load(Ordering::Relaxed))
    }

    fn fail(&self, error: Errno) {
        *self.error.lock() = Some(error);
        self.news.wake_for(Events::ERR | Events::READABLE | Events::WRITABLE, usize::MAX);
    }

    /// Takes a packet that the socket wants, if its filter does.
    fn capture(&self, packet: &Packet, interface: &Interface, kind: u16) {
        let raw = self.kind == SocketKind::Raw;
        // The loopback interface has Ethernet headers of zeros for those who look.
        let mut made = [0; ethernet::HEADER];
        made[12..14].copy_from_slice(&kind.to_be_bytes());
        let before: &[u8] = if raw && packet.link == 0 && interface.is_loopback() { &made } else { &[] };
        let skip = if raw { 0 } else { usize::from(packet.link) };
        let len = self.options.filter.run(|| View { packet, skip, before });
        if len == 0 {
            return;
        }
        let mut sender = [0; 6];
        if packet.link != 0 {
            sender.copy_from_slice(packet.head().get(6..12).unwrap_or(&[0; 6]));
        }
        let captured = Captured {
            packet: packet.clone(),
            before: before.len(),
            skip,
            kind,
            limit: len,
            interface: interface.index,
            hardware: ioctl::hardware(interface),
            has_address: interface.is_framed() || interface.is_loopback(),
            sender,
            time: sched::time::realtime(),
        };
        let ring = self.receive_ring.lock().clone();
        let taken = match ring {
            Some(ring) => ring.put(self, &captured),
            None => self.queue.lock().push(captured, self.options.receive_buffer.load(Ordering::Relaxed)),
        };
        self.counts.packets.fetch_add(1, Ordering::Relaxed);
        if taken {
            self.news.wake_for(Events::READABLE, 1);
        } else {
            self.counts.drops.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn wait(&self, nonblocking: bool) -> Result<()> {
        let deadline = self.options.receive_deadline();
        let attempt = || {
            if let Some(error) = self.error.lock().take() {
                return Some(Err(error));
            }
            if !self.queue.lock().is_empty() {
                return Some(Ok(()));
            }
            nonblocking.then_some(Err(Errno::EAGAIN))
        };
        let waited = self.news.wait_exclusive(Sleep::Interruptible, deadline, attempt);
        waited.map_err(|e| wait_error(e, deadline.is_some()))?
    }
}

/// An address of a packet socket: EtherType and interface. `EINVAL`.
fn parse(raw: &[u8]) -> Result<Binding> {
    if raw.len() < ADDRESS || i32::from(u16::from_ne_bytes([raw[0], raw[1]])) != AF_PACKET {
        return Err(Errno::EINVAL);
    }
    Ok(Binding {
        protocol: u16::from_be_bytes([raw[2], raw[3]]),
        interface: u32::from_ne_bytes([raw[4], raw[5], raw[6], raw[7]]),
    })
}

impl Socket for PacketSocket {
    fn family(&self) -> i32 {
        AF_PACKET
    }

    fn kind(&self) -> SocketKind {
        self.kind
    }

    fn protocol(&self) -> i32 {
        i32::from(self.binding.lock().protocol.to_be())
    }

    fn options(&self) -> &Options {
        &self.options
    }

    fn bind(&self, _caller: &Caller, address: &[u8]) -> Result<()> {
        let wanted = parse(address)?;
        if self.group.lock().is_some() {
            return Err(Errno::EINVAL);
        }
        let interface = match wanted.interface {
            0 => None,
            index => Some(link::by_index(index).ok_or(Errno::ENODEV)?),
        };
        let mut binding = self.binding.lock();
        let protocol = if wanted.protocol != 0 { wanted.protocol } else { binding.protocol };
        *binding = Binding { protocol, interface: wanted.interface };
        drop(binding);
        recount();
        if interface.is_some_and(|interface| !interface.is_up()) {
            self.fail(Errno::ENETDOWN);
        }
        Ok(())
    }

    fn connect(&self, _caller: &Caller, _address: &[u8], _nonblocking: bool) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
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
        let binding = *self.binding.lock();
        let mut out = (AF_PACKET as u16).to_ne_bytes().to_vec();
        out.extend_from_slice(&binding.protocol.to_be_bytes());
        out.extend_from_slice(&binding.interface.to_ne_bytes());
        let interface = link::by_index(binding.interface);
        let framed = interface.as_ref().is_some_and(|i| i.is_framed() || i.is_loopback());
        let mac = interface.as_ref().map_or([0; 6], |i| i.mac());
        out.extend_from_slice(&interface.as_ref().map_or(0, |i| ioctl::hardware(i)).to_ne_bytes());
        out.push(0);
        out.push(if framed { 6 } else { 0 });
        out.extend_from_slice(&mac);
        out.resize(if framed { 18 } else { 12 }, 0);
        out
    }

    fn peer_name(&self) -> Result<Vec<u8>> {
        Err(Errno::EOPNOTSUPP)
    }

    fn send(
        &self,
        _caller: Option<&Caller>,
        source: &mut Source,
        message: Outgoing,
        nonblocking: bool,
    ) -> Result<usize> {
        let nonblocking = nonblocking || message.flags.contains(MessageFlags::DONTWAIT);
        send::send(self, source, message.to, nonblocking)
    }

    fn receive(&self, sink: &mut Sink, flags: MessageFlags, nonblocking: bool) -> Result<Received> {
        let known = MessageFlags::PEEK
            | MessageFlags::DONTWAIT
            | MessageFlags::TRUNC
            | MessageFlags::CMSG_CLOEXEC
            | MessageFlags::ERRQUEUE
            | MessageFlags::NOSIGNAL
            | MessageFlags::WAITFORONE;
        if !(flags - known).is_empty() {
            return Err(Errno::EINVAL);
        }
        if flags.contains(MessageFlags::ERRQUEUE) {
            return Err(Errno::EAGAIN);
        }
        loop {
            self.wait(nonblocking || flags.contains(MessageFlags::DONTWAIT))?;
            let captured = {
                let mut queue = self.queue.lock();
                if flags.contains(MessageFlags::PEEK) { queue.first().cloned() } else { queue.pop() }
            };
            if let Some(captured) = captured {
                return captured.give(self, sink, flags);
            }
        }
    }

    fn poll(&self, table: &mut PollTable) -> Events {
        table.register(&self.news);
        let mut ready = Events::WRITABLE | Events::WRBAND;
        if self.error.lock().is_some() {
            ready |= Events::ERR;
        }
        let ring = self.receive_ring.lock().clone();
        if !self.queue.lock().is_empty() || ring.is_some_and(|ring| ring.has_news()) {
            ready |= Events::READABLE;
        }
        ready
    }

    fn queued(&self) -> Result<(usize, usize)> {
        Ok((self.queue.lock().first().map_or(0, Captured::len), 0))
    }

    fn set_option(&self, _caller: &Caller, level: i32, name: i32, value: &[u8]) -> Option<Result<()>> {
        (level == option::SOL_PACKET).then(|| option::set(self, name, value))
    }

    fn get_option(&self, level: i32, name: i32) -> Option<Result<Vec<u8>>> {
        self.get_option_for(level, name, &[])
    }

    fn reads_buffer(&self, level: i32, _name: i32) -> bool {
        level == option::SOL_PACKET
    }

    fn get_option_for(&self, level: i32, name: i32, given: &[u8]) -> Option<Result<Vec<u8>>> {
        (level == option::SOL_PACKET).then(|| option::get(self, name, given))
    }

    fn is_listening(&self) -> bool {
        false
    }

    fn take_error(&self) -> Option<Errno> {
        self.error.lock().take()
    }

    fn memory(&self) -> Result<Arc<PageCache>> {
        self.memory.lock().clone().ok_or(Errno::EINVAL)
    }

    fn close(&self) {
        if let Some(me) = self.me.upgrade() {
            SOCKETS.lock().retain(|other| !Arc::ptr_eq(other, &me));
        }
        recount();
        let group = self.group.lock().take();
        if let Some(group) = group {
            group.leave(self);
        }
        option::drop_memberships(self);
        let ring = self.receive_ring.lock().take();
        if let Some(ring) = ring {
            ring.stop();
        }
        *self.send_ring.lock() = None;
        let waiting = core::mem::take(&mut *self.queue.lock());
        drop(waiting);
    }
}
