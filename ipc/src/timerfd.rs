//! timerfd_create(2).
//!
//! The timer interrupt only notes that time ran out. How many intervals have passed is worked out when somebody reads, as on Linux, so
//! a tiny interval costs nothing while nobody looks.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use base::{Errno, Events, Nanos, Result};
use fs::{File, Io, OpenFile, OpenFlags, PollTable};
use hal::sync::{Once, SpinLock};
use mm::Sink;
use sched::timer::Timer;
use sched::{Sleep, WaitQueue};

/// Which clock a timer follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clock {
    /// CLOCK_MONOTONIC and CLOCK_BOOTTIME: since boot.
    Monotonic,
    /// CLOCK_REALTIME: since 1970; may be set.
    Realtime,
}

impl Clock {
    fn now(self) -> Nanos {
        match self {
            Clock::Monotonic => sched::time::now(),
            Clock::Realtime => sched::time::realtime(),
        }
    }

    /// The instant `at` of this clock on the monotonic clock, as things are now.
    fn to_monotonic(self, at: Nanos) -> Nanos {
        match self {
            Clock::Monotonic => at,
            Clock::Realtime => at.saturating_sub(self.now()).saturating_add(sched::time::now()),
        }
    }
}

/// What a timer is set to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Setting {
    /// Nanoseconds between expirations after the first; 0 for none.
    pub interval: Nanos,
    /// Nanoseconds until the next; 0 for a timer that is not set.
    pub value: Nanos,
}

/// How timerfd_settime(2) sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetFlags {
    /// TFD_TIMER_ABSTIME: the value is an instant of the clock.
    pub absolute: bool,
    /// TFD_TIMER_CANCEL_ON_SET: reads fail once the clock is set.
    pub cancel_on_set: bool,
}

#[derive(Default)]
struct State {
    interval: Nanos,
    /// The next expiration on the timer's own clock.
    next: Option<Nanos>,
    /// Set to an instant of the real-time clock: follows when that is set.
    absolute: bool,
    cancel_on_set: bool,
    canceled: bool,
}

impl State {
    /// The expirations up to `now`; steps behind them.
    fn take_ticks(&mut self, now: Nanos) -> u64 {
        let Some(next) = self.next.filter(|&next| next <= now) else { return 0 };
        if self.interval == 0 {
            self.next = None;
            return 1;
        }
        let ticks = (now - next) / self.interval + 1;
        self.next = Some(next.saturating_add(ticks.saturating_mul(self.interval)));
        ticks
    }

    fn setting(&self, now: Nanos, ticks_pending: bool) -> Setting {
        let value = match self.next {
            None => 0,
            Some(next) if next > now => next - now,
            // Expired and not yet read: what matters is the next multiple.
            Some(next) if self.interval > 0 && ticks_pending => self.interval - (now - next) % self.interval,
            Some(_) => 0,
        };
        Setting { interval: self.interval, value }
    }
}

/// A timer that is read as a file.
pub struct TimerFd {
    clock: Clock,
    state: SpinLock<State>,
    timer: Arc<Timer>,
    queue: Arc<WaitQueue>,
}

/// The timers on the real-time clock, to be told when it is set.
static REALTIME: SpinLock<Vec<Weak<TimerFd>>> = SpinLock::new(Vec::new());

fn clock_was_set() {
    let timers: Vec<_> = REALTIME.lock().iter().filter_map(Weak::upgrade).collect();
    for timer in timers {
        timer.clock_set();
    }
}

