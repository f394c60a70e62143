//! Figures for `/proc/stat` and `/proc/loadavg`.

use core::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use base::Nanos;
use hal::cpu::PerCpu;

use crate::schedule;

/// A tick's worth, as the scheduler samples.
const TICK: Nanos = 4_000_000;
/// How often the load is sampled (Linux's LOAD_FREQ).
const SAMPLE: Nanos = 5_000_000_000;
/// Fixed point: 11 bits after the point.
const ONE: u64 = 1 << 11;
/// e^(-5 s / 1, 5 and 15 min) in that fixed point.
const DECAY: [u64; 3] = [1884, 2014, 2037];

struct PerProcessor {
    user: AtomicU64,
    nice: AtomicU64,
    system: AtomicU64,
    /// How long it was idle; while it is, less the time since when, and one more: negative then.
    idle: AtomicI64,
    switches: AtomicU64,
    deferred: [AtomicU64; DEFERRED.len()],
}

/// The kinds of work that interrupts leave to be done after them, as `/proc/softirqs` names them.
pub const DEFERRED: [&str; 10] =
    ["HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU"];

/// Those kinds that there are here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deferred {
    /// The scheduler's tick.
    Tick = 1,
    /// Packets that waited for room in a device.
    Send = 2,
    /// Packets that a device has received, or that this machine has sent to itself.
    Receive = 3,
    /// Timers that were due.
    Timers = 8,
}

/// Some deferred work is being done on this processor.
pub fn note_deferred(kind: Deferred) {
    FIGURES.get().deferred[kind as usize].fetch_add(1, Ordering::Relaxed);
}

/// How often each kind of deferred work was done on a processor, in the order of [`DEFERRED`].
pub fn deferred(cpu: usize) -> [u64; DEFERRED.len()] {
    FIGURES.of(cpu).deferred.each_ref().map(|count| count.load(Ordering::Relaxed))
}

static FIGURES: PerCpu<PerProcessor> = hal::per_cpu!(PerProcessor {
    user: AtomicU64::new(0),
    nice: AtomicU64::new(0),
    system: AtomicU64::new(0),
    idle: AtomicI64::new(0),
    switches: AtomicU64::new(0),
    deferred: [const { AtomicU64::new(0) }; DEFERRED.len()],
});
static LOAD: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
static NEXT_SAMPLE: AtomicU64 = AtomicU64::new(SAMPLE);

/// Where a processor's time went, in nanoseconds.
#[derive(Clone, Copy, Default, Debug)]
pub struct CpuTimes {
    /// User mode, nice 0 or less.
    pub user: Nanos,
    /// User mode, nice above 0.
    pub nice: Nanos,
    /// The kernel.
    pub system: Nanos,
    /// Nothing to do.
    pub idle: Nanos,
}

/// Processor `cpu`'s times.
pub fn cpu_times(cpu: usize) -> CpuTimes {
    let figures = FIGURES.of(cpu);
    let get = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
    CpuTimes { user: get(&figures.user), nice: get(&figures.nice), system: get(&figures.system), idle: figures.idle() }
}

/// Context switches since boot, all processors.
pub fn switches() -> u64 {
    FIGURES.iter().map(|f| f.switches.load(Ordering::Relaxed)).sum()
}

/// Threads that are ready or running.
pub fn runnable() -> usize {
    schedule::runnable()
}

/// The load averages over 1, 5 and 15 minutes, in hundredths.
pub fn load_averages() -> [u64; 3] {
    sample_load(crate::time::now());
    [0, 1, 2].map(|i| LOAD[i].load(Ordering::Relaxed) * 100 / ONE)
}

impl PerProcessor {
    /// How long it has been idle until now; never less than it was before.
    fn idle(&self) -> Nanos {
        loop {
            let figure = self.idle.load(Ordering::SeqCst);
            let now = crate::time::now().cast_signed();
            if self.idle.load(Ordering::SeqCst) == figure {
                let idle = if figure < 0 { figure + 1 + now } else { figure };
                return idle.max(0).cast_unsigned();
            }
        }
    }
}

pub(crate) fn idle_begins(now: Nanos) {
    FIGURES.get().idle.fetch_sub(now.cast_signed() + 1, Ordering::SeqCst);
}

pub(crate) fn idle_ends(now: Nanos) {
    FIGURES.get().idle.fetch_add(now.cast_signed() + 1, Ordering::SeqCst);
}

pub(crate) fn count_switch() {
    FIGURES.get().switches.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn count_tick(user: bool, nice: bool) {
    let figures = FIGURES.get();
    let figure = match (user, nice) {
        (true, false) => &figures.user,
        (true, true) => &figures.nice,
        (false, _) => &figures.system,
    };
    figure.fetch_add(TICK, Ordering::Relaxed);
}

/// Takes the samples of the load that are due (several after a time without ticks).
pub(crate) fn sample_load(now: Nanos) {
    let due = NEXT_SAMPLE.load(Ordering::Relaxed);
    if now < due || NEXT_SAMPLE.compare_exchange(due, due + SAMPLE, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return;
    }
    let mut missed = (now - due) / SAMPLE;
    NEXT_SAMPLE.fetch_add(missed * SAMPLE, Ordering::AcqRel);
    missed = missed.min(1000);
    let active = schedule::runnable() as u64 * ONE;
    for (load, decay) in LOAD.iter().zip(DECAY) {
        let mut value = load.load(Ordering::Relaxed);
        for _ in 0..=missed {
            value = (value * decay + active * (ONE - decay)) / ONE;
        }
        load.store(value, Ordering::Relaxed);
    }
}
