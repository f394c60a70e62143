//! Forwarding: packets for others that come by go on their way (RFC 1812), if the administrator has said so.

use alloc::boxed::Box;
use core::net::IpAddr;

use super::icmp::{self, Unreachable};
use super::{Header, protocol, transmit};
use crate::link::{self, conf::V4};
use crate::packet::{Addressed, Packet};
use crate::route::{self, Flow, Kind};
use crate::statistics::{self, Counter};

/// A packet that is not for this machine: on its way, or dropped. It begins with its IP header.
pub(super) fn input(mut packet: Box<Packet>, header: &Header) {
    let v4 = header.source.is_ipv4();
    let input = link::by_index(header.interface);
    let allowed = input.as_ref().is_some_and(|input| input.forwards(v4));
    let plain = packet.addressed == Addressed::Host
        && !header.destination.is_multicast()
        && !header.source.is_multicast()
        && !header.source.is_unspecified();
    if !allowed || !plain || is_confined(header.source) || is_confined(header.destination) {
        statistics::add_for(!v4, Counter::IpInAddrErrors, 1);
        return;
    }
    packet.pull(header.len);
    if header.ttl <= 1 {
        icmp::time_exceeded(&mut packet, header, 0);
        return;
    }
    let path = match route::find(&flow_of(&mut packet, header)) {
        Ok(path) if path.kind == Kind::Unicast => path,
        Ok(_) => return,
        Err(error) => {
            let why = if error == base::Errno::EACCES { Unreachable::Prohibited } else { Unreachable::Network };
            icmp::unreachable(&mut packet, header, why);
            return;
        }
    };
    let len = match packet.segment_size {
        0 => packet.len() + header.len,
        // What is going to be cut into segments: the headers (the transport's at most 60 bytes) and one of these.
        size => header.len + transport_len(&mut packet, header.protocol) + usize::from(size),
    };
    if len > path.mtu() && !may_be_cut(&mut packet, header) {
        icmp::too_big(&mut packet, header, path.mtu());
        return;
    }
    let sends_redirects = input.is_some_and(|input| input.either(V4::SendRedirects));
    if path.interface.index == header.interface && path.next_hop != header.source && v4 && sends_redirects {
        icmp::redirect(&mut packet, header, path.next_hop);
    }
    packet.unpull(header.len);
    step(&mut packet, v4);
    let own = route::source_for(&path.interface, header.destination, path.next_hop);
    super::option::record_in(&mut packet, header, own);
    statistics::add_for(!v4, Counter::IpForwDatagrams, 1);
    packet.hops = 0;
    if len > path.mtu() {
        if packet.segment_size != 0 {
            crate::link::cut(packet).into_iter().for_each(|part| super::fragment::again(part, header, &path));
        } else {
            super::fragment::again(packet, header, &path);
        }
        return;
    }
    // What cannot be sent is lost like anything on the way.
    let _ = transmit(packet, &path);
}

/// Does the header of a packet, which is at what follows it, allow that it is cut?
fn may_be_cut(packet: &mut Packet, header: &Header) -> bool {
    packet.unpull(header.len);
    let may = header.source.is_ipv4() && packet.head().get(6).is_some_and(|flags| flags & 0x40 == 0);
    packet.pull(header.len);
    may
}

/// What the way of a packet depends on.
fn flow_of(packet: &mut Packet, header: &Header) -> Flow {
    let mut flow = Flow::to(header.destination, 0);
    flow.source = Some(header.source);
    flow.input = header.interface;
    flow.mark = packet.mark;
    flow.tos = header.tos;
    packet.unpull(header.len);
    flow.hash = packet.flow_hash();
    packet.pull(header.len);
    flow
}

/// Bytes of the transport header that each segment of a packet has.
fn transport_len(packet: &mut Packet, number: u8) -> usize {
    match number {
        protocol::TCP if packet.ensure(20) => usize::from(packet.head()[12] >> 4) * 4,
        _ => 8,
    }
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
