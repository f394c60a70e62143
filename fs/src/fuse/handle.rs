//! Handles of open files: reading and writing a message's worth at a time.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Cred, Errno, Result};
use mm::{Sink, Source};

use super::node::Node;
use super::wire::{Answer, Fields, opcode};
use crate::image::buffer;
use crate::remote::{Moved, Remote, RemoteFile};
use crate::{Access, File, Inode, OpenFlags};

/// An open file: the program's handle of it, and how it was opened.
struct Handle {
    inode: Arc<Inode>,
    number: u64,
    flags: u32,
}

/// Opens a file. The program's error.
pub(super) fn open(inode: &Arc<Inode>, flags: OpenFlags, cred: &Cred) -> Result<Arc<dyn File>> {
    let node = Node::of(inode)?;
    let bits = flags.difference(OpenFlags::CREATION).bits();
    let number = node.open_handle(bits)?;
    if flags.access().contains(Access::WRITE) {
        node.add_writer(number);
    }
    if let Some(cache) = inode.ops().page_cache().filter(|cache| !cache.is_dirty()) {
        cache.forget(0, u64::MAX);
    }
    let handle = Handle { inode: inode.clone(), number, flags: bits };
    Ok(Arc::new(RemoteFile::new(inode, handle, flags, cred)))
}

impl Handle {
    fn node(&self) -> Result<&Node> {
        Node::of(&self.inode)
    }
}

impl Remote for Handle {
    fn read_some(&self, sink: &mut Sink, offset: u64) -> Result<Moved> {
        let node = self.node()?;
        let wanted = sink.remaining().min(node.tree.connection.read_max());
        let bytes = node.read(self.number, offset, wanted)?;
        let put = if bytes.is_empty() { 0 } else { sink.put(&bytes)? };
        Ok(Moved { bytes: put, whole: put == wanted })
    }

    fn write_some(&self, source: &mut Source, offset: u64) -> Result<Moved> {
        let node = self.node()?;
        let mut bytes = buffer(source.remaining().min(node.tree.connection.write_max()))?;
        let taken = source.take(&mut bytes)?;
        let written = node.write(self.number, offset, &bytes[..taken])?;
        Ok(Moved { bytes: written, whole: written == bytes.len() })
    }

    fn ask(&self, inode: &Inode) -> Result<()> {
        self.node()?.ask(inode)
    }

    fn sync(&self, data_only: bool) -> Result<()> {
        let fields = Fields::new().u64(self.number).u32(u32::from(data_only)).u32(0);
        match self.node()?.call(opcode::FSYNC, &fields) {
            Err(Errno::ENOSYS) => Ok(()),
            result => result.map(drop),
        }
    }

    fn allocate(&self, inode: &Inode, mode: u32, offset: u64, len: u64) -> Result<()> {
        let node = self.node()?;
        let fields = Fields::new().u64(self.number).u64(offset).u64(len).u32(mode).u32(0);
        node.call(opcode::FALLOCATE, &fields).map_err(|error| match error {
            Errno::ENOSYS => Errno::EOPNOTSUPP,
            error => error,
        })?;
        if let Some(cache) = inode.ops().page_cache() {
            cache.forget(0, u64::MAX);
        }
        node.ask(inode)
    }

    fn changed(&self) {
        if let Ok(node) = self.node() {
            node.expire();
        }
    }

    fn flush(&self, table: u64) {
        if let Ok(node) = self.node() {
            // Errors of closing are not told here; those of fsync(2) are.
            let _ = node.call(opcode::FLUSH, &Fields::new().u64(self.number).u32(0).u32(0).u64(table));
        }
    }

    fn release(&self) {
        let Ok(node) = self.node() else { return };
        node.remove_writer(self.number);
        node.close_handle(self.number, self.flags);
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
