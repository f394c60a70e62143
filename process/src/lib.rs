//! Processes: the bundle of what a Unix process owns, and what can happen to it.
//!
//! A [`Task`] is a thread as the kernel sees it, on top of a `sched::Thread`; a [`Process`] is the group of threads that share a pid, an
//! address space and signal actions. [`tree`] knows who is whose child and who belongs to which process group and session. [`fork`],
//! [`exec`], [`exit`] and [`wait`] are the life of a process, [`signal`] what interrupts it. May depend on `container` and the five
//! modules below it; `syscall` decodes arguments and calls in here.
//!
//! Lock order (outermost first): tree -> group of a process (`Process::group`) -> signal actions -> a task's queue -> small locks of one
//! field (credentials, files, limits) -> wait queues of sched. Tree, group, actions and queues are taken with interrupts off, since timers
//! and terminals send signals; nothing under them sleeps or copies from or to user space.
#![cfg_attr(not(test), no_std)]
extern crate alloc;

pub mod accounting;
mod async_io;
mod callers;
pub mod credentials;
pub mod exec;
pub mod exit;
pub mod fork;
pub mod fs_state;
mod group;
pub mod inspect;
pub mod job_control;
pub mod namespace;
pub mod oom;
pub mod pidfd;
mod process;
mod procfs;
pub mod ptrace;
pub mod rlimit;
pub mod rseq;
pub mod seccomp;
pub mod signal;
mod spawn;
mod task;
pub mod timer;
pub mod tree;
pub mod user_dispatch;
pub mod wait;
pub mod worker;

pub use fs_state::FsState;
pub use process::{Image, Process};
pub use rlimit::Resource;
pub use spawn::spawn_init;
pub use task::{Comm, SyscallWork, Task, Vfork, current, try_current, with_current};

/// Gives the layers below what they ask of processes: the processes' part of `/proc`, job control. Once, at boot.
pub fn init() {
    procfs::register();
    job_control::register();
    async_io::register();
    callers::register();
}

/// A process, thread, process group or session number.
pub type Pid = i32;
