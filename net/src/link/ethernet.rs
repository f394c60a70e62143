//! Ethernet: frames to and from the device of an interface (RFC 894, RFC 2464).

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::net::IpAddr;
use core::sync::atomic::Ordering;

use abi::PAGE_SIZE;
use dev::{NetDevice, Offload, Page, Received, Transmit};
use hal::frame::Frame;
use hal::sync::SpinLock;

use super::{Interface, arp};
use crate::packet::{Addressed, Checksum, Packet, Piece, Rope};
use crate::{backlog, ip, route, worker};

/// Bytes of the header.
pub(crate) const HEADER: usize = 14;
/// EtherTypes.
pub(crate) const TYPE_IPV4: u16 = 0x0800;
/// ARP's.
pub(crate) const TYPE_ARP: u16 = 0x0806;
const TYPE_IPV6: u16 = 0x86dd;
/// The address of everyone.
pub(crate) const BROADCAST: [u8; 6] = [0xff; 6];
/// Packets that wait for room in the device (as Linux's `txqueuelen`).
const WAITING_MAX: usize = 1000;
/// Frames that are taken before others get their turn.
const BUDGET: usize = 64;

/// An interface's device.
pub struct Ethernet {
    pub(super) device: Arc<dyn NetDevice>,
    waiting: SpinLock<VecDeque<Box<Packet>>>,
}

/// A page that a device fills.
struct ReceivePage(Frame);

impl Page for ReceivePage {
    fn physical(&self) -> u64 {
        self.0.physical() as u64
    }

    fn size(&self) -> usize {
        PAGE_SIZE
    }

    fn read(&self, offset: usize, dst: &mut [u8]) {
        self.0.read(offset, dst);
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

/// The hardware address that a group or everyone has; `None` for one neighbour's.
pub(crate) fn group_address(ip: IpAddr, interface: &Interface) -> Option<[u8; 6]> {
    match ip {
        IpAddr::V4(v4) if v4.is_multicast() => {
            let [_, b, c, d] = v4.octets();
            Some([1, 0, 0x5e, b & 0x7f, c, d])
        }
        IpAddr::V6(v6) if v6.is_multicast() => {
            let o = v6.octets();
            Some([0x33, 0x33, o[12], o[13], o[14], o[15]])
        }
        ip => route::is_broadcast(ip, interface).then_some(BROADCAST),
    }
}

impl Ethernet {
    pub(super) fn new(device: Arc<dyn NetDevice>) -> Ethernet {
        let ethernet = Ethernet { device, waiting: SpinLock::new(VecDeque::new()) };
        ethernet.fill();
        ethernet
    }

    /// Gives the device pages for frames.
    fn fill(&self) {
        while let Some(frame) = Frame::alloc() {
            if self.device.post(Box::new(ReceivePage(frame))).is_err() {
                break;
            }
        }
        self.device.flush();
    }

    /// Sends a packet to a neighbour whose address is known.
    pub(super) fn send(&self, interface: &Interface, mut packet: Box<Packet>, to: [u8; 6], kind: u16) {
        let Ok(head) = packet.push(HEADER) else { return };
        head[..6].copy_from_slice(&to);
        head[6..12].copy_from_slice(&interface.mac);
        head[12..14].copy_from_slice(&kind.to_be_bytes());
        packet.addressed = Addressed::Outgoing;
        let mut waiting = self.waiting.lock();
        if waiting.is_empty() {
            let Some(packet) = self.try_send(packet) else { return };
            waiting.push_back(packet);
        } else if waiting.len() < WAITING_MAX {
            waiting.push_back(packet);
        } else {
            interface.counts.tx_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Hands a frame to the device; given back if there is no room.
    fn try_send(&self, packet: Box<Packet>) -> Option<Box<Packet>> {
        let pieces: Vec<(u64, u32)> =
            packet.payload.pieces().map(|piece| (piece.physical(), piece.len() as u32)).collect();
        let mut offload = Offload::default();
        if let Checksum::Partial { start, offset } = packet.checksum {
            offload.checksum = Some((start + HEADER as u16, offset));
        }
        if packet.segment_size != 0 {
            offload.segment_size = packet.segment_size;
            offload.header_len = packet.head().len() as u16;
            offload.v6 = packet.head().get(12..14) == Some(&TYPE_IPV6.to_be_bytes());
        }
        let head = packet.head().to_vec();
        let mut keep: Option<Box<dyn Any + Send>> = Some(Box::new(packet));
        let frame = Transmit { head: &head, pieces: &pieces, offload };
        if self.device.transmit(&frame, &mut keep) {
            return None;
        }
        let packet = keep?.downcast::<Box<Packet>>().ok()?;
        Some(*packet)
    }

    /// Sends what waited for room.
    fn drain(&self) {
        let mut waiting = self.waiting.lock();
        while let Some(packet) = waiting.pop_front() {
            if let Some(packet) = self.try_send(packet) {
                waiting.push_front(packet);
                return;
            }
        }
    }

    /// Takes received frames, a budget's worth; then asks for an interrupt, or comes back if there are more.
    pub(super) fn poll(&self, interface: &Arc<Interface>) {
        for _ in 0..BUDGET {
            let Some(received) = self.device.receive() else {
                self.fill();
                self.drain();
                if self.device.listen() {
                    worker::wake(worker::FRAMES);
                }
                return;
            };
            let bytes: usize = received.parts.iter().map(|(_, _, len)| len).sum();
            interface.counts.rx_packets.fetch_add(1, Ordering::Relaxed);
            interface.counts.rx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            if let Some(packet) = packet_of(received, interface).filter(|_| interface.is_up()) {
                input(packet, interface);
                backlog::run();
            }
        }
        self.fill();
        worker::wake(worker::FRAMES);
    }
}

fn packet_of(received: Received, interface: &Interface) -> Option<Box<Packet>> {
    let mut rope = Rope::new();
    for (page, offset, len) in received.parts {
        let page = page.into_any().downcast::<ReceivePage>().ok()?;
        rope.push(Piece::new(page.0, offset, len));
    }
    let mut packet = Packet::incoming(rope);
    packet.interface = interface.index;
    if received.checked {
        packet.checksum = Checksum::Good;
    }
    Some(packet)
}

/// Receives a frame.
fn input(mut packet: Box<Packet>, interface: &Arc<Interface>) {
    if !packet.ensure(HEADER) {
        interface.counts.rx_errors.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let head = packet.head();
    let to = &head[..6];
    let kind = u16::from_be_bytes([head[12], head[13]]);
    packet.addressed = if to == interface.mac {
        Addressed::Host
    } else if to == BROADCAST {
        Addressed::Broadcast
    } else if to[0] & 1 != 0 {
        interface.counts.multicast.fetch_add(1, Ordering::Relaxed);
        Addressed::Multicast
    } else {
        Addressed::Other
    };
    packet.pull(HEADER);
    if packet.addressed == Addressed::Other {
        return;
    }
    match kind {
        TYPE_IPV4 | TYPE_IPV6 => ip::input(packet),
        TYPE_ARP => arp::input(packet, interface),
        _ => {}
    }
}

/// The EtherType of a packet that begins with its IP header.
pub(super) fn type_of(packet: &Packet) -> u16 {
    match packet.head().first().map(|b| b >> 4) {
        Some(6) => TYPE_IPV6,
        _ => TYPE_IPV4,
    }
}
