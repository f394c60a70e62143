//! setns(2).

use alloc::sync::Arc;

use base::{Capability, Errno, Result};
use fs::{FsContext, MountNamespace, Path};
use process::fork::flags;
use process::namespace::Namespace;
use process::{Task, pidfd};

use crate::args::Args;
use crate::context::Context;

/// `EPERM` without the rights to change mounts and the root directory.
fn may_enter(cx: &FsContext) -> Result<()> {
    let capable = cx.cred.capable(Capability::SysAdmin) && cx.cred.capable(Capability::SysChroot);
    if capable { Ok(()) } else { Err(Errno::EPERM) }
}

/// Enters a mount namespace, at its root. `EINVAL` where the thread shares its place with others.
fn enter_mounts(task: &Task, namespace: Arc<MountNamespace>) -> Result<()> {
    may_enter(&task.fs_context())?;
    let fs = task.fs();
    // One reference is the thread's, one ours.
    if Arc::strong_count(&fs) > 2 {
        return Err(Errno::EINVAL);
    }
    let mount = namespace.top().ok_or(Errno::EINVAL)?;
    let root = fs::vfs::mount::enter(Path { dentry: mount.root.clone(), mount });
    fs.enter_namespace(namespace, root);
    Ok(())
}

/// Enters one of which there is one only, which changes nothing. `EINVAL` for the user namespace that one is in.
fn enter_only(task: &Task, flag: u64) -> Result<()> {
    if flag == flags::CLONE_NEWUSER {
        return Err(Errno::EINVAL);
    }
    if task.cred().capable(Capability::SysAdmin) { Ok(()) } else { Err(Errno::EPERM) }
}

pub(crate) fn setns(cx: &mut Context, a: Args) -> Result<usize> {
    let open = cx.task.files().get(a.fd(0))?;
    let wanted = u64::from(a.uint(1));
    if let Ok((process, _)) = pidfd::process_of(&open) {
        if wanted == 0 || wanted & !flags::NAMESPACES != 0 {
            return Err(Errno::EINVAL);
        }
        let target = process.any_thread().ok_or(Errno::ESRCH)?;
        process::inspect::check(cx.task, &target)?;
        let mounts = target.fs_if_alive().ok_or(Errno::ESRCH)?.namespace();
        for bit in (0..32).map(|bit| 1 << bit).filter(|bit| wanted & bit & !flags::CLONE_NEWNS != 0) {
            enter_only(cx.task, bit)?;
        }
        return if wanted & flags::CLONE_NEWNS != 0 { enter_mounts(cx.task, mounts).map(|()| 0) } else { Ok(0) };
    }
    let namespace = Namespace::of(&open)?;
    if wanted != 0 && wanted != namespace.flag() {
        return Err(Errno::EINVAL);
    }
    match namespace {
        Namespace::Mount(namespace) => enter_mounts(cx.task, namespace)?,
        Namespace::Only(_) => enter_only(cx.task, namespace.flag())?,
    }
    Ok(0)
}
