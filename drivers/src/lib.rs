//! Device drivers. Each finds its devices through `virtio::find` and offers a trait of `dev`; nothing above hal is used.
//!
//! Lock order: a device's queue locks are innermost; interrupt handlers take them.
#![cfg_attr(not(test), no_std)]
extern crate alloc;

pub mod virtio;
