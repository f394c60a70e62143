//! The clock and the per-processor timer.

use crate::arch;

/// Nanoseconds since boot.
#[inline]
pub fn now() -> u64 {
    arch::tsc::now()
}

/// What to add to [`now`] for nanoseconds since 1970.
pub fn realtime_offset() -> u64 {
    arch::tsc::realtime_offset()
}

/// Sets what [`realtime_offset`] gives.
pub fn set_realtime_offset(offset: u64) {
    arch::tsc::set_realtime_offset(offset);
}

/// Sets this processor's timer: the timer hook runs once `deadline` has passed (or a little before, for deadlines far away), or never for `None`.
/// Interrupts are off.
pub fn set_timer(deadline: Option<u64>) {
    arch::tsc::set_timer(deadline);
}
