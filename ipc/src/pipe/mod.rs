//! Pipes and FIFOs (pipe(7), fifo(7)).
//!
//! A pipe is a ring of page references. Its lock sleeps, since bytes are copied from and to user memory under it; who waits for data or
//! room waits on one of two queues outside the lock.

mod fifo;
mod ring;
mod transfer;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use base::{Capability, Cred, Errno, Events, Result};
use fs::vfs::pseudo::PIPES;
use fs::{Access, File, FileKind, FsContext, Inode, Io, IoctlContext, OpenFile, OpenFlags, PollTable};
use hal::user::UserPtr;
use mm::{Sink, Source};
use sched::{Mutex, Sleep, Thread, WaitQueue};

pub use fifo::open as open_fifo;
pub use ring::Buffer;
use ring::Ring;
pub use transfer::{PipeEnds, link, splice_in, splice_out, vmsplice_in};

/// Slots of a new pipe: 64 KiB.
const DEFAULT_SLOTS: usize = 16;
/// The most that a process without CAP_SYS_RESOURCE may ask for (`fs.pipe-max-size`).
const MAX_BYTES: usize = 1 << 20;

/// A pipe.
pub struct Pipe {
    ring: Mutex<Ring>,
    /// Slots in use and slots in all, as of the last change of the ring: what waiters look at.
    used: AtomicUsize,
    slots: AtomicUsize,
    readers: AtomicU32,
    writers: AtomicU32,
    /// How often a reader or writer was opened: who waits for the other side in open(2) watches these.
    reader_opens: AtomicU32,
    writer_opens: AtomicU32,
    /// Waited on for data.
    data: Arc<WaitQueue>,
    /// Waited on for room.
    room: Arc<WaitQueue>,
}

impl Pipe {
    fn new() -> Arc<Pipe> {
        Arc::new(Pipe {
            ring: Mutex::new(Ring::new(DEFAULT_SLOTS)),
            used: AtomicUsize::new(0),
            slots: AtomicUsize::new(DEFAULT_SLOTS),
            readers: AtomicU32::new(0),
            writers: AtomicU32::new(0),
            reader_opens: AtomicU32::new(0),
            writer_opens: AtomicU32::new(0),
            data: Arc::new(WaitQueue::new()),
            room: Arc::new(WaitQueue::new()),
        })
    }

    /// Works on the ring, and lets waiters know how full it is.
    fn with_ring<R>(&self, f: impl FnOnce(&mut Ring) -> R) -> R {
        let mut ring = self.ring.lock();
        let result = f(&mut ring);
        self.used.store(ring.used(), Ordering::SeqCst);
        self.slots.store(ring.slots(), Ordering::SeqCst);
        result
    }

    fn is_empty(&self) -> bool {
        self.used.load(Ordering::SeqCst) == 0
    }

    fn is_full(&self) -> bool {
        self.used.load(Ordering::SeqCst) >= self.slots.load(Ordering::SeqCst)
    }

    fn has_readers(&self) -> bool {
        self.readers.load(Ordering::SeqCst) != 0
    }

    fn has_writers(&self) -> bool {
        self.writers.load(Ordering::SeqCst) != 0
    }

    /// Sleeps until there may be data, or nobody to write any. `EAGAIN` instead of sleeping, `ERESTARTSYS`.
    fn wait_data(&self, nonblocking: bool) -> Result<()> {
        if nonblocking {
            return Err(Errno::EAGAIN);
        }
        let ready = || (!self.is_empty() || !self.has_writers()).then_some(());
        Ok(self.data.wait_exclusive(Sleep::Interruptible, None, ready)?)
    }

    /// Sleeps until there may be room, or nobody to make any. `EAGAIN` instead of sleeping, `ERESTARTSYS`.
    fn wait_room(&self, nonblocking: bool) -> Result<()> {
        if nonblocking {
            return Err(Errno::EAGAIN);
        }
        let ready = || (!self.is_full() || !self.has_readers()).then_some(());
        Ok(self.room.wait_exclusive(Sleep::Interruptible, None, ready)?)
    }

