//! Who is whose child, and who belongs to which process group and session: pure bookkeeping over numbers.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use base::{Errno, Result};

use crate::Pid;

/// A process in the tree.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// 0 for the first process.
    pub(crate) parent: Pid,
    pub(crate) children: Vec<Pid>,
    pub(crate) group: Pid,
    pub(crate) session: Pid,
}

/// The tree of processes, and the groups and sessions across it.
#[derive(Default)]
pub(crate) struct Relations {
    nodes: BTreeMap<Pid, Node>,
    /// Members of each process group.
    groups: BTreeMap<Pid, Vec<Pid>>,
    /// How many processes each session has.
    sessions: BTreeMap<Pid, usize>,
}

impl Relations {
    pub(crate) const fn new() -> Relations {
        Relations { nodes: BTreeMap::new(), groups: BTreeMap::new(), sessions: BTreeMap::new() }
    }

    pub(crate) fn get(&self, pid: Pid) -> Option<&Node> {
        self.nodes.get(&pid)
    }

    /// Is the number a process group's or a session's? Then no new task may get it.
    pub(crate) fn is_group_or_session(&self, id: Pid) -> bool {
        self.groups.contains_key(&id) || self.sessions.contains_key(&id)
    }

    /// Adds a process: a child of `parent`, in the group and session of `like`. The first (`parent` 0) leads both.
    pub(crate) fn insert(&mut self, pid: Pid, parent: Pid, like: Pid) {
        let (group, session) = self.nodes.get(&like).map_or((pid, pid), |node| (node.group, node.session));
        if let Some(node) = self.nodes.get_mut(&parent) {
            node.children.push(pid);
        }
        self.nodes.insert(pid, Node { parent, children: Vec::new(), group, session });
        self.groups.entry(group).or_default().push(pid);
        *self.sessions.entry(session).or_default() += 1;
    }

    /// Takes a process out that has been waited for. Its children must have been given away.
    pub(crate) fn remove(&mut self, pid: Pid) {
        let Some(node) = self.nodes.remove(&pid) else { return };
        if let Some(parent) = self.nodes.get_mut(&node.parent) {
            parent.children.retain(|&child| child != pid);
        }
        self.leave_group(pid, node.group);
        self.leave_session(node.session);
    }

    fn leave_group(&mut self, pid: Pid, group: Pid) {
        if let Some(members) = self.groups.get_mut(&group) {
            members.retain(|&member| member != pid);
            if members.is_empty() {
                self.groups.remove(&group);
            }
        }
    }

    fn leave_session(&mut self, session: Pid) {
        if let Some(count) = self.sessions.get_mut(&session) {
            *count -= 1;
            if *count == 0 {
                self.sessions.remove(&session);
            }
        }
    }

    /// Gives all children of `pid` to `heir`; who they are.
    pub(crate) fn give_children(&mut self, pid: Pid, heir: Pid) -> Vec<Pid> {
        let Some(node) = self.nodes.get_mut(&pid) else { return Vec::new() };
        let children = core::mem::take(&mut node.children);
        for child in &children {
            if let Some(node) = self.nodes.get_mut(child) {
                node.parent = heir;
            }
        }
        if let Some(node) = self.nodes.get_mut(&heir) {
            node.children.extend_from_slice(&children);
        }
        children
    }

