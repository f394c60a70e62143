//! Routes: by which interface, over which neighbour and from which address a packet goes. [`rule`] says which tables are asked, [`table`] holds them
//! (longest prefix, then least metric), [`exception`] what routers have told about single destinations.

pub mod exception;
pub mod rule;
pub mod table;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::sync::atomic::{AtomicU32, Ordering};

use base::{Errno, Result};

use crate::link::{self, Interface, scope};
pub use table::{Hop, Route, kind};

/// Who a packet is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// This machine.
    Local,
    /// One other.
    Unicast,
    /// All on the link.
    Broadcast,
    /// A group.
    Multicast,
}

/// The way of a packet.
#[derive(Clone)]
pub struct Path {
    /// By this interface.
    pub interface: Arc<Interface>,
    /// To this neighbour.
    pub next_hop: IpAddr,
    /// From this address, unless another is bound.
    pub source: IpAddr,
    /// Who it is for.
    pub kind: Kind,
    /// The largest packet that the path is known to take.
    mtu: u32,
    /// As of which state of the tables.
    generation: u32,
}

/// What a way is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// To.
    pub destination: IpAddr,
    /// From, where that is known.
    pub source: Option<IpAddr>,
    /// Out by this interface; 0 for any.
    pub output: u32,
    /// It came in by this interface; 0 for this machine's own.
    pub input: u32,
    /// SO_MARK.
    pub mark: u32,
    /// Type of service.
    pub tos: u8,
    /// Chooses among several ways of the same worth.
    pub hash: u32,
}

impl Flow {
    /// To a destination, by interface `output` if that is not 0.
    pub fn to(destination: IpAddr, output: u32) -> Flow {
        Flow { destination, source: None, output, input: 0, mark: 0, tos: 0, hash: 0 }
    }
}

static GENERATION: AtomicU32 = AtomicU32::new(1);

/// Interfaces, addresses or routes have changed: paths that are kept are looked up anew.
pub(crate) fn changed() {
    GENERATION.fetch_add(1, Ordering::Release);
}

impl Path {
    /// Does it still hold?
    pub fn is_current(&self) -> bool {
        self.generation == GENERATION.load(Ordering::Acquire)
    }

    /// The largest packet that the path takes, in bytes with the IP header.
    pub fn mtu(&self) -> usize {
        let own = self.interface.mtu();
        if self.mtu != 0 { own.min(self.mtu as usize) } else { own }
    }
}

/// Are the first `prefix` bits the same?
pub fn matches(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => {
            let differ = u32::from(a) ^ u32::from(n);
            prefix == 0 || differ.leading_zeros() >= u32::from(prefix)
        }
        (IpAddr::V6(a), IpAddr::V6(n)) => {
            let differ = u128::from(a) ^ u128::from(n);
            prefix == 0 || differ.leading_zeros() >= u32::from(prefix)
        }
        _ => false,
    }
}

/// Is it an address of this machine?
pub fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) if v4.is_loopback() => true,
        _ => table::find_in(table::LOCAL, &Flow::to(ip, 0)).is_some_and(|(route, _)| route.kind == kind::LOCAL),
    }
}

/// Is it an IPv6 address that only means something on its link?
pub fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.segments()[0] & 0xffc0 == 0xfe80)
}

/// Is it the broadcast address of the link, or of one of its networks?
pub fn is_broadcast(ip: IpAddr, interface: &Interface) -> bool {
    let IpAddr::V4(v4) = ip else { return false };
    v4.is_broadcast() || interface.addresses().iter().any(|address| address.broadcast == Some(v4))
}

/// Is it a broadcast address of any link?
pub fn is_broadcast_anywhere(ip: IpAddr) -> bool {
    ip.is_ipv4() && link::all().iter().any(|interface| is_broadcast(ip, interface))
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// How long the common prefix of two addresses is.
fn common(a: IpAddr, b: IpAddr) -> u32 {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(a) ^ u32::from(b)).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a) ^ u128::from(b)).leading_zeros(),
        _ => 0,
    }
}

/// The address to send from: for IPv4 the first of the neighbour's network, for IPv6 by RFC 6724 in its main rules (scope, then the longest
/// common prefix).
pub(crate) fn source_for(interface: &Interface, destination: IpAddr, next_hop: IpAddr) -> IpAddr {
    let fits = |ip: IpAddr| ip.is_ipv4() == destination.is_ipv4();
    let link_local = is_link_local(destination);
    let now = sched::time::now();
    let best = |addresses: Vec<link::Address>| {
        addresses
            .into_iter()
            .filter(|a| fits(a.ip) && a.is_usable() && (a.scope != scope::HOST || interface.is_loopback()))
            .rev()
            .max_by_key(|a| {
                let fresh = a.ends[0].is_none_or(|end| end > now);
                let near = match a.ip {
                    IpAddr::V4(_) => u32::from(matches(next_hop, a.ip, a.prefix)),
                    IpAddr::V6(_) => common(a.ip, destination),
                };
                let first = a.flags & link::interface::SECONDARY == 0;
                (is_link_local(a.ip) == link_local, fresh, near, first)
            })
            .map(|a| a.ip)
    };
    best(interface.addresses())
        .or_else(|| link::all().iter().filter(|i| !i.is_loopback()).find_map(|i| best(i.addresses())))
        .unwrap_or(unspecified(destination))
}

