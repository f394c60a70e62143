//! Open directories.

use alloc::sync::Arc;

use base::{Errno, Result};

use crate::vfs::regular::MAX_OFFSET;
use crate::{Dentry, DirEntry, File, FileKind, Inode, Io, IoctlContext, SeekFrom};
use mm::Sink;

/// The position of the first entry after `.` and `..`.
const FIRST: u64 = 2;

/// An open directory.
pub(crate) struct Directory {
    pub(crate) dentry: Arc<Dentry>,
    pub(crate) inode: Arc<Inode>,
}

impl File for Directory {
    fn read(&self, _sink: &mut Sink, _io: &mut Io) -> Result<usize> {
        Err(Errno::EISDIR)
    }

    fn pollable(&self) -> bool {
        false
    }

    fn positioned(&self) -> bool {
        true
    }

    fn seek(&self, to: SeekFrom, position: u64) -> Result<u64> {
        // Positions in a directory are cookies, not bytes, and it has no end that one could count from.
        let new = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(offset) => i64::try_from(position).ok().and_then(|p| p.checked_add(offset)),
            _ => None,
        };
        new.and_then(|n| u64::try_from(n).ok()).ok_or(Errno::EINVAL)
    }

    fn list(&self, position: &mut u64, emit: &mut dyn FnMut(&DirEntry) -> bool) -> Result<()> {
        let _held = self.inode.content.lock();
        if self.dentry.is_gone() {
            return Err(Errno::ENOENT);
        }
        let own = self.inode.number();
        let parent = self.dentry.parent().and_then(|p| p.inode().map(|i| i.number())).unwrap_or(own);
        let dots: [(&[u8], u64); 2] = [(b".", own), (b"..", parent)];
        while let Some((name, inode)) = usize::try_from(*position).ok().and_then(|p| dots.get(p)) {
            if !emit(&DirEntry { name, inode: *inode, kind: FileKind::Directory, next: *position + 1 }) {
                return Ok(());
            }
            *position += 1;
        }
        if *position <= MAX_OFFSET {
            *position = self.inode.ops().list(&self.inode, (*position).max(FIRST), emit)?;
        }
        self.inode.accessed();
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.inode.ops().sync(&self.inode, false)
    }

    fn ioctl(&self, cx: &IoctlContext, request: u32, arg: usize) -> Result<usize> {
        self.inode.ops().ioctl(&self.inode, cx, request, arg)
    }
}
