//! Segment and interrupt descriptors, and the per-processor area that `gs` points to in the kernel.

use core::arch::{asm, global_asm};
use core::mem::offset_of;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize};

use super::cpu_regs::{GS_BASE, KERNEL_GS_BASE, wrmsr};
use crate::cpu::MAX_CPUS;
use crate::frame::FrameBlock;
use crate::sync::Once;
use crate::task::Task;

pub(super) const KERNEL_CS: u16 = 0x10;
pub(super) const KERNEL_SS: u16 = 0x18;
const TSS_SELECTOR: u16 = 0x40;

/// Interrupt stacks for faults that can't trust the current one: double fault, NMI, machine check.
const IST_COUNT: usize = 3;
const IST_ORDER: u8 = 2;

#[repr(C, packed(4))]
struct Tss {
    reserved0: u32,
    rsp: [u64; 3],
    reserved1: u64,
    ist: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    io_map: u16,
}

/// What assembly finds through `gs`. Only its own processor changes it.
#[repr(C, align(64))]
pub(super) struct CpuArea {
    /// Where `syscall` puts the stack pointer: the top of the current thread's kernel stack.
    pub(super) kernel_rsp: AtomicUsize,
    /// The user's stack pointer, for the few instructions until it is on the kernel stack.
    pub(super) user_rsp: AtomicUsize,
    pub(super) id: AtomicUsize,
    /// The running task; null until the scheduler has adopted the boot thread.
    pub(super) current: AtomicPtr<Task>,
    /// The scheduler's thread that the running task is part of ([`crate::task::Running`]).
    pub(super) thread: AtomicPtr<()>,
    pub(super) apic_id: AtomicU32,
    tss: core::cell::UnsafeCell<Tss>,
    gdt: core::cell::UnsafeCell<[u64; 10]>,
}

// SAFETY: all but `tss` and `gdt` is atomic; those are only touched by their own processor, in `install` and `set_kernel_stack`.
unsafe impl Sync for CpuArea {}

pub(super) const KERNEL_RSP: usize = offset_of!(CpuArea, kernel_rsp);
pub(super) const USER_RSP: usize = offset_of!(CpuArea, user_rsp);
const ID: usize = offset_of!(CpuArea, id);
const CURRENT: usize = offset_of!(CpuArea, current);
const THREAD: usize = offset_of!(CpuArea, thread);

#[allow(clippy::declare_interior_mutable_const, reason = "a template for the array, never used in place")]
const NEW_AREA: CpuArea = CpuArea {
    kernel_rsp: AtomicUsize::new(0),
    user_rsp: AtomicUsize::new(0),
    id: AtomicUsize::new(0),
    current: AtomicPtr::new(core::ptr::null_mut()),
    thread: AtomicPtr::new(core::ptr::null_mut()),
    apic_id: AtomicU32::new(0),
    tss: core::cell::UnsafeCell::new(Tss {
        reserved0: 0,
        rsp: [0; 3],
        reserved1: 0,
        ist: [0; 7],
        reserved2: 0,
        reserved3: 0,
        io_map: size_of::<Tss>() as u16,
    }),
    gdt: core::cell::UnsafeCell::new([
        0,
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00cf_fb00_0000_ffff,
        0x00cf_f300_0000_ffff,
        0x00af_fb00_0000_ffff,
        0,
        0,
        0,
    ]),
};

static AREAS: [CpuArea; MAX_CPUS] = [const { NEW_AREA }; MAX_CPUS];

/// Processor `id`'s area.
pub(super) fn area(id: usize) -> &'static CpuArea {
    &AREAS[id]
}

/// The number of this processor.
#[inline]
pub(crate) fn cpu_id() -> usize {
    let id;
    // SAFETY: `gs` points to this processor's area from the first lines of `boot` and `secondary` on.
    unsafe { asm!("mov {}, gs:[{}]", out(reg) id, const ID, options(nostack, preserves_flags, readonly)) };
    id
}

/// The running task of this processor.
#[inline]
pub(super) fn current_task() -> *const Task {
    let task;
    // SAFETY: as for `cpu_id`.
    unsafe { asm!("mov {}, gs:[{}]", out(reg) task, const CURRENT, options(nostack, preserves_flags, readonly)) };
    task
}

/// The running thread of this processor: one load, so that it is right whatever interrupts come.
#[inline]
pub(super) fn current_thread() -> *const () {
    let thread;
    // SAFETY: as for `cpu_id`.
    unsafe { asm!("mov {}, gs:[{}]", out(reg) thread, const THREAD, options(nostack, preserves_flags, readonly)) };
    thread
}

