//! NETLINK_ROUTE (rtnetlink(7)): interfaces, addresses, routes.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::sync::atomic::Ordering;

use base::{Capability, Errno, Result};

use super::message::{Reply, Request};
use crate::link::ioctl::{hardware, mask};
use crate::link::{self, Address, Interface, flag, scope};
use crate::route::{self, Kind, Route};
use crate::socket::Caller;

const NEWLINK: u16 = 16;
const GETLINK: u16 = 18;
const SETLINK: u16 = 19;
const NEWADDR: u16 = 20;
const DELADDR: u16 = 21;
const GETADDR: u16 = 22;
const NEWROUTE: u16 = 24;
const DELROUTE: u16 = 25;
const GETROUTE: u16 = 26;
const NEWNEIGH: u16 = 28;
const GETNEIGH: u16 = 30;
const GETRULE: u16 = 34;
const NEWRULE: u16 = 32;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Bytes of `struct ifinfomsg`, `struct ifaddrmsg`, `struct rtmsg`.
const IFINFO: usize = 16;
const IFADDR: usize = 8;
const RTMSG: usize = 12;

const TABLE_MAIN: u8 = 254;
const TABLE_LOCAL: u8 = 255;

/// Answers a request. `EOPNOTSUPP` for what is not here, `EPERM`, `ENODEV`, ...
pub(super) fn answer(caller: &Caller, request: &Request, reply: &mut Reply) -> Result<()> {
    let kind = request.header.kind;
    // Of the four requests about a thing, only GET is everyone's.
    if kind % 4 != 2 && !caller.fs.cred.capable(Capability::NetAdmin) {
        return Err(Errno::EPERM);
    }
    match kind {
        GETLINK if request.is_dump() => {
            link::all().iter().for_each(|interface| put_link(reply, interface));
            Ok(())
        }
        GETLINK => {
            put_link(reply, &*named(request)?);
            Ok(())
        }
        NEWLINK | SETLINK => set_link(request),
        GETADDR => {
            put_addresses(request, reply);
            Ok(())
        }
        NEWADDR | DELADDR => change_address(request, kind == NEWADDR),
        GETROUTE if request.is_dump() => {
            put_routes(request, reply);
            Ok(())
        }
        GETROUTE => look_up(request, reply),
        NEWROUTE | DELROUTE => change_route(request, kind == NEWROUTE),
        GETRULE if request.is_dump() => {
            put_rules(request, reply);
            Ok(())
        }
        GETNEIGH if request.is_dump() => {
            put_neighbours(request, reply);
            Ok(())
        }
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// The interface that a request of links names.
fn named(request: &Request) -> Result<Arc<Interface>> {
    const IFLA_IFNAME: u16 = 3;
    let index = request.word(4);
    if index != 0 {
        return link::by_index(index).ok_or(Errno::ENODEV);
    }
    let name = request.attribute(IFINFO, IFLA_IFNAME).ok_or(Errno::EINVAL)?;
    link::by_name(name.split(|&b| b == 0).next().unwrap_or_default()).ok_or(Errno::ENODEV)
}

fn put_link(reply: &mut Reply, interface: &Interface) {
    let mut fixed = [0; IFINFO];
    fixed[2..4].copy_from_slice(&hardware(interface).to_ne_bytes());
    fixed[4..8].copy_from_slice(&interface.index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&interface.flags().to_ne_bytes());
    reply.message(NEWLINK, &fixed, |put| {
        let broadcast = if interface.is_loopback() { [0; 6] } else { [0xff; 6] };
        put.text(3, &interface.name);
        put.word(13, 1000);
        // Unknown for the loopback, up or down for others.
        put.byte(
            16,
            if interface.is_loopback() {
                0
            } else if interface.is_up() {
                6
            } else {
                2
            },
        );
        put.byte(17, 0);
        put.word(4, interface.mtu() as u32);
        put.word(27, 0);
        put.word(30, 0);
        put.word(31, 1);
        put.word(32, 1);
        put.byte(33, 1);
        put.text(6, if interface.is_loopback() { "noqueue" } else { "fq_codel" });
        put.put(1, &interface.mac);
        put.put(2, &broadcast);
        let counts = statistics(interface);
        let wide: Vec<u8> = counts.iter().flat_map(|n| n.to_ne_bytes()).collect();
        let narrow: Vec<u8> = counts.iter().flat_map(|n| (*n as u32).to_ne_bytes()).collect();
        put.put(23, &wide);
        put.put(7, &narrow);
    });
}

/// `struct rtnl_link_stats64`, as numbers.
fn statistics(interface: &Interface) -> [u64; 24] {
    let c = &interface.counts;
    let mut out = [0; 24];
    let first = [
        &c.rx_packets,
        &c.tx_packets,
        &c.rx_bytes,
        &c.tx_bytes,
        &c.rx_errors,
        &c.tx_errors,
        &c.rx_dropped,
        &c.tx_dropped,
        &c.multicast,
    ];
    for (out, count) in out.iter_mut().zip(first) {
        *out = count.load(Ordering::Relaxed);
    }
    out
}

fn set_link(request: &Request) -> Result<()> {
    const IFLA_MTU: u16 = 4;
    const NLM_F_CREATE: u16 = 0x400;
    let interface = match named(request) {
        // Interfaces are not made by request here.
        Err(Errno::ENODEV) if request.header.flags & NLM_F_CREATE != 0 => return Err(Errno::EOPNOTSUPP),
        found => found?,
    };
    if let Some(mtu) = request.attribute_word(IFINFO, IFLA_MTU) {
        interface.set_mtu(mtu)?;
    }
    let (flags, change) = (request.word(8), request.word(12));
    if change & flag::UP != 0 || change == 0 && flags != 0 {
        interface.set_up(flags & flag::UP != 0);
    }
    Ok(())
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn ip_of(bytes: &[u8]) -> Result<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(v4.into());
    }
    <[u8; 16]>::try_from(bytes).map(IpAddr::from).map_err(|_| Errno::EINVAL)
}

fn wanted_family(request: &Request, ip: IpAddr) -> bool {
    matches!(request.byte(0), 0) || request.byte(0) == family(ip)
}

fn put_addresses(request: &Request, reply: &mut Reply) {
    const PERMANENT: u32 = 0x80;
    let index = if request.body.len() >= IFADDR { request.word(4) } else { 0 };
    for v4_turn in [true, false] {
        for interface in link::all().iter().filter(|i| index == 0 || i.index == index) {
            for address in interface.addresses() {
                if address.ip.is_ipv4() != v4_turn || !wanted_family(request, address.ip) {
                    continue;
                }
                let mut fixed = [family(address.ip), address.prefix, PERMANENT as u8, address.scope, 0, 0, 0, 0];
                fixed[4..8].copy_from_slice(&interface.index.to_ne_bytes());
                reply.message(NEWADDR, &fixed, |put| {
                    put.put(1, &octets(address.ip));
                    if address.ip.is_ipv4() {
                        put.put(2, &octets(address.ip));
                        if let Some(broadcast) = address.broadcast {
                            put.put(4, &broadcast.octets());
                        }
                        put.text(3, &interface.name);
                    }
                    put.word(8, PERMANENT);
                    let forever = [u32::MAX, u32::MAX, 0, 0].map(u32::to_ne_bytes).concat();
                    put.put(6, &forever);
                });
            }
        }
    }
}

fn change_address(request: &Request, add: bool) -> Result<()> {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    const IFA_BROADCAST: u16 = 4;
    let interface = link::by_index(request.word(4)).ok_or(Errno::ENODEV)?;
    let raw = request.attribute(IFADDR, IFA_LOCAL).or_else(|| request.attribute(IFADDR, IFA_ADDRESS));
    let ip = ip_of(raw.ok_or(Errno::EINVAL)?)?;
    let prefix = request.byte(1);
    if prefix > if ip.is_ipv4() { 32 } else { 128 } || family(ip) != request.byte(0) {
        return Err(Errno::EINVAL);
    }
    if !add {
        return interface.remove_address(ip, prefix);
    }
    let given = request.attribute(IFADDR, IFA_BROADCAST).and_then(|b| <[u8; 4]>::try_from(b).ok());
    let broadcast = given.map(Into::into).or_else(|| match ip {
        IpAddr::V4(v4) if prefix < 31 && interface.flags() & flag::BROADCAST != 0 => {
            Some((u32::from(v4) | !u32::from(mask(prefix))).into())
        }
        _ => None,
    });
    let wide = if interface.is_loopback() { scope::HOST } else { request.byte(3) };
    let scope = if route::is_link_local(ip) { scope::LINK } else { wide };
    interface.add_address(Address { ip, prefix, scope, broadcast })
}

fn put_route(reply: &mut Reply, r: &Route, table: u8, kind: u8) {
    let fixed = [family(r.destination), r.prefix, 0, 0, table, r.protocol, r.scope, kind, 0, 0, 0, 0];
    reply.message(NEWROUTE, &fixed, |put| {
        put.word(15, table.into());
        if r.prefix > 0 {
            put.put(1, &octets(r.destination));
        }
        if r.metric != 0 {
            put.word(6, r.metric);
        }
        if let Some(source) = r.source {
            put.put(7, &octets(source));
        }
        if let Some(gateway) = r.gateway {
            put.put(5, &octets(gateway));
        }
        put.word(4, r.interface);
    });
}

fn put_routes(request: &Request, reply: &mut Reply) {
    const UNICAST: u8 = 1;
    const LOCAL: u8 = 2;
    const KERNEL: u8 = 2;
    for r in route::all().iter().filter(|r| wanted_family(request, r.destination)) {
        put_route(reply, r, TABLE_MAIN, UNICAST);
    }
    for interface in link::all() {
        for address in interface.addresses().iter().filter(|a| wanted_family(request, a.ip)) {
            let v4_net = interface.is_loopback() && address.ip.is_ipv4();
            let local = Route {
                destination: if v4_net { route::network(address.ip, address.prefix) } else { address.ip },
                prefix: if v4_net {
                    address.prefix
                } else if address.ip.is_ipv4() {
                    32
                } else {
                    128
                },
                gateway: None,
                interface: interface.index,
                source: address.ip.is_ipv4().then_some(address.ip),
                metric: 0,
                protocol: KERNEL,
                scope: if address.ip.is_ipv4() { scope::HOST } else { scope::UNIVERSE },
            };
            put_route(reply, &local, TABLE_LOCAL, LOCAL);
        }
    }
}

/// One route: the way to a destination.
fn look_up(request: &Request, reply: &mut Reply) -> Result<()> {
    const RTA_DST: u16 = 1;
    const RTA_OIF: u16 = 4;
    const CLONED: u32 = 0x200;
    let destination = ip_of(request.attribute(RTMSG, RTA_DST).ok_or(Errno::EINVAL)?)?;
    let by = request.attribute_word(RTMSG, RTA_OIF).unwrap_or(0);
    let path = route::lookup(destination, by)?;
    let kind = match path.kind {
        Kind::Unicast => 1,
        Kind::Local => 2,
        Kind::Broadcast => 3,
        Kind::Multicast => 5,
    };
    let table = if path.kind == Kind::Local { TABLE_LOCAL } else { TABLE_MAIN };
    let bits = if destination.is_ipv4() { 32 } else { 128 };
    let mut fixed = [family(destination), bits, 0, 0, table, 0, 0, kind, 0, 0, 0, 0];
    fixed[8..12].copy_from_slice(&CLONED.to_ne_bytes());
    reply.message(NEWROUTE, &fixed, |put| {
        put.word(15, table.into());
        put.put(RTA_DST, &octets(destination));
        put.word(RTA_OIF, path.interface.index);
        put.put(7, &octets(path.source));
        if path.next_hop != destination {
            put.put(5, &octets(path.next_hop));
        }
    });
    Ok(())
}

fn change_route(request: &Request, add: bool) -> Result<()> {
    const RTA_DST: u16 = 1;
    const RTA_OIF: u16 = 4;
    const RTA_GATEWAY: u16 = 5;
    const RTA_PRIORITY: u16 = 6;
    const RTA_PREFSRC: u16 = 7;
    let v4 = request.byte(0) == AF_INET;
    let nowhere: IpAddr = if v4 { [0u8; 4].into() } else { [0u8; 16].into() };
    let ip = |kind| request.attribute(RTMSG, kind).map(ip_of).transpose();
    let destination = ip(RTA_DST)?.unwrap_or(nowhere);
    let gateway = ip(RTA_GATEWAY)?;
    let prefix = request.byte(1);
    if prefix > if v4 { 32 } else { 128 } || destination.is_ipv4() != v4 {
        return Err(Errno::EINVAL);
    }
    let named = request.attribute_word(RTMSG, RTA_OIF);
    if !add {
        return route::remove(|r| {
            r.destination == destination
                && r.prefix == prefix
                && gateway.is_none_or(|g| r.gateway == Some(g))
                && named.is_none_or(|index| r.interface == index)
        });
    }
    let interface = match (named, gateway) {
        (Some(index), _) => index,
        (None, Some(gateway)) => route::lookup(gateway, 0).map_err(|_| Errno::ENETUNREACH)?.interface.index,
        (None, None) => return Err(Errno::ENODEV),
    };
    link::by_index(interface).ok_or(Errno::ENODEV)?;
    route::add(Route {
        destination: route::network(destination, prefix),
        prefix,
        gateway,
        interface,
        source: ip(RTA_PREFSRC)?,
        metric: request.attribute_word(RTMSG, RTA_PRIORITY).unwrap_or(0),
        protocol: request.byte(5),
        scope: request.byte(6),
    })
}

/// The rules that there are without any being set: local, main, default.
fn put_rules(request: &Request, reply: &mut Reply) {
    let v4 = request.byte(0) != AF_INET6;
    let rules: &[(u32, u8)] = if v4 {
        &[(0, TABLE_LOCAL), (32766, TABLE_MAIN), (32767, 253)]
    } else {
        &[(0, TABLE_LOCAL), (32766, TABLE_MAIN)]
    };
    for &(priority, table) in rules {
        const TO_TABLE: u8 = 1;
        let fixed = [if v4 { AF_INET } else { AF_INET6 }, 0, 0, 0, table, 0, 0, TO_TABLE, 0, 0, 0, 0];
        reply.message(NEWRULE, &fixed, |put| {
            put.word(15, table.into());
            if priority != 0 {
                put.word(6, priority);
            }
        });
    }
}

fn put_neighbours(request: &Request, reply: &mut Reply) {
    const INCOMPLETE: u8 = 1;
    const REACHABLE: u8 = 2;
    for (interface, ip, mac) in link::neighbour::all() {
        if !wanted_family(request, ip) {
            continue;
        }
        let state = if mac.is_some() { REACHABLE } else { INCOMPLETE };
        let mut fixed = [family(ip), 0, 0, 0, 0, 0, 0, 0, state, 0, 0, 1];
        fixed[4..8].copy_from_slice(&interface.to_ne_bytes());
        reply.message(NEWNEIGH, &fixed, |put| {
            put.put(1, &octets(ip));
            if let Some(mac) = mac {
                put.put(2, &mac);
            }
        });
    }
}
