//! fanotify_init(2), fanotify_mark(2), name_to_handle_at(2), open_by_handle_at(2).

use base::{Errno, Result};
use fs::fanotify::{self, Group, GroupFlags, MarkFlags, Target, mask};
use fs::vfs::handle::{self, FileHandle, SIZE_MAX};
use fs::vfs::permission;
use fs::{Access, Path};
use hal::user::{self, UserPtr};

use crate::args::Args;
use crate::context::Context;
use crate::open::fd_limit;
use crate::path::{AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_FOLLOW, At, only, open_flags};

pub(crate) fn fanotify_init(cx: &mut Context, a: Args) -> Result<usize> {
    let open = fanotify::create(&cx.task.fs_context(), a.uint(0), a.uint(1))?;
    let close_on_exec = a.uint(0) & GroupFlags::CLOEXEC.bits() != 0;
    cx.task.files().install(open, close_on_exec, fd_limit(cx.task)).map(|fd| fd as usize)
}

/// The checks of the flags and the mask that need no group. `EINVAL`.
fn check(flags: MarkFlags, events: u32) -> Result<()> {
    let command = flags & (MarkFlags::ADD | MarkFlags::REMOVE | MarkFlags::FLUSH);
    let kind = flags & (MarkFlags::MOUNT | MarkFlags::FILESYSTEM);
    let ignoring = MarkFlags::IGNORED_MASK | MarkFlags::IGNORE;
    let wide = !kind.is_empty();
    let right = match command {
        MarkFlags::ADD | MarkFlags::REMOVE => events & !(mask::ONDIR | mask::EVENT_ON_CHILD) != 0 || events != 0,
        MarkFlags::FLUSH => (flags - kind - MarkFlags::FLUSH).is_empty(),
        _ => false,
    };
    let known = mask::EVENTS | mask::ONDIR | mask::EVENT_ON_CHILD;
    // What is ignored for more than one file has to stay so.
    let short_lived = flags.contains(MarkFlags::IGNORE) && !flags.contains(MarkFlags::SURVIVES_MODIFY) && wide;
    let wrong = !right
        || kind == MarkFlags::MOUNT | MarkFlags::FILESYSTEM
        || command != MarkFlags::FLUSH && events & !known != 0
        || flags.contains(ignoring)
        || short_lived
        || flags.contains(MarkFlags::EVICTABLE) && wide;
    if wrong { Err(Errno::EINVAL) } else { Ok(()) }
}

/// What is to be marked: the path, or with none the file that the descriptor is open on. `ENOTDIR`, `EACCES`, and what walking gives.
fn find(cx: &Context, a: Args, flags: MarkFlags) -> Result<Path> {
    let path = if a.0[4] == 0 {
        if a.fd(3) == AT_FDCWD { cx.task.fs().cwd() } else { cx.task.files().get_any(a.fd(3))?.path().clone() }
    } else {
        At::new(cx.task, a.fd(3), a.0[4])?.lookup(!flags.contains(MarkFlags::DONT_FOLLOW), 0)?
    };
    let inode = path.inode()?;
    if flags.contains(MarkFlags::ONLYDIR) && !inode.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    permission::check(&cx.task.cred(), inode, Access::READ)?;
    Ok(path)
}

pub(crate) fn fanotify_mark(cx: &mut Context, a: Args) -> Result<usize> {
    let events = u32::try_from(a.0[2]).map_err(|_| Errno::EINVAL)?;
    let flags = MarkFlags::from_bits(a.uint(1)).ok_or(Errno::EINVAL)?;
    check(flags, events)?;
    let open = cx.task.files().get(a.fd(0))?;
    let group = Group::of(&open)?;
    group.check_mark(flags, if flags.contains(MarkFlags::FLUSH) { 0 } else { events })?;
    if flags.contains(MarkFlags::FLUSH) {
        return group.flush(flags).map(|()| 0);
    }
    let path = find(cx, a, flags)?;
    let target = Target::new(&path, flags)?;
    if flags.contains(MarkFlags::ADD) {
        let ignores_dir = flags.contains(MarkFlags::IGNORE) && !flags.contains(MarkFlags::SURVIVES_MODIFY);
        if ignores_dir && path.inode()?.is_dir() {
            return Err(Errno::EISDIR);
        }
        group.add(target, flags, events)?;
    } else {
        group.remove(&target, flags, events)?;
    }
    Ok(0)
}

/// Bytes of `struct file_handle` before the handle.
const HANDLE_HEADER: usize = 8;

pub(crate) fn name_to_handle_at(cx: &mut Context, a: Args) -> Result<usize> {
    let flags = only(a.uint(4), AT_SYMLINK_FOLLOW | AT_EMPTY_PATH)?;
    let path = At::new(cx.task, a.fd(0), a.0[1])?.lookup(flags & AT_SYMLINK_FOLLOW != 0, flags)?;
    if path.mount.superblock.ops.handle_layout().is_none() {
        return Err(Errno::EOPNOTSUPP);
    }
    let at = a.0[2];
    let room = UserPtr::<u32>::new(at).read()? as usize;
    if room > SIZE_MAX {
        return Err(Errno::EINVAL);
    }
    let handle = handle::encode(path.inode()?)?;
    let fits = handle.bytes.len() <= room;
    UserPtr::new(a.0[3]).write(&(path.mount.id as i32))?;
    UserPtr::new(at).write(&(handle.bytes.len() as u32))?;
    if !fits {
        return Err(Errno::EOVERFLOW);
    }
    UserPtr::new(at + 4).write(&handle.kind)?;
    user::copy_out(at + HANDLE_HEADER, &handle.bytes)?;
    Ok(0)
}

pub(crate) fn open_by_handle_at(cx: &mut Context, a: Args) -> Result<usize> {
    let context = cx.task.fs_context();
    if !context.cred.capable(base::Capability::DacReadSearch) {
        return Err(Errno::EPERM);
    }
    let [len, kind] = UserPtr::<[u32; 2]>::new(a.0[1]).read()?;
    if len == 0 || len as usize > SIZE_MAX {
        return Err(Errno::EINVAL);
    }
    let mut bytes = alloc::vec![0; len as usize];
    user::copy_in(&mut bytes, a.0[1] + HANDLE_HEADER)?;
    let mount =
        if a.fd(0) == AT_FDCWD { context.cwd.clone() } else { cx.task.files().get_any(a.fd(0))?.path().clone() };
    let flags = open_flags(a.uint(2));
    let open = handle::open(&context, &mount, &FileHandle { kind: kind as i32, bytes }, flags)?;
    let close_on_exec = flags.contains(fs::OpenFlags::CLOEXEC);
    cx.task.files().install(open, close_on_exec, fd_limit(cx.task)).map(|fd| fd as usize)
}
