//! Mounting by descriptors: fsopen(2), fspick(2), fsconfig(2), fsmount(2), open_tree(2), move_mount(2), mount_setattr(2).

use base::{Errno, Result};
use fs::vfs::mount::Propagation;
use fs::vfs::mount::change::Changer;
use fs::vfs::mount::configuration::{self, Configuration, Value};
use fs::vfs::open;
use fs::{Fd, MountFlags, OpenFile, OpenFlags};
use process::{Resource, Task};
use zerocopy::{FromBytes, IntoBytes};

use crate::args::{Args, extensible};
use crate::context::Context;
use crate::mount::changing;
use crate::path::{AT_EMPTY_PATH, AT_NO_AUTOMOUNT, AT_SYMLINK_NOFOLLOW, At, UserString, only};

/// FSOPEN_CLOEXEC, FSPICK_CLOEXEC, FSMOUNT_CLOEXEC.
const CLOEXEC: u32 = 1;
/// The longest name of an option, and value, with its NUL.
const WORD_MAX: usize = 256;

/// MOUNT_ATTR_*.
mod attr {
    pub(super) const RDONLY: u64 = 1;
    pub(super) const NOSUID: u64 = 2;
    pub(super) const NODEV: u64 = 4;
    pub(super) const NOEXEC: u64 = 8;
    pub(super) const ATIME: u64 = 0x70;
    pub(super) const NOATIME: u64 = 0x10;
    pub(super) const STRICTATIME: u64 = 0x20;
    pub(super) const NODIRATIME: u64 = 0x80;
    pub(super) const IDMAP: u64 = 0x10_0000;
    pub(super) const NOSYMFOLLOW: u64 = 0x20_0000;
    pub(super) const MOUNT: u64 = RDONLY | NOSUID | NODEV | NOEXEC | ATIME | NODIRATIME | NOSYMFOLLOW;
}

/// The mount's flags for attributes without those about times of access in directories' shape.
fn plain_flags(attributes: u64) -> MountFlags {
    let pairs = [
        (attr::RDONLY, MountFlags::RDONLY),
        (attr::NOSUID, MountFlags::NOSUID),
        (attr::NODEV, MountFlags::NODEV),
        (attr::NOEXEC, MountFlags::NOEXEC),
        (attr::NODIRATIME, MountFlags::NODIRATIME),
        (attr::NOSYMFOLLOW, MountFlags::NOSYMFOLLOW),
    ];
    pairs.iter().filter(|(bit, _)| attributes & bit != 0).fold(MountFlags::empty(), |all, (_, flag)| all | *flag)
}

fn atime_flags(attributes: u64) -> Result<MountFlags> {
    match attributes & attr::ATIME {
        0 => Ok(MountFlags::RELATIME),
        attr::NOATIME => Ok(MountFlags::NOATIME),
        attr::STRICTATIME => Ok(MountFlags::empty()),
        _ => Err(Errno::EINVAL),
    }
}

fn install(task: &Task, open: alloc::sync::Arc<OpenFile>, close_on_exec: bool) -> Result<usize> {
    task.files().install(open, close_on_exec, task.rlimit(Resource::NoFile).0).map(|fd| fd as usize)
}

fn with_changer<R>(task: &Task, work: impl FnOnce(&Changer) -> Result<R>) -> Result<R> {
    changing(task, &task.fs_context(), work)
}

fn may_mount(task: &Task) -> Result<()> {
    with_changer(task, |changer| changer.may_mount())
}

/// A string of at most 255 bytes. `EINVAL` if it is longer.
fn word(addr: usize) -> Result<UserString> {
    UserString::read(addr, WORD_MAX).map_err(|error| if error == Errno::ENAMETOOLONG { Errno::EINVAL } else { error })
}

pub(crate) fn fsopen(cx: &mut Context, a: Args) -> Result<usize> {
    may_mount(cx.task)?;
    let flags = only(a.uint(1), CLOEXEC)?;
    let kind = UserString::read(a.0[0], abi::PAGE_SIZE)
        .map_err(|error| if error == Errno::ENAMETOOLONG { Errno::EINVAL } else { error })?;
    install(cx.task, configuration::create(kind.bytes())?, flags & CLOEXEC != 0)
}

