//! What threads read and write, as `/proc/PID/io` and getrusage(2) count it (proc(5)).

use core::sync::atomic::{AtomicU64, Ordering};

use crate::thread::{self, with_current};

/// Sums of what was moved.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Transfers {
    /// Bytes that calls like read(2) gave.
    pub chars_read: u64,
    /// Bytes that calls like write(2) took.
    pub chars_written: u64,
    /// Such reads.
    pub reads: u64,
    /// Such writes.
    pub writes: u64,
    /// Bytes asked of storage.
    pub from_storage: u64,
    /// Bytes that storage will get.
    pub to_storage: u64,
    /// Bytes of those that it won't, because they were given up before.
    pub cancelled: u64,
}

impl Transfers {
    /// Nothing.
    pub const NONE: Transfers = Transfers {
        chars_read: 0,
        chars_written: 0,
        reads: 0,
        writes: 0,
        from_storage: 0,
        to_storage: 0,
        cancelled: 0,
    };
}

impl core::ops::AddAssign for Transfers {
    fn add_assign(&mut self, other: Transfers) {
        self.chars_read += other.chars_read;
        self.chars_written += other.chars_written;
        self.reads += other.reads;
        self.writes += other.writes;
        self.from_storage += other.from_storage;
        self.to_storage += other.to_storage;
        self.cancelled += other.cancelled;
    }
}

/// A sum that only its own thread adds to, and others may read.
#[derive(Default)]
struct Counter(AtomicU64);

impl Counter {
    #[inline]
    fn add(&self, amount: usize) {
        self.0.store(self.0.load(Ordering::Relaxed) + amount as u64, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The sums of a thread.
#[derive(Default)]
pub(crate) struct Counters {
    chars_read: Counter,
    chars_written: Counter,
    reads: Counter,
    writes: Counter,
    from_storage: Counter,
    to_storage: Counter,
    cancelled: Counter,
}

impl Counters {
    pub(crate) fn sums(&self) -> Transfers {
        Transfers {
            chars_read: self.chars_read.get(),
            chars_written: self.chars_written.get(),
            reads: self.reads.get(),
            writes: self.writes.get(),
            from_storage: self.from_storage.get(),
            to_storage: self.to_storage.get(),
            cancelled: self.cancelled.get(),
        }
    }
}

/// Counts for the running thread, if one runs yet.
#[inline]
fn count(add: impl FnOnce(&Counters)) {
    if thread::is_running() {
        with_current(|thread| add(&thread.transfers));
    }
}

/// A call like read(2) gave so many bytes.
#[inline]
pub fn read_call(bytes: usize) {
    count(|sums| {
        sums.reads.add(1);
        sums.chars_read.add(bytes);
    });
}

/// A call like write(2) took so many bytes.
#[inline]
pub fn write_call(bytes: usize) {
    count(|sums| {
        sums.writes.add(1);
        sums.chars_written.add(bytes);
    });
}

/// So many bytes are asked of storage.
pub fn from_storage(bytes: usize) {
    count(|sums| sums.from_storage.add(bytes));
}

/// So many bytes will go to storage.
pub fn to_storage(bytes: usize) {
    count(|sums| sums.to_storage.add(bytes));
}

/// So many bytes won't go to storage after all.
pub fn cancelled(bytes: usize) {
    count(|sums| sums.cancelled.add(bytes));
}

/// What the running thread has asked of storage so far, in bytes.
pub fn asked_of_storage() -> u64 {
    with_current(|thread| thread.transfers.from_storage.get())
}
