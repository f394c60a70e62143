//! A lock's class, and what is checked when it is taken.

use core::any::type_name;
use core::fmt::{self, Write};
use core::panic::Location;
use core::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use arrayvec::ArrayString;

use super::Kind;
use super::graph::{Chain, FALLING, Graph, IN_INTERRUPTS, INTERRUPTIBLE, Known, RISING};
use super::held::{HeldLocks, Taken};
use crate::arch;
use crate::sync::SpinLock;

static KNOWN: Known = Known::new();
static GRAPH: SpinLock<Graph> = SpinLock::untracked(Graph::new(&KNOWN));
/// Cleared by the first report, whose own locks are not checked.
static ON: AtomicBool = AtomicBool::new(true);
/// Held by page faults, wanted by whatever may fault.
static FAULT: Class = Class::new();

/// The longest report.
const LONGEST_REPORT: usize = 900;

/// What a lock carries to be checked.
pub struct Class {
    site: Option<&'static Location<'static>>,
    /// See [`Class::ranked`].
    rank: Option<u8>,
    /// One more than the class's number; 0 before the first use.
    number: AtomicU16,
}

impl Class {
    /// A lock's class: where it is made, and, at its first use, the type of its value.
    #[allow(clippy::new_without_default, reason = "a const fn, for statics")]
    #[track_caller]
    pub const fn new() -> Class {
        Class { site: Some(Location::caller()), rank: None, number: AtomicU16::new(0) }
    }

    /// As [`Class::new`], for locks that have an order of their own among themselves, for which the maker vouches: parents before children.
    /// Locks with different `rank`s are different classes.
    #[track_caller]
    pub const fn ranked(rank: u8) -> Class {
        Class { site: Some(Location::caller()), rank: Some(rank), number: AtomicU16::new(0) }
    }

    /// The class of a lock that is not checked.
    pub const fn untracked() -> Class {
        Class { site: None, rank: None, number: AtomicU16::new(0) }
    }

    /// The lock, which holds a `T`, is about to be taken; if it is not free the caller `waits` for it, or goes away. Panics if that may end
    /// in a deadlock.
    #[track_caller]
    pub fn acquire<T: ?Sized>(&self, kind: Kind, waits: bool) {
        let Some(site) = self.site.filter(|_| ON.load(Ordering::Relaxed)) else { return };
        let at = Location::caller();
        let interruptible = arch::irq_enabled();
        let result = with_held(|held| {
            let class = self.number::<T>(site);
            let taken = Taken { class, kind, ranked: self.rank.is_some(), lock: self.address(), at };
            check(held, &taken, waits, interruptible)?;
            held.push(taken);
            Ok(())
        });
        result.unwrap_or(Ok(())).unwrap_or_else(|Reported| fail());
    }

    /// The lock is about to be let go.
    pub fn release(&self) {
        if self.site.is_some() {
            with_held(|held| held.remove(self.address()));
        }
    }

    fn address(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }

    fn number<T: ?Sized>(&self, site: &'static Location<'static>) -> u16 {
        if let Some(number) = self.number.load(Ordering::Relaxed).checked_sub(1) {
            return number;
        }
        let number = GRAPH.lock().class(site, type_name::<T>(), self.rank);
        self.number.store(number + 1, Ordering::Relaxed);
        number
    }
}

/// The text of the last report.
static REPORT: SpinLock<ArrayString<LONGEST_REPORT>> = SpinLock::untracked(ArrayString::new_const());

/// [`REPORT`] tells of a wrong order.
struct Reported;

fn report(text: fmt::Arguments) -> Reported {
    let mut report = REPORT.lock();
    report.clear();
    // What is too long is cut.
    let _ = report.write_fmt(text);
    Reported
}

#[track_caller]
fn fail() -> ! {
    ON.store(false, Ordering::Relaxed);
    let report = *REPORT.lock();
    panic!("{report}")
}

/// Runs `f` on the list of what the running task holds, with interrupts off. Before there are tasks nothing is checked.
fn with_held<R>(f: impl FnOnce(&mut HeldLocks) -> R) -> Option<R> {
    let were_on = arch::irq_save();
    let result = arch::task::with_held_locks(f);
    if were_on {
        arch::irq_enable();
    }
    result
}

