//! Tables of routes. Addresses bring routes of their own: to themselves (table `local`) and to their networks (table `main`).

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::net::{IpAddr, Ipv6Addr};

use base::{Errno, Result};
use hal::sync::SpinLock;

use super::{Flow, changed, network};
use crate::hash::{BuildKeyed, Table as Hashed};
use crate::link::interface::NO_PREFIX_ROUTE;
use crate::link::{self, Address, Interface, flag, scope};
use crate::netlink;

/// RT_TABLE_MAIN.
pub const MAIN: u32 = 254;
/// RT_TABLE_LOCAL.
pub const LOCAL: u32 = 255;
/// RT_TABLE_DEFAULT.
pub const DEFAULT: u32 = 253;
/// Routes that there may be: a bound against programs that add them without end.
const ROUTES_MAX: usize = 1 << 18;

/// RTN_* types of routes.
#[allow(missing_docs, reason = "rtnetlink(7) names them")]
pub mod kind {
    pub const UNICAST: u8 = 1;
    pub const LOCAL: u8 = 2;
    pub const BROADCAST: u8 = 3;
    pub const ANYCAST: u8 = 4;
    pub const MULTICAST: u8 = 5;
    pub const BLACKHOLE: u8 = 6;
    pub const UNREACHABLE: u8 = 7;
    pub const PROHIBIT: u8 = 8;
    pub const THROW: u8 = 9;
}

/// RTPROT_KERNEL.
pub const FROM_KERNEL: u8 = 2;

/// One way of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The neighbour to send to; `None` where destinations are neighbours themselves.
    pub gateway: Option<IpAddr>,
    /// The interface.
    pub interface: u32,
    /// Its share among several, from 1.
    pub weight: u16,
    /// RTNH_F_*.
    pub flags: u8,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The network.
    pub destination: IpAddr,
    /// Bits of it that count.
    pub prefix: u8,
    /// The table.
    pub table: u32,
    /// RTN_*.
    pub kind: u8,
    /// The type of service that it is for; 0 for all.
    pub tos: u8,
    /// The lower is taken.
    pub metric: u32,
    /// Who set it (RTPROT_*).
    pub protocol: u8,
    /// RT_SCOPE_*.
    pub scope: u8,
    /// The source to prefer.
    pub source: Option<IpAddr>,
    /// The ways; none for those that refuse.
    pub hops: Vec<Hop>,
    /// RTAX_* numbers.
    pub metrics: Vec<(u16, u32)>,
}

impl Route {
    /// A route by an interface, over a neighbour or not.
    pub fn by(destination: IpAddr, prefix: u8, interface: u32, gateway: Option<IpAddr>) -> Route {
        Route {
            destination,
            prefix,
            table: MAIN,
            kind: kind::UNICAST,
            tos: 0,
            metric: 0,
            protocol: FROM_KERNEL,
            scope: scope::UNIVERSE,
            source: None,
            hops: vec![Hop { gateway, interface, weight: 1, flags: 0 }],
            metrics: Vec::new(),
        }
    }

    /// The largest packet that it says its path takes; 0 where it does not.
    pub fn mtu(&self) -> u32 {
        const MTU: u16 = 2;
        self.metrics.iter().find(|(kind, _)| *kind == MTU).map_or(0, |(_, mtu)| *mtu)
    }

    /// The first way.
    pub fn first(&self) -> Option<&Hop> {
        self.hops.first()
    }

    /// The way for a flow: by a wanted interface, else by shares.
    fn choose(&self, flow: &Flow) -> Option<Hop> {
        let fitting = |hop: &&Hop| flow.output == 0 || hop.interface == flow.output;
        let usable = |hop: &&Hop| {
            let interface = link::by_index(hop.interface);
            interface.is_some_and(|i| i.is_up() || matches!(self.kind, kind::LOCAL))
        };
        if let [only] = &self.hops[..] {
            return Some(only).filter(fitting).cloned();
        }
        let alive: Vec<&Hop> = self.hops.iter().filter(fitting).filter(usable).collect();
        let total: u32 = alive.iter().map(|hop| u32::from(hop.weight)).sum();
        let mut at = ((u64::from(flow.hash) * u64::from(total)) >> 32) as u32;
        for hop in alive {
            let weight = u32::from(hop.weight);
            if at < weight {
                return Some(hop.clone());
            }
            at -= weight;
        }
        None
    }

    fn refuses(&self) -> bool {
        matches!(self.kind, kind::BLACKHOLE | kind::UNREACHABLE | kind::PROHIBIT | kind::THROW)
    }

    /// Do both answer for the same destinations with the same worth?
    fn is_rival(&self, other: &Route) -> bool {
        (self.destination, self.prefix, self.tos, self.metric)
            == (other.destination, other.prefix, other.tos, other.metric)
    }
}

/// Networks of one prefix length.
type Length = Hashed<IpAddr, Vec<Arc<Route>>>;

/// By family, number, and prefix length: the longest first.
struct Tables {
    all: BTreeMap<(bool, u32), BTreeMap<Reverse<u8>, Length>>,
    count: usize,
}

