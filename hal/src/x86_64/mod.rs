//! The x86-64 side of hal.

mod acpi;
mod apic;
mod boot;
mod boot_asm;
mod caches;
mod cpu_regs;
mod descriptors;
mod features;
mod fpu;
mod kernel_map;
mod layout;
mod lines;
mod memory;
pub(crate) mod page_table;
pub(crate) mod pci;
pub(crate) mod random;
pub(crate) mod serial;
mod smp;
mod stack;
mod symbols;
pub(crate) mod task;
mod tlb;
mod trap;
pub(crate) mod tsc;
mod uaccess;
mod vdso;

use core::arch::asm;

pub use acpi::VirtioMmio;
pub(crate) use boot::{
    boot_alloc, boot_free, discover, in_initrd, initrd, read_physical as read_initrd, release_cpus, start_cpus,
    take_free_ranges,
};
pub(crate) use descriptors::cpu_id;
pub(crate) use kernel_map::map_device;
pub(crate) use lines::{allocate_msi, for_each_count as for_each_irq_count, register as register_irq};
pub(crate) use stack::bytes as stack_bytes;
pub(crate) use uaccess::{
    clear_user, copy_bytes, copy_from_user, copy_from_user_raw, copy_page, copy_to_user, copy_to_user_raw,
    user_cmpxchg_u32, user_load_u32, zero_bytes, zero_page,
};
pub(crate) use vdso::pages as vdso_pages;

use crate::boot::End;

/// Where a physical address of RAM is seen.
#[inline]
pub(crate) fn phys_to_virt(physical: usize) -> *mut u8 {
    (layout::DIRECT_BASE + physical) as *mut u8
}

/// The physical address of something in the direct map.
#[inline]
pub(crate) fn virt_to_phys(virt: *const u8) -> usize {
    virt.addr() - layout::DIRECT_BASE
}

fn nx_bit() -> u64 {
    kernel_map::nx(features::get().nx)
}

fn frame_refs(number: usize) -> u32 {
    crate::frame::meta(number).map_or(0, crate::frame::FrameMeta::refs)
}

/// Turns interrupts off; were they on?
#[inline]
pub(crate) fn irq_save() -> bool {
    let flags: usize;
    // SAFETY: reading the flags and keeping interrupts away harms nobody.
    unsafe { asm!("pushfq", "pop {}", "cli", out(reg) flags) };
    flags & 0x200 != 0
}

#[inline]
pub(crate) fn irq_enable() {
    // SAFETY: they were on before (`IrqGuard`) or the caller is a fresh thread; the interrupt table is in place.
    unsafe { asm!("sti", options(nostack)) };
}

pub(crate) fn irq_enabled() -> bool {
    let flags: usize;
    // SAFETY: reading the flags has no effect.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags, options(preserves_flags)) };
    flags & 0x200 != 0
}

pub(crate) fn halt_with_interrupts() {
    // SAFETY: `sti` takes effect after `hlt` has begun, so an interrupt between the two is not lost.
    unsafe { asm!("sti", "hlt", options(nostack)) };
}

pub(crate) fn send_reschedule(cpu: usize) {
    apic::send(cpu, apic::RESCHEDULE_VECTOR);
}

pub(crate) fn barrier_everywhere() {
    // Every other processor takes an interrupt, which serialises it, to flush nothing.
    tlb::flush_kernel(usize::MAX, usize::MAX);
}

pub(crate) fn stop_others() {
    apic::send_to_others(apic::STOP_VECTOR);
}

fn stop_here() -> ! {
    loop {
        // SAFETY: this processor has nothing left to do.
        unsafe { asm!("cli", "hlt", options(nostack)) };
    }
}

/// QEMU's debug-exit port ends it with status `(value << 1) | 1`.
const DEBUG_EXIT: u16 = 0xf4;
/// What a panic writes there: status 99.
const PANIC_VALUE: u32 = 0x31;

pub(crate) fn end(how: End) -> ! {
    match how {
        End::PowerOff => {
            cpu_regs::outl(DEBUG_EXIT, 0);
            // QEMU's ACPI ports on q35, where there is no debug exit.
            cpu_regs::outw(0x604, 0x2000);
        }
        End::Panic => cpu_regs::outl(DEBUG_EXIT, PANIC_VALUE),
        End::Restart => {
            cpu_regs::outb(0x64, 0xfe);
            cpu_regs::outb(0xcf9, 6);
            cpu_regs::outl(DEBUG_EXIT, 0);
        }
        End::Halt => {}
    }
    stop_others();
    stop_here()
}

/// Follows the frame pointers while they lie in the kernel's half and go up.
pub(crate) fn backtrace(mut f: impl FnMut(usize)) {
    let mut frame: usize;
    // SAFETY: reading a register.
    unsafe { asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack, preserves_flags)) };
    for _ in 0..64 {
        if frame < layout::DIRECT_BASE || !frame.is_multiple_of(8) || stack::is_guard(frame) {
            return;
        }
        // SAFETY: the kernel is built with frame pointers, so the address is of a frame on a kernel stack; the checks above catch the end.
        let (next, address) = unsafe { ((frame as *const usize).read(), ((frame + 8) as *const usize).read()) };
        if address < layout::KERNEL_BASE {
            return;
        }
        f(address);
        if next <= frame {
            return;
        }
        frame = next;
    }
}

/// [`crate::cpu::caches`].
pub(crate) fn caches() -> alloc::vec::Vec<crate::cpu::Cache> {
    caches::read()
}

/// [`crate::cpu::user_capabilities`].
pub(crate) fn user_capabilities() -> [u64; 2] {
    // There is no virtual 8086 mode in long mode.
    const VME: u64 = 2;
    let fsgsbase = if features::get().fsgsbase { 2 } else { 0 };
    [u64::from(cpu_regs::cpuid(1, 0).edx) & !VME, fsgsbase]
}
