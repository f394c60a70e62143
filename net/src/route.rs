//! Routes: by which interface, over which neighbour and from which address a packet goes (longest prefix, then least metric).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::sync::atomic::{AtomicU32, Ordering};

use base::{Errno, Result};
use hal::sync::SpinLock;

use crate::link::{self, Interface, scope};

/// A route that was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The network.
    pub destination: IpAddr,
    /// Bits of it that count.
    pub prefix: u8,
    /// The neighbour to send to; `None` where destinations are neighbours themselves.
    pub gateway: Option<IpAddr>,
    /// The interface.
    pub interface: u32,
    /// The source to prefer.
    pub source: Option<IpAddr>,
    /// The lower is taken.
    pub metric: u32,
    /// Who set it (RTPROT_*).
    pub protocol: u8,
    /// RT_SCOPE_*.
    pub scope: u8,
}

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
    /// As of which state of the tables.
    generation: u32,
}

static ROUTES: SpinLock<Vec<Route>> = SpinLock::new(Vec::new());
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
        _ => link::all().iter().any(|interface| interface.has(ip)),
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

/// The address to send from (RFC 6724 for IPv6, in its main rules: scope, then the longest common prefix).
fn source_for(interface: &Interface, destination: IpAddr) -> IpAddr {
    let fits = |ip: IpAddr| ip.is_ipv4() == destination.is_ipv4();
    let link_local = is_link_local(destination);
    let best = |addresses: Vec<link::Address>| {
        addresses
            .into_iter()
            .filter(|a| fits(a.ip) && (a.scope != scope::HOST || interface.is_loopback()))
            .max_by_key(|a| {
                (is_link_local(a.ip) == link_local, destination.is_ipv6().then(|| common(a.ip, destination)))
            })
            .map(|a| a.ip)
    };
    best(interface.addresses())
        .or_else(|| link::all().iter().filter(|i| !i.is_loopback()).find_map(|i| best(i.addresses())))
        .unwrap_or(unspecified(destination))
}

fn path(interface: Arc<Interface>, next_hop: IpAddr, source: Option<IpAddr>, to: IpAddr, kind: Kind) -> Path {
    let generation = GENERATION.load(Ordering::Acquire);
    let source = source.unwrap_or_else(|| source_for(&interface, to));
    Path { interface, next_hop, source, kind, generation }
}

/// A way that is known without the tables.
pub fn direct(interface: Arc<Interface>, next_hop: IpAddr, source: IpAddr, kind: Kind) -> Path {
    path(interface, next_hop, Some(source), next_hop, kind)
}

/// The way to a destination, by interface `by` if that is not 0. `ENETUNREACH`, `ENETDOWN`, `ENODEV`.
pub fn lookup(destination: IpAddr, by: u32) -> Result<Path> {
    let wanted = if by != 0 { Some(link::by_index(by).ok_or(Errno::ENODEV)?) } else { None };
    if destination.is_multicast() {
        let route = find(destination, by).and_then(|route| link::by_index(route.interface));
        let interface = wanted.or(route).or_else(first_multicast).ok_or(Errno::ENETUNREACH)?;
        return Ok(path(interface, destination, None, destination, Kind::Multicast));
    }
    if is_local(destination) && (by == 0 || !is_link_local(destination)) {
        let lo = link::by_index(1).ok_or(Errno::ENETUNREACH)?;
        if !lo.is_up() {
            return Err(Errno::ENETUNREACH);
        }
        return Ok(path(lo, destination, Some(destination), destination, Kind::Local));
    }
    if destination == IpAddr::V4(Ipv4Addr::BROADCAST) {
        let route = find(destination, by).and_then(|route| link::by_index(route.interface));
        let interface = wanted.or(route).or_else(first_multicast).ok_or(Errno::ENETUNREACH)?;
        return Ok(path(interface, destination, None, destination, Kind::Broadcast));
    }
    if let Some((interface, address)) = on_link(destination, wanted.as_ref()) {
        let kind = if is_broadcast(destination, &interface) { Kind::Broadcast } else { Kind::Unicast };
        return Ok(path(interface, destination, Some(address), destination, kind));
    }
    let route = find(destination, by);
    match (route, wanted) {
        (Some(route), _) => {
            let interface = link::by_index(route.interface).ok_or(Errno::ENETUNREACH)?;
            if !interface.is_up() {
                return Err(Errno::ENETDOWN);
            }
            Ok(path(interface, route.gateway.unwrap_or(destination), route.source, destination, Kind::Unicast))
        }
        // SO_BINDTODEVICE or a scope without a route: the destination is a neighbour.
        (None, Some(interface)) if interface.is_up() => {
            Ok(path(interface, destination, None, destination, Kind::Unicast))
        }
        _ => Err(Errno::ENETUNREACH),
    }
}