    fn data_added(&self) {
        self.data.wake_for(Events::READABLE, 1);
    }

    fn room_made(&self) {
        self.room.wake_for(Events::WRITABLE, 1);
    }
}

/// Who waits at a pipe, and what an open file can do with it: for reports.
pub struct Waits {
    /// The pipe, by a number that it alone has while it lives.
    pub pipe: usize,
    /// What the file is open for.
    pub access: Access,
    /// Those who wait for data.
    pub readers: Vec<Arc<Thread>>,
    /// Those who wait for room.
    pub writers: Vec<Arc<Thread>>,
}

/// Who waits at the pipe behind an open file; `None` for what is no pipe.
pub fn waits(open: &OpenFile) -> Option<Waits> {
    let end = open.file().downcast::<PipeEnd>()?;
    let pipe = end.pipe();
    let (readers, writers) = (pipe.data.threads(), pipe.room.threads());
    Some(Waits { pipe: Arc::as_ptr(pipe).addr(), access: end.access, readers, writers })
}

/// One end of a pipe, or both (a FIFO opened for reading and writing).
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    inode: Arc<Inode>,
    access: Access,
    /// Of the pipe's `writer_opens` when this was opened: no hang-up is seen before there was a writer.
    writers_seen: u32,
}

impl PipeEnd {
    /// An end that counts until it drops.
    fn new(pipe: Arc<Pipe>, inode: Arc<Inode>, access: Access) -> PipeEnd {
        if access.contains(Access::READ) {
            pipe.readers.fetch_add(1, Ordering::SeqCst);
            pipe.reader_opens.fetch_add(1, Ordering::SeqCst);
        }
        if access.contains(Access::WRITE) {
            pipe.writers.fetch_add(1, Ordering::SeqCst);
            pipe.writer_opens.fetch_add(1, Ordering::SeqCst);
        }
        pipe.data.wake_all();
        pipe.room.wake_all();
        PipeEnd { pipe, inode, access, writers_seen: 0 }
    }

    /// The pipe.
    pub fn pipe(&self) -> &Arc<Pipe> {
        &self.pipe
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        let pipe = &self.pipe;
        let mut left = true;
        if self.access.contains(Access::READ) {
            left &= pipe.readers.fetch_sub(1, Ordering::SeqCst) == 1;
        }
        if self.access.contains(Access::WRITE) {
            left &= pipe.writers.fetch_sub(1, Ordering::SeqCst) == 1;
        }
        if left {
            pipe.data.wake_for(Events::READABLE | Events::HUP, usize::MAX);
            pipe.room.wake_for(Events::WRITABLE | Events::ERR, usize::MAX);
        }
        if !pipe.has_readers() && !pipe.has_writers() {
            // A FIFO that nobody has open forgets what was not read.
            self.inode.detach();
        }
    }
}

impl File for PipeEnd {
    fn read(&self, sink: &mut Sink, io: &mut Io) -> Result<usize> {
        if sink.remaining() == 0 {
            return Ok(0);
        }
        loop {
            let (n, more) = self.pipe.with_ring(|ring| ring.read(sink).map(|n| (n, !ring.is_empty())))?;
            if n > 0 {
                self.pipe.room_made();
                if more {
                    self.pipe.data_added();
                }
                self.inode.accessed();
                return Ok(n);
            }
            if !self.pipe.has_writers() {
                // One may have written and gone since we looked.
                if self.pipe.is_empty() {
                    return Ok(0);
                }
                continue;
            }
            self.pipe.wait_data(io.nonblocking())?;
        }
    }

    fn write(&self, source: &mut Source, io: &mut Io) -> Result<usize> {
        let packet = io.flags.contains(OpenFlags::DIRECT);
        let mut total = 0;
        if !self.pipe.has_readers() {
            return Err(Errno::EPIPE);
        }
        while source.remaining() > 0 {
            let step = if self.pipe.has_readers() {
                self.pipe.with_ring(|ring| ring.write(source, packet))
            } else {
                Err(Errno::EPIPE)
            };
            match step {
                Ok(0) => {}
                Ok(n) => {
                    total += n;
                    self.pipe.data_added();
                    continue;
                }
                Err(_) if total > 0 => break,
                Err(error) => return Err(error),
            }
            match self.pipe.wait_room(io.nonblocking()) {
                Ok(()) => {}
                Err(_) if total > 0 => break,
                Err(error) => return Err(error),
            }
        }
        if total > 0 {
            self.inode.modified();
            if !self.pipe.is_full() {
                self.pipe.room_made();
            }
        }
        Ok(total)
    }

