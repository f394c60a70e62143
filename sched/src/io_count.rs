//! How much each thread reads and writes: what `/proc/PID/io` shows (proc(5)). A thread counts for itself.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::thread::{RUNNING, with_current};

/// What is counted, in the order of `/proc/PID/io`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IoCount {
    /// Bytes that read calls have given, from wherever.
    ReadChars,
    /// Bytes that write calls have taken.
    WrittenChars,
    /// Read calls.
    Reads,
    /// Write calls.
    Writes,
    /// Bytes fetched from disks.
    ReadBytes,
    /// Bytes changed that disks will get.
    WrittenBytes,
    /// Of these, bytes that were thrown away before.
    CancelledBytes,
}

/// The number of counts.
pub const IO_COUNTS: usize = 7;

/// A thread's counts.
pub(crate) struct IoCells([AtomicU64; IO_COUNTS]);

impl IoCells {
    pub(crate) const fn new() -> IoCells {
        IoCells([const { AtomicU64::new(0) }; IO_COUNTS])
    }

    /// The counts now.
    pub(crate) fn get(&self) -> [u64; IO_COUNTS] {
        core::array::from_fn(|count| self.0[count].load(Ordering::Relaxed))
    }

    fn add(&self, count: IoCount, more: u64) {
        let cell = &self.0[count as usize];
        cell.store(cell.load(Ordering::Relaxed) + more, Ordering::Relaxed);
    }
}

/// Counts `more` for the running thread, if one runs.
#[inline]
pub fn count(count: IoCount, more: u64) {
    if RUNNING.is_set() {
        with_current(|thread| thread.io.add(count, more));
    }
}
