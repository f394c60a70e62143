//! What a disk or partition has done, as `/proc/diskstats` counts it.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use base::Nanos;
use dev::BlockOp;
use hal::sync::SpinLock;

/// The kinds of requests that are counted apart, in the order of `/proc/diskstats`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Read = 0,
    Write = 1,
    Discard = 2,
    Flush = 3,
}

impl Kind {
    pub(crate) fn of(op: BlockOp) -> Kind {
        match op {
            BlockOp::Read => Kind::Read,
            BlockOp::Write | BlockOp::WriteZeroes => Kind::Write,
            BlockOp::Discard => Kind::Discard,
            BlockOp::Flush => Kind::Flush,
        }
    }
}

/// Counts of one kind.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) requests: AtomicU64,
    pub(crate) merges: AtomicU64,
    pub(crate) sectors: AtomicU64,
    /// Nanoseconds from being submitted to being done, summed.
    pub(crate) time: AtomicU64,
}

/// The counts of a device.
#[derive(Default)]
pub(crate) struct Statistics {
    pub(crate) kinds: [Counts; 4],
    pub(crate) errors: AtomicU64,
    under_way: AtomicUsize,
    /// Since when something is under way, and for how long something was before.
    busy: SpinLock<(Nanos, Nanos)>,
    /// A partition's requests are its disk's as well.
    disk: Option<Arc<Statistics>>,
}

impl Statistics {
    pub(crate) fn of_partition(disk: &Arc<Statistics>) -> Statistics {
        Statistics { disk: Some(disk.clone()), ..Statistics::default() }
    }

    pub(crate) fn begin(&self, now: Nanos) {
        if let Some(disk) = &self.disk {
            disk.begin(now);
        }
        let mut busy = self.busy.lock_irq();
        if self.under_way.fetch_add(1, Ordering::Relaxed) == 0 {
            busy.0 = now;
        }
    }

    pub(crate) fn merged(&self, op: BlockOp) {
        if let Some(disk) = &self.disk {
            disk.merged(op);
        }
        self.kinds[Kind::of(op) as usize].merges.fetch_add(1, Ordering::Relaxed);
    }

    /// A part of a request is done; the first of each counts as the request.
    pub(crate) fn end(&self, op: BlockOp, sectors: u64, took: Nanos, is_first: bool, failed: bool) {
        if let Some(disk) = &self.disk {
            disk.end(op, sectors, took, is_first, failed);
        }
        let counts = &self.kinds[Kind::of(op) as usize];
        counts.sectors.fetch_add(sectors, Ordering::Relaxed);
        if is_first {
            counts.requests.fetch_add(1, Ordering::Relaxed);
            counts.time.fetch_add(took, Ordering::Relaxed);
        }
        self.errors.fetch_add(u64::from(failed), Ordering::Relaxed);
        let now = sched::time::now();
        let mut busy = self.busy.lock_irq();
        if self.under_way.fetch_sub(1, Ordering::Relaxed) == 1 {
            busy.1 += now.saturating_sub(busy.0);
        }
    }

    pub(crate) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// For how long something was under way, until now.
    pub(crate) fn busy(&self, now: Nanos) -> Nanos {
        let busy = self.busy.lock_irq();
        busy.1 + if self.under_way() > 0 { now.saturating_sub(busy.0) } else { 0 }
    }
}
