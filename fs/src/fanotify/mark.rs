//! Marks: what a group listens to, and what it wants to hear of it.

use alloc::format;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use base::{Errno, Result};
use bitflags::bitflags;

use super::mask;
use crate::notify::{self, Happening, Watcher, event};
use crate::{Inode, Mount, Path, SuperBlock};

/// Marks of one group at most, unless FAN_UNLIMITED_MARKS.
const MARKS_MAX: usize = 8192;

bitflags! {
    /// The flags of fanotify_mark(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct MarkFlags: u32 {
        /// FAN_MARK_ADD.
        const ADD = 1;
        /// FAN_MARK_REMOVE.
        const REMOVE = 2;
        /// FAN_MARK_DONT_FOLLOW.
        const DONT_FOLLOW = 4;
        /// FAN_MARK_ONLYDIR.
        const ONLYDIR = 8;
        /// FAN_MARK_MOUNT.
        const MOUNT = 0x10;
        /// FAN_MARK_IGNORED_MASK.
        const IGNORED_MASK = 0x20;
        /// FAN_MARK_IGNORED_SURV_MODIFY.
        const SURVIVES_MODIFY = 0x40;
        /// FAN_MARK_FLUSH.
        const FLUSH = 0x80;
        /// FAN_MARK_FILESYSTEM.
        const FILESYSTEM = 0x100;
        /// FAN_MARK_EVICTABLE.
        const EVICTABLE = 0x200;
        /// FAN_MARK_IGNORE.
        const IGNORE = 0x400;
    }
}

/// What a mark is on. One on a mount or file system does not keep it.
#[derive(Clone)]
pub enum Target {
    /// A file or directory.
    Inode(Arc<Inode>),
    /// A mount.
    Mount(Weak<Mount>),
    /// A file system.
    Super(Weak<SuperBlock>),
}

impl Target {
    /// What the flags say that a path stands for.
    pub fn new(path: &Path, flags: MarkFlags) -> Result<Target> {
        Ok(if flags.contains(MarkFlags::MOUNT) {
            Target::Mount(Arc::downgrade(&path.mount))
        } else if flags.contains(MarkFlags::FILESYSTEM) {
            Target::Super(Arc::downgrade(&path.mount.superblock))
        } else {
            Target::Inode(path.inode()?.clone())
        })
    }

    fn is_kind(&self, flags: MarkFlags) -> bool {
        match self {
            Target::Inode(_) => !flags.intersects(MarkFlags::MOUNT | MarkFlags::FILESYSTEM),
            Target::Mount(_) => flags.contains(MarkFlags::MOUNT),
            Target::Super(_) => flags.contains(MarkFlags::FILESYSTEM),
        }
    }

    fn same(&self, other: &Target) -> bool {
        match (self, other) {
            (Target::Inode(one), Target::Inode(other)) => Arc::ptr_eq(one, other),
            (Target::Mount(one), Target::Mount(other)) => one.ptr_eq(other),
            (Target::Super(one), Target::Super(other)) => one.ptr_eq(other),
            _ => false,
        }
    }

    /// An inode of it, by which to see whether there are handles. `ENODEV` where it is gone.
    pub(super) fn inode(&self) -> Result<Arc<Inode>> {
        match self {
            Target::Inode(inode) => Ok(inode.clone()),
            Target::Mount(mount) => mount.upgrade().and_then(|mount| mount.root.inode().cloned()).ok_or(Errno::ENODEV),
            Target::Super(superblock) => superblock.upgrade().and_then(|of| of.root_inode()).ok_or(Errno::ENODEV),
        }
    }

    pub(super) fn watch(&self, watcher: &Arc<dyn Watcher>) {
        match self {
            Target::Inode(inode) => notify::watch(&**inode, watcher),
            Target::Mount(mount) => drop(mount.upgrade().map(|mount| notify::watch(&*mount, watcher))),
            Target::Super(superblock) => drop(superblock.upgrade().map(|of| notify::watch(&*of, watcher))),
        }
    }

    pub(super) fn unwatch(&self, watcher: &Arc<dyn Watcher>) {
        match self {
            Target::Inode(inode) => notify::unwatch(&**inode, watcher),
            Target::Mount(mount) => drop(mount.upgrade().map(|mount| notify::unwatch(&*mount, watcher))),
            Target::Super(superblock) => drop(superblock.upgrade().map(|of| notify::unwatch(&*of, watcher))),
        }
    }
}

struct Mark {
    target: Target,
    wanted: u32,
    ignored: u32,
    /// Is `ignored` kept when the file is modified?
    survives: bool,
}

/// How a mark's target is part of what happened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Object,
    Parent,
    /// Where a rename led.
    Destination,
    Whole,
}

impl Mark {
    fn role(&self, what: &Happening) -> Option<Role> {
        let about = what.object.or(what.parent.map(|(dir, _)| dir));
        match &self.target {
            Target::Inode(inode) => {
                let is = |other: &&Arc<Inode>| Arc::ptr_eq(inode, other);
                if what.object.filter(|_| !what.of_entry).as_ref().is_some_and(is) {
                    return Some(Role::Object);
                }
                let parent = what.parent.map(|(dir, _)| dir).as_ref().is_some_and(is).then_some(Role::Parent);
                parent.or(what.moved.map(|(dir, _)| dir).as_ref().is_some_and(is).then_some(Role::Destination))
            }
            Target::Mount(mount) => what
                .path
                .is_some_and(|path| core::ptr::eq(mount.as_ptr(), Arc::as_ptr(&path.mount)))
                .then_some(Role::Whole),
            Target::Super(superblock) => about
                .is_some_and(|inode| core::ptr::eq(superblock.as_ptr(), Arc::as_ptr(inode.superblock())))
                .then_some(Role::Whole),
        }
    }

