//! Ethernet: the header of frames (RFC 894, RFC 2464), and who takes a received one.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::net::IpAddr;
use core::sync::atomic::Ordering;

use super::{Interface, arp, bridge, flag, vlan};
use crate::af_packet;
use crate::packet::{Addressed, Packet};
use crate::{ip, route};

/// Bytes of the header.
pub(crate) const HEADER: usize = 14;
/// EtherTypes.
pub(crate) const TYPE_IPV4: u16 = 0x0800;
/// ARP's.
pub(crate) const TYPE_ARP: u16 = 0x0806;
/// IPv6's.
pub(crate) const TYPE_IPV6: u16 = 0x86dd;
/// The address of everyone.
pub(crate) const BROADCAST: [u8; 6] = [0xff; 6];

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

/// Sends a packet in a frame to a neighbour whose address is known.
pub(super) fn send(interface: &Interface, mut packet: Box<Packet>, to: [u8; 6], kind: u16) {
    let from = interface.mac();
    let Ok(head) = packet.push(HEADER) else { return };
    head[..6].copy_from_slice(&to);
    head[6..12].copy_from_slice(&from);
    head[12..14].copy_from_slice(&kind.to_be_bytes());
    packet.link = HEADER as u8;
    interface.send(packet);
}

/// The EtherType of a frame that begins the packet's headers.
pub(crate) fn frame_type(packet: &Packet) -> u16 {
    packet.head().get(12..14).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
}

/// The EtherType of a packet that begins with its IP header.
pub(crate) fn type_of(packet: &Packet) -> u16 {
    match packet.head().first().map(|b| b >> 4) {
        Some(6) => TYPE_IPV6,
        _ => TYPE_IPV4,
    }
}

/// To whom a frame is, seen from an interface.
pub(super) fn addressed(to: &[u8], interface: &Interface) -> Addressed {
    if to == BROADCAST {
        Addressed::Broadcast
    } else if to[0] & 1 != 0 {
        Addressed::Multicast
    } else if to == interface.mac() {
        Addressed::Host
    } else {
        Addressed::Other
    }
}

/// Receives a frame.
pub(super) fn input(mut packet: Box<Packet>, interface: &Arc<Interface>) {
    if !packet.ensure(HEADER) {
        interface.counts.rx_errors.fetch_add(1, Ordering::Relaxed);
        return;
    }
    packet.link = HEADER as u8;
    packet.addressed = addressed(&packet.head()[..6], interface);
    if packet.addressed == Addressed::Multicast {
        interface.counts.multicast.fetch_add(1, Ordering::Relaxed);
    }
    if af_packet::is_watching() {
        af_packet::deliver(&packet, interface);
    }
    let Some(packet) = vlan::input(packet, interface) else { return };
    let Some(packet) = bridge::input(packet, interface) else { return };
    deliver(packet, interface);
}

/// Hands a frame to the protocol that it is for.
pub(super) fn deliver(mut packet: Box<Packet>, interface: &Arc<Interface>) {
    if packet.addressed == Addressed::Other {
        return;
    }
    let kind = frame_type(&packet);
    packet.pull(HEADER);
    packet.link = 0;
    match kind {
        TYPE_IPV4 | TYPE_IPV6 => ip::input(packet),
        TYPE_ARP if interface.flags() & flag::NOARP == 0 => arp::input(packet, interface),
        _ => {}
    }
}
