//! Locks on files: POSIX record locks, open-file-description locks and flock(2). All are advisory.

mod report;

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use base::{Errno, Result};
use hal::sync::SpinLock;
use sched::{Sleep, Thread, WaitQueue};

use crate::{DeviceNumber, Inode};
pub(crate) use report::all;
pub use report::of_open_file;

/// Shared or exclusive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockKind {
    /// F_RDLCK, LOCK_SH.
    Read,
    /// F_WRLCK, LOCK_EX.
    Write,
}

/// Whose lock it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockOwner {
    /// A POSIX lock belongs to a process, known by its descriptor table ([`crate::FdTable::id`]).
    Table(u64),
    /// An OFD or flock lock belongs to an open file ([`crate::OpenFile::id`]).
    OpenFile(u64),
}

/// A lock on a range of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RangeLock {
    /// Whose.
    pub owner: LockOwner,
    /// The process that took it, for F_GETLK (-1 for OFD locks), and the open file that it came through.
    pub pid: i32,
    /// [`crate::OpenFile::id`].
    pub open: u64,
    /// Shared or exclusive.
    pub kind: LockKind,
    /// The first byte.
    pub start: u64,
    /// The last byte; `i64::MAX` for "to the end".
    pub end: u64,
}

/// A lock on a whole file, by flock(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WholeLock {
    /// The open file that has it ([`crate::OpenFile::id`]).
    pub open: u64,
    /// The process that took it.
    pub pid: i32,
    /// Shared or exclusive.
    pub kind: LockKind,
}

/// A lock of either sort.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum AnyLock {
    Range(RangeLock),
    Whole(WholeLock),
}

impl AnyLock {
    fn owner(&self) -> LockOwner {
        match self {
            AnyLock::Range(lock) => lock.owner,
            AnyLock::Whole(lock) => LockOwner::OpenFile(lock.open),
        }
    }
}

impl RangeLock {
    fn overlaps(&self, other: &RangeLock) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    fn conflicts(&self, other: &RangeLock) -> bool {
        self.owner != other.owner
            && self.overlaps(other)
            && (self.kind == LockKind::Write || other.kind == LockKind::Write)
    }
}

/// Gives `wanted`'s range to its owner in `wanted`'s kind, or to nobody (`unlock`). What the owner had there is cut away; touching
/// pieces of the same kind join. `ENOLCK` without memory.
fn apply(locks: &mut Vec<RangeLock>, wanted: RangeLock, unlock: bool) -> Result<()> {
    // A cut in the middle of a lock makes two of it, and the new one is a third.
    locks.try_reserve(2).map_err(|_| Errno::ENOLCK)?;
    let mut new = wanted;
    let mut tail = None;
    locks.retain_mut(|held| {
        if held.owner != new.owner {
            return true;
        }
        if !unlock && held.kind == new.kind {
            let touches = held.start <= new.end.saturating_add(1) && new.start <= held.end.saturating_add(1);
            if touches {
                new.start = new.start.min(held.start);
                new.end = new.end.max(held.end);
            }
            return !touches;
        }
        if !held.overlaps(&wanted) {
            return true;
        }
        if held.end > wanted.end {
            tail = Some(RangeLock { start: wanted.end + 1, ..*held });
        }
        if held.start < wanted.start {
            held.end = wanted.start - 1;
            return true;
        }
        false
    });
    locks.extend(tail);
    if !unlock {
        locks.push(new);
    }
    Ok(())
}

/// Who waits for whom, over all files: for EDEADLK. Only POSIX locks are in it, as on Linux.
static BLOCKED: SpinLock<Vec<(LockOwner, LockOwner)>> = SpinLock::new(Vec::new());

/// Would `waiter` waiting for `holder` close a circle?
fn closes_circle(blocked: &[(LockOwner, LockOwner)], waiter: LockOwner, holder: LockOwner) -> bool {
    let mut at = holder;
    for _ in 0..=blocked.len() {
        if at == waiter {
            return true;
        }
        match blocked.iter().find(|(w, _)| *w == at) {
            Some((_, next)) => at = *next,
            None => return false,
        }
    }
    false
}

struct Waiting(LockOwner);

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut blocked = BLOCKED.lock();
        if let Some(i) = blocked.iter().position(|(w, _)| *w == self.0) {
            blocked.swap_remove(i);
        }
    }
}

