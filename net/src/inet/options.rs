//! Options at the levels IPPROTO_IP and IPPROTO_IPV6 (ip(7), ipv6(7)), and those of SOL_SOCKET that only Internet sockets have.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::sync::atomic::Ordering;

use base::{Capability, Errno, Result};

use super::address::Family;
use crate::ip::{LOOSE_ROUTE, OPTIONS_MAX, STRICT_ROUTE, default_ttl, protocol};
use crate::link;
use crate::socket::{Caller, SocketKind};

/// Levels.
pub(crate) const SOL_IP: i32 = 0;
pub(crate) const SOL_IPV6: i32 = 41;

const IP_TOS: i32 = 1;
const IP_TTL: i32 = 2;
const IP_HDRINCL: i32 = 3;
const IP_OPTIONS: i32 = 4;
pub(crate) const IP_PKTINFO: i32 = 8;
const IP_MTU_DISCOVER: i32 = 10;
const IP_RECVERR: i32 = 11;
const IP_RECVTTL: i32 = 12;
const IP_RECVTOS: i32 = 13;
pub(crate) const IP_MTU: i32 = 14;
const IP_FREEBIND: i32 = 15;
const IP_TRANSPARENT: i32 = 19;
const IP_MINTTL: i32 = 21;
const IP_NODEFRAG: i32 = 22;
const IP_MULTICAST_IF: i32 = 32;
const IP_MULTICAST_TTL: i32 = 33;
const IP_MULTICAST_LOOP: i32 = 34;
const IP_MULTICAST_ALL: i32 = 49;
const IP_BIND_ADDRESS_NO_PORT: i32 = 24;
const IP_UNICAST_IF: i32 = 50;
const IPV6_CHECKSUM: i32 = 7;
const IPV6_UNICAST_HOPS: i32 = 16;
const IPV6_MULTICAST_IF: i32 = 17;
const IPV6_MULTICAST_HOPS: i32 = 18;
const IPV6_MULTICAST_LOOP: i32 = 19;
const IPV6_MULTICAST_ALL: i32 = 29;
const IPV6_MTU_DISCOVER: i32 = 23;
const IPV6_MTU: i32 = 24;
const IPV6_RECVERR: i32 = 25;
const IPV6_V6ONLY: i32 = 26;
const IPV6_RECVPKTINFO: i32 = 49;
const IPV6_RECVHOPLIMIT: i32 = 51;
const IPV6_DONTFRAG: i32 = 62;
const IPV6_RECVTCLASS: i32 = 66;
const IPV6_TCLASS: i32 = 67;
const IPV6_MINHOPCOUNT: i32 = 73;
const IPV6_TRANSPARENT: i32 = 75;
const IPV6_UNICAST_IF: i32 = 76;
const IPV6_FREEBIND: i32 = 78;
/// Requests for header options that we never see in packets: only kept.
const IPV6_KEPT: [i32; 10] = [31, 33, 53, 56, 57, 58, 60, 70, 74, 77];
const IP_KEPT: [i32; 7] = [6, 7, 18, 20, IP_NODEFRAG, 25, 26];

/// Who sets an option, on what kind of socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setter {
    /// A raw socket.
    pub(crate) raw: bool,
    /// A stream.
    pub(crate) stream: bool,
    /// It has an address, so IPV6_V6ONLY is settled.
    pub(crate) bound: bool,
    /// The caller may speak for any address.
    pub(crate) privileged: bool,
}

impl Setter {
    /// The caller's rights, for a socket of that kind.
    pub(crate) fn new(caller: &Caller, kind: SocketKind, bound: bool) -> Setter {
        let cred = &caller.fs.cred;
        Setter {
            raw: kind == SocketKind::Raw,
            stream: kind == SocketKind::Stream,
            bound,
            privileged: cred.capable(Capability::NetRaw) || cred.capable(Capability::NetAdmin),
        }
    }

