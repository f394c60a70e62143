//! Forwarding: packets for others that come by go on their way (RFC 1812), if the administrator has said so.

use alloc::boxed::Box;
use core::net::IpAddr;
use core::sync::atomic::{AtomicU32, Ordering};

use super::icmp::{self, Unreachable};
use super::{Header, transmit};
use crate::link;
use crate::packet::{Addressed, Packet};
use crate::route::{self, Flow, Kind};
use crate::statistics::{self, Counter};

/// `net.ipv4.ip_forward` and `net.ipv6.conf.all.forwarding`.
pub static FORWARDING: [AtomicU32; 2] = [AtomicU32::new(0), AtomicU32::new(0)];

/// Do interfaces that are made now forward packets of a family?
pub(crate) fn by_default(v4: bool) -> bool {
    FORWARDING[usize::from(!v4)].load(Ordering::Relaxed) != 0
}

/// Sets forwarding for all interfaces there are and come.
pub(crate) fn set(v4: bool, on: bool) {
    FORWARDING[usize::from(!v4)].store(on.into(), Ordering::Relaxed);
    for interface in link::all() {
        interface.forwarding[usize::from(!v4)].store(on, Ordering::Relaxed);
    }
}

/// A packet that is not for this machine: on its way, or dropped. It begins with its IP header.
pub(super) fn input(mut packet: Box<Packet>, header: &Header) {
    let v4 = header.source.is_ipv4();
    let allowed =
        link::by_index(header.interface).is_some_and(|i| i.forwarding[usize::from(!v4)].load(Ordering::Relaxed));
    let plain = packet.addressed == Addressed::Host
        && !header.destination.is_multicast()
        && !header.source.is_multicast()
        && !header.source.is_unspecified();
    if !allowed || !plain || is_confined(header.source) || is_confined(header.destination) {
        statistics::add(Counter::IpInAddrErrors, 1);
        return;
    }
    packet.pull(header.len);
    if header.ttl <= 1 {
        icmp::time_exceeded(&mut packet, header, 0);
        return;
    }
    let mut flow = Flow::to(header.destination, 0);
    flow.source = Some(header.source);
    flow.input = header.interface;
    flow.mark = packet.mark;
    flow.tos = header.tos;
    packet.unpull(header.len);
    flow.hash = packet.flow_hash();
    packet.pull(header.len);
    let path = match route::find(&flow) {
        Ok(path) if path.kind == Kind::Unicast => path,
        Ok(_) => return,
        Err(error) => {
            let why = if error == base::Errno::EACCES { Unreachable::Prohibited } else { Unreachable::Network };
            icmp::unreachable(&mut packet, header, why);
            return;
        }
    };
    let len = packet.len() + header.len;
    if len > path.mtu() && packet.segment_size == 0 {
        packet.unpull(header.len);
        let may_be_cut = v4 && packet.head().get(6).is_some_and(|flags| flags & 0x40 == 0);
        if !may_be_cut {
            packet.pull(header.len);
            icmp::too_big(&mut packet, header, path.mtu());
            return;
        }
        packet.pull(header.len);
    }
    if path.interface.index == header.interface && path.next_hop != header.source && v4 {
        icmp::redirect(&mut packet, header, path.next_hop);
    }
    packet.unpull(header.len);
    step(&mut packet, v4);
    statistics::add(Counter::IpForwDatagrams, 1);
    packet.hops = 0;
    if len > path.mtu() && packet.segment_size == 0 {
        super::fragment::again(packet, header, &path);
        return;
    }
    // What cannot be sent is lost like anything on the way.
    let _ = transmit(packet, &path);
}

/// Addresses that mean something on one link or machine only.
fn is_confined(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_loopback() || route::is_link_local(ip),
    }
}

/// One step less to live: the header's checksum is changed by as much (RFC 1624).
fn step(packet: &mut Packet, v4: bool) {
    let head = packet.head_mut();
    if !v4 {
        head[7] -= 1;
        return;
    }
    head[8] -= 1;
    let sum = u32::from(u16::from_be_bytes([head[10], head[11]])) + 0x100;
    let sum = (sum + (sum >> 16)) as u16;
    head[10..12].copy_from_slice(&sum.to_be_bytes());
}