/// Points `gs` of the boot processor at its area, so that `cpu_id` works before anything else is set up.
pub(super) fn early(id: usize) {
    let area = area(id);
    area.id.store(id, core::sync::atomic::Ordering::Relaxed);
    // SAFETY: the area is static, and the kernel uses `gs` for nothing else.
    unsafe {
        wrmsr(GS_BASE, (&raw const *area) as u64);
        wrmsr(KERNEL_GS_BASE, 0);
    }
}

/// Sets up this processor's segments, interrupt stacks and interrupt table. Needs the frame allocator.
pub(super) fn install(id: usize) {
    let area = area(id);
    // SAFETY: only this processor touches its own TSS and GDT, and only here and in `set_kernel_stack`.
    let (tss, gdt) = unsafe { (&mut *area.tss.get(), &mut *area.gdt.get()) };
    for i in 0..IST_COUNT {
        let stack = FrameBlock::alloc(IST_ORDER).expect("memory for interrupt stacks at boot");
        tss.ist[i] = stack.as_ptr() as u64 + stack.size() as u64;
        stack.into_first();
    }
    let base = (&raw const *tss) as u64;
    let limit = size_of::<Tss>() as u64 - 1;
    gdt[8] = limit | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56;
    gdt[9] = base >> 32;
    let pointer = Pointer { limit: (size_of::<[u64; 10]>() - 1) as u16, base: (&raw const *gdt) as u64 };
    // SAFETY: the table holds the selectors that the kernel uses, is static, and the far return reloads cs from it. The loads of fs
    // and gs selectors clear gs's base, which `early` sets again below.
    unsafe {
        asm!("lgdt [{}]", in(reg) &raw const pointer, options(nostack, preserves_flags));
        asm!(
            "push {cs}", "lea {tmp}, [rip + 2f]", "push {tmp}", "retfq", "2:",
            "mov ds, {ss:e}", "mov es, {ss:e}", "mov ss, {ss:e}", "mov fs, {zero:e}", "mov gs, {zero:e}",
            cs = in(reg) u64::from(KERNEL_CS), ss = in(reg) u32::from(KERNEL_SS), zero = in(reg) 0u32, tmp = out(reg) _,
        );
    }
    early(id);
    // SAFETY: the descriptor is in place, and the interrupt table is static with all handlers valid.
    unsafe {
        asm!("ltr {:x}", in(reg) TSS_SELECTOR, options(nostack, preserves_flags));
        let pointer = Pointer { limit: (256 * 16 - 1) as u16, base: idt().as_ptr() as u64 };
        asm!("lidt [{}]", in(reg) &raw const pointer, options(nostack, preserves_flags));
    }
}

/// Where entries from user mode find the kernel stack from now on. Interrupts are off.
#[inline]
pub(super) fn set_kernel_stack(top: usize) {
    let area = area(cpu_id());
    area.kernel_rsp.store(top, core::sync::atomic::Ordering::Relaxed);
    // SAFETY: only this processor touches its TSS, and interrupts are off.
    unsafe { (*area.tss.get()).rsp[0] = top as u64 };
}

#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

static IDT: Once<[[u64; 2]; 256]> = Once::new();

fn idt() -> &'static [[u64; 2]; 256] {
    IDT.get_or_init(|| {
        let stubs = (&raw const interrupt_stubs) as u64;
        core::array::from_fn(|vector| {
            let handler = stubs + vector as u64 * STUB_SIZE;
            let ist = match vector {
                8 => 1,
                2 => 2,
                18 => 3,
                _ => 0,
            };
            // Breakpoint and overflow may be raised by user mode.
            let dpl = if vector == 3 || vector == 4 { 3u64 } else { 0 };
            let low = handler & 0xffff
                | u64::from(KERNEL_CS) << 16
                | ist << 32
                | 0x8e << 40
                | dpl << 45
                | (handler >> 16 & 0xffff) << 48;
            [low, handler >> 32]
        })
    })
}

const STUB_SIZE: u64 = 16;

unsafe extern "C" {
    static interrupt_stubs: u8;
}

// One stub of 16 bytes a vector: pushes an error code where the processor doesn't, and the vector.
global_asm!(
    r#"
.section .text
.align 16
.global interrupt_stubs
interrupt_stubs:
.set vector, 0
.rept 256
    .align 16
    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30
    .else
    push 0
    .endif
    .byte 0x68
    .long vector
    jmp interrupt_entry
    .set vector, vector + 1
.endr
"#
);
