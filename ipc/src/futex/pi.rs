//! Priority-inheritance futexes: locks whose word holds the owner's thread number, handed over by the kernel (FUTEX_LOCK_PI).
//!
//! A thread that finds the lock taken sets FUTEX_WAITERS in the word, so that the owner unlocks through the kernel, which gives the lock
//! to the waiter of the highest priority. Who waits for whom is known here, so a circle is refused (`EDEADLK`), and an owner is lent the
//! highest real-time priority of those that wait for it, be it through others. A waiter joins its queue before it looks at the word a last time; an unlocker changes the word first and looks into the
//! queue after: so one of them sees the other.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use base::{Errno, Nanos, Result};
use hal::sync::SpinLock;
use hal::user;
use mm::AddressSpace;
use sched::{SleepEnd, Thread};

use super::robust::{FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS};
use super::{Key, Wait, key_of, sleep};

/// A thread that waits for a lock.
struct Waiter {
    thread: Arc<Thread>,
    tid: u32,
    key: Key,
    /// Where the lock is, in the waiter's memory.
    word: usize,
    /// Who has the lock, as far as known.
    owner: AtomicU32,
    /// It has the lock.
    granted: AtomicBool,
    /// It has to try again.
    retry: AtomicBool,
}

impl Waiter {
    fn is_woken(&self) -> bool {
        self.granted.load(Ordering::Acquire) || self.retry.load(Ordering::Acquire)
    }

    fn owner(&self) -> u32 {
        self.owner.load(Ordering::Relaxed)
    }

    /// Real-time threads first, by priority.
    fn rank(&self) -> u8 {
        self.thread.priority()
    }
}

/// All waiters, found by their threads' numbers, by what they wait for, and by whom.
struct Waiters {
    by_tid: BTreeMap<u32, Arc<Waiter>>,
    by_lock: BTreeSet<(Key, u32)>,
    by_owner: BTreeSet<(u32, u32)>,
}

impl Waiters {
    fn insert(&mut self, waiter: &Arc<Waiter>) {
        self.by_tid.insert(waiter.tid, waiter.clone());
        self.by_lock.insert((waiter.key, waiter.tid));
        self.by_owner.insert((waiter.owner(), waiter.tid));
    }

    fn remove(&mut self, waiter: &Waiter) {
        self.by_tid.remove(&waiter.tid);
        self.by_lock.remove(&(waiter.key, waiter.tid));
        self.by_owner.remove(&(waiter.owner(), waiter.tid));
    }

    fn set_owner(&mut self, waiter: &Waiter, owner: u32) {
        self.by_owner.remove(&(waiter.owner(), waiter.tid));
        waiter.owner.store(owner, Ordering::Relaxed);
        self.by_owner.insert((owner, waiter.tid));
    }

    fn of_lock(&self, key: &Key) -> impl Iterator<Item = &Arc<Waiter>> {
        self.by_lock.range((*key, 0)..=(*key, u32::MAX)).filter_map(|(_, tid)| self.by_tid.get(tid))
    }

    fn of_owner(&self, owner: u32) -> impl Iterator<Item = &Arc<Waiter>> {
        self.by_owner.range((owner, 0)..=(owner, u32::MAX)).filter_map(|(_, tid)| self.by_tid.get(tid))
    }

    /// Whom `tid` waits for.
    fn awaited_by(&self, tid: u32) -> Option<u32> {
        self.by_tid.get(&tid).map(|waiter| waiter.owner())
    }
}

static WAITERS: SpinLock<Waiters> =
    SpinLock::new(Waiters { by_tid: BTreeMap::new(), by_lock: BTreeSet::new(), by_owner: BTreeSet::new() });

/// What a lock operation needs to know of the calling thread and its world.
pub struct Caller<'a> {
    /// The caller's memory.
    pub space: &'a AddressSpace,
    /// The caller's thread number.
    pub tid: u32,
    /// The thread with that number.
    pub thread: &'a dyn Fn(u32) -> Option<Arc<Thread>>,
}

