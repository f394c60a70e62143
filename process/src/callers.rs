//! What files and memory ask of processes: who calls, and descriptors for the caller.

use alloc::sync::Arc;

use base::{Cred, Errno, Result};
use fs::callers::Callers;
use fs::{Fd, OpenFile};
use mm::AddressSpace;

use crate::{Resource, pidfd, tree, try_current};

struct Answers;

impl Callers for Answers {
    fn ids(&self) -> (i32, i32) {
        try_current().map_or((0, 0), |task| (task.pid(), task.tid()))
    }

    fn cred(&self) -> Option<Arc<Cred>> {
        try_current().map(|task| task.cred())
    }

    fn descriptor(&self, fd: Fd) -> Result<Arc<OpenFile>> {
        try_current().ok_or(Errno::EBADF)?.files().get(fd)
    }

    fn message_queue_limit(&self) -> u64 {
        try_current().map_or(0, |task| task.rlimit(Resource::Msgqueue).0)
    }

    fn address_space(&self) -> Result<Arc<AddressSpace>> {
        try_current().and_then(|task| task.process().address_space()).ok_or(Errno::ESRCH)
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

/// Gives the answers. Once, at boot.
pub(crate) fn register() {
    fs::callers::set(&Answers);
    mm::userfault::set_thread_number(|| try_current().map_or(0, |task| task.tid()));
}
