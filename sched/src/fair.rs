//! The fair class: SCHED_OTHER, BATCH and IDLE share the processor in proportion to their weights.
//!
//! Each thread has a virtual run time that advances more slowly the higher its weight; the one that is furthest behind runs next
//! (Linux's CFS; Stoica and Abdel-Wahab's EEVDF report gives the theory). Pure bookkeeping: time comes in as an argument.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use base::Nanos;

use crate::thread::{Policy, Thread};

/// How long a thread may run when others wait.
pub(crate) const SLICE: Nanos = 3_000_000;
/// How much further behind a thread must be that preempts the running one when it wakes.
pub(crate) const WAKEUP_GRANULARITY: Nanos = 1_000_000;
/// The weight of nice 0.
const NICE_0: u64 = 1024;
/// SCHED_IDLE's.
const IDLE_WEIGHT: u64 = 3;

/// Each step of the nice value is worth a factor of 1.25.
const WEIGHTS: [u64; 40] = {
    let mut table = [0; 40];
    // From nice 0 in both directions, in 1/2^16.
    let (mut up, mut down) = (NICE_0 << 16, NICE_0 << 16);
    let mut step = 0;
    while step <= 20 {
        if step < 20 {
            table[20 + step] = (down + (1 << 15)) >> 16;
        }
        table[20 - step] = (up + (1 << 15)) >> 16;
        up = up * 5 / 4;
        down = down * 4 / 5;
        step += 1;
    }
    table
};

/// The weight of a thread with this policy and nice value.
pub(crate) fn weight(policy: Policy, nice: i8) -> u64 {
    match policy {
        Policy::Idle => IDLE_WEIGHT,
        _ => WEIGHTS[usize::try_from(i32::from(nice) + 20).unwrap_or(20).min(39)],
    }
}

/// How far `run` nanoseconds advance a virtual run time.
pub(crate) fn virtual_time(run: Nanos, weight: u64) -> Nanos {
    if weight == NICE_0 { run } else { (u128::from(run) * u128::from(NICE_0) / u128::from(weight.max(1))) as Nanos }
}

/// The ready threads of one processor, without the running one.
pub(crate) struct FairQueue {
    ready: BTreeMap<(Nanos, u64), Arc<Thread>>,
    /// Only grows: no ready thread's virtual run time is far below it.
    pub(crate) min: Nanos,
}

impl FairQueue {
    pub(crate) const fn new() -> FairQueue {
        FairQueue { ready: BTreeMap::new(), min: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.ready.len()
    }

    pub(crate) fn push(&mut self, vruntime: Nanos, thread: Arc<Thread>) {
        self.ready.insert((vruntime, thread.number()), thread);
    }

    /// Takes the thread that is furthest behind of those that `wanted` accepts.
    pub(crate) fn pop(&mut self, wanted: impl Fn(&Thread) -> bool) -> Option<Arc<Thread>> {
        let first = self.ready.first_entry()?;
        let ((vruntime, _), thread) = if wanted(first.get()) {
            first.remove_entry()
        } else {
            let key = *self.ready.iter().find(|(_, thread)| wanted(thread))?.0;
            self.ready.remove_entry(&key)?
        };
        self.min = self.min.max(vruntime);
        Some(thread)
    }

    /// The least virtual run time in the queue.
    pub(crate) fn first(&self) -> Option<Nanos> {
        self.ready.first_key_value().map(|(key, _)| key.0)
    }

    pub(crate) fn remove(&mut self, vruntime: Nanos, number: u64) -> Option<Arc<Thread>> {
        self.ready.remove(&(vruntime, number))
    }

    /// The thread that is least behind of those that `wanted` accepts: the one to give to another processor.
    pub(crate) fn find_last(&self, wanted: impl Fn(&Thread) -> bool) -> Option<Arc<Thread>> {
        self.ready.values().rev().find(|thread| wanted(thread)).cloned()
    }

    /// Notes how far the running thread is, so that `min` also advances while nobody leaves the queue.
    pub(crate) fn advance(&mut self, running: Nanos) {
        let least = self.first().map_or(running, |first| first.min(running));
        self.min = self.min.max(least);
    }

    /// Where a thread that slept, or comes from another processor with another idea of time, enters: not so far behind that it could run
    /// for long before the others, nor so far ahead that it would not run for long.
    pub(crate) fn place(&self, vruntime: Nanos, weight: u64) -> Nanos {
        vruntime.clamp(self.min.saturating_sub(SLICE), self.min + virtual_time(2 * SLICE, weight))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_those_of_the_nice_levels() {
        assert_eq!(weight(Policy::Other, 0), 1024);
        assert_eq!(weight(Policy::Other, 19), 15);
        assert_eq!(weight(Policy::Other, 1), 819);
        assert!((88_000..90_000).contains(&weight(Policy::Other, -20)));
        assert_eq!(weight(Policy::Idle, -20), 3);
    }

    #[test]
    fn a_thread_from_a_processor_far_ahead_is_not_starved() {
        let mut queue = FairQueue::new();
        queue.advance(1_000);
        assert_eq!(queue.place(u64::MAX / 2, 1024), 1_000 + 2 * SLICE);
        queue.advance(500_000_000);
        assert_eq!(queue.place(0, 1024), 500_000_000 - SLICE);
        queue.advance(1);
        assert_eq!(queue.min, 500_000_000, "time does not go back");
    }

    #[test]
    fn virtual_time_runs_slower_with_more_weight() {
        assert_eq!(virtual_time(1000, 1024), 1000);
        assert_eq!(virtual_time(1000, 2048), 500);
        assert_eq!(virtual_time(1000, 512), 2000);
    }
}
