//! eventfd(2).

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Events, Result};
use fs::{File, Io, OpenFile, OpenFlags, PollTable};
use hal::sync::SpinLock;
use mm::{Sink, Source};
use sched::{Sleep, WaitQueue};

/// The highest count.
const MAX: u64 = u64::MAX - 1;

/// A counter that is read and written as a file.
struct EventFd {
    count: SpinLock<u64>,
    /// EFD_SEMAPHORE: reading takes one.
    semaphore: bool,
    queue: Arc<WaitQueue>,
}

/// eventfd2(2).
pub fn create(initial: u32, semaphore: bool, nonblocking: bool) -> Arc<OpenFile> {
    let file = EventFd { count: SpinLock::new(initial.into()), semaphore, queue: Arc::new(WaitQueue::new()) };
    let flags = if nonblocking { OpenFlags::RDWR | OpenFlags::NONBLOCK } else { OpenFlags::RDWR };
    fs::vfs::pseudo::open_anonymous(Arc::new(file), "[eventfd]", flags)
}

/// Adds one, as a completion does: never waits. Nothing for what is no eventfd.
pub fn signal(open: &OpenFile) {
    if let Some(event) = open.file().downcast::<EventFd>() {
        let _ = event.add(1);
        event.queue.wake_for(Events::READABLE, usize::MAX);
    }
}

/// Is it an eventfd?
pub fn is_eventfd(open: &OpenFile) -> bool {
    open.file().downcast::<EventFd>().is_some()
}

impl EventFd {
    fn take(&self) -> Option<u64> {
        let mut count = self.count.lock();
        let taken = if self.semaphore { 1 } else { *count };
        *count = count.checked_sub(taken)?;
        (taken > 0).then_some(taken)
    }

    fn add(&self, value: u64) -> Option<()> {
        let mut count = self.count.lock();
        *count = count.checked_add(value).filter(|&sum| sum <= MAX)?;
        Some(())
    }

    /// Waits until `step` succeeds. `EAGAIN`, `ERESTARTSYS`.
    fn wait<R>(&self, io: &Io, mut step: impl FnMut() -> Option<R>) -> Result<R> {
        if io.nonblocking() {
            return step().ok_or(Errno::EAGAIN);
        }
        Ok(self.queue.wait_until(Sleep::Interruptible, None, step)?)
    }
}

impl File for EventFd {
    fn read(&self, sink: &mut Sink, io: &mut Io) -> Result<usize> {
        if sink.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let value = self.wait(io, || self.take())?;
        self.queue.wake_for(Events::WRITABLE, usize::MAX);
        if sink.put(&value.to_ne_bytes())? < 8 { Err(Errno::EFAULT) } else { Ok(8) }
    }

    fn write(&self, source: &mut Source, io: &mut Io) -> Result<usize> {
        if source.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let mut bytes = [0; 8];
        if source.take(&mut bytes)? < 8 {
            return Err(Errno::EFAULT);
        }
        let value = u64::from_ne_bytes(bytes);
        if value > MAX {
            return Err(Errno::EINVAL);
        }
        self.wait(io, || self.add(value))?;
        self.queue.wake_for(Events::READABLE, usize::MAX);
        Ok(8)
    }

    fn poll(&self, table: &mut PollTable) -> Events {
        table.register(&self.queue);
        let count = *self.count.lock();
        let mut ready = Events::empty();
        if count > 0 {
            ready |= Events::IN;
        }
        if count < MAX {
            ready |= Events::OUT;
        }
        ready
    }

    fn fdinfo(&self) -> Vec<u8> {
        format!("eventfd-count: {:16x}\n", *self.count.lock()).into_bytes()
    }
}
