//! The requests of netdevice(7), arp(7) and rtentry: what ifconfig, route, arp and many libraries ask.

use alloc::sync::Arc;
use core::net::{IpAddr, Ipv4Addr};
use core::sync::atomic::Ordering;

use base::{Capability, Cred, Errno, Result};
use hal::user::{UserPtr, copy_in, copy_out};

use super::interface::Medium;
use super::neighbour::{self, Neighbour, state};
use super::{Address, Interface, NAME_SIZE as NAME, all, bridge, by_index, by_name, ethtool, flag, rename, scope};
use crate::netlink::message::text_of;
use crate::route::table::{self, How};
use crate::route::{self, Route};

const SIOCADDRT: u32 = 0x890b;
const SIOCDELRT: u32 = 0x890c;
const SIOCGIFNAME: u32 = 0x8910;
const SIOCGIFCONF: u32 = 0x8912;
const SIOCGIFFLAGS: u32 = 0x8913;
const SIOCSIFFLAGS: u32 = 0x8914;
const SIOCGIFADDR: u32 = 0x8915;
const SIOCSIFADDR: u32 = 0x8916;
const SIOCGIFDSTADDR: u32 = 0x8917;
const SIOCGIFBRDADDR: u32 = 0x8919;
const SIOCSIFBRDADDR: u32 = 0x891a;
const SIOCGIFNETMASK: u32 = 0x891b;
const SIOCSIFNETMASK: u32 = 0x891c;
const SIOCGIFMETRIC: u32 = 0x891d;
const SIOCGIFMTU: u32 = 0x8921;
const SIOCSIFMTU: u32 = 0x8922;
const SIOCSIFNAME: u32 = 0x8923;
const SIOCSIFHWADDR: u32 = 0x8924;
const SIOCGIFHWADDR: u32 = 0x8927;
const SIOCADDMULTI: u32 = 0x8931;
const SIOCDELMULTI: u32 = 0x8932;
const SIOCGIFINDEX: u32 = 0x8933;
const SIOCGIFTXQLEN: u32 = 0x8942;
const SIOCSIFTXQLEN: u32 = 0x8943;
const SIOCETHTOOL: u32 = 0x8946;
const SIOCDARP: u32 = 0x8953;
const SIOCGARP: u32 = 0x8954;
const SIOCSARP: u32 = 0x8955;
const SIOCGIFMAP: u32 = 0x8970;
const SIOCBRADDIF: u32 = 0x89a2;
const SIOCBRDELIF: u32 = 0x89a3;

/// `struct ifreq`: a name of 16 bytes and 24 bytes of value.
const SIZE: usize = 40;

const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;
const ARPHRD_NONE: u16 = 0xfffe;

/// The hardware type of an interface (ARPHRD_*).
pub(crate) fn hardware(interface: &Interface) -> u16 {
    match (&interface.medium, interface.is_framed()) {
        (Medium::Loopback, _) => ARPHRD_LOOPBACK,
        (_, true) => ARPHRD_ETHER,
        _ => ARPHRD_NONE,
    }
}

fn sockaddr(ip: Ipv4Addr) -> [u8; 16] {
    let mut out = [0; 16];
    out[..2].copy_from_slice(&2u16.to_ne_bytes());
    out[4..8].copy_from_slice(&ip.octets());
    out
}

/// The mask of a prefix.
pub(crate) fn mask(prefix: u8) -> Ipv4Addr {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0).into()
}

/// The prefix of a mask. `EINVAL` where its bits are not in a row.
fn prefix_of(mask: Ipv4Addr) -> Result<u8> {
    let bits = u32::from(mask);
    let prefix = bits.leading_ones();
    if bits.checked_shl(prefix).unwrap_or(0) != 0 { Err(Errno::EINVAL) } else { Ok(prefix as u8) }
}

/// The IPv4 address that a name (perhaps with a label, as `eth0:1`) stands for.
fn first_v4(interface: &Interface, label: &str) -> Result<Address> {
    let named = |a: &Address| a.label.as_deref().unwrap_or(label) == label;
    let addresses = interface.addresses();
    let found = addresses.iter().filter(|a| a.ip.is_ipv4()).find(|a| !label.contains(':') || named(a));
    found.cloned().ok_or(Errno::EADDRNOTAVAIL)
}

