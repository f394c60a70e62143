//! Moves bytes from one descriptor to another without ever blocking.

use rustix::event::PollFlags;
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

const BUFFER: usize = 64 << 10;

/// What reading 0 bytes from the source means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A pipe or a terminal: the writers are gone.
    Program,
    /// A port: the host's end is not there yet. The stream's end comes as a message.
    Port,
}

/// One direction of one stream.
pub(crate) struct Pump {
    from: Option<Rc<OwnedFd>>,
    to: Option<Rc<OwnedFd>>,
    source: Source,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    taken: u64,
    length: u64,
    moved: u64,
}

impl Pump {
    /// A pump between two non-blocking descriptors.
    pub(crate) fn new(from: Rc<OwnedFd>, to: Rc<OwnedFd>, source: Source) -> Pump {
        Pump {
            from: Some(from),
            to: Some(to),
            source,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
            taken: 0,
            length: u64::MAX,
            moved: 0,
        }
    }

    /// What to wait for before the next [`Pump::step`]; nothing when the stream has ended.
    pub(crate) fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        if self.start < self.end {
            self.to.as_ref().map(|fd| (fd.as_fd(), PollFlags::OUT))
        } else {
            self.from.as_ref().map(|fd| (fd.as_fd(), PollFlags::IN))
        }
    }

    /// The stream ends after this many bytes.
    pub(crate) fn ends_after(&mut self, length: u64) {
        self.length = length;
        self.check_end();
    }

    /// Bytes written to the destination.
    pub(crate) fn moved(&self) -> u64 {
        self.moved
    }

    /// True when nothing more will come.
    pub(crate) fn ended(&self) -> bool {
        self.from.is_none()
    }

    /// Closes both ends and forgets what is under way.
    pub(crate) fn close(&mut self) {
        self.stop();
        self.start = self.end;
        self.to = None;
    }

    /// Takes no more from the source; what was taken is still delivered.
    pub(crate) fn stop(&mut self) {
        self.from = None;
        self.close_if_done();
    }

    /// True when everything that was taken is delivered.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Moves what can be moved now. False when the source had nothing.
    pub(crate) fn step(&mut self) -> bool {
        if self.is_empty() && !self.fill() {
            return false;
        }
        self.drain();
        true
    }

    fn fill(&mut self) -> bool {
        let Some(from) = &self.from else {
            return false;
        };
        let room = usize::try_from(self.length - self.taken).unwrap_or(BUFFER).min(BUFFER);
        match rustix::io::read(from, &mut self.buffer[..room]) {
            Ok(0) if self.source == Source::Port => {
                std::thread::sleep(std::time::Duration::from_millis(1));
                false
            }
            Ok(0) => {
                self.stop();
                false
            }
            Ok(length) => {
                (self.start, self.end) = (0, length);
                self.taken += length as u64;
                self.check_end();
                true
            }
            Err(Errno::AGAIN | Errno::INTR) => false,
            // EIO is how a terminal's master says that nobody has it open any more.
            Err(_) => {
                self.stop();
                false
            }
        }
    }

    fn drain(&mut self) {
        while let (true, Some(to)) = (self.start < self.end, &self.to) {
            match rustix::io::write(to, &self.buffer[self.start..self.end]) {
                Ok(written) => {
                    self.start += written;
                    self.moved += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // The reader is gone.
                Err(_) => return self.close(),
            }
        }
        self.close_if_done();
    }

    fn check_end(&mut self) {
        if self.taken >= self.length {
            self.stop();
        }
    }

    fn close_if_done(&mut self) {
        if self.from.is_none() && self.is_empty() {
            self.to = None;
        }
    }
}
