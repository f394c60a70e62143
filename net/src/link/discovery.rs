//! Neighbour discovery for IPv6 (RFC 4861), and addresses without a server (RFC 4862).

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::net::{IpAddr, Ipv6Addr};

use super::conf::V6;
use super::duplicate::{self, Nonce};
use super::neighbour::Word;
use super::{Address, Interface, by_index, neighbour, scope};
use crate::ip::icmp;
use crate::ip::{Header, Outgoing, protocol};
use crate::packet::{Filler, Packet};
use crate::route::table::{self, How};
use crate::route::{self, Kind, Route};

/// Types of ICMPv6.
const ROUTER_SOLICITATION: u8 = 133;
/// A router knows a better way.
pub(crate) const REDIRECT: u8 = 137;
/// Types that are handled here: from here on...
pub(crate) const ROUTER_ADVERTISEMENT: u8 = 134;
const SOLICITATION: u8 = 135;
/// ... to here.
pub(crate) const ADVERTISEMENT: u8 = 136;
/// Whoever is on the link sends with this hop limit: no router lets it through.
const HOPS: u8 = 255;
/// The option with which a question for our own address is known again (RFC 3971, 5.3.2).
const NONCE: u8 = 14;
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Routes that came from advertisements (RTPROT_RA), and their metric.
const FROM_ROUTER: u8 = 9;
const ROUTER_METRIC: u32 = 1024;

/// The group of everyone whose address ends in the same three bytes.
pub(super) fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let o = ip.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, o[13], o[14], o[15]])
}

/// The last half of an address that is made of the hardware address (RFC 4291, appendix A).
fn identifier(mac: [u8; 6]) -> u64 {
    u64::from_be_bytes([mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]])
}

/// The address on the link that an interface has from the start.
pub(super) fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    Ipv6Addr::from(0xfe80u128 << 112 | u128::from(identifier(mac)))
}

fn own_address(interface: &Interface, near: Option<Ipv6Addr>) -> Option<Ipv6Addr> {
    let mut all = interface.addresses();
    all.retain(Address::is_usable);
    let v6 = |a: &Address| match a.ip {
        IpAddr::V6(v6) => Some(v6),
        IpAddr::V4(_) => None,
    };
    let local = near.is_none_or(|ip| route::is_link_local(ip.into()));
    all.iter().filter(|a| route::is_link_local(a.ip) == local).find_map(v6).or_else(|| all.iter().find_map(v6))
}

fn send(interface: &Interface, head: [u8; 8], body: &[u8], source: Ipv6Addr, to: Ipv6Addr) {
    let Some(interface) = by_index(interface.index) else { return };
    let kind = if to.is_multicast() { Kind::Multicast } else { Kind::Unicast };
    let path = route::direct(interface, to.into(), source.into(), kind);
    let out = Outgoing {
        source: source.into(),
        destination: to.into(),
        protocol: protocol::ICMPV6,
        ttl: HOPS,
        tos: 0,
        whole: true,
        quiet: true,
        options: &[],
        rate: 0,
    };
    if let Ok(body) = Filler::new().bytes(body) {
        // Who does not hear it will ask again, and so will we.
        let _ = icmp::send(head, body, &out, &path);
    }
}

/// An option of six bytes: a hardware address (1: the sender's, 2: the target's), or a nonce.
fn option(kind: u8, data: [u8; 6]) -> [u8; 8] {
    [kind, 1, data[0], data[1], data[2], data[3], data[4], data[5]]
}

/// Asks who has an address.
pub(super) fn solicit(interface: &Interface, target: Ipv6Addr) {
    let Some(source) = own_address(interface, Some(target)) else { return };
    let body = [&target.octets()[..], &option(1, interface.mac())].concat();
    send(interface, [SOLICITATION, 0, 0, 0, 0, 0, 0, 0], &body, source, solicited_node(target));
}

/// Asks who has an address that we would like to have ourselves: from nowhere, with a nonce.
pub(super) fn ask_for(interface: &Interface, target: Ipv6Addr, nonce: Nonce) {
    let body = [&target.octets()[..], &option(NONCE, nonce)].concat();
    send(interface, [SOLICITATION, 0, 0, 0, 0, 0, 0, 0], &body, Ipv6Addr::UNSPECIFIED, solicited_node(target));
}

/// Asks for routers.
pub(super) fn solicit_routers(interface: &Interface) {
    if let Some(source) = own_address(interface, None) {
        let body = option(1, interface.mac());
        send(interface, [ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0], &body, source, ALL_ROUTERS);
    }
}

/// What an option of that kind holds.
fn option_in(options: &[u8], kind: u8) -> Option<[u8; 6]> {
    each_option(options).find(|(k, _)| *k == kind).and_then(|(_, data)| data.get(..6)?.try_into().ok())
}

fn each_option(mut options: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    core::iter::from_fn(move || {
        let (&kind, &units) = (options.first()?, options.get(1)?);
        let len = usize::from(units) * 8;
        // A length of zero would never end.
        let data = options.get(2..len).filter(|_| len > 0)?;
        options = &options[len..];
        Some((kind, data))
    })
}

/// Receives a message, at its ICMP header.
pub(crate) fn input(packet: Box<Packet>, header: &Header, head: [u8; 8]) {
    const LONGEST: usize = 1500;
    let (Some(interface), IpAddr::V6(source)) = (by_index(header.interface), header.source) else { return };
    if header.ttl != HOPS || head[1] != 0 || packet.len() > LONGEST || interface.is_loopback() {
        return;
    }
    let mut bytes = alloc::vec![0; packet.len()];
    packet.read(0, &mut bytes);
    let Some(body) = bytes.get(8..) else { return };
    match head[0] {
        ROUTER_ADVERTISEMENT => advertised_router(&interface, source, head, body),
        SOLICITATION => solicited(&interface, source, body),
        ADVERTISEMENT => advertised(&interface, head, body),
        _ => {}
    }
}

