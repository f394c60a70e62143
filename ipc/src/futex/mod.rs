//! Futexes: sleeping on a word of user memory, and waking who sleeps on it (futex(2)).
//!
//! A waiter first joins the queue of its word, then reads the word: the waker changes the word first and looks into the queue after, so one
//! of them sees the other. Queues hang off a table of buckets, each with a spin lock; user memory is never touched under one.
//! Lock order: bucket (by index) -> sched.

mod operation;
pub mod pi;
pub mod robust;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base::{Errno, Nanos, Result};
use hal::sync::{SpinGuard, SpinLock};
use hal::user;
use mm::AddressSpace;
use sched::{Sleep, SleepEnd, Thread};

pub use operation::WakeOperation;

/// What identifies a word: the object it is in, the page, the offset in it.
type Key = (usize, u64, u32);

const BUCKETS: usize = 256;
type Bucket = SpinLock<VecDeque<Arc<Waiter>>>;
/// A bucket that is locked.
type Locked = SpinGuard<'static, VecDeque<Arc<Waiter>>>;
static TABLE: [Bucket; BUCKETS] = [const { SpinLock::new(VecDeque::new()) }; BUCKETS];

/// A thread that waits on a word.
struct Waiter {
    thread: Arc<Thread>,
    /// The address that it waits at, in its own memory.
    word: usize,
    /// Changes when it is requeued, under the locks of both buckets.
    key: SpinLock<Key>,
    bucket: AtomicUsize,
    /// It wakes for a wake-up that shares a bit with these.
    bits: u32,
    /// It waits to be moved to this lock (FUTEX_WAIT_REQUEUE_PI).
    lock: Option<Key>,
    woken: AtomicBool,
}

fn bucket_of(key: &Key) -> usize {
    let (object, page, offset) = *key;
    let mixed = (object as u64 >> 4)
        ^ page.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ u64::from(offset >> 2).wrapping_mul(0xc2b2_ae35);
    (mixed ^ mixed >> 29 ^ mixed >> 13) as usize % BUCKETS
}

/// One word to wait for.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// Its address.
    pub word: usize,
    /// What it must hold, else `EAGAIN`.
    pub value: u32,
    /// The bits to wait for, not 0.
    pub bits: u32,
    /// It may be in memory that other processes share.
    pub shared: bool,
}

impl Waiter {
    /// Queues the calling thread.
    fn enqueue(space: &AddressSpace, thread: &Arc<Thread>, wait: &Wait, lock: Option<Key>) -> Result<Arc<Waiter>> {
        let key = space.futex_key(wait.word, !wait.shared)?;
        let index = bucket_of(&key);
        let waiter = Arc::new(Waiter {
            thread: thread.clone(),
            word: wait.word,
            key: SpinLock::new(key),
            bucket: AtomicUsize::new(index),
            bits: wait.bits,
            lock,
            woken: AtomicBool::new(false),
        });
        let mut queue = TABLE[index].lock();
        queue.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        queue.push_back(waiter.clone());
        Ok(waiter)
    }

    /// Takes it out of its queue; false if a waker did so before.
    fn dequeue(self: &Arc<Waiter>) -> bool {
        loop {
            let index = self.bucket.load(Ordering::Acquire);
            let mut queue = TABLE[index].lock();
            if self.bucket.load(Ordering::Acquire) != index {
                continue;
            }
            let at = queue.iter().position(|other| Arc::ptr_eq(other, self));
            let removed = at.and_then(|at| queue.remove(at));
            return removed.is_some();
        }
    }

    fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }

    /// Wakes it; it has been taken out of its queue.
    fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        self.thread.wake();
    }
}

/// Who waits at this moment, and at which address. Locks with an owner are in [`pi::waits`].
pub fn waits() -> Vec<(Arc<Thread>, usize)> {
    let mut waits = Vec::new();
    for bucket in &TABLE {
        waits.extend(bucket.lock().iter().map(|waiter| (waiter.thread.clone(), waiter.word)));
    }
    waits
}

/// FUTEX_WAIT and FUTEX_WAIT_BITSET: sleeps until woken, at most until `deadline` on the monotonic clock.
/// `EAGAIN` (the word holds something else), `ETIMEDOUT`, `ERESTARTSYS`, `EFAULT`, `EINVAL` (not aligned).
pub fn wait(space: &AddressSpace, wait: &Wait, deadline: Option<Nanos>) -> Result<()> {
    wait_for(space, wait, None, deadline)
}