pub(crate) fn fspick(cx: &mut Context, a: Args) -> Result<usize> {
    const SYMLINK_NOFOLLOW: u32 = 2;
    const NO_AUTOMOUNT: u32 = 4;
    const EMPTY_PATH: u32 = 8;
    may_mount(cx.task)?;
    let flags = only(a.uint(2), CLOEXEC | SYMLINK_NOFOLLOW | NO_AUTOMOUNT | EMPTY_PATH)?;
    let empty = if flags & EMPTY_PATH != 0 { AT_EMPTY_PATH } else { 0 };
    let path = At::new(cx.task, a.fd(0), a.0[1])?.lookup(flags & SYMLINK_NOFOLLOW == 0, empty)?;
    install(cx.task, configuration::pick(&path)?, flags & CLOEXEC != 0)
}

pub(crate) fn fsconfig(cx: &mut Context, a: Args) -> Result<usize> {
    const SET_FLAG: u32 = 0;
    const SET_STRING: u32 = 1;
    const SET_BINARY: u32 = 2;
    const SET_PATH: u32 = 3;
    const SET_PATH_EMPTY: u32 = 4;
    const SET_FD: u32 = 5;
    const CREATE: u32 = 6;
    const RECONFIGURE: u32 = 7;
    const BINARY_MAX: i32 = 1024 * 1024;
    let (fd, command, aux) = (a.fd(0), a.uint(1), a.int(4));
    let (key, value) = (a.0[2], a.0[3]);
    if fd < 0 {
        return Err(Errno::EINVAL);
    }
    let right = match command {
        SET_FLAG => key != 0 && value == 0 && aux == 0,
        SET_STRING => key != 0 && value != 0 && aux == 0,
        SET_BINARY => key != 0 && value != 0 && aux > 0 && aux <= BINARY_MAX,
        SET_PATH | SET_PATH_EMPTY => key != 0 && value != 0 && (aux == crate::path::AT_FDCWD || aux >= 0),
        SET_FD => key != 0 && value == 0 && aux >= 0,
        CREATE | RECONFIGURE => key == 0 && value == 0 && aux == 0,
        _ => return Err(Errno::EOPNOTSUPP),
    };
    if !right {
        return Err(Errno::EINVAL);
    }
    let open = cx.task.files().get(fd)?;
    let configuration = Configuration::of(&open)?;
    match command {
        CREATE => with_changer(cx.task, |changer| configuration.make(changer))?,
        RECONFIGURE => with_changer(cx.task, |changer| configuration.reconfigure(changer))?,
        SET_FLAG => configuration.set(word(key)?.bytes(), &Value::Flag)?,
        SET_STRING => {
            let (key, value) = (word(key)?, word(value)?);
            configuration.set(key.bytes(), &Value::Text(value.bytes()))?;
        }
        // No file system here takes options that are anything but text.
        _ => {
            word(key)?;
            return Err(Errno::EOPNOTSUPP);
        }
    }
    Ok(0)
}

pub(crate) fn fsmount(cx: &mut Context, a: Args) -> Result<usize> {
    may_mount(cx.task)?;
    let (flags, attributes) = (only(a.uint(1), CLOEXEC)?, u64::from(a.uint(2)));
    if attributes & !attr::MOUNT != 0 {
        return Err(Errno::EINVAL);
    }
    let mount_flags = plain_flags(attributes) | atime_flags(attributes)?;
    let open = cx.task.files().get(a.fd(0))?;
    let tree = with_changer(cx.task, |changer| Configuration::of(&open)?.mount(changer, mount_flags))?;
    install(cx.task, tree, flags & CLOEXEC != 0)
}

pub(crate) fn open_tree(cx: &mut Context, a: Args) -> Result<usize> {
    const CLONE: u32 = 1;
    const CLOEXEC: u32 = 0o2000000;
    const RECURSIVE: u32 = 0x8000;
    let known = AT_EMPTY_PATH | AT_NO_AUTOMOUNT | RECURSIVE | AT_SYMLINK_NOFOLLOW | CLONE | CLOEXEC;
    let flags = only(a.uint(2), known)?;
    if flags & (RECURSIVE | CLONE) == RECURSIVE {
        return Err(Errno::EINVAL);
    }
    let clone = flags & CLONE != 0;
    if clone {
        may_mount(cx.task)?;
    }
    let at = At::new(cx.task, a.fd(0), a.0[1])?;
    let path = at.lookup_by_flags(flags)?;
    let open = if clone {
        let copy = |changer: &Changer| changer.detached_copy(&path, flags & RECURSIVE != 0);
        let (path, namespace) = with_changer(cx.task, copy)?;
        configuration::open_detached(path, namespace)?
    } else {
        open::open_path(&at.cx, path, OpenFlags::PATH)?
    };
    install(cx.task, open, flags & CLOEXEC != 0)
}