    /// What the option cannot be set for. `ENOPROTOOPT`, `EINVAL`, `EPERM`.
    fn check(self, level: i32, name: i32, on: bool) -> Result<()> {
        match (level, name) {
            (SOL_IP, IP_HDRINCL | IP_NODEFRAG) if !self.raw => Err(Errno::ENOPROTOOPT),
            (SOL_IP, IP_MULTICAST_TTL | IP_MULTICAST_IF) if self.stream => Err(Errno::EINVAL),
            (SOL_IPV6, IPV6_MULTICAST_HOPS | IPV6_MULTICAST_IF) if self.stream => Err(Errno::ENOPROTOOPT),
            (SOL_IPV6, IPV6_V6ONLY) if self.bound => Err(Errno::EINVAL),
            (SOL_IP, IP_TRANSPARENT) | (SOL_IPV6, IPV6_TRANSPARENT) if on && !self.privileged => Err(Errno::EPERM),
            _ => Ok(()),
        }
    }
}

/// What the options of a socket are set to.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "ip(7) and ipv6(7) document each")]
pub struct Settings {
    pub ttl: Option<u8>,
    pub hops: Option<u8>,
    pub tos: u8,
    pub class: u8,
    pub multicast_ttl: u8,
    pub multicast_loop: bool,
    pub multicast_all: bool,
    pub multicast_all6: bool,
    pub multicast_interface: u32,
    pub multicast_source: Option<Ipv4Addr>,
    pub packet_info: bool,
    pub packet_info6: bool,
    pub receive_ttl: bool,
    pub receive_hops: bool,
    pub receive_tos: bool,
    pub receive_class: bool,
    pub receive_errors: bool,
    pub receive_errors6: bool,
    /// IP_PMTUDISC_*.
    pub discover: i32,
    pub free_bind: bool,
    pub transparent: bool,
    pub v6_only: bool,
    pub header_included: bool,
    pub checksum_at: i32,
    pub dont_fragment: bool,
    /// Packets with less time to live are not taken: of IPv4 and IPv6.
    pub least_ttl: [u8; 2],
    pub unicast_interface: u32,
    /// IP_OPTIONS.
    pub header_options: Vec<u8>,
    pub no_port: bool,
    /// SO_BINDTODEVICE.
    pub device: u32,
    /// ICMP types not to be received by a raw socket.
    pub filter: u32,
    kept: u64,
    kept6: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            ttl: None,
            hops: None,
            tos: 0,
            class: 0,
            multicast_ttl: 1,
            multicast_loop: true,
            multicast_all: true,
            multicast_all6: true,
            multicast_interface: 0,
            multicast_source: None,
            packet_info: false,
            packet_info6: false,
            receive_ttl: false,
            receive_hops: false,
            receive_tos: false,
            receive_class: false,
            receive_errors: false,
            receive_errors6: false,
            discover: 1,
            free_bind: false,
            transparent: false,
            v6_only: super::BIND_V6_ONLY.load(Ordering::Relaxed) != 0,
            header_included: false,
            checksum_at: -1,
            dont_fragment: false,
            least_ttl: [0; 2],
            unicast_interface: 0,
            header_options: Vec::new(),
            no_port: false,
            device: 0,
            filter: 0,
            kept: 0,
            kept6: 0,
        }
    }
}

/// A number that fits a byte. `EINVAL`.
fn byte(value: &[u8]) -> Result<u8> {
    u8::try_from(number(value)?).map_err(|_| Errno::EINVAL)
}

/// The index of an interface, in network order as with no other option. `EINVAL`, `EADDRNOTAVAIL`.
fn unicast_interface(value: &[u8]) -> Result<u32> {
    let index = u32::from_be(word(value)? as u32);
    if index != 0 && link::by_index(index).is_none() { Err(Errno::EADDRNOTAVAIL) } else { Ok(index) }
}