/// timerfd_create(2).
pub fn create(clock: Clock, nonblocking: bool) -> Arc<OpenFile> {
    static HOOKED: Once<()> = Once::new();
    if HOOKED.set(()).is_ok() {
        sched::timer::on_clock_set(Box::new(clock_was_set));
    }
    let queue = Arc::new(WaitQueue::new());
    let woken = queue.clone();
    let timer = Timer::new(Box::new(move |_| {
        woken.wake_for(Events::READABLE, usize::MAX);
        None
    }));
    let file = Arc::new(TimerFd { clock, state: SpinLock::new(State::default()), timer, queue });
    if clock == Clock::Realtime {
        let mut timers = REALTIME.lock();
        timers.retain(|t| t.strong_count() > 0);
        timers.push(Arc::downgrade(&file));
    }
    let flags = if nonblocking { OpenFlags::RDWR | OpenFlags::NONBLOCK } else { OpenFlags::RDWR };
    fs::vfs::pseudo::open_anonymous(file, "[timerfd]", flags)
}

impl TimerFd {
    /// The timer behind an open file. `EINVAL`.
    pub fn of(open: &OpenFile) -> Result<&TimerFd> {
        open.file().downcast().ok_or(Errno::EINVAL)
    }

    /// timerfd_settime(2): the old setting.
    pub fn set(&self, new: Setting, flags: SetFlags) -> Setting {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let old = state.setting(now, true);
        let first = if flags.absolute { new.value } else { now.saturating_add(new.value) };
        *state = State {
            interval: new.interval,
            next: (new.value > 0).then_some(first),
            absolute: flags.absolute,
            cancel_on_set: flags.absolute && flags.cancel_on_set && self.clock == Clock::Realtime,
            canceled: false,
        };
        drop(state);
        self.rearm();
        old
    }

    /// timerfd_gettime(2).
    pub fn get(&self) -> Setting {
        self.state.lock().setting(self.clock.now(), true)
    }

    fn rearm(&self) {
        let next = self.state.lock().next;
        match next {
            Some(next) => self.timer.arm(self.clock.to_monotonic(next)),
            None => drop(self.timer.disarm()),
        }
    }

    fn clock_set(&self) {
        let mut state = self.state.lock();
        state.canceled |= state.cancel_on_set;
        let follows = state.absolute && state.next.is_some();
        drop(state);
        if follows {
            self.rearm();
        }
        self.queue.wake_all();
    }

    /// The expirations since the last read, if any. `ECANCELED`.
    fn take(&self) -> Option<Result<u64>> {
        let mut state = self.state.lock();
        if core::mem::take(&mut state.canceled) {
            return Some(Err(Errno::ECANCELED));
        }
        let ticks = state.take_ticks(self.clock.now());
        drop(state);
        if ticks == 0 {
            return None;
        }
        self.rearm();
        Some(Ok(ticks))
    }
}

impl File for TimerFd {
    fn read(&self, sink: &mut Sink, io: &mut Io) -> Result<usize> {
        if sink.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let ticks = match io.nonblocking() {
            true => self.take().unwrap_or(Err(Errno::EAGAIN)),
            false => self.queue.wait_until(Sleep::Interruptible, None, || self.take())?,
        }?;
        if sink.put(&ticks.to_ne_bytes())? < 8 { Err(Errno::EFAULT) } else { Ok(8) }
    }

    fn poll(&self, table: &mut PollTable) -> Events {
        table.register(&self.queue);
        let state = self.state.lock();
        let expired = state.next.is_some_and(|next| next <= self.clock.now());
        if expired || state.canceled { Events::IN } else { Events::empty() }
    }

    fn release(&self, _flags: OpenFlags) {
        self.timer.disarm();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_intervals_are_counted_when_read() {
        let mut state = State { interval: 10, next: Some(100), ..State::default() };
        assert_eq!(state.take_ticks(99), 0);
        assert_eq!(state.setting(95, true), Setting { interval: 10, value: 5 });
        assert_eq!(state.take_ticks(125), 3);
        assert_eq!(state.next, Some(130));
        assert_eq!(state.setting(133, true).value, 7);
    }

    #[test]
    fn a_single_shot_expires_once() {
        let mut state = State { next: Some(100), ..State::default() };
        assert_eq!(state.take_ticks(500), 1);
        assert_eq!(state.take_ticks(500), 0);
        assert_eq!(state.setting(500, true), Setting::default());
    }
}
