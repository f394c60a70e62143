//! Module 4, inter-process communication and waiting for events: pipes, event files, polling, futexes.
//!
//! [`pipe`] is pipes and FIFOs; [`eventfd`], [`timerfd`] and [`signalfd`] are events as files, [`userfaultfd`] page faults; [`poll`] and [`epoll`] wait for many files
//! at once; [`futex`] is what user-space locks sleep on; [`sysv`] is System V IPC, [`mqueue`] POSIX message queues. May depend on `fs`, `mm`, `sched` and `hal`; never on `net`.
//!
//! Lock order (outermost first): epoll nesting -> epoll items -> a pipe's ring (two pipes: by address) -> registries of System V objects -> futex buckets -> small spin
//! locks (the waiters of PI futexes, a message queue's state: under these, threads are looked up and signals sent by `process`, which calls
//! nothing here under its own locks; counters, settings, an epoll's ready list) -> wait queues of sched.
#![cfg_attr(not(test), no_std)]
extern crate alloc;

pub mod aio;
/// What the files that `tests/models` includes take from here, and there from loom.
mod atomic {
    pub(crate) use core::sync::atomic::{AtomicBool, Ordering};
}
pub mod epoll;
pub mod eventfd;
pub mod futex;
pub mod io_uring;
pub mod mqueue;
pub mod pipe;
pub mod poll;
pub mod signalfd;
pub mod sysv;
pub mod timerfd;
pub mod userfaultfd;

/// Tells the layers below who opens FIFOs, and shows what there is in procfs. Once, at boot.
pub fn register() {
    fs::vfs::open::set_fifo_opener(pipe::open_fifo);
    aio::register();
    sysv::register();
    mqueue::register();
    if let Err(error) = userfaultfd::register() {
        log::warn!("/dev/userfaultfd: {error}");
    }
}
