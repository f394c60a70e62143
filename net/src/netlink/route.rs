//! Routes: RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE.

use alloc::vec::Vec;
use core::net::IpAddr;

use base::{Errno, Result};

use super::message::{
    Attributes, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Reply, Request, attribute_in, attributes_of,
    notification, word_of,
};
use super::{NETLINK_ROUTE, family, group, ip_of, octets, publish};
use crate::link::{self, scope};
use crate::route::table::{self, Hop, How, kind};
use crate::route::{self, Flow, Kind, Route};

const NEWROUTE: u16 = 24;
const DELROUTE: u16 = 25;
/// Bytes of `struct rtmsg`, `struct rtnexthop`.
const RTMSG: usize = 12;
const RTNH: usize = 8;

const DST: u16 = 1;
const SRC: u16 = 2;
const IIF: u16 = 3;
const OIF: u16 = 4;
const GATEWAY: u16 = 5;
const PRIORITY: u16 = 6;
const PREFSRC: u16 = 7;
const METRICS: u16 = 8;
const MULTIPATH: u16 = 9;
const CACHEINFO: u16 = 12;
const TABLE: u16 = 15;
const MARK: u16 = 16;
const VIA: u16 = 18;
const PREF: u16 = 20;
const UID: u16 = 25;
const CLONED: u32 = 0x200;
const ONLINK: u8 = 4;
const LINKDOWN: u8 = 16;

/// Tells programs of a route that came or went.
pub(crate) fn announce(route: &Route, gone: bool, _replaced: bool) {
    let kind = if gone { DELROUTE } else { NEWROUTE };
    let group = if route.destination.is_ipv4() { group::IPV4_ROUTE } else { group::IPV6_ROUTE };
    publish(NETLINK_ROUTE, group, || notification(kind, &fixed_part(route), |put| fill(put, route)));
}

fn hop_flags(hop: &Hop) -> u8 {
    let down = link::by_index(hop.interface).is_some_and(|i| i.is_up() && !i.has_carrier());
    hop.flags | if down { LINKDOWN } else { 0 }
}

fn fixed_part(r: &Route) -> [u8; RTMSG] {
    let table = u8::try_from(r.table).unwrap_or(252);
    let flags = if let [only] = &r.hops[..] { hop_flags(only) } else { 0 };
    [family(r.destination), r.prefix, 0, r.tos, table, r.protocol, r.scope, r.kind, flags, 0, 0, 0]
}

fn fill(put: &mut Attributes, r: &Route) {
    put.word(TABLE, r.table);
    if r.prefix > 0 {
        put.put(DST, &octets(r.destination));
    }
    if r.metric != 0 || r.destination.is_ipv6() {
        put.word(PRIORITY, r.metric);
    }
    if !r.metrics.is_empty() {
        put.nest(METRICS, |put| r.metrics.iter().for_each(|(kind, value)| put.word(*kind, *value)));
    }
    if let Some(source) = r.source {
        put.put(PREFSRC, &octets(source));
    }
    if let [only] = &r.hops[..] {
        put_gateway(put, r, only.gateway);
        put.word(OIF, only.interface);
    } else if !r.hops.is_empty() {
        let mut list = Vec::new();
        for hop in &r.hops {
            let mut inside = Attributes::default();
            put_gateway(&mut inside, r, hop.gateway);
            let inside = inside.into_bytes();
            list.extend_from_slice(&((RTNH + inside.len()) as u16).to_ne_bytes());
            list.extend_from_slice(&[hop_flags(hop), (hop.weight - 1) as u8]);
            list.extend_from_slice(&hop.interface.to_ne_bytes());
            list.extend_from_slice(&inside);
        }
        put.put(MULTIPATH, &list);
    } else if r.destination.is_ipv6() {
        // IPv6 routes that refuse are shown on the loopback interface.
        put.word(OIF, 1);
    }
    if r.destination.is_ipv6() {
        put.put(CACHEINFO, &[0; 32]);
        put.byte(PREF, 0);
    }
}

