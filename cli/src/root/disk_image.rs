//! A root on a disk image: the guest's PID 1 is told which of its disks that is, and makes it the root.

use super::{Output, add_folder};
use crate::disk::Disk;
use crate::failure::{Context, Failure};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where ext2, ext3 and ext4 have their magic number, and what it is.
const EXT_MAGIC: (u64, [u8; 2]) = (1080, [0x53, 0xef]);
/// What images that can't be written have as their magic number, and where: squashfs and erofs.
const SQUASHFS_MAGIC: (u64, [u8; 4]) = (0, *b"hsqs");
const EROFS_MAGIC: (u64, [u8; 4]) = (1024, [0xe2, 0xe1, 0xf5, 0xe0]);
const QCOW2_MAGIC: [u8; 4] = *b"QFI\xfb";

/// The disk, if the file is a disk image: with a file system of its own, or in qcow2 format (whatever is in it).
pub(super) fn recognize(path: &Path, keep: bool) -> Result<Option<Disk>, Failure> {
    if path.is_dir() {
        return if keep { Err(Failure::new("--keep needs a root that is a disk image")) } else { Ok(None) };
    }
    let file = File::open(path).or_fail(|| format!("cannot use the root {}", path.display()))?;
    let is = |at: u64, magic: &[u8]| {
        let mut found = vec![0; magic.len()];
        file.read_exact_at(&mut found, at).is_ok() && found == magic
    };
    let fixed = [SQUASHFS_MAGIC, EROFS_MAGIC].iter().any(|(at, magic)| is(*at, magic));
    if fixed && keep {
        return Err(Failure::new("--keep needs a root that can be written: this image can't"));
    }
    if !fixed && !is(EXT_MAGIC.0, &EXT_MAGIC.1) && !is(0, &QCOW2_MAGIC) {
        return if keep { Err(Failure::new("--keep needs a root that is a disk image")) } else { Ok(None) };
    }
    let image = path.to_str().ok_or_else(|| Failure::new("the name of a disk image has to be UTF-8"))?.to_owned();
    Ok(Some(Disk { image, read_only: fixed, snapshot: !keep && !fixed }))
}

/// Writes the folders that the kernel and PID 1 mount on before the root is there.
pub(super) fn write(archive: &mut Output) -> Result<(), Failure> {
    for name in ["dev", "newroot", "proc", "run", "sys", "tmp"] {
        add_folder(archive, name)?;
    }
    Ok(())
}
