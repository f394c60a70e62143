//! mkdir(2), mknod(2), symlink(2), link(2).

use alloc::sync::Arc;

use base::{Capability, Errno, Result};

use crate::landlock::{self, Move};
use crate::notify::{self, event};
use crate::vfs::open::needs;
use crate::vfs::permission;
use crate::vfs::walk::{Last, Resolve, Walk};
use crate::{Access, Dentry, DeviceNumber, FileKind, FsContext, Inode, NewInode, Path};

/// Makes a name: walks to its directory, locks that, checks that the name is free and that the caller may write there, and has `make`
/// make the inode. `EEXIST`, `ENOENT`, `EACCES`, `EROFS`, ...
fn make_entry(
    cx: &FsContext,
    base: Option<&Path>,
    path: &[u8],
    kind: Option<(FileKind, DeviceNumber)>,
    make: impl FnOnce(&Path, &Arc<Inode>, &[u8]) -> Result<Arc<Inode>>,
) -> Result<Path> {
    let mut walk = Walk::new(cx, base, Resolve::empty());
    let tail = walk.to_parent(path)?;
    let Last::Name(name) = tail.last else { return Err(Errno::EEXIST) };
    let dir = walk.at;
    let inode = dir.inode()?.clone();
    let _held = inode.content.lock();
    if dir.dentry.is_gone() {
        return Err(Errno::ENOENT);
    }
    if dir.dentry.lookup_locked(name)?.inode().is_some() {
        return Err(Errno::EEXIST);
    }
    let is_dir = matches!(kind, Some((FileKind::Directory, _)));
    // Only a directory can be made under a name with slashes behind it.
    if tail.slash && !is_dir {
        return Err(Errno::ENOENT);
    }
    if let Some((kind, rdev)) = kind {
        landlock::make(cx, &dir, kind, rdev)?;
    }
    permission::check_path(cx, &dir, Access::WRITE | Access::EXEC)?;
    let made = make(&dir, &inode, name)?;
    inode.modified();
    let dentry = dir.dentry.instantiate(name, made.clone());
    notify::name_event(&inode, event::CREATE, name, &made, 0);
    Ok(Path { mount: dir.mount, dentry })
}

/// mkdir(2).
pub fn mkdir(cx: &FsContext, base: Option<&Path>, path: &[u8], mode: u32) -> Result<()> {
    make_entry(cx, base, path, Some((FileKind::Directory, DeviceNumber::default())), |_, dir, name| {
        let asked = mode & 0o1777;
        let (uid, gid, mode) = permission::for_new(cx, dir, FileKind::Directory, asked);
        let new = NewInode { kind: FileKind::Directory, mode, uid, gid, rdev: DeviceNumber::default(), target: b"" };
        let made = permission::create(dir, name, &new, asked)?;
        dir.add_link();
        Ok(made)
    })?;
    Ok(())
}

/// mknod(2), of regular files, FIFOs, devices (`EPERM` without CAP_MKNOD) and sockets. `EINVAL`, `EPERM` for directories.
pub fn mknod(cx: &FsContext, base: Option<&Path>, path: &[u8], mode: u32, rdev: DeviceNumber) -> Result<()> {
    let kind = match mode & abi::general::S_IFMT {
        0 => FileKind::Regular,
        _ => FileKind::from_mode(mode).ok_or(Errno::EINVAL)?,
    };
    match kind {
        FileKind::Directory => return Err(Errno::EPERM),
        FileKind::Symlink | FileKind::None => return Err(Errno::EINVAL),
        _ => {}
    }
    make_node(cx, base, path, kind, mode, rdev).map(drop)
}

/// As [`mknod`], for bind(2) of a unix socket: the path of what was made.
pub fn make_node(
    cx: &FsContext,
    base: Option<&Path>,
    path: &[u8],
    kind: FileKind,
    mode: u32,
    rdev: DeviceNumber,
) -> Result<Path> {
    make_entry(cx, base, path, Some((kind, rdev)), |_, dir, name| {
        let is_device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
        if is_device && rdev != DeviceNumber::default() {
            needs(cx, Capability::Mknod)?;
        }
        let asked = mode & 0o7777;
        let (uid, gid, mode) = permission::for_new(cx, dir, kind, asked);
        let rdev = if is_device { rdev } else { DeviceNumber::default() };
        permission::create(dir, name, &NewInode { kind, mode, uid, gid, rdev, target: b"" }, asked)
    })
}

/// symlink(2). `ENOENT` for an empty target.
pub fn symlink(cx: &FsContext, target: &[u8], base: Option<&Path>, path: &[u8]) -> Result<()> {
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    make_entry(cx, base, path, Some((FileKind::Symlink, DeviceNumber::default())), |_, dir, name| {
        let (uid, gid, _) = permission::for_new(cx, dir, FileKind::Symlink, 0o777);
        let new = NewInode { kind: FileKind::Symlink, mode: 0o777, uid, gid, rdev: DeviceNumber::default(), target };
        dir.ops().create(dir, name, &new)
    })?;
    Ok(())
}

/// link(2): gives `old` the further name `path`. `EXDEV`, `EPERM` (directories), `ENOENT` (removed, or O_TMPFILE with O_EXCL), `EMLINK`.
pub fn link(cx: &FsContext, old: &Path, base: Option<&Path>, path: &[u8]) -> Result<()> {
    let inode = old.inode()?.clone();
    make_entry(cx, base, path, None, |dir_path, dir, name| {
        if !Arc::ptr_eq(&dir_path.mount, &old.mount) {
            return Err(Errno::EXDEV);
        }
        let parent = old.dentry.parent().unwrap_or_else(|| old.dentry.clone());
        let from = Path { mount: old.mount.clone(), dentry: parent };
        let new = dir_path.dentry.lookup_locked(name)?;
        let linked = Move {
            from: &from,
            old: &old.dentry,
            to: dir_path,
            new: &new,
            removes: false,
            exchanges: false,
            marks: false,
        };
        landlock::rename(cx, &linked)?;
        if inode.is_dir() {
            return Err(Errno::EPERM);
        }
        if inode.nlink() == 0 && !inode.may_gain_name() {
            return Err(Errno::ENOENT);
        }
        if inode.nlink() >= u32::MAX / 2 {
            return Err(Errno::EMLINK);
        }
        dir.ops().link(dir, name, &inode)?;
        inode.add_link();
        notify::inode_event(&inode, event::ATTRIB);
        Ok(inode.clone())
    })?;
    Ok(())
}

/// The dentry under `name` in the locked directory, which must exist. `ENOENT`.
pub(crate) fn existing(dir: &Path, name: &[u8]) -> Result<(Arc<Dentry>, Arc<Inode>)> {
    let found = dir.dentry.lookup_locked(name)?;
    let inode = found.inode().ok_or(Errno::ENOENT)?.clone();
    Ok((found, inode))
}
