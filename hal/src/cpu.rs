//! Processors: which one we are on, how many there are, and data kept per processor.

use core::sync::atomic::{AtomicUsize, Ordering};

use crate::arch;

/// The most processors that the kernel uses.
pub const MAX_CPUS: usize = 64;

static ONLINE: AtomicUsize = AtomicUsize::new(1);

/// The number of the processor we are running on, 0 being the boot processor. In thread context with interrupts on, the answer may
/// be old as soon as the thread sleeps or returns to user mode.
#[inline]
pub fn id() -> usize {
    arch::cpu_id()
}

/// How many processors are running; their numbers are 0 to this.
#[inline]
pub fn count() -> usize {
    ONLINE.load(Ordering::Relaxed)
}

pub(crate) fn set_count(n: usize) {
    ONLINE.store(n, Ordering::Release);
}

/// Waits for an interrupt, with interrupts on. Must be called with interrupts off, so that one that arrives between the caller's
/// check and the halt still ends it.
pub fn halt_with_interrupts() {
    arch::halt_with_interrupts();
}

/// Asks another processor to run its reschedule hook ([`crate::hooks::Hooks::reschedule`]).
pub fn kick(cpu: usize) {
    arch::send_reschedule(cpu);
}

/// Makes every processor pass through a full memory barrier before it returns (membarrier(2)). Interrupts must be on.
pub fn barrier_everywhere() {
    arch::barrier_everywhere();
}

#[repr(align(64))]
struct Padded<T>(T);

/// One `T` per processor, each in a cache line of its own.
pub struct PerCpu<T>([Padded<T>; MAX_CPUS]);

impl<T> PerCpu<T> {
    /// Makes the values with `init`, given the processor's number.
    pub fn new_with(mut init: impl FnMut(usize) -> T) -> PerCpu<T> {
        PerCpu(core::array::from_fn(|cpu| Padded(init(cpu))))
    }

    /// This processor's.
    #[inline]
    pub fn get(&self) -> &T {
        &self.0[id() % MAX_CPUS].0
    }

    /// Processor `cpu`'s. Panics if `cpu` is not below [`MAX_CPUS`].
    #[inline]
    pub fn of(&self, cpu: usize) -> &T {
        &self.0[cpu].0
    }

    /// All running processors'.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0[..count()].iter().map(|p| &p.0)
    }
}

/// Builds a `PerCpu` in a constant, for statics.
#[macro_export]
macro_rules! per_cpu {
    ($init:expr) => {
        $crate::cpu::PerCpu::from_array([const { $init }; $crate::cpu::MAX_CPUS])
    };
}

impl<T> PerCpu<T> {
    /// What [`per_cpu!`](crate::per_cpu) expands to.
    pub const fn from_array(values: [T; MAX_CPUS]) -> PerCpu<T> {
        // A const fn can't map an array, so move the values over one by one.
        let values = core::mem::ManuallyDrop::new(values);
        let mut padded = [const { core::mem::MaybeUninit::<Padded<T>>::uninit() }; MAX_CPUS];
        let source = (&raw const values).cast::<T>();
        let mut cpu = 0;
        while cpu < MAX_CPUS {
            // SAFETY: `cpu` is in bounds of the array, which is never dropped, so each value moves out exactly once.
            padded[cpu].write(Padded(unsafe { source.add(cpu).read() }));
            cpu += 1;
        }
        // SAFETY: the loop initialised every element; `MaybeUninit<Padded<T>>` has the layout of `Padded<T>`.
        PerCpu(unsafe { (&raw const padded).cast::<[Padded<T>; MAX_CPUS]>().read() })
    }
}

/// A cache of this processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cache {
    /// 1 is the nearest.
    pub level: u32,
    /// What it holds.
    pub kind: CacheKind,
    /// Bytes of a line.
    pub line: u32,
    /// Lines that a tag stands for.
    pub partitions: u32,
    /// Lines that a place in memory may be in.
    pub ways: u32,
    /// Sets of so many lines.
    pub sets: u32,
    /// Processors that share one, at most.
    pub sharers: u32,
}

impl Cache {
    /// Bytes.
    pub fn size(&self) -> u64 {
        [self.partitions, self.ways, self.sets].into_iter().fold(u64::from(self.line), |size, n| size * u64::from(n))
    }
}

/// What a cache holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CacheKind {
    /// Data.
    Data,
    /// Instructions.
    Instruction,
    /// Both.
    Unified,
}

/// The caches of this processor, those of all others being alike; none where it does not tell.
pub fn caches() -> alloc::vec::Vec<Cache> {
    arch::caches()
}

/// What user programs may use, as AT_HWCAP (CPUID leaf 1, EDX) and AT_HWCAP2 (bit 1: FSGSBASE) tell them.
pub fn user_capabilities() -> [u64; 2] {
    arch::user_capabilities()
}
