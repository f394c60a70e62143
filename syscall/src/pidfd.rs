//! Descriptors that stand for processes.

use base::{Errno, Result};
use process::{Resource, pidfd, tree};

use crate::args::Args;
use crate::context::Context;

pub(crate) fn pidfd_open(cx: &mut Context, a: Args) -> Result<usize> {
    const PIDFD_NONBLOCK: u32 = 0o4000;
    let (pid, flags) = (a.int(0), a.uint(1));
    if flags & !PIDFD_NONBLOCK != 0 || pid <= 0 {
        return Err(Errno::EINVAL);
    }
    let process = match tree::process(pid) {
        Some(process) => process,
        // Threads other than leaders have none.
        None if tree::task(pid).is_some() => return Err(Errno::EINVAL),
        None => return Err(Errno::ESRCH),
    };
    pidfd::install(cx.task, &process, flags != 0).map(|fd| fd as usize)
}

pub(crate) fn pidfd_getfd(cx: &mut Context, a: Args) -> Result<usize> {
    if a.uint(2) != 0 {
        return Err(Errno::EINVAL);
    }
    let (process, _) = pidfd::process_of(&*cx.task.files().get_any(a.fd(0))?)?;
    let target = process.any_thread().ok_or(Errno::ESRCH)?;
    process::inspect::check(cx.task, &target)?;
    let files = target.files_if_alive().ok_or(Errno::ESRCH)?;
    let open = files.get_any(a.fd(1))?;
    cx.task.files().install(open, true, cx.task.rlimit(Resource::NoFile).0).map(|fd| fd as usize)
}
