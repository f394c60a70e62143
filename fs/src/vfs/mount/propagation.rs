//! Propagation: what is mounted in one place shows up in others (mount_namespaces(7)).
//!
//! Mounts with the same group are peers: each gets what is mounted below any of them. A mount with a master group gets what is mounted
//! below its members, and gives nothing back. A mount may be both.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use super::tree::{self, Change};
use super::{Mount, Path, place_key};
use crate::Dentry;

/// What mount(2) makes of a mount with MS_SHARED and its like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Propagation {
    /// MS_SHARED: a peer of its copies.
    Shared,
    /// MS_SLAVE: follows those that were its peers.
    Slave,
    /// MS_PRIVATE.
    Private,
    /// MS_UNBINDABLE: private, and not to be bound.
    Unbindable,
}

/// What a copy of a mount becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CopyAs {
    /// A peer, where the original has any, and a slave of what that follows.
    Peer,
    /// A slave of the original's group.
    Slave,
    /// That, in a new group of its own.
    SharedSlave,
}

#[derive(Default)]
struct Group {
    members: Vec<Weak<Mount>>,
    slaves: Vec<Weak<Mount>>,
}

/// All peer groups, by number.
pub(super) struct Groups(BTreeMap<u64, Group>);

fn live(list: &[Weak<Mount>]) -> Vec<Arc<Mount>> {
    list.iter().filter_map(Weak::upgrade).collect()
}

fn forget(list: &mut Vec<Weak<Mount>>, mount: &Mount) {
    list.retain(|other| !core::ptr::eq(other.as_ptr(), mount));
}

impl Groups {
    pub(super) const fn new() -> Groups {
        Groups(BTreeMap::new())
    }

    /// The lowest number that is free.
    fn new_id(&self) -> u64 {
        (1..).zip(self.0.keys()).find(|(expected, id)| expected != *id).map_or(self.0.len() as u64 + 1, |(id, _)| id)
    }

    fn members(&self, group: u64) -> Vec<Arc<Mount>> {
        self.0.get(&group).map_or(Vec::new(), |group| live(&group.members))
    }

    fn slaves(&self, group: u64) -> Vec<Arc<Mount>> {
        self.0.get(&group).map_or(Vec::new(), |group| live(&group.slaves))
    }

    fn join(&mut self, group: u64, mount: &Arc<Mount>) {
        self.0.entry(group).or_default().members.push(Arc::downgrade(mount));
        mount.links.lock().group = group;
    }

    fn follow(&mut self, master: u64, mount: &Arc<Mount>) {
        self.0.entry(master).or_default().slaves.push(Arc::downgrade(mount));
        mount.links.lock().master = master;
    }

    fn unfollow(&mut self, mount: &Mount) {
        let master = core::mem::take(&mut mount.links.lock().master);
        if let Some(group) = self.0.get_mut(&master) {
            forget(&mut group.slaves, mount);
        }
    }

    /// Takes a mount out of its peer group, whose number it gives if others are left. The last one leaves its slaves to its own master.
    fn leave(&mut self, mount: &Mount) -> Option<u64> {
        let (id, master) = {
            let mut links = mount.links.lock();
            (core::mem::take(&mut links.group), links.master)
        };
        let group = self.0.get_mut(&id)?;
        forget(&mut group.members, mount);
        if !group.members.is_empty() {
            return Some(id);
        }
        let slaves = self.slaves(id);
        self.0.remove(&id);
        for slave in slaves {
            slave.links.lock().master = 0;
            if master != 0 {
                self.follow(master, &slave);
            }
        }
        None
    }
}

/// Gives a mount a peer group, unless it has one.
pub(super) fn make_shared(change: &mut Change, mount: &Arc<Mount>) {
    let mut links = mount.links.lock();
    links.unbindable = false;
    if links.group != 0 {
        return;
    }
    drop(links);
    let id = change.groups.new_id();
    change.groups.join(id, mount);
}

/// Takes a mount out of all propagation.
pub(super) fn make_private(change: &mut Change, mount: &Arc<Mount>) {
    change.groups.leave(mount);
    change.groups.unfollow(mount);
}

/// Changes one mount, as MS_SHARED and its like say.
pub(super) fn set(change: &mut Change, mount: &Arc<Mount>, to: Propagation) {
    match to {
        Propagation::Shared => make_shared(change, mount),
        Propagation::Slave => {
            if let Some(peers) = change.groups.leave(mount) {
                change.groups.unfollow(mount);
                change.groups.follow(peers, mount);
            }
            mount.links.lock().unbindable = false;
        }
        Propagation::Private | Propagation::Unbindable => {
            make_private(change, mount);
            mount.links.lock().unbindable = to == Propagation::Unbindable;
        }
    }
}

/// Makes `mount` a peer of `model`, and a slave of what that follows (MOVE_MOUNT_SET_GROUP).
pub(super) fn take_after(change: &mut Change, mount: &Arc<Mount>, model: &Mount) {
    let (group, master) = model.propagation();
    if group != 0 {
        change.groups.join(group, mount);
    }
    if master != 0 {
        change.groups.follow(master, mount);
    }
}