fn path(interface: Arc<Interface>, next_hop: IpAddr, source: Option<IpAddr>, to: IpAddr, kind: Kind) -> Path {
    let generation = GENERATION.load(Ordering::Acquire);
    let source = source.unwrap_or_else(|| source_for(&interface, to, next_hop));
    Path { interface, next_hop, source, kind, mtu: 0, generation }
}

/// A way that is known without the tables.
pub fn direct(interface: Arc<Interface>, next_hop: IpAddr, source: IpAddr, kind: Kind) -> Path {
    path(interface, next_hop, Some(source), next_hop, kind)
}

/// The way to a destination, by interface `by` if that is not 0. `ENETUNREACH`, `EHOSTUNREACH`, `EACCES`, `EINVAL`, `ENODEV`.
pub fn lookup(destination: IpAddr, by: u32) -> Result<Path> {
    find(&Flow::to(destination, by))
}

/// The way of a flow. `ENETUNREACH`, `EHOSTUNREACH`, `EACCES`, `EINVAL`, `ENODEV`.
pub fn find(flow: &Flow) -> Result<Path> {
    let Flow { destination, output: by, .. } = *flow;
    let wanted = if by != 0 { Some(link::by_index(by).ok_or(Errno::ENODEV)?) } else { None };
    let group = destination.is_multicast();
    let limited = destination == IpAddr::V4(Ipv4Addr::BROADCAST);
    if let Some(interface) = wanted.as_ref().filter(|_| group || limited || is_link_local(destination)) {
        if is_link_local(destination) && interface.has(destination) {
            return local(destination, Some(destination));
        }
        let kind = match (group, limited) {
            (true, _) => Kind::Multicast,
            (_, true) => Kind::Broadcast,
            _ => Kind::Unicast,
        };
        return Ok(path(interface.clone(), destination, None, destination, kind));
    }
    let found = match rule::find(flow) {
        Ok(found) => found,
        Err(_) if let Some(interface) = wanted.filter(|i| i.is_up() && destination.is_ipv4()) => {
            // SO_BINDTODEVICE without a route: the destination is a neighbour.
            return Ok(path(interface, destination, None, destination, Kind::Unicast));
        }
        Err(error) => return Err(error),
    };
    let (route, hop) = found;
    if route.kind == kind::LOCAL {
        let source = route.source.filter(|source| source.is_ipv4()).unwrap_or(destination);
        return local(destination, Some(source));
    }
    let interface = link::by_index(hop.interface).ok_or(Errno::ENETUNREACH)?;
    if !interface.is_up() {
        return Err(Errno::ENETUNREACH);
    }
    let kind = match route.kind {
        kind::BROADCAST => Kind::Broadcast,
        _ if limited => Kind::Broadcast,
        _ if group => Kind::Multicast,
        _ => Kind::Unicast,
    };
    let next_hop = if group || limited { destination } else { hop.gateway.unwrap_or(destination) };
    let told = exception::find(destination);
    let next_hop = told.and_then(|told| told.gateway).unwrap_or(next_hop);
    let mut path = path(interface, next_hop, flow.source.or(route.source), destination, kind);
    path.mtu = route.mtu();
    if let Some(mtu) = told.and_then(|told| told.mtu) {
        path.mtu = if path.mtu == 0 { mtu } else { path.mtu.min(mtu) };
    }
    Ok(path)
}

/// The way to this machine itself.
fn local(destination: IpAddr, source: Option<IpAddr>) -> Result<Path> {
    let lo = link::by_index(1).filter(|lo| lo.is_up()).ok_or(Errno::ENETUNREACH)?;
    Ok(path(lo, destination, source, destination, Kind::Local))
}

/// The network that an address is in.
pub fn network(ip: IpAddr, prefix: u8) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            Ipv4Addr::from(u32::from(v4) & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            Ipv6Addr::from(u128::from(v6) & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        let ip = |s: &str| s.parse::<IpAddr>().unwrap();
        assert!(matches(ip("10.1.2.3"), ip("10.1.0.0"), 16) && !matches(ip("10.2.2.3"), ip("10.1.0.0"), 16));
        assert!(matches(ip("1.2.3.4"), ip("9.9.9.9"), 0) && !matches(ip("::1"), ip("9.9.9.9"), 0));
        assert!(matches(ip("fe80::1"), ip("fe80::"), 10) && !matches(ip("ff80::1"), ip("fe80::"), 10));
        assert_eq!(network(ip("10.1.2.3"), 8), ip("10.0.0.0"));
        assert_eq!(network(ip("10.1.2.3"), 0), ip("0.0.0.0"));
        assert_eq!(network(ip("fe80::5"), 64), ip("fe80::"));
    }
}
