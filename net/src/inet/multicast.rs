//! Groups that a socket is a member of, and whose messages to them it wants (ip(7), ipv6(7), RFC 3678).

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::sync::atomic::{AtomicU32, Ordering};

use base::{Errno, Result};

use super::address::{Endpoint, Family};
use super::options::{SOL_IP, SOL_IPV6, word};
use crate::link::group::Filter;
use crate::link::{self, Interface};
use crate::route;
use alloc::sync::Arc;

const IP_ADD_MEMBERSHIP: i32 = 35;
const IP_DROP_MEMBERSHIP: i32 = 36;
const IP_UNBLOCK_SOURCE: i32 = 37;
const IP_BLOCK_SOURCE: i32 = 38;
const IP_ADD_SOURCE_MEMBERSHIP: i32 = 39;
const IP_DROP_SOURCE_MEMBERSHIP: i32 = 40;
const IP_MSFILTER: i32 = 41;
const MCAST_JOIN_GROUP: i32 = 42;
const MCAST_BLOCK_SOURCE: i32 = 43;
const MCAST_UNBLOCK_SOURCE: i32 = 44;
const MCAST_LEAVE_GROUP: i32 = 45;
const MCAST_JOIN_SOURCE_GROUP: i32 = 46;
const MCAST_LEAVE_SOURCE_GROUP: i32 = 47;
const MCAST_MSFILTER: i32 = 48;
const IPV6_ADD_MEMBERSHIP: i32 = 20;
const IPV6_DROP_MEMBERSHIP: i32 = 21;

/// Most groups of one socket (`net.ipv4.igmp_max_memberships`), and sources of one group (`igmp_max_msf`).
pub(crate) static GROUPS_MAX: AtomicU32 = AtomicU32::new(20);
pub(crate) static SOURCES_MAX: AtomicU32 = AtomicU32::new(10);

/// Bytes of a `struct sockaddr_storage`, and where the first one is in the MCAST_* structures.
const STORAGE: usize = 128;
const FIRST: usize = 8;

struct Membership {
    group: IpAddr,
    interface: Arc<Interface>,
    filter: Filter,
}

impl Membership {
    fn change(&mut self, filter: Filter) {
        self.interface.listen_to(self.group, Some(&self.filter), Some(&filter));
        self.filter = filter;
    }
}

/// A socket's memberships. They end with it.
#[derive(Default)]
pub(super) struct Memberships(Vec<Membership>);

impl Drop for Memberships {
    fn drop(&mut self) {
        self.0.iter().for_each(|m| m.interface.listen_to(m.group, Some(&m.filter), None));
    }
}

/// What is done with one source.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Join,
    Leave,
    Block,
    Unblock,
}

/// Is this an option about groups?
pub(super) fn is_one(level: i32, name: i32) -> bool {
    match level {
        SOL_IP => (IP_ADD_MEMBERSHIP..=MCAST_MSFILTER).contains(&name),
        SOL_IPV6 => matches!(name, IPV6_ADD_MEMBERSHIP | IPV6_DROP_MEMBERSHIP | MCAST_JOIN_GROUP..=MCAST_MSFILTER),
        _ => false,
    }
}

/// Is this the option of a group's whole filter, which getsockopt(2) gives of the group that the buffer names?
pub(super) fn is_filter(level: i32, name: i32) -> bool {
    matches!((level, name), (SOL_IP, IP_MSFILTER) | (SOL_IP | SOL_IPV6, MCAST_MSFILTER))
}

fn v4_at(value: &[u8], at: usize) -> Result<Ipv4Addr> {
    let bytes = value.get(at..at + 4).ok_or(Errno::EINVAL)?;
    Ok(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))
}

fn word_at(value: &[u8], at: usize) -> Result<u32> {
    word(value.get(at..).unwrap_or_default()).map(|n| n as u32)
}

