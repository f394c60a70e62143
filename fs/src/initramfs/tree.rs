//! Making the files of an archive in a tmpfs, below its cache of names, which is still empty.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};

use super::cpio::Header;
use crate::tmpfs::Directory;
use crate::{FileKind, Inode, NewInode, SetAttributes};

/// The tree that is being unpacked into.
pub(super) struct Tree {
    root: Arc<Inode>,
    /// The directory that the last file went into: archives name files directory by directory.
    last: (Vec<u8>, Arc<Inode>),
}

/// The components of a name, without empty ones and `.`. `EINVAL` for `..`, which has no business in an archive.
fn components(name: &[u8]) -> Result<Vec<&[u8]>> {
    let parts: Vec<&[u8]> = name.split(|&b| b == b'/').filter(|c| !c.is_empty() && *c != b".").collect();
    let bad = parts.iter().any(|c| *c == b".." || c.len() > 255);
    if bad { Err(Errno::EINVAL) } else { Ok(parts) }
}

impl Tree {
    pub(super) fn new(root: Arc<Inode>) -> Tree {
        Tree { last: (Vec::new(), root.clone()), root }
    }

    /// The directory of a name, made where the archive forgot it, and the last component; `None` for the root itself.
    fn place<'n>(&mut self, name: &'n [u8]) -> Result<Option<(Arc<Inode>, &'n [u8])>> {
        let parts = components(name)?;
        let Some((last, dirs)) = parts.split_last() else { return Ok(None) };
        let path = dirs.join(&b'/');
        if path != self.last.0 {
            let mut at = self.root.clone();
            for part in dirs {
                at = self.subdirectory(&at, part)?;
            }
            self.last = (path, at);
        }
        Ok(Some((self.last.1.clone(), last)))
    }

    fn subdirectory(&self, dir: &Arc<Inode>, name: &[u8]) -> Result<Arc<Inode>> {
        let ops = dir.ops_as::<Directory>().ok_or(Errno::EINVAL)?;
        if let Some(found) = ops.get(name) {
            return if found.is_dir() { Ok(found) } else { Err(Errno::EINVAL) };
        }
        let new =
            NewInode { kind: FileKind::Directory, mode: 0o755, uid: 0, gid: 0, rdev: Default::default(), target: b"" };
        let made = dir.ops().create(dir, name, &new)?;
        dir.add_link();
        Ok(made)
    }

    /// Makes a file; a directory that is there only gets its attributes, any other file is replaced. `None` for what needs no content.
    pub(super) fn make(
        &mut self,
        name: &[u8],
        kind: FileKind,
        header: &Header,
        target: &[u8],
    ) -> Result<Option<Arc<Inode>>> {
        let new =
            NewInode { kind, mode: header.mode & 0o7777, uid: header.uid, gid: header.gid, rdev: header.rdev, target };
        let Some((dir, last)) = self.place(name)? else {
            set_attributes(&self.root, &new)?;
            return Ok(None);
        };
        let ops = dir.ops_as::<Directory>().ok_or(Errno::EINVAL)?;
        if let Some(there) = ops.get(last) {
            if there.is_dir() && kind == FileKind::Directory {
                set_attributes(&there, &new)?;
                return Ok(Some(there));
            }
            if there.is_dir() {
                return Err(Errno::EINVAL);
            }
            there.drop_link();
            drop(ops.remove(last));
        }
        let made = dir.ops().create(&dir, last, &new)?;
        if kind == FileKind::Directory {
            dir.add_link();
        }
        Ok(Some(made))
    }

    /// Gives a file that is there another name.
    pub(super) fn link(&mut self, name: &[u8], inode: &Arc<Inode>) -> Result<()> {
        let (dir, last) = self.place(name)?.ok_or(Errno::EINVAL)?;
        let ops = dir.ops_as::<Directory>().ok_or(Errno::EINVAL)?;
        match ops.get(last) {
            Some(there) if Arc::ptr_eq(&there, inode) => return Ok(()),
            Some(there) if there.is_dir() => return Err(Errno::EINVAL),
            Some(there) => {
                there.drop_link();
                drop(ops.remove(last));
            }
            None => {}
        }
        ops.insert(last, inode.clone())?;
        inode.add_link();
        Ok(())
    }
}

fn set_attributes(inode: &Inode, new: &NewInode) -> Result<()> {
    let change =
        SetAttributes { mode: Some(new.mode), uid: Some(new.uid), gid: Some(new.gid), ..SetAttributes::default() };
    inode.set_attributes(&change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_dots_and_double_slashes() {
        assert_eq!(components(b"./usr//bin/.").unwrap(), [&b"usr"[..], b"bin"]);
        assert!(components(b"/").unwrap().is_empty());
        assert_eq!(components(b"a/../b"), Err(Errno::EINVAL));
    }
}
