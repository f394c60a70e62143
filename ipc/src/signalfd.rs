//! signalfd(2): signals are read as a file. Whose signals is decided at each read: the caller's.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use base::{Errno, Events, Result};
use fs::{File, Io, OpenFile, OpenFlags, PollTable};
use mm::Sink;
use sched::{Sleep, WaitQueue};

/// Bytes of `struct signalfd_siginfo`.
pub const RECORD: usize = 128;

/// The calling thread's signals, given by the layer that has them. Masks have bit n-1 for signal n.
pub trait SignalSource: Send + Sync {
    /// Takes one of the pending signals in `mask`, laid out as `struct signalfd_siginfo`.
    fn take(&self, mask: u64) -> Option<[u8; RECORD]>;
    /// Is one pending?
    fn pending(&self, mask: u64) -> bool;
    /// The queue that is woken when one arrives.
    fn queue(&self) -> Arc<WaitQueue>;
}

/// A signalfd.
pub struct SignalFd {
    mask: AtomicU64,
    source: Arc<dyn SignalSource>,
}

/// signalfd4(2) without a descriptor to change.
pub fn create(mask: u64, source: Arc<dyn SignalSource>, nonblocking: bool) -> Arc<OpenFile> {
    let file = SignalFd { mask: AtomicU64::new(mask), source };
    let flags = if nonblocking { OpenFlags::RDWR | OpenFlags::NONBLOCK } else { OpenFlags::RDWR };
    fs::vfs::pseudo::open_anonymous(Arc::new(file), "[signalfd]", flags)
}

impl SignalFd {
    /// The signalfd behind an open file. `EINVAL`.
    pub fn of(open: &OpenFile) -> Result<&SignalFd> {
        open.file().downcast().ok_or(Errno::EINVAL)
    }

    /// Changes the signals that it reads.
    pub fn set_mask(&self, mask: u64) {
        self.mask.store(mask, Ordering::SeqCst);
        self.source.queue().wake_all();
    }

    fn take(&self) -> Option<[u8; RECORD]> {
        self.source.take(self.mask.load(Ordering::SeqCst))
    }
}

impl File for SignalFd {
    fn read(&self, sink: &mut Sink, io: &mut Io) -> Result<usize> {
        if sink.remaining() < RECORD {
            return Err(Errno::EINVAL);
        }
        let mut total = 0;
        while sink.remaining() >= RECORD {
            let record = match self.take() {
                Some(record) => record,
                None if total > 0 => break,
                None if io.nonblocking() => return Err(Errno::EAGAIN),
                None => self.source.queue().wait_until(Sleep::Interruptible, None, || self.take())?,
            };
            total += sink.put(&record)?;
        }
        Ok(total)
    }

    fn poll(&self, table: &mut PollTable) -> Events {
        table.register(&self.source.queue());
        if self.source.pending(self.mask.load(Ordering::SeqCst)) { Events::IN } else { Events::empty() }
    }

    fn fdinfo(&self) -> Vec<u8> {
        format!("sigmask:\t{:016x}\n", self.mask.load(Ordering::SeqCst)).into_bytes()
    }
}
