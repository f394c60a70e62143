//! Starting the other processors.

use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::{apic, cpu_regs, descriptors, fpu, kernel_map, symbols, tsc};
use crate::cpu::{self, MAX_CPUS};
use crate::frame::FrameBlock;
use crate::hooks;

unsafe extern "C" {
    static ap_planned: AtomicU32;
    static ap_stacks: [AtomicU64; MAX_CPUS];
}

/// A page below 1 MiB that the kernel keeps for the trampoline.
pub(super) const TRAMPOLINE: usize = 0x8000;
/// Log2 of the pages in the stack on which a processor's idle thread lives.
const STACK_ORDER: u8 = 3;

static ARRIVED: AtomicUsize = AtomicUsize::new(1);
static GO: AtomicUsize = AtomicUsize::new(0);

/// Starts up to `wanted` - 1 further processors and waits (a second at most) until they stand ready; they go on at [`release`].
pub(super) fn start(wanted: usize) {
    let wanted = wanted.min(MAX_CPUS);
    if wanted < 2 {
        return;
    }
    // SAFETY: these statics are defined by the boot assembly with just these shapes.
    let (planned, stacks) = unsafe { (&ap_planned, &ap_stacks) };
    for stack in &stacks[1..wanted] {
        let Some(memory) = FrameBlock::alloc(STACK_ORDER) else {
            return;
        };
        stack.store(memory.as_ptr() as u64 + memory.size() as u64, Ordering::Relaxed);
        memory.into_first();
    }
    planned.store(wanted as u32, Ordering::Release);
    copy_trampoline();
    apic::broadcast_init();
    wait(100_000);
    for _ in 0..2 {
        apic::broadcast_startup((TRAMPOLINE >> 12) as u8);
        let deadline = tsc::now() + 500_000_000;
        while ARRIVED.load(Ordering::Acquire) < wanted && tsc::now() < deadline {
            core::hint::spin_loop();
        }
        if ARRIVED.load(Ordering::Acquire) == wanted {
            break;
        }
    }
    cpu::set_count(ARRIVED.load(Ordering::Acquire));
}

fn wait(nanos: u64) {
    let deadline = tsc::now() + nanos;
    while tsc::now() < deadline {
        core::hint::spin_loop();
    }
}

fn copy_trampoline() {
    let (start, end) = (symbols::trampoline(), symbols::trampoline_limit());
    let page = kernel_map::map_device(TRAMPOLINE, 4096);
    for i in 0..end - start {
        // SAFETY: the page is free low memory that the kernel keeps for this; the source is in the image's read-only data.
        unsafe { ((page + i) as *mut u8).write_volatile(((start + i) as *const u8).read()) };
    }
}

/// Lets the waiting processors enter their idle loops.
pub(super) fn release() {
    GO.store(1, Ordering::Release);
}

/// The first Rust code of another processor, on its own stack but still with the boot page tables.
pub(super) extern "C" fn secondary(id: usize) -> ! {
    // SAFETY: the kernel's map holds all that runs from here on.
    unsafe { cpu_regs::write_cr3(kernel_map::physical()) };
    // Locks ask which task runs here.
    descriptors::early(id);
    super::boot::init_cpu(id);
    apic::init();
    fpu::init();
    descriptors::area(id).apic_id.store(apic::id(), Ordering::Relaxed);
    ARRIVED.fetch_add(1, Ordering::AcqRel);
    while GO.load(Ordering::Acquire) == 0 {
        core::hint::spin_loop();
    }
    (hooks::get().secondary_main)()
}
