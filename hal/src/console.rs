//! The kernel's log: to the first serial port, and kept in memory for `/dev/kmsg` and panic reports.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::arch;
use crate::sync::SpinLock;

/// Bytes kept.
const KEPT: usize = 64 << 10;

struct Ring {
    bytes: [u8; KEPT],
    /// How many were ever written.
    written: u64,
}

static RING: SpinLock<Ring> = SpinLock::new(Ring { bytes: [0; KEPT], written: 0 });
static QUIET: AtomicBool = AtomicBool::new(false);
static PANICKING: AtomicBool = AtomicBool::new(false);
static LINES: AtomicU64 = AtomicU64::new(0);

struct Port;

impl Write for Port {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                arch::serial::send(b'\r');
            }
            arch::serial::send(byte);
        }
        Ok(())
    }
}

impl Write for Ring {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            self.bytes[(self.written % KEPT as u64) as usize] = byte;
            self.written += 1;
        }
        Ok(())
    }
}

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let now = crate::clock::now() / 1000;
        LINES.fetch_add(1, Ordering::Relaxed);
        print(format_args!(
            "[{:5}.{:06}] {:<5} {}: {}\n",
            now / 1_000_000,
            now % 1_000_000,
            record.level(),
            record.target(),
            record.args()
        ));
    }

    fn flush(&self) {}
}

static LOGGER: Logger = Logger;

/// Sets the port up and makes the `log` crate's macros write here.
pub(crate) fn init() {
    arch::serial::init();
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(log::LevelFilter::Info);
}

/// Keeps the log in memory only: lines no longer go to the port (panics still do).
pub fn set_quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// Writes to the log.
pub fn print(text: fmt::Arguments) {
    let guard = if PANICKING.load(Ordering::Relaxed) { RING.try_lock() } else { None };
    let irq = crate::irq::disable();
    let mut held = match guard {
        Some(guard) => Some(guard),
        None if PANICKING.load(Ordering::Relaxed) => None,
        None => Some(RING.lock()),
    };
    if let Some(ring) = held.as_deref_mut() {
        let _ = ring.write_fmt(text);
    }
    if !QUIET.load(Ordering::Relaxed) || PANICKING.load(Ordering::Relaxed) {
        let _ = Port.write_fmt(text);
    }
    drop(held);
    drop(irq);
}

/// From now on locks are not waited for: the holder may be the one that panicked. False if a panic is under way already.
pub fn begin_panic() -> bool {
    !PANICKING.swap(true, Ordering::AcqRel)
}

/// Copies what the log holds from byte number `from` on; gives the bytes and the number of the next one.
pub fn read(from: u64, dst: &mut [u8]) -> (usize, u64) {
    let ring = RING.lock_irq();
    let start = from.max(ring.written.saturating_sub(KEPT as u64));
    let len = ((ring.written - start.min(ring.written)) as usize).min(dst.len());
    for (i, byte) in dst[..len].iter_mut().enumerate() {
        *byte = ring.bytes[((start + i as u64) % KEPT as u64) as usize];
    }
    (len, start + len as u64)
}