/// [`wait`], to be woken or (with `lock`) to be moved to a lock.
fn wait_for(space: &AddressSpace, wait: &Wait, lock: Option<Key>, deadline: Option<Nanos>) -> Result<()> {
    let thread = sched::current();
    let waiter = Waiter::enqueue(space, &thread, wait, lock)?;
    match user::load_u32(wait.word) {
        Ok(value) if value == wait.value => {}
        other => {
            give_up(space, &waiter, wait);
            return Err(other.err().unwrap_or(Errno::EAGAIN));
        }
    }
    let end = sleep(&thread, deadline, || waiter.is_woken());
    if waiter.is_woken() || !waiter.dequeue() {
        return Ok(());
    }
    Err(if end == SleepEnd::TimedOut { Errno::ETIMEDOUT } else { Errno::ERESTARTSYS })
}

/// Leaves the queue without having slept. A wake-up that came meanwhile belongs to another waiter.
fn give_up(space: &AddressSpace, waiter: &Arc<Waiter>, wait: &Wait) {
    if !waiter.dequeue() {
        let _ = wake(space, wait.word, wait.shared, 1, wait.bits);
    }
}

fn sleep(thread: &Arc<Thread>, deadline: Option<Nanos>, woken: impl Fn() -> bool) -> SleepEnd {
    loop {
        thread.prepare_to_sleep(Sleep::Interruptible);
        if woken() {
            thread.cancel_sleep();
            return SleepEnd::Woken;
        }
        let end = thread.sleep(deadline);
        if end != SleepEnd::Woken || woken() {
            return end;
        }
    }
}