fn v4(ip: IpAddr) -> Ipv4Addr {
    match ip {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}

/// A request. `ENOTTY` for others, `ENODEV`, `EADDRNOTAVAIL`, `EPERM`, `EFAULT`.
pub(crate) fn request(cred: &Cred, request: u32, arg: usize) -> Result<usize> {
    let permitted = || if cred.capable(Capability::NetAdmin) { Ok(()) } else { Err(Errno::EPERM) };
    match request {
        SIOCGIFCONF => return list(arg),
        SIOCADDRT | SIOCDELRT => {
            permitted()?;
            return change_route(arg, request == SIOCADDRT);
        }
        SIOCGARP => return get_neighbour(arg),
        SIOCSARP | SIOCDARP => {
            permitted()?;
            return change_neighbour(arg, request == SIOCSARP);
        }
        SIOCGIFNAME..=SIOCGIFMAP | SIOCBRADDIF | SIOCBRDELIF => {}
        _ => return Err(Errno::ENOTTY),
    }
    let mut raw = [0; SIZE];
    copy_in(&mut raw, arg)?;
    if request == SIOCGIFNAME {
        let interface = by_index(u32::from_ne_bytes([raw[16], raw[17], raw[18], raw[19]])).ok_or(Errno::ENODEV)?;
        let mut name = [0; NAME];
        put_name(&mut name, &interface);
        copy_out(arg, &name)?;
        return Ok(0);
    }
    let label = raw[..NAME - 1].split(|&b| b == 0).next().unwrap_or_default();
    let name = label.split(|&b| b == b':').next().unwrap_or_default();
    let interface = by_name(name).ok_or(Errno::ENODEV)?;
    let label = core::str::from_utf8(label).map_err(|_| Errno::ENODEV)?;
    match request {
        SIOCETHTOOL => ethtool::request(&interface, usize_at(&raw, NAME), cred),
        SIOCSIFFLAGS | SIOCSIFADDR | SIOCSIFNETMASK | SIOCSIFMTU | SIOCSIFBRDADDR | SIOCSIFNAME | SIOCSIFHWADDR
        | SIOCSIFTXQLEN | SIOCBRADDIF | SIOCBRDELIF | SIOCADDMULTI | SIOCDELMULTI => {
            permitted()?;
            let _changing = super::CHANGING.lock();
            change(&interface, label, request, &raw[NAME..])
        }
        _ => {
            copy_out(arg.wrapping_add(NAME), &value(&interface, label, request)?)?;
            Ok(0)
        }
    }
}

fn usize_at(raw: &[u8], at: usize) -> usize {
    raw.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| usize::from_ne_bytes(*b))
}

fn put_name(out: &mut [u8], interface: &Interface) {
    let name = interface.name();
    let len = name.len().min(NAME - 1);
    out[..len].copy_from_slice(&name.as_bytes()[..len]);
}

/// What a request asks of an interface, as the value in `struct ifreq`.
fn value(interface: &Interface, label: &str, request: u32) -> Result<[u8; SIZE - NAME]> {
    let mut out = [0; SIZE - NAME];
    let address = match request {
        SIOCGIFADDR => Some(v4(first_v4(interface, label)?.ip)),
        SIOCGIFDSTADDR => {
            let address = first_v4(interface, label)?;
            Some(v4(address.peer.unwrap_or(address.ip)))
        }
        SIOCGIFBRDADDR => Some(first_v4(interface, label)?.broadcast.unwrap_or(Ipv4Addr::UNSPECIFIED)),
        SIOCGIFNETMASK => Some(mask(first_v4(interface, label)?.prefix)),
        _ => None,
    };
    if let Some(address) = address {
        out[..16].copy_from_slice(&sockaddr(address));
        return Ok(out);
    }
    let word = match request {
        SIOCGIFINDEX => interface.index,
        // The field is 16 bits wide.
        SIOCGIFFLAGS => interface.flags() & 0xffff,
        SIOCGIFMTU => interface.mtu() as u32,
        SIOCGIFTXQLEN => interface.queue_len.load(Ordering::Relaxed),
        SIOCGIFMETRIC | SIOCGIFMAP => 0,
        SIOCGIFHWADDR => {
            out[..2].copy_from_slice(&hardware(interface).to_ne_bytes());
            out[2..8].copy_from_slice(&interface.mac());
            return Ok(out);
        }
        _ => return Err(Errno::ENOTTY),
    };
    let len = if request == SIOCGIFFLAGS { 2 } else { 4 };
    out[..len].copy_from_slice(&word.to_ne_bytes()[..len]);
    Ok(out)
}

