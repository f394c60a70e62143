//! System calls: the table, the dispatcher, the decoding of arguments, and bodies by theme.
//!
//! May depend on `process` and everything below it. Takes no locks of its own.
#![cfg_attr(not(test), no_std)]
extern crate alloc;

mod args;
mod context;
mod dispatch;
pub mod table;

pub use context::Context;
pub use dispatch::dispatch;
