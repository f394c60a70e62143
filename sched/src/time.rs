//! The clocks: monotonic (since boot) and real time (since 1970).

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use base::Nanos;
use hal::sync::SpinLock;

use crate::thread::{Thread, current};

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
    for thread in FOLLOWERS.lock().values() {
        thread.wake();
    }
}

/// A time on the real-time clock, on the monotonic clock as they are now.
pub(crate) fn monotonic(real: Nanos) -> Nanos {
    now().saturating_add(real.saturating_sub(realtime()))
}

/// Threads that wait until a time on the real-time clock, by address.
static FOLLOWERS: SpinLock<BTreeMap<usize, Arc<Thread>>> = SpinLock::new(BTreeMap::new());

/// When a wait ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// At a time on the monotonic clock.
    Monotonic(Nanos),
    /// At a time on the real-time clock, wherever that is set to meanwhile.
    Real(Nanos),
}

impl Until {
    /// Calls `f` with that time on the monotonic clock. While `f` sleeps until just then, setting the real-time clock moves the end.
    pub fn follow<R>(end: Option<Until>, f: impl FnOnce(Option<Nanos>) -> R) -> R {
        let real = match end {
            Some(Until::Real(real)) => real,
            Some(Until::Monotonic(at)) => return f(Some(at)),
            None => return f(None),
        };
        let thread = current();
        let address = Arc::as_ptr(&thread).addr();
        let deadline = monotonic(real);
        thread.follow(Some((deadline, real)));
        FOLLOWERS.lock().insert(address, thread.clone());
        let result = f(Some(deadline));
        let removed = FOLLOWERS.lock().remove(&address);
        drop(removed);
        thread.follow(None);
        result
    }
}
