//! POSIX timers: timer_create(2) and its family.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};

use base::{Errno, Nanos, Result};
use hal::sync::SpinLock;
use sched::timer::Timer;

use super::{Interval, advance};
use crate::accounting::QueuedSignal;
use crate::rlimit::Resource;
use crate::signal::info_codes::SI_TIMER;
use crate::signal::{SigFields, SigInfo, Signal, send};
use crate::{Process, Task};

/// Not more often than this for a timer whose signal is ignored, or on processor time.
const SHORTEST: Nanos = 1_000_000;

/// What a timer runs on.
#[derive(Clone)]
pub enum Clock {
    /// CLOCK_MONOTONIC, CLOCK_BOOTTIME.
    Monotonic,
    /// CLOCK_REALTIME, CLOCK_TAI.
    Real,
    /// The processor time of a process.
    Process(Weak<Process>),
    /// The processor time of a thread.
    Thread(Weak<Task>),
}

impl Clock {
    /// The time on it.
    pub fn now(&self) -> Nanos {
        match self {
            Clock::Monotonic => sched::time::now(),
            Clock::Real => sched::time::realtime(),
            Clock::Process(process) => process.upgrade().map_or(0, |process| {
                let (user, system) = process.cpu_time();
                user + system
            }),
            Clock::Thread(task) => task.upgrade().map_or(0, |task| task.used().total()),
        }
    }

    fn is_processor_time(&self) -> bool {
        matches!(self, Clock::Process(_) | Clock::Thread(_))
    }
}

/// What happens when it expires.
#[derive(Clone)]
pub enum Notification {
    /// SIGEV_NONE.
    None,
    /// SIGEV_SIGNAL: to the process.
    Process(Signal, u64),
    /// SIGEV_THREAD_ID: to one thread.
    Thread(Signal, u64, Weak<Task>),
}

#[derive(Clone, Copy, Default)]
struct State {
    /// On its clock; 0 when off.
    next: Nanos,
    interval: Nanos,
    /// Its signal has not been taken yet.
    pending: bool,
    /// Expirations missed by the signal that was taken last.
    overrun: i32,
}

/// A POSIX timer.
pub struct PosixTimer {
    id: i32,
    clock: Clock,
    notification: Notification,
    process: Weak<Process>,
    state: SpinLock<State>,
    timer: Arc<Timer>,
    /// Room for its signal.
    _queued: QueuedSignal,
}

/// timer_create(2) by `task`: the timer's number. The signal's value is the number where `notification` leaves it to be. `EAGAIN` (with
/// the signals that are queued for the user there would be more than RLIMIT_SIGPENDING).
pub fn create(task: &Task, clock: Clock, notification: impl FnOnce(i32) -> Notification) -> Result<i32> {
    let process = task.process();
    let limit = process.limit(Resource::Sigpending).soft;
    let queued = QueuedSignal::new(&task.user(), limit).ok_or(Errno::EAGAIN)?;
    let mut table = process.timers().posix.lock_irq();
    while table.timers.contains_key(&table.next) {
        table.next = (table.next + 1) & i32::MAX;
    }
    let id = table.next;
    table.next = (id + 1) & i32::MAX;
    drop(table);
    let timer = PosixTimer::new(id, clock, notification(id), process, queued);
    process.timers().posix.lock_irq().timers.insert(id, timer);
    Ok(id)
}

/// The timer with number `id`. `EINVAL`.
pub fn get(process: &Process, id: i32) -> Result<Arc<PosixTimer>> {
    process.timers().posix.lock_irq().timers.get(&id).cloned().ok_or(Errno::EINVAL)
}

/// timer_delete(2). `EINVAL`.
pub fn delete(process: &Process, id: i32) -> Result<()> {
    let timer = process.timers().posix.lock_irq().timers.remove(&id).ok_or(Errno::EINVAL)?;
    timer.disarm();
    Ok(())
}

impl PosixTimer {
    fn new(
        id: i32,
        clock: Clock,
        notification: Notification,
        process: &Arc<Process>,
        queued: QueuedSignal,
    ) -> Arc<PosixTimer> {
        let process = Arc::downgrade(process);
        Arc::new_cyclic(|me: &Weak<PosixTimer>| {
            let me = me.clone();
            let expired = move |_| me.upgrade()?.expired();
            let (state, timer) = (SpinLock::new(State::default()), Timer::new(Box::new(expired)));
            PosixTimer { id, clock, notification, process, state, timer, _queued: queued }
        })
    }

