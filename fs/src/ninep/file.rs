//! Open files that nothing is kept of: reads and writes go to the server as they are.

use alloc::sync::Arc;

use base::{Errno, Events, Result};
use mm::{PageCache, Sink, Source};

use super::node::Node;
use super::session::{Fid, Span};
use crate::poll::ALWAYS_READY;
use crate::vfs::regular::{self, MAX_OFFSET};
use crate::{File, Inode, Io, IoctlContext, Mapping, OpenFile, OpenFlags, PollTable, SeekFrom};

const PAGE: u64 = abi::PAGE_SIZE as u64;

/// An open file.
pub(super) struct DirectFile {
    inode: Arc<Inode>,
    fid: Arc<Fid>,
    writes: bool,
}

impl DirectFile {
    pub(super) fn new(inode: &Arc<Inode>, fid: Arc<Fid>, flags: OpenFlags) -> DirectFile {
        let writes = flags.access().contains(crate::Access::WRITE);
        DirectFile { inode: inode.clone(), fid, writes }
    }

    fn cache(&self) -> Result<&Arc<PageCache>> {
        self.inode.ops().page_cache().ok_or(Errno::EIO)
    }

    /// Writes what mappings have changed, so that the server has it.
    fn settle(&self) -> Result<()> {
        let cache = self.cache()?;
        if cache.is_dirty() { cache.sync_range(0, u64::MAX) } else { Ok(()) }
    }

    fn write_locked(&self, source: &mut Source, io: &mut Io) -> Result<usize> {
        let _held = self.inode.content.lock();
        self.settle()?;
        if io.flags.contains(OpenFlags::APPEND) {
            Node::of(&self.inode)?.ask(&self.inode)?;
            io.offset = self.cache()?.size();
        }
        if source.remaining() == 0 {
            return Ok(0);
        }
        if io.offset >= MAX_OFFSET {
            return Err(Errno::EFBIG);
        }
        source.limit(usize::try_from(MAX_OFFSET - io.offset).unwrap_or(usize::MAX));
        let mut done = 0;
        while source.remaining() > 0 {
            match self.write_some(source, io.offset + done as u64) {
                Ok((taken, written)) => {
                    done += written;
                    if written < taken {
                        break;
                    }
                }
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Writes one message's worth: how much was taken from the source, and how much the server took.
    fn write_some(&self, source: &mut Source, offset: u64) -> Result<(usize, usize)> {
        let mut spans = Span::allocate(source.remaining().min(self.fid.session().data_max()))?;
        let mut taken = 0;
        for span in &mut spans {
            let wanted = span.len;
            span.len = match source.take_frame(&span.frame, 0, wanted) {
                Ok(n) => n,
                Err(_) if taken > 0 => 0,
                Err(error) => return Err(error),
            };
            taken += span.len;
            if span.len < wanted {
                break;
            }
        }
        spans.retain({
            let mut left = taken;
            move |span| {
                let used = left > 0 && span.len > 0;
                left = left.saturating_sub(span.len);
                used
            }
        });
        let written = self.fid.write(offset, &spans)?;
        let cache = self.cache()?;
        if cache.pages() > 0 {
            cache.forget_from(offset / PAGE);
        }
        let end = offset + written as u64;
        if end > cache.size() {
            cache.set_size(end);
        }
        Ok((taken, written))
    }
}

impl File for DirectFile {
    fn read(&self, sink: &mut Sink, io: &mut Io) -> Result<usize> {
        self.settle()?;
        let mut done = 0;
        while sink.remaining() > 0 && io.offset.saturating_add(done as u64) < MAX_OFFSET {
            let spans = Span::allocate(sink.remaining().min(self.fid.session().data_max()))?;
            let wanted: usize = spans.iter().map(|span| span.len).sum();
            let got = match self.fid.read(io.offset + done as u64, &spans) {
                Ok(got) => got,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            };
            let mut left = got;
            for span in &spans {
                let len = span.len.min(left);
                if len == 0 {
                    break;
                }
                let put = match sink.put_frame(&span.frame, 0, len) {
                    Ok(put) => put,
                    Err(_) if done > 0 => 0,
                    Err(error) => return Err(error),
                };
                done += put;
                left -= len;
                if put < len {
                    return Ok(done);
                }
            }
            if got < wanted {
                break;
            }
        }
        Ok(done)
    }

    fn write(&self, source: &mut Source, io: &mut Io) -> Result<usize> {
        let n = self.write_locked(source, io)?;
        if n > 0 && io.flags.contains(OpenFlags::DSYNC) {
            self.fid.sync(!io.flags.contains(OpenFlags::SYNC))?;
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
            // Without a name any more, it has the size that is known.
            let _ = Node::of(&self.inode)?.ask(&self.inode);
        }
        regular::seek_within(to, position, self.cache()?.size())
    }

    fn mapping(&self) -> Result<Mapping> {
        Ok(Mapping::Pages(self.cache()?.clone()))
    }

    fn truncate(&self, size: u64) -> Result<()> {
        regular::resize(&self.inode, size)
    }

    fn allocate(&self, _mode: u32, _offset: u64, _len: u64) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn sync(&self) -> Result<()> {
        self.settle()?;
        self.fid.sync(false)
    }

    fn sync_data(&self) -> Result<()> {
        self.settle()?;
        self.fid.sync(true)
    }

    fn write_back(&self, from: u64, to: u64) -> Result<()> {
        self.cache()?.sync_range(from / PAGE, to.saturating_sub(1) / PAGE)
    }

    fn flags_change(&self, _open: &OpenFile, _new: OpenFlags) -> Result<()> {
        Ok(())
    }

    fn release(&self, _flags: OpenFlags) {
        if self.writes {
            // What a mapping changed reaches the server at the latest now; errors were for fsync(2) to tell.
            let _ = self.settle();
        }
    }
}
