//! Memory that is promised: private memory that programs may write, whether they have touched it or not. `vm.overcommit_memory` says how
//! much of it there may be (Linux's mm/overcommit-accounting documentation).

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use base::{Errno, Result};

use crate::frames;

/// `vm.overcommit_memory` 0: only what could never be there is refused.
pub const GUESS: u64 = 0;
/// 1: nothing is refused.
pub const ALWAYS: u64 = 1;
/// 2: no more than [`limit`] is promised.
pub const NEVER: u64 = 2;

/// `vm.overcommit_memory`.
pub static POLICY: AtomicU64 = AtomicU64::new(GUESS);
/// `vm.overcommit_ratio`: percent of memory that may be promised under [`NEVER`].
pub static RATIO: AtomicU64 = AtomicU64::new(50);
/// `vm.overcommit_kbytes`: the same in KiB; the ratio counts while it is 0.
pub static KBYTES: AtomicU64 = AtomicU64::new(0);
/// `vm.admin_reserve_kbytes`: KiB that [`NEVER`] keeps back.
pub static ADMIN_RESERVE: AtomicU64 = AtomicU64::new(8192);
/// `vm.user_reserve_kbytes`: KiB that [`NEVER`] keeps back from a process, or a 32nd of what it has if that is less.
pub static USER_RESERVE: AtomicU64 = AtomicU64::new(131_072);

/// Bytes.
static PROMISED: AtomicUsize = AtomicUsize::new(0);

/// Bytes promised to all processes, with the shared memory that is there (`Committed_AS`).
pub fn promised() -> u64 {
    PROMISED.load(Ordering::Relaxed) as u64 + frames::stats().shmem
}

/// Bytes that may be promised under [`NEVER`] (`CommitLimit`).
pub fn limit() -> u64 {
    match KBYTES.load(Ordering::Relaxed) {
        0 => frames::total_bytes() / 100 * RATIO.load(Ordering::Relaxed).min(u64::from(u32::MAX)),
        kbytes => kbytes.saturating_mul(1024),
    }
}

/// May `more` bytes be promised to a process whose mappings have `total` bytes? `ENOMEM`.
pub(crate) fn check(more: usize, total: usize) -> Result<()> {
    let more = more as u64;
    let fits = match POLICY.load(Ordering::Relaxed) {
        ALWAYS => true,
        NEVER => {
            let kept = |setting: &AtomicU64| setting.load(Ordering::Relaxed).saturating_mul(1024);
            let reserve = kept(&ADMIN_RESERVE) + kept(&USER_RESERVE).min(total as u64 / 32);
            promised() + more < limit().saturating_sub(reserve)
        }
        _ => more <= frames::total_bytes(),
    };
    if fits { Ok(()) } else { Err(Errno::ENOMEM) }
}

/// Is memory mapped with MAP_NORESERVE (if `no_reserve`) promised?
pub(crate) fn is_promised(no_reserve: bool) -> bool {
    !no_reserve || POLICY.load(Ordering::Relaxed) == NEVER
}

/// What is promised to one address space, in bytes: counted for all as long as it lives.
#[derive(Default)]
pub(crate) struct Promise(usize);

impl Promise {
    /// Bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.0
    }

    pub(crate) fn change(&mut self, bytes: usize, comes: bool) {
        if comes {
            self.0 += bytes;
            PROMISED.fetch_add(bytes, Ordering::Relaxed);
        } else {
            let bytes = bytes.min(self.0);
            self.0 -= bytes;
            PROMISED.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Clone for Promise {
    fn clone(&self) -> Promise {
        let mut promise = Promise::default();
        promise.change(self.0, true);
        promise
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.change(self.0, false);
    }
}

/// Mappings that a process may have at most (`vm.max_map_count`).
pub static MAX_MAPPINGS: AtomicU64 = AtomicU64::new(65530);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_promised_than_the_limit() {
        POLICY.store(NEVER, Ordering::Relaxed);
        KBYTES.store(1 << 20, Ordering::Relaxed);
        USER_RESERVE.store(0, Ordering::Relaxed);
        ADMIN_RESERVE.store(0, Ordering::Relaxed);
        let before = PROMISED.load(Ordering::Relaxed);
        let mut promise = Promise::default();
        assert_eq!(check(512 << 20, 0), Ok(()));
        promise.change(600 << 20, true);
        let copy = promise.clone();
        assert_eq!(check(1 << 20, 0), Err(Errno::ENOMEM));
        drop(copy);
        assert_eq!((check(512 << 20, 0), check(256 << 20, 0)), (Err(Errno::ENOMEM), Ok(())));
        promise.change(700 << 20, false);
        assert_eq!(PROMISED.load(Ordering::Relaxed), before);
        POLICY.store(ALWAYS, Ordering::Relaxed);
        assert_eq!(check(usize::MAX / 2, 0), Ok(()));
        POLICY.store(GUESS, Ordering::Relaxed);
    }
}
