//! Time as a number of nanoseconds.

/// Nanoseconds: since boot for instants of the monotonic clock, since 1970 for the real-time clock, or a length of time.
pub type Nanos = u64;

/// Nanoseconds in a second.
pub const NANOS_PER_SEC: Nanos = 1_000_000_000;