/// FUTEX_LOCK_PI and, with `only_try`, FUTEX_TRYLOCK_PI. `EDEADLK`, `ESRCH` (the owner is gone), `EAGAIN` (trying), `ETIMEDOUT`,
/// `ERESTARTNOINTR`, `EFAULT`, `EINVAL`.
pub fn lock(caller: &Caller, word: usize, shared: bool, deadline: Option<Nanos>, only_try: bool) -> Result<()> {
    let key = key_of(caller.space, word, shared)?;
    let thread = sched::current();
    loop {
        let value = user::load_u32(word)?;
        let owner = value & FUTEX_TID_MASK;
        if owner == caller.tid {
            return Err(Errno::EDEADLK);
        }
        if owner == 0 {
            let waiters = if has_waiters(&key) { FUTEX_WAITERS } else { 0 };
            let mine = caller.tid | value & FUTEX_OWNER_DIED | waiters;
            if user::compare_exchange_u32(word, value, mine)? == value {
                return Ok(());
            }
            continue;
        }
        if only_try {
            return Err(Errno::EAGAIN);
        }
        let marked = value | FUTEX_WAITERS;
        if value != marked && user::compare_exchange_u32(word, value, marked)? != value {
            continue;
        }
        if (caller.thread)(owner).is_none() {
            return Err(Errno::ESRCH);
        }
        if wait(caller, &thread, key, owner, word, marked, deadline)? {
            return Ok(());
        }
    }
}

/// Who waits for whom at this moment, and the address of the lock.
pub fn waits() -> Vec<(Arc<Thread>, u32, usize)> {
    let waiters = WAITERS.lock();
    waiters.by_tid.values().map(|w| (w.thread.clone(), w.owner(), w.word)).collect()
}

fn has_waiters(key: &Key) -> bool {
    WAITERS.lock().of_lock(key).next().is_some()
}

/// Waits while the word holds `marked`; true if the lock was handed over, false to try again.
fn wait(
    caller: &Caller,
    thread: &Arc<Thread>,
    key: Key,
    owner: u32,
    word: usize,
    marked: u32,
    deadline: Option<Nanos>,
) -> Result<bool> {
    let waiter = Arc::new(Waiter {
        thread: thread.clone(),
        tid: caller.tid,
        key,
        word,
        owner: AtomicU32::new(owner),
        granted: AtomicBool::new(false),
        retry: AtomicBool::new(false),
    });
    {
        let mut waiters = WAITERS.lock();
        if closes_circle(&waiters, caller.tid, owner) {
            return Err(Errno::EDEADLK);
        }
        waiters.insert(&waiter);
        lend(caller, &waiters, owner);
    }
    let end = match user::load_u32(word) {
        Ok(value) if value == marked => sleep(thread, deadline, || waiter.is_woken()),
        Ok(_) => SleepEnd::Woken,
        Err(error) => {
            leave(caller, &waiter);
            return Err(error);
        }
    };
    if leave(caller, &waiter) {
        return match end {
            SleepEnd::Woken => Ok(false),
            SleepEnd::TimedOut => Err(Errno::ETIMEDOUT),
            SleepEnd::Interrupted => Err(Errno::ERESTARTNOINTR),
        };
    }
    // An unlocker has chosen it, and is about to say what became of it.
    while !waiter.is_woken() {
        sched::yield_now();
    }
    Ok(waiter.granted.load(Ordering::Acquire))
}

/// Takes a waiter out; false if an unlocker did so before.
fn leave(caller: &Caller, waiter: &Arc<Waiter>) -> bool {
    let mut waiters = WAITERS.lock();
    let is_there = waiters.by_tid.get(&waiter.tid).is_some_and(|other| Arc::ptr_eq(other, waiter));
    if is_there {
        waiters.remove(waiter);
        lend(caller, &waiters, waiter.owner());
    }
    is_there
}

/// Lends `owner`, and whom it waits for in turn, the highest priority of those that wait for them.
fn lend(caller: &Caller, waiters: &Waiters, mut owner: u32) {
    for _ in 0..=waiters.by_tid.len() {
        let priority = waiters.of_owner(owner).map(|waiter| waiter.rank()).max().unwrap_or(0);
        if let Some(thread) = (caller.thread)(owner) {
            thread.lend(priority);
        }
        match waiters.awaited_by(owner) {
            Some(next) => owner = next,
            None => return,
        }
    }
}

