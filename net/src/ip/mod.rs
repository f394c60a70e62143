//! The Internet layer: headers of IPv4 (RFC 791) and IPv6 (RFC 8200), sending, receiving, and handing up to the protocols.

pub(crate) use option::{LOOSE_ROUTE, OPTIONS_MAX, STRICT_ROUTE};

pub mod forward;
pub(crate) mod fragment;
pub mod icmp;
pub(crate) mod membership;
mod option;
mod v4;
mod v6;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::sync::atomic::{AtomicU32, Ordering};

use base::{Errno, Result};

use crate::checksum::Sum;
use crate::inet::{raw, udp};
use crate::link::conf::V4;
use crate::link::{self, Interface};
use crate::packet::{Addressed, Checksum, Packet};
use crate::route::{self, Kind, Path};
use crate::statistics::{self, Counter};
use crate::{backlog, tcp};

/// Protocol numbers.
#[allow(missing_docs, reason = "protocols(5) has them")]
pub mod protocol {
    pub const ICMP: u8 = 1;
    pub const IGMP: u8 = 2;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ICMPV6: u8 = 58;
    pub const UDPLITE: u8 = 136;
    pub const RAW: u8 = 255;
}

/// What the header of a received packet says.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Who sent it.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// What comes after the headers.
    pub protocol: u8,
    /// Time to live, hop limit.
    pub ttl: u8,
    /// Type of service, traffic class.
    pub tos: u8,
    /// Bytes of all headers of this layer.
    pub len: usize,
    /// The interface it came in by.
    pub interface: u32,
}

/// What the header of a packet to be sent is to say.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// From.
    pub source: IpAddr,
    /// To.
    pub destination: IpAddr,
    /// The protocol.
    pub protocol: u8,
    /// Time to live, hop limit.
    pub ttl: u8,
    /// Type of service, traffic class.
    pub tos: u8,
    /// Not to be cut on its way: too large a packet is refused.
    pub whole: bool,
    /// Not to come back to this machine's own members of a group.
    pub quiet: bool,
    /// Options of the IPv4 header, a multiple of four bytes.
    pub options: &'a [u8],
    /// Bytes a second that its sender wants to send at most; 0 for no limit.
    pub rate: u32,
}

impl Outgoing<'_> {
    /// Bytes of the header.
    pub fn header_len(&self) -> usize {
        header_len(self.source) + if self.source.is_ipv4() { self.options.len() } else { 0 }
    }
}

/// The time to live of packets (`net.ipv4.ip_default_ttl`).
pub static DEFAULT_TTL: AtomicU32 = AtomicU32::new(64);

/// The time to live for what is sent to `destination`, unless the sender has chosen.
pub fn default_ttl(destination: IpAddr) -> u8 {
    if destination.is_multicast() { 1 } else { DEFAULT_TTL.load(Ordering::Relaxed) as u8 }
}

/// Bytes of a header without options.
pub fn header_len(ip: IpAddr) -> usize {
    if ip.is_ipv4() { v4::HEADER } else { v6::HEADER }
}

