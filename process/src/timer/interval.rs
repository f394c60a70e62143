//! ITIMER_REAL: setitimer(2), alarm(2).

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};

use base::Nanos;
use hal::sync::SpinLock;
use sched::timer::Timer;

use super::advance;
use crate::Process;
use crate::signal::{SIGALRM, SigInfo, send};

/// What is left of a timer, and its period; 0 for neither.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Interval {
    /// Until the next expiration.
    pub remaining: Nanos,
    /// From then on; 0 for once.
    pub interval: Nanos,
}

#[derive(Clone, Copy, Default)]
struct State {
    /// When it expires next, or has expired last; 0 when off.
    next: Nanos,
    interval: Nanos,
    /// Its signal has not been taken yet.
    pending: bool,
}

/// The timer. After an expiration the next round starts when the signal is taken, as on Linux: a program that is slow to take it is
/// not flooded.
pub struct RealTimer {
    state: SpinLock<State>,
    timer: Arc<Timer>,
}

impl RealTimer {
    pub(crate) fn new(process: &Arc<Process>) -> Arc<RealTimer> {
        let process = Arc::downgrade(process);
        Arc::new_cyclic(|me: &Weak<RealTimer>| {
            let me = me.clone();
            let expired = move |at| {
                let (me, process) = (me.upgrade()?, process.upgrade()?);
                me.expired(at, &process);
                None
            };
            RealTimer { state: SpinLock::new(State::default()), timer: Timer::new(Box::new(expired)) }
        })
    }

    fn expired(&self, at: Nanos, process: &Arc<Process>) {
        {
            let mut state = self.state.lock_irq();
            if state.next == 0 || state.next > at {
                return;
            }
            state.pending = state.interval != 0;
            if state.interval == 0 {
                state.next = 0;
            }
        }
        let _ = send::to_process(process, SigInfo::kernel(SIGALRM));
    }

    /// What is left, and the period.
    pub fn get(&self) -> Interval {
        let state = *self.state.lock_irq();
        let now = sched::time::now();
        let remaining = match () {
            () if state.next == 0 => 0,
            // Expired, but not yet told: never 0 while it is armed.
            () if state.next <= now => 1000,
            () => state.next - now,
        };
        Interval { remaining, interval: state.interval }
    }

    /// Sets it; what it was.
    pub fn set(&self, new: Interval) -> Interval {
        let old = self.get();
        let next = if new.remaining == 0 { 0 } else { sched::time::now().saturating_add(new.remaining) };
        *self.state.lock_irq() = State { next, interval: new.interval, pending: false };
        if next == 0 {
            self.timer.disarm();
        } else {
            self.timer.arm(next);
        }
        old
    }

    pub(crate) fn taken(&self) {
        let mut state = self.state.lock_irq();
        if !state.pending {
            return;
        }
        state.pending = false;
        (state.next, _) = advance(state.next, state.interval, sched::time::now());
        let next = state.next;
        drop(state);
        self.timer.arm(next);
    }

    pub(crate) fn disarm(&self) {
        *self.state.lock_irq() = State::default();
        self.timer.disarm();
    }
}
