//! memfd_create(2).

use alloc::boxed::Box;
use alloc::sync::Arc;

use base::Result;

use crate::open_file::Hold;
use crate::tmpfs::{Regular, seal};
use crate::vfs::pseudo::MEMORY;
use crate::vfs::regular::RegularFile;
use crate::{FileKind, FsContext, OpenFile, OpenFlags};

/// What can be done with a new one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sealing {
    /// Nothing can be sealed.
    No,
    /// Seals can be added (MFD_ALLOW_SEALING).
    Allowed,
    /// It is not executable and can't be made so; other seals can be added (MFD_NOEXEC_SEAL).
    NoExec,
}

/// A file in memory, shown as `/memfd:NAME (deleted)`.
pub fn create(cx: &FsContext, name: &[u8], sealing: Sealing) -> Result<Arc<OpenFile>> {
    let (mode, seals) = match sealing {
        Sealing::No => (0o777, seal::SEAL),
        Sealing::Allowed => (0o777, 0),
        Sealing::NoExec => (0o666, seal::EXEC),
    };
    let inode = MEMORY.inode(FileKind::Regular, mode, Some(cx), Some(Box::new(Regular::memfd(seals))));
    inode.set_nlink(0);
    let mut shown = b"/memfd:".to_vec();
    shown.extend_from_slice(name);
    let path = MEMORY.path(&inode, &shown);
    let file = RegularFile::open(&inode, &cx.cred)?;
    inode.get_write()?;
    path.mount.get_write()?;
    Ok(OpenFile::new(file, path, inode, OpenFlags::RDWR | OpenFlags::LARGEFILE, Hold::Write))
}