fn change(interface: &Arc<Interface>, label: &str, request: u32, value: &[u8]) -> Result<usize> {
    let word = u32::from_ne_bytes([value[0], value[1], value[2], value[3]]);
    let ip = Ipv4Addr::new(value[4], value[5], value[6], value[7]);
    match request {
        SIOCSIFFLAGS => {
            let flags = word & 0xffff;
            interface.set_flags(flags, 0xffff);
            interface.set_up(flags & flag::UP != 0);
        }
        SIOCSIFMTU => interface.set_mtu(word)?,
        SIOCSIFTXQLEN if (word as i32) < 0 => return Err(Errno::EINVAL),
        SIOCSIFTXQLEN => interface.queue_len.store(word, Ordering::Relaxed),
        SIOCSIFNAME if interface.is_up() => return Err(Errno::EBUSY),
        SIOCSIFNAME => rename(interface, text_of(&value[..NAME - 1])?)?,
        SIOCSIFHWADDR => {
            if u16::from_ne_bytes([value[0], value[1]]) != hardware(interface) {
                return Err(Errno::EINVAL);
            }
            interface.set_mac([value[2], value[3], value[4], value[5], value[6], value[7]])?;
        }
        SIOCSIFADDR => set_first(interface, label, ip)?,
        SIOCSIFNETMASK | SIOCSIFBRDADDR => {
            let old = first_v4(interface, label)?;
            let mut new = old.clone();
            if request == SIOCSIFNETMASK {
                new.prefix = prefix_of(ip)?;
                new.broadcast = broadcast(interface, v4(old.ip), new.prefix);
            } else {
                new.broadcast = Some(ip);
            }
            interface.remove_address(old.ip, old.prefix)?;
            interface.add_address(new)?;
        }
        SIOCBRADDIF => bridge::join(interface, &by_index(word).ok_or(Errno::EINVAL)?)?,
        SIOCBRDELIF => {
            let port = by_index(word).ok_or(Errno::EINVAL)?;
            if port.master.load(Ordering::Relaxed) != interface.index {
                return Err(Errno::EINVAL);
            }
            bridge::leave(&port);
        }
        // Every interface takes all groups' frames.
        _ => {}
    }
    Ok(0)
}

fn broadcast(interface: &Interface, ip: Ipv4Addr, prefix: u8) -> Option<Ipv4Addr> {
    (interface.flags() & flag::BROADCAST != 0 && prefix < 31)
        .then(|| Ipv4Addr::from(u32::from(ip) | !u32::from(mask(prefix))))
}

/// SIOCSIFADDR: the address with the mask of its class takes the place of the first; 0.0.0.0 takes it away.
fn set_first(interface: &Arc<Interface>, label: &str, ip: Ipv4Addr) -> Result<()> {
    if let Ok(old) = first_v4(interface, label) {
        interface.remove_address(old.ip, old.prefix)?;
    }
    if ip.is_unspecified() {
        return Ok(());
    }
    let prefix = match ip.octets()[0] {
        _ if interface.flags() & flag::POINT_TO_POINT != 0 => 32,
        0..=127 => 8,
        128..=191 => 16,
        192..=223 => 24,
        _ => return Err(Errno::EINVAL),
    };
    let scope = if interface.is_loopback() { scope::HOST } else { scope::UNIVERSE };
    let mut address = Address::new(ip.into(), prefix, scope);
    address.broadcast = broadcast(interface, ip, prefix);
    address.label = label.contains(':').then(|| label.into());
    interface.add_address(address)?;
    interface.set_up(true);
    Ok(())
}

/// SIOCGIFCONF: all interfaces with an IPv4 address.
fn list(arg: usize) -> Result<usize> {
    let room = UserPtr::<i32>::new(arg).read()?;
    let buffer = UserPtr::<usize>::new(arg.wrapping_add(8)).read()?;
    let mut used = 0;
    for interface in all() {
        for address in interface.addresses() {
            let IpAddr::V4(ip) = address.ip else { continue };
            let mut entry = [0; SIZE];
            match &address.label {
                Some(label) => {
                    entry[..label.len().min(NAME - 1)].copy_from_slice(&label.as_bytes()[..label.len().min(NAME - 1)])
                }
                None => put_name(&mut entry, &interface),
            }
            entry[NAME..NAME + 16].copy_from_slice(&sockaddr(ip));
            if buffer != 0 {
                if used + SIZE > usize::try_from(room).unwrap_or(0) {
                    break;
                }
                copy_out(buffer.wrapping_add(used), &entry)?;
            }
            used += SIZE;
        }
    }
    UserPtr::<i32>::new(arg).write(&(used as i32))?;
    Ok(0)
}

