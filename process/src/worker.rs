//! Threads of the kernel that work for a process (asynchronous I/O): with its memory, files and rights, but never in user mode.
//!
//! A worker is a [`Task`] of the process that is in none of the lists of threads: it has no number of its own, takes no signals, and neither
//! exit nor exec wait for it by themselves. Who starts workers registers what ends them ([`set_leave_hook`]): it must have done so when the
//! hook returns, since the process's memory goes after that.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::Ordering;

use base::{Errno, Result};
use hal::regs::UserRegs;
use hal::sync::Once;
use sched::Thread;
use sched::thread::UserStart;

use crate::accounting::{User, UserTask};
use crate::signal::SigSet;
use crate::task::TaskParts;
use crate::{Process, Task};

/// What leaves a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leaving {
    /// One thread of several.
    Thread,
    /// The whole process, which calls exec.
    Program,
    /// The whole process, which ends.
    Process,
}

/// Called when a thread leaves a program.
pub type LeaveHook = fn(&Task, Leaving);

static LEAVE_HOOK: Once<LeaveHook> = Once::new();

/// Sets the hook. Once, at boot.
pub fn set_leave_hook(hook: LeaveHook) {
    assert!(LEAVE_HOOK.set(hook).is_ok(), "the hook for leaving threads is set twice");
}

pub(crate) fn thread_leaves(task: &Task, what: Leaving) {
    if let Some(hook) = LEAVE_HOOK.get() {
        hook(task, what);
    }
}

/// Starts a worker for the process of `task`, with that thread's files, place and credentials. It runs `body` and ends. `ENOMEM`.
pub fn spawn(task: &Task, name: &[u8], body: impl FnOnce(&Task, &mut UserRegs) + Send + 'static) -> Result<Arc<Task>> {
    let cred = task.cred();
    let user = UserTask::new(User::of(cred.uid));
    let parts = TaskParts {
        cred,
        files: task.files_if_alive().ok_or(Errno::ESRCH)?,
        fs: task.fs_if_alive().ok_or(Errno::ESRCH)?,
        semaphore_undo: None,
        comm: [0; 16],
        blocked: SigSet::ALL,
        user,
    };
    let worker = Arc::new(Task::new(task.tid(), task.process().clone(), parts));
    worker.is_worker.store(true, Ordering::Relaxed);
    worker.set_comm(name);
    let space = task.process().address_space().ok_or(Errno::ESRCH)?;
    let first = Box::new(move |regs: &mut UserRegs| {
        crate::with_current(|me| {
            body(me, regs);
            // It ends on what would be its way to user mode.
            me.make_exit(0);
        });
    });
    let start =
        UserStart { regs: UserRegs::start(0, 0), first, page_table: space.page_table().clone(), inherit: false };
    let thread = Thread::new_user(start, crate::task::as_ext(&worker)).ok_or(Errno::ENOMEM)?;
    worker.set_thread(&thread);
    thread.start();
    Ok(worker)
}

/// The end of a worker: it lets go of what it shared.
pub(crate) fn leave(task: &Task) {
    task.exiting.store(true, Ordering::SeqCst);
    if let Some(thread) = task.thread() {
        thread.drop_page_table();
    }
    drop(task.set_files(None));
    task.set_fs(None);
}

impl Process {
    /// What works for it, made by `make` when it is first asked for.
    pub fn workers(&self, make: impl FnOnce() -> Arc<dyn Any + Send + Sync>) -> Arc<dyn Any + Send + Sync> {
        let mut slot = self.workers.lock();
        slot.get_or_insert_with(make).clone()
    }

    /// What works for it, if there is anything.
    pub fn workers_if_any(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        self.workers.lock().clone()
    }

    /// Parts with what worked for it.
    pub fn take_workers(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        self.workers.lock().take()
    }
}
