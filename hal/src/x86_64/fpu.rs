//! The floating-point and vector registers of user threads. The kernel itself uses none of them.
//!
//! A thread's registers are saved when it is switched out and loaded on its next way to user mode, unless they are still there.

use alloc::vec::Vec;
use core::arch::asm;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::cpu_regs::{cpuid, read_cr0, read_cr4, write_cr0, write_cr4};
use super::{descriptors, features};
use crate::heap::AlignedBuf;
use crate::sync::Once;
use crate::task::Task;

/// Bytes of the legacy area (FXSAVE) and of the header behind it.
const LEGACY: usize = 512;
const HEADER: usize = 64;
/// What XSAVE wants.
const ALIGN: usize = 64;

struct Layout {
    size: usize,
    /// The state components that are switched (XCR0).
    mask: u64,
}

static LAYOUT: Once<Layout> = Once::new();
/// The task whose registers each processor loaded last, as an address to compare only.
static OWNER: crate::cpu::PerCpu<AtomicUsize> = crate::per_cpu!(AtomicUsize::new(0));

/// Turns the unit on, on this processor.
pub(super) fn init() {
    // SAFETY: setting MP and NE and clearing EM and TS gives the unit to user mode; OSFXSR and OSXMMEXCPT say that we save its state.
    unsafe {
        write_cr0(read_cr0() & !0b1100 | 0b10_0010);
        write_cr4(read_cr4() | 0x600);
    }
    if !features::get().xsave {
        let _ = LAYOUT.set(Layout { size: LEGACY + HEADER, mask: 3 });
        return;
    }
    // x87, SSE, AVX, AVX-512 (three), PKRU where there: what user programs may use without asking.
    let mask = (u64::from(cpuid(0xd, 0).edx) << 32 | u64::from(cpuid(0xd, 0).eax)) & 0x2e7;
    // SAFETY: OSXSAVE may be set where CPUID has XSAVE; the mask is a subset of what it offers, with x87 and SSE always in it.
    unsafe {
        write_cr4(read_cr4() | 1 << 18);
        asm!("xsetbv", in("ecx") 0, in("eax") mask as u32, in("edx") (mask >> 32) as u32, options(nostack));
    }
    let _ = LAYOUT.set(Layout { size: cpuid(0xd, 0).ebx as usize, mask });
}

fn layout() -> &'static Layout {
    LAYOUT.get().expect("the unit is set up at boot")
}

/// Room for one thread's registers, in their initial state.
pub(crate) fn new_area() -> Option<AlignedBuf> {
    let mut area = AlignedBuf::zeroed(layout().size)?;
    reset(area.bytes());
    Some(area)
}