/// The address in a `struct sockaddr_storage`. `EADDRNOTAVAIL` for another family than the level's.
fn address_at(value: &[u8], at: usize, v4: bool) -> Result<IpAddr> {
    let raw = value.get(at..at + STORAGE).ok_or(Errno::EINVAL)?;
    let ip = Endpoint::parse(raw, Family::V6).map_err(|_| Errno::EADDRNOTAVAIL)?.ip;
    if ip.is_ipv4() == v4 { Ok(ip) } else { Err(Errno::EADDRNOTAVAIL) }
}

/// The interface that is named by index or by an address of it, else that on the way to the group. `ENODEV`.
fn interface_for(group: IpAddr, index: u32, address: Option<Ipv4Addr>) -> Result<Arc<Interface>> {
    if index != 0 {
        return link::by_index(index).ok_or(Errno::ENODEV);
    }
    match address.filter(|address| !address.is_unspecified()) {
        Some(address) => link::all().into_iter().find(|i| i.has(address.into())).ok_or(Errno::ENODEV),
        None => route::lookup(group, 0).map(|path| path.interface).map_err(|_| Errno::ENODEV),
    }
}

fn check_group(group: IpAddr) -> Result<()> {
    if group.is_multicast() { Ok(()) } else { Err(Errno::EINVAL) }
}

impl Memberships {
    /// Does the socket want what a source sends to a group, as it came in by an interface? `else_all` says so for groups that it is no member of.
    pub(super) fn wants(&self, group: IpAddr, source: IpAddr, interface: u32, else_all: bool) -> bool {
        let found = self.0.iter().find(|m| m.group == group && m.interface.index == interface);
        found.map_or(else_all, |m| m.filter.passes(source))
    }

