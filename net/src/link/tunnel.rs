//! Interfaces whose other end is a program that has `/dev/net/tun` open: IP packets (tun) or Ethernet frames (tap), one for each read(2) and write(2).

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use base::{Capability, Cred, Errno, Events, Result};
use fs::chardev::OpenWith;
use fs::{DeviceNumber, File, Io, IoctlContext, OpenFlags, PollTable};
use hal::sync::SpinLock;
use hal::user::{UserPtr, copy_in, copy_out};
use mm::{Sink, Source};
use sched::{Sleep, WaitQueue};

use super::{Interface, Medium, NAME_SIZE, Plan, add, by_name, ethernet, flag, random_mac, segmentation, take_out};
use crate::backlog;
use crate::packet::{Checksum, Filler, Packet, Rope};

/// IFF_* of TUNSETIFF.
mod kind {
    pub(super) const TUN: u16 = 1;
    pub(super) const TAP: u16 = 2;
    pub(super) const NAPI: u16 = 0x10;
    pub(super) const NAPI_FRAGS: u16 = 0x20;
    pub(super) const MULTI_QUEUE: u16 = 0x100;
    pub(super) const ATTACH: u32 = 0x200;
    pub(super) const DETACH: u32 = 0x400;
    pub(super) const PERSIST: u16 = 0x800;
    pub(super) const NO_PI: u16 = 0x1000;
    pub(super) const ONE_QUEUE: u16 = 0x2000;
    pub(super) const VNET_HDR: u16 = 0x4000;
    pub(super) const EXCL: u16 = 0x8000;
    pub(super) const ALL: u16 = TUN | TAP | NAPI | NAPI_FRAGS | MULTI_QUEUE | NO_PI | ONE_QUEUE | VNET_HDR;
}

const MAJOR: u32 = 10;
const MINOR: u32 = 200;
/// Queues of one interface.
const QUEUES_MAX: usize = 256;
/// The longest packet that a program may hand over.
const PACKET_MAX: usize = 65535 + ethernet::HEADER;
/// `struct tun_pi`, `struct virtio_net_hdr`.
const PI: usize = 4;
const VNET: usize = 10;

/// What packets wait in for one reader.
#[derive(Default)]
struct Line {
    packets: SpinLock<VecDeque<Box<Packet>>>,
    news: Arc<WaitQueue>,
    enabled: AtomicBool,
}

/// What is below such an interface.
pub struct Tunnel {
    flags: u16,
    lines: SpinLock<Vec<Arc<Line>>>,
    persists: AtomicBool,
    owner: AtomicU32,
    group: AtomicU32,
    carrier: AtomicBool,
    header_size: AtomicU32,
    /// TUN_F_*: what the program wants left undone in what it reads.
    offloads: AtomicU32,
}

impl Tunnel {
    fn new(flags: u16) -> Tunnel {
        Tunnel {
            flags,
            lines: SpinLock::new(Vec::new()),
            persists: AtomicBool::new(false),
            owner: AtomicU32::new(u32::MAX),
            group: AtomicU32::new(u32::MAX),
            carrier: AtomicBool::new(true),
            header_size: AtomicU32::new(VNET as u32),
            offloads: AtomicU32::new(0),
        }
    }

    /// Does it carry Ethernet frames?
    pub fn is_framed(&self) -> bool {
        self.flags & kind::TAP != 0
    }

    /// Has a program its other end?
    pub fn is_attached(&self) -> bool {
        self.carrier.load(Ordering::Relaxed) && !self.lines.lock().is_empty()
    }

    /// What `ip -d link` shows: IFF_* without the state, whether it persists, owner and group.
    pub(crate) fn describe(&self) -> (u16, bool, u32, u32) {
        let (owner, group) = (self.owner.load(Ordering::Relaxed), self.group.load(Ordering::Relaxed));
        (self.flags, self.persists.load(Ordering::Relaxed), owner, group)
    }

