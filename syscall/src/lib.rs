//! System calls: the table, the dispatcher, the decoding of arguments, and bodies by theme.
//!
//! May depend on `process` and everything below it. Takes no locks of its own.
#![cfg_attr(not(test), no_std)]
extern crate alloc;

mod aio;
mod args;
mod context;
mod directory;
mod dispatch;
mod epoll;
mod event;
mod exec;
mod fanotify;
mod fcntl;
mod futex;
mod identity;
mod io_uring;
mod kcmp;
mod landlock;
mod lifecycle;
mod memory;
mod message;
mod metadata;
mod mount;
mod mount_fd;
mod mqueue;
mod namespace;
pub mod numbers;
mod open;
mod path;
mod pidfd;
mod poll;
mod prctl;
mod resource;
mod scheduling;
mod seccomp;
mod session;
mod shared_memory;
mod signal;
mod socket;
pub mod system;
mod sysv;
pub mod table;
mod time;
mod timer;
mod timespec;
mod trace;
mod transfer;
mod xattr;

pub use context::Context;
pub use dispatch::dispatch;