    /// Sets an option about groups. `EINVAL`, `ENODEV`, `EADDRINUSE`, `EADDRNOTAVAIL`, `ENOBUFS`.
    pub(super) fn set(&mut self, level: i32, name: i32, value: &[u8]) -> Result<()> {
        let v4 = level == SOL_IP;
        match name {
            IPV6_ADD_MEMBERSHIP | IPV6_DROP_MEMBERSHIP if !v4 => {
                let octets: [u8; 16] = value.get(..16).and_then(|b| b.try_into().ok()).ok_or(Errno::EINVAL)?;
                let group = Ipv6Addr::from(octets).into();
                let index = word_at(value, 16)?;
                if name == IPV6_ADD_MEMBERSHIP { self.join(group, index, None) } else { self.leave(group, index, None) }
            }
            IP_ADD_MEMBERSHIP | IP_DROP_MEMBERSHIP => {
                let (group, address) = (v4_at(value, 0)?.into(), Some(v4_at(value, 4)?));
                let index = if value.len() >= 12 { word_at(value, 8)? } else { 0 };
                if name == IP_ADD_MEMBERSHIP {
                    self.join(group, index, address)
                } else {
                    self.leave(group, index, address)
                }
            }
            IP_UNBLOCK_SOURCE..=IP_DROP_SOURCE_MEMBERSHIP => {
                if value.len() != 12 {
                    return Err(Errno::EINVAL);
                }
                let (group, address, source) = (v4_at(value, 0)?.into(), v4_at(value, 4)?, v4_at(value, 8)?.into());
                let change = match name {
                    IP_UNBLOCK_SOURCE => Change::Unblock,
                    IP_BLOCK_SOURCE => Change::Block,
                    IP_ADD_SOURCE_MEMBERSHIP => Change::Join,
                    _ => Change::Leave,
                };
                self.source(group, (0, Some(address)), source, change)
            }
            MCAST_JOIN_GROUP | MCAST_LEAVE_GROUP => {
                let (index, group) = (word_at(value, 0)?, address_at(value, FIRST, v4)?);
                if name == MCAST_JOIN_GROUP { self.join(group, index, None) } else { self.leave(group, index, None) }
            }
            MCAST_BLOCK_SOURCE | MCAST_UNBLOCK_SOURCE | MCAST_JOIN_SOURCE_GROUP | MCAST_LEAVE_SOURCE_GROUP => {
                if value.len() != FIRST + 2 * STORAGE {
                    return Err(Errno::EINVAL);
                }
                let (group, source) = (address_at(value, FIRST, v4)?, address_at(value, FIRST + STORAGE, v4)?);
                let change = match name {
                    MCAST_BLOCK_SOURCE => Change::Block,
                    MCAST_UNBLOCK_SOURCE => Change::Unblock,
                    MCAST_JOIN_SOURCE_GROUP => Change::Join,
                    _ => Change::Leave,
                };
                self.source(group, (word_at(value, 0)?, None), source, change)
            }
            IP_MSFILTER | MCAST_MSFILTER => self.set_filter(name, value, v4),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    /// IP_MSFILTER and MCAST_MSFILTER: the whole filter of a group.
    fn set_filter(&mut self, name: i32, value: &[u8], v4: bool) -> Result<()> {
        if name == IP_MSFILTER {
            let count = word_at(value, 12)? as usize;
            let sources = (0..check_count(count)?).map(|i| v4_at(value, 16 + 4 * i).map(IpAddr::from));
            let sources: Result<Vec<IpAddr>> = sources.collect();
            return self.filter(v4_at(value, 0)?.into(), (0, Some(v4_at(value, 4)?)), word_at(value, 8)?, sources?);
        }
        let at = FIRST + STORAGE;
        let count = word_at(value, at + 4)? as usize;
        let sources = (0..check_count(count)?).map(|i| address_at(value, at + 8 + i * STORAGE, v4));
        let sources: Result<Vec<IpAddr>> = sources.collect();
        self.filter(address_at(value, FIRST, v4)?, (word_at(value, 0)?, None), word_at(value, at)?, sources?)
    }

    /// IP_MSFILTER and MCAST_MSFILTER of getsockopt(2): the filter of the group that `given` names, with as many sources as it has room for.
    /// `EINVAL`, `ENODEV`, `EADDRNOTAVAIL` for no member.
    pub(super) fn filter_of(&self, name: i32, given: &[u8], v4: bool) -> Result<Vec<u8>> {
        let short = name == IP_MSFILTER;
        let (group, interface, count_at) = if short {
            (v4_at(given, 0)?.into(), (0, Some(v4_at(given, 4)?)), 12)
        } else {
            let group = address_at(given, FIRST, v4).map_err(|error| if v4 { Errno::EINVAL } else { error })?;
            (group, (word_at(given, 0)?, None), FIRST + STORAGE + 4)
        };
        let room = word_at(given, count_at)? as usize;
        check_group(group)?;
        let interface = interface_for(group, interface.0, interface.1)?;
        let filter = &self.0[self.find(group, &interface).ok_or(Errno::EADDRNOTAVAIL)?].filter;
        let mut out = given[..count_at - 4].to_vec();
        out.extend(
            [u32::from(!filter.exclude), filter.sources.len() as u32].iter().flat_map(|word| word.to_ne_bytes()),
        );
        for &source in filter.sources.iter().take(room) {
            match source {
                IpAddr::V4(source) if short => out.extend(source.octets()),
                ip => {
                    let family = if v4 { Family::V4 } else { Family::V6 };
                    let mut raw = Endpoint { ip, port: 0, scope: 0 }.encode(family);
                    raw.resize(STORAGE, 0);
                    out.extend(raw);
                }
            }
        }
        Ok(out)
    }

    fn find(&self, group: IpAddr, interface: &Interface) -> Option<usize> {
        self.0.iter().position(|m| m.group == group && m.interface.index == interface.index)
    }

    fn join(&mut self, group: IpAddr, index: u32, address: Option<Ipv4Addr>) -> Result<()> {
        self.join_with(group, (index, address), Filter::everyone())
    }

    fn join_with(&mut self, group: IpAddr, at: (u32, Option<Ipv4Addr>), filter: Filter) -> Result<()> {
        check_group(group)?;
        let interface = interface_for(group, at.0, at.1)?;
        if self.find(group, &interface).is_some() {
            return Err(Errno::EADDRINUSE);
        }
        if self.0.len() >= GROUPS_MAX.load(Ordering::Relaxed) as usize {
            return Err(Errno::ENOBUFS);
        }
        interface.listen_to(group, None, Some(&filter));
        self.0.push(Membership { group, interface, filter });
        Ok(())
    }

    /// Leaves a group, where no interface is named on the first on which it is joined.
    fn leave(&mut self, group: IpAddr, index: u32, address: Option<Ipv4Addr>) -> Result<()> {
        let named = index != 0 || address.is_some_and(|address| !address.is_unspecified());
        if group.is_ipv6() {
            check_group(group)?;
        }
        let interface = if named { Some(interface_for(group, index, address)?) } else { None };
        let fits = |m: &Membership| m.group == group && interface.as_ref().is_none_or(|i| i.index == m.interface.index);
        let at = self.0.iter().position(fits).ok_or(Errno::EADDRNOTAVAIL)?;
        self.remove(at);
        Ok(())
    }

    fn remove(&mut self, at: usize) {
        let gone = self.0.remove(at);
        gone.interface.listen_to(gone.group, Some(&gone.filter), None);
    }

    /// Adds or removes one source of a membership.
    fn source(&mut self, group: IpAddr, at: (u32, Option<Ipv4Addr>), source: IpAddr, change: Change) -> Result<()> {
        check_group(group)?;
        if change == Change::Join {
            // It may be a member already.
            match self.join_with(group, at, Filter::default()) {
                Err(Errno::EADDRINUSE) | Ok(()) => {}
                error => return error,
            }
        }
        let interface = interface_for(group, at.0, at.1)?;
        let place = self.find(group, &interface).ok_or(Errno::EINVAL)?;
        let membership = &mut self.0[place];
        let mut filter = membership.filter.clone();
        let exclude = matches!(change, Change::Block | Change::Unblock);
        if filter.exclude != exclude {
            if !filter.sources.is_empty() {
                return Err(Errno::EINVAL);
            }
            filter.exclude = exclude;
        }
        let known = filter.sources.iter().position(|known| *known == source);
        match (change, known) {
            (Change::Join | Change::Block, Some(_)) | (Change::Leave | Change::Unblock, None) => {
                return Err(Errno::EADDRNOTAVAIL);
            }
            (Change::Join | Change::Block, None) => {
                check_count(filter.sources.len() + 1)?;
                filter.sources.push(source);
            }
            // Without a source left it is none.
            (Change::Leave, Some(_)) if filter.sources.len() == 1 => {
                self.remove(place);
                return Ok(());
            }
            (Change::Leave | Change::Unblock, Some(at)) => {
                filter.sources.remove(at);
            }
        }
        membership.change(filter);
        Ok(())
    }

    /// Replaces the whole filter of a membership. An empty list of wanted sources ends it.
    fn filter(&mut self, group: IpAddr, at: (u32, Option<Ipv4Addr>), mode: u32, sources: Vec<IpAddr>) -> Result<()> {
        check_group(group)?;
        let exclude = match mode {
            0 => true,
            1 => false,
            _ => return Err(Errno::EINVAL),
        };
        let interface = interface_for(group, at.0, at.1)?;
        let place = self.find(group, &interface);
        if !exclude && sources.is_empty() {
            self.remove(place.ok_or(Errno::EADDRNOTAVAIL)?);
            return Ok(());
        }
        let place = place.ok_or(Errno::EINVAL)?;
        self.0[place].change(Filter { exclude, sources });
        Ok(())
    }
}

/// `ENOBUFS` for more sources than a group may have.
fn check_count(count: usize) -> Result<usize> {
    if count > SOURCES_MAX.load(Ordering::Relaxed) as usize { Err(Errno::ENOBUFS) } else { Ok(count) }
}