/// Leaves the checksum of a transport header in front of the payload to the device (or whoever stands in for it). `at` is where in the header it
/// goes.
pub fn set_checksum(packet: &mut Packet, out: &Outgoing, at: usize) {
    let value = Sum::pseudo(out.source, out.destination, out.protocol, packet.len()).folded();
    packet.checksum = Checksum::Partial { start: out.header_len() as u16, offset: at as u16 };
    if let Some(field) = packet.head_mut().get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// Is the checksum of a received packet, now at its transport header, right?
pub fn checksum_ok(packet: &Packet, header: &Header) -> bool {
    if packet.checksum != Checksum::Unknown {
        return true;
    }
    let mut sum = Sum::pseudo(header.source, header.destination, header.protocol, packet.len());
    sum.add(packet.head());
    sum.add_rope(&packet.payload);
    sum.folded() == 0xffff
}

/// Sends a packet that begins with its transport header. `EMSGSIZE` where it may not be cut and is too large, `ENETDOWN`.
pub fn output(mut packet: Box<Packet>, out: &Outgoing, path: &Path) -> Result<()> {
    let v6 = out.source.is_ipv6();
    statistics::add_for(v6, Counter::IpOutRequests, 1);
    statistics::add_for(v6, Counter::IpOutOctets, (packet.len() + out.header_len()) as u64);
    if out.destination.is_multicast() {
        statistics::add_for(v6, Counter::IpOutMcastPkts, 1);
    }
    packet.quiet = out.quiet;
    packet.rate = out.rate;
    let most = path.mtu();
    let len = packet.len() + out.header_len();
    if len > most && packet.segment_size == 0 {
        if out.whole {
            return Err(Errno::EMSGSIZE);
        }
        return fragment::output(packet, out, path, most);
    }
    match (out.source, out.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => v4::push(&mut packet, out, source, destination, None)?,
        (IpAddr::V6(source), IpAddr::V6(destination)) => v6::push(&mut packet, out, source, destination)?,
        _ => return Err(Errno::EAFNOSUPPORT),
    }
    transmit(packet, path)
}

/// Sends a packet that has its IP header already.
pub fn transmit(packet: Box<Packet>, path: &Path) -> Result<()> {
    if !path.interface.is_up() {
        return Err(Errno::ENETDOWN);
    }
    if matches!(path.kind, Kind::Multicast | Kind::Broadcast) && !path.interface.is_loopback() {
        // This machine may be among the receivers.
        loop_back(&packet, path);
        if path.kind == Kind::Multicast && stays_here(&packet) {
            return Ok(());
        }
    }
    path.interface.transmit(packet, path.next_hop);
    Ok(())
}

/// Gives this machine's members of a group, or all that listen to a broadcast, their copy: as if it had come in where it goes out.
fn loop_back(packet: &Packet, path: &Path) {
    let wanted = match path.kind {
        Kind::Multicast => !packet.quiet && path.interface.listens_to(path.next_hop, path.source),
        _ => true,
    };
    if wanted {
        let mut copy = Box::new(packet.clone());
        copy.interface = path.interface.index;
        copy.addressed = Addressed::Loopback;
        if copy.checksum != Checksum::Unknown {
            copy.checksum = Checksum::Good;
        }
        // Like any packet that finds no room it is lost.
        let _ = backlog::push(copy);
    }
}

/// A group's packet without a hop to live is for this machine only, as is one to a group that has its scope there.
fn stays_here(packet: &Packet) -> bool {
    let head = packet.head();
    if packet.is_v6() { head.get(25).is_some_and(|scope| scope & 0xf <= 1) } else { head.get(8) == Some(&0) }
}

/// Receives a packet that begins with its IP header, without locks held.
pub fn input(mut packet: Box<Packet>) {
    if !packet.ensure(1) {
        return;
    }
    let v6 = packet.is_v6();
    statistics::add_for(v6, Counter::IpInReceives, 1);
    statistics::add_for(v6, Counter::IpInOctets, packet.len() as u64);
    let header = match packet.head()[0] >> 4 {
        4 => v4::parse(&mut packet),
        6 => v6::parse(&mut packet),
        _ => None,
    };
    let Some((header, piece)) = header else {
        statistics::add_for(v6, Counter::IpInHdrErrors, 1);
        return;
    };
    if packet.addressed == Addressed::Other {
        return;
    }
    if header.destination.is_multicast() {
        statistics::add_for(v6, Counter::IpInMcastPkts, 1);
    }
    if packet.addressed != Addressed::Loopback && is_martian(&packet, &header) {
        statistics::add_for(v6, Counter::IpInAddrErrors, 1);
        return;
    }
    if header.len > v4::HEADER && header.source.is_ipv4() && !option::accepts(&mut packet, &header) {
        return;
    }
    if !is_for_us(&packet, &header) {
        forward::input(packet, &header);
        return;
    }
    if header.len > v4::HEADER && header.source.is_ipv4() {
        let one = route::is_local(header.destination);
        let own =
            if one { header.destination } else { route::lookup(header.source, 0).map_or(header.source, |p| p.source) };
        option::record_in(&mut packet, &header, own);
    }
    match piece {
        None => deliver(packet, header),
        Some(piece) => {
            if let Some((packet, header)) = fragment::input(packet, header, piece) {
                deliver(packet, header);
            }
        }
    }
}

/// Can a packet from this source not have come in here honestly (RFC 1812, 5.3.7 and 5.3.8; `rp_filter`)?
fn is_martian(packet: &Packet, header: &Header) -> bool {
    let Some(interface) = link::by_index(packet.interface).filter(|interface| !interface.is_loopback()) else {
        return false;
    };
    let IpAddr::V4(source) = header.source else {
        return header.source.is_multicast() || interface.is_v6_disabled();
    };
    let many = header.destination.is_multicast() || route::is_broadcast(header.destination, &interface);
    let bad = source.is_multicast()
        || source.is_broadcast()
        || source.octets()[0] == 0 && !(source.is_unspecified() && many)
        || (source.is_loopback() || header.destination.is_loopback()) && !interface.either(V4::RouteLocalnet);
    let wrong = bad || !source.is_unspecified() && !is_plausible(header.source, &interface);
    if wrong && interface.either(V4::LogMartians) {
        log::warn!("{}: martian source {} to {}", interface.name(), header.source, header.destination);
    }
    wrong
}

/// Would an answer to this source go out by the interface (`rp_filter` 1), or out at all (2)? This machine's own addresses come from elsewhere only
/// where that is allowed.
fn is_plausible(source: IpAddr, interface: &Interface) -> bool {
    let accepts_local = interface.either(V4::AcceptLocal);
    if route::is_local(source) {
        return accepts_local;
    }
    match interface.most(V4::RpFilter) {
        0 => true,
        how => {
            let back = route::lookup(source, 0);
            let right = back.is_ok_and(|path| how == 2 || path.interface.index == interface.index);
            if !right {
                statistics::add(Counter::IpReversePathFilter, 1);
            }
            right
        }
    }
}

fn is_for_us(packet: &Packet, header: &Header) -> bool {
    let Some(interface) = link::by_index(packet.interface) else { return false };
    let own = header.destination.is_loopback() || header.source.is_loopback();
    if !interface.is_loopback() && own && header.source.is_ipv6() {
        // Nobody else may speak to, or as, this machine's own addresses.
        return false;
    }
    if header.destination.is_multicast() {
        return interface.is_loopback() || interface.listens_to(header.destination, header.source);
    }
    interface.is_loopback()
        || route::is_broadcast(header.destination, &interface)
        || route::is_local(header.destination)
}

/// The options of the IPv4 header of a packet that is at its transport header.
pub(crate) fn options_of(packet: &mut Packet, header: &Header) -> Vec<u8> {
    if header.len <= v4::HEADER || header.source.is_ipv6() {
        return Vec::new();
    }
    packet.unpull(header.len);
    let options = packet.head().get(v4::HEADER..header.len).map_or(Vec::new(), <[u8]>::to_vec);
    packet.pull(header.len);
    options
}

/// Hands a whole packet, still with its IP header, to who it is for.
fn deliver(mut packet: Box<Packet>, header: Header) {
    let v6 = header.source.is_ipv6();
    statistics::add_for(v6, Counter::IpInDelivers, 1);
    let taken = raw::input(&packet, &header);
    packet.pull(header.len);
    match header.protocol {
        protocol::TCP => tcp::input(packet, header),
        protocol::UDP | protocol::UDPLITE => udp::input(packet, header),
        protocol::ICMP if header.source.is_ipv4() => icmp::input(packet, header),
        protocol::ICMPV6 if header.source.is_ipv6() => icmp::input(packet, header),
        protocol::IGMP if header.source.is_ipv4() => membership::input(&packet, &header),
        // The end of an IPv6 header's chain: nothing follows, and nobody complains.
        v6::NOTHING if header.source.is_ipv6() => {}
        _ if !taken => {
            statistics::add_for(v6, Counter::IpInUnknownProtos, 1);
            icmp::unreachable(&mut packet, &header, icmp::Unreachable::Protocol);
        }
        _ => {}
    }
}

/// Computes a checksum that was left to a device which will not see the packet whole.
fn finish_checksum(packet: &mut Packet, out: &Outgoing) {
    let Checksum::Partial { offset, .. } = packet.checksum else { return };
    let at = usize::from(offset);
    let len = packet.len();
    if let Some(field) = packet.head_mut().get_mut(at..at + 2) {
        field.fill(0);
    }
    let mut sum = Sum::pseudo(out.source, out.destination, out.protocol, len);
    sum.add(packet.head());
    sum.add_rope(&packet.payload);
    let value = if sum.finish() == 0 { 0xffff } else { sum.finish() };
    if let Some(field) = packet.head_mut().get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
    packet.checksum = Checksum::Unknown;
}

/// Source and destination of a header that is quoted, of which 20 or 40 bytes are here.
fn inner_addresses(head: &[u8], v4: bool) -> (IpAddr, IpAddr) {
    if v4 {
        let at = |i: usize| IpAddr::from([head[i], head[i + 1], head[i + 2], head[i + 3]]);
        (at(12), at(16))
    } else {
        let at = |i: usize| IpAddr::from(<[u8; 16]>::try_from(&head[i..i + 16]).unwrap_or_default());
        (at(8), at(24))
    }
}

/// The header of a packet that was on its way out.
pub(crate) fn quoted_header(packet: &Packet) -> Option<Header> {
    let mut copy = packet.clone();
    copy.checksum = Checksum::Good;
    let (header, _) = match copy.head().first()? >> 4 {
        4 => v4::parse(&mut copy)?,
        _ => v6::parse(&mut copy)?,
    };
    Some(header)
}