/// A thread that waits for a lock, and whose lock is in the way.
#[derive(Clone)]
struct Wait {
    thread: Arc<Thread>,
    wanted: AnyLock,
    holder: LockOwner,
    /// The address of the file's locks, to tell them from others'.
    file: usize,
}

/// Threads that wait for a lock of any kind: for `/proc/locks` and the wait-for graph.
static WAITS: SpinLock<Vec<Wait>> = SpinLock::new(Vec::new());
/// The locks of all files that ever had one and are still in memory.
static FILES: SpinLock<Vec<Weak<FileLocks>>> = SpinLock::new(Vec::new());

/// Who waits for a lock on a file at this moment, and whose lock is in the way.
pub fn waits() -> Vec<(Arc<Thread>, LockOwner)> {
    WAITS.lock().iter().map(|wait| (wait.thread.clone(), wait.holder)).collect()
}

/// The calling thread is about to wait, while this lives.
struct Shown(Arc<Thread>);

impl Shown {
    /// `None` without memory: the wait does not show then.
    fn new(file: &FileLocks, wanted: AnyLock, holder: LockOwner) -> Option<Shown> {
        let thread = sched::current();
        let mut waits = WAITS.lock();
        waits.try_reserve(1).ok()?;
        waits.push(Wait { thread: thread.clone(), wanted, holder, file: file.address() });
        Some(Shown(thread))
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let mut waits = WAITS.lock();
        let at = waits.iter().position(|wait| Arc::ptr_eq(&wait.thread, &self.0));
        let gone = at.map(|at| waits.swap_remove(at));
        drop(waits);
        drop(gone);
    }
}

/// The locks on one file.
pub struct FileLocks {
    /// The device and number of the file, for who looks at all locks.
    device: DeviceNumber,
    number: u64,
    ranges: SpinLock<Vec<RangeLock>>,
    whole: SpinLock<Vec<WholeLock>>,
    waiters: WaitQueue,
}

impl FileLocks {
    fn unlocked(device: DeviceNumber, number: u64) -> FileLocks {
        let (ranges, whole) = (SpinLock::new(Vec::new()), SpinLock::new(Vec::new()));
        FileLocks { device, number, ranges, whole, waiters: WaitQueue::new() }
    }

    /// The locks of a file that had none so far.
    pub(crate) fn new(inode: &Inode) -> Arc<FileLocks> {
        let made = Arc::new(FileLocks::unlocked(inode.superblock().device, inode.number()));
        let mut files = FILES.lock();
        if files.len() == files.capacity() {
            files.retain(|file| file.strong_count() > 0);
        }
        // Without memory they work, but do not show.
        if files.try_reserve(1).is_ok() {
            files.push(Arc::downgrade(&made));
        }
        drop(files);
        made
    }

    fn address(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }

    /// The first lock that stands in the way of `wanted` (F_GETLK).
    pub fn blocker(&self, wanted: &RangeLock) -> Option<RangeLock> {
        self.ranges.lock().iter().find(|held| held.conflicts(wanted)).copied()
    }

    /// Takes a range. Waits for it if `wait`: `ERESTARTSYS`, `EDEADLK` (POSIX locks). Else `EAGAIN`. `ENOLCK`.
    pub fn lock_range(&self, wanted: RangeLock, wait: bool) -> Result<()> {
        let (mut waiting, mut shown) = (None, None);
        let attempt = || {
            let mut ranges = self.ranges.lock();
            let Some(blocker) = ranges.iter().find(|held| held.conflicts(&wanted)).map(|held| held.owner) else {
                let result = apply(&mut ranges, wanted, false);
                drop(ranges);
                // A weaker lock may let others in.
                self.waiters.wake_all();
                return Some(result);
            };
            drop(ranges);
            if !wait {
                return Some(Err(Errno::EAGAIN));
            }
            waiting = None;
            drop(shown.take());
            shown = Shown::new(self, AnyLock::Range(wanted), blocker);
            if matches!(wanted.owner, LockOwner::Table(_)) {
                let mut blocked = BLOCKED.lock();
                if closes_circle(&blocked, wanted.owner, blocker) {
                    return Some(Err(Errno::EDEADLK));
                }
                if blocked.try_reserve(1).is_err() {
                    return Some(Err(Errno::ENOLCK));
                }
                blocked.push((wanted.owner, blocker));
                drop(blocked);
                waiting = Some(Waiting(wanted.owner));
            }
            None
        };
        self.waiters.wait_until(Sleep::Interruptible, None, attempt)?
    }

