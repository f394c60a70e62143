//! Opening a program to run it.

use alloc::sync::Arc;

use base::{Errno, Result};

use crate::landlock;
use crate::notify::{self, event};
use crate::open_file::Hold;
use crate::vfs::{open, permission, walk};
use crate::{Access, FileKind, FsContext, MountFlags, OpenFile, OpenFlags, Path};

/// Opens `path` (seen from `base`) for execve(2): a regular file that the caller may execute, on a mount that allows it. While the
/// open file lives nobody can open it for writing. `follow` is false for AT_SYMLINK_NOFOLLOW; an empty path is `base` itself.
/// `EACCES`, `ETXTBSY`, `ELOOP`, and the errors of the walk.
pub fn open_exec(cx: &FsContext, base: Option<&Path>, path: &[u8], follow: bool) -> Result<Arc<OpenFile>> {
    let found = walk::lookup_at(cx, base, path, follow, base.is_some())?;
    let inode = found.inode()?.clone();
    if inode.kind() == FileKind::Symlink {
        return Err(Errno::ELOOP);
    }
    if inode.kind() != FileKind::Regular || found.mount.flags().contains(MountFlags::NOEXEC) {
        return Err(Errno::EACCES);
    }
    permission::check(&cx.cred, &inode, Access::EXEC)?;
    landlock::open(cx, &found, Access::READ | Access::EXEC)?;
    inode.deny_write()?;
    let file = match open::open_regular(cx, &inode, OpenFlags::LARGEFILE) {
        Ok(file) => file,
        Err(_) => {
            inode.allow_write();
            return Err(Errno::EACCES);
        }
    };
    let open = OpenFile::new(file, found, inode, OpenFlags::LARGEFILE, Hold::DenyWrite);
    notify::open_file_event(&open, event::OPEN | event::OPEN_EXEC);
    Ok(open)
}
