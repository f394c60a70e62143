//! Loading address spaces, and making processors forget translations.
//!
//! A processor that runs a kernel thread keeps the last user address space loaded ("lazy"): coming back to it costs nothing. When a
//! flush reaches it in that state, it drops to the kernel's own map instead, and is bothered no more.

use alloc::sync::Arc;
use core::arch::asm;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use abi::PAGE_SIZE;

use super::page_table::PageTable;
use super::{apic, cpu_regs, kernel_map};
use crate::cpu;
use crate::sync::SpinLock;

/// Beyond so many pages, all is flushed.
const FEW_PAGES: usize = 32;

/// The user address space loaded on each processor. Only that processor changes its own, with interrupts off.
static LOADED: cpu::PerCpu<SpinLock<Option<Arc<PageTable>>>> = crate::per_cpu!(SpinLock::new(None));
/// Its physical address, to compare without a lock.
static LOADED_ROOT: cpu::PerCpu<AtomicUsize> = crate::per_cpu!(AtomicUsize::new(0));

/// The flush under way; one at a time.
struct Request {
    start: AtomicUsize,
    end: AtomicUsize,
    /// The processors that haven't done it yet.
    pending: AtomicU64,
}

static REQUEST: Request = Request { start: AtomicUsize::new(0), end: AtomicUsize::new(0), pending: AtomicU64::new(0) };
static REQUESTING: SpinLock<()> = SpinLock::new(());

/// Loads `table` on this processor. Interrupts are off.
#[inline]
pub(super) fn load(table: &Arc<PageTable>) {
    if LOADED_ROOT.get().load(Ordering::Relaxed) == table.physical() {
        return;
    }
    let bit = 1 << cpu::id();
    // Before the load, so that no flush misses us.
    table.cpus.fetch_or(bit, Ordering::SeqCst);
    // SAFETY: the table's kernel half is the kernel's; `LOADED` keeps it alive while it is loaded.
    unsafe { cpu_regs::write_cr3(table.physical()) };
    LOADED_ROOT.get().store(table.physical(), Ordering::Relaxed);
    let old = LOADED.get().lock().replace(table.clone());
    if let Some(old) = &old {
        old.cpus.fetch_and(!bit, Ordering::SeqCst);
    }
    drop(old);
}

/// Goes back to the kernel's own map. Interrupts are off.
pub(super) fn unload() {
    // SAFETY: the kernel's map holds all that the kernel uses.
    unsafe { cpu_regs::write_cr3(kernel_map::physical()) };
    LOADED_ROOT.get().store(0, Ordering::Relaxed);
    let old = LOADED.get().lock().take();
    if let Some(old) = &old {
        old.cpus.fetch_and(!(1 << cpu::id()), Ordering::SeqCst);
    }
}

pub(super) fn flush_page_here(va: usize) {
    // SAFETY: forgetting a translation only makes the processor look it up again.
    unsafe { asm!("invlpg [{}]", in(reg) va, options(nostack, preserves_flags)) };
}

fn flush_here(start: usize, end: usize) {
    if end.saturating_sub(start) / PAGE_SIZE > FEW_PAGES {
        // SAFETY: reloading the same root only flushes.
        unsafe { cpu_regs::write_cr3(cpu_regs::read_cr3()) };
        return;
    }
    (start..end).step_by(PAGE_SIZE).for_each(flush_page_here);
}

/// Makes all processors that have `table` loaded forget `start..end`.
pub(super) fn flush(table: &PageTable, start: usize, end: usize) {
    let me = {
        let _irq = crate::irq::disable();
        if LOADED_ROOT.get().load(Ordering::Relaxed) == table.physical() {
            flush_here(start, end);
        }
        cpu::id()
    };
    let others = table.cpus.load(Ordering::SeqCst) & !(1 << me);
    if others != 0 {
        ask(others, start, end);
    }
}

/// Makes every processor forget a range of the kernel's half.
pub(super) fn flush_kernel(start: usize, end: usize) {
    flush_here(start, end);
    let others = ((1u128 << cpu::count()) - 1) as u64 & !(1 << cpu::id());
    if others != 0 {
        ask(others, start, end);
    }
}

fn ask(cpus: u64, start: usize, end: usize) {
    assert!(crate::irq::enabled(), "two processors that flush each other with interrupts off would wait for ever");
    let _one_at_a_time = REQUESTING.lock();
    REQUEST.start.store(start, Ordering::Relaxed);
    REQUEST.end.store(end, Ordering::Relaxed);
    REQUEST.pending.store(cpus, Ordering::Release);
    let mut left = cpus;
    while left != 0 {
        let cpu = left.trailing_zeros() as usize;
        left &= left - 1;
        apic::send(cpu, apic::FLUSH_VECTOR);
    }
    while REQUEST.pending.load(Ordering::Acquire) != 0 {
        core::hint::spin_loop();
    }
}

/// The interrupt that [`flush`] sends.
pub(super) fn on_request() {
    let bit = 1 << cpu::id();
    if REQUEST.pending.load(Ordering::Acquire) & bit == 0 {
        return;
    }
    let (start, end) = (REQUEST.start.load(Ordering::Relaxed), REQUEST.end.load(Ordering::Relaxed));
    if start < crate::user::USER_END && super::task::lazy() {
        unload();
    } else {
        flush_here(start, end);
    }
    REQUEST.pending.fetch_and(!bit, Ordering::Release);
}
