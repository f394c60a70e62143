//! System calls: the table, the dispatcher, the decoding of arguments, and bodies by theme.
//!
//! May depend on `process` and everything below it. Takes no locks of its own.
#![cfg_attr(not(test), no_std)]
extern crate alloc;

mod args;
mod context;
mod directory;
mod dispatch;
mod fcntl;
mod metadata;
mod mount;
mod open;
mod path;
pub mod table;
mod transfer;
mod xattr;

pub use context::Context;
pub use dispatch::dispatch;
