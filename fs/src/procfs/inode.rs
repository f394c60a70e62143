//! Nodes as inodes and open files.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use core::sync::atomic::{AtomicU64, Ordering};

use base::{Errno, Events, Result};
use mm::{Sink, Source};

use crate::poll::ALWAYS_READY;
use crate::procfs::node::{Listed, Node, ProcFile, Shape};
use crate::vfs::regular::seek_within;
use crate::vfs::superblock::NoSuperOps;
use crate::{
    Access, DeviceNumber, DirEntry, File, Found, FsContext, Inode, InodeOps, Io, LinkTarget, NewInode, OpenFlags,
    PollTable, SeekFrom, SetAttributes, SuperBlock, SuperOps,
};

struct NodeOps(Node);

/// A file system whose root directory is the node.
pub fn mount_node(kind: &'static str, magic: u32, root: Node) -> Arc<Inode> {
    mount_with(kind, magic, root, Box::new(NoSuperOps))
}

/// As [`mount_node`], with a part of its own.
pub(super) fn mount_with(kind: &'static str, magic: u32, root: Node, ops: Box<dyn SuperOps>) -> Arc<Inode> {
    to_inode(&SuperBlock::new(kind, magic, ops), root)
}

fn to_inode(superblock: &Arc<SuperBlock>, node: Node) -> Arc<Inode> {
    let (uid, gid) = node.owner;
    let new = NewInode { kind: node.kind(), mode: node.mode, uid, gid, rdev: DeviceNumber::default(), target: b"" };
    let number = if node.inode != 0 { node.inode } else { (1 << 32) + superblock.new_inode_number() };
    Inode::new(superblock, number, &new, Box::new(NodeOps(node)))
}

impl InodeOps for NodeOps {
    fn lookup(&self, dir: &Arc<Inode>, name: &[u8]) -> Result<Found> {
        let Shape::Dir(node) = &self.0.shape else { return Err(Errno::ENOTDIR) };
        let inode = node.lookup(name).map(|n| to_inode(dir.superblock(), n));
        Ok(Found { cacheable: inode.is_some() && node.is_fixed(name), inode })
    }

    fn list(&self, _dir: &Arc<Inode>, position: u64, emit: &mut dyn FnMut(&DirEntry) -> bool) -> Result<u64> {
        let Shape::Dir(node) = &self.0.shape else { return Err(Errno::ENOTDIR) };
        // Positions of nodes start at 0, those of directories after `.` and `..`.
        let mut adapt =
            |e: &Listed| emit(&DirEntry { name: e.name, inode: e.next + 1, kind: e.kind, next: e.next + 2 });
        Ok(node.list(position.saturating_sub(2), &mut adapt) + 2)
    }

    fn read_link(&self, cx: &FsContext) -> Result<LinkTarget> {
        let Shape::Link(node) = &self.0.shape else { return Err(Errno::EINVAL) };
        node.target(cx)
    }

    fn link_text(&self, cx: &FsContext) -> Result<Vec<u8>> {
        let Shape::Link(node) = &self.0.shape else { return Err(Errno::EINVAL) };
        node.text(cx)
    }

    fn open(&self, _inode: &Arc<Inode>, flags: OpenFlags, cx: &FsContext) -> Result<Option<Arc<dyn File>>> {
        match &self.0.shape {
            Shape::File(node) => {
                node.may_open(flags, cx)?;
                let seen = AtomicU64::new(node.news().map_or(0, |(_, number)| number));
                Ok(Some(Arc::new(OpenNode { node: node.clone(), content: sched::Mutex::new(None), seen })))
            }
            Shape::Open(opener) => opener(flags, cx).map(Some),
            Shape::Dir(_) | Shape::Link(_) => Ok(None),
        }
    }

    fn may_resize(&self, _inode: &Inode, _size: u64) -> Result<()> {
        // `echo x > /proc/sys/...` opens with O_TRUNC, which has nothing to truncate.
        Ok(())
    }

    fn set_attributes(&self, _inode: &Inode, change: &SetAttributes) -> Result<()> {
        let fixed = change.mode.is_some() || change.uid.is_some() || change.gid.is_some();
        if fixed { Err(Errno::EPERM) } else { Ok(()) }
    }

    fn permission(&self, _inode: &Inode, access: Access) -> Result<()> {
        self.0.check.as_ref().map_or(Ok(()), |check| check(access))
    }
}

/// An open file of a node: keeps the content that its reader began with, so that what is read piecemeal fits together.
struct OpenNode {
    node: Arc<dyn ProcFile>,
    content: sched::Mutex<Option<Vec<u8>>>,
    /// The last number of the node's news that poll(2) told of.
    seen: AtomicU64,
}

/// The most that one write takes, as on Linux.
const WRITE_MAX: usize = abi::PAGE_SIZE;

impl File for OpenNode {
    fn read(&self, sink: &mut Sink, io: &mut Io) -> Result<usize> {
        let mut content = self.content.lock();
        if io.offset == 0 || content.is_none() {
            *content = Some(self.node.read()?);
        }
        let text = content.as_deref().unwrap_or_default();
        let rest = usize::try_from(io.offset).ok().and_then(|start| text.get(start..)).unwrap_or_default();
        sink.put(rest)
    }

    fn write(&self, source: &mut Source, _io: &mut Io) -> Result<usize> {
        let len = source.remaining().min(WRITE_MAX);
        let mut data = Vec::new();
        data.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
        data.resize(len, 0);
        if source.take(&mut data)? < len {
            return Err(Errno::EFAULT);
        }
        self.node.write(&data)?;
        Ok(len)
    }

    /// What is shown has no size of its own.
    fn truncate(&self, _size: u64) -> Result<()> {
        Ok(())
    }

    fn poll(&self, table: &mut PollTable) -> Events {
        let Some((queue, _)) = self.node.news() else { return ALWAYS_READY };
        table.register(&queue);
        let number = self.node.news().map_or(0, |(_, number)| number);
        if self.seen.swap(number, Ordering::AcqRel) == number {
            Events::READABLE
        } else {
            Events::READABLE | Events::ERR | Events::PRI
        }
    }

    fn positioned(&self) -> bool {
        true
    }

    fn seek(&self, to: SeekFrom, position: u64) -> Result<u64> {
        match to {
            SeekFrom::Start(_) | SeekFrom::Current(_) => seek_within(to, position, 0),
            _ => Err(Errno::EINVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FileKind;
    use crate::procfs::{dir, file};

    #[test]
    fn nodes_become_inodes_with_their_attributes() {
        let root = mount_node("test", 1, dir(alloc::vec![("a", file(|| Ok(b"x".to_vec())).mode(0o400))]));
        assert_eq!(root.kind(), FileKind::Directory);
        let found = root.ops().lookup(&root, b"a").unwrap();
        assert!(found.cacheable);
        let inode = found.inode.unwrap();
        assert_eq!((inode.mode(), inode.kind()), (0o400, FileKind::Regular));
        assert!(root.ops().lookup(&root, b"b").unwrap().inode.is_none());
    }
}
