//! Open files.

use alloc::sync::Arc;

use base::{Capability, Cred, Errno, Events, Result};
use mm::{PageCache, Sink, Source};

use super::Remote;
use crate::poll::ALWAYS_READY;
use crate::vfs::regular::{self, MAX_OFFSET};
use crate::{Access, File, Inode, Io, IoctlContext, Mapping, OpenFile, OpenFlags, PollTable, SeekFrom};

const PAGE: u64 = abi::PAGE_SIZE as u64;

/// An open regular file that nothing is kept of but the pages of mappings.
pub(crate) struct RemoteFile<R> {
    inode: Arc<Inode>,
    remote: R,
    writes: bool,
    /// A write takes set-user-ID and set-group-ID away, unless the opener had CAP_FSETID.
    strips_ids: bool,
}

impl<R: Remote> RemoteFile<R> {
    pub(crate) fn new(inode: &Arc<Inode>, remote: R, flags: OpenFlags, cred: &Cred) -> RemoteFile<R> {
        let writes = flags.access().contains(Access::WRITE);
        RemoteFile { inode: inode.clone(), remote, writes, strips_ids: !cred.capable(Capability::Fsetid) }
    }

    fn cache(&self) -> Result<&Arc<PageCache>> {
        self.inode.ops().page_cache().ok_or(Errno::EIO)
    }

    /// Writes what mappings have changed, so that the other side has it.
    fn settle(&self) -> Result<()> {
        let cache = self.cache()?;
        if cache.is_dirty() { cache.sync_range(0, u64::MAX) } else { Ok(()) }
    }

    /// As [`RemoteFile::settle`], when the file is let go of: errors were for fsync(2) to tell.
    fn settle_at_last(&self) {
        if self.writes {
            let _ = self.settle();
        }
    }

    fn write_locked(&self, source: &mut Source, io: &mut Io) -> Result<usize> {
        let _held = self.inode.content.lock();
        let cache = self.cache()?;
        self.settle()?;
        if io.flags.contains(OpenFlags::APPEND) {
            self.remote.ask(&self.inode)?;
            io.offset = cache.size();
        }
        if source.remaining() == 0 {
            return Ok(0);
        }
        if io.offset >= MAX_OFFSET {
            return Err(Errno::EFBIG);
        }
        source.limit(usize::try_from(MAX_OFFSET - io.offset).unwrap_or(usize::MAX));
        if self.strips_ids {
            regular::strip_ids(&self.inode)?;
        }
        let mut done = 0;
        while source.remaining() > 0 {
            let at = io.offset + done as u64;
            let moved = match self.remote.write_some(source, at) {
                Ok(moved) => moved,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            };
            done += moved.bytes;
            let end = at + moved.bytes as u64;
            if moved.bytes > 0 && cache.pages() > 0 {
                cache.forget(at / PAGE, (end - 1) / PAGE);
            }
            if end > cache.size() {
                cache.set_size(end);
            }
            if !moved.whole {
                break;
            }
        }
        self.remote.changed();
        Ok(done)
    }

    fn sync_all(&self, data_only: bool) -> Result<()> {
        self.settle()?;
        self.remote.sync(data_only)
    }
}

impl<R: Remote> File for RemoteFile<R> {
    fn read(&self, sink: &mut Sink, io: &mut Io) -> Result<usize> {
        self.settle()?;
        let mut done = 0;
        while sink.remaining() > 0 && io.offset.saturating_add(done as u64) < MAX_OFFSET {
            let moved = match self.remote.read_some(sink, io.offset + done as u64) {
                Ok(moved) => moved,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            };
            done += moved.bytes;
            if !moved.whole {
                break;
            }
        }
        Ok(done)
    }

    fn write(&self, source: &mut Source, io: &mut Io) -> Result<usize> {
        let n = self.write_locked(source, io)?;
        if n > 0 && io.flags.contains(OpenFlags::DSYNC) {
            self.sync_all(!io.flags.contains(OpenFlags::SYNC))?;
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
            return Err(Errno::ENOTTY);
        }
        let left = self.cache()?.size().saturating_sub(cx.open.position());
        hal::user::UserPtr::<i32>::new(arg).write(&i32::try_from(left).unwrap_or(i32::MAX))?;
        Ok(0)
    }

    fn positioned(&self) -> bool {
        true
    }

    fn seek(&self, to: SeekFrom, position: u64) -> Result<u64> {
        if !matches!(to, SeekFrom::Start(_) | SeekFrom::Current(_)) {
            self.remote.ask(&self.inode)?;
        }
        regular::seek_within(to, position, self.cache()?.size())
    }

    fn mapping(&self) -> Result<Mapping> {
        Ok(Mapping::Pages(self.cache()?.clone()))
    }

    fn truncate(&self, size: u64) -> Result<()> {
        regular::resize(&self.inode, size)?;
        if self.strips_ids { regular::strip_ids(&self.inode) } else { Ok(()) }
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        let _held = self.inode.content.lock();
        self.settle()?;
        self.remote.allocate(&self.inode, mode, offset, len)
    }

    fn sync(&self) -> Result<()> {
        self.sync_all(false)
    }

    fn sync_data(&self) -> Result<()> {
        self.sync_all(true)
    }

    fn write_back(&self, from: u64, to: u64) -> Result<()> {
        self.cache()?.sync_range(from / PAGE, to.saturating_sub(1) / PAGE)
    }

    fn flags_change(&self, _open: &OpenFile, _new: OpenFlags) -> Result<()> {
        Ok(())
    }

    fn flush(&self, table: u64) {
        self.settle_at_last();
        self.remote.flush(table);
    }

    fn release(&self, _flags: OpenFlags) {
        self.settle_at_last();
        self.remote.release();
    }
}
