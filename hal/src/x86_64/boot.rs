//! From the loader's hand-over to the kernel's main function (PVH, `hvm_start_info` of Xen's public headers).

use arrayvec::ArrayVec;
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};

use abi::PAGE_SIZE;

use super::cpu_regs::{read_cr0, read_cr4, write_cr0, write_cr4, wrmsr};
use super::layout::{DIRECT_BASE, KERNEL_BASE};
use super::{acpi, apic, cpu_regs, descriptors, features, fpu, kernel_map, lines, smp, symbols, trap, tsc, uaccess};
use crate::boot;
use crate::frame::{self, FrameMeta};
use crate::sync::{Once, SpinLock};

const MAGIC: u32 = 0x336e_c578;
const RAM: u32 = 1;
/// Nothing below is used but the trampoline's page: firmware and the loader keep their things there.
const LOW_MEMORY: usize = 1 << 20;

type Ranges = ArrayVec<Range<usize>, 32>;

/// Free memory in bytes, page-aligned, until the frame source takes it.
static FREE: SpinLock<Ranges> = SpinLock::new(ArrayVec::new_const());
static INITRD: Once<Range<usize>> = Once::new();
static RSDP: AtomicUsize = AtomicUsize::new(0);

/// Reads a little-endian value at a physical address below 4 GiB, which the boot map shows.
fn read<T: Copy>(physical: usize) -> T {
    // SAFETY: the loader's structures lie in RAM below 4 GiB, which the boot map covers; `T` is a plain integer in all uses.
    unsafe { ((DIRECT_BASE + physical) as *const T).read_unaligned() }
}

/// What the loader handed over, copied out of low memory.
struct Handover {
    ram: Ranges,
    rsdp: usize,
}

/// The first Rust code, called by the boot assembly on the boot stack with the boot page tables.
pub(super) extern "C" fn boot(start_info: usize) -> ! {
    descriptors::early(0);
    crate::console::init();
    // The 8259s may be there, with interrupts that the firmware has used: masked before the local APIC stops passing them on, or one that
    // is pending would stay so for ever.
    cpu_regs::outb(0x21, 0xff);
    cpu_regs::outb(0xa1, 0xff);
    let handover = read_start_info(start_info);
    init_frames(&handover.ram);
    if features::get().nx {
        // SAFETY: the processor has it.
        unsafe { wrmsr(cpu_regs::EFER, cpu_regs::rdmsr(cpu_regs::EFER) | 1 << 11) };
    }
    kernel_map::init(&handover.ram);
    uaccess::init();
    init_cpu(0);
    apic::init();
    fpu::init();
    tsc::init();
    RSDP.store(handover.rsdp, Ordering::Relaxed);
    boot::enter()
}

/// Sets up what every processor needs before interrupts: segments, traps, system calls, protection.
pub(super) fn init_cpu(id: usize) {
    descriptors::install(id);
    let f = features::get();
    let mut cr4 = read_cr4() | 1 << 7;
    for (has, bit) in [(f.smep, 20), (f.smap, 21), (f.umip, 11), (f.fsgsbase, 16)] {
        if has {
            cr4 |= 1 << bit;
        }
    }
    let entry = (&raw const trap::syscall_entry) as u64;
    // SAFETY: each feature is there; none takes a mapping away that the kernel uses. WP makes the kernel respect read-only pages. The
    // system-call entry and selectors are those that `descriptors` and `trap` define; the mask clears IF, TF, DF, AC and NT.
    unsafe {
        write_cr4(cr4);
        write_cr0(read_cr0() | 1 << 16);
        wrmsr(cpu_regs::EFER, cpu_regs::rdmsr(cpu_regs::EFER) | 1 | if f.nx { 1 << 11 } else { 0 });
        wrmsr(cpu_regs::STAR, 0x23 << 48 | u64::from(descriptors::KERNEL_CS) << 32);
        wrmsr(cpu_regs::LSTAR, entry);
        wrmsr(cpu_regs::SFMASK, 0x4_4700);
        if f.rdtscp {
            // What getcpu in the vDSO reads.
            wrmsr(cpu_regs::TSC_AUX, id as u64);
        }
    }
}

fn read_start_info(start_info: usize) -> Handover {
    assert!(read::<u32>(start_info) == MAGIC, "the loader gave no PVH start info: the kernel needs a PVH loader");
    let version: u32 = read(start_info + 4);
    assert!(version >= 1, "the loader gave no memory map (PVH start info version {version})");
    let modules: u32 = read(start_info + 12);
    if modules > 0 {
        let list: u64 = read(start_info + 16);
        let (address, size): (u64, u64) = (read(list as usize), read(list as usize + 8));
        if size > 0 {
            let _ = INITRD.set(address as usize..(address + size) as usize);
        }
    }
    let command_line: u64 = read(start_info + 24);
    if command_line != 0 {
        boot::set_command_line((0..).map(|i| read::<u8>(command_line as usize + i)).take_while(|&b| b != 0));
    }
    let rsdp: u64 = read(start_info + 32);
    let map: u64 = read(start_info + 40);
    let entries: u32 = read(start_info + 48);
    let mut ram = Ranges::new();
    for i in 0..entries as usize {
        let entry = map as usize + i * 24;
        let (address, size, kind): (u64, u64, u32) = (read(entry), read(entry + 8), read(entry + 16));
        let start = (address as usize).next_multiple_of(PAGE_SIZE).max(LOW_MEMORY);
        let end = (address + size) as usize & !(PAGE_SIZE - 1);
        if kind == RAM && start < end {
            let _ = ram.try_push(start..end);
        }
    }
    ram.sort_unstable_by_key(|r| r.start);
    Handover { ram, rsdp: rsdp as usize }
}

