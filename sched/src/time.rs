//! The clocks: monotonic (since boot) and real time (since 1970).

use base::Nanos;

/// Nanoseconds since boot: CLOCK_MONOTONIC and CLOCK_BOOTTIME.
#[inline]
pub fn now() -> Nanos {
    hal::clock::now()
}

/// Nanoseconds since 1970: CLOCK_REALTIME.
pub fn realtime() -> Nanos {
    hal::clock::now().wrapping_add(hal::clock::realtime_offset())
}

/// Sets the real-time clock; cancels and re-arms what depends on it. See [`crate::timer::on_clock_set`].
pub fn set_realtime(nanos: Nanos) {
    hal::clock::set_realtime_offset(nanos.wrapping_sub(hal::clock::now()));
    crate::timer::clock_was_set();
}
