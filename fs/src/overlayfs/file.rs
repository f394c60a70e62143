//! Open regular files: open files of the layer that has the content.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Events, Result};
use hal::sync::Once;
use mm::{Sink, Source};

use super::Node;
use crate::vfs::open;
use crate::{Access, File, FsContext, Inode, Io, IoctlContext, Mapping, OpenFile, OpenFlags, PollTable, SeekFrom};

/// An open file.
struct OverlayFile {
    inode: Arc<Inode>,
    cx: FsContext,
    flags: OpenFlags,
    opened: Arc<dyn File>,
    /// It was opened in the upper layer.
    in_upper: bool,
    /// In the upper layer, if it was copied there later.
    later: Once<Arc<dyn File>>,
}

/// Opens the file, copying it up first if it is to be written.
pub(super) fn open(node: &Node, inode: &Arc<Inode>, flags: OpenFlags, cx: &FsContext) -> Result<Arc<dyn File>> {
    let truncates = flags.contains(OpenFlags::TRUNC);
    if truncates || flags.access().contains(Access::WRITE) {
        node.copy_up(truncates.then_some(0))?;
    }
    let in_upper = node.upper.get().is_some();
    let opened = open::open_regular(cx, node.real(), flags)?;
    let flags = flags.difference(OpenFlags::TRUNC);
    Ok(Arc::new(OverlayFile { inode: inode.clone(), cx: cx.clone(), flags, opened, in_upper, later: Once::new() }))
}

impl OverlayFile {
    fn node(&self) -> Result<&Node> {
        Node::of(&self.inode)
    }

    /// The open file of the layer that has the content now.
    fn real(&self) -> Result<&Arc<dyn File>> {
        if self.in_upper {
            return Ok(&self.opened);
        }
        if let Some(later) = self.later.get() {
            return Ok(later);
        }
        let Some(upper) = self.node()?.upper_inode() else { return Ok(&self.opened) };
        let opened = open::open_regular(&self.cx, upper, self.flags)?;
        Ok(self.later.get_or_init(|| opened))
    }

    /// The layer's file was written: set-user-ID may be gone, the times are others.
    fn written(&self) {
        if let Ok(node) = self.node() {
            node.bring_up(&self.inode);
        }
    }

    fn is_volatile(&self) -> bool {
        self.node().is_ok_and(|node| node.fs.options.volatile)
    }
}

impl File for OverlayFile {
    fn read(&self, sink: &mut Sink, io: &mut Io) -> Result<usize> {
        let real = self.real()?;
        if Arc::ptr_eq(real, &self.opened) && !self.in_upper {
            // Lower layers are not changed, not even by being read.
            io.flags |= OpenFlags::NOATIME;
        }
        real.read(sink, io)
    }

    fn write(&self, source: &mut Source, io: &mut Io) -> Result<usize> {
        if self.is_volatile() {
            io.flags.remove(OpenFlags::SYNC | OpenFlags::DSYNC);
        }
        let n = self.real()?.write(source, io)?;
        self.written();
        Ok(n)
    }

    fn poll(&self, table: &mut PollTable) -> Events {
        self.opened.poll(table)
    }

    fn pollable(&self) -> bool {
        self.opened.pollable()
    }

    fn ioctl(&self, cx: &IoctlContext, request: u32, arg: usize) -> Result<usize> {
        self.real()?.ioctl(cx, request, arg)
    }

    fn positioned(&self) -> bool {
        true
    }

    fn seek(&self, to: SeekFrom, position: u64) -> Result<u64> {
        self.real()?.seek(to, position)
    }

    fn mapping(&self) -> Result<Mapping> {
        self.real()?.mapping()
    }

    fn truncate(&self, size: u64) -> Result<()> {
        let result = self.real()?.truncate(size);
        self.written();
        result
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        let result = self.real()?.allocate(mode, offset, len);
        self.written();
        result
    }

    fn sync(&self) -> Result<()> {
        if self.is_volatile() || self.node()?.upper.get().is_none() { Ok(()) } else { self.real()?.sync() }
    }

    fn sync_data(&self) -> Result<()> {
        if self.is_volatile() || self.node()?.upper.get().is_none() { Ok(()) } else { self.real()?.sync_data() }
    }

    fn sync_range(&self, from: u64, to: u64) -> Result<()> {
        if self.is_volatile() { Ok(()) } else { self.real()?.sync_range(from, to) }
    }

    fn write_back(&self, from: u64, to: u64) -> Result<()> {
        self.real()?.write_back(from, to)
    }

    fn flags_change(&self, open: &OpenFile, new: OpenFlags) -> Result<()> {
        self.real()?.flags_change(open, new)
    }

    fn flush(&self, table: u64) {
        self.opened.flush(table);
    }

    fn release(&self, flags: OpenFlags) {
        self.opened.release(flags);
        if let Some(later) = self.later.get() {
            later.release(flags);
        }
    }

    fn fdinfo(&self) -> Vec<u8> {
        self.opened.fdinfo()
    }
}