fn check(held: &HeldLocks, taken: &Taken, waits: bool, interruptible: bool) -> Result<(), Reported> {
    if taken.kind == Kind::Sleep && waits {
        check_sleep(held, taken.at)?;
    }
    if taken.kind == Kind::Spin {
        let used = |when, uses| if when { uses } else { 0 };
        note_use(taken, used(held.in_interrupt() && waits, IN_INTERRUPTS) | used(interruptible, INTERRUPTIBLE))?;
    }
    if !waits {
        return Ok(());
    }
    held.here().iter().try_for_each(|earlier| check_order(earlier, taken))
}

fn check_order(held: &Taken, taken: &Taken) -> Result<(), Reported> {
    if held.lock == taken.lock {
        let graph = GRAPH.lock();
        let (name, first, again) = (graph.name(taken.class), held.at, taken.at);
        return Err(report(format_args!("a lock is taken twice by one task: {name}, at {first} and at {again}")));
    }
    if held.class == taken.class {
        return if taken.ranked { Ok(()) } else { check_siblings(held, taken) };
    }
    if KNOWN.has(held.class, taken.class) {
        return Ok(());
    }
    let mut graph = GRAPH.lock();
    match graph.learn(held, taken) {
        Ok(()) => match graph.interrupt_chain(taken.class) {
            Some(chain) => Err(interrupt_report(&graph, &chain, taken)),
            None => Ok(()),
        },
        Err(chain) => Err(report(format_args!(
            "locks are taken in two orders: {} (taken at {}) is held while {} is taken at {}; but elsewhere {}",
            graph.name(held.class),
            held.at,
            graph.name(taken.class),
            taken.at,
            graph.describe(&chain),
        ))),
    }
}

/// Two locks of one class.
fn check_siblings(held: &Taken, taken: &Taken) -> Result<(), Reported> {
    let (this, other) = if taken.lock > held.lock { (RISING, FALLING) } else { (FALLING, RISING) };
    let uses = KNOWN.uses(taken.class);
    if uses & this != 0 {
        return Ok(());
    }
    let graph = GRAPH.lock();
    graph.note(taken.class, this);
    if uses & other == 0 {
        return Ok(());
    }
    Err(report(format_args!(
        "two locks of a class are taken in any order: {}, at {} and then at {}",
        graph.name(taken.class),
        held.at,
        taken.at
    )))
}

fn interrupt_report(graph: &Graph, chain: &Chain, taken: &Taken) -> Reported {
    report(format_args!(
        "an interrupt handler may wait for whom it interrupts: {} is waited for in interrupts, {} is held with interrupts on: {}; \
         now taken at {}",
        graph.name(chain[0]),
        graph.name(chain[chain.len() - 1]),
        graph.describe(chain),
        taken.at
    ))
}

fn note_use(taken: &Taken, uses: u8) -> Result<(), Reported> {
    if KNOWN.uses(taken.class) & uses == uses {
        return Ok(());
    }
    let mut graph = GRAPH.lock();
    graph.note(taken.class, uses);
    match graph.interrupt_chain(taken.class) {
        Some(chain) => Err(interrupt_report(&graph, &chain, taken)),
        None => Ok(()),
    }
}

fn check_sleep(held: &HeldLocks, at: &Location) -> Result<(), Reported> {
    if let Some(lock) = held.spin_lock() {
        let graph = GRAPH.lock();
        let name = graph.name(lock.class);
        return Err(report(format_args!("may sleep at {at} while {name} is held, taken at {}", lock.at)));
    }
    if held.in_interrupt() {
        return Err(report(format_args!("may sleep at {at}, in an interrupt")));
    }
    Ok(())
}

/// The caller may sleep. Panics if it holds a spin lock, runs in an interrupt handler, or has interrupts off.
#[track_caller]
pub fn may_sleep() {
    if !ON.load(Ordering::Relaxed) {
        return;
    }
    let at = Location::caller();
    let interruptible = arch::irq_enabled();
    let result = with_held(|held| {
        check_sleep(held, at)?;
        if interruptible { Ok(()) } else { Err(report(format_args!("may sleep at {at} with interrupts off"))) }
    });
    result.unwrap_or(Ok(())).unwrap_or_else(|Reported| fail());
}

/// A copy to or from user space begins. With interrupts off it does not wait for a page.
#[track_caller]
pub(crate) fn may_fault() {
    if arch::irq_enabled() {
        FAULT.acquire::<PageFault>(Kind::Sleep, true);
        FAULT.release();
    }
}

/// Interrupts are about to be let in: spin locks that are held from now on are held with interrupts on.
#[track_caller]
pub(crate) fn interrupts_go_on() {
    if !ON.load(Ordering::Relaxed) {
        return;
    }
    let result = with_held(|held| {
        let mut spinning = held.here().iter().filter(|taken| taken.kind == Kind::Spin);
        spinning.try_for_each(|taken| note_use(taken, INTERRUPTIBLE))
    });
    result.unwrap_or(Ok(())).unwrap_or_else(|Reported| fail());
}