    /// The ancestors of `pid`, nearest first.
    pub(crate) fn ancestors(&self, pid: Pid) -> impl Iterator<Item = Pid> + '_ {
        let parent_of = |pid: Pid| self.nodes.get(&pid).map(|node| node.parent).filter(|&parent| parent != 0);
        core::iter::successors(parent_of(pid), move |&pid| parent_of(pid))
    }

    /// The members of a process group.
    pub(crate) fn members(&self, group: Pid) -> &[Pid] {
        self.groups.get(&group).map_or(&[], |members| members)
    }

    /// setsid(2): `pid` becomes the leader of a new session and group. `EPERM` if it leads a group, or its number is still in use as one.
    pub(crate) fn new_session(&mut self, pid: Pid) -> Result<()> {
        if self.is_group_or_session(pid) {
            return Err(Errno::EPERM);
        }
        let node = self.nodes.get_mut(&pid).ok_or(Errno::ESRCH)?;
        let (group, session) = (node.group, node.session);
        node.group = pid;
        node.session = pid;
        self.leave_group(pid, group);
        self.leave_session(session);
        self.groups.entry(pid).or_default().push(pid);
        *self.sessions.entry(pid).or_default() += 1;
        Ok(())
    }

    /// The part of setpgid(2) that the tree decides. `ESRCH` (not the caller nor its child), `EPERM` (a session leader, or in another
    /// session; the group is not in the session).
    pub(crate) fn set_group(&mut self, caller: Pid, pid: Pid, group: Pid) -> Result<()> {
        let session = self.nodes.get(&caller).ok_or(Errno::ESRCH)?.session;
        let node = self.nodes.get(&pid).ok_or(Errno::ESRCH)?;
        if pid != caller && node.parent != caller {
            return Err(Errno::ESRCH);
        }
        if node.session != session || node.session == pid {
            return Err(Errno::EPERM);
        }
        if group != pid {
            let member = self.members(group).first().and_then(|member| self.nodes.get(member));
            if member.is_none_or(|member| member.session != session) {
                return Err(Errno::EPERM);
            }
        }
        let old = node.group;
        if old == group {
            return Ok(());
        }
        self.leave_group(pid, old);
        self.groups.entry(group).or_default().push(pid);
        if let Some(node) = self.nodes.get_mut(&pid) {
            node.group = group;
        }
        Ok(())
    }

    /// Is the group orphaned: has no living member (but for `ignoring`) a parent in another group of the same session?
    pub(crate) fn is_orphaned(&self, group: Pid, ignoring: Pid, alive: impl Fn(Pid) -> bool) -> bool {
        self.members(group).iter().filter(|&&pid| pid != ignoring && alive(pid)).all(|pid| {
            let Some(node) = self.nodes.get(pid) else { return true };
            let Some(parent) = self.nodes.get(&node.parent) else { return true };
            // A child of init counts as orphaned even where init is in the same session.
            node.parent == 1 || parent.group == group || parent.session != node.session
        })
    }

    /// The session of a process group.
    pub(crate) fn session_of_group(&self, group: Pid) -> Option<Pid> {
        self.members(group).first().and_then(|pid| self.nodes.get(pid)).map(|node| node.session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family() -> Relations {
        let mut tree = Relations::new();
        tree.insert(1, 0, 0);
        tree.insert(10, 1, 1);
        tree.insert(11, 10, 10);
        tree.insert(12, 11, 11);
        tree
    }

    #[test]
    fn children_inherit_group_and_session() {
        let tree = family();
        assert_eq!(tree.members(1), [1, 10, 11, 12]);
        assert_eq!(tree.get(12).unwrap().session, 1);
        assert_eq!(tree.ancestors(12).collect::<Vec<_>>(), [11, 10, 1]);
    }

    #[test]
    fn orphans_go_to_the_heir() {
        let mut tree = family();
        assert_eq!(tree.give_children(11, 1), [12]);
        tree.remove(11);
        assert_eq!(tree.get(12).unwrap().parent, 1);
        assert_eq!(tree.get(1).unwrap().children, [10, 12]);
        assert!(tree.get(10).unwrap().children.is_empty());
    }

    #[test]
    fn sessions_and_groups_follow_the_rules() {
        let mut tree = family();
        assert_eq!(tree.new_session(10), Ok(()));
        assert_eq!(tree.new_session(10), Err(Errno::EPERM));
        // A leader of a session stays in its group; 11 is still in session 1 and so not to be moved by 10.
        assert_eq!(tree.set_group(10, 10, 11), Err(Errno::EPERM));
        assert_eq!(tree.set_group(10, 11, 11), Err(Errno::EPERM));
        assert_eq!(tree.set_group(10, 12, 12), Err(Errno::ESRCH));
        tree.insert(20, 10, 10);
        tree.insert(21, 10, 10);
        assert_eq!(tree.set_group(10, 20, 20), Ok(()));
        assert_eq!(tree.set_group(10, 21, 20), Ok(()));
        assert_eq!(tree.members(20), [20, 21]);
        assert_eq!(tree.set_group(21, 21, 1), Err(Errno::EPERM));
        assert_eq!(tree.new_session(20), Err(Errno::EPERM));
        assert_eq!(tree.new_session(21), Ok(()));
    }

    #[test]
    fn a_group_is_orphaned_when_no_parent_is_outside_it_in_its_session() {
        let mut tree = family();
        tree.new_session(10).unwrap();
        tree.insert(20, 10, 10);
        tree.set_group(10, 20, 20).unwrap();
        assert!(!tree.is_orphaned(20, 0, |_| true));
        tree.give_children(10, 1);
        assert!(tree.is_orphaned(20, 0, |_| true));
    }

    #[test]
    fn numbers_of_groups_outlive_their_leaders() {
        let mut tree = family();
        tree.new_session(11).unwrap();
        tree.insert(30, 11, 11);
        tree.give_children(11, 1);
        tree.remove(11);
        assert!(tree.is_group_or_session(11));
        tree.remove(30);
        assert!(!tree.is_group_or_session(11));
    }
}
