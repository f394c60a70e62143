//! Extended attributes (xattr(7)).

use alloc::vec::Vec;

use base::{Errno, Result};
use fs::vfs::xattrs;
use fs::xattr::{NAME_MAX, SIZE_MAX, SetMode};
use fs::{FsContext, Path};
use hal::user;

use crate::args::Args;
use crate::context::Context;
use crate::path::{At, UserString};

/// Which file a call is about.
enum Target {
    Path { follow: bool },
    Descriptor,
    Found(Path),
}

impl Target {
    fn find(&self, cx: &Context, a: Args) -> Result<(FsContext, Path)> {
        match self {
            Target::Path { follow } => {
                let at = At::cwd(cx.task, a.0[0])?;
                let found = at.lookup(*follow, 0)?;
                Ok((at.cx, found))
            }
            Target::Found(path) => Ok((cx.task.fs_context(), path.clone())),
            Target::Descriptor => Ok((cx.task.fs_context(), cx.task.files().get(a.fd(0))?.path().clone())),
        }
    }
}

/// A name argument. `ERANGE` where it is empty or too long.
fn name(addr: usize) -> Result<UserString> {
    let name =
        UserString::read(addr, NAME_MAX + 1).map_err(|e| if e == Errno::ENAMETOOLONG { Errno::ERANGE } else { e })?;
    if name.bytes().is_empty() { Err(Errno::ERANGE) } else { Ok(name) }
}

fn set(cx: &Context, a: Args, target: Target) -> Result<usize> {
    let mode = match a.uint(4) {
        0 => SetMode::Any,
        1 => SetMode::Create,
        2 => SetMode::Replace,
        _ => return Err(Errno::EINVAL),
    };
    let name = name(a.0[1])?;
    let size = a.size(3);
    if size > SIZE_MAX {
        return Err(Errno::E2BIG);
    }
    let mut value = Vec::new();
    value.try_reserve_exact(size).map_err(|_| Errno::ENOMEM)?;
    value.resize(size, 0);
    user::copy_in(&mut value, a.0[2])?;
    let (fs, path) = target.find(cx, a)?;
    xattrs::set(&fs, &path, name.bytes(), &value, mode).map(|()| 0)
}

/// Stores a result; a size of 0 only asks how long it is. `ERANGE` where it does not fit.
fn store(result: &[u8], addr: usize, size: usize) -> Result<usize> {
    if size != 0 {
        if result.len() > size {
            return Err(Errno::ERANGE);
        }
        user::copy_out(addr, result)?;
    }
    Ok(result.len())
}

fn get(cx: &Context, a: Args, target: Target) -> Result<usize> {
    let name = name(a.0[1])?;
    let (fs, path) = target.find(cx, a)?;
    store(&xattrs::get(&fs, &path, name.bytes())?, a.0[2], a.size(3))
}

fn list(cx: &Context, a: Args, target: Target) -> Result<usize> {
    let (fs, path) = target.find(cx, a)?;
    let names = match xattrs::list(&fs, &path) {
        Err(Errno::EOPNOTSUPP) => Vec::new(),
        other => other?,
    };
    store(&names, a.0[1], a.size(2))
}

fn remove(cx: &Context, a: Args, target: Target) -> Result<usize> {
    let name = name(a.0[1])?;
    let (fs, path) = target.find(cx, a)?;
    xattrs::remove(&fs, &path, name.bytes()).map(|()| 0)
}

/// fsetxattr(2) of a file that is known, the other arguments being as there.
pub(crate) fn set_of(cx: &Context, path: &Path, a: Args) -> Result<usize> {
    set(cx, a, Target::Found(path.clone()))
}

/// fgetxattr(2), likewise.
pub(crate) fn get_of(cx: &Context, path: &Path, a: Args) -> Result<usize> {
    get(cx, a, Target::Found(path.clone()))
}

macro_rules! forms {
    ($($body:ident: $path:ident, $link:ident, $fd:ident;)*) => {
        $(
            pub(crate) fn $path(cx: &mut Context, a: Args) -> Result<usize> {
                $body(cx, a, Target::Path { follow: true })
            }

            pub(crate) fn $link(cx: &mut Context, a: Args) -> Result<usize> {
                $body(cx, a, Target::Path { follow: false })
            }

            pub(crate) fn $fd(cx: &mut Context, a: Args) -> Result<usize> {
                $body(cx, a, Target::Descriptor)
            }
        )*
    };
}

forms! {
    set: setxattr, lsetxattr, fsetxattr;
    get: getxattr, lgetxattr, fgetxattr;
    list: listxattr, llistxattr, flistxattr;
    remove: removexattr, lremovexattr, fremovexattr;
}