    fn poll(&self, table: &mut PollTable) -> Events {
        let mut ready = Events::empty();
        if self.access.contains(Access::READ) {
            table.register(&self.pipe.data);
            if !self.pipe.is_empty() {
                ready |= Events::READABLE;
            }
            let had_writer = self.pipe.writer_opens.load(Ordering::SeqCst) != self.writers_seen;
            if !self.pipe.has_writers() && had_writer {
                ready |= Events::HUP;
            }
        }
        if self.access.contains(Access::WRITE) {
            table.register(&self.pipe.room);
            if !self.pipe.is_full() {
                ready |= Events::WRITABLE;
            }
            if !self.pipe.has_readers() {
                ready |= Events::ERR;
            }
        }
        ready
    }

    fn ioctl(&self, _cx: &IoctlContext, request: u32, arg: usize) -> Result<usize> {
        if request != abi::ioctl::FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let bytes = self.pipe.with_ring(|ring| ring.bytes());
        UserPtr::new(arg).write(&i32::try_from(bytes).unwrap_or(i32::MAX))?;
        Ok(0)
    }

    fn flags_change(&self, _open: &OpenFile, _new: OpenFlags) -> Result<()> {
        // O_DIRECT is packet mode here.
        Ok(())
    }
}

/// pipe2(2): the reading and the writing end.
pub fn pipe(cx: &FsContext, flags: OpenFlags) -> [Arc<OpenFile>; 2] {
    let inode = PIPES.inode(FileKind::Fifo, 0o600, Some(cx), None);
    let pipe = inode.attach_or_get(Pipe::new).unwrap_or_else(Pipe::new);
    let path = PIPES.numbered_path(&inode, "pipe");
    let status = flags & (OpenFlags::NONBLOCK | OpenFlags::DIRECT);
    let ends = [(Access::READ, OpenFlags::empty()), (Access::WRITE, OpenFlags::WRONLY)];
    // Both are counted before either can be seen to lack the other.
    let [reader, writer] =
        ends.map(|(access, mode)| (Arc::new(PipeEnd::new(pipe.clone(), inode.clone(), access)), mode));
    [reader, writer].map(|(end, mode)| OpenFile::new(end, path.clone(), inode.clone(), mode | status, fs::Hold::None))
}

/// F_GETPIPE_SZ: the capacity in bytes. `EBADF` for what is no pipe.
pub fn capacity(file: &Arc<dyn File>) -> Result<usize> {
    let end = file.downcast::<PipeEnd>().ok_or(Errno::EBADF)?;
    Ok(end.pipe.slots.load(Ordering::SeqCst) * abi::PAGE_SIZE)
}

/// F_SETPIPE_SZ: rounds up to a power of two pages; the new capacity. `EINVAL`, `EPERM`, `EBUSY`, `ENOMEM`, `EBADF`.
pub fn set_capacity(file: &Arc<dyn File>, bytes: usize, cred: &Cred) -> Result<usize> {
    let end = file.downcast::<PipeEnd>().ok_or(Errno::EBADF)?;
    if bytes > 1 << 31 {
        return Err(Errno::EINVAL);
    }
    let slots = bytes.div_ceil(abi::PAGE_SIZE).max(1).next_power_of_two();
    let grows = slots > end.pipe.slots.load(Ordering::SeqCst);
    if grows && slots * abi::PAGE_SIZE > MAX_BYTES && !cred.capable(Capability::SysResource) {
        return Err(Errno::EPERM);
    }
    end.pipe.with_ring(|ring| ring.resize(slots))?;
    end.pipe.room_made();
    Ok(slots * abi::PAGE_SIZE)
}