    /// Queues a packet for a reader.
    pub(super) fn send(&self, interface: &Interface, packet: Box<Packet>) {
        const TSO: u32 = 6;
        let offloads = if self.flags & kind::VNET_HDR != 0 { self.offloads.load(Ordering::Relaxed) } else { 0 };
        let mut packet = packet;
        if packet.segment_size != 0 && (offloads & TSO == 0 || !packet.is_tcp()) {
            segmentation::cut(packet).into_iter().for_each(|part| self.send(interface, part));
            return;
        }
        if offloads & 1 == 0 {
            packet.finish_checksum();
        }
        let line = {
            let lines = self.lines.lock();
            let open: Vec<&Arc<Line>> = lines.iter().filter(|line| line.enabled.load(Ordering::Relaxed)).collect();
            let chosen = match open.len() {
                0 => None,
                1 => Some(open[0]),
                many => Some(open[packet.flow_hash() as usize % many]),
            };
            chosen.cloned()
        };
        let Some(line) = line else {
            interface.counts.dropped();
            return;
        };
        let most = interface.queue_len.load(Ordering::Relaxed) as usize;
        let mut packets = line.packets.lock();
        if packets.len() >= most || packets.try_reserve(1).is_err() {
            drop(packets);
            interface.counts.dropped();
            return;
        }
        packets.push_back(packet);
        drop(packets);
        line.news.wake_for(Events::READABLE, 1);
    }
}

struct Attached {
    interface: Arc<Interface>,
    line: Arc<Line>,
}

/// An open `/dev/net/tun`.
#[derive(Default)]
struct TunnelFile {
    attached: SpinLock<Option<Attached>>,
    news: Arc<WaitQueue>,
    wanted_index: AtomicU32,
}

/// Makes `/dev/net/tun` open. Once, at boot. `EBUSY`.
pub(crate) fn register() -> Result<()> {
    let open = |_: DeviceNumber, _: &fs::FsContext, _: OpenFlags| Ok(Arc::new(TunnelFile::default()) as Arc<dyn File>);
    fs::chardev::register("tun", MAJOR, MINOR, MINOR, Arc::new(OpenWith(Box::new(open))))
}

/// `EBADFD`: no interface was named yet.
fn attached(file: &TunnelFile) -> Result<(Arc<Interface>, Arc<Line>)> {
    let attached = file.attached.lock();
    attached.as_ref().map(|a| (a.interface.clone(), a.line.clone())).ok_or(Errno::EBADFD)
}

fn tunnel_of(interface: &Interface) -> Result<&Arc<Tunnel>> {
    match &interface.medium {
        Medium::Tunnel(tunnel) => Ok(tunnel),
        _ => Err(Errno::EINVAL),
    }
}

/// May this user take the interface? Its owner and group may, and who administers the network.
fn permitted(tunnel: &Tunnel, cred: &Cred) -> bool {
    let (owner, group) = (tunnel.owner.load(Ordering::Relaxed), tunnel.group.load(Ordering::Relaxed));
    let foreign = owner != u32::MAX && owner != cred.euid
        || group != u32::MAX && group != cred.egid && !cred.groups.contains(&group);
    cred.capable(Capability::NetAdmin) || !foreign && (owner != u32::MAX || group != u32::MAX)
}

impl TunnelFile {
    /// TUNSETIFF. `EEXIST`, `EINVAL`, `EPERM`, `EBUSY`, `E2BIG`.
    fn attach(&self, cred: &Cred, arg: usize) -> Result<()> {
        let _changing = super::CHANGING.lock();
        if self.attached.lock().is_some() {
            return Err(Errno::EEXIST);
        }
        let mut request = [0; 40];
        copy_in(&mut request, arg)?;
        request[NAME_SIZE - 1] = 0;
        let flags = u16::from_ne_bytes([request[16], request[17]]);
        let name = request[..NAME_SIZE].split(|&b| b == 0).next().unwrap_or_default();
        let interface = match by_name(name) {
            Some(interface) => {
                self.check_join(&interface, cred, flags)?;
                interface
            }
            None => self.make(cred, flags, name)?,
        };
        let tunnel = tunnel_of(&interface)?;
        let line = Arc::new(Line { news: self.news.clone(), enabled: AtomicBool::new(true), ..Line::default() });
        {
            let mut lines = tunnel.lines.lock();
            if lines.len() >= QUEUES_MAX {
                return Err(Errno::E2BIG);
            }
            if !lines.is_empty() && tunnel.flags & kind::MULTI_QUEUE == 0 {
                return Err(Errno::EBUSY);
            }
            lines.push(line.clone());
        }
        *self.attached.lock() = Some(Attached { interface: interface.clone(), line });
        if interface.is_up() {
            interface.announce();
        }
        let shown = interface.name();
        request[..NAME_SIZE].fill(0);
        request[..shown.len()].copy_from_slice(shown.as_bytes());
        copy_out(arg, &request[..NAME_SIZE])
    }

