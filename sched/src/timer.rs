//! Timers: functions that run when a clock reaches a time.

use alloc::boxed::Box;
use alloc::sync::Arc;

use base::Nanos;

/// A one-shot timer on the monotonic clock that can be armed again and again (periodic timers re-arm themselves in the callback).
/// Dropping it disarms it.
pub struct Timer {
    _private: (),
}

impl Timer {
    /// A timer that calls `expired` with interrupts off, on some processor, when it runs out. The callback must not sleep; it gets the
    /// deadline it was armed for, and what it returns is the next deadline, if any.
    pub fn new(expired: Box<dyn Fn(Nanos) -> Option<Nanos> + Send + Sync>) -> Arc<Timer> {
        let _ = expired;
        todo!()
    }

    /// Arms it for `deadline` (monotonic), replacing what was set. A deadline that has passed expires at once (from the timer interrupt).
    pub fn arm(self: &Arc<Timer>, deadline: Nanos) {
        let _ = deadline;
        todo!()
    }

    /// Disarms it: the deadline it had, if it had not expired. The callback may still be running on another processor.
    pub fn disarm(&self) -> Option<Nanos> {
        todo!()
    }

    /// The deadline it is armed for.
    pub fn deadline(&self) -> Option<Nanos> {
        todo!()
    }
}

/// Registers a function to call when the real-time clock is set (timerfd's TFD_TIMER_CANCEL_ON_SET, absolute real-time timers).
pub fn on_clock_set(f: Box<dyn Fn() + Send + Sync>) {
    let _ = f;
    todo!()
}

pub(crate) fn clock_was_set() {
    todo!()
}
