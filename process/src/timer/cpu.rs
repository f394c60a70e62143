//! Timers on processor time: ITIMER_VIRTUAL, ITIMER_PROF and RLIMIT_CPU.
//!
//! No tick watches them: a real-time timer is set for the earliest moment at which one could be due (all threads running at once), looks
//! at the time used, and is set again.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};

use base::{NANOS_PER_SEC, Nanos};
use hal::sync::SpinLock;
use sched::timer::Timer;

use super::{Interval, advance};
use crate::Process;
use crate::rlimit::{INFINITY, Limit, Resource};
use crate::signal::{SIGKILL, SIGPROF, SIGVTALRM, SIGXCPU, SigInfo, Signal, send};

/// Not more often than this.
const SHORTEST: Nanos = 1_000_000;

/// Which interval timer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// ITIMER_VIRTUAL: time in user mode.
    Virtual,
    /// ITIMER_PROF: all processor time.
    Profiling,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    /// The processor time at which it expires; 0 when off.
    next: Nanos,
    interval: Nanos,
}

#[derive(Clone, Copy, Default)]
struct State {
    virtual_time: Slot,
    profiling: Slot,
    /// Seconds at which RLIMIT_CPU is reported next; 0 for the soft limit itself.
    warned: u64,
}

/// The timers of one process.
pub struct CpuTimers {
    state: SpinLock<State>,
    timer: Arc<Timer>,
}

impl CpuTimers {
    pub(crate) fn new(process: &Arc<Process>) -> Arc<CpuTimers> {
        let process = Arc::downgrade(process);
        Arc::new_cyclic(|me: &Weak<CpuTimers>| {
            let me = me.clone();
            let expired = move |_| me.upgrade()?.check(&process.upgrade()?);
            CpuTimers { state: SpinLock::new(State::default()), timer: Timer::new(Box::new(expired)) }
        })
    }

    /// What is left of one, and its period.
    pub fn get(&self, process: &Process, which: Which) -> Interval {
        let slot = *select(&mut self.state.lock_irq().clone(), which);
        let used = time(process, which);
        let remaining = if slot.next == 0 { 0 } else { slot.next.saturating_sub(used).max(1000) };
        Interval { remaining, interval: slot.interval }
    }

    /// Sets one; what it was.
    pub fn set(&self, process: &Process, which: Which, new: Interval) -> Interval {
        let old = self.get(process, which);
        let next = if new.remaining == 0 { 0 } else { time(process, which).saturating_add(new.remaining) };
        *select(&mut self.state.lock_irq(), which) = Slot { next, interval: new.interval };
        self.check_soon();
        old
    }

    /// Looks at everything in a moment.
    pub(crate) fn check_soon(&self) {
        self.timer.arm(sched::time::now() + SHORTEST);
    }

    pub(crate) fn disarm(&self) {
        self.timer.disarm();
    }

    /// Sends what is due; when to look again.
    fn check(&self, process: &Arc<Process>) -> Option<Nanos> {
        let (user, system) = process.cpu_time();
        let limit = process.limit(Resource::Cpu);
        let mut due: [Option<Signal>; 3] = [None; 3];
        let mut left = Nanos::MAX;
        {
            let mut state = self.state.lock_irq();
            due[0] = expire(&mut state.virtual_time, user, &mut left).then_some(SIGVTALRM);
            due[1] = expire(&mut state.profiling, user + system, &mut left).then_some(SIGPROF);
            due[2] = over_limit(limit, &mut state.warned, user + system, &mut left);
        }
        for signal in due.into_iter().flatten() {
            let _ = send::to_process(process, SigInfo::kernel(signal));
        }
        let threads = process.thread_count().max(1) as u64;
        (left != Nanos::MAX).then(|| sched::time::now().saturating_add((left / threads).max(SHORTEST)))
    }
}

fn select(state: &mut State, which: Which) -> &mut Slot {
    match which {
        Which::Virtual => &mut state.virtual_time,
        Which::Profiling => &mut state.profiling,
    }
}

fn time(process: &Process, which: Which) -> Nanos {
    let (user, system) = process.cpu_time();
    match which {
        Which::Virtual => user,
        Which::Profiling => user + system,
    }
}

/// Has the slot run out at processor time `used`? Then it starts its next round. Lowers `left` to what remains.
fn expire(slot: &mut Slot, used: Nanos, left: &mut Nanos) -> bool {
    if slot.next == 0 {
        return false;
    }
    let expired = slot.next <= used;
    if expired {
        slot.next = if slot.interval == 0 { 0 } else { advance(slot.next, slot.interval, used).0 };
    }
    if slot.next != 0 {
        *left = (*left).min(slot.next - used);
    }
    expired
}

/// RLIMIT_CPU: SIGXCPU at the soft limit and each second after, SIGKILL at the hard limit.
fn over_limit(limit: Limit, warned: &mut u64, used: Nanos, left: &mut Nanos) -> Option<Signal> {
    if limit.soft == INFINITY {
        return None;
    }
    let seconds = used / NANOS_PER_SEC;
    if limit.hard != INFINITY && seconds >= limit.hard {
        return Some(SIGKILL);
    }
    let next = limit.soft.max(*warned);
    let signal = (seconds >= next).then_some(SIGXCPU);
    if signal.is_some() {
        *warned = seconds + 1;
    }
    let until = limit.soft.max(*warned).min(limit.hard).saturating_mul(NANOS_PER_SEC);
    *left = (*left).min(until.saturating_sub(used));
    signal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_expire_on_processor_time() {
        let mut slot = Slot { next: 100, interval: 30 };
        let mut left = Nanos::MAX;
        assert!(!expire(&mut slot, 90, &mut left));
        assert_eq!(left, 10);
        assert!(expire(&mut slot, 135, &mut left));
        assert_eq!(slot.next, 160);
        let mut once = Slot { next: 100, interval: 0 };
        assert!(expire(&mut once, 100, &mut left));
        assert!(!expire(&mut once, 200, &mut left));
    }

    #[test]
    fn the_limit_warns_each_second_and_then_kills() {
        let limit = Limit { soft: 2, hard: 5 };
        let (mut warned, mut left) = (0, Nanos::MAX);
        let mut at = |seconds: u64| over_limit(limit, &mut warned, seconds * NANOS_PER_SEC, &mut left);
        assert_eq!(at(1), None);
        assert_eq!(at(2), Some(SIGXCPU));
        assert_eq!(at(2), None);
        assert_eq!(at(3), Some(SIGXCPU));
        assert_eq!(at(5), Some(SIGKILL));
    }
}