    /// The deadline, on the monotonic clock, of time `at` on the timer's clock; for processor time, the earliest it can be.
    fn deadline(&self, at: Nanos) -> Nanos {
        let left = at.saturating_sub(self.clock.now());
        let left = if self.clock.is_processor_time() { left.max(SHORTEST) } else { left };
        sched::time::now().saturating_add(left)
    }

    /// The real timer ran out: sends the signal if it is time. When to look again, if that does not depend on the signal.
    fn expired(&self) -> Option<Nanos> {
        {
            let mut state = self.state.lock_irq();
            if state.next == 0 || state.pending {
                return None;
            }
            if state.next > self.clock.now() {
                let next = state.next;
                drop(state);
                return Some(self.deadline(next));
            }
            state.pending = true;
        }
        let process = self.process.upgrade()?;
        self.send(&process);
        if self.is_queued(&process) {
            return None;
        }
        // The signal is ignored (or was taken, in which case the next round has started).
        let mut state = self.state.lock_irq();
        if !core::mem::take(&mut state.pending) {
            return None;
        }
        if state.interval == 0 {
            state.next = 0;
            return None;
        }
        let now = self.clock.now();
        (state.next, _) = advance(state.next, state.interval, now.saturating_add(SHORTEST));
        let next = state.next;
        drop(state);
        Some(self.deadline(next))
    }

    fn send(&self, process: &Arc<Process>) {
        let info = |signal, value| SigInfo {
            signal,
            errno: 0,
            code: SI_TIMER,
            fields: SigFields::Timer { id: self.id, overrun: 0, value },
        };
        let _ = match &self.notification {
            Notification::None => Ok(()),
            Notification::Process(signal, value) => send::to_process(process, info(*signal, *value)),
            Notification::Thread(signal, value, task) => {
                task.upgrade().map_or(Ok(()), |task| send::to_task(&task, info(*signal, *value)))
            }
        };
    }

    fn is_queued(&self, process: &Process) -> bool {
        match &self.notification {
            Notification::None => false,
            Notification::Process(signal, _) => process.group.lock_irq().queue.has_timer(self.id, *signal),
            Notification::Thread(signal, _, task) => {
                task.upgrade().is_some_and(|task| task.with_queue(|queue| queue.has_timer(self.id, *signal)))
            }
        }
    }

    /// Its signal was taken: starts the next round. How many expirations it missed.
    pub(crate) fn taken(&self) -> i32 {
        let mut state = self.state.lock_irq();
        if !core::mem::take(&mut state.pending) {
            return state.overrun;
        }
        if state.interval == 0 {
            (state.next, state.overrun) = (0, 0);
            return 0;
        }
        let (next, missed) = advance(state.next, state.interval, self.clock.now());
        state.next = next;
        state.overrun = i32::try_from(missed).unwrap_or(i32::MAX);
        let overrun = state.overrun;
        drop(state);
        self.timer.arm(self.deadline(next));
        overrun
    }

    /// timer_getoverrun(2).
    pub fn overrun(&self) -> i32 {
        self.state.lock_irq().overrun
    }

    /// timer_gettime(2).
    pub fn get(&self) -> Interval {
        let state = *self.state.lock_irq();
        let now = self.clock.now();
        let remaining = match () {
            () if state.next == 0 => 0,
            () if state.next > now => state.next - now,
            () if state.interval != 0 => advance(state.next, state.interval, now).0 - now,
            () if matches!(self.notification, Notification::None) => 0,
            () => 1,
        };
        Interval { remaining, interval: state.interval }
    }

    /// timer_settime(2): `first` is a time on its clock (`absolute`) or from now; 0 turns it off. What it was.
    pub fn set(&self, first: Nanos, interval: Nanos, absolute: bool) -> Interval {
        let old = self.get();
        let next = match () {
            () if first == 0 => 0,
            () if absolute => first,
            () => self.clock.now().saturating_add(first),
        };
        *self.state.lock_irq() = State { next, interval, pending: false, overrun: 0 };
        if next == 0 || matches!(self.notification, Notification::None) {
            self.timer.disarm();
        } else {
            self.timer.arm(self.deadline(next));
        }
        old
    }

    /// Its number, the notification and the clock, for `/proc/PID/timers`.
    pub fn describe(&self) -> (i32, &Notification, &Clock) {
        (self.id, &self.notification, &self.clock)
    }

    pub(crate) fn disarm(&self) {
        *self.state.lock_irq() = State::default();
        self.timer.disarm();
    }
}