/// The neighbour, with its family where that is not the route's.
fn put_gateway(put: &mut Attributes, r: &Route, gateway: Option<IpAddr>) {
    match gateway {
        Some(gateway) if gateway.is_ipv4() == r.destination.is_ipv4() => put.put(GATEWAY, &octets(gateway)),
        Some(gateway) => {
            let mut via = u16::from(family(gateway)).to_ne_bytes().to_vec();
            via.extend_from_slice(&octets(gateway));
            put.put(VIA, &via);
        }
        None => {}
    }
}

/// RTM_GETROUTE.
pub(super) fn get(request: &Request, reply: &mut Reply) -> Result<()> {
    if !request.is_dump() {
        return look_up(request, reply);
    }
    if request.body.len() >= RTMSG && request.word(8) & CLONED != 0 {
        // The cache: there is none.
        return Ok(());
    }
    let whole = request.body.len() >= RTMSG;
    let strict = reply.strict && whole;
    let by_table = request.attribute_word(RTMSG, TABLE).unwrap_or(request.byte(4).into());
    let by_interface = request.attribute_word(RTMSG, OIF).unwrap_or(0);
    let wanted = request.byte(0);
    for route in table::all() {
        let fits = (wanted == 0 || wanted == family(route.destination))
            && (!strict
                || (by_table == 0 || by_table == route.table)
                    && (request.byte(5) == 0 || request.byte(5) == route.protocol)
                    && (request.byte(7) == 0 || request.byte(7) == route.kind)
                    && (by_interface == 0 || route.hops.iter().any(|hop| hop.interface == by_interface)));
        if fits {
            reply.message(NEWROUTE, &fixed_part(&route), |put| fill(put, &route));
        }
    }
    Ok(())
}

/// One route: the way to a destination.
fn look_up(request: &Request, reply: &mut Reply) -> Result<()> {
    const FIB_MATCH: u32 = 0x2000;
    request.check_len(RTMSG)?;
    let v4 = request.byte(0) != 10;
    let nowhere: IpAddr = if v4 { [0u8; 4].into() } else { [0u8; 16].into() };
    let ip = |kind| request.attribute(RTMSG, kind).map(ip_of).transpose();
    let destination = ip(DST)?.unwrap_or(nowhere);
    let mut flow = Flow::to(destination, request.attribute_word(RTMSG, OIF).unwrap_or(0));
    flow.source = ip(SRC)?;
    flow.input = request.attribute_word(RTMSG, IIF).unwrap_or(0);
    flow.mark = request.attribute_word(RTMSG, MARK).unwrap_or(0);
    flow.tos = request.byte(3);
    if flow.input != 0 && link::by_index(flow.input).is_none() {
        return Err(Errno::ENODEV);
    }
    if request.word(8) & FIB_MATCH != 0 {
        let (route, _) = route::rule::find(&flow)?;
        reply.message(NEWROUTE, &fixed_part(&route), |put| fill(put, &route));
        return Ok(());
    }
    let path = route::find(&flow)?;
    let kind = match path.kind {
        Kind::Unicast => kind::UNICAST,
        Kind::Local => kind::LOCAL,
        Kind::Broadcast => kind::BROADCAST,
        Kind::Multicast => kind::MULTICAST,
    };
    let number = if path.kind == Kind::Local { table::LOCAL } else { table::MAIN };
    let bits = if v4 { 32 } else { 128 };
    let source_bits = if flow.source.is_some() && v4 { 32 } else { 0 };
    let mut fixed = [family(destination), bits, source_bits, flow.tos, number as u8, 0, 0, kind, 0, 0, 0, 0];
    if v4 {
        fixed[8..12].copy_from_slice(&CLONED.to_ne_bytes());
    }
    reply.message(NEWROUTE, &fixed, |put| {
        put.word(TABLE, number);
        put.put(DST, &octets(destination));
        if let Some(source) = flow.source.filter(|_| v4) {
            put.put(SRC, &octets(source));
        }
        put.word(OIF, path.interface.index);
        put.put(PREFSRC, &octets(flow.source.unwrap_or(path.source)));
        if path.next_hop != destination {
            put.put(GATEWAY, &octets(path.next_hop));
        }
        if let Some(mtu) = route::exception::find(destination).and_then(|told| told.mtu) {
            put.nest(METRICS, |put| put.word(2, mtu));
        }
        put.word(UID, 0);
        put.put(CACHEINFO, &[0; 32]);
        if !v4 {
            put.word(PRIORITY, 0);
            put.byte(PREF, 0);
        }
    });
    Ok(())
}