pub(crate) fn move_mount(cx: &mut Context, a: Args) -> Result<usize> {
    const F_SYMLINKS: u32 = 1;
    const F_AUTOMOUNTS: u32 = 2;
    const F_EMPTY_PATH: u32 = 4;
    const T_SYMLINKS: u32 = 0x10;
    const T_AUTOMOUNTS: u32 = 0x20;
    const T_EMPTY_PATH: u32 = 0x40;
    const SET_GROUP: u32 = 0x100;
    const KNOWN: u32 = F_SYMLINKS | F_AUTOMOUNTS | F_EMPTY_PATH | T_SYMLINKS | T_AUTOMOUNTS | T_EMPTY_PATH | SET_GROUP;
    may_mount(cx.task)?;
    let flags = only(a.uint(4), KNOWN)?;
    let has = |flag: u32| flags & flag != 0;
    let find = |fd: Fd, addr: usize, follow: bool, empty: bool| {
        At::new(cx.task, fd, addr)?.lookup(follow, if empty { AT_EMPTY_PATH } else { 0 })
    };
    let from = find(a.fd(0), a.0[1], has(F_SYMLINKS), has(F_EMPTY_PATH))?;
    let to = find(a.fd(2), a.0[3], has(T_SYMLINKS), has(T_EMPTY_PATH))?;
    with_changer(
        cx.task,
        |changer| {
            if has(SET_GROUP) { changer.set_group(&from, &to) } else { changer.move_mount(&from, &to) }
        },
    )?;
    Ok(0)
}

/// `struct mount_attr` of mount_setattr(2).
#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

impl MountAttr {
    /// The flags to take away and those to set.
    fn flags(&self) -> Result<(MountFlags, MountFlags)> {
        if (self.set | self.clear) & !(attr::MOUNT | attr::IDMAP) != 0 {
            return Err(Errno::EINVAL);
        }
        let (mut clear, mut set) = (plain_flags(self.clear), plain_flags(self.set));
        match self.clear & attr::ATIME {
            0 if self.set & attr::ATIME != 0 => return Err(Errno::EINVAL),
            0 => {}
            attr::ATIME => {
                clear |= MountFlags::RELATIME | MountFlags::NOATIME;
                set |= atime_flags(self.set)?;
            }
            _ => return Err(Errno::EINVAL),
        }
        // Mapping owners needs a user namespace of the file system's, of which there is one only.
        if (self.set | self.clear) & attr::IDMAP != 0 { Err(Errno::EINVAL) } else { Ok((clear, set)) }
    }

    fn propagation(&self) -> Result<Option<Propagation>> {
        match self.propagation {
            0 => Ok(None),
            0x2_0000 => Ok(Some(Propagation::Unbindable)),
            0x4_0000 => Ok(Some(Propagation::Private)),
            0x8_0000 => Ok(Some(Propagation::Slave)),
            0x10_0000 => Ok(Some(Propagation::Shared)),
            _ => Err(Errno::EINVAL),
        }
    }
}

pub(crate) fn mount_setattr(cx: &mut Context, a: Args) -> Result<usize> {
    const RECURSIVE: u32 = 0x8000;
    let flags = only(a.uint(2), AT_EMPTY_PATH | RECURSIVE | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT)?;
    let size = a.size(4);
    if size > abi::PAGE_SIZE {
        return Err(Errno::E2BIG);
    }
    if size < size_of::<MountAttr>() {
        return Err(Errno::EINVAL);
    }
    may_mount(cx.task)?;
    let attributes: MountAttr = extensible(a.0[3], size)?;
    if attributes.set | attributes.clear | attributes.propagation == 0 {
        return Ok(0);
    }
    let propagation = attributes.propagation()?;
    let change = attributes.flags()?;
    let path = At::new(cx.task, a.fd(0), a.0[1])?.lookup_by_flags(flags)?;
    let recursive = flags & RECURSIVE != 0;
    with_changer(cx.task, |changer| changer.set_attributes(&path, change, propagation, recursive))?;
    Ok(0)
}
