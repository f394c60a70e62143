//! The clock: the time-stamp counter, scaled to nanoseconds; and the per-processor timer.

use core::sync::atomic::{AtomicU64, Ordering};

use super::cpu_regs::{inb, outb, rdtsc};
use super::{apic, features};

/// The LAPIC timer of QEMU's TCG counts nanoseconds.
const TCG_APIC_HZ: u64 = 1_000_000_000;
const PIT_HZ: u64 = 1_193_182;

/// Nanoseconds = (tsc - START) * SCALE >> 32.
static SCALE: AtomicU64 = AtomicU64::new(0);
static START: AtomicU64 = AtomicU64::new(0);
/// Time-stamps in a second.
static RATE: AtomicU64 = AtomicU64::new(0);
/// LAPIC timer ticks in 2^32 nanoseconds.
static APIC_SCALE: AtomicU64 = AtomicU64::new(0);
static REALTIME_OFFSET: AtomicU64 = AtomicU64::new(0);

#[inline]
pub(crate) fn now() -> u64 {
    let since = rdtsc().wrapping_sub(START.load(Ordering::Relaxed));
    ((u128::from(since) * u128::from(SCALE.load(Ordering::Relaxed))) >> 32) as u64
}

/// The time-stamp at boot, and nanoseconds in 2^32 time-stamps.
pub(super) fn parameters() -> (u64, u64) {
    (START.load(Ordering::Relaxed), SCALE.load(Ordering::Relaxed))
}

pub(crate) fn realtime_offset() -> u64 {
    REALTIME_OFFSET.load(Ordering::Relaxed)
}

pub(crate) fn set_realtime_offset(offset: u64) {
    REALTIME_OFFSET.store(offset, Ordering::Relaxed);
    super::vdso::update();
}

/// Sets the timer of this processor to fire at `deadline` (as [`now`] counts).
pub(crate) fn set_timer(deadline: Option<u64>) {
    let Some(deadline) = deadline else {
        apic::disarm_timer();
        return;
    };
    let wait = deadline.saturating_sub(now()).min(u64::from(u32::MAX));
    let ticks = (u128::from(wait) * u128::from(APIC_SCALE.load(Ordering::Relaxed))) >> 32;
    let stamps = (u128::from(wait) * u128::from(RATE.load(Ordering::Relaxed)) / 1_000_000_000) as u64;
    apic::arm_timer(u32::try_from(ticks).unwrap_or(u32::MAX), rdtsc() + stamps);
}

/// Finds the rates of the counter and of the LAPIC timer, and the time of day.
pub(super) fn init() {
    START.store(rdtsc(), Ordering::Relaxed);
    let (tsc_hz, apic_hz) = calibrate();
    RATE.store(tsc_hz, Ordering::Relaxed);
    SCALE.store(((1_000_000_000u128 << 32) / u128::from(tsc_hz)) as u64, Ordering::Relaxed);
    APIC_SCALE.store(((u128::from(apic_hz) << 32) / 1_000_000_000) as u64, Ordering::Relaxed);
    if let Some(seconds) = real_time_clock() {
        set_realtime_offset(seconds.wrapping_mul(1_000_000_000).wrapping_sub(now()));
    }
}

/// Hertz of the time-stamp counter and of the LAPIC timer.
fn calibrate() -> (u64, u64) {
    if features::get().tcg {
        let (stamps, ticks) = measure(|| apic::count() < u32::MAX - 2_000_000);
        return (stamps * TCG_APIC_HZ / ticks, TCG_APIC_HZ);
    }
    let known = features::get().tsc_khz.map(|khz| u64::from(khz) * 1000);
    if let Some(tsc_hz) = known {
        let begin = rdtsc();
        let (stamps, ticks) = measure(|| rdtsc() - begin > tsc_hz / 1000);
        return (tsc_hz, ticks * tsc_hz / stamps);
    }
    let wait = PIT_HZ / 100;
    start_pit(wait as u16);
    let (stamps, ticks) = measure(|| inb(0x61) & 0x20 != 0);
    (stamps * 100, ticks * 100)
}

/// Counts time-stamps and timer ticks until `done`, or for a second's worth of stamps on the slowest machine.
fn measure(done: impl Fn() -> bool) -> (u64, u64) {
    apic::start_count();
    let begin = rdtsc();
    while !done() && rdtsc() - begin < 2_000_000_000 {
        core::hint::spin_loop();
    }
    let stamps = rdtsc() - begin;
    let ticks = u64::from(u32::MAX - apic::count());
    apic::stop_count();
    (stamps.max(1), ticks.max(1))
}

/// Lets the legacy timer's channel 2 count down from `count`; port 0x61 bit 5 shows the end.
fn start_pit(count: u16) {
    outb(0x61, inb(0x61) & !2 | 1);
    outb(0x43, 0xb0);
    outb(0x42, count as u8);
    outb(0x42, (count >> 8) as u8);
}

/// Seconds since 1970 by the CMOS clock; `None` where there is none.
fn real_time_clock() -> Option<u64> {
    let register = |r: u8| {
        outb(0x70, r);
        inb(0x71)
    };
    if register(0x0b) == 0xff {
        return None;
    }
    let read = || {
        while register(0x0a) & 0x80 != 0 {
            core::hint::spin_loop();
        }
        [0, 2, 4, 7, 8, 9, 0x32].map(register)
    };
    let mut values = read();
    loop {
        let again = read();
        if again == values {
            break;
        }
        values = again;
    }
    let mode = register(0x0b);
    let binary = |v: u8| {
        if mode & 4 != 0 { u64::from(v) } else { u64::from(v >> 4) * 10 + u64::from(v & 15) }
    };
    let [second, minute, hour, day, month, year, century] = values;
    let pm = mode & 2 == 0 && hour & 0x80 != 0;
    let hour = binary(hour & 0x7f) % if mode & 2 == 0 { 12 } else { 24 } + if pm { 12 } else { 0 };
    let century = Some(binary(century)).filter(|c| (19..=25).contains(c)).unwrap_or(20);
    let days = days_since_1970(century * 100 + binary(year), binary(month), binary(day));
    Some(((days * 24 + hour) * 60 + binary(minute)) * 60 + binary(second))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar (years count from March, so that leap days come last).
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    (y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day).saturating_sub(719_469)
}