/// `ranges` without `hole`.
fn without(ranges: &Ranges, hole: &Range<usize>) -> Ranges {
    let mut left = Ranges::new();
    for range in ranges {
        let before = range.start..range.end.min(hole.start);
        let after = range.start.max(hole.end)..range.end;
        for piece in [before, after] {
            if piece.start < piece.end {
                let _ = left.try_push(piece);
            }
        }
    }
    left
}

/// Makes the frame metadata: all that is not free RAM is reserved.
fn init_frames(ram: &Ranges) {
    let image = symbols::image();
    let mut free = without(ram, &(LOW_MEMORY..image.data.end - KERNEL_BASE));
    if let Some(initrd) = INITRD.get() {
        free = without(&free, &(initrd.start & !(PAGE_SIZE - 1)..initrd.end.next_multiple_of(PAGE_SIZE)));
    }
    let count = ram.last().expect("the memory map has RAM").end / PAGE_SIZE;
    let size = (count * size_of::<FrameMeta>()).next_multiple_of(PAGE_SIZE);
    let home = free
        .iter_mut()
        .find(|r| r.len() > size && r.start + size <= 4 << 30)
        .expect("not enough memory for the frame table");
    let address = home.start;
    home.start += size;
    let metas = (DIRECT_BASE + address) as *mut FrameMeta;
    // SAFETY: the range is free RAM below 4 GiB that was just set aside; zero is a valid `FrameMeta` (all atomics).
    let metas = unsafe {
        core::ptr::write_bytes(metas, 0, count);
        core::slice::from_raw_parts(metas, count)
    };
    let mut next = 0;
    for range in &free {
        metas[next..range.start / PAGE_SIZE].iter().for_each(FrameMeta::reserve);
        next = range.end / PAGE_SIZE;
    }
    metas[next..].iter().for_each(FrameMeta::reserve);
    frame::set_metas(metas);
    *FREE.lock() = free;
}

/// Frames before the frame source is there: from the lowest range with room.
pub(crate) fn boot_alloc(order: u8) -> Option<usize> {
    let size = PAGE_SIZE << order;
    let mut free = FREE.lock();
    for i in 0..free.len() {
        let range = free[i].clone();
        let start = range.start.next_multiple_of(size);
        if start + size > range.end {
            continue;
        }
        free[i].start = start + size;
        if start > range.start {
            // What alignment skipped stays free.
            let _ = free.try_push(range.start..start);
        }
        return Some(start / PAGE_SIZE);
    }
    None
}

/// Nothing is freed before the frame source is there.
pub(crate) fn boot_free(first: usize, order: u8) -> ! {
    panic!("frame {first:#x} (order {order}) is freed before the frame source is registered");
}

pub(crate) fn take_free_ranges() -> Ranges {
    core::mem::take(&mut *FREE.lock())
        .into_iter()
        .map(|r| r.start / PAGE_SIZE..r.end / PAGE_SIZE)
        .filter(|r| !r.is_empty())
        .collect()
}

pub(crate) fn in_initrd(range: Range<usize>) -> bool {
    INITRD.get().is_some_and(|initrd| range.start >= initrd.start && range.end <= initrd.end)
}

/// The initial RAM disk's physical range.
pub(crate) fn initrd() -> Option<Range<usize>> {
    INITRD.get().cloned()
}

/// Reads from the initial RAM disk. The caller checked the range.
pub(crate) fn read_physical(physical: usize, dst: &mut [u8]) {
    assert!(in_initrd(physical..physical + dst.len()));
    // SAFETY: the range is in the initial RAM disk, which is RAM in the direct map; `dst` is ours.
    unsafe { uaccess::copy_bytes(dst.as_mut_ptr(), super::phys_to_virt(physical), dst.len()) };
}

/// Processors, interrupt routing and devices, by ACPI or else by what there is without.
pub(crate) fn discover() -> boot::Machine {
    let rsdp = RSDP.load(Ordering::Relaxed);
    let mut machine = if rsdp == 0 { acpi::Machine::default() } else { acpi::read(rsdp) };
    if machine.apic_ids.is_empty() {
        machine.apic_ids = (0..acpi::fw_cfg_cpus() as u32).collect();
    }
    if machine.io_apics.is_empty() {
        machine.io_apics.push((0xfec0_0000, 0));
    }
    machine.virtio.extend(acpi::from_command_line(boot::command_line()));
    for &(address, gsi) in &machine.io_apics {
        lines::add_io_apic(address, gsi);
    }
    boot::Machine { cpus: machine.apic_ids.len(), virtio_mmio: machine.virtio }
}

/// Starts up to `wanted` processors in all; they wait for [`release_cpus`].
pub(crate) fn start_cpus(wanted: usize) {
    smp::start(wanted);
}

/// Lets them go.
pub(crate) fn release_cpus() {
    smp::release();
}