/// `struct sockaddr_via` with its family.
fn via_of(raw: &[u8]) -> Result<IpAddr> {
    ip_of(raw.get(2..).ok_or(Errno::EINVAL)?)
}

fn gateway_in(attributes: &[u8]) -> Result<Option<IpAddr>> {
    let plain = attribute_in(attributes, GATEWAY).map(ip_of);
    let given = plain.or_else(|| attribute_in(attributes, VIA).map(via_of)).transpose()?;
    Ok(given.filter(|ip| !ip.is_unspecified()))
}

/// The interface of a way: the one that is named, or that the neighbour is on. `ENETUNREACH` where the neighbour is not in reach, `EINVAL`.
fn settle(gateway: Option<IpAddr>, named: u32, flags: u8) -> Result<Hop> {
    let interface = if named != 0 { link::by_index(named).ok_or(Errno::ENODEV)?.index } else { 0 };
    if let Some(gateway) = gateway {
        if flags & ONLINK != 0 {
            return if interface != 0 { Ok(interface) } else { Err(Errno::ENODEV) }.map(|interface| Hop {
                gateway: Some(gateway),
                interface,
                weight: 1,
                flags,
            });
        }
        let unreachable = if gateway.is_ipv4() { Errno::ENETUNREACH } else { Errno::EHOSTUNREACH };
        if route::is_local(gateway) && !gateway.is_multicast() {
            return Err(Errno::EINVAL);
        }
        let near = if route::is_link_local(gateway) && interface != 0 {
            interface
        } else {
            let (found, hop) = route::rule::find(&Flow::to(gateway, interface)).map_err(|_| unreachable)?;
            // A neighbour is on the link: it has no neighbour before it.
            if hop.gateway.is_some() || found.kind != kind::UNICAST {
                return Err(unreachable);
            }
            hop.interface
        };
        return Ok(Hop { gateway: Some(gateway), interface: near, weight: 1, flags });
    }
    match interface {
        0 => Err(Errno::ENODEV),
        interface => Ok(Hop { gateway: None, interface, weight: 1, flags }),
    }
}

