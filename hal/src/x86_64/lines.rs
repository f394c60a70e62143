//! Device interrupts: which vector belongs to which line, and the I/O APICs that route lines.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use super::{descriptors, kernel_map};
use crate::cpu::{MAX_CPUS, PerCpu};
use crate::irq::{Handler, Line};
use crate::sync::{Once, SpinLock};

const FIRST_VECTOR: u8 = 0x30;
const LAST_VECTOR: u8 = 0xdf;
const VECTORS: usize = (LAST_VECTOR - FIRST_VECTOR + 1) as usize;

struct IoApic {
    base: usize,
    first_gsi: u32,
    inputs: u32,
}

struct Routes {
    io_apics: Vec<IoApic>,
    /// The line of each vector that was given out, in order from `FIRST_VECTOR`.
    lines: Vec<Line>,
}

static ROUTES: SpinLock<Routes> = SpinLock::new(Routes { io_apics: Vec::new(), lines: Vec::new() });
static HANDLERS: [Once<Handler>; VECTORS] = [const { Once::new() }; VECTORS];
static COUNTS: PerCpu<[AtomicU64; 256]> = crate::per_cpu!([const { AtomicU64::new(0) }; 256]);

/// Adds an I/O APIC that the firmware tells of, all inputs masked.
pub(super) fn add_io_apic(physical: usize, first_gsi: u32) {
    let base = kernel_map::map_device(physical, 4096);
    let inputs = (io_apic_read(base, 1) >> 16 & 0xff) + 1;
    for input in 0..inputs {
        io_apic_write(base, 0x10 + 2 * input, 1 << 16);
    }
    ROUTES.lock().io_apics.push(IoApic { base, first_gsi, inputs });
}

fn io_apic_read(base: usize, register: u32) -> u32 {
    // SAFETY: `add_io_apic` mapped the register window; the index/data pair is used under the routes' lock or at boot.
    unsafe {
        (base as *mut u32).write_volatile(register);
        ((base + 0x10) as *const u32).read_volatile()
    }
}

fn io_apic_write(base: usize, register: u32, value: u32) {
    // SAFETY: as for `io_apic_read`.
    unsafe {
        (base as *mut u32).write_volatile(register);
        ((base + 0x10) as *mut u32).write_volatile(value);
    }
}

/// The next free vector, noted for `line`.
fn allocate(routes: &mut Routes, line: impl FnOnce(u8) -> Line) -> Option<u8> {
    let vector = FIRST_VECTOR.checked_add(u8::try_from(routes.lines.len()).ok()?)?;
    if vector > LAST_VECTOR {
        return None;
    }
    routes.lines.push(line(vector));
    Some(vector)
}

pub(crate) fn register(line: Line, handler: Handler) -> bool {
    let mut routes = ROUTES.lock();
    let Line::Gsi { number, level, low } = line else {
        let Line::Msi(vector) = line else {
            return false;
        };
        return (FIRST_VECTOR..=LAST_VECTOR).contains(&vector) && set_handler(vector, handler);
    };
    let Some(vector) = allocate(&mut routes, |_| line) else {
        return false;
    };
    let Some(chip) = routes.io_apics.iter().find(|c| (c.first_gsi..c.first_gsi + c.inputs).contains(&number)) else {
        return false;
    };
    let (base, input) = (chip.base, number - chip.first_gsi);
    if !set_handler(vector, handler) {
        return false;
    }
    let target = descriptors::area(0).apic_id.load(Ordering::Relaxed);
    io_apic_write(base, 0x11 + 2 * input, target << 24);
    io_apic_write(base, 0x10 + 2 * input, u32::from(vector) | u32::from(low) << 13 | u32::from(level) << 15);
    true
}

fn set_handler(vector: u8, handler: Handler) -> bool {
    HANDLERS[usize::from(vector - FIRST_VECTOR)].set(handler).is_ok()
}

pub(crate) fn allocate_msi() -> Option<(Line, u64, u32)> {
    let vector = allocate(&mut ROUTES.lock(), Line::Msi)?;
    let target = u64::from(descriptors::area(0).apic_id.load(Ordering::Relaxed));
    Some((Line::Msi(vector), 0xfee0_0000 | target << 12, u32::from(vector)))
}

/// Runs the handler of a vector.
pub(super) fn dispatch(vector: u8) {
    if let Some(handler) =
        vector.checked_sub(FIRST_VECTOR).and_then(|i| HANDLERS.get(usize::from(i))).and_then(Once::get)
    {
        handler();
    }
}

pub(super) fn count(vector: u8) {
    COUNTS.get()[usize::from(vector)].fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn for_each_count(f: &mut dyn FnMut(u8, &'static str, usize, u64)) {
    let names = [
        (super::apic::TIMER_VECTOR, "LOC"),
        (super::apic::RESCHEDULE_VECTOR, "RES"),
        (super::apic::FLUSH_VECTOR, "TLB"),
        (2, "NMI"),
    ];
    let given_out = ROUTES.lock().lines.len();
    let devices = (0..given_out).map(|i| (FIRST_VECTOR + i as u8, ""));
    for (vector, name) in devices.chain(names) {
        for cpu in 0..crate::cpu::count().min(MAX_CPUS) {
            f(vector, name, cpu, COUNTS.of(cpu)[usize::from(vector)].load(Ordering::Relaxed));
        }
    }
}
