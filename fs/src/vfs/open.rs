//! open(2) and its kin.

use alloc::sync::Arc;

use base::{Capability, Errno, Result};
use hal::sync::Once;

use crate::landlock;
use crate::lease;
use crate::notify::{self, event};
use crate::open_file::Hold;
use crate::vfs::directory::Directory;
use crate::vfs::regular::{self, RegularFile};
use crate::vfs::walk::{Last, Resolve, Walk};
use crate::vfs::{acl, mount, permission};
use crate::{
    Access, Dentry, DeviceNumber, File, FileKind, FsContext, Inode, Io, LinkTarget, Mount, MountFlags, NewInode,
    OpenFile, OpenFlags, Path, chardev,
};

/// How to open: what openat2(2) takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenHow {
    /// The flags.
    pub flags: OpenFlags,
    /// The mode of a file that is made.
    pub mode: u32,
    /// Restrictions on the walk.
    pub resolve: Resolve,
}

/// Opens the pipe behind a FIFO's inode; set by the layer that has pipes.
pub type FifoOpener = fn(&Arc<Inode>, OpenFlags) -> Result<Arc<dyn File>>;
static FIFO_OPENER: Once<FifoOpener> = Once::new();

/// Sets how FIFOs are opened. Once, at boot.
pub fn set_fifo_opener(opener: FifoOpener) {
    assert!(FIFO_OPENER.set(opener).is_ok(), "the FIFO opener is set twice");
}

/// A file that a walk found or made, to be opened.
struct Target {
    path: Path,
    created: bool,
}

impl OpenHow {
    /// Checks the flags against each other, and drops those without effect, as Linux's `build_open_flags` does. `EINVAL`.
    fn validate(mut self) -> Result<OpenHow> {
        let tmpfile = self.flags.contains(OpenFlags::TMPFILE);
        if tmpfile {
            let writes = self.flags.access().contains(Access::WRITE);
            if !self.flags.contains(OpenFlags::DIRECTORY) || !writes || self.flags.contains(OpenFlags::CREAT) {
                return Err(Errno::EINVAL);
            }
        } else if self.flags.contains(OpenFlags::CREAT | OpenFlags::DIRECTORY) {
            return Err(Errno::EINVAL);
        }
        if self.flags.contains(OpenFlags::PATH) {
            self.flags &= OpenFlags::PATH | OpenFlags::DIRECTORY | OpenFlags::NOFOLLOW | OpenFlags::CLOEXEC;
        }
        if !self.flags.intersects(OpenFlags::CREAT | OpenFlags::TMPFILE) {
            self.mode = 0;
        }
        Ok(self)
    }

    fn follows(&self) -> bool {
        let exclusive = self.flags.contains(OpenFlags::CREAT | OpenFlags::EXCL);
        !self.flags.contains(OpenFlags::NOFOLLOW) && !exclusive
    }

    /// What is checked on the file. Truncating needs the right to write, whatever the access mode.
    fn wanted(&self) -> Access {
        let accmode = self.flags.bits() & abi::general::O_ACCMODE;
        let mut wanted = if accmode == 3 { Access::READ | Access::WRITE } else { self.flags.access() };
        if self.flags.contains(OpenFlags::TRUNC) {
            wanted |= Access::WRITE;
        }
        wanted
    }
}

/// Opens `path`, seen from `base` (None: the working directory), making it if so asked. All of open(2)'s errors but those about
/// descriptors.
pub fn open(cx: &FsContext, base: Option<&Path>, path: &[u8], how: OpenHow) -> Result<Arc<OpenFile>> {
    let how = how.validate()?;
    let mut walk = Walk::new(cx, base, how.resolve);
    if how.flags.contains(OpenFlags::TMPFILE) {
        walk.to_end(path, how.follows())?;
        return open_unnamed(cx, &walk.at, how);
    }
    if how.flags.contains(OpenFlags::CREAT) {
        let target = find_or_create(cx, &mut walk, path, how)?;
        return open_target(cx, target, how);
    }
    walk.to_end(path, how.follows())?;
    open_target(cx, Target { path: walk.at, created: false }, how)
}

/// Opens a file that was found before (`/proc/PID/fd` links, TIOCGPTPEER, fanotify's events). Permissions are checked.
pub fn open_path(cx: &FsContext, path: Path, flags: OpenFlags) -> Result<Arc<OpenFile>> {
    open_target(cx, Target { path, created: false }, OpenHow { flags, ..OpenHow::default() }.validate()?)
}