/// The state a fresh program finds: all zeros but for the control words.
fn reset(area: &mut [u8]) {
    area.fill(0);
    area[0..2].copy_from_slice(&0x37fu16.to_le_bytes());
    area[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
}

/// Does this processor hold `task`'s registers? It does if it was the last to load them, and has loaded no other's since.
#[inline]
pub(super) fn holds(task: &Task) -> bool {
    OWNER.get().load(Ordering::Relaxed) == core::ptr::from_ref(task).addr()
        && task.fpu_loaded_on.load(Ordering::Relaxed) == crate::cpu::id()
}

/// This processor has `task`'s registers now. Interrupts are off.
fn loaded(task: &Task) {
    OWNER.get().store(core::ptr::from_ref(task).addr(), Ordering::Relaxed);
    task.fpu_loaded_on.store(crate::cpu::id(), Ordering::Relaxed);
    task.work.fetch_and(!super::task::LOAD_FPU, Ordering::Relaxed);
}

/// What processors hold for `task` is void: its image was changed, or is about to be.
fn forget(task: &Task) {
    task.fpu_loaded_on.store(usize::MAX, Ordering::Relaxed);
    task.work.fetch_or(super::task::LOAD_FPU, Ordering::Relaxed);
}

/// Saves the registers that this processor holds for `task` into its area. Interrupts are off.
pub(super) fn save(task: &Task) {
    // SAFETY: the area has the size that CPUID gives, is 64-byte aligned, and belongs to the running task alone.
    task.with_fpu(|area| unsafe {
        let area = area.as_mut_ptr();
        let features = features::get();
        if features.xsaveopt {
            asm!("xsaveopt64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX, options(nostack));
        } else if features.xsave {
            asm!("xsave64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX, options(nostack));
        } else {
            asm!("fxsave64 [{}]", in(reg) area, options(nostack));
        }
    });
}

/// Loads `task`'s registers. Interrupts are off.
pub(super) fn load(task: &Task) {
    // SAFETY: as for `save`; what is in the area was saved by the processor or checked by `set_image`.
    task.with_fpu(|area| unsafe {
        let area = area.as_ptr();
        if features::get().xsave {
            asm!("xrstor64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX, options(nostack));
        } else {
            asm!("fxrstor64 [{}]", in(reg) area, options(nostack));
        }
    });
    loaded(task);
}

/// The current registers of the running task, as a signal frame holds them.
pub(crate) fn image(task: &Task, out: &mut Vec<u8>) {
    let _irq = crate::irq::disable();
    if core::ptr::eq(descriptors::current_task(), task) && holds(task) {
        save(task);
    }
    task.with_fpu(|area| out.extend_from_slice(area));
}

/// Bytes of an image.
pub(crate) fn size() -> usize {
    layout().size
}

/// Writes the running task's registers to user space; false if that faults. The caller checked that the range is in the user half.
pub(crate) fn to_user(task: &Task, dst: usize) -> bool {
    if save_to_user(task, dst) {
        return true;
    }
    let area = {
        let _irq = crate::irq::disable();
        if holds(task) {
            save(task);
        }
        task.with_fpu(|area| area.as_ptr())
    };
    // SAFETY: the area lives as long as the task, which is the running one. Should the task be switched out while it waits for a page,
    // the area is saved anew with what it holds already: the task has not been in user mode since.
    area.is_some_and(|area| unsafe { super::copy_to_user_raw(dst, area, size()) } == size())
}

/// The quick way of [`to_user`], straight from the registers: false where the memory isn't ready for it, or the registers aren't here.
fn save_to_user(task: &Task, dst: usize) -> bool {
    let _irq = crate::irq::disable();
    features::get().xsave && dst.is_multiple_of(ALIGN) && holds(task) && super::uaccess::user_xsave(dst)
}

/// The quick way of [`from_user`], straight into the registers. Where it fails, they hold nothing of use.
fn load_from_user(task: &Task, src: usize) -> bool {
    let _irq = crate::irq::disable();
    if !features::get().xsave || !src.is_multiple_of(ALIGN) || !super::uaccess::user_xrstor(src) {
        return false;
    }
    loaded(task);
    true
}

/// Reads the running task's registers from `len` bytes of user space (at most [`size`]); false if that faults: then they are in the initial
/// state. What the processor would not take is made harmless.
pub(crate) fn from_user(task: &Task, src: usize, len: usize) -> bool {
    if len == size() && load_from_user(task, src) {
        return true;
    }
    let area = {
        let _irq = crate::irq::disable();
        forget(task);
        task.with_fpu(|area| area.as_mut_ptr())
    };
    let Some(area) = area else { return false };
    // SAFETY: as for `to_user`; since `forget`, no processor saves to or loads from the area until the task's next way to user mode.
    let copied = unsafe { super::copy_from_user_raw(area, src, len.min(size())) };
    let _irq = crate::irq::disable();
    task.with_fpu(|area| if copied == len { clean(area, len) } else { reset(area) });
    copied == len
}

/// Makes an image from user space one that XRSTOR takes: reserved bits of MXCSR and of the header would fault.
fn clean(area: &mut [u8], len: usize) {
    let mxcsr = u32::from_le_bytes([area[24], area[25], area[26], area[27]]) & 0xffff;
    area[24..28].copy_from_slice(&mxcsr.to_le_bytes());
    let header = &mut area[LEGACY..LEGACY + HEADER];
    let claimed = u64::from_le_bytes(header[..8].try_into().unwrap_or([0; 8]));
    let present = if len < LEGACY + HEADER { 3 } else { claimed & layout().mask };
    header.fill(0);
    header[..8].copy_from_slice(&present.to_le_bytes());
}

/// Replaces the running task's registers; false if the image isn't one that the processor would take.
pub(crate) fn set_image(task: &Task, image: &[u8]) -> bool {
    if image.len() < LEGACY || image.len() > size() {
        return false;
    }
    let _irq = crate::irq::disable();
    forget(task);
    task.with_fpu(|area| {
        area[..image.len()].copy_from_slice(image);
        clean(area, image.len());
    });
    true
}

/// Puts the running task's registers into the state of a fresh program.
pub(crate) fn reset_task(task: &Task) {
    let _irq = crate::irq::disable();
    task.with_fpu(reset);
    forget(task);
}

/// Copies the running task's registers to a new task's area.
pub(crate) fn inherit(from: &Task, to: &mut [u8]) {
    let _irq = crate::irq::disable();
    if holds(from) {
        save(from);
    }
    from.with_fpu(|area| to.copy_from_slice(area));
}

/// The components that are switched, for `AT_`-like reports and signal frames.
pub(crate) fn component_mask() -> u64 {
    layout().mask
}