/// A router knows a better neighbour (RFC 4861, 8.3): believed where it is the one that we use.
pub(crate) fn redirected(packet: Box<Packet>, header: &Header) {
    let mut bytes = [0; 40];
    if header.ttl != HOPS || packet.read(0, &mut bytes) < bytes.len() || !route::is_link_local(header.source) {
        return;
    }
    let (Some(target), Some(destination)) = (target(&bytes[8..]), target(&bytes[24..])) else { return };
    let used = route::lookup(destination.into(), 0).is_ok_and(|path| path.next_hop == header.source);
    let near = target == destination || route::is_link_local(target.into());
    let allowed = by_index(header.interface).is_some_and(|i| !i.forwards(false) && i.conf.v6(V6::AcceptRedirects) != 0);
    if used && near && allowed {
        route::exception::note_gateway(destination.into(), target.into());
    }
}

fn target(body: &[u8]) -> Option<Ipv6Addr> {
    body.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets))
}

fn solicited(interface: &Arc<Interface>, source: Ipv6Addr, body: &[u8]) {
    const SOLICITED: u8 = 0x40;
    const OVERRIDE: u8 = 0x20;
    let Some(target) = target(body) else { return };
    let nonce = option_in(&body[16..], NONCE);
    if source.is_unspecified() && duplicate::hear(interface, target, Some(nonce)) || !interface.has(target.into()) {
        return;
    }
    let (to, flags) = if source.is_unspecified() { (ALL_NODES, OVERRIDE) } else { (source, SOLICITED | OVERRIDE) };
    if let Some(mac) = option_in(&body[16..], 1).filter(|_| !source.is_unspecified()) {
        neighbour::learn(interface, source.into(), mac, true, Word::Mention);
    }
    let answer = [&target.octets()[..], &option(2, interface.mac())].concat();
    send(interface, [ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0], &answer, target, to);
}

fn advertised(interface: &Arc<Interface>, head: [u8; 8], body: &[u8]) {
    const SOLICITED: u8 = 0x40;
    let word = if head[4] & SOLICITED != 0 { Word::Answer } else { Word::Mention };
    let Some(target) = target(body) else { return };
    if !duplicate::hear(interface, target, None)
        && let Some(mac) = option_in(&body[16..], 2)
    {
        neighbour::learn(interface, target.into(), mac, false, word);
    }
}

fn advertised_router(interface: &Arc<Interface>, source: Ipv6Addr, head: [u8; 8], body: &[u8]) {
    // A router listens to other routers only if it is told to (accept_ra 2).
    let wanted = match interface.conf.v6(V6::AcceptRa) {
        0 => false,
        1 => !interface.forwards(false),
        _ => true,
    };
    if !route::is_link_local(source.into()) || !wanted {
        return;
    }
    let options = body.get(8..).unwrap_or_default();
    if let Some(mac) = option_in(options, 1) {
        neighbour::learn(interface, source.into(), mac, true, Word::Mention);
    }
    let lifetime = u16::from_be_bytes([head[6], head[7]]);
    let mut default = Route::by(Ipv6Addr::UNSPECIFIED.into(), 0, interface.index, Some(source.into()));
    default.metric = ROUTER_METRIC;
    default.protocol = FROM_ROUTER;
    if lifetime == 0 {
        // Nothing to remove is fine.
        let _ = table::remove(true, table::MAIN, |r| r.protocol == FROM_ROUTER && r.hops == default.hops);
    } else {
        let how = How { create: true, append: true, ..How::default() };
        if table::add(default, how).is_ok() {
            log::info!("{}: router {source}", interface.name());
        }
    }
    each_option(options).filter(|(kind, _)| *kind == 3).for_each(|(_, data)| take_prefix(interface, data));
}

/// A prefix on the link: with the flag for it we make ourselves an address.
fn take_prefix(interface: &Arc<Interface>, data: &[u8]) {
    const AUTONOMOUS: u8 = 0x40;
    let (Some(&bits), Some(&flags)) = (data.first(), data.get(1)) else { return };
    let Some(octets) = data.get(14..30).and_then(|b| <[u8; 16]>::try_from(b).ok()) else { return };
    let network = u128::from_be_bytes(octets);
    let ip = Ipv6Addr::from(network | u128::from(identifier(interface.mac())));
    if interface.conf.v6(V6::Autoconf) == 0
        || bits != 64
        || flags & AUTONOMOUS == 0
        || route::is_link_local(ip.into())
        || ip.is_multicast()
    {
        return;
    }
    let added = interface.add_address(Address::new(ip.into(), 64, scope::UNIVERSE));
    if added.is_ok() {
        log::info!("{}: address {ip}", interface.name());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_from_hardware_addresses() {
        let mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
        assert_eq!(link_local(mac).to_string(), "fe80::5054:ff:fe12:3456");
        assert_eq!(solicited_node(link_local(mac)).to_string(), "ff02::1:ff12:3456");
    }

    #[test]
    fn malformed_options_end_the_list() {
        let good = [1, 1, 1, 2, 3, 4, 5, 6];
        assert_eq!(option_in(&good, 1), Some([1, 2, 3, 4, 5, 6]));
        for bad in [&[1][..], &[1, 0, 0, 0, 0, 0, 0, 0], &[1, 2, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(each_option(bad).count(), 0);
        }
    }
}