/// Walks with O_CREAT: to the file, or to its directory and makes it there. A symbolic link at the end is followed, also one that
/// leads to nothing.
fn find_or_create(cx: &FsContext, walk: &mut Walk, path: &[u8], how: OpenHow) -> Result<Target> {
    let mut path = alloc::borrow::Cow::Borrowed(path);
    loop {
        let tail = walk.to_parent(&path)?;
        let Last::Name(name) = tail.last else { return Err(Errno::EISDIR) };
        if tail.slash {
            return Err(Errno::EISDIR);
        }
        let found = walk.child(name)?;
        let Some(inode) = found.inode() else {
            if let Some(made) = create_file(cx, &walk.at, name, how)? {
                let path = Path { mount: walk.at.mount.clone(), dentry: made };
                return Ok(Target { path, created: true });
            }
            // Somebody else made it in between: look again.
            continue;
        };
        if how.flags.contains(OpenFlags::EXCL) {
            return Err(Errno::EEXIST);
        }
        if inode.kind() != FileKind::Symlink || !how.follows() {
            let path = mount::enter(Path { mount: walk.at.mount.clone(), dentry: found });
            if path.inode()?.is_dir() {
                return Err(Errno::EISDIR);
            }
            return Ok(Target { path, created: false });
        }
        let inode = inode.clone();
        match walk.read_link(&inode)? {
            LinkTarget::Path(target) => path = alloc::borrow::Cow::Owned(target),
            LinkTarget::File(file) => return Ok(Target { path: file, created: false }),
        }
    }
}

/// Makes a regular file; `None` where one appeared meanwhile.
fn create_file(cx: &FsContext, dir: &Path, name: &[u8], how: OpenHow) -> Result<Option<Arc<Dentry>>> {
    let inode = dir.inode()?;
    let _held = inode.content.lock();
    if dir.dentry.is_gone() {
        return Err(Errno::ENOENT);
    }
    let found = dir.dentry.lookup_locked(name)?;
    if found.inode().is_some() {
        return if how.flags.contains(OpenFlags::EXCL) { Err(Errno::EEXIST) } else { Ok(None) };
    }
    landlock::make(cx, dir, FileKind::Regular, DeviceNumber::default())?;
    permission::check_path(cx, dir, Access::WRITE | Access::EXEC)?;
    let (uid, gid, mode) = permission::for_new(cx, inode, FileKind::Regular, how.mode);
    let new = NewInode { kind: FileKind::Regular, mode, uid, gid, rdev: DeviceNumber::default(), target: b"" };
    let made = permission::create(inode, name, &new, how.mode)?;
    inode.modified();
    let dentry = dir.dentry.instantiate(name, made.clone());
    notify::name_event(inode, event::CREATE, name, &made, 0);
    Ok(Some(dentry))
}

/// O_TMPFILE: a file in the file system of `dir`, without a name.
fn open_unnamed(cx: &FsContext, dir: &Path, how: OpenHow) -> Result<Arc<OpenFile>> {
    let inode = dir.inode()?;
    if !inode.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    permission::check_path(cx, dir, Access::WRITE | Access::EXEC)?;
    let (uid, gid, mode) = permission::for_new(cx, inode, FileKind::Regular, how.mode);
    let new = NewInode { kind: FileKind::Regular, mode, uid, gid, rdev: DeviceNumber::default(), target: b"" };
    let made = inode.ops().create_unnamed(inode, &new)?;
    acl::inherit(inode, &made, how.mode)?;
    made.set_nlink(0);
    // With O_EXCL linkat(2) may not give it a name later.
    made.set_unnamed(!how.flags.contains(OpenFlags::EXCL));
    let name = alloc::format!("#{}", made.number());
    let dentry = Dentry::unnamed(&dir.dentry, made, name.as_bytes());
    open_target(cx, Target { path: Path { mount: dir.mount.clone(), dentry }, created: true }, how)
}

/// Checks what open(2) checks on the file itself, and opens it.
fn open_target(cx: &FsContext, target: Target, how: OpenHow) -> Result<Arc<OpenFile>> {
    let Target { path, created } = target;
    let inode = path.inode()?.clone();
    let mut flags = how.flags;
    if flags.contains(OpenFlags::DIRECTORY) && !flags.contains(OpenFlags::TMPFILE) && !inode.is_dir() {
        return Err(if inode.kind() == FileKind::Symlink && !how.follows() && !flags.contains(OpenFlags::PATH) {
            Errno::ELOOP
        } else {
            Errno::ENOTDIR
        });
    }
    if flags.contains(OpenFlags::PATH) {
        return Ok(OpenFile::new(Arc::new(PathOnly), path, inode, flags, Hold::None));
    }
    let wanted = if created { Access::empty() } else { how.wanted() };
    may_open(cx, &path, &inode, wanted, &mut flags)?;
    landlock::open(cx, &path, flags.access())?;
    let hold = hold_for(&path.mount, &inode, flags)?;
    let opened = || {
        lease::break_leases(&inode, hold == Hold::Write, flags)?;
        notify::ask(&path, flags, event::OPEN_PERM)?;
        open_object(cx, &path, &inode, flags)
    };
    let result = opened().and_then(|file| {
        if flags.contains(OpenFlags::DIRECT) && !can_be_direct(&inode, &*file) {
            return Err(Errno::EINVAL);
        }
        let has_pages = inode.ops().page_cache().is_some();
        if flags.contains(OpenFlags::TRUNC) && has_pages && !created {
            regular::resize(&inode, 0)?;
        }
        Ok(file)
    });
    if result.is_err() {
        let_go(&path.mount, &inode, hold);
    }
    let file = result?;
    let made = OpenFile::new(file, path, inode, flags | OpenFlags::LARGEFILE, hold);
    notify::open_file_event(&made, event::OPEN);
    Ok(made)
}

