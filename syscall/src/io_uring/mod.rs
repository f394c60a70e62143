//! io_uring(7): the engine and the operations. What is shared with the program is in `ipc::io_uring`.
//!
//! | file | what |
//! |---|---|
//! | `ring.rs` | a ring: its parts, and it as a file |
//! | `request.rs` | a submission on its way, and what wakes it |
//! | `workers.rs` | what carries requests on for a process: threads in enter, a service thread, workers that may block |
//! | `submit.rs` | taking submissions: checks, links, drains |
//! | `run.rs` | issuing a request, waiting for its file, completing it |
//! | `operation.rs` | the table of operations |
//! | `transfer.rs`, `message.rs`, `path.rs`, `poll.rs`, `timeout.rs`, `cancel.rs`, `notice.rs` | what the operations do |
//! | `enter.rs`, `register.rs`, `setup.rs` | the three system calls |
//! | `sq_thread.rs` | the thread that submits (SQPOLL) |
//!
//! A request is issued in the submitting thread without blocking. Where it would block, it waits by hooks in its file's wait queues or by a timer.
//! The hook runs under the queue's lock, maybe in an interrupt: it only puts the request on a list ([`workers::Workers`]) and wakes who carries
//! it on, which is a thread of the program that waits in io_uring_enter(2), or else the process's service thread. What can't but block is given
//! to workers. All of these have the submitter's memory, files and credentials.
//!
//! Lock order (outermost first): submission (sleeps) -> a request's body (sleeps; two never, but by `try_lock`) -> resources (sleeps) ->
//! spin locks of the ring, of the workers, of hooks -> wait queues of sched.

mod cancel;
mod enter;
mod message;
mod notice;
mod operation;
mod path;
mod poll;
mod register;
mod request;
mod ring;
mod run;
mod setup;
mod sq_thread;
mod submit;
mod timeout;
mod transfer;
mod workers;

pub(crate) use enter::io_uring_enter;
pub(crate) use register::io_uring_register;
pub(crate) use setup::io_uring_setup;

/// Is it a ring?
pub(crate) fn is_ring(open: &fs::OpenFile) -> bool {
    ring::Ring::of(open).is_ok()
}

/// Tells the processes who ends what works for them. Once, at boot.
pub(crate) fn register_hooks() {
    process::worker::set_leave_hook(workers::thread_leaves);
}
