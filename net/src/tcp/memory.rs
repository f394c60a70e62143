//! What all connections together take: the memory of what they hold (`net.ipv4.tcp_mem`, tcp(7)), how many have no user any more
//! (`tcp_max_orphans`), and how many are in TIME_WAIT (`tcp_max_tw_buckets`).

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use abi::PAGE_SIZE;

use crate::statistics::{self, Counter};

/// Pages: what is never held back, from where on buffers do not grow, and from where on nothing is taken that can wait.
pub(crate) static LIMITS: [AtomicU32; 3] = [const { AtomicU32::new(u32::MAX) }; 3];
/// Connections in TIME_WAIT; those beyond end at once.
pub(crate) static TIME_WAITS_MAX: AtomicU32 = AtomicU32::new(8192);
/// Connections that were closed and are not over yet; those beyond are reset.
pub(crate) static ORPHANS_MAX: AtomicU32 = AtomicU32::new(8192);

static PAGES: AtomicUsize = AtomicUsize::new(0);
static TIME_WAITS: AtomicUsize = AtomicUsize::new(0);
static ORPHANS: AtomicUsize = AtomicUsize::new(0);

/// How scarce memory for connections is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Pressure {
    /// There is enough.
    #[default]
    None,
    /// Buffers do not grow.
    High,
    /// Nothing is taken that can wait.
    Full,
}

/// Sets the limits by the machine's memory, as Linux does: a sixteenth is where pressure begins.
pub(crate) fn init() {
    let pressure = (mm::frames::total_bytes() as usize / PAGE_SIZE / 16).max(128) as u32;
    let least = pressure / 4 * 3;
    for (limit, pages) in LIMITS.iter().zip([least, pressure, 2 * least]) {
        limit.store(pages, Ordering::Relaxed);
    }
}

/// Pages that connections hold.
pub(crate) fn pages() -> usize {
    PAGES.load(Ordering::Relaxed)
}

/// Connections without a user, those in TIME_WAIT not among them.
pub(crate) fn orphans() -> usize {
    ORPHANS.load(Ordering::Relaxed)
}

/// How scarce it is now.
pub(super) fn pressure() -> Pressure {
    let beyond = |limit: usize| pages() > LIMITS[limit].load(Ordering::Relaxed) as usize;
    match () {
        () if beyond(2) => Pressure::Full,
        () if beyond(1) => Pressure::High,
        () => Pressure::None,
    }
}

/// One connection's part of the sums. Given back when it is dropped.
#[derive(Default)]
pub(super) struct Share {
    pages: usize,
    time_wait: bool,
    orphan: bool,
}

impl Share {
    /// It holds so many bytes now.
    pub(super) fn set(&mut self, bytes: usize) {
        let more = self.resize(bytes);
        if more != 0 {
            PAGES.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// By how many pages the sum grows, modulo 2^64, now that it holds so many bytes.
    fn resize(&mut self, bytes: usize) -> usize {
        let pages = bytes.div_ceil(PAGE_SIZE);
        pages.wrapping_sub(core::mem::replace(&mut self.pages, pages))
    }

    /// Its user has gone; false if there are too many such.
    pub(super) fn enter_orphans(&mut self) -> bool {
        self.orphan = true;
        ORPHANS.fetch_add(1, Ordering::Relaxed) < ORPHANS_MAX.load(Ordering::Relaxed) as usize
    }

    fn leave_orphans(&mut self) {
        if core::mem::take(&mut self.orphan) {
            ORPHANS.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// It comes into TIME_WAIT; false if there are too many.
    pub(super) fn enter_time_wait(&mut self) -> bool {
        self.leave_orphans();
        statistics::add(Counter::TimeWaited, 1);
        self.time_wait = true;
        TIME_WAITS.fetch_add(1, Ordering::Relaxed) < TIME_WAITS_MAX.load(Ordering::Relaxed) as usize
    }

    /// Nothing more is held.
    pub(super) fn clear(&mut self) {
        self.set(0);
        self.leave_orphans();
        if core::mem::take(&mut self.time_wait) {
            TIME_WAITS.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other tests change the sums meanwhile, so this looks at one share's part of them.
    #[test]
    fn shares_are_given_back() {
        let mut share = Share::default();
        let steps = [1, PAGE_SIZE + 1, 3 * PAGE_SIZE, 0].map(|bytes| share.resize(bytes));
        assert_eq!(steps, [1, 1, 1, 0usize.wrapping_sub(3)]);
        share.set(5 * PAGE_SIZE);
        share.enter_orphans();
        assert!(share.orphan);
        share.enter_time_wait();
        assert!(!share.orphan && share.time_wait, "who waits is no orphan any more");
        share.clear();
        assert!(!share.time_wait && share.pages == 0);
    }
}