fn first_multicast() -> Option<Arc<Interface>> {
    let all = link::all();
    all.iter().find(|i| i.is_up() && i.flags() & link::flag::MULTICAST != 0).or(all.first()).cloned()
}

/// The interface that is on the destination's network, and its address there.
fn on_link(destination: IpAddr, wanted: Option<&Arc<Interface>>) -> Option<(Arc<Interface>, IpAddr)> {
    let candidates = link::all();
    let candidates = candidates.iter().filter(|i| i.is_up() && wanted.is_none_or(|w| w.index == i.index));
    let mut best: Option<(u8, Arc<Interface>, IpAddr)> = None;
    for interface in candidates {
        for address in interface.addresses() {
            let better = best.as_ref().is_none_or(|(prefix, ..)| address.prefix > *prefix);
            if better && matches(destination, address.ip, address.prefix) {
                best = Some((address.prefix, interface.clone(), address.ip));
            }
        }
    }
    best.map(|(_, interface, ip)| (interface, ip))
}

fn find(destination: IpAddr, by: u32) -> Option<Route> {
    let routes = ROUTES.lock();
    let fitting = routes.iter().filter(|r| matches(destination, r.destination, r.prefix));
    let fitting = fitting.filter(|r| by == 0 || r.interface == by);
    fitting.max_by_key(|r| (r.prefix, core::cmp::Reverse(r.metric))).cloned()
}

/// Adds a route. `EEXIST`.
pub fn add(route: Route) -> Result<()> {
    let mut routes = ROUTES.lock();
    let same = |r: &Route| {
        (r.destination, r.prefix, r.metric, r.interface)
            == (route.destination, route.prefix, route.metric, route.interface)
    };
    if routes.iter().any(same) {
        return Err(Errno::EEXIST);
    }
    routes.push(route);
    drop(routes);
    changed();
    Ok(())
}

/// Removes the first route that `which` accepts. `ESRCH`.
pub fn remove(which: impl Fn(&Route) -> bool) -> Result<()> {
    let mut routes = ROUTES.lock();
    let at = routes.iter().position(which).ok_or(Errno::ESRCH)?;
    routes.remove(at);
    drop(routes);
    changed();
    Ok(())
}

/// All routes that were set, and those that addresses bring (protocol "kernel").
pub fn all() -> Vec<Route> {
    let mut routes = ROUTES.lock().clone();
    for interface in link::all() {
        if !interface.is_up() || interface.is_loopback() {
            continue;
        }
        for address in interface.addresses() {
            let network = network(address.ip, address.prefix);
            const KERNEL: u8 = 2;
            routes.push(Route {
                destination: network,
                prefix: address.prefix,
                gateway: None,
                interface: interface.index,
                source: address.ip.is_ipv4().then_some(address.ip),
                metric: if address.ip.is_ipv6() { 256 } else { 0 },
                protocol: KERNEL,
                scope: if address.ip.is_ipv4() { scope::LINK } else { scope::UNIVERSE },
            });
        }
    }
    routes
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
