//! `/dev/kmsg`: the kernel's log, a record for each read, and what programs add to it (the kernel's ABI document of dev-kmsg).

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Events, Nanos, Result};
use hal::console::{Cursor, Next};
use mm::{Sink, Source};
use sched::{Sleep, WaitError, WaitQueue};

use crate::{File, Io, PollTable, SeekFrom};

/// The longest record (Linux's LOG_LINE_MAX).
const RECORD_MAX: usize = 992;
/// LOG_USER | LOG_WARNING: what a program's record has that does not say.
const USER: u32 = 1 << 3;
const DEFAULT_LEVEL: u32 = 4;
/// The log is written from where nobody can be woken: who waits looks again this often.
const LOOK_AGAIN: Nanos = 50_000_000;

/// An open `/dev/kmsg`.
pub(super) struct Kmsg {
    at: sched::Mutex<Cursor>,
    waiters: WaitQueue,
}

impl Kmsg {
    pub(super) fn open() -> Arc<dyn File> {
        Arc::new(Kmsg { at: sched::Mutex::new(Cursor::oldest()), waiters: WaitQueue::new() })
    }

    fn wait(&self) -> Result<()> {
        let deadline = Some(sched::time::now() + LOOK_AGAIN);
        match self.waiters.wait_until(Sleep::Interruptible, deadline, || None::<()>) {
            Err(WaitError::Interrupted) => Err(Errno::ERESTARTSYS),
            _ => Ok(()),
        }
    }
}

/// Takes `<N>` off the front of a line.
fn priority(line: &[u8]) -> Option<(u32, &[u8])> {
    let end = line.iter().take(6).position(|&byte| byte == b'>')?;
    let number = core::str::from_utf8(line.get(1..end)?).ok()?.parse().ok()?;
    (line.first() == Some(&b'<')).then(|| (number, &line[end + 1..]))
}

/// Takes `[seconds.micros] ` off the front of a line.
fn time(line: &[u8]) -> Option<(u64, &[u8])> {
    let end = line.iter().take(32).position(|&byte| byte == b']')?;
    let (seconds, micros) = core::str::from_utf8(line.get(1..end)?).ok()?.trim().split_once('.')?;
    let time = seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?;
    (line.first() == Some(&b'[')).then(|| (time, line[end + 1..].trim_ascii_start()))
}

/// The record of a line: its priority, number and time in microseconds, then its text, in which what is no plain text is escaped.
fn record(line: &[u8], number: u64) -> Vec<u8> {
    let (level, rest) = priority(line).unwrap_or((6, line));
    let (time, text) = time(rest).unwrap_or((0, rest));
    let mut record = format!("{level},{number},{time},-;");
    for &byte in text {
        match byte {
            b'\\' | 0..b' ' | 127.. => record.push_str(&format!("\\x{byte:02x}")),
            _ => record.push(char::from(byte)),
        }
    }
    record.push('\n');
    record.into_bytes()
}

impl File for Kmsg {
    /// One record. `EINVAL` where it does not fit, `EPIPE` where the next has been overwritten, `EAGAIN`.
    fn read(&self, sink: &mut Sink, io: &mut Io) -> Result<usize> {
        let mut line = [0; RECORD_MAX];
        loop {
            let mut at = self.at.lock();
            let (before, number) = (*at, at.line());
            match at.next(&mut line) {
                Next::Line(len) => {
                    let record = record(&line[..len], number);
                    if record.len() > sink.remaining() {
                        *at = before;
                        return Err(Errno::EINVAL);
                    }
                    return sink.put(&record);
                }
                Next::Lost => return Err(Errno::EPIPE),
                Next::Nothing if io.nonblocking() => return Err(Errno::EAGAIN),
                Next::Nothing => {}
            }
            drop(at);
            self.wait()?;
        }
    }

    fn write(&self, source: &mut Source, _io: &mut Io) -> Result<usize> {
        let len = source.remaining();
        if len > RECORD_MAX {
            return Err(Errno::EINVAL);
        }
        let mut bytes = [0; RECORD_MAX];
        if source.take(&mut bytes[..len])? < len {
            return Err(Errno::EFAULT);
        }
        let (wanted, text) = priority(&bytes[..len]).unwrap_or((DEFAULT_LEVEL, &bytes[..len]));
        // Nobody speaks for the kernel.
        let priority = if wanted >> 3 == 0 { wanted | USER } else { wanted };
        let text = String::from_utf8_lossy(text.trim_ascii_end());
        let text = text.replace('\n', " ");
        hal::console::write(priority, format_args!("{text}"));
        Ok(len)
    }

    fn poll(&self, _table: &mut PollTable) -> Events {
        let mut line = [0; 1];
        let mut at = *self.at.lock();
        match at.next(&mut line) {
            Next::Nothing => Events::WRITABLE,
            Next::Line(_) => Events::READABLE | Events::WRITABLE,
            Next::Lost => Events::READABLE | Events::WRITABLE | Events::ERR | Events::PRI,
        }
    }

    fn positioned(&self) -> bool {
        true
    }

    /// To the oldest record (SEEK_SET), behind the newest (SEEK_END) or the last that was cleared (SEEK_DATA). `ESPIPE`, `EINVAL`.
    fn seek(&self, to: SeekFrom, _position: u64) -> Result<u64> {
        let place = match to {
            SeekFrom::Start(0) | SeekFrom::Data(0) => Cursor::oldest(),
            SeekFrom::End(0) => Cursor::newest(),
            SeekFrom::Current(_) | SeekFrom::Hole(0) => return Err(Errno::EINVAL),
            _ => return Err(Errno::ESPIPE),
        };
        *self.at.lock() = place;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_priority_number_and_time_in_front() {
        assert_eq!(record(b"<4>[    1.000002] fs: a\\b\x01", 7), b"4,7,1000002,-;fs: a\\x5cb\\x01\n");
        assert_eq!(record(b"QUINTET", 8), b"6,8,0,-;QUINTET\n");
        assert_eq!(record(b"<x>[odd", 9), b"6,9,0,-;<x>[odd\n");
    }
}