fn hops_of(request: &Request) -> Result<Vec<Hop>> {
    let attributes = request.body.get(RTMSG..).unwrap_or_default();
    let flags = request.byte(8);
    let Some(mut rest) = request.attribute(RTMSG, MULTIPATH).filter(|list| !list.is_empty()) else {
        let named = request.attribute_word(RTMSG, OIF).unwrap_or(0);
        return Ok(alloc::vec![settle(gateway_in(attributes)?, named, flags & ONLINK)?]);
    };
    let mut hops = Vec::new();
    while let Some(head) = rest.first_chunk::<RTNH>() {
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let inside = rest.get(RTNH..len).ok_or(Errno::EINVAL)?;
        let index = u32::from_ne_bytes([head[4], head[5], head[6], head[7]]);
        let mut hop = settle(gateway_in(inside)?, index, head[2] & ONLINK)?;
        hop.weight = u16::from(head[3]) + 1;
        hops.push(hop);
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    if hops.is_empty() { Err(Errno::EINVAL) } else { Ok(hops) }
}

/// The route that a request describes, without its ways. `EINVAL`.
fn described(request: &Request) -> Result<Route> {
    request.check_len(RTMSG)?;
    let v4 = match request.byte(0) {
        2 => true,
        10 => false,
        _ => return Err(Errno::EOPNOTSUPP),
    };
    let nowhere: IpAddr = if v4 { [0u8; 4].into() } else { [0u8; 16].into() };
    let ip = |kind| request.attribute(RTMSG, kind).map(ip_of).transpose();
    let destination = ip(DST)?.unwrap_or(nowhere);
    let prefix = request.byte(1);
    if prefix > if v4 { 32 } else { 128 } || destination.is_ipv4() != v4 || request.byte(7) > 11 {
        return Err(Errno::EINVAL);
    }
    // Bits beyond the prefix are a mistake for IPv4, and cut off for IPv6.
    if v4 && route::network(destination, prefix) != destination {
        return Err(Errno::EINVAL);
    }
    let mut route = Route::by(route::network(destination, prefix), prefix, 0, None);
    route.hops.clear();
    route.table = request.attribute_word(RTMSG, TABLE).unwrap_or(request.byte(4).into());
    if route.table == 0 {
        route.table = table::MAIN;
    }
    route.kind = request.byte(7);
    route.tos = request.byte(3);
    route.scope = request.byte(6);
    route.protocol = request.byte(5);
    route.metric = request.attribute_word(RTMSG, PRIORITY).unwrap_or(0);
    if !v4 && route.metric == 0 {
        route.metric = 1024;
    }
    route.source = ip(PREFSRC)?;
    if let Some(metrics) = request.attribute(RTMSG, METRICS) {
        for (kind, data) in attributes_of(metrics) {
            route.metrics.push((kind, word_of(data)?));
        }
    }
    Ok(route)
}

/// RTM_NEWROUTE and RTM_DELROUTE. `EEXIST`, `ESRCH`, `ENETUNREACH`, `ENODEV`, `EINVAL`.
pub(super) fn change(request: &Request, add: bool) -> Result<()> {
    let mut route = described(request)?;
    if !add {
        return delete(request, &route);
    }
    let refuses = matches!(route.kind, kind::BLACKHOLE | kind::UNREACHABLE | kind::PROHIBIT | kind::THROW);
    if refuses && request.attribute(RTMSG, GATEWAY).or(request.attribute(RTMSG, MULTIPATH)).is_some() {
        return Err(Errno::EINVAL);
    }
    if !refuses {
        route.hops = hops_of(request)?;
        if route.hops.iter().any(|hop| link::by_index(hop.interface).is_none_or(|i| !i.is_up())) {
            return Err(Errno::ENETDOWN);
        }
    }
    if route.kind == 0 {
        route.kind = kind::UNICAST;
    }
    if route.source.is_some_and(|source| !route::is_local(source)) {
        return Err(Errno::EINVAL);
    }
    if route.scope == scope::NOWHERE && route.destination.is_ipv4() {
        return Err(Errno::EINVAL);
    }
    let how = How {
        replace: request.has(NLM_F_REPLACE),
        exclusive: request.has(NLM_F_EXCL),
        create: request.has(NLM_F_CREATE),
        append: request.has(NLM_F_APPEND) || route.destination.is_ipv6(),
    };
    table::add(route, how)
}

fn delete(request: &Request, wanted: &Route) -> Result<()> {
    let attributes = request.body.get(RTMSG..).unwrap_or_default();
    let gateway = gateway_in(attributes)?;
    let named = request.attribute_word(RTMSG, OIF);
    let metric = request.attribute_word(RTMSG, PRIORITY);
    table::remove(wanted.destination.is_ipv6(), wanted.table, |r| {
        r.destination == wanted.destination
            && r.prefix == wanted.prefix
            && (wanted.tos == 0 || r.tos == wanted.tos)
            && (wanted.kind == 0 || r.kind == wanted.kind)
            && (wanted.protocol == 0 || r.protocol == wanted.protocol)
            && (wanted.scope == scope::NOWHERE || r.destination.is_ipv6() || r.scope == wanted.scope)
            && metric.is_none_or(|metric| r.metric == metric)
            && wanted.source.is_none_or(|source| r.source == Some(source))
            && gateway.is_none_or(|g| r.hops.iter().any(|hop| hop.gateway == Some(g)))
            && named.is_none_or(|index| r.hops.iter().any(|hop| hop.interface == index))
    })
}
