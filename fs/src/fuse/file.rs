//! Open regular files: reads and writes go to the program as they are.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Events, Result};
use mm::{PageCache, Sink, Source};

use super::node::Node;
use super::wire::{Answer, Fields, opcode};
use crate::image::buffer;
use crate::poll::ALWAYS_READY;
use crate::vfs::regular::{self, MAX_OFFSET};
use crate::{Access, File, Inode, Io, IoctlContext, Mapping, OpenFile, OpenFlags, PollTable, SeekFrom};

const PAGE: u64 = abi::PAGE_SIZE as u64;

/// An open file: the program's handle of it.
pub(super) struct FuseFile {
    inode: Arc<Inode>,
    handle: u64,
    flags: OpenFlags,
}

/// Opens a file. The program's error.
pub(super) fn open(inode: &Arc<Inode>, flags: OpenFlags) -> Result<Arc<dyn File>> {
    let node = Node::of(inode)?;
    let handle = node.open_handle(flags.difference(OpenFlags::CREATION).bits())?;
    if flags.access().contains(Access::WRITE) {
        node.add_writer(handle);
    }
    if let Some(cache) = inode.ops().page_cache().filter(|cache| !cache.is_dirty()) {
        cache.forget_from(0);
    }
    Ok(Arc::new(FuseFile { inode: inode.clone(), handle, flags }))
}

impl FuseFile {
    fn node(&self) -> Result<&Node> {
        Node::of(&self.inode)
    }

    fn cache(&self) -> Result<&Arc<PageCache>> {
        self.inode.ops().page_cache().ok_or(Errno::EIO)
    }

    /// Writes what mappings have changed, so that the program has it.
    fn settle(&self) -> Result<()> {
        let cache = self.cache()?;
        if cache.is_dirty() { cache.sync_range(0, u64::MAX) } else { Ok(()) }
    }

    fn write_locked(&self, source: &mut Source, io: &mut Io) -> Result<usize> {
        let _held = self.inode.content.lock();
        let (node, cache) = (self.node()?, self.cache()?);
        self.settle()?;
        if io.flags.contains(OpenFlags::APPEND) {
            node.ask(&self.inode)?;
            io.offset = cache.size();
        }
        if source.remaining() > 0 && io.offset >= MAX_OFFSET {
            return Err(Errno::EFBIG);
        }
        source.limit(usize::try_from(MAX_OFFSET - io.offset.min(MAX_OFFSET)).unwrap_or(usize::MAX));
        let mut done = 0;
        let mut bytes = buffer(source.remaining().min(node.tree.connection.write_max()))?;
        while source.remaining() > 0 {
            let len = source.remaining().min(bytes.len());
            let taken = match source.take(&mut bytes[..len]) {
                Ok(taken) => taken,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            };
            let at = io.offset + done as u64;
            let written = match node.write(self.handle, at, &bytes[..taken]) {
                Ok(written) => written,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            };
            done += written;
            if cache.pages() > 0 {
                cache.forget_from(at / PAGE);
            }
            cache.set_size(cache.size().max(at + written as u64));
            if written < taken {
                break;
            }
        }
        node.expire();
        Ok(done)
    }

    fn fsync(&self, data_only: bool) -> Result<()> {
        self.settle()?;
        let fields = Fields::new().u64(self.handle).u32(u32::from(data_only)).u32(0);
        match self.node()?.call(opcode::FSYNC, &fields) {
            Err(Errno::ENOSYS) => Ok(()),
            result => result.map(drop),
        }
    }
}

impl File for FuseFile {
    fn read(&self, sink: &mut Sink, io: &mut Io) -> Result<usize> {
        self.settle()?;
        let node = self.node()?;
        let mut done = 0;
        while sink.remaining() > 0 && io.offset.saturating_add(done as u64) < MAX_OFFSET {
            let wanted = sink.remaining().min(node.tree.connection.read_max());
            let bytes = match node.read(self.handle, io.offset + done as u64, wanted) {
                Ok(bytes) => bytes,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            };
            if bytes.is_empty() {
                break;
            }
            done += match sink.put(&bytes) {
                Ok(n) => n,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            };
            if bytes.len() < wanted {
                break;
            }
        }
        Ok(done)
    }

