//! The real-time class: SCHED_FIFO and SCHED_RR, by priority, first come first served within one (sched(7)).

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use base::Nanos;

use crate::thread::Thread;

/// How long a SCHED_RR thread runs before others of its priority (sched_rr_timespec_interval's 100 ms).
pub(crate) const RR_SLICE: Nanos = 100_000_000;

/// How much of each [`PERIOD`] real-time threads may use of a processor that others want too (sched(7): sched_rt_runtime_us).
static RUNTIME: AtomicU64 = AtomicU64::new(950_000_000);
/// sched_rt_period_us.
static PERIOD: AtomicU64 = AtomicU64::new(1_000_000_000);

/// The limits of real-time threads in nanoseconds: what they may run, of which period.
pub fn limits() -> (Nanos, Nanos) {
    (RUNTIME.load(Ordering::Relaxed), PERIOD.load(Ordering::Relaxed))
}

/// Sets them; a runtime of a whole period is no limit. The period is not 0.
pub fn set_limits(runtime: Nanos, period: Nanos) {
    RUNTIME.store(runtime, Ordering::Relaxed);
    PERIOD.store(period.max(1), Ordering::Relaxed);
}

/// What real-time threads have used of a processor in the current period.
pub(crate) struct Throttle {
    since: Nanos,
    used: Nanos,
}

impl Throttle {
    pub(crate) const fn new() -> Throttle {
        Throttle { since: 0, used: 0 }
    }

    /// A real-time thread has run for `run` until `now`.
    pub(crate) fn account(&mut self, run: Nanos, now: Nanos) {
        self.roll(now);
        self.used += run;
    }

    /// Have they used all they may?
    pub(crate) fn is_over(&mut self, now: Nanos) -> bool {
        self.roll(now);
        let (runtime, period) = limits();
        runtime < period && self.used >= runtime
    }

    fn roll(&mut self, now: Nanos) {
        if now.saturating_sub(self.since) >= limits().1 {
            (self.since, self.used) = (now, 0);
        }
    }
}

/// The ready real-time threads of one processor, without the running one.
pub(crate) struct RtQueue {
    /// By priority, 1 to 99.
    levels: [VecDeque<Arc<Thread>>; 100],
    /// Bit n: level n has threads.
    used: u128,
    len: usize,
}

impl RtQueue {
    pub(crate) const fn new() -> RtQueue {
        RtQueue { levels: [const { VecDeque::new() }; 100], used: 0, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The highest priority that is ready; 0 if none.
    pub(crate) fn highest(&self) -> u8 {
        (127 - (self.used | 1).leading_zeros()) as u8
    }

    /// Adds a thread at the end of its level, or in front (a FIFO thread that was preempted).
    pub(crate) fn push(&mut self, priority: u8, thread: Arc<Thread>, in_front: bool) {
        let level = usize::from(priority.clamp(1, 99));
        if in_front {
            self.levels[level].push_front(thread)
        } else {
            self.levels[level].push_back(thread)
        }
        self.used |= 1 << level;
        self.len += 1;
    }

    /// Takes the first thread of the highest priority of those that `wanted` accepts.
    pub(crate) fn pop(&mut self, wanted: impl Fn(&Thread) -> bool) -> Option<Arc<Thread>> {
        let (level, at) = self.position(wanted)?;
        let thread = self.levels[level].remove(at)?;
        self.left(level);
        Some(thread)
    }

    /// The thread that [`RtQueue::pop`] would take.
    pub(crate) fn find(&self, wanted: impl Fn(&Thread) -> bool) -> Option<Arc<Thread>> {
        let (level, at) = self.position(wanted)?;
        self.levels[level].get(at).cloned()
    }

    /// Level and place in it.
    fn position(&self, wanted: impl Fn(&Thread) -> bool) -> Option<(usize, usize)> {
        let mut left = self.used;
        while left != 0 {
            let level = (127 - left.leading_zeros()) as usize;
            if let Some(at) = self.levels[level].iter().position(|t| wanted(t)) {
                return Some((level, at));
            }
            left &= !(1 << level);
        }
        None
    }

    pub(crate) fn remove(&mut self, priority: u8, number: u64) -> Option<Arc<Thread>> {
        let level = usize::from(priority.clamp(1, 99));
        let at = self.levels[level].iter().position(|t| t.number() == number)?;
        let thread = self.levels[level].remove(at)?;
        self.left(level);
        Some(thread)
    }

    fn left(&mut self, level: usize) {
        self.len -= 1;
        if self.levels[level].is_empty() {
            self.used &= !(1 << level);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_not_used_up_by_real_time_threads() {
        let mut throttle = Throttle::new();
        throttle.account(900_000_000, 900_000_000);
        assert!(!throttle.is_over(900_000_000));
        throttle.account(60_000_000, 960_000_000);
        assert!(throttle.is_over(960_000_000));
        assert!(!throttle.is_over(1_000_000_000), "a new period begins");
    }
}