/// IP_OPTIONS as they go into headers: padded to whole words. `EINVAL` for too many, for malformed ones, and for source routes, which nobody takes.
fn header_options(value: &[u8]) -> Result<Vec<u8>> {
    if value.len() > OPTIONS_MAX {
        return Err(Errno::EINVAL);
    }
    let mut rest = value;
    while let [kind, tail @ ..] = rest {
        rest = match (kind, tail) {
            (0, _) => break,
            (1, _) => tail,
            (&(LOOSE_ROUTE | STRICT_ROUTE), _) => return Err(Errno::EINVAL),
            (7 | 68, [_, pointer, ..]) if *pointer < 4 => return Err(Errno::EINVAL),
            (_, [len, ..]) if *len >= 2 && usize::from(*len) <= rest.len() => &rest[usize::from(*len)..],
            _ => return Err(Errno::EINVAL),
        };
    }
    let mut options = value.to_vec();
    options.resize(value.len().next_multiple_of(4), 0);
    Ok(options)
}

/// A number of an option, which may be a byte for some. `EINVAL`.
pub(crate) fn number(value: &[u8]) -> Result<i32> {
    match value {
        [a, b, c, d, ..] => Ok(i32::from_ne_bytes([*a, *b, *c, *d])),
        [byte, ..] => Ok((*byte).into()),
        [] => Err(Errno::EINVAL),
    }
}

/// A number of at least four bytes. `EINVAL`.
pub(crate) fn word(value: &[u8]) -> Result<i32> {
    if value.len() < 4 { Err(Errno::EINVAL) } else { number(value) }
}

fn v4_at(value: &[u8], at: usize) -> Option<Ipv4Addr> {
    value.get(at..at + 4).map(|b| Ipv4Addr::new(b[0], b[1], b[2], b[3]))
}

/// The interface that has an address, or 0.
fn interface_of(address: Ipv4Addr) -> u32 {
    link::all().iter().find(|i| i.has(address.into())).map_or(0, |i| i.index)
}

/// `struct ip_mreq`, `struct ip_mreqn`, `struct in_addr`: an interface by its address or index. `EINVAL`, `ENODEV`.
fn interface_in(value: &[u8], at: usize) -> Result<u32> {
    let index = value.get(at + 4..at + 8).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    let address = v4_at(value, at).ok_or(Errno::EINVAL)?;
    if index != 0 {
        return link::by_index(index).map(|_| index).ok_or(Errno::ENODEV);
    }
    match (address.is_unspecified(), interface_of(address)) {
        (true, _) => Ok(0),
        (false, 0) => Err(Errno::EADDRNOTAVAIL),
        (false, index) => Ok(index),
    }
}

