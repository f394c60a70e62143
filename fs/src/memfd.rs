//! memfd_create(2).

use alloc::boxed::Box;
use alloc::sync::Arc;

use base::Result;

use crate::open_file::Hold;
use crate::tmpfs::Regular;
use crate::vfs::pseudo::MEMORY;
use crate::vfs::regular::RegularFile;
use crate::{FileKind, FsContext, OpenFile, OpenFlags};

/// A file in memory, shown as `/memfd:NAME (deleted)`. With `sealable`, seals can be added.
pub fn create(cx: &FsContext, name: &[u8], sealable: bool) -> Result<Arc<OpenFile>> {
    let inode = MEMORY.inode(FileKind::Regular, 0o777, Some(cx), Some(Box::new(Regular::memfd(sealable))));
    inode.set_nlink(0);
    let mut shown = b"/memfd:".to_vec();
    shown.extend_from_slice(name);
    let path = MEMORY.path(&inode, &shown);
    let file = RegularFile::open(&inode, &cx.cred)?;
    inode.get_write()?;
    path.mount.get_write()?;
    Ok(OpenFile::new(file, path, inode, OpenFlags::RDWR | OpenFlags::LARGEFILE, Hold::Write))
}
