//! System calls: the table, the dispatcher, the decoding of arguments, and bodies by theme.
//!
//! May depend on `process` and everything below it. Takes no locks of its own.
#![cfg_attr(not(test), no_std)]
extern crate alloc;

mod args;
mod context;
mod dispatch;
mod exec;
mod futex;
mod identity;
mod lifecycle;
mod memory;
mod pidfd;
mod prctl;

mod resource;
mod scheduling;
mod session;
mod shared_memory;
mod signal;
pub mod system;
pub mod table;
mod time;
mod timer;
mod timespec;

pub use context::Context;
pub use dispatch::dispatch;
