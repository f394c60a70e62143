//! File handles: a file's name for those who keep it while it is not open (name_to_handle_at(2), open_by_handle_at(2)).

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Capability, Errno, Result};

use crate::vfs::open;
use crate::{Dentry, FsContext, Inode, OpenFile, OpenFlags, Path};

/// The most bytes that a handle has (MAX_HANDLE_SZ).
pub const SIZE_MAX: usize = 128;

/// How a file system's handles look. They are those of Linux.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// Inode number and generation, 32 bits each (FILEID_INO32_GEN).
    Short,
    /// Generation, then 64 bits of inode number: tmpfs's.
    Long,
}

/// The type of both layouts: FILEID_INO32_GEN.
const KIND: i32 = 1;

/// A handle.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileHandle {
    /// Its type.
    pub kind: i32,
    /// What the file system knows the file by.
    pub bytes: Vec<u8>,
}

/// The handle of a file. `EOPNOTSUPP` where the file system has none.
pub fn encode(inode: &Inode) -> Result<FileHandle> {
    let ops = &inode.superblock().ops;
    let number = inode.number();
    let generation = ops.generation(inode).to_ne_bytes();
    let bytes = match ops.handle_layout().ok_or(Errno::EOPNOTSUPP)? {
        Layout::Short => [(number as u32).to_ne_bytes(), generation].concat(),
        Layout::Long => {
            let halves = [(number as u32).to_ne_bytes(), ((number >> 32) as u32).to_ne_bytes()];
            [generation, halves[0], halves[1]].concat()
        }
    };
    Ok(FileHandle { kind: KIND, bytes })
}

/// The inode number and generation in a handle. `ESTALE` for what is none.
fn decode(layout: Layout, handle: &FileHandle) -> Result<(u64, u32)> {
    let word = |at: usize| -> Result<u32> {
        let bytes = handle.bytes.get(at..at + 4).ok_or(Errno::ESTALE)?;
        Ok(u32::from_ne_bytes(bytes.try_into().map_err(|_| Errno::ESTALE)?))
    };
    if handle.kind != KIND {
        return Err(Errno::ESTALE);
    }
    match layout {
        Layout::Short => Ok((word(0)?.into(), word(4)?)),
        Layout::Long => Ok((u64::from(word(4)?) | u64::from(word(8)?) << 32, word(0)?)),
    }
}

/// open_by_handle_at(2): opens the file of a handle, in the file system that `mount` shows. `EPERM` without CAP_DAC_READ_SEARCH,
/// `ESTALE` where there is no such file (any more), `EOPNOTSUPP`; else as open(2).
pub fn open(cx: &FsContext, mount: &Path, handle: &FileHandle, flags: OpenFlags) -> Result<Arc<OpenFile>> {
    if !cx.cred.capable(Capability::DacReadSearch) {
        return Err(Errno::EPERM);
    }
    let superblock = &mount.mount.superblock;
    let layout = superblock.ops.handle_layout().ok_or(Errno::ESTALE)?;
    let (number, generation) = decode(layout, handle)?;
    let fits = |inode: &Inode| inode.number() == number && superblock.ops.generation(inode) == generation;
    let dentry = match find(&mount.mount.root, &fits) {
        Some(dentry) => dentry,
        None => {
            let inode = superblock.ops.inode(number)?;
            if !fits(&inode) || inode.nlink() == 0 {
                return Err(Errno::ESTALE);
            }
            Dentry::root(inode, b"/")
        }
    };
    open::open_path(cx, Path { mount: mount.mount.clone(), dentry }, flags)
}

/// The first name in the cache of names, from `root` down, that leads to such an inode.
fn find(root: &Arc<Dentry>, fits: &dyn Fn(&Inode) -> bool) -> Option<Arc<Dentry>> {
    let mut left = alloc::vec![root.clone()];
    while let Some(dentry) = left.pop() {
        if dentry.inode().is_some_and(|inode| fits(inode)) {
            return Some(dentry);
        }
        left.extend(dentry.children());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_read_as_they_are_written() {
        let handle = |bytes: &[u8]| FileHandle { kind: KIND, bytes: bytes.to_vec() };
        assert_eq!(decode(Layout::Short, &handle(&[7, 0, 0, 0, 9, 0, 0, 0])), Ok((7, 9)));
        assert_eq!(decode(Layout::Long, &handle(&[9, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0])), Ok((7 | 1 << 32, 9)));
        assert_eq!(decode(Layout::Long, &handle(&[9, 0, 0, 0, 7, 0])), Err(Errno::ESTALE));
        assert_eq!(decode(Layout::Short, &FileHandle { kind: 2, bytes: Vec::new() }), Err(Errno::ESTALE));
    }
}
