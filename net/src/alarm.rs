//! Timers of the network: a queue that the network's thread works off, so that what expires runs in a thread and may take plain locks.
//!
//! An alarm is set lazily: one that is moved later stays where it is, and its owner finds out when it rings too early. A connection that is in use
//! moves its retransmission timer with every segment, and touches the queue a few times a second.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use base::Nanos;
use hal::sync::{Once, SpinLock};
use sched::timer::Timer;

use crate::worker;

/// Who has alarms.
pub(crate) trait Rings: Send + Sync {
    /// The alarm rings. In the network's thread, without locks held.
    fn ring(self: Arc<Self>, now: Nanos);
}

static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);
static QUEUE: SpinLock<BTreeMap<(Nanos, u64), Arc<dyn Rings>>> = SpinLock::new(BTreeMap::new());
static TIMER: Once<Arc<Timer>> = Once::new();

/// One owner's alarm.
pub(crate) struct Alarm {
    number: u64,
    /// When it is queued for; 0 if it is not.
    at: AtomicU64,
}

impl Default for Alarm {
    fn default() -> Alarm {
        Alarm { number: NEXT_NUMBER.fetch_add(1, Ordering::Relaxed), at: AtomicU64::new(0) }
    }
}

impl Alarm {
    /// Sees to it that the owner is called at `at` or before. The owner's own lock is held, so that calls don't cross.
    pub(crate) fn set(&self, at: Option<Nanos>, owner: impl FnOnce() -> Option<Arc<dyn Rings>>) {
        let Some(at) = at.map(|at| at.max(1)) else { return };
        let queued = self.at.load(Ordering::Relaxed);
        if queued != 0 && queued <= at {
            return;
        }
        let Some(owner) = owner() else { return };
        let mut queue = QUEUE.lock();
        if queued != 0 {
            queue.remove(&(queued, self.number));
        }
        self.at.store(at, Ordering::Relaxed);
        queue.insert((at, self.number), owner);
        let first = queue.first_key_value().map(|(key, _)| *key);
        drop(queue);
        if first == Some((at, self.number)) {
            program(at);
        }
    }

    /// Takes it out of the queue.
    pub(crate) fn cancel(&self) {
        let at = self.at.swap(0, Ordering::Relaxed);
        if at != 0 {
            let removed = QUEUE.lock().remove(&(at, self.number));
            drop(removed);
        }
    }

    /// It has rung: it is not queued any more. For the owner's `ring`, under its lock, before it is set anew.
    pub(crate) fn rung(&self, now: Nanos) {
        if self.at.load(Ordering::Relaxed) <= now {
            self.at.store(0, Ordering::Relaxed);
        }
    }
}

fn program(at: Nanos) {
    let timer = TIMER.get_or_init(|| {
        Timer::new(alloc::boxed::Box::new(|_| {
            worker::wake(worker::ALARMS);
            None
        }))
    });
    timer.arm(at);
}

/// Calls the owners of what is due, and sets the timer to the next.
pub(crate) fn work_off(now: Nanos) {
    loop {
        let mut queue = QUEUE.lock();
        match queue.first_entry() {
            Some(first) if first.key().0 <= now => {
                let owner = first.remove();
                drop(queue);
                owner.ring(now);
                // However many ring: this thread is not preempted otherwise.
                sched::preempt_point();
            }
            Some(first) => {
                let at = first.key().0;
                drop(queue);
                program(at);
                return;
            }
            None => return,
        }
    }
}