/// futex_waitv(2): sleeps until one of the words is woken; its index. Errors as [`wait`].
pub fn wait_many(space: &AddressSpace, waits: &[Wait], deadline: Option<Nanos>) -> Result<usize> {
    let thread = sched::current();
    let mut waiters: Vec<Arc<Waiter>> = Vec::new();
    waiters.try_reserve_exact(waits.len()).map_err(|_| Errno::ENOMEM)?;
    let mut failed = None;
    for wait in waits {
        match Waiter::enqueue(space, &thread, wait, None) {
            Ok(waiter) => waiters.push(waiter),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
        match user::load_u32(wait.word) {
            Ok(value) if value == wait.value => {}
            other => {
                failed = Some(other.err().unwrap_or(Errno::EAGAIN));
                break;
            }
        }
    }
    let any = || waiters.iter().any(|waiter| waiter.is_woken());
    let end = if failed.is_none() { sleep(&thread, deadline, any) } else { SleepEnd::Woken };
    let mut first = None;
    for (index, waiter) in waiters.iter().enumerate() {
        if !waiter.dequeue() && first.is_none() {
            first = Some(index);
        }
    }
    match (first, failed) {
        (Some(index), _) => Ok(index),
        (None, Some(error)) => Err(error),
        (None, None) if end == SleepEnd::TimedOut => Err(Errno::ETIMEDOUT),
        (None, None) => Err(Errno::ERESTARTSYS),
    }
}

/// FUTEX_WAKE and FUTEX_WAKE_BITSET: wakes up to `count` waiters that share a bit with `bits`; how many. `EFAULT`, `EINVAL`.
pub fn wake(space: &AddressSpace, word: usize, shared: bool, count: usize, bits: u32) -> Result<usize> {
    let key = key_of(space, word, shared)?;
    let mut queue = TABLE[bucket_of(&key)].lock();
    wake_queued(&mut queue, &key, count, bits)
}

fn key_of(space: &AddressSpace, word: usize, shared: bool) -> Result<Key> {
    if !word.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    if !user::UserBuf::new(word, 4).in_user_half() {
        return Err(Errno::EFAULT);
    }
    space.futex_key(word, !shared)
}

/// `EINVAL` where the next to be woken waits to be moved to a lock.
fn wake_queued(queue: &mut VecDeque<Arc<Waiter>>, key: &Key, count: usize, bits: u32) -> Result<usize> {
    let (mut woken, mut index) = (0, 0);
    while woken < count {
        let Some(waiter) = queue.get(index) else { break };
        if *waiter.key.lock() == *key && waiter.bits & bits != 0 {
            if waiter.lock.is_some() {
                return Err(Errno::EINVAL);
            }
            if let Some(waiter) = queue.remove(index) {
                waiter.wake();
            }
            woken += 1;
        } else {
            index += 1;
        }
    }
    Ok(woken)
}

/// Checks under the buckets' locks that the word holds `expected`: false where its page has to be brought in first. `EAGAIN` if it
/// holds something else.
fn holds(word: usize, expected: u32) -> Result<bool> {
    // With interrupts off a missing page is not waited for.
    let _irq = hal::irq::disable();
    match user::load_u32(word) {
        Ok(value) if value == expected => Ok(true),
        Ok(_) => Err(Errno::EAGAIN),
        Err(_) => Ok(false),
    }
}

/// Locks the buckets of two words when the first of these holds `expected`, if that is given. `EAGAIN`, `EFAULT`.
fn lock_expecting(word: usize, expected: Option<u32>, a: usize, b: usize) -> Result<(Locked, Option<Locked>)> {
    loop {
        let locked = lock_both(a, b);
        match expected {
            Some(expected) if !holds(word, expected)? => {
                drop(locked);
                user::load_u32(word)?;
            }
            _ => return Ok(locked),
        }
    }
}

/// The locks of two buckets, taken in order; the second is `None` where both are the same.
fn lock_both(a: usize, b: usize) -> (Locked, Option<Locked>) {
    if a == b {
        return (TABLE[a].lock(), None);
    }
    if a < b {
        let first = TABLE[a].lock();
        let second = TABLE[b].lock();
        (first, Some(second))
    } else {
        let second = TABLE[b].lock();
        let first = TABLE[a].lock();
        (first, Some(second))
    }
}

/// FUTEX_REQUEUE and, with `expected`, FUTEX_CMP_REQUEUE: wakes up to `wake` waiters of `from` and moves up to `move_on` others to `to`.
/// How many were woken and moved. `EAGAIN` (the word holds something else), `EFAULT`, `EINVAL`.
pub fn requeue(
    space: &AddressSpace,
    (from, to): (usize, usize),
    shared: bool,
    (wake, move_on): (usize, usize),
    expected: Option<u32>,
) -> Result<usize> {
    let (from_key, to_key) = (key_of(space, from, shared)?, key_of(space, to, shared)?);
    let (from_index, to_index) = (bucket_of(&from_key), bucket_of(&to_key));
    let (mut source, mut target) = lock_expecting(from, expected, from_index, to_index)?;
    let woken = wake_queued(&mut source, &from_key, wake, u32::MAX)?;
    let (mut moved, mut index) = (0, 0);
    while moved < move_on {
        let Some(waiter) = source.get(index) else { break };
        if *waiter.key.lock() != from_key {
            index += 1;
            continue;
        }
        if waiter.lock.is_some() {
            return Err(Errno::EINVAL);
        }
        *waiter.key.lock() = to_key;
        waiter.bucket.store(to_index, Ordering::Release);
        match &mut target {
            Some(target) => {
                target.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
                target.extend(source.remove(index));
            }
            None => index += 1,
        }
        moved += 1;
    }
    Ok(woken + moved)
}

/// FUTEX_CMP_REQUEUE_PI: makes up to `count` of those that wait at `from` in [`pi::wait_requeue`] go on to the lock at `to`; how many.
/// `EAGAIN`, `EINVAL` (one waits for something else), `EFAULT`.
pub fn requeue_to_lock(
    space: &AddressSpace,
    (from, to): (usize, usize),
    shared: bool,
    count: usize,
    expected: u32,
) -> Result<usize> {
    let (from_key, to_key) = (key_of(space, from, shared)?, key_of(space, to, shared)?);
    if from_key == to_key {
        return Err(Errno::EINVAL);
    }
    let index = bucket_of(&from_key);
    let (mut source, _) = lock_expecting(from, Some(expected), index, index)?;
    let (mut moved, mut index) = (0, 0);
    while moved < count {
        let Some(waiter) = source.get(index) else { break };
        if *waiter.key.lock() != from_key {
            index += 1;
            continue;
        }
        if waiter.lock != Some(to_key) {
            return Err(Errno::EINVAL);
        }
        if let Some(waiter) = source.remove(index) {
            waiter.wake();
        }
        moved += 1;
    }
    Ok(moved)
}

/// FUTEX_WAKE_OP: changes the word at `second` as `operation` says, wakes up to `wake` waiters of `first` and, if the old value
/// compares as `operation` says, up to `wake_second` of `second`. How many. `EFAULT`, `EINVAL`, `ENOSYS` (unknown operation).
pub fn wake_operation(
    space: &AddressSpace,
    (first, second): (usize, usize),
    shared: bool,
    (count, count_second): (usize, usize),
    operation: WakeOperation,
) -> Result<usize> {
    key_of(space, first, shared)?;
    key_of(space, second, shared)?;
    let mut old = user::load_u32(second)?;
    loop {
        let seen = user::compare_exchange_u32(second, old, operation.apply(old)?)?;
        if seen == old {
            break;
        }
        old = seen;
    }
    let mut woken = wake(space, first, shared, count, u32::MAX)?;
    if operation.compare(old)? {
        woken += wake(space, second, shared, count_second, u32::MAX)?;
    }
    Ok(woken)
}