static TABLES: SpinLock<Tables> = SpinLock::new(Tables { all: BTreeMap::new(), count: 0 });

/// The route of a table for a flow, and the way.
pub fn find_in(table: u32, flow: &Flow) -> Option<(Arc<Route>, Hop)> {
    const NONE: Hop = Hop { gateway: None, interface: 0, weight: 1, flags: 0 };
    let tables = TABLES.lock();
    let lengths = tables.all.get(&(flow.destination.is_ipv6(), table))?;
    for (Reverse(prefix), networks) in lengths {
        let Some(routes) = networks.get(&network(flow.destination, *prefix)) else { continue };
        for route in routes.iter().filter(|route| route.tos == 0 || route.tos == flow.tos & 0x1c) {
            if route.refuses() {
                return Some((route.clone(), NONE));
            }
            if let Some(hop) = route.choose(flow) {
                return Some((route.clone(), hop));
            }
        }
    }
    None
}

/// Where a new route stands among those that it would be like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct How {
    /// NLM_F_REPLACE: it takes the place of its rival.
    pub replace: bool,
    /// NLM_F_EXCL: there must be no rival.
    pub exclusive: bool,
    /// NLM_F_CREATE: it may be new.
    pub create: bool,
    /// NLM_F_APPEND: it stands behind its rivals.
    pub append: bool,
}

impl How {
    /// Only if there is none like it.
    pub const ADD: How = How { replace: false, exclusive: true, create: true, append: false };
}

/// Adds a route. `EEXIST` where there is one like it, `ENOENT` where one should be replaced that is not there, `ENOBUFS`.
pub fn add(route: Route, how: How) -> Result<()> {
    let route = Arc::new(route);
    let mut tables = TABLES.lock();
    if tables.count >= ROUTES_MAX {
        return Err(Errno::ENOBUFS);
    }
    let v6 = route.destination.is_ipv6();
    let lengths = tables.all.entry((v6, route.table)).or_default();
    let networks = lengths.entry(Reverse(route.prefix)).or_insert_with(|| Hashed::with_hasher(BuildKeyed));
    let routes = networks.entry(route.destination).or_default();
    let rival = routes.iter().position(|other| other.is_rival(&route));
    // IPv6 routes of the same worth over other neighbours are ways of one route (ECMP).
    let same_way =
        routes.iter().any(|other| other.is_rival(&route) && other.hops == route.hops && other.kind == route.kind);
    let mut grew = true;
    match rival {
        Some(at) if how.replace => {
            routes[at] = route.clone();
            grew = false;
        }
        Some(_) if how.exclusive || same_way => return Err(Errno::EEXIST),
        Some(at) if v6 && how.append && route.first().is_some_and(|hop| hop.gateway.is_some()) => {
            let mut joined = (*routes[at]).clone();
            joined.hops.extend(route.hops.iter().cloned());
            routes[at] = Arc::new(joined);
            grew = false;
        }
        _ if !how.create => return Err(Errno::ENOENT),
        _ => {
            let behind = |other: &Arc<Route>| {
                let before = (Reverse(other.tos), other.metric) < (Reverse(route.tos), route.metric);
                before || how.append && other.is_rival(&route)
            };
            let at = routes.partition_point(behind);
            routes.insert(at, route.clone());
        }
    }
    tables.count += usize::from(grew);
    drop(tables);
    changed();
    netlink::route::announce(&route, false, how.replace);
    Ok(())
}

/// Removes the first route of a table that `which` accepts. `ESRCH`.
pub fn remove(v6: bool, table: u32, which: impl Fn(&Route) -> bool) -> Result<()> {
    let gone = take(|route| route.destination.is_ipv6() == v6 && route.table == table && which(route), 1);
    if gone.is_empty() { Err(Errno::ESRCH) } else { Ok(()) }
}

/// Takes up to `most` routes that `which` accepts out of the tables.
fn take(which: impl Fn(&Route) -> bool, most: usize) -> Vec<Arc<Route>> {
    let mut gone = Vec::new();
    let mut tables = TABLES.lock();
    for lengths in tables.all.values_mut() {
        for networks in lengths.values_mut() {
            for routes in networks.values_mut() {
                routes.retain(|route| {
                    let goes = gone.len() < most && which(route);
                    if goes {
                        gone.push(route.clone());
                    }
                    !goes
                });
            }
            networks.retain(|_, routes| !routes.is_empty());
        }
        lengths.retain(|_, networks| !networks.is_empty());
    }
    tables.count = tables.count.saturating_sub(gone.len());
    drop(tables);
    changed();
    for route in &gone {
        netlink::route::announce(route, true, false);
    }
    gone
}

/// All routes: by table, IPv4 first.
pub fn all() -> Vec<Arc<Route>> {
    let tables = TABLES.lock();
    let mut out: Vec<Arc<Route>> =
        tables.all.values().flat_map(|t| t.values()).flat_map(|n| n.values()).flatten().cloned().collect();
    drop(tables);
    out.sort_by_key(|r| (r.destination.is_ipv6(), r.table, r.destination, r.prefix, r.metric));
    out
}

