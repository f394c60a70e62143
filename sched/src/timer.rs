//! Timers: functions that run when the monotonic clock reaches a time. Each processor has a queue and its own timer interrupt.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use base::Nanos;
use hal::cpu::PerCpu;
use hal::sync::SpinLock;

use crate::statistics::{Deferred, note_deferred};

static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

/// What a timer calls: it gets the deadline that passed, and gives the next one.
pub type Callback = Box<dyn Fn(Nanos) -> Option<Nanos> + Send + Sync>;

/// A one-shot timer that can be armed again and again (periodic timers re-arm themselves in the callback). Dropping it disarms it.
pub struct Timer {
    callback: Callback,
    number: u64,
    /// Where it is queued: processor and deadline.
    armed: SpinLock<Option<(usize, Nanos)>>,
}

struct Queue {
    timers: BTreeMap<(Nanos, u64), Arc<Timer>>,
    /// The next scheduler tick, if one is wanted.
    tick: Option<Nanos>,
    /// What the processor's timer is set to.
    programmed: Option<Nanos>,
}

impl Queue {
    /// Sets the processor's timer to what comes first, unless it runs out before that anyway: setting it on each switch of threads costs
    /// more than an interrupt in vain now and then.
    fn program(&mut self) {
        let first = self.timers.first_key_value().map(|(key, _)| key.0);
        let Some(next) = [first, self.tick].into_iter().flatten().min() else { return };
        if self.programmed.is_none_or(|at| next < at) {
            self.programmed = Some(next);
            hal::clock::set_timer(Some(next));
        }
    }
}

static QUEUES: PerCpu<SpinLock<Queue>> =
    hal::per_cpu!(SpinLock::new(Queue { timers: BTreeMap::new(), tick: None, programmed: None }));
static CLOCK_SET: SpinLock<Vec<Box<dyn Fn() + Send + Sync>>> = SpinLock::new(Vec::new());

impl Timer {
    /// A timer that calls `callback` with interrupts off, on some processor, when it runs out. The callback must not sleep, nor arm or
    /// disarm its own timer.
    #[allow(clippy::new_ret_no_self, reason = "queues share it")]
    pub fn new(callback: Callback) -> Arc<Timer> {
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        Arc::new(Timer { callback, number, armed: SpinLock::new(None) })
    }

    /// Arms it for `deadline` (monotonic), replacing what was set. A deadline that has passed expires at once (from the timer interrupt).
    pub fn arm(self: &Arc<Timer>, deadline: Nanos) {
        let mut armed = self.armed.lock_irq();
        if let Some((cpu, old)) = armed.take() {
            QUEUES.of(cpu).lock().timers.remove(&(old, self.number));
        }
        let cpu = hal::cpu::id();
        *armed = Some((cpu, deadline));
        let mut queue = QUEUES.of(cpu).lock();
        queue.timers.insert((deadline, self.number), self.clone());
        queue.program();
    }

    /// Disarms it: the deadline it had, if it had not expired. The callback may still be running on another processor.
    pub fn disarm(&self) -> Option<Nanos> {
        let mut armed = self.armed.lock_irq();
        let (cpu, deadline) = armed.take()?;
        // The processor's own timer stays as it is: an interrupt in vain costs less than setting it each time.
        let removed = QUEUES.of(cpu).lock().timers.remove(&(deadline, self.number));
        drop(armed);
        removed.map(|_| deadline)
    }

    /// The deadline it is armed for.
    pub fn deadline(&self) -> Option<Nanos> {
        self.armed.lock_irq().map(|(_, deadline)| deadline)
    }
}

/// Asks for a scheduler tick on this processor at `at`, or for none. Interrupts are off.
pub(crate) fn set_tick(at: Option<Nanos>) {
    let mut queue = QUEUES.get().lock_irq();
    queue.tick = at;
    queue.program();
}

/// The timer interrupt of this processor: runs what has expired; true if the scheduler's tick has.
pub(crate) fn run_expired() -> bool {
    let queue = QUEUES.get();
    let now = crate::time::now();
    let ticked = {
        let mut queue = queue.lock();
        queue.programmed = None;
        let ticked = queue.tick.is_some_and(|at| at <= now);
        if ticked {
            queue.tick = None;
        }
        ticked
    };
    if ticked {
        note_deferred(Deferred::Tick);
    }
    let mut first = true;
    loop {
        let expired = {
            let mut queue = queue.lock();
            match queue.timers.first_entry() {
                Some(first) if first.key().0 <= now => Some((first.key().0, first.remove())),
                _ => None,
            }
        };
        let Some((deadline, timer)) = expired else {
            break;
        };
        // Armed anew, or disarmed, since we took it out of the queue: then this expiry is void.
        let mut armed = timer.armed.lock();
        if *armed != Some((hal::cpu::id(), deadline)) {
            continue;
        }
        *armed = None;
        drop(armed);
        if core::mem::take(&mut first) {
            note_deferred(Deferred::Timers);
        }
        if let Some(next) = (timer.callback)(deadline) {
            timer.arm(next);
        }
    }
    queue.lock().program();
    ticked
}

/// Registers a function to call when the real-time clock is set (timerfd's TFD_TIMER_CANCEL_ON_SET, absolute real-time timers).
pub fn on_clock_set(f: Box<dyn Fn() + Send + Sync>) {
    CLOCK_SET.lock().push(f);
}

pub(crate) fn clock_was_set() {
    CLOCK_SET.lock().iter().for_each(|f| f());
}
