//! Netlink sockets (netlink(7)): requests to the kernel and its answers, as messages, and what the kernel tells groups of sockets by itself.
//!
//! NETLINK_ROUTE is answered by [`link`], [`address`], [`route`], [`rule`], [`neighbour`] and [`qdisc`], NETLINK_SOCK_DIAG by [`diag`],
//! NETLINK_GENERIC by [`generic`]; [`socket`] is the socket.

pub(crate) mod address;
pub(crate) mod diag;
mod generic;
pub(crate) mod link;
pub(crate) mod message;
pub(crate) mod neighbour;
mod qdisc;
pub(crate) mod route;
pub(crate) mod rule;
mod socket;

use alloc::vec::Vec;
use core::net::IpAddr;

use base::{Errno, Result};

use message::{Reply, Request};
pub use socket::NetlinkSocket;
pub(crate) use socket::{Authority, publish};

/// Protocols.
pub(crate) const NETLINK_ROUTE: i32 = 0;
const NETLINK_SOCK_DIAG: i32 = 4;
const NETLINK_GENERIC: i32 = 16;

/// RTNLGRP_* groups of NETLINK_ROUTE.
pub(crate) mod group {
    pub(crate) const LINK: u32 = 1;
    pub(crate) const NEIGHBOUR: u32 = 3;
    pub(crate) const TC: u32 = 4;
    pub(crate) const IPV4_ADDRESS: u32 = 5;
    pub(crate) const IPV4_ROUTE: u32 = 7;
    pub(crate) const IPV4_RULE: u32 = 8;
    pub(crate) const IPV6_ADDRESS: u32 = 9;
    pub(crate) const IPV6_ROUTE: u32 = 11;
    pub(crate) const IPV6_RULE: u32 = 19;
}

/// Answers a request of NETLINK_ROUTE. `EOPNOTSUPP` for what is not here, `EPERM`, `ENODEV`, ...
fn answer_route(caller: &Authority, request: &Request, reply: &mut Reply) -> Result<()> {
    const LINK: u16 = 16;
    const ADDRESS: u16 = 20;
    const ROUTE: u16 = 24;
    const NEIGHBOUR: u16 = 28;
    const RULE: u16 = 32;
    const QDISC: u16 = 36;
    let kind = request.header.kind;
    // Of the four requests about a thing (new, delete, get, set), only get is everyone's.
    if kind % 4 != 2 && !caller.admin {
        return Err(Errno::EPERM);
    }
    // One change at a time, as under Linux's RTNL lock.
    let _changing = (kind % 4 != 2).then(|| crate::link::CHANGING.lock());
    match (kind & !3, kind & 3) {
        (LINK, 2) => link::get(request, reply),
        (LINK, 1) => link::delete(request),
        (LINK, new) => link::set(request, new == 0),
        (ADDRESS, 2) => address::get(request, reply),
        (ADDRESS, new @ 0..=1) => address::change(request, new == 0),
        (ROUTE, 2) => route::get(request, reply),
        (ROUTE, new @ 0..=1) => route::change(request, new == 0),
        (NEIGHBOUR, 2) => neighbour::get(request, reply),
        (NEIGHBOUR, new @ 0..=1) => neighbour::change(request, new == 0),
        (RULE, 2) => rule::get(request, reply),
        (RULE, new @ 0..=1) => rule::change(request, new == 0),
        (QDISC, 0) => qdisc::set(request),
        (QDISC, 1) => qdisc::delete(request),
        (QDISC, 2) => qdisc::get(request, reply),
        // Classes, filters and actions: lists of them are empty.
        (40 | 44 | 48, 2) if request.is_dump() => Ok(()),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// An address's bytes.
pub(crate) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// An address's family.
pub(crate) fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 2 } else { 10 }
}

/// An address of 4 or 16 bytes. `EINVAL`.
pub(crate) fn ip_of(bytes: &[u8]) -> Result<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(v4.into());
    }
    <[u8; 16]>::try_from(bytes).map(IpAddr::from).map_err(|_| Errno::EINVAL)
}
