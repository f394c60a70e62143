//! The local APIC (Intel SDM volume 3, chapter 11): the timer and interrupts between processors, as xAPIC or x2APIC.

use core::sync::atomic::{AtomicUsize, Ordering};

use super::cpu_regs::{rdmsr, wrmsr};
use super::{descriptors, features, kernel_map};

pub(super) const TIMER_VECTOR: u8 = 0xec;
pub(super) const RESCHEDULE_VECTOR: u8 = 0xed;
pub(super) const FLUSH_VECTOR: u8 = 0xee;
pub(super) const STOP_VECTOR: u8 = 0xef;
pub(super) const SPURIOUS_VECTOR: u8 = 0xff;

const APIC_BASE: u32 = 0x1b;
const X2APIC_FIRST: u32 = 0x800;
const TSC_DEADLINE: u32 = 0x6e0;

const ID: u32 = 0x02;
const EOI: u32 = 0x0b;
const SPURIOUS: u32 = 0x0f;
const COMMAND: u32 = 0x30;
const COMMAND_HIGH: u32 = 0x31;
const TIMER: u32 = 0x32;
const LINT0: u32 = 0x35;
const INITIAL_COUNT: u32 = 0x38;
const CURRENT_COUNT: u32 = 0x39;
const DIVIDE: u32 = 0x3e;

/// Where the registers are seen; 0 in x2APIC mode.
static BASE: AtomicUsize = AtomicUsize::new(0);

fn read(register: u32) -> u32 {
    match BASE.load(Ordering::Relaxed) {
        0 => rdmsr(X2APIC_FIRST + register) as u32,
        // SAFETY: `init` mapped the page of registers there.
        base => unsafe { ((base + register as usize * 16) as *const u32).read_volatile() },
    }
}

fn write(register: u32, value: u32) {
    match BASE.load(Ordering::Relaxed) {
        // SAFETY: the registers written by this file have no effect on memory.
        0 => unsafe { wrmsr(X2APIC_FIRST + register, u64::from(value)) },
        // SAFETY: as for `read`.
        base => unsafe { ((base + register as usize * 16) as *mut u32).write_volatile(value) },
    }
}

/// Turns this processor's APIC on.
pub(super) fn init() {
    let base = rdmsr(APIC_BASE);
    if features::get().x2apic {
        // SAFETY: CPUID says that the mode exists.
        unsafe { wrmsr(APIC_BASE, base | 0xc00) };
    } else {
        if BASE.load(Ordering::Relaxed) == 0 {
            BASE.store(kernel_map::map_device((base & 0xf_ffff_f000) as usize, 4096), Ordering::Relaxed);
        }
        // SAFETY: enables what the map above shows.
        unsafe { wrmsr(APIC_BASE, base | 0x800) };
    }
    write(SPURIOUS, 0x100 | u32::from(SPURIOUS_VECTOR));
    write(LINT0, 1 << 16);
    write(DIVIDE, 0b1011);
    let deadline_mode = if features::get().tsc_deadline { 2 << 17 } else { 0 };
    write(TIMER, u32::from(TIMER_VECTOR) | deadline_mode);
    descriptors::area(crate::cpu::id()).apic_id.store(id(), Ordering::Relaxed);
}

/// This processor's APIC number.
pub(super) fn id() -> u32 {
    let raw = read(ID);
    if BASE.load(Ordering::Relaxed) == 0 { raw } else { raw >> 24 }
}

pub(super) fn end_of_interrupt() {
    write(EOI, 0);
}

fn command(target: u32, low: u32) {
    let _irq = crate::irq::disable();
    if BASE.load(Ordering::Relaxed) == 0 {
        // SAFETY: sends an interrupt; the handlers are in place.
        unsafe { wrmsr(X2APIC_FIRST + COMMAND, u64::from(target) << 32 | u64::from(low)) };
        return;
    }
    while read(COMMAND) & 1 << 12 != 0 {
        core::hint::spin_loop();
    }
    write(COMMAND_HIGH, target << 24);
    write(COMMAND, low);
}

/// Sends `vector` to processor `cpu`.
pub(super) fn send(cpu: usize, vector: u8) {
    command(descriptors::area(cpu).apic_id.load(Ordering::Relaxed), u32::from(vector));
}

/// Sends `vector` to all processors but this one.
pub(super) fn send_to_others(vector: u8) {
    command(0, 0b11 << 18 | u32::from(vector));
}

/// INIT to all others.
pub(super) fn broadcast_init() {
    command(0, 0b11 << 18 | 0x4500);
}

/// STARTUP to all others, at the page.
pub(super) fn broadcast_startup(page: u8) {
    command(0, 0b11 << 18 | 0x4600 | u32::from(page));
}

/// One-shot: an interrupt in `ticks` of the timer (1 at least), or at the time-stamp `deadline` where the processor has that mode.
pub(super) fn arm_timer(ticks: u32, deadline: u64) {
    if features::get().tsc_deadline {
        // SAFETY: the mode is on (`init`).
        unsafe { wrmsr(TSC_DEADLINE, deadline.max(1)) };
    } else {
        write(INITIAL_COUNT, ticks.max(1));
    }
}

pub(super) fn disarm_timer() {
    if features::get().tsc_deadline {
        // SAFETY: as for `arm_timer`; 0 disarms.
        unsafe { wrmsr(TSC_DEADLINE, 0) };
    } else {
        write(INITIAL_COUNT, 0);
    }
}

/// For calibration: starts the count at the top, without an interrupt; and reads it.
pub(super) fn start_count() {
    write(TIMER, 1 << 16 | u32::from(TIMER_VECTOR));
    write(INITIAL_COUNT, u32::MAX);
}

pub(super) fn count() -> u32 {
    read(CURRENT_COUNT)
}

/// Ends calibration.
pub(super) fn stop_count() {
    write(INITIAL_COUNT, 0);
    let deadline_mode = if features::get().tsc_deadline { 2 << 17 } else { 0 };
    write(TIMER, u32::from(TIMER_VECTOR) | deadline_mode);
}
