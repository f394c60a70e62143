//! Inodes of images.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use abi::PAGE_SIZE;
use base::{Errno, Result};
use hal::frame::Frame;
use mm::{PageCache, Pager};

use super::storage::buffer;
use super::{Image, Mounted, Stat};
use crate::xattr::{SetMode, XattrStore};
use crate::{DirEntry, FileKind, Found, FsContext, Inode, InodeOps, LinkTarget};

/// An image's part of an inode.
pub(super) struct Node<I: Image> {
    mount: Arc<Mounted<I>>,
    id: u64,
    file: Arc<I::File>,
    stat: Stat,
    cache: Option<Arc<PageCache>>,
}

impl<I: Image> Node<I> {
    /// The inode of a file, found or made. `EIO`, `ENOMEM`.
    pub(super) fn get(mount: &Arc<Mounted<I>>, id: u64) -> Result<Arc<Inode>> {
        if let Some(known) = mount.known.get(id) {
            return Ok(known);
        }
        let superblock = mount.superblock.get().and_then(Weak::upgrade).ok_or(Errno::EIO)?;
        let file = Arc::new(mount.image.file(id)?);
        let stat = mount.image.stat(&file);
        let cache = (stat.kind == FileKind::Regular).then(|| {
            let pager = FilePager { mount: mount.clone(), file: file.clone() };
            PageCache::with_pager(Arc::new(pager), stat.size)
        });
        let node = Node { mount: mount.clone(), id, file, stat, cache };
        let inode = Inode::stored(&superblock, stat.number, (stat.kind, stat.rdev), &stat.attributes, Box::new(node));
        mount.known.add(id, inode, |_| true)
    }
}

impl<I: Image> Drop for Node<I> {
    fn drop(&mut self) {
        self.mount.known.remove(self.id);
    }
}

impl<I: Image> InodeOps for Node<I> {
    fn lookup(&self, _dir: &Arc<Inode>, name: &[u8]) -> Result<Found> {
        if self.stat.kind != FileKind::Directory {
            return Err(Errno::ENOTDIR);
        }
        let found = self.mount.image.lookup(&self.file, name)?;
        let inode = found.map(|id| Node::get(&self.mount, id)).transpose()?;
        Ok(Found { inode, cacheable: true })
    }

    fn list(&self, _dir: &Arc<Inode>, position: u64, emit: &mut dyn FnMut(&DirEntry) -> bool) -> Result<u64> {
        self.mount.image.list(&self.file, position, emit)
    }

    fn read_link(&self, _cx: &FsContext) -> Result<LinkTarget> {
        if self.stat.kind != FileKind::Symlink {
            return Err(Errno::EINVAL);
        }
        Ok(LinkTarget::Path(self.mount.image.link(&self.file)?))
    }

    fn page_cache(&self) -> Option<&Arc<PageCache>> {
        self.cache.as_ref()
    }

    fn seek(&self, offset: u64, data: bool) -> Result<Option<u64>> {
        let size = self.stat.size;
        Ok(if offset >= size { None } else { Some(if data { offset } else { size }) })
    }

    fn size(&self) -> u64 {
        self.stat.size
    }

    fn blocks(&self) -> u64 {
        self.stat.sectors
    }

    fn xattrs(&self) -> Option<&dyn XattrStore> {
        Some(self)
    }
}

impl<I: Image> XattrStore for Node<I> {
    fn get(&self, name: &[u8]) -> Result<Vec<u8>> {
        let all = self.mount.image.xattrs(&self.file)?;
        all.into_iter().find(|(its_name, _)| its_name == name).map(|(_, value)| value).ok_or(Errno::ENODATA)
    }

    fn set(&self, _name: &[u8], _value: &[u8], _mode: SetMode) -> Result<()> {
        Err(Errno::EROFS)
    }

    fn remove(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EROFS)
    }

    fn list(&self, keep: &dyn Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
        let mut names = Vec::new();
        for (name, _) in self.mount.image.xattrs(&self.file)?.iter().filter(|(name, _)| keep(name)) {
            names.extend_from_slice(name);
            names.push(0);
        }
        Ok(names)
    }
}

/// Reads a file's pages.
struct FilePager<I: Image> {
    mount: Arc<Mounted<I>>,
    file: Arc<I::File>,
}

impl<I: Image> Pager for FilePager<I> {
    fn read(&self, first: u64, frames: &[Frame]) -> Result<()> {
        let mut bytes = buffer(frames.len() * PAGE_SIZE)?;
        self.mount.image.read(&self.file, first * PAGE_SIZE as u64, &mut bytes)?;
        for (frame, page) in frames.iter().zip(bytes.chunks(PAGE_SIZE)) {
            frame.write(0, page);
        }
        Ok(())
    }

    fn write(&self, _pages: &[(u64, Frame)]) -> Result<()> {
        Err(Errno::EROFS)
    }
}
