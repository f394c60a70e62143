//! Addresses: RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR.

use base::{Errno, NANOS_PER_SEC, Result};

use super::message::{Attributes, NLM_F_EXCL, NLM_F_REPLACE, Reply, Request, notification, text_of};
use super::{NETLINK_ROUTE, family, group, ip_of, octets, publish};
use crate::link::interface::{NO_DAD, NO_PREFIX_ROUTE, PERMANENT};
use crate::link::{self, Address, Interface, flag, scope};
use crate::route;
use core::net::IpAddr;

const NEWADDR: u16 = 20;
const DELADDR: u16 = 21;
/// Bytes of `struct ifaddrmsg`.
const IFADDR: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_LABEL: u16 = 3;
const IFA_BROADCAST: u16 = 4;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;

/// Tells programs of an address that came or went.
pub(crate) fn announce(interface: &Interface, address: &Address, gone: bool) {
    let kind = if gone { DELADDR } else { NEWADDR };
    let group = if address.ip.is_ipv4() { group::IPV4_ADDRESS } else { group::IPV6_ADDRESS };
    publish(NETLINK_ROUTE, group, || {
        notification(kind, &fixed_part(interface, address), |put| fill(put, interface, address))
    });
}

fn fixed_part(interface: &Interface, address: &Address) -> [u8; IFADDR] {
    let mut fixed = [family(address.ip), address.prefix, address.flags as u8, address.scope, 0, 0, 0, 0];
    fixed[4..8].copy_from_slice(&interface.index.to_ne_bytes());
    fixed
}

fn fill(put: &mut Attributes, interface: &Interface, address: &Address) {
    put.put(IFA_ADDRESS, &octets(address.peer.unwrap_or(address.ip)));
    if address.ip.is_ipv4() || address.peer.is_some() {
        put.put(IFA_LOCAL, &octets(address.ip));
    }
    if address.ip.is_ipv4() {
        if let Some(broadcast) = address.broadcast {
            put.put(IFA_BROADCAST, &broadcast.octets());
        }
        put.text(IFA_LABEL, address.label.as_ref().unwrap_or(&interface.name()));
    }
    put.word(IFA_FLAGS, address.flags);
    if address.metric != 0 {
        put.word(IFA_RT_PRIORITY, address.metric);
    }
    let now = sched::time::now();
    let left = address.ends.map(|end| end.map_or(u32::MAX, |end| (end.saturating_sub(now) / NANOS_PER_SEC) as u32));
    put.put(IFA_CACHEINFO, &[left[0], left[1], 0, 0].map(u32::to_ne_bytes).concat());
}

/// RTM_GETADDR. `EINVAL`, `ENODEV`.
pub(super) fn get(request: &Request, reply: &mut Reply) -> Result<()> {
    let index = if request.body.len() >= IFADDR { request.word(4) } else { 0 };
    if reply.strict && index != 0 && link::by_index(index).is_none() {
        return Err(Errno::ENODEV);
    }
    for v4 in [true, false] {
        let wanted = matches!(request.byte(0), 0) || (request.byte(0) == 2) == v4;
        for interface in link::all().iter().filter(|i| wanted && (index == 0 || i.index == index)) {
            for address in interface.addresses().iter().filter(|a| a.ip.is_ipv4() == v4) {
                reply.message(NEWADDR, &fixed_part(interface, address), |put| fill(put, interface, address));
            }
        }
    }
    Ok(())
}

/// The address that a request describes. `EINVAL`.
fn described(request: &Request, interface: &Interface) -> Result<Address> {
    let given = |kind| request.attribute(IFADDR, kind).map(ip_of).transpose();
    let (local, far) = (given(IFA_LOCAL)?, given(IFA_ADDRESS)?);
    let ip = local.or(far).ok_or(Errno::EINVAL)?;
    let prefix = request.byte(1);
    if prefix > if ip.is_ipv4() { 32 } else { 128 } || family(ip) != request.byte(0) {
        return Err(Errno::EINVAL);
    }
    let broadcast = request.attribute(IFADDR, IFA_BROADCAST).and_then(|b| <[u8; 4]>::try_from(b).ok());
    let wide = if interface.is_loopback() && ip.is_ipv6() { scope::HOST } else { request.byte(3) };
    let scope = if route::is_link_local(ip) { scope::LINK } else { wide };
    let mut address = Address::new(ip, prefix, scope);
    address.peer = far.filter(|far| *far != ip);
    address.broadcast = broadcast.map(Into::into);
    let flags = request.attribute_word(IFADDR, IFA_FLAGS).unwrap_or(request.byte(2).into());
    address.flags |= flags & (NO_PREFIX_ROUTE | if ip.is_ipv6() { NO_DAD } else { 0 });
    address.metric = request.attribute_word(IFADDR, IFA_RT_PRIORITY).unwrap_or(0);
    if let Some(label) = request.attribute(IFADDR, IFA_LABEL) {
        let label = text_of(label)?;
        address.label = (label != interface.name()).then(|| label.into());
    }
    if let Some(raw) = request.attribute(IFADDR, IFA_CACHEINFO) {
        let raw = raw.get(..8).ok_or(Errno::EINVAL)?;
        let [preferred, valid] = [0, 4].map(|at| u32::from_ne_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]));
        if valid == 0 || preferred > valid {
            return Err(Errno::EINVAL);
        }
        let now = sched::time::now();
        let end = |seconds: u32| (seconds != u32::MAX).then(|| now + u64::from(seconds) * NANOS_PER_SEC);
        address.ends = [end(preferred), end(valid)];
        if valid != u32::MAX {
            address.flags &= !PERMANENT;
        }
    }
    Ok(address)
}

/// RTM_NEWADDR and RTM_DELADDR. `ENODEV`, `EEXIST`, `EADDRNOTAVAIL`, `EINVAL`.
pub(super) fn change(request: &Request, add: bool) -> Result<()> {
    request.check_len(IFADDR)?;
    let interface = link::by_index(request.word(4)).ok_or(Errno::ENODEV)?;
    let mut address = described(request, &interface)?;
    if !add {
        let far = address.peer;
        let found = interface
            .addresses()
            .into_iter()
            .find(|a| a.ip == address.ip && a.prefix == address.prefix && far.is_none_or(|far| a.peer == Some(far)));
        return found.ok_or(Errno::EADDRNOTAVAIL).and_then(|a| interface.remove_address(a.ip, a.prefix));
    }
    if address.ip.is_multicast() || address.ip.is_unspecified() {
        return Err(if address.ip.is_ipv6() { Errno::EADDRNOTAVAIL } else { Errno::EINVAL });
    }
    if interface.is_loopback()
        && interface.flags() & flag::BROADCAST == 0
        && let IpAddr::V4(v4) = address.ip
        && v4.is_loopback()
    {
        address.scope = scope::HOST;
    }
    match interface.add_address(address.clone()) {
        Err(Errno::EEXIST) if request.has(NLM_F_REPLACE) && !request.has(NLM_F_EXCL) => {
            interface.update_address(&address)
        }
        result => result,
    }
}
