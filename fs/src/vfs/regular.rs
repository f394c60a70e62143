//! Open regular files: reading and writing through the page cache, the same for every file system.

use alloc::sync::Arc;
use core::sync::atomic::AtomicU64;

use base::{Capability, Cred, Errno, Events, Result};
use mm::{PageCache, Sink, Source};

use crate::direct;
use crate::poll::ALWAYS_READY;
use crate::{
    File, Inode, Io, IoctlContext, Mapping, OpenFlags, PollTable, SeekFrom, SetAttributes, SuperFlags, writeback,
};

/// The largest offset a file can have.
pub const MAX_OFFSET: u64 = i64::MAX as u64;
const PAGE: u64 = abi::PAGE_SIZE as u64;
/// What offset and length of direct I/O have to be multiples of.
const DIRECT_BLOCK: u32 = 512;

/// An open regular file whose pages are in a cache.
pub struct RegularFile {
    inode: Arc<Inode>,
    cache: Arc<PageCache>,
    /// The number of the last error of writing back that was told here.
    errors_seen: AtomicU64,
    /// A write takes set-user-ID and set-group-ID away, unless the opener had CAP_FSETID.
    strips_ids: bool,
}

impl RegularFile {
    /// Opens the inode. `EINVAL` where it has no pages.
    pub fn open(inode: &Arc<Inode>, cred: &Cred) -> Result<Arc<dyn File>> {
        let cache = inode.ops().page_cache().ok_or(Errno::EINVAL)?.clone();
        let errors_seen = AtomicU64::new(cache.error_number());
        Ok(Arc::new(RegularFile {
            inode: inode.clone(),
            cache,
            errors_seen,
            strips_ids: !cred.capable(Capability::Fsetid),
        }))
    }
}

/// Takes set-user-ID away, and set-group-ID where the group may execute: what changes of content and owner do.
pub fn strip_ids(inode: &Inode) -> Result<()> {
    let mode = inode.mode();
    let strip = 0o4000 | if mode & 0o010 != 0 { 0o2000 } else { 0 };
    if mode & strip == 0 {
        return Ok(());
    }
    inode.set_attributes(&SetAttributes { mode: Some(mode & !strip), ..SetAttributes::default() })
}

/// Sets the size of the inode. `EPERM`, `EFBIG`, `EINVAL`, `ENOSPC`.
pub fn resize(inode: &Inode, size: u64) -> Result<()> {
    let ops = inode.ops();
    let _held = inode.content.lock();
    ops.may_resize(inode, size)?;
    if size > MAX_OFFSET {
        return Err(Errno::EFBIG);
    }
    ops.set_size(inode, size)?;
    inode.modified();
    Ok(())
}

/// The new position for lseek(2) in a file of `size` bytes, holes apart. `EINVAL` before the start, `EOVERFLOW` past the largest.
pub fn seek_within(to: SeekFrom, position: u64, size: u64) -> Result<u64> {
    let (base, offset) = match to {
        SeekFrom::Start(offset) => (0, offset),
        SeekFrom::Current(offset) => (position, offset),
        SeekFrom::End(offset) => (size, offset),
        SeekFrom::Data(offset) | SeekFrom::Hole(offset) => {
            let at = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
            return match to {
                _ if at >= size => Err(Errno::ENXIO),
                SeekFrom::Data(_) => Ok(at),
                _ => Ok(size),
            };
        }
    };
    let new = i64::try_from(base).ok().and_then(|b| b.checked_add(offset)).ok_or(Errno::EOVERFLOW)?;
    u64::try_from(new).map_err(|_| Errno::EINVAL)
}

impl RegularFile {
    fn is_direct(&self, io: &Io) -> bool {
        io.flags.contains(OpenFlags::DIRECT) && self.cache.is_paged()
    }

    fn write_locked(&self, source: &mut Source, io: &mut Io) -> Result<usize> {
        let _held = self.inode.content.lock();
        if io.flags.contains(OpenFlags::APPEND) {
            io.offset = self.cache.size();
        }
        if source.remaining() == 0 {
            return Ok(0);
        }
        if io.offset >= MAX_OFFSET {
            return Err(Errno::EFBIG);
        }
        if io.flags.contains(OpenFlags::NOWAIT) && self.cache.is_paged() {
            return Err(Errno::EOPNOTSUPP);
        }
        let direct = self.is_direct(io);
        if direct {
            direct::check_alignment(DIRECT_BLOCK, io.offset, source.remaining())?;
        }
        source.limit(usize::try_from(MAX_OFFSET - io.offset).unwrap_or(usize::MAX));
        let ops = self.inode.ops();
        let end = ops.reserve(&self.inode, io.offset, io.offset + source.remaining() as u64)?;
        source.limit(usize::try_from(end - io.offset).unwrap_or(usize::MAX));
        if self.strips_ids {
            strip_ids(&self.inode)?;
        }
        let past_cache = if direct { self.cache.write_direct(io.offset, source)? } else { None };
        let result = past_cache.map_or_else(|| self.cache.write(io.offset, source), Ok);
        if result.is_ok() {
            self.inode.modified();
        }
        result
    }
}