    fn write(&self, source: &mut Source, io: &mut Io) -> Result<usize> {
        let n = self.write_locked(source, io)?;
        if n > 0 && io.flags.contains(OpenFlags::DSYNC) {
            self.fsync(!io.flags.contains(OpenFlags::SYNC))?;
        }
        Ok(n)
    }

    fn poll(&self, _table: &mut PollTable) -> Events {
        ALWAYS_READY
    }

    fn pollable(&self) -> bool {
        false
    }

    fn ioctl(&self, _cx: &IoctlContext, _request: u32, _arg: usize) -> Result<usize> {
        Err(Errno::ENOTTY)
    }

    fn positioned(&self) -> bool {
        true
    }

    fn seek(&self, to: SeekFrom, position: u64) -> Result<u64> {
        if !matches!(to, SeekFrom::Start(_) | SeekFrom::Current(_)) {
            self.node()?.ask(&self.inode)?;
        }
        regular::seek_within(to, position, self.cache()?.size())
    }

    fn mapping(&self) -> Result<Mapping> {
        Ok(Mapping::Pages(self.cache()?.clone()))
    }

    fn truncate(&self, size: u64) -> Result<()> {
        regular::resize(&self.inode, size)
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        let node = self.node()?;
        let fields = Fields::new().u64(self.handle).u64(offset).u64(len).u32(mode).u32(0);
        node.call(opcode::FALLOCATE, &fields).map_err(|error| match error {
            Errno::ENOSYS => Errno::EOPNOTSUPP,
            error => error,
        })?;
        node.expire();
        node.ask(&self.inode)
    }

    fn sync(&self) -> Result<()> {
        self.fsync(false)
    }

    fn sync_data(&self) -> Result<()> {
        self.fsync(true)
    }

    fn write_back(&self, from: u64, to: u64) -> Result<()> {
        self.cache()?.sync_range(from / PAGE, to.saturating_sub(1) / PAGE)
    }

    fn flags_change(&self, _open: &OpenFile, _new: OpenFlags) -> Result<()> {
        Ok(())
    }

    fn flush(&self, table: u64) {
        // Errors of closing are not told here; those of fsync(2) are.
        let _ = self.settle();
        if let Ok(node) = self.node() {
            let _ = node.call(opcode::FLUSH, &Fields::new().u64(self.handle).u32(0).u32(0).u64(table));
        }
    }

    fn release(&self, _flags: OpenFlags) {
        let Ok(node) = self.node() else { return };
        let _ = self.settle();
        node.remove_writer(self.handle);
        node.close_handle(self.handle, self.flags.difference(OpenFlags::CREATION).bits());
    }

    fn fdinfo(&self) -> Vec<u8> {
        Vec::new()
    }
}

impl Node {
    /// Reads at most `len` bytes. `EIO` for more than that.
    pub(super) fn read(&self, handle: u64, offset: u64, len: usize) -> Result<Vec<u8>> {
        let fields = Fields::new().u64(handle).u64(offset).u32(len as u32).u32(0).u64(0).u32(0).u32(0);
        let bytes = self.call(opcode::READ, &fields)?;
        if bytes.len() > len { Err(Errno::EIO) } else { Ok(bytes) }
    }

    /// Writes: how many bytes. `EIO` for more than there were, or none.
    pub(super) fn write(&self, handle: u64, offset: u64, bytes: &[u8]) -> Result<usize> {
        let len = bytes.len() as u32;
        let fields = Fields::new().u64(handle).u64(offset).u32(len).u32(0).u64(0).u32(0).u32(0).bytes(bytes)?;
        let reply = self.call(opcode::WRITE, &fields)?;
        let written = Answer::new(&reply).u32()? as usize;
        if written > bytes.len() || written == 0 && !bytes.is_empty() { Err(Errno::EIO) } else { Ok(written) }
    }

    /// The program's handle of the file, opened with these flags.
    pub(super) fn open_handle(&self, flags: u32) -> Result<u64> {
        match self.call(opcode::OPEN, &Fields::new().u32(flags).u32(0)) {
            Ok(reply) => Answer::new(&reply).u64(),
            Err(Errno::ENOSYS) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Gives a handle back.
    pub(super) fn close_handle(&self, handle: u64, flags: u32) {
        let fields = Fields::new().u64(handle).u32(flags).u32(0).u64(0);
        self.tree.connection.ask_later(opcode::RELEASE, self.id, &fields);
    }
}