/// A thread leaves the processor: others would spin for its locks.
#[track_caller]
pub(crate) fn no_spin_lock_is_held() {
    let at = Location::caller();
    let result = with_held(|held| check_sleep(held, at));
    result.unwrap_or(Ok(())).unwrap_or_else(|Reported| fail());
}

/// What [`FAULT`] stands for.
struct PageFault;

/// A page fault is handled while it lives.
pub(crate) struct FaultGuard;

impl FaultGuard {
    #[track_caller]
    pub(crate) fn new() -> FaultGuard {
        FAULT.acquire::<PageFault>(Kind::Sleep, true);
        FaultGuard
    }
}

impl Drop for FaultGuard {
    fn drop(&mut self) {
        FAULT.release();
    }
}

/// An interrupt is handled while it lives.
pub(crate) struct InterruptGuard;

impl InterruptGuard {
    pub(crate) fn new() -> InterruptGuard {
        with_held(HeldLocks::begin_interrupt);
        InterruptGuard
    }
}

impl Drop for InterruptGuard {
    fn drop(&mut self) {
        with_held(HeldLocks::end_interrupt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::string::String;
    use std::sync::{Mutex, PoisonError};

    /// A report ends checking for all threads, so one test runs at a time.
    static ALONE: Mutex<()> = Mutex::new(());

    /// The report that `f` ends with; nothing if there is none.
    fn report_of(f: impl FnOnce()) -> String {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let result = catch_unwind(AssertUnwindSafe(f));
        ON.store(true, Ordering::Relaxed);
        let report = result.err().and_then(|panic| panic.downcast::<String>().ok());
        report.map(|report| *report).unwrap_or_default()
    }

    #[test]
    fn two_orders_are_reported_with_both_chains() {
        let a = SpinLock::new(1u8);
        let b = SpinLock::new(2u16);
        let c = SpinLock::new(3u32);
        let text = report_of(|| {
            drop((a.lock(), b.lock()));
            drop((b.lock(), c.lock()));
            drop((a.lock(), c.lock()));
            drop((c.lock(), a.lock()));
        });
        assert!(text.starts_with("locks are taken in two orders: `u32` of"), "{text}");
        let chain = text.split_once("but elsewhere").map_or("", |(_, chain)| chain);
        assert!(chain.starts_with(" `u8` of ") && chain.contains("before `u32` of "), "{text}");
    }

    #[test]
    fn an_order_is_not_learned_from_what_does_not_wait() {
        let a = SpinLock::new(1u8);
        let b = SpinLock::new(2u8);
        let text = report_of(|| {
            drop((a.lock(), b.try_lock()));
            drop((b.lock(), a.lock()));
        });
        assert_eq!(text, "");
    }

    #[test]
    fn locks_of_one_class_have_an_order_by_address() {
        let locks = [0u8, 1, 2].map(|_| SpinLock::new(0i8));
        assert_eq!(report_of(|| drop((locks[0].lock(), locks[1].lock(), locks[2].lock()))), "");
        let text = report_of(|| drop((locks[2].lock(), locks[0].lock())));
        assert!(text.starts_with("two locks of a class are taken in any order"), "{text}");
    }

    #[test]
    fn taking_a_lock_again_and_sleeping_under_one_are_reported() {
        let lock = SpinLock::new(0i16);
        let under = |f: fn(&SpinLock<i16>)| {
            report_of(|| {
                let _guard = lock.lock();
                f(&lock);
            })
        };
        assert!(under(|lock| drop(lock.lock())).starts_with("a lock is taken twice by one task"));
        assert!(under(|_| may_sleep()).starts_with("may sleep at "));
        assert!(under(|_| may_fault()).starts_with("may sleep at "));
        assert_eq!(report_of(may_sleep), "");
    }

    #[test]
    fn what_interrupts_wait_for_must_not_be_held_with_interrupts_on() {
        // On the host interrupts are always on.
        let inner = SpinLock::new(0i32);
        let outer = SpinLock::new(0i64);
        let text = report_of(|| {
            drop(inner.lock());
            let _interrupt = InterruptGuard::new();
            drop((outer.lock(), inner.lock()));
        });
        assert!(text.starts_with("an interrupt handler may wait for whom it interrupts"), "{text}");
    }
}