impl Settings {
    fn hop_limit(value: i32) -> Result<Option<u8>> {
        match value {
            -1 => Ok(None),
            0..=255 => Ok(Some(value as u8)),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Sets an option at IPPROTO_IP. `ENOPROTOOPT`, `EINVAL`, `EADDRINUSE`, ...
    pub(crate) fn set_v4(&mut self, name: i32, value: &[u8]) -> Result<()> {
        let on = || number(value).map(|n| n != 0);
        match name {
            IP_TOS => self.tos = number(value)? as u8,
            IP_TTL => {
                let ttl = number(value)?;
                if ttl != -1 && !(1..=255).contains(&ttl) {
                    return Err(Errno::EINVAL);
                }
                self.ttl = Settings::hop_limit(ttl)?;
            }
            IP_HDRINCL => self.header_included = on()?,
            IP_PKTINFO => self.packet_info = on()?,
            IP_MTU_DISCOVER => match number(value)? {
                how @ 0..=5 => self.discover = how,
                _ => return Err(Errno::EINVAL),
            },
            IP_RECVERR => self.receive_errors = on()?,
            IP_RECVTTL => self.receive_ttl = on()?,
            IP_RECVTOS => self.receive_tos = on()?,
            IP_MINTTL => self.least_ttl[0] = byte(value)?,
            IP_FREEBIND => self.free_bind = on()?,
            IP_TRANSPARENT => self.transparent = on()?,
            IP_BIND_ADDRESS_NO_PORT => self.no_port = on()?,
            IP_MULTICAST_ALL => self.multicast_all = on()?,
            IP_MULTICAST_LOOP => self.multicast_loop = on()?,
            IP_MULTICAST_TTL => self.multicast_ttl = Settings::hop_limit(number(value)?)?.unwrap_or(1),
            IP_MULTICAST_IF => {
                let at = if value.len() >= 8 { 4 } else { 0 };
                self.multicast_interface = interface_in(value, at)?;
                self.multicast_source = v4_at(value, at).filter(|a| !a.is_unspecified());
            }
            IP_OPTIONS => self.header_options = header_options(value)?,
            IP_UNICAST_IF => self.unicast_interface = unicast_interface(value)?,
            name if IP_KEPT.contains(&name) => set_bit(&mut self.kept, name, on()?),
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }

    /// An option at IPPROTO_IP. `ENOPROTOOPT`.
    pub(crate) fn get_v4(&self, name: i32) -> Result<Vec<u8>> {
        let value = match name {
            IP_TOS => self.tos.into(),
            IP_TTL => self.ttl.unwrap_or(default_ttl(Ipv4Addr::LOCALHOST.into())).into(),
            IP_HDRINCL => self.header_included.into(),
            IP_PKTINFO => self.packet_info.into(),
            IP_MTU_DISCOVER => self.discover,
            IP_RECVERR => self.receive_errors.into(),
            IP_RECVTTL => self.receive_ttl.into(),
            IP_RECVTOS => self.receive_tos.into(),
            IP_MINTTL => self.least_ttl[0].into(),
            IP_FREEBIND => self.free_bind.into(),
            IP_TRANSPARENT => self.transparent.into(),
            IP_BIND_ADDRESS_NO_PORT => self.no_port.into(),
            IP_MULTICAST_ALL => self.multicast_all.into(),
            IP_MULTICAST_LOOP => self.multicast_loop.into(),
            IP_MULTICAST_TTL => self.multicast_ttl.into(),
            IP_MULTICAST_IF => {
                return Ok(self.multicast_source.unwrap_or(Ipv4Addr::UNSPECIFIED).octets().to_vec());
            }
            IP_OPTIONS => return Ok(self.header_options.clone()),
            IP_UNICAST_IF => self.unicast_interface.to_be() as i32,
            name if IP_KEPT.contains(&name) => has_bit(self.kept, name).into(),
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(value.to_ne_bytes().to_vec())
    }

    /// Sets an option at IPPROTO_IPV6. `ENOPROTOOPT`, `EINVAL`.
    pub(crate) fn set_v6(&mut self, name: i32, value: &[u8]) -> Result<()> {
        let on = || word(value).map(|n| n != 0);
        match name {
            IPV6_V6ONLY => self.v6_only = on()?,
            IPV6_UNICAST_HOPS => self.hops = Settings::hop_limit(word(value)?)?,
            IPV6_MULTICAST_HOPS => self.multicast_ttl = Settings::hop_limit(word(value)?)?.unwrap_or(1),
            IPV6_MULTICAST_LOOP => match word(value)? {
                n @ 0..=1 => self.multicast_loop = n == 1,
                _ => return Err(Errno::EINVAL),
            },
            IPV6_MULTICAST_IF => {
                let index = word(value)? as u32;
                if index != 0 && link::by_index(index).is_none() {
                    return Err(Errno::ENODEV);
                }
                self.multicast_interface = index;
            }
            IPV6_MULTICAST_ALL => self.multicast_all6 = on()?,
            IPV6_MTU_DISCOVER => match word(value)? {
                how @ 0..=5 => self.discover = how,
                _ => return Err(Errno::EINVAL),
            },
            IPV6_MINHOPCOUNT => self.least_ttl[1] = byte(value)?,
            IPV6_TRANSPARENT => self.transparent = on()?,
            IPV6_UNICAST_IF => self.unicast_interface = unicast_interface(value)?,
            IPV6_MTU if word(value)? < 1280 => return Err(Errno::EINVAL),
            IPV6_MTU => {}
            IPV6_RECVERR => self.receive_errors6 = on()?,
            IPV6_RECVPKTINFO => self.packet_info6 = on()?,
            IPV6_RECVHOPLIMIT => self.receive_hops = on()?,
            IPV6_RECVTCLASS => self.receive_class = on()?,
            IPV6_TCLASS => match word(value)? {
                -1 => self.class = 0,
                class @ 0..=255 => self.class = class as u8,
                _ => return Err(Errno::EINVAL),
            },
            IPV6_DONTFRAG => self.dont_fragment = on()?,
            IPV6_FREEBIND => self.free_bind = on()?,
            IPV6_CHECKSUM => match word(value)? {
                at if at > 0 && at & 1 != 0 => return Err(Errno::EINVAL),
                at => self.checksum_at = at.max(-1),
            },
            name if IPV6_KEPT.contains(&name) => set_bit(&mut self.kept6, name, on()?),
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }

    /// An option at IPPROTO_IPV6. `ENOPROTOOPT`.
    pub(crate) fn get_v6(&self, name: i32) -> Result<Vec<u8>> {
        let value = match name {
            IPV6_V6ONLY => self.v6_only.into(),
            IPV6_UNICAST_HOPS => self.hops.unwrap_or(default_ttl(Ipv6Addr::LOCALHOST.into())).into(),
            IPV6_MULTICAST_HOPS => self.multicast_ttl.into(),
            IPV6_MULTICAST_LOOP => self.multicast_loop.into(),
            IPV6_MULTICAST_IF => self.multicast_interface as i32,
            IPV6_MULTICAST_ALL => self.multicast_all6.into(),
            IPV6_MTU_DISCOVER => self.discover,
            IPV6_RECVERR => self.receive_errors6.into(),
            IPV6_RECVPKTINFO => self.packet_info6.into(),
            IPV6_RECVHOPLIMIT => self.receive_hops.into(),
            IPV6_RECVTCLASS => self.receive_class.into(),
            IPV6_TCLASS => self.class.into(),
            IPV6_DONTFRAG => self.dont_fragment.into(),
            IPV6_MINHOPCOUNT => self.least_ttl[1].into(),
            IPV6_TRANSPARENT => self.transparent.into(),
            IPV6_UNICAST_IF => self.unicast_interface.to_be() as i32,
            IPV6_FREEBIND => self.free_bind.into(),
            IPV6_CHECKSUM => self.checksum_at,
            name if IPV6_KEPT.contains(&name) => has_bit(self.kept6, name).into(),
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(value.to_ne_bytes().to_vec())
    }

    /// The time to live towards a destination.
    pub(crate) fn ttl_for(&self, destination: IpAddr) -> u8 {
        if destination.is_multicast() {
            return self.multicast_ttl;
        }
        let set = if destination.is_ipv4() { self.ttl } else { self.hops };
        set.unwrap_or_else(|| default_ttl(destination))
    }

    /// The type of service towards a destination.
    pub(crate) fn tos_for(&self, destination: IpAddr) -> u8 {
        if destination.is_ipv4() { self.tos } else { self.class }
    }

    /// May packets not be cut (IP_PMTUDISC_DO and stricter)?
    pub(crate) fn whole(&self) -> bool {
        self.discover >= 2 && self.discover != 5 || self.dont_fragment
    }

    /// Sets a SOL_SOCKET option that only Internet sockets have; `None` if it is another.
    pub(crate) fn set_socket(&mut self, name: i32, value: &[u8]) -> Option<Result<()>> {
        const SO_BINDTODEVICE: i32 = 25;
        const SO_BINDTOIFINDEX: i32 = 62;
        Some(match name {
            SO_BINDTODEVICE => {
                let name = value.split(|&b| b == 0).next().unwrap_or_default();
                if name.is_empty() {
                    self.device = 0;
                    return Some(Ok(()));
                }
                link::by_name(name).map(|i| self.device = i.index).ok_or(Errno::ENODEV)
            }
            SO_BINDTOIFINDEX => word(value).and_then(|index| match link::by_index(index as u32) {
                _ if index == 0 => {
                    self.device = 0;
                    Ok(())
                }
                Some(_) => {
                    self.device = index as u32;
                    Ok(())
                }
                None => Err(Errno::ENODEV),
            }),
            _ => return None,
        })
    }

    /// A SOL_SOCKET option that only Internet sockets have.
    pub(crate) fn get_socket(&self, name: i32) -> Option<Result<Vec<u8>>> {
        const SO_BINDTODEVICE: i32 = 25;
        const SO_BINDTOIFINDEX: i32 = 62;
        match name {
            SO_BINDTODEVICE => {
                let interface = link::by_index(self.device);
                Some(Ok(interface.map_or(Vec::new(), |i| [i.name().as_bytes(), b"\0"].concat())))
            }
            SO_BINDTOIFINDEX => Some(Ok(self.device.to_ne_bytes().to_vec())),
            _ => None,
        }
    }

    /// Sets an option of any level for a socket of that family; `None` where the level is not the network layer's.
    pub(crate) fn set(
        &mut self,
        family: Family,
        level: i32,
        name: i32,
        value: &[u8],
        setter: Setter,
    ) -> Option<Result<()>> {
        if let Err(error) = setter.check(level, name, value.iter().any(|byte| *byte != 0)) {
            return Some(Err(error));
        }
        match (level, family) {
            (SOL_IP | SOL_IPV6, _) if super::multicast::is_one(level, name) => Some(Err(Errno::EPROTO)),
            (SOL_IP, _) => Some(self.set_v4(name, value)),
            (SOL_IPV6, Family::V6) => Some(self.set_v6(name, value)),
            (SOL_IPV6, Family::V4) => Some(Err(Errno::ENOPROTOOPT)),
            (crate::options::level::SOL_SOCKET, _) => self.set_socket(name, value),
            _ => None,
        }
    }

    /// An option of any level.
    pub(crate) fn get(&self, family: Family, level: i32, name: i32) -> Option<Result<Vec<u8>>> {
        match (level, family) {
            (SOL_IP, _) => Some(self.get_v4(name)),
            (SOL_IPV6, Family::V6) => Some(self.get_v6(name)),
            (SOL_IPV6, Family::V4) => Some(Err(Errno::ENOPROTOOPT)),
            (crate::options::level::SOL_SOCKET, _) => self.get_socket(name),
            _ => None,
        }
    }
}

impl Settings {
    /// Is a flag at IPPROTO_IP set that is only kept?
    pub(super) fn keeps_v4(&self, name: i32) -> bool {
        has_bit(self.kept, name)
    }

    /// Is a flag at IPPROTO_IPV6 set that is only kept?
    pub(super) fn keeps_v6(&self, name: i32) -> bool {
        has_bit(self.kept6, name)
    }
}

fn set_bit(bits: &mut u64, name: i32, on: bool) {
    let bit = 1 << (name & 63);
    *bits = if on { *bits | bit } else { *bits & !bit };
}

fn has_bit(bits: u64, name: i32) -> bool {
    bits & 1 << (name & 63) != 0
}

/// Is this protocol's number for echoes?
pub(crate) fn is_icmp(number: u8) -> bool {
    matches!(number, protocol::ICMP | protocol::ICMPV6)
}
