//! What the guest's kernel says on its serial line.

use crate::terminal;
use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex};

/// Lines kept for a report.
const KEPT: usize = 60;
/// A line is cut here: what a guest can make us keep is bounded.
const LONGEST_LINE: usize = 1000;
const PANIC: &str = "QUINTET PANIC: ";
const PANIC_END: &str = "QUINTET PANIC END";
const LINUX_PANIC: &str = "Kernel panic - not syncing";
const MOST_FRAMES: usize = 100;

/// Where the log is shown while it comes.
pub enum Sink {
    /// Nowhere.
    Nowhere,
    /// On our standard error.
    Stderr,
    /// In a file, byte for byte.
    File(File),
}

/// A kernel's last words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Panic {
    /// The message and where it was raised.
    pub message: String,
    /// The addresses of the frames, innermost first.
    pub frames: Vec<u64>,
    /// All of it has arrived.
    pub complete: bool,
}

/// The log so far; clones are the same log.
#[derive(Clone)]
pub struct KernelLog {
    state: Arc<Mutex<State>>,
}

struct State {
    sink: Sink,
    line: Vec<u8>,
    lines: VecDeque<String>,
    panic: Option<Panic>,
}

impl KernelLog {
    /// An empty log.
    pub fn new(sink: Sink) -> KernelLog {
        let state = State { sink, line: Vec::new(), lines: VecDeque::new(), panic: None };
        KernelLog { state: Arc::new(Mutex::new(state)) }
    }

    /// Adds bytes that arrived. True if a panic is complete with them.
    pub fn push(&self, bytes: &[u8]) -> bool {
        let Ok(mut state) = self.state.lock() else {
            return false;
        };
        state.show(bytes);
        let mut complete = false;
        for byte in bytes {
            match byte {
                b'\n' => complete |= state.end_line(),
                b'\r' => {}
                _ if state.line.len() < LONGEST_LINE => state.line.push(*byte),
                _ => {}
            }
        }
        complete
    }

    /// The panic, if there was one.
    pub fn panic(&self) -> Option<Panic> {
        self.state.lock().ok().and_then(|state| state.panic.clone())
    }

    /// The last lines.
    pub fn tail(&self) -> Vec<String> {
        let Ok(mut state) = self.state.lock() else {
            return Vec::new();
        };
        if !state.line.is_empty() {
            state.end_line();
        }
        state.lines.iter().cloned().collect()
    }
}

impl State {
    fn show(&mut self, bytes: &[u8]) {
        match &mut self.sink {
            Sink::Nowhere => {}
            // A log that cannot be shown must not stop the program.
            Sink::Stderr => {
                let _ = std::io::stderr().write_all(&printable(bytes));
            }
            Sink::File(file) => {
                let _ = file.write_all(bytes);
            }
        }
    }

    /// True if the line was a panic's last.
    fn end_line(&mut self) -> bool {
        let text: String = String::from_utf8_lossy(&self.line)
            .chars()
            .map(|c| if c.is_control() && c != '\t' { '?' } else { c })
            .collect();
        self.line.clear();
        let complete = self.note_panic(&text);
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(text);
        complete
    }

    fn note_panic(&mut self, line: &str) -> bool {
        if self.panic.is_none() {
            let message = line
                .split_once(PANIC)
                .map(|(_, message)| message)
                .or_else(|| line.find(LINUX_PANIC).map(|at| &line[at..]));
            if let Some(message) = message {
                self.panic = Some(Panic { message: message.to_owned(), ..Panic::default() });
            }
            return false;
        }
        let Some(panic) = self.panic.as_mut().filter(|panic| !panic.complete) else {
            return false;
        };
        if line.contains(PANIC_END) {
            panic.complete = true;
            return true;
        }
        if panic.frames.len() < MOST_FRAMES {
            panic.frames.extend(frame(line));
        }
        false
    }
}

/// The address in a line `  #3 0xffffffff80001234`.
fn frame(line: &str) -> Option<u64> {
    let (number, address) = line.trim().strip_prefix('#')?.split_once(' ')?;
    number.parse::<u32>().ok()?;
    let address = address.split_whitespace().next()?.strip_prefix("0x")?;
    u64::from_str_radix(address, 16).ok()
}

/// The bytes without what could command a terminal.
fn printable(bytes: &[u8]) -> Vec<u8> {
    let mut shown = Vec::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'\n' if terminal::is_raw() => shown.extend_from_slice(b"\r\n"),
            b'\n' | b'\t' | b' '..=b'~' | 0x80..=0xff => shown.push(*byte),
            b'\r' => {}
            _ => shown.push(b'?'),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_found_in_pieces() {
        let log = KernelLog::new(Sink::Nowhere);
        let text = "boot\r\nQUINTET PANIC: oh no at mm/src/a.rs:1:2\r\n  #0 0xffffffff80001234\r\n\
                    noise\r\n  #1 0x10 extra\r\nQUINTET PANIC END\r\nrest";
        let mut complete = 0;
        for byte in text.as_bytes() {
            complete += usize::from(log.push(&[*byte]));
        }
        assert_eq!(complete, 1);
        let panic = log.panic().expect("a panic");
        assert_eq!(panic.message, "oh no at mm/src/a.rs:1:2");
        assert_eq!(panic.frames, [0xffff_ffff_8000_1234, 0x10]);
        assert!(panic.complete);
        assert_eq!(log.tail().last().map(String::as_str), Some("rest"));
    }

    #[test]
    fn what_is_kept_is_bounded_and_harmless() {
        let log = KernelLog::new(Sink::Nowhere);
        for _ in 0..1000 {
            log.push(&[b'x'; 5000]);
            log.push(b"\x1b[2J\n");
        }
        let tail = log.tail();
        assert_eq!(tail.len(), KEPT);
        assert!(tail.iter().all(|line| line.len() <= LONGEST_LINE && !line.contains('\x1b')));
        assert_eq!(log.panic(), None);
    }

    #[test]
    fn linux_panics_count() {
        let log = KernelLog::new(Sink::Nowhere);
        log.push(b"[    1.0] Kernel panic - not syncing: No working init found.\n");
        assert!(log.panic().is_some_and(|panic| panic.message.ends_with("No working init found.")));
    }
}
