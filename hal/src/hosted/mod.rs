//! The stand-in for a machine when the kernel's crates are tested as host programs: memory and locks work, nothing runs or traps.

pub(crate) mod page_table;
pub(crate) mod task;

use std::ops::Range;
use std::sync::Mutex;

use abi::PAGE_SIZE;

use crate::boot::End;
use crate::frame::FrameMeta;
use crate::irq::{Handler, Line};

/// Frames of the simulated memory: 64 MiB.
const FRAMES: usize = 16384;

struct Memory {
    base: usize,
    free: Vec<usize>,
}

static MEMORY: Mutex<Option<Memory>> = Mutex::new(None);

/// Memory is made at first use; frames beyond the reserved number 0 are free.
fn with_memory<R>(f: impl FnOnce(&mut Memory) -> R) -> R {
    let mut memory = MEMORY.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let memory = memory.get_or_insert_with(|| {
        let bytes: &'static mut [u8] = Vec::leak(vec![0; (FRAMES + 1) * PAGE_SIZE]);
        let metas: Vec<FrameMeta> = (0..FRAMES).map(|_| FrameMeta::for_tests()).collect();
        metas[0].reserve();
        crate::frame::set_metas(metas.leak());
        let base = (bytes.as_ptr().expose_provenance()).next_multiple_of(PAGE_SIZE);
        Memory { base, free: (1..FRAMES).rev().collect() }
    });
    f(memory)
}

pub(crate) fn phys_to_virt(physical: usize) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(with_memory(|m| m.base) + physical)
}

pub(crate) fn virt_to_phys(virt: *const u8) -> usize {
    virt.addr() - with_memory(|m| m.base)
}

pub(crate) fn boot_alloc(order: u8) -> Option<usize> {
    with_memory(|m| match order {
        0 => m.free.pop(),
        // The highest free numbers, which are still in order, serve for blocks.
        _ => {
            let count = 1 << order;
            let first = (1..FRAMES - count)
                .rev()
                .find(|n| n.is_multiple_of(count) && (*n..n + count).all(|i| m.free.contains(&i)))?;
            m.free.retain(|i| !(first..first + count).contains(i));
            Some(first)
        }
    })
}

pub(crate) fn boot_free(first: usize, order: u8) {
    with_memory(|m| m.free.extend(first..first + (1 << order)));
}

pub(crate) fn take_free_ranges() -> arrayvec::ArrayVec<Range<usize>, 32> {
    arrayvec::ArrayVec::new()
}

pub(crate) fn in_initrd(_: Range<usize>) -> bool {
    false
}

pub(crate) fn initrd() -> Option<Range<usize>> {
    None
}

pub(crate) fn read_initrd(_: usize, _: &mut [u8]) {
    unreachable!("there is no initial RAM disk on the host")
}

pub(crate) fn start_cpus(_: usize) {}
pub(crate) fn release_cpus() {}
pub(crate) fn stop_others() {}
pub(crate) fn backtrace(_: impl FnMut(usize)) {}

pub(crate) fn end(how: End) -> ! {
    panic!("the machine ends: {how:?}")
}

pub(crate) fn vdso_pages() -> Option<(crate::frame::Frame, crate::frame::Frame)> {
    None
}

pub(crate) fn stack_bytes() -> usize {
    0
}

pub(crate) fn map_device(_: usize, _: usize) -> usize {
    unreachable!("there are no devices on the host")
}

pub(crate) fn cpu_id() -> usize {
    0
}

pub(crate) fn halt_with_interrupts() {
    panic!("a hosted test waits for an interrupt");
}

pub(crate) fn send_reschedule(_: usize) {}
pub(crate) fn barrier_everywhere() {}

pub(crate) fn caches() -> Vec<crate::cpu::Cache> {
    Vec::new()
}

pub(crate) fn user_capabilities() -> [u64; 2] {
    [0; 2]
}

pub(crate) fn irq_save() -> bool {
    false
}

pub(crate) fn irq_enable() {}

pub(crate) fn irq_enabled() -> bool {
    true
}

pub(crate) fn register_irq(_: Line, _: Handler) -> bool {
    false
}

pub(crate) fn allocate_msi() -> Option<(Line, u64, u32)> {
    None
}

pub(crate) fn for_each_irq_count(_: &mut dyn FnMut(u8, &'static str, usize, u64)) {}

/// # Safety
/// As for `core::ptr::copy`.
pub(crate) unsafe fn copy_bytes(dst: *mut u8, src: *const u8, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { core::ptr::copy(src, dst, len) };
}

/// # Safety
/// `dst` must be valid for writes of `len` bytes.
pub(crate) unsafe fn zero_bytes(dst: *mut u8, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { core::ptr::write_bytes(dst, 0, len) };
}

/// # Safety
/// `dst` must be a whole page.
pub(crate) unsafe fn zero_page(dst: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe { zero_bytes(dst, PAGE_SIZE) };
}

/// # Safety
/// Both must be whole pages.
pub(crate) unsafe fn copy_page(dst: *mut u8, src: *const u8) {
    // SAFETY: the caller's promise.
    unsafe { copy_bytes(dst, src, PAGE_SIZE) };
}

/// There is no user space: every access faults.
///
/// # Safety
/// None needed; as on the target.
pub(crate) unsafe fn copy_from_user_raw(_: *mut u8, _: usize, _: usize) -> usize {
    0
}

/// As [`copy_from_user_raw`].
///
/// # Safety
/// None needed; as on the target.
pub(crate) unsafe fn copy_to_user_raw(_: usize, _: *const u8, _: usize) -> usize {
    0
}

pub(crate) fn copy_from_user(_: &mut [u8], _: usize) -> usize {
    0
}

pub(crate) fn copy_to_user(_: usize, _: &[u8]) -> usize {
    0
}

pub(crate) fn clear_user(_: usize, _: usize) -> usize {
    0
}

pub(crate) fn user_load_u32(_: usize) -> Option<u32> {
    None
}

pub(crate) fn user_cmpxchg_u32(_: usize, _: u32, _: u32) -> Option<u32> {
    None
}

pub(crate) mod serial {
    pub(crate) fn init() {}

    pub(crate) fn send(byte: u8) {
        eprint!("{}", byte as char);
    }
}

pub(crate) mod random {
    use std::hash::{BuildHasher, Hasher};

    pub(crate) fn seed() -> u64 {
        std::hash::RandomState::new().build_hasher().finish()
    }
}

pub(crate) mod pci {
    pub(crate) fn read(_: u8, _: u8, _: u8, _: u8) -> u32 {
        u32::MAX
    }

    pub(crate) fn write(_: u8, _: u8, _: u8, _: u8, _: u32) {}
}

pub(crate) mod tsc {
    use std::time::{Instant, SystemTime, UNIX_EPOCH};

    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);

    pub(crate) fn now() -> u64 {
        START.elapsed().as_nanos() as u64
    }

    pub(crate) fn realtime_offset() -> u64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        since_epoch - now()
    }

    pub(crate) fn set_realtime_offset(_: u64) {}
    pub(crate) fn set_timer(_: Option<u64>) {}
}
