//! A process's timers: interval timers (setitimer(2)), POSIX timers (timer_create(2)) and the processor time limit.

mod cpu;
pub mod interval;
pub mod posix;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use base::Nanos;
use hal::sync::SpinLock;

pub use cpu::CpuTimers;
pub use interval::{Interval, RealTimer};
pub use posix::PosixTimer;

/// All timers of a process. Lock order: the table of POSIX timers -> a timer's state; neither is held while a signal is sent.
pub struct Timers {
    pub(crate) posix: SpinLock<Table>,
    real: SpinLock<Option<Arc<RealTimer>>>,
    cpu: SpinLock<Option<Arc<CpuTimers>>>,
}

/// POSIX timers by number.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) timers: BTreeMap<i32, Arc<PosixTimer>>,
    pub(crate) next: i32,
}

impl Timers {
    pub(crate) const fn new() -> Timers {
        Timers {
            posix: SpinLock::new(Table { timers: BTreeMap::new(), next: 0 }),
            real: SpinLock::new(None),
            cpu: SpinLock::new(None),
        }
    }

    /// The ITIMER_REAL timer, made when it is first used.
    pub(crate) fn real(&self, process: &Arc<crate::Process>) -> Arc<RealTimer> {
        if let Some(timer) = &*self.real.lock_irq() {
            return timer.clone();
        }
        let made = RealTimer::new(process);
        self.real.lock_irq().get_or_insert(made).clone()
    }

    /// The timers on processor time, made when first used.
    pub(crate) fn cpu(&self, process: &Arc<crate::Process>) -> Arc<CpuTimers> {
        if let Some(timers) = &*self.cpu.lock_irq() {
            return timers.clone();
        }
        let made = CpuTimers::new(process);
        self.cpu.lock_irq().get_or_insert(made).clone()
    }

    /// SIGALRM was taken out of the queue: an interval timer starts its next round.
    pub(crate) fn alarm_taken(&self) {
        let timer = self.real.lock_irq().clone();
        if let Some(timer) = timer {
            timer.taken();
        }
    }

    /// The signal of POSIX timer `id` was taken out of the queue: the timer starts its next round. How often it expired meanwhile.
    pub(crate) fn taken(&self, id: i32) -> i32 {
        let timer = self.posix.lock_irq().timers.get(&id).cloned();
        timer.map_or(0, |timer| timer.taken())
    }

    /// RLIMIT_CPU changed.
    pub(crate) fn cpu_limit_changed(&self, process: &Arc<crate::Process>) {
        self.cpu(process).check_soon();
    }

    /// exec: POSIX timers go, interval timers stay.
    pub(crate) fn clear_posix(&self) {
        let old = core::mem::take(&mut self.posix.lock_irq().timers);
        old.values().for_each(|timer| timer.disarm());
    }

    /// The process is ending.
    pub(crate) fn clear(&self) {
        self.clear_posix();
        let real = self.real.lock_irq().take();
        let cpu = self.cpu.lock_irq().take();
        if let Some(real) = real {
            real.disarm();
        }
        if let Some(cpu) = cpu {
            cpu.disarm();
        }
    }
}

/// The first expiry after `now` of a timer that expired at `at` and has `interval` (not 0), and how many lie between.
pub(crate) fn advance(at: Nanos, interval: Nanos, now: Nanos) -> (Nanos, u64) {
    if at > now {
        return (at, 0);
    }
    let missed = (now - at) / interval;
    (at.saturating_add(interval.saturating_mul(missed + 1)), missed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_expirations_are_counted() {
        assert_eq!(advance(100, 10, 99), (100, 0));
        assert_eq!(advance(100, 10, 100), (110, 0));
        assert_eq!(advance(100, 10, 125), (130, 2));
        assert_eq!(advance(100, 1, u64::MAX), (u64::MAX, u64::MAX - 100));
    }
}
