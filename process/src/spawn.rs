//! The first process.

use alloc::boxed::Box;
use alloc::sync::Arc;

use base::{Errno, Result};
use fs::{FdTable, FsContext};
use mm::AddressSpace;
use sched::Thread;
use sched::thread::UserStart;

use crate::accounting::{UserTask, UserTasks};
use crate::exec::{self, Request, Strings};
use crate::rlimit::Limits;
use crate::signal::SigSet;
use crate::task::TaskParts;
use crate::{FsState, Process, Task, exit, fork, tree};

/// Starts the first process: `path` with these arguments and environment, where `cx` says and with these open files. Whether it could
/// be executed shows only in its own thread: an error is logged, and ends it.
pub fn spawn_init(path: &[u8], argv: &[&[u8]], envp: &[&[u8]], cx: FsContext, files: Arc<FdTable>) -> Result<()> {
    let pid = tree::lock().allocate()?;
    let memory = mm::frames::stats().total;
    // As Linux: threads may take an eighth of memory with their 16 KiB stacks; half of that for one user.
    let limits = Limits::initial((memory / 8 / (16 << 10) / 2).max(64));
    let process = Arc::new(Process::new(pid, limits, fork::initial_actions(), 0));
    let space = AddressSpace::new()?;
    process.set_address_space(Some(space.clone()));
    let fs = Arc::new(FsState::new(cx.cwd.clone(), cx.root.clone(), cx.umask, fs::MountNamespace::initial().clone()));
    let user = UserTask::new(UserTasks::of(cx.cred.uid));
    let parts = TaskParts {
        cred: cx.cred,
        files,
        fs,
        semaphore_undo: None,
        comm: *b"init\0\0\0\0\0\0\0\0\0\0\0\0",
        blocked: SigSet::EMPTY,
        user,
    };
    let task = Arc::new(Task::new(pid, process.clone(), parts));
    let request = Request {
        base: None,
        path: path.to_vec(),
        follow: true,
        name: path.to_vec(),
        args: Strings::of(argv)?,
        env: Strings::of(envp)?,
    };
    let first = Box::new(move |regs: &mut hal::regs::UserRegs| {
        crate::with_current(|task| {
            if let Err(error) = exec::exec(task, regs, request) {
                log::error!("the first process can't be executed: {error}");
                exit::exit_group(task, exit::exited(127));
            }
        });
    });
    let start = UserStart {
        regs: hal::regs::UserRegs::start(0, 0),
        first,
        page_table: space.page_table().clone(),
        inherit: false,
    };
    let thread = Thread::new_user(start, crate::task::as_ext(&task)).ok_or(Errno::ENOMEM)?;
    task.set_thread(&thread);
    process.group.lock_irq().threads.push(task.clone());
    let mut tree = tree::lock();
    tree.add_task(&task);
    tree.add_process(&process, 0, 0);
    drop(tree);
    thread.start();
    Ok(())
}
