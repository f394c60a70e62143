//! The kernel's log: to the first serial port, and kept in memory for `/dev/kmsg` and panic reports.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use crate::arch;
use crate::sync::SpinLock;

/// Bytes kept.
const KEPT: usize = 64 << 10;

struct Ring {
    bytes: [u8; KEPT],
    /// How many were ever written, and how many lines of them are finished.
    written: u64,
    lines: u64,
}

static RING: SpinLock<Ring> = SpinLock::new(Ring { bytes: [0; KEPT], written: 0, lines: 0 });
static QUIET: AtomicBool = AtomicBool::new(false);
static PANICKING: AtomicBool = AtomicBool::new(false);

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
            self.lines += u64::from(byte == b'\n');
        }
        Ok(())
    }
}

impl Ring {
    fn kept_from(&self) -> u64 {
        self.written.saturating_sub(KEPT as u64)
    }

    fn byte(&self, at: u64) -> u8 {
        self.bytes[(at % KEPT as u64) as usize]
    }

    /// The place of the first whole line that is kept.
    fn oldest(&self) -> Cursor {
        let from = self.kept_from();
        let at = match from {
            0 => 0,
            from => (from..self.written).find(|&at| self.byte(at) == b'\n').map_or(self.written, |at| at + 1),
        };
        let behind = (at..self.written).filter(|&at| self.byte(at) == b'\n').count() as u64;
        Cursor { at, line: self.lines - behind }
    }
}

/// A reader's place in the log, always at the beginning of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cursor {
    at: u64,
    line: u64,
}

/// What comes next in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Nothing yet.
    Nothing,
    /// A line that is no longer kept: the reader is at the oldest now.
    Lost,
    /// A line of so many bytes without its end, as much of it as there is room for.
    Line(usize),
}

impl Cursor {
    /// The place of the oldest line that is kept.
    pub fn oldest() -> Cursor {
        RING.lock_irq().oldest()
    }

    /// The place behind the newest line.
    pub fn newest() -> Cursor {
        let ring = RING.lock_irq();
        Cursor { at: ring.written, line: ring.lines }
    }

    /// The number of the line that comes next, counted from the first ever.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Reads a line and goes on to the next.
    pub fn next(&mut self, buffer: &mut [u8]) -> Next {
        let ring = RING.lock_irq();
        if self.at < ring.kept_from() {
            *self = ring.oldest();
            return Next::Lost;
        }
        let Some(end) = (self.at..ring.written).find(|&at| ring.byte(at) == b'\n') else { return Next::Nothing };
        let len = ((end - self.at) as usize).min(buffer.len());
        for (at, byte) in (self.at..).zip(&mut buffer[..len]) {
            *byte = ring.byte(at);
        }
        *self = Cursor { at: end + 1, line: self.line + 1 };
        Next::Line(len)
    }
}

struct Logger;

/// Levels as syslog(2) numbers them.
fn number(level: log::Level) -> u32 {
    match level {
        log::Level::Error => 3,
        log::Level::Warn => 4,
        log::Level::Info => 6,
        log::Level::Debug | log::Level::Trace => 7,
    }
}

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = format_args!("{}: {}", record.target(), record.args());
        write_record(number(record.level()), record.level().as_str(), text);
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

/// Adds a program's record, with a priority as syslog(3) has it.
pub fn write(priority: u32, text: fmt::Arguments) {
    write_record(priority, "USER", text);
}

/// Writes a line with the time: to the log with its priority in front, as syslog(2) shows it, to the port with a word for it.
fn write_record(priority: u32, word: &str, text: fmt::Arguments) {
    let now = crate::clock::now() / 1000;
    let (seconds, micros) = (now / 1_000_000, now % 1_000_000);
    print_each(
        format_args!("<{priority}>[{seconds:5}.{micros:06}] {text}\n"),
        format_args!("[{seconds:5}.{micros:06}] {word:<5} {text}\n"),
    );
}

/// Writes to the log.
pub fn print(text: fmt::Arguments) {
    print_each(text, text);
}

fn print_each(kept: fmt::Arguments, sent: fmt::Arguments) {
    let guard = if PANICKING.load(Ordering::Relaxed) { RING.try_lock() } else { None };
    let irq = crate::irq::disable();
    let mut held = match guard {
        Some(guard) => Some(guard),
        None if PANICKING.load(Ordering::Relaxed) => None,
        None => Some(RING.lock()),
    };
    if let Some(ring) = held.as_deref_mut() {
        let _ = ring.write_fmt(kept);
    }
    if !QUIET.load(Ordering::Relaxed) || PANICKING.load(Ordering::Relaxed) {
        let _ = Port.write_fmt(sent);
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