    fn check_join(&self, interface: &Interface, cred: &Cred, flags: u16) -> Result<()> {
        if flags & kind::EXCL != 0 {
            return Err(Errno::EBUSY);
        }
        let tunnel = tunnel_of(interface)?;
        if (flags ^ tunnel.flags) & (kind::TUN | kind::TAP | kind::MULTI_QUEUE) != 0 {
            return Err(Errno::EINVAL);
        }
        if permitted(tunnel, cred) { Ok(()) } else { Err(Errno::EPERM) }
    }

    fn make(&self, cred: &Cred, flags: u16, name: &[u8]) -> Result<Arc<Interface>> {
        if !cred.capable(Capability::NetAdmin) {
            return Err(Errno::EPERM);
        }
        let (pattern, framed) = match flags & (kind::TUN | kind::TAP) {
            kind::TUN => ("tun%d", false),
            kind::TAP => ("tap%d", true),
            _ => return Err(Errno::EINVAL),
        };
        let name = core::str::from_utf8(name).map_err(|_| Errno::EINVAL)?;
        let tunnel = Tunnel::new(flags & kind::ALL);
        let plain = flag::POINT_TO_POINT | flag::NOARP | flag::MULTICAST;
        add(Plan {
            name: if name.is_empty() { pattern } else { name }.into(),
            index: self.wanted_index.load(Ordering::Relaxed),
            mac: if framed { random_mac() } else { [0; 6] },
            medium: Medium::Tunnel(Arc::new(tunnel)),
            mtu: 1500,
            flags: if framed { flag::BROADCAST | flag::MULTICAST } else { plain },
            lower: 0,
        })
    }

    /// Lets the interface go, and ends it unless it is to stay.
    fn detach(&self) {
        let _changing = super::CHANGING.lock();
        let Some(attached) = self.attached.lock().take() else { return };
        let Ok(tunnel) = tunnel_of(&attached.interface) else { return };
        let last = {
            let mut lines = tunnel.lines.lock();
            lines.retain(|line| !Arc::ptr_eq(line, &attached.line));
            lines.is_empty()
        };
        let waiting = core::mem::take(&mut *attached.line.packets.lock());
        drop(waiting);
        if last && !tunnel.persists.load(Ordering::Relaxed) {
            take_out(&attached.interface);
        } else if last {
            attached.interface.announce();
        }
    }