    /// The events of a mask that count for what happened: directories only with FAN_ONDIR, what is in a directory only with
    /// FAN_EVENT_ON_CHILD.
    fn counts(mask: u32, role: Role, what: &Happening) -> u32 {
        let of_dir = what.mask & event::ISDIR != 0 && !what.of_entry;
        let of_child = role == Role::Parent && !what.of_entry;
        let entry_of_dir = what.mask & event::ISDIR != 0 && what.of_entry;
        let left_out =
            (of_dir || entry_of_dir) && mask & mask::ONDIR == 0 || of_child && mask & mask::EVENT_ON_CHILD == 0;
        if left_out { 0 } else { mask & mask::EVENTS }
    }
}

/// The marks of a group.
#[derive(Default)]
pub(super) struct Marks(Vec<Mark>);

impl Marks {
    /// Adds events; true if the mark is new. `ENOSPC`, `ENOMEM`, `EEXIST` (FAN_MARK_IGNORE and FAN_MARK_IGNORED_MASK don't mix).
    pub(super) fn add(&mut self, target: &Target, flags: MarkFlags, events: u32, unlimited: bool) -> Result<bool> {
        let new = !self.0.iter().any(|mark| mark.target.same(target));
        if new {
            if self.0.len() >= MARKS_MAX && !unlimited {
                return Err(Errno::ENOSPC);
            }
            self.0.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            self.0.push(Mark { target: target.clone(), wanted: 0, ignored: 0, survives: false });
        }
        let Some(mark) = self.0.iter_mut().find(|mark| mark.target.same(target)) else { return Err(Errno::ENOENT) };
        if flags.intersects(MarkFlags::IGNORED_MASK | MarkFlags::IGNORE) {
            // The older flag means events of directories and of what is in them as well.
            let all = if flags.contains(MarkFlags::IGNORE) { 0 } else { mask::ONDIR | mask::EVENT_ON_CHILD };
            mark.ignored |= events | all;
            mark.survives |= flags.contains(MarkFlags::SURVIVES_MODIFY);
        } else {
            mark.wanted |= events;
        }
        Ok(new)
    }

    /// Takes events away; the target, if nothing is left. `ENOENT`.
    pub(super) fn remove(&mut self, target: &Target, flags: MarkFlags, events: u32) -> Result<Option<Target>> {
        let at = self.0.iter().position(|mark| mark.target.same(target)).ok_or(Errno::ENOENT)?;
        let mark = &mut self.0[at];
        if flags.intersects(MarkFlags::IGNORED_MASK | MarkFlags::IGNORE) {
            mark.ignored &= !events;
        } else {
            mark.wanted &= !events;
        }
        let empty = (mark.wanted | mark.ignored) & mask::EVENTS == 0;
        Ok(empty.then(|| self.0.swap_remove(at).target))
    }

    /// Takes all marks of that kind away.
    pub(super) fn flush(&mut self, flags: MarkFlags) -> Vec<Target> {
        let (gone, kept) = core::mem::take(&mut self.0).into_iter().partition(|mark| mark.target.is_kind(flags));
        self.0 = kept;
        let gone: Vec<Mark> = gone;
        gone.into_iter().map(|mark| mark.target).collect()
    }

    pub(super) fn take_all(&mut self) -> Vec<Target> {
        core::mem::take(&mut self.0).into_iter().map(|mark| mark.target).collect()
    }

    /// The events among `told` that the group wants to hear of what happened.
    pub(super) fn interest(&mut self, what: &Happening, told: u32) -> u32 {
        let (mut wanted, mut ignored) = (0, 0);
        for mark in &mut self.0 {
            let Some(role) = mark.role(what) else { continue };
            if what.mask & event::MODIFY != 0 && !mark.survives {
                mark.ignored = 0;
            }
            wanted |= Mark::counts(mark.wanted, role, what);
            ignored |= Mark::counts(mark.ignored, role, what);
        }
        what.mask & wanted & !ignored & told
    }

    /// Which ends of a rename the group watches, for whatever: the old name, the new one. Of others it learns nothing.
    pub(super) fn ends_of_rename(&self, what: &Happening) -> (bool, bool) {
        let within = what.parent.zip(what.moved).is_some_and(|((from, _), (to, _))| Arc::ptr_eq(from, to));
        let roles = self.0.iter().filter_map(|mark| {
            let role = mark.role(what)?;
            (Mark::counts(mark.wanted, role, what) != 0).then_some(role)
        });
        roles.fold((false, false), |(old, new), role| match role {
            Role::Whole => (true, true),
            Role::Destination => (old, true),
            Role::Object | Role::Parent => (true, new || within),
        })
    }

    /// The lines of `/proc/PID/fdinfo/FD`.
    pub(super) fn describe(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for mark in &self.0 {
            let what = match &mark.target {
                Target::Inode(inode) => {
                    format!("ino:{:x} sdev:{:x}", inode.number(), inode.superblock().device.encode())
                }
                Target::Mount(mount) => format!("mnt_id:{:x}", mount.upgrade().map_or(0, |mount| mount.id)),
                Target::Super(of) => format!("sdev:{:x}", of.upgrade().map_or(0, |of| of.device.encode())),
            };
            let flags = if mark.survives { 0x40 } else { 0 };
            let line =
                format!("fanotify {what} mflags:{flags:x} mask:{:x} ignored_mask:{:x}\n", mark.wanted, mark.ignored);
            text.extend_from_slice(line.as_bytes());
        }
        text
    }
}