/// Would `tid`, waiting for `owner`, wait for itself?
fn closes_circle(waiters: &Waiters, tid: u32, mut owner: u32) -> bool {
    for _ in 0..waiters.by_tid.len() {
        let Some(next) = waiters.awaited_by(owner) else { return false };
        owner = next;
        if owner == tid {
            return true;
        }
    }
    false
}

/// Takes out the waiter that gets the lock next; the others then wait for it.
fn choose(caller: &Caller, key: &Key) -> Option<Arc<Waiter>> {
    let mut waiters = WAITERS.lock();
    let of_lock: Vec<Arc<Waiter>> = waiters.of_lock(key).cloned().collect();
    let chosen = of_lock.iter().max_by_key(|waiter| waiter.rank())?.clone();
    waiters.remove(&chosen);
    for other in of_lock.iter().filter(|other| other.tid != chosen.tid) {
        waiters.set_owner(other, chosen.tid);
    }
    lend(caller, &waiters, chosen.tid);
    lend(caller, &waiters, caller.tid);
    Some(chosen)
}

/// FUTEX_WAIT_REQUEUE_PI: waits at a word until [`super::requeue_to_lock`], then takes the lock at `to`. `EAGAIN` (the word holds something
/// else, or a signal came after the move), `EINVAL`, `ETIMEDOUT`, `ERESTARTNOINTR`, `EFAULT`, and as [`lock`].
pub fn wait_requeue(caller: &Caller, wait: &Wait, to: usize, deadline: Option<Nanos>) -> Result<()> {
    let (from, target) = (key_of(caller.space, wait.word, wait.shared)?, key_of(caller.space, to, wait.shared)?);
    if from == target {
        return Err(Errno::EINVAL);
    }
    let restart = |error| if error == Errno::ERESTARTSYS { Errno::ERESTARTNOINTR } else { error };
    super::wait_for(caller.space, wait, Some(target), deadline).map_err(restart)?;
    let too_late = |error| if error == Errno::ERESTARTNOINTR { Errno::EAGAIN } else { error };
    lock(caller, to, wait.shared, deadline, false).map_err(too_late)
}

/// FUTEX_UNLOCK_PI. `EPERM` (not the owner), `EFAULT`, `EINVAL`.
pub fn unlock(caller: &Caller, word: usize, shared: bool) -> Result<()> {
    let key = key_of(caller.space, word, shared)?;
    if user::load_u32(word)? & FUTEX_TID_MASK != caller.tid {
        return Err(Errno::EPERM);
    }
    let chosen = choose(caller, &key);
    // Others may join while it is handed over, so the new owner has to come here to unlock in any case.
    let new = chosen.as_ref().map_or(0, |waiter| waiter.tid | FUTEX_WAITERS);
    let stored = store(word, new);
    if let Some(waiter) = chosen {
        let outcome = if stored.is_ok() { &waiter.granted } else { &waiter.retry };
        outcome.store(true, Ordering::Release);
        waiter.thread.wake();
    } else {
        wake_one(caller, &key);
    }
    stored
}

fn store(word: usize, new: u32) -> Result<()> {
    let mut old = user::load_u32(word)?;
    loop {
        let seen = user::compare_exchange_u32(word, old, new)?;
        if seen == old {
            return Ok(());
        }
        old = seen;
    }
}

/// Makes one waiter, if there is any, try again: the lock is free.
fn wake_one(caller: &Caller, key: &Key) {
    if let Some(waiter) = choose(caller, key) {
        waiter.retry.store(true, Ordering::Release);
        waiter.thread.wake();
    }
}

/// The owner of the lock at `word` has died, and the word says so.
pub(super) fn owner_died(space: &AddressSpace, tid: u32, word: usize) -> Result<()> {
    // Nothing is lent to the dead, nor before the next owner has taken the lock.
    let caller = Caller { space, tid, thread: &|_| None };
    // The word does not say whether its users share it with other processes.
    for shared in [false, true] {
        wake_one(&caller, &key_of(space, word, shared)?);
    }
    Ok(())
}