/// `struct rtentry` of SIOCADDRT and SIOCDELRT. `EINVAL`, `ENETUNREACH`, `ENODEV`, `EEXIST`, `ESRCH`.
fn change_route(arg: usize, add: bool) -> Result<usize> {
    const RTENTRY: usize = 120;
    const GATEWAY: u16 = 2;
    const HOST: u16 = 4;
    const REJECT: u16 = 0x200;
    let mut raw = [0; RTENTRY];
    copy_in(&mut raw, arg)?;
    let ip = |at: usize| Ipv4Addr::new(raw[at + 4], raw[at + 5], raw[at + 6], raw[at + 7]);
    let (destination, gateway, net_mask) = (ip(8), ip(24), ip(40));
    let flags = u16::from_ne_bytes([raw[56], raw[57]]);
    let metric = i16::from_ne_bytes([raw[80], raw[81]]);
    let device = usize_at(&raw, 88);
    let prefix = if flags & HOST != 0 { 32 } else { prefix_of(net_mask)? };
    if route::network(destination.into(), prefix) != IpAddr::from(destination) {
        return Err(Errno::EINVAL);
    }
    let named = if device == 0 {
        None
    } else {
        let mut name = [0; NAME];
        copy_in(&mut name[..NAME - 1], device)?;
        Some(by_name(name.split(|&b| b == 0 || b == b':').next().unwrap_or_default()).ok_or(Errno::ENODEV)?.index)
    };
    let gateway = (flags & GATEWAY != 0).then_some(IpAddr::from(gateway));
    // The metric of this interface counts from 1.
    let metric = u32::try_from(metric.saturating_sub(1)).unwrap_or(0);
    if !add {
        let fits = |r: &Route| {
            r.destination == IpAddr::from(destination)
                && r.prefix == prefix
                && (metric == 0 || r.metric == metric)
                && gateway.is_none_or(|g| r.first().is_some_and(|hop| hop.gateway == Some(g)))
                && named.is_none_or(|index| r.hops.iter().any(|hop| hop.interface == index))
        };
        return table::remove(false, table::MAIN, fits).map(|()| 0);
    }
    let interface = match (named, gateway) {
        (Some(index), _) => index,
        (None, Some(gateway)) => route::lookup(gateway, 0).map_err(|_| Errno::ENETUNREACH)?.interface.index,
        (None, None) => return Err(Errno::ENODEV),
    };
    let mut new = Route::by(destination.into(), prefix, interface, gateway);
    const BOOT: u8 = 3;
    new.protocol = BOOT;
    new.metric = metric;
    new.scope = if gateway.is_some() { scope::UNIVERSE } else { scope::LINK };
    if flags & REJECT != 0 {
        new.kind = route::kind::UNREACHABLE;
        new.hops.clear();
    }
    table::add(new, How::ADD)?;
    Ok(0)
}

/// Bytes of `struct arpreq`.
const ARPREQ: usize = 68;
const FLAGS: usize = 32;

/// The address and the interface that a `struct arpreq` names.
fn neighbour_in(raw: &[u8; ARPREQ]) -> Result<(IpAddr, u32)> {
    if u16::from_ne_bytes([raw[0], raw[1]]) != 2 {
        return Err(Errno::EPFNOSUPPORT);
    }
    let ip = IpAddr::from([raw[4], raw[5], raw[6], raw[7]]);
    let name = raw[52..].split(|&b| b == 0).next().unwrap_or_default();
    let index =
        if name.is_empty() { route::lookup(ip, 0)?.interface.index } else { by_name(name).ok_or(Errno::ENODEV)?.index };
    Ok((ip, index))
}

fn get_neighbour(arg: usize) -> Result<usize> {
    const COMPLETE: u32 = 2;
    const PERMANENT: u32 = 4;
    let mut raw = [0; ARPREQ];
    copy_in(&mut raw, arg)?;
    let (ip, index) = neighbour_in(&raw)?;
    let found = neighbour::all().into_iter().find(|n| n.ip == ip && n.interface == index).ok_or(Errno::ENXIO)?;
    raw[16..18].copy_from_slice(&ARPHRD_ETHER.to_ne_bytes());
    raw[18..24].copy_from_slice(&found.mac.unwrap_or([0; 6]));
    let flags = if found.mac.is_some() { COMPLETE } else { 0 }
        | if found.state & state::PERMANENT != 0 { PERMANENT } else { 0 };
    raw[FLAGS..FLAGS + 4].copy_from_slice(&flags.to_ne_bytes());
    copy_out(arg, &raw)?;
    Ok(0)
}

fn change_neighbour(arg: usize, add: bool) -> Result<usize> {
    const PERMANENT: u32 = 4;
    let mut raw = [0; ARPREQ];
    copy_in(&mut raw, arg)?;
    let (ip, interface) = neighbour_in(&raw)?;
    if !add {
        return neighbour::remove(interface, ip).map_err(|_| Errno::ENXIO).map(|()| 0);
    }
    let flags = u32::from_ne_bytes([raw[32], raw[33], raw[34], raw[35]]);
    let new = Neighbour {
        interface,
        ip,
        mac: raw[18..24].try_into().ok(),
        state: if flags & PERMANENT != 0 { state::PERMANENT } else { state::STALE },
        flags: 0,
        confirmed: 0,
        used: 0,
        updated: 0,
        tries: 0,
    };
    neighbour::set(&new, true, false)?;
    Ok(0)
}
