//! landlock_create_ruleset(2), landlock_add_rule(2), landlock_restrict_self(2).

use alloc::sync::Arc;

use base::{Capability, Errno, Result};
use fs::landlock::{self, Ruleset, VERSION};
use fs::{Access, OpenFile};
use hal::user::UserPtr;
use process::Resource;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::args::{self, Args};
use crate::context::Context;

pub(crate) fn create_ruleset(cx: &mut Context, a: Args) -> Result<usize> {
    const GET_VERSION: u32 = 1;
    /// The corrections that Linux tells of concern later versions.
    const GET_ERRATA: u32 = 2;
    let (at, size) = (a.size(0), a.size(1));
    match a.uint(2) {
        0 => {}
        GET_VERSION if at == 0 && size == 0 => return Ok(VERSION),
        GET_ERRATA if at == 0 && size == 0 => return Ok(0),
        _ => return Err(Errno::EINVAL),
    }
    if at == 0 {
        return Err(Errno::EFAULT);
    }
    if size < size_of::<u64>() {
        return Err(Errno::EINVAL);
    }
    let handled: u64 = args::extensible(at, size)?;
    let open = Ruleset::create(handled)?;
    let fd = cx.task.files().install(open, true, cx.task.rlimit(Resource::NoFile).0)?;
    Ok(fd as usize)
}

fn file_of(cx: &Context, a: Args) -> Result<Arc<OpenFile>> {
    cx.task.files().get(a.fd(0))
}

/// `struct landlock_path_beneath_attr`, which is packed.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct PathBeneath {
    granted: [u8; 8],
    parent: [u8; 4],
}

pub(crate) fn add_rule(cx: &mut Context, a: Args) -> Result<usize> {
    const PATH_BENEATH: u32 = 1;
    if a.uint(3) != 0 {
        return Err(Errno::EINVAL);
    }
    let open = file_of(cx, a)?;
    let ruleset = landlock::of(&open, Access::WRITE)?;
    if a.uint(1) != PATH_BENEATH {
        return Err(Errno::EINVAL);
    }
    let rule = UserPtr::<PathBeneath>::new(a.size(2)).read()?;
    let granted = ruleset.check_rights(u64::from_ne_bytes(rule.granted))?;
    let parent = cx.task.files().get_any(i32::from_ne_bytes(rule.parent))?;
    ruleset.grant(parent.path(), granted)?;
    Ok(0)
}

pub(crate) fn restrict_self(cx: &mut Context, a: Args) -> Result<usize> {
    let cred = cx.task.cred();
    if !cred.no_new_privs && !cred.capable(Capability::SysAdmin) {
        return Err(Errno::EPERM);
    }
    if a.uint(1) != 0 {
        return Err(Errno::EINVAL);
    }
    let open = file_of(cx, a)?;
    let restricted = landlock::restrict(&cred, landlock::of(&open, Access::READ)?)?;
    cx.task.set_cred(Arc::new(restricted));
    Ok(0)
}
