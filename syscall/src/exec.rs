//! execve(2), execveat(2).

use alloc::format;
use alloc::vec::Vec;

use base::{Errno, Result};
use hal::user::{UserPtr, read_cstr};
use process::Resource;
use process::exec::{self, Request, Room, Strings};

use crate::args::Args;
use crate::context::Context;

const PATH_MAX: usize = 4096;
const AT_FDCWD: i32 = -100;
const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
const AT_EMPTY_PATH: u32 = 0x1000;

fn read_path(at: usize) -> Result<Vec<u8>> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(PATH_MAX).map_err(|_| Errno::ENOMEM)?;
    buffer.resize(PATH_MAX, 0);
    let len = read_cstr(&mut buffer, at)?.len();
    buffer.truncate(len);
    Ok(buffer)
}

pub(crate) fn execve(cx: &mut Context, a: Args) -> Result<usize> {
    let path = read_path(a.size(0))?;
    if path.is_empty() {
        return Err(Errno::ENOENT);
    }
    run(cx, None, path.clone(), path, true, a.ptr(1), a.ptr(2))
}

pub(crate) fn execveat(cx: &mut Context, a: Args) -> Result<usize> {
    let (fd, flags) = (a.fd(0), a.uint(4));
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let path = read_path(a.size(1))?;
    if path.is_empty() && flags & AT_EMPTY_PATH == 0 {
        return Err(Errno::ENOENT);
    }
    let relative = fd != AT_FDCWD && path.first() != Some(&b'/');
    let base = if relative { Some(cx.task.files().get_any(fd)?.path().clone()) } else { None };
    // What a script's interpreter, or whoever looks at AT_EXECFN, can open again.
    let name = match () {
        () if !relative => path.clone(),
        () if path.is_empty() => format!("/dev/fd/{fd}").into_bytes(),
        () => [format!("/dev/fd/{fd}/").as_bytes(), &path].concat(),
    };
    run(cx, base, path, name, flags & AT_SYMLINK_NOFOLLOW == 0, a.ptr(2), a.ptr(3))
}

fn run(
    cx: &mut Context,
    base: Option<fs::Path>,
    path: Vec<u8>,
    name: Vec<u8>,
    follow: bool,
    argv: UserPtr<usize>,
    envp: UserPtr<usize>,
) -> Result<usize> {
    let mut room = Room::under(cx.task.rlimit(Resource::Stack).0);
    let args = Strings::from_user(argv, &mut room)?;
    let env = Strings::from_user(envp, &mut room)?;
    exec::exec(cx.task, cx.regs, Request { base, path, follow, name, args, env })?;
    Ok(0)
}