    /// The requests that need an interface.
    fn set(&self, request: u32, arg: usize) -> Result<()> {
        let (interface, line) = attached(self)?;
        let tunnel = tunnel_of(&interface)?;
        let word = || UserPtr::<u32>::new(arg).read();
        match request {
            TUNSETPERSIST => tunnel.persists.store(arg != 0, Ordering::Relaxed),
            TUNSETOWNER => tunnel.owner.store(arg as u32, Ordering::Relaxed),
            TUNSETGROUP => tunnel.group.store(arg as u32, Ordering::Relaxed),
            TUNSETOFFLOAD if arg & !0x7f != 0 => return Err(Errno::EINVAL),
            TUNSETOFFLOAD => tunnel.offloads.store(arg as u32, Ordering::Relaxed),
            TUNSETCARRIER => {
                tunnel.carrier.store(word()? != 0, Ordering::Relaxed);
                interface.announce();
            }
            TUNSETVNETHDRSZ => match word()? {
                size if (size as usize) < VNET || size > 64 => return Err(Errno::EINVAL),
                size => tunnel.header_size.store(size, Ordering::Relaxed),
            },
            TUNSETQUEUE => {
                let mut raw = [0; 18];
                copy_in(&mut raw, arg)?;
                let enabled = match u32::from(u16::from_ne_bytes([raw[16], raw[17]])) {
                    kind::ATTACH => true,
                    kind::DETACH if tunnel.flags & kind::MULTI_QUEUE != 0 => false,
                    _ => return Err(Errno::EINVAL),
                };
                if line.enabled.swap(enabled, Ordering::Relaxed) == enabled {
                    return Err(Errno::EINVAL);
                }
            }
            TUNSETSNDBUF | TUNSETVNETLE | TUNSETDEBUG => {}
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }

    fn get(&self, request: u32, arg: usize) -> Result<()> {
        let (interface, _) = attached(self)?;
        let tunnel = tunnel_of(&interface)?;
        match request {
            TUNGETIFF => {
                let mut raw = [0; 40];
                let name = interface.name();
                raw[..name.len()].copy_from_slice(name.as_bytes());
                let persists = if tunnel.persists.load(Ordering::Relaxed) { kind::PERSIST } else { 0 };
                raw[16..18].copy_from_slice(&(tunnel.flags | persists).to_ne_bytes());
                copy_out(arg, &raw)
            }
            TUNGETVNETHDRSZ => UserPtr::new(arg).write(&tunnel.header_size.load(Ordering::Relaxed)),
            TUNGETSNDBUF => UserPtr::new(arg).write(&i32::MAX),
            TUNGETVNETLE => UserPtr::new(arg).write(&1i32),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Bytes of the headers that the program sees before each packet.
    fn prefix(tunnel: &Tunnel) -> (usize, usize) {
        let pi = if tunnel.flags & kind::NO_PI == 0 { PI } else { 0 };
        let vnet = if tunnel.flags & kind::VNET_HDR == 0 { 0 } else { tunnel.header_size.load(Ordering::Relaxed) };
        (pi, vnet as usize)
    }
}

const TUNSETNOCSUM: u32 = 0x4004_54c8;
const TUNSETDEBUG: u32 = 0x4004_54c9;
const TUNSETIFF: u32 = 0x4004_54ca;
const TUNSETPERSIST: u32 = 0x4004_54cb;
const TUNSETOWNER: u32 = 0x4004_54cc;
const TUNSETGROUP: u32 = 0x4004_54ce;
const TUNGETFEATURES: u32 = 0x8004_54cf;
const TUNSETOFFLOAD: u32 = 0x4004_54d0;
const TUNGETIFF: u32 = 0x8004_54d2;
const TUNGETSNDBUF: u32 = 0x8004_54d3;
const TUNSETSNDBUF: u32 = 0x4004_54d4;
const TUNGETVNETHDRSZ: u32 = 0x8004_54d7;
const TUNSETVNETHDRSZ: u32 = 0x4004_54d8;
const TUNSETQUEUE: u32 = 0x4004_54d9;
const TUNSETIFINDEX: u32 = 0x4004_54da;
const TUNSETVNETLE: u32 = 0x4004_54dc;
const TUNGETVNETLE: u32 = 0x8004_54dd;
const TUNSETCARRIER: u32 = 0x4004_54e2;

/// `struct virtio_net_hdr` of a packet that is handed to a program.
pub(crate) fn vnet_header(packet: &Packet) -> [u8; VNET] {
    let mut out = [0; VNET];
    if let Checksum::Partial { start, offset } = packet.checksum {
        out[0] = 1;
        out[6..8].copy_from_slice(&(start + u16::from(packet.link)).to_le_bytes());
        out[8..10].copy_from_slice(&offset.to_le_bytes());
    }
    if packet.segment_size != 0 {
        // VIRTIO_NET_HDR_GSO_TCPV4, TCPV6, UDP_L4.
        out[1] = match (packet.is_tcp(), packet.is_v6()) {
            (true, false) => 1,
            (true, true) => 4,
            (false, _) => 5,
        };
        out[2..4].copy_from_slice(&(packet.head().len() as u16).to_le_bytes());
        out[4..6].copy_from_slice(&packet.segment_size.to_le_bytes());
    }
    out
}

/// Puts what a `struct virtio_net_hdr` says on a packet from a program. `EINVAL`.
pub(crate) fn apply_vnet(header: &[u8], packet: &mut Packet) -> Result<()> {
    let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    if header[0] & 1 != 0 {
        let start = usize::from(half(6));
        let field = start + usize::from(half(8)) + 2;
        if field > packet.len() || !packet.ensure(field) {
            return Err(Errno::EINVAL);
        }
        let network = start.checked_sub(usize::from(packet.link)).ok_or(Errno::EINVAL)?;
        packet.checksum = Checksum::Partial { start: network as u16, offset: half(8) };
    }
    match header[1] & 0x7f {
        0 => {}
        1 | 3 | 4 | 5 if half(4) != 0 => packet.segment_size = half(4),
        _ => return Err(Errno::EINVAL),
    }
    Ok(())
}

impl File for TunnelFile {
    fn read(&self, sink: &mut Sink, io: &mut Io) -> Result<usize> {
        let (interface, line) = attached(self)?;
        let tunnel = tunnel_of(&interface)?;
        let attempt = || match line.packets.lock().pop_front() {
            Some(packet) => Some(Ok(packet)),
            None if io.nonblocking() => Some(Err(Errno::EAGAIN)),
            None => None,
        };
        let waited = line.news.wait_exclusive(Sleep::Interruptible, None, attempt);
        let packet = waited.map_err(|error| crate::socket::wait_error(error, false))??;
        let (pi, vnet) = TunnelFile::prefix(tunnel);
        let mut head = Vec::new();
        if pi != 0 {
            const STRIP: u16 = 1;
            if sink.remaining() < pi {
                return Err(Errno::EINVAL);
            }
            let cut = sink.remaining() < packet.len() + pi + vnet;
            let protocol = if packet.link != 0 { ethernet::frame_type(&packet) } else { ethernet::type_of(&packet) };
            head.extend_from_slice(&(if cut { STRIP } else { 0 }).to_ne_bytes());
            head.extend_from_slice(&protocol.to_be_bytes());
        }
        if vnet != 0 {
            if sink.remaining() < pi + vnet {
                return Err(Errno::EINVAL);
            }
            head.extend_from_slice(&vnet_header(&packet));
            head.resize(pi + vnet, 0);
        }
        let whole = head.len() + packet.len();
        let mut done = if head.is_empty() { 0 } else { sink.put(&head)? };
        let own = packet.head().len().min(sink.remaining());
        if own > 0 {
            done += sink.put(&packet.head()[..own])?;
        }
        if sink.remaining() > 0 && !packet.payload.is_empty() {
            done += packet.payload.put(sink)?;
        }
        debug_assert!(done <= whole);
        Ok(done)
    }

    fn write(&self, source: &mut Source, _io: &mut Io) -> Result<usize> {
        let (interface, _) = attached(self)?;
        let tunnel = tunnel_of(&interface)?;
        let (pi, vnet) = TunnelFile::prefix(tunnel);
        let total = source.remaining();
        if total < pi + vnet {
            return Err(Errno::EINVAL);
        }
        let mut head = [0; PI + 64];
        let head = &mut head[..pi + vnet];
        if !head.is_empty() && source.take(head)? < pi + vnet {
            return Err(Errno::EFAULT);
        }
        let len = source.remaining();
        if tunnel.is_framed() && len < ethernet::HEADER || len == 0 {
            return Err(Errno::EINVAL);
        }
        if len > PACKET_MAX {
            return Err(Errno::EMSGSIZE);
        }
        let data: Rope = Filler::new().take_all(source)?;
        if !interface.is_up() {
            return Err(Errno::EIO);
        }
        let mut packet = Packet::incoming(data);
        packet.ensure(1);
        if tunnel.is_framed() {
            packet.link = ethernet::HEADER as u8;
        } else if pi == 0 && !matches!(packet.head()[0] >> 4, 4 | 6) {
            interface.counts.rx_dropped.fetch_add(1, Ordering::Relaxed);
            return Err(Errno::EINVAL);
        }
        if vnet != 0 {
            apply_vnet(&head[pi..], &mut packet)?;
        }
        interface.receive(packet);
        backlog::run();
        Ok(total)
    }

    fn poll(&self, table: &mut PollTable) -> Events {
        table.register(&self.news);
        let Ok((interface, line)) = attached(self) else { return Events::ERR };
        let mut ready = Events::empty();
        if !line.packets.lock().is_empty() {
            ready |= Events::READABLE;
        }
        if interface.is_up() {
            ready |= Events::WRITABLE;
        }
        ready
    }

    fn ioctl(&self, cx: &IoctlContext, request: u32, arg: usize) -> Result<usize> {
        match request {
            TUNSETIFF => self.attach(cx.cred, arg)?,
            TUNGETFEATURES => UserPtr::new(arg).write(&u32::from(kind::ALL))?,
            TUNSETIFINDEX => {
                if self.attached.lock().is_some() {
                    return Err(Errno::EPERM);
                }
                let index = UserPtr::<u32>::new(arg).read()?;
                if index > i32::MAX as u32 {
                    return Err(Errno::EINVAL);
                }
                self.wanted_index.store(index, Ordering::Relaxed);
            }
            TUNGETIFF | TUNGETSNDBUF | TUNGETVNETHDRSZ | TUNGETVNETLE => self.get(request, arg)?,
            TUNSETNOCSUM => {}
            TUNSETDEBUG | TUNSETPERSIST | TUNSETOWNER | TUNSETGROUP | TUNSETOFFLOAD | TUNSETSNDBUF
            | TUNSETVNETHDRSZ | TUNSETQUEUE | TUNSETVNETLE | TUNSETCARRIER => self.set(request, arg)?,
            _ => return super::ioctl::request(cx.cred, request, arg),
        }
        Ok(0)
    }

    fn release(&self, _flags: OpenFlags) {
        self.detach();
    }
}