/// O_DIRECT is for disks, and files whose content is pages.
fn can_be_direct(inode: &Inode, file: &dyn File) -> bool {
    inode.kind() == FileKind::BlockDevice || inode.kind() == FileKind::Regular && file.mapping().is_ok()
}

/// For a regular file opened to be written: the right to, which running programs don't leave, nor file systems that are to be read-only.
fn hold_for(mount: &Mount, inode: &Inode, flags: OpenFlags) -> Result<Hold> {
    let writes = flags.access().contains(Access::WRITE) || flags.contains(OpenFlags::TRUNC);
    if inode.kind() != FileKind::Regular {
        return Ok(Hold::None);
    }
    if writes {
        inode.get_write()?;
        if let Err(error) = mount.get_write() {
            inode.put_write();
            return Err(error);
        }
        return Ok(Hold::Write);
    }
    inode.add_reader();
    Ok(Hold::Read)
}

fn let_go(mount: &Mount, inode: &Inode, hold: Hold) {
    match hold {
        Hold::Write => {
            inode.put_write();
            mount.put_write();
        }
        Hold::Read => inode.drop_reader(),
        Hold::None | Hold::DenyWrite => {}
    }
}

fn may_open(cx: &FsContext, path: &Path, inode: &Arc<Inode>, wanted: Access, flags: &mut OpenFlags) -> Result<()> {
    match inode.kind() {
        FileKind::Symlink => return Err(Errno::ELOOP),
        FileKind::Directory if wanted.contains(Access::WRITE) => return Err(Errno::EISDIR),
        FileKind::CharDevice | FileKind::BlockDevice => {
            if path.mount.flags().contains(MountFlags::NODEV) {
                return Err(Errno::EACCES);
            }
            flags.remove(OpenFlags::TRUNC);
        }
        FileKind::Fifo | FileKind::Socket => flags.remove(OpenFlags::TRUNC),
        _ => {}
    }
    permission::check_path(cx, path, wanted)?;
    if flags.contains(OpenFlags::NOATIME) && !permission::is_owner(&cx.cred, inode) {
        return Err(Errno::EPERM);
    }
    Ok(())
}

/// The object to read and write, by the inode's own way or its type.
fn open_object(cx: &FsContext, path: &Path, inode: &Arc<Inode>, flags: OpenFlags) -> Result<Arc<dyn File>> {
    if let Some(file) = inode.ops().open(inode, flags, cx)? {
        return Ok(file);
    }
    match inode.kind() {
        FileKind::Regular => RegularFile::open(inode, &cx.cred),
        FileKind::Directory => Ok(Arc::new(Directory { dentry: path.dentry.clone(), inode: inode.clone() })),
        FileKind::CharDevice => chardev::open(inode.rdev(), cx, flags),
        FileKind::Fifo => FIFO_OPENER.get().ok_or(Errno::ENXIO)?(inode, flags),
        FileKind::Symlink => Err(Errno::ELOOP),
        FileKind::BlockDevice => crate::block::node::open(inode.rdev(), flags),
        FileKind::Socket | FileKind::None => Err(Errno::ENXIO),
    }
}

/// Opens a regular file for a file system on top, or to run it: no check, no names.
pub(crate) fn open_regular(cx: &FsContext, inode: &Arc<Inode>, flags: OpenFlags) -> Result<Arc<dyn File>> {
    match inode.ops().open(inode, flags, cx)? {
        Some(file) => Ok(file),
        None => RegularFile::open(inode, &cx.cred),
    }
}

/// Opens a regular file in the kernel's own name, without checks (initial program, tests).
pub fn open_as_kernel(path: Path, flags: OpenFlags) -> Result<Arc<OpenFile>> {
    let root = mount::root().unwrap_or_else(|| path.clone());
    let cx = FsContext { cred: Arc::new(base::Cred::root()), cwd: root.clone(), root, umask: 0 };
    open_path(&cx, path, flags)
}

/// What O_PATH opens: nothing can be done with it but name a file.
struct PathOnly;

impl File for PathOnly {
    fn read(&self, _sink: &mut mm::Sink, _io: &mut Io) -> Result<usize> {
        Err(Errno::EBADF)
    }

    fn write(&self, _source: &mut mm::Source, _io: &mut Io) -> Result<usize> {
        Err(Errno::EBADF)
    }
}

/// Does the holder of the credentials pass for privileged where only a capability allows (mknod of devices)?
pub(crate) fn needs(cx: &FsContext, cap: Capability) -> Result<()> {
    if cx.cred.capable(cap) { Ok(()) } else { Err(Errno::EPERM) }
}