/// A copy of one mount that shows `root`, not yet attached.
pub(super) fn copy_of(change: &mut Change, old: &Arc<Mount>, root: &Arc<Dentry>, kind: CopyAs) -> Arc<Mount> {
    let new = Mount::with(root.clone(), old.superblock.clone(), &old.source, old.flags(), false);
    let (group, _) = old.propagation();
    match kind {
        CopyAs::Peer => {
            take_after(change, &new, old);
            new.links.lock().unbindable = old.is_unbindable();
        }
        CopyAs::Slave | CopyAs::SharedSlave => {
            if group != 0 {
                change.groups.follow(group, &new);
            }
            if kind == CopyAs::SharedSlave {
                make_shared(change, &new);
            }
        }
    }
    new
}

/// Does the mount show that directory?
fn shows(mount: &Arc<Mount>, dentry: &Arc<Dentry>) -> bool {
    !mount.is_detached() && dentry.is_below(&mount.root)
}

/// Copies with the places where they belong.
pub(super) type Spread = Vec<(Arc<Mount>, Path)>;

/// Copies the tree at `source`, which is about to be attached at `place`, for everything that propagation from there reaches. All mounts
/// of the tree must be shared.
pub(super) fn spread(change: &mut Change, source: &Arc<Mount>, place: &Path) -> Spread {
    let mut out = Vec::new();
    let (group, _) = place.mount.propagation();
    for peer in change.groups.members(group) {
        if !Arc::ptr_eq(&peer, &place.mount) && shows(&peer, &place.dentry) {
            put_copy(change, source, CopyAs::Peer, (peer, &place.dentry), &mut out);
        }
    }
    let mut masters = alloc::vec![(group, source.clone())];
    while let Some((master, source)) = masters.pop() {
        spread_to_slaves(change, (master, &source), &place.dentry, &mut masters, &mut out);
    }
    out
}

fn put_copy(
    change: &mut Change,
    source: &Arc<Mount>,
    kind: CopyAs,
    (on, dentry): (Arc<Mount>, &Arc<Dentry>),
    out: &mut Spread,
) -> Arc<Mount> {
    let pairs = tree::copy(change, source, &source.root, true, kind);
    let copy = pairs.first().map_or_else(|| source.clone(), |(_, new)| new.clone());
    out.push((copy.clone(), Path { mount: on, dentry: dentry.clone() }));
    copy
}

/// Slaves get slaves of `source`; those of one group, peers among themselves, and that group is a master in turn.
fn spread_to_slaves(
    change: &mut Change,
    (master, source): (u64, &Arc<Mount>),
    dentry: &Arc<Dentry>,
    masters: &mut Vec<(u64, Arc<Mount>)>,
    out: &mut Spread,
) {
    let mut seen = Vec::new();
    for slave in change.groups.slaves(master) {
        let (group, _) = slave.propagation();
        if group == 0 {
            if shows(&slave, dentry) {
                put_copy(change, source, CopyAs::Slave, (slave, dentry), out);
            }
            continue;
        }
        if seen.contains(&group) {
            continue;
        }
        seen.push(group);
        let mut first: Option<Arc<Mount>> = None;
        for member in change.groups.members(group) {
            if !shows(&member, dentry) {
                continue;
            }
            match first.clone() {
                None => first = Some(put_copy(change, source, CopyAs::SharedSlave, (member, dentry), out)),
                Some(first) => drop(put_copy(change, &first, CopyAs::Peer, (member, dentry), out)),
            }
        }
        masters.push((group, first.unwrap_or_else(|| source.clone())));
    }
}

/// All mounts that get what is mounted on `mount`, without itself.
pub(super) fn receivers(change: &Change, mount: &Arc<Mount>) -> Vec<Arc<Mount>> {
    let (group, _) = mount.propagation();
    if group == 0 {
        return Vec::new();
    }
    let mut found = change.groups.members(group);
    let mut groups = alloc::vec![group];
    let mut next = 0;
    while next < groups.len() {
        for slave in change.groups.slaves(groups[next]) {
            let (own, _) = slave.propagation();
            if own == 0 {
                found.push(slave);
            } else if !groups.contains(&own) {
                groups.push(own);
                found.extend(change.groups.members(own));
            }
        }
        next += 1;
    }
    found.retain(|other| !Arc::ptr_eq(other, mount));
    found
}

/// What propagation put beside a mount that sits at `place`: what sits at the same place of everything that receives from there.
pub(super) fn counterparts(change: &Change, place: &Path) -> Vec<Arc<Mount>> {
    let key = place_key(&place.dentry);
    let child = |receiver: &Arc<Mount>| receiver.children.lock().get(&key).cloned();
    receivers(change, &place.mount).iter().filter_map(child).collect()
}

/// The nearest group that gives to the slave `mount` and of which a member is in the same namespace: `propagate_from` of
/// `/proc/PID/mountinfo`, shown where it isn't the master itself.
pub fn dominating(mount: &Arc<Mount>) -> Option<u64> {
    let change = Change::begin();
    let (_, master) = mount.propagation();
    let mut group = master;
    while group != 0 {
        let members = change.groups.members(group);
        if members.iter().any(|member| member.same_namespace(mount)) {
            return (group != master).then_some(group);
        }
        group = members.first().map_or(0, |member| member.propagation().1);
    }
    None
}
