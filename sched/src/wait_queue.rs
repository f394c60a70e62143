//! Wait queues: threads (and pollers) that wait for a condition on something shared.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::AtomicUsize;

use base::{Events, Nanos};
use hal::sync::SpinLock;

use crate::presence::Presence;
use crate::thread::{Thread, current};
use crate::{Sleep, SleepEnd, WaitError};

/// Told when something that it registered for may have happened. Called under the queue's lock with interrupts off: it must neither
/// sleep nor wait on the same queue.
pub trait Notify: Send + Sync {
    /// `events` may have become ready. True if a waiter was woken by it (an exclusive entry then ends a `wake_one`).
    fn notify(&self, events: Events) -> bool;
}

enum Waiter {
    Thread(Arc<Thread>),
    Notify(Arc<dyn Notify>),
}

struct Entry {
    waiter: Waiter,
    /// Only one of the exclusive entries is woken at a time.
    exclusive: bool,
}

/// A queue of waiters. The condition itself is the caller's: it is tested after the waiter is queued, so no wake-up is lost.
pub struct WaitQueue {
    /// How many entries there are, so that waking an empty queue takes no lock.
    present: Presence,
    entries: SpinLock<VecDeque<Entry>>,
}

impl WaitQueue {
    /// An empty queue.
    #[cfg_attr(feature = "lockdep", track_caller)]
    pub const fn new() -> WaitQueue {
        WaitQueue { present: Presence::new(AtomicUsize::new(0)), entries: SpinLock::new(VecDeque::new()) }
    }

    /// As [`WaitQueue::new`], for queues whose [`Notify`] wakes others of the same kind, never in a circle.
    #[cfg_attr(feature = "lockdep", track_caller)]
    pub const fn ranked(rank: u8) -> WaitQueue {
        WaitQueue { present: Presence::new(AtomicUsize::new(0)), entries: SpinLock::ranked(rank, VecDeque::new()) }
    }

    /// Sleeps until `condition` gives a value. It is called first of all without queueing, then each time the queue is woken.
    /// `how` says what may end the sleep early; `deadline` is on the monotonic clock.
    #[cfg_attr(feature = "lockdep", track_caller)]
    pub fn wait_until<R>(
        &self,
        how: Sleep,
        deadline: Option<Nanos>,
        condition: impl FnMut() -> Option<R>,
    ) -> Result<R, WaitError> {
        self.wait(how, deadline, false, condition)
    }

    /// As [`WaitQueue::wait_until`], but `wake_one` wakes one of such waiters only.
    #[cfg_attr(feature = "lockdep", track_caller)]
    pub fn wait_exclusive<R>(
        &self,
        how: Sleep,
        deadline: Option<Nanos>,
        condition: impl FnMut() -> Option<R>,
    ) -> Result<R, WaitError> {
        self.wait(how, deadline, true, condition)
    }

    #[cfg_attr(feature = "lockdep", track_caller)]
    fn wait<R>(
        &self,
        how: Sleep,
        deadline: Option<Nanos>,
        exclusive: bool,
        mut condition: impl FnMut() -> Option<R>,
    ) -> Result<R, WaitError> {
        hal::sync::lockdep::may_sleep();
        if let Some(value) = condition() {
            return Ok(value);
        }
        let me = current();
        loop {
            me.prepare_to_sleep(how);
            self.push(Entry { waiter: Waiter::Thread(me.clone()), exclusive });
            if let Some(value) = condition() {
                me.cancel_sleep();
                self.remove_thread(&me);
                return Ok(value);
            }
            let end = me.sleep(deadline);
            let still_queued = self.remove_thread(&me);
            if let Some(value) = condition() {
                return Ok(value);
            }
            match end {
                SleepEnd::Woken => {}
                SleepEnd::TimedOut | SleepEnd::Interrupted => {
                    // A wake-up meant for one waiter reached us as we gave up: pass it on.
                    if exclusive && !still_queued {
                        self.wake_one();
                    }
                    return Err(if end == SleepEnd::TimedOut { WaitError::TimedOut } else { WaitError::Interrupted });
                }
            }
        }
    }

    fn push(&self, entry: Entry) {
        let mut entries = self.entries.lock_irq();
        if entry.exclusive {
            entries.push_back(entry)
        } else {
            entries.push_front(entry)
        }
        self.present.arrive(entries.len());
    }

    fn remove_thread(&self, thread: &Arc<Thread>) -> bool {
        self.remove(|w| matches!(w, Waiter::Thread(t) if Arc::ptr_eq(t, thread)))
    }

    fn remove(&self, matches: impl Fn(&Waiter) -> bool) -> bool {
        let mut entries = self.entries.lock_irq();
        // Who has waited longest often leaves first.
        let last = entries.len().wrapping_sub(1);
        let at_end = entries.back().is_some_and(|e| matches(&e.waiter));
        let found = if at_end { Some(last) } else { entries.iter().position(|e| matches(&e.waiter)) };
        let removed = found.and_then(|i| entries.remove(i));
        self.present.leave(entries.len());
        drop(entries);
        removed.is_some()
    }

    /// Registers a poller until [`WaitQueue::unregister`]. It stays queued when notified.
    pub fn register(&self, notify: Arc<dyn Notify>, exclusive: bool) {
        self.push(Entry { waiter: Waiter::Notify(notify), exclusive });
    }

    /// Takes a poller out again; false if it was not registered.
    pub fn unregister(&self, notify: &Arc<dyn Notify>) -> bool {
        self.remove(
            |w| matches!(w, Waiter::Notify(n) if Arc::as_ptr(n).cast::<()>() == Arc::as_ptr(notify).cast::<()>()),
        )
    }

    /// The threads that wait, for reports.
    pub fn threads(&self) -> Vec<Arc<Thread>> {
        let entries = self.entries.lock_irq();
        let thread = |entry: &Entry| match &entry.waiter {
            Waiter::Thread(thread) => Some(thread.clone()),
            Waiter::Notify(_) => None,
        };
        entries.iter().filter_map(thread).collect()
    }

    /// Is anybody queued? The caller changed the condition before.
    #[inline]
    pub fn has_waiters(&self) -> bool {
        self.present.anybody()
    }

    /// Wakes everyone that isn't exclusive, and one that is.
    #[inline]
    pub fn wake_one(&self) {
        self.wake_for(Events::all(), 1);
    }

    /// Wakes everyone.
    #[inline]
    pub fn wake_all(&self) {
        self.wake_for(Events::all(), usize::MAX);
    }

    /// Wakes everyone that isn't exclusive and up to `exclusive` that are; pollers learn which `events` it is about.
    #[inline]
    pub fn wake_for(&self, events: Events, exclusive: usize) {
        if self.has_waiters() {
            self.wake_slow(events, exclusive);
        }
    }

    fn wake_slow(&self, events: Events, mut exclusive: usize) {
        let mut entries = self.entries.lock_irq();
        let mut index = 0;
        while let Some(entry) = entries.get(index) {
            if entry.exclusive && exclusive == 0 {
                break;
            }
            let woken = match &entry.waiter {
                Waiter::Thread(thread) => thread.wake(),
                Waiter::Notify(notify) => notify.notify(events),
            };
            if entry.exclusive && woken {
                exclusive -= 1;
            }
            if matches!(entry.waiter, Waiter::Thread(_)) {
                entries.remove(index);
            } else {
                index += 1;
            }
        }
        self.present.leave(entries.len());
    }
}

impl Default for WaitQueue {
    #[cfg_attr(feature = "lockdep", track_caller)]
    fn default() -> Self {
        WaitQueue::new()
    }
}