/// An interface is down (its networks are out of reach) or gone for good: routes by it alone go, ways by it as well.
pub(crate) fn forget_interface(index: u32, gone: bool) {
    let uses = |route: &Route| route.hops.iter().any(|hop| hop.interface == index);
    take(|route| route.hops.len() == 1 && uses(route) && (gone || route.kind != kind::LOCAL), usize::MAX);
    for route in take(|route| route.hops.len() > 1 && uses(route), usize::MAX) {
        let mut rest = (*route).clone();
        rest.hops.retain(|hop| hop.interface != index);
        if !rest.hops.is_empty() {
            // It was just taken out: its place is free.
            let _ = add(rest, How::ADD);
        }
    }
}

/// An interface has no IPv4 address any more: the routes by it alone go.
pub(crate) fn forget_v4(index: u32) {
    let only = |route: &Route| !route.hops.is_empty() && route.hops.iter().all(|hop| hop.interface == index);
    take(|route| route.destination.is_ipv4() && only(route), usize::MAX);
}

fn own(address: &Address, interface: &Interface) -> Route {
    let v4 = address.ip.is_ipv4();
    let mut route = Route::by(address.ip, if v4 { 32 } else { 128 }, interface.index, None);
    route.table = LOCAL;
    route.kind = kind::LOCAL;
    route.scope = if v4 { scope::HOST } else { scope::UNIVERSE };
    route.source = v4.then_some(address.ip);
    route
}

/// The routes to an address's network and to everyone on it: while the interface is up.
fn to_network(address: &Address, interface: &Interface) -> Vec<Route> {
    let v4 = address.ip.is_ipv4();
    let mut out = Vec::new();
    let alone = v4 && address.prefix == 32 && address.peer.is_none();
    let secondary = v4 && address.flags & link::interface::SECONDARY != 0;
    if !alone && !secondary && address.flags & NO_PREFIX_ROUTE == 0 {
        let mut route = Route::by(address.network(), address.prefix, interface.index, None);
        route.metric = if address.metric != 0 || v4 { address.metric } else { 256 };
        route.source = v4.then_some(address.ip);
        route.scope = if v4 { scope::LINK } else { scope::UNIVERSE };
        if interface.is_loopback() && v4 {
            route.table = LOCAL;
            route.kind = kind::LOCAL;
            route.scope = scope::HOST;
        }
        out.push(route);
    }
    if let Some(broadcast) = address.broadcast.filter(|_| !secondary && address.prefix < 31) {
        out.push(everyone(broadcast.into(), address, interface));
    } else if let IpAddr::V4(v4) = address.ip
        && address.prefix < 31
        && interface.is_loopback()
        && !secondary
    {
        let last = u32::from(v4) | u32::MAX.checked_shr(address.prefix.into()).unwrap_or(0);
        out.push(everyone(core::net::Ipv4Addr::from(last).into(), address, interface));
    }
    out
}

fn everyone(to: IpAddr, address: &Address, interface: &Interface) -> Route {
    let mut route = Route::by(to, 32, interface.index, None);
    route.table = LOCAL;
    route.kind = kind::BROADCAST;
    route.scope = scope::LINK;
    route.source = Some(address.ip);
    route
}

fn put(route: Route, there: bool) {
    if there {
        // Another address may have brought the same route.
        let _ = add(route, How { create: true, append: true, ..How::default() });
    } else {
        let gone =
            |r: &Route| r.is_rival(&route) && r.kind == route.kind && r.hops == route.hops && r.source == route.source;
        let _ = remove(route.destination.is_ipv6(), route.table, gone);
    }
}

/// An address came or went.
pub(crate) fn on_address(interface: &Interface, address: &Address, there: bool) {
    if address.is_usable() {
        on_own_address(interface, address, there);
    }
    if interface.is_up() {
        on_link_address(interface, address, there);
    }
    if !there {
        // Routes that would have sent from it go with it.
        let ip = Some(address.ip);
        take(|route| address.ip.is_ipv4() && route.source == ip && route.protocol != FROM_KERNEL, usize::MAX);
        // Another address may still want the network.
        if interface.is_up() {
            for other in interface.addresses().iter().filter(|a| a.network() == address.network()) {
                on_link_address(interface, other, true);
            }
        }
    }
}

/// An address is this machine's, or is not any more.
pub(crate) fn on_own_address(interface: &Interface, address: &Address, there: bool) {
    put(own(address, interface), there);
}

/// The network of an address is in reach, or is not any more.
pub(crate) fn on_link_address(interface: &Interface, address: &Address, there: bool) {
    to_network(address, interface).into_iter().for_each(|route| put(route, there));
}

/// The groups of IPv6 are in reach by an interface.
pub(crate) fn on_multicast(interface: &Interface, there: bool) {
    if interface.flags() & flag::MULTICAST == 0 {
        return;
    }
    let mut route = Route::by(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0).into(), 8, interface.index, None);
    route.table = LOCAL;
    route.kind = kind::MULTICAST;
    route.metric = 256;
    put(route, there);
}