impl File for RegularFile {
    fn read(&self, sink: &mut Sink, io: &mut Io) -> Result<usize> {
        if io.flags.contains(OpenFlags::NOWAIT) && self.cache.is_paged() && io.offset < self.cache.size() {
            let there = if self.is_direct(io) { 0 } else { self.cache.in_memory(io.offset, sink.remaining()) };
            if there == 0 {
                return Err(Errno::EAGAIN);
            }
            sink.limit(there);
        }
        let n = if self.is_direct(io) {
            direct::check_alignment(DIRECT_BLOCK, io.offset, sink.remaining())?;
            self.cache.read_direct(io.offset, sink)?
        } else {
            self.cache.read(io.offset, sink)?
        };
        if !io.flags.contains(OpenFlags::NOATIME) {
            self.inode.accessed();
        }
        Ok(n)
    }

    fn write(&self, source: &mut Source, io: &mut Io) -> Result<usize> {
        let n = self.write_locked(source, io)?;
        if n == 0 || !self.cache.is_paged() {
            return Ok(n);
        }
        if self.is_direct(io) {
            // What did not go past the cache: a file that grew, or parts of pages.
            let (first, last) = (io.offset / PAGE, (io.offset + n as u64 - 1) / PAGE);
            self.cache.sync_range(first, last)?;
            self.cache.drop_clean(first, last);
        }
        let synchronous = self.inode.superblock().flags().contains(SuperFlags::SYNCHRONOUS);
        if synchronous || io.flags.contains(OpenFlags::DSYNC) {
            self.inode.ops().sync(&self.inode, !synchronous && !io.flags.contains(OpenFlags::SYNC))?;
        } else {
            writeback::balance(&self.cache);
        }
        Ok(n)
    }
    fn poll(&self, _table: &mut PollTable) -> Events {
        ALWAYS_READY
    }

    fn pollable(&self) -> bool {
        false
    }

    fn ioctl(&self, cx: &IoctlContext, request: u32, arg: usize) -> Result<usize> {
        if request != abi::ioctl::FIONREAD {
            return self.inode.ops().ioctl(&self.inode, cx, request, arg);
        }
        let left = self.cache.size().saturating_sub(cx.open.position());
        hal::user::UserPtr::<i32>::new(arg).write(&i32::try_from(left).unwrap_or(i32::MAX))?;
        Ok(0)
    }

    fn positioned(&self) -> bool {
        true
    }

    fn seek(&self, to: SeekFrom, position: u64) -> Result<u64> {
        let size = self.cache.size();
        let new = seek_within(to, position, size)?;
        match to {
            SeekFrom::Data(at) => self.inode.ops().seek(at as u64, true)?.ok_or(Errno::ENXIO),
            SeekFrom::Hole(at) => Ok(self.inode.ops().seek(at as u64, false)?.unwrap_or(size).min(size)),
            _ => Ok(new),
        }
    }

    fn mapping(&self) -> Result<Mapping> {
        Ok(Mapping::Pages(self.cache.clone()))
    }

    fn truncate(&self, size: u64) -> Result<()> {
        resize(&self.inode, size)?;
        if self.strips_ids { strip_ids(&self.inode) } else { Ok(()) }
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        offset.checked_add(len).filter(|&end| end <= MAX_OFFSET).ok_or(Errno::EFBIG)?;
        let _held = self.inode.content.lock();
        self.inode.ops().allocate(&self.inode, mode, offset, len)?;
        self.inode.modified();
        if self.strips_ids { strip_ids(&self.inode) } else { Ok(()) }
    }

    fn sync(&self) -> Result<()> {
        let result = self.inode.ops().sync(&self.inode, false);
        self.cache.check_error(&self.errors_seen)?;
        result
    }

    fn sync_data(&self) -> Result<()> {
        let result = self.inode.ops().sync(&self.inode, true);
        self.cache.check_error(&self.errors_seen)?;
        result
    }

    fn write_back(&self, from: u64, to: u64) -> Result<()> {
        self.cache.sync_range(from / PAGE, to.saturating_sub(1) / PAGE)
    }

    fn flags_change(&self, _open: &crate::OpenFile, _new: OpenFlags) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeking_stays_within_what_an_offset_can_be() {
        assert_eq!(seek_within(SeekFrom::End(-10), 0, 30), Ok(20));
        assert_eq!(seek_within(SeekFrom::End(10), 0, 30), Ok(40));
        assert_eq!(seek_within(SeekFrom::Current(-1), 0, 30), Err(Errno::EINVAL));
        assert_eq!(seek_within(SeekFrom::Current(i64::MAX), 1, 30), Err(Errno::EOVERFLOW));
        assert_eq!(seek_within(SeekFrom::Start(-1), 5, 30), Err(Errno::EINVAL));
        assert_eq!(seek_within(SeekFrom::Data(30), 5, 30), Err(Errno::ENXIO));
        assert_eq!(seek_within(SeekFrom::Hole(3), 5, 30), Ok(30));
    }
}
