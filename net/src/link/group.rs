//! The groups that an interface listens to, on behalf of sockets: for each group which sources are wanted (RFC 3376, 3.2; RFC 3810, 4.2).

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hal::sync::SpinLock;

use super::Interface;
use crate::ip::membership;

/// Everyone on the link.
pub(crate) const ALL_HOSTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
/// Everyone on the link, and on the machine.
pub(crate) const ALL_NODES: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0, 1)];

/// Which sources a listener wants: only some, or all but some.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Filter {
    /// All but these, not only these.
    pub(crate) exclude: bool,
    /// Which.
    pub(crate) sources: Vec<IpAddr>,
}

impl Filter {
    /// Every source.
    pub(crate) fn everyone() -> Filter {
        Filter { exclude: true, sources: Vec::new() }
    }

    /// Does it let a source through?
    pub(crate) fn passes(&self, source: IpAddr) -> bool {
        self.sources.contains(&source) != self.exclude
    }
}

/// How many listeners include a source, and exclude it.
#[derive(Clone, Copy)]
struct Counted {
    source: IpAddr,
    includes: u32,
    excludes: u32,
}

/// What all listeners of a group want together.
struct Group {
    ip: IpAddr,
    /// How many listeners there are, and how many of them want all sources but some.
    users: u32,
    excluders: u32,
    sources: Vec<Counted>,
}

impl Group {
    fn count(&mut self, filter: &Filter, more: bool) {
        let step = |n: &mut u32| *n = if more { *n + 1 } else { n.saturating_sub(1) };
        step(&mut self.users);
        if filter.exclude {
            step(&mut self.excluders);
        }
        for &source in &filter.sources {
            let at = self.sources.iter().position(|counted| counted.source == source).unwrap_or_else(|| {
                self.sources.push(Counted { source, includes: 0, excludes: 0 });
                self.sources.len() - 1
            });
            let counted = &mut self.sources[at];
            step(if filter.exclude { &mut counted.excludes } else { &mut counted.includes });
        }
        self.sources.retain(|counted| counted.includes + counted.excludes > 0);
    }

    /// The filter for all listeners; `None` without any.
    fn filter(&self) -> Option<Filter> {
        let exclude = self.excluders > 0;
        let named = |counted: &&Counted| match exclude {
            true => counted.excludes == self.excluders && counted.includes == 0,
            false => counted.includes > 0,
        };
        let sources = self.sources.iter().filter(named).map(|counted| counted.source).collect();
        (self.users > 0).then_some(Filter { exclude, sources })
    }
}

/// An interface's groups.
#[derive(Default)]
pub(crate) struct Groups(SpinLock<Vec<Group>>);

impl Interface {
    /// A listener's wish changes from one filter to another; `None` for no interest. Other machines are told of what changes for all listeners.
    pub(crate) fn listen_to(&self, group: IpAddr, old: Option<&Filter>, new: Option<&Filter>) {
        let (before, after) = {
            let mut groups = self.groups.0.lock();
            let at = groups.iter().position(|known| known.ip == group).unwrap_or_else(|| {
                groups.push(Group { ip: group, users: 0, excluders: 0, sources: Vec::new() });
                groups.len() - 1
            });
            let known = &mut groups[at];
            let before = known.filter();
            // The new wish counts first, so that a group which stays is never gone in between.
            new.iter().for_each(|filter| known.count(filter, true));
            old.iter().for_each(|filter| known.count(filter, false));
            let after = known.filter();
            if after.is_none() {
                groups.swap_remove(at);
            }
            (before, after)
        };
        if before != after {
            membership::changed(self, group, before, after);
        }
    }

    /// Is somebody on this machine interested in what a source sends to a group?
    pub(crate) fn listens_to(&self, group: IpAddr, source: IpAddr) -> bool {
        let own = match group {
            IpAddr::V4(v4) => v4 == ALL_HOSTS,
            IpAddr::V6(v6) => ALL_NODES.contains(&v6) || self.is_solicited(v6),
        };
        own || self.group_filter(group).is_some_and(|filter| filter.passes(source))
    }

    /// Is this the group that is asked for one of its addresses (RFC 4291, 2.7.1)?
    fn is_solicited(&self, group: Ipv6Addr) -> bool {
        let of = |ip: IpAddr| matches!(ip, IpAddr::V6(v6) if super::discovery::solicited_node(v6) == group);
        group.octets()[..13] == [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff]
            && self.addresses().iter().any(|address| of(address.ip))
    }

    /// What is wanted of a group.
    pub(crate) fn group_filter(&self, group: IpAddr) -> Option<Filter> {
        self.groups.0.lock().iter().find(|known| known.ip == group).and_then(Group::filter)
    }

    /// The groups with listeners, how many these are, and what they want.
    pub(crate) fn groups(&self) -> Vec<(IpAddr, u32, Filter)> {
        let groups = self.groups.0.lock();
        groups.iter().filter_map(|known| Some((known.ip, known.users, known.filter()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    #[test]
    fn listeners_wishes_are_joined() {
        let mut group = Group { ip: [232, 0, 0, 1].into(), users: 0, excluders: 0, sources: Vec::new() };
        let only = |sources: &[u8]| Filter { exclude: false, sources: sources.iter().map(|n| ip(*n)).collect() };
        let but = |sources: &[u8]| Filter { exclude: true, ..only(sources) };
        assert_eq!(group.filter(), None);
        group.count(&only(&[1, 2]), true);
        assert_eq!(group.filter(), Some(only(&[1, 2])));
        group.count(&but(&[2, 3]), true);
        assert_eq!(group.filter(), Some(but(&[3])), "someone includes 2");
        group.count(&but(&[2]), true);
        assert_eq!(group.filter(), Some(but(&[])), "not everyone excludes 3");
        group.count(&but(&[2, 3]), false);
        group.count(&but(&[2]), false);
        assert_eq!(group.filter(), Some(only(&[1, 2])));
        group.count(&only(&[1, 2]), false);
        assert!(group.filter().is_none() && group.sources.is_empty());
        assert!(Filter::everyone().passes(ip(1)) && !only(&[1]).passes(ip(2)) && !but(&[1]).passes(ip(1)));
    }
}
