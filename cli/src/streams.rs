//! Carries the program's streams between our descriptors and the guest's ports.
//!
//! One thread a stream, with blocking reads and writes: whoever is slow holds up only its own
//! stream, and nothing piles up in between.

use crate::session::Event;
use protocol::Output;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read, write};
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::thread;

const BUFFER: usize = 128 << 10;
/// Ctrl-], three times in a row, ends a guest that listens to nothing else.
const ESCAPE: u8 = 0x1d;
const ESCAPES: usize = 3;

/// How far an output stream has come.
#[derive(Debug)]
pub struct Meter {
    carried: AtomicU64,
    expected: AtomicU64,
    closed: AtomicBool,
}

impl Default for Meter {
    fn default() -> Self {
        Meter { carried: AtomicU64::new(0), expected: AtomicU64::new(u64::MAX), closed: AtomicBool::new(false) }
    }
}

impl Meter {
    /// Says how long the whole stream is.
    pub fn expect(&self, bytes: u64) {
        self.expected.store(bytes, Ordering::SeqCst);
    }

    /// True when the whole stream was written, or nobody reads it any more.
    pub fn is_complete(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
            || self.carried.load(Ordering::SeqCst) >= self.expected.load(Ordering::SeqCst)
    }
}

/// Starts carrying an output stream of the guest to one of our descriptors.
pub fn carry_output(
    mut port: UnixStream,
    to: BorrowedFd<'static>,
    output: Output,
    events: Sender<Event>,
) -> Arc<Meter> {
    let meter = Arc::new(Meter::default());
    let shared = meter.clone();
    thread::spawn(move || {
        let mut buffer = vec![0; BUFFER];
        while let Ok(length @ 1..) = port.read(&mut buffer) {
            if !shared.closed.load(Ordering::SeqCst) && write_all(to, &buffer[..length]).is_err() {
                // The guest should know; what is still under way is thrown away.
                shared.closed.store(true, Ordering::SeqCst);
                let _ = events.send(Event::OutputClosed(output));
            }
            shared.carried.fetch_add(length as u64, Ordering::SeqCst);
            if shared.is_complete() {
                let _ = events.send(Event::OutputComplete);
            }
        }
        // The machine has ended: no more will come.
        shared.closed.store(true, Ordering::SeqCst);
        let _ = events.send(Event::OutputComplete);
    });
    meter
}

/// Starts carrying our standard input to the guest; `raw` if it is a terminal in raw mode.
pub fn carry_stdin(port: UnixStream, raw: bool, events: Sender<Event>) {
    thread::spawn(move || {
        let stdin = rustix::stdio::stdin();
        let mut buffer = vec![0; BUFFER];
        let mut total = 0;
        let mut escapes = 0;
        loop {
            let length = match read(stdin, &mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {
                    wait_for(stdin, PollFlags::IN);
                    continue;
                }
                Err(_) => break,
            };
            for byte in &buffer[..length] {
                escapes = if *byte == ESCAPE { escapes + 1 } else { 0 };
                if raw && escapes == ESCAPES {
                    let _ = events.send(Event::Escape);
                }
            }
            let sent = write_all(std::os::fd::AsFd::as_fd(&port), &buffer[..length]);
            if sent.is_err() {
                return;
            }
            total += length as u64;
        }
        let _ = events.send(Event::StdinEnded(total));
    });
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match write(to, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait_for(to, PollFlags::OUT),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Someone else made the descriptor non-blocking.
fn wait_for(fd: BorrowedFd<'_>, flags: PollFlags) {
    // The read or write that follows tells of any error.
    let _ = poll(&mut [PollFd::from_borrowed_fd(fd, flags)], None);
}
