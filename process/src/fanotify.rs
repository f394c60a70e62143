//! What fanotify asks of processes: who caused an event, and descriptors for who reads it.

use alloc::sync::Arc;

use base::{Errno, Result};
use fs::fanotify::{Callers, set_callers};
use fs::{Fd, OpenFile};

use crate::{Resource, pidfd, tree, try_current};

struct Answers;

impl Callers for Answers {
    fn ids(&self) -> (i32, i32) {
        try_current().map_or((0, 0), |task| (task.pid(), task.tid()))
    }

    fn install(&self, open: Arc<OpenFile>, close_on_exec: bool) -> Result<Fd> {
        let task = try_current().ok_or(Errno::EBADF)?;
        task.files().install(open, close_on_exec, task.rlimit(Resource::NoFile).0)
    }

    fn install_process(&self, pid: i32) -> Result<Fd> {
        let task = try_current().ok_or(Errno::EBADF)?;
        pidfd::install(&task, &tree::process(pid).ok_or(Errno::ESRCH)?, false)
    }
}

/// Gives fanotify its answers. Once, at boot.
pub(crate) fn register() {
    set_callers(&Answers);
}
