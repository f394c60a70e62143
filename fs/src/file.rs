//! What every open file can do.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

use base::{Cred, Errno, Events, Result};
use mm::{PageCache, Sink, Source};

use crate::async_notify::OwnerCell;
use crate::poll::ALWAYS_READY;
use crate::{DirEntry, Fd, OpenFile, OpenFlags, PollTable};

/// One transfer: where in the file, and how.
#[derive(Clone, Copy, Debug)]
pub struct Io {
    /// The offset in bytes; meaningless for streams. A write with O_APPEND sets it to where it began.
    pub offset: u64,
    /// The status flags that hold for this transfer (those of the open file, changed by RWF_* flags).
    pub flags: OpenFlags,
}

impl Io {
    /// Must the transfer not block?
    #[inline]
    pub fn nonblocking(&self) -> bool {
        self.flags.contains(OpenFlags::NONBLOCK)
    }
}

/// Where lseek(2) is to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SeekFrom {
    /// SEEK_SET.
    Start(i64),
    /// SEEK_CUR.
    Current(i64),
    /// SEEK_END.
    End(i64),
    /// SEEK_DATA.
    Data(i64),
    /// SEEK_HOLE.
    Hole(i64),
}

impl SeekFrom {
    /// Where it leads in a file that has a place for every 64-bit number and no end, as `/proc/PID/mem` is. `EINVAL` for places that only
    /// an end or holes give.
    pub fn in_endless(self, position: u64) -> Result<u64> {
        match self {
            SeekFrom::Start(at) => Ok(at as u64),
            SeekFrom::Current(by) => Ok(position.wrapping_add_signed(by)),
            SeekFrom::End(_) | SeekFrom::Data(_) | SeekFrom::Hole(_) => Err(Errno::EINVAL),
        }
    }
}

/// What mmap(2) maps of a file.
pub enum Mapping {
    /// These pages.
    Pages(Arc<PageCache>),
    /// Fresh zeros, as of `/dev/zero`.
    Zeros,
}

/// What an ioctl(2) may need of its caller.
pub struct IoctlContext<'a> {
    /// The caller's credentials.
    pub cred: &'a Cred,
    /// The open file the call came through.
    pub open: &'a Arc<OpenFile>,
    /// Makes a descriptor for a file in the caller's table, close-on-exec if the flag is set. `EMFILE`.
    pub install: &'a dyn Fn(Arc<OpenFile>, bool) -> Result<Fd>,
    /// The file behind a descriptor of the caller's. `EBADF`.
    pub lookup: &'a dyn Fn(Fd) -> Result<Arc<OpenFile>>,
}

/// An object that descriptors refer to: regular file, directory, device, pipe end, socket, event counter, ... One `File` may be shared
/// by many [`OpenFile`]s (a device) or belong to one (a pipe end). The default methods give Linux's errors for objects that can't.
///
/// Access modes are checked by [`OpenFile`] before. Methods may sleep; interrupted sleeps give `ERESTARTSYS`.
pub trait File: Any + Send + Sync {
    /// Reads. `EINVAL` where the object can't be read, else its own errors; `EAGAIN` where it would block and must not.
    fn read(&self, sink: &mut Sink, io: &mut Io) -> Result<usize> {
        let _ = (sink, io);
        Err(Errno::EINVAL)
    }

    /// Writes. `EINVAL` where the object can't be written; `EPIPE` (the caller raises SIGPIPE); `EAGAIN`.
    fn write(&self, source: &mut Source, io: &mut Io) -> Result<usize> {
        let _ = (source, io);
        Err(Errno::EINVAL)
    }

    /// What it is ready for. Registers its wait queues with the table first.
    fn poll(&self, table: &mut PollTable) -> Events {
        let _ = table;
        ALWAYS_READY
    }

    /// Its open file has an owner, who is to be told of urgent data ([`crate::async_notify::urgent`]).
    fn owned_by(&self, owner: &OwnerCell) {
        let _ = owner;
    }

    /// Can epoll watch it? (Regular files and directories: no, `EPERM`.)
    fn pollable(&self) -> bool {
        true
    }

    /// Device control. `ENOTTY` for requests it does not know.
    fn ioctl(&self, cx: &IoctlContext, request: u32, arg: usize) -> Result<usize> {
        let _ = (cx, request, arg);
        Err(Errno::ENOTTY)
    }

    /// Does it have a position and offsets (regular files, directories, some devices)? Streams don't: pread(2) gives `ESPIPE`.
    fn positioned(&self) -> bool {
        false
    }

    /// The new position for lseek(2) from `position`. `ESPIPE`, `EINVAL`, `ENXIO`, `EOVERFLOW`.
    fn seek(&self, to: SeekFrom, position: u64) -> Result<u64> {
        let _ = (to, position);
        Err(Errno::ESPIPE)
    }

    /// Lists a directory from the position on, which it advances, until `emit` gives false. `ENOTDIR`.
    fn list(&self, position: &mut u64, emit: &mut dyn FnMut(&DirEntry) -> bool) -> Result<()> {
        let _ = (position, emit);
        Err(Errno::ENOTDIR)
    }

    /// What mmap(2) maps. `ENODEV`.
    fn mapping(&self) -> Result<Mapping> {
        Err(Errno::ENODEV)
    }

    /// As [`File::mapping`], of `len` bytes from `offset`: for objects that show different things at different offsets. `EINVAL`.
    fn mapping_of(&self, offset: u64, len: usize) -> Result<Mapping> {
        let _ = (offset, len);
        self.mapping()
    }

    /// Sets the size, for ftruncate(2). `EINVAL`.
    fn truncate(&self, size: u64) -> Result<()> {
        let _ = size;
        Err(Errno::EINVAL)
    }

    /// fallocate(2). `ENODEV`; `EOPNOTSUPP` for modes it can't do.
    fn allocate(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        let _ = (mode, offset, len);
        Err(Errno::ENODEV)
    }

    /// Writes back what is dirty, for fsync(2). `EINVAL` for objects without storage.
    fn sync(&self) -> Result<()> {
        Err(Errno::EINVAL)
    }

    /// As [`File::sync`], of the data alone and where it matters of what is needed to read it (fdatasync(2)).
    fn sync_data(&self) -> Result<()> {
        self.sync()
    }

    /// As [`File::sync_data`], of bytes `from..to` at least.
    fn sync_range(&self, from: u64, to: u64) -> Result<()> {
        let _ = (from, to);
        self.sync_data()
    }

    /// Starts writing bytes `from..to` back, without making them last (sync_file_range(2)).
    fn write_back(&self, from: u64, to: u64) -> Result<()> {
        let _ = (from, to);
        Ok(())
    }

    /// The status flags are about to change (F_SETFL). `EINVAL`, e.g. O_DIRECT where that is not supported.
    fn flags_change(&self, open: &OpenFile, new: OpenFlags) -> Result<()> {
        let _ = open;
        if new.contains(OpenFlags::DIRECT) { Err(Errno::EINVAL) } else { Ok(()) }
    }

    /// A descriptor to it in the table with that number was closed. Called each time; when the last goes, the object is dropped.
    fn flush(&self, table: u64) {
        let _ = table;
    }

    /// The open file is gone.
    fn release(&self, flags: OpenFlags) {
        let _ = flags;
    }

    /// Lines of `/proc/PID/fdinfo/N` after the common ones.
    fn fdinfo(&self) -> Vec<u8> {
        Vec::new()
    }
}

impl dyn File {
    /// The object as a `T`, if it is one.
    #[inline]
    pub fn downcast<T: File>(&self) -> Option<&T> {
        (self as &dyn Any).downcast_ref()
    }
}