    /// Gives a range up. `ENOLCK` where that needs memory that isn't there.
    pub fn unlock_range(&self, wanted: RangeLock) -> Result<()> {
        apply(&mut self.ranges.lock(), wanted, true)?;
        self.waiters.wake_all();
        Ok(())
    }

    /// Gives up all ranges of an owner: its process closed the file, or the open file is gone.
    pub fn release(&self, owner: LockOwner) {
        self.ranges.lock().retain(|held| held.owner != owner);
        self.waiters.wake_all();
    }

    /// flock(2). `EAGAIN` (EWOULDBLOCK), `ERESTARTSYS`, `ENOLCK`.
    pub fn lock_whole(&self, wanted: WholeLock, wait: bool) -> Result<()> {
        // A change of kind is not atomic: the old lock goes first.
        self.whole.lock().retain(|held| held.open != wanted.open || held.kind == wanted.kind);
        self.waiters.wake_all();
        let mut shown = None;
        self.waiters.wait_until(Sleep::Interruptible, None, || {
            drop(shown.take());
            let mut whole = self.whole.lock();
            if whole.iter().any(|held| held.open == wanted.open) {
                return Some(Ok(()));
            }
            let stands = |held: &&WholeLock| wanted.kind == LockKind::Write || held.kind == LockKind::Write;
            if let Some(holder) = whole.iter().find(stands).map(|held| LockOwner::OpenFile(held.open)) {
                drop(whole);
                shown = if wait { Shown::new(self, AnyLock::Whole(wanted), holder) } else { None };
                return if wait { None } else { Some(Err(Errno::EAGAIN)) };
            }
            Some(whole.try_reserve(1).map_err(|_| Errno::ENOLCK).map(|()| whole.push(wanted)))
        })?
    }

    /// Gives up the flock(2) lock of an open file.
    pub fn unlock_whole(&self, id: u64) {
        self.whole.lock().retain(|held| held.open != id);
        self.waiters.wake_all();
    }

    /// All of them, those by flock(2) first, as Linux has them.
    fn list(&self) -> Vec<AnyLock> {
        let mut list: Vec<AnyLock> = self.whole.lock().iter().copied().map(AnyLock::Whole).collect();
        list.extend(self.ranges.lock().iter().copied().map(AnyLock::Range));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use LockKind::{Read, Write};

    fn lock(owner: u64, kind: LockKind, start: u64, end: u64) -> RangeLock {
        RangeLock { owner: LockOwner::Table(owner), pid: 1, open: 1, kind, start, end }
    }

    #[test]
    fn a_lock_splits_joins_and_replaces_its_owners_others() {
        let mut locks = Vec::new();
        apply(&mut locks, lock(1, Write, 0, 99), false).unwrap();
        apply(&mut locks, lock(1, Write, 40, 59), true).unwrap();
        locks.sort_by_key(|l| l.start);
        assert_eq!(locks, [lock(1, Write, 0, 39), lock(1, Write, 60, 99)]);
        apply(&mut locks, lock(1, Write, 40, 59), false).unwrap();
        assert_eq!(locks, [lock(1, Write, 0, 99)]);
        apply(&mut locks, lock(1, Read, 50, 149), false).unwrap();
        locks.sort_by_key(|l| l.start);
        assert_eq!(locks, [lock(1, Write, 0, 49), lock(1, Read, 50, 149)]);
        apply(&mut locks, lock(2, Read, 0, u64::MAX >> 1), true).unwrap();
        assert_eq!(locks.len(), 2);
    }

    #[test]
    fn only_writers_of_other_owners_conflict() {
        let locks = FileLocks::unlocked(DeviceNumber::default(), 1);
        apply(&mut locks.ranges.lock(), lock(1, Read, 0, 9), false).unwrap();
        assert_eq!(locks.blocker(&lock(2, Read, 0, 9)), None);
        assert_eq!(locks.blocker(&lock(2, Write, 9, 9)), Some(lock(1, Read, 0, 9)));
        assert_eq!(locks.blocker(&lock(2, Write, 10, 10)), None);
        assert_eq!(locks.blocker(&lock(1, Write, 0, 9)), None);
    }

    #[test]
    fn a_circle_of_waiters_is_a_deadlock() {
        let owner = LockOwner::Table;
        let blocked = [(owner(1), owner(2)), (owner(2), owner(3))];
        assert!(closes_circle(&blocked, owner(3), owner(1)));
        assert!(!closes_circle(&blocked, owner(4), owner(1)));
    }
}
