//! Vocabulary shared by all layers: error numbers, credentials, readiness events, time and identifiers.
//!
//! Depends on `abi` alone. Nothing here takes a lock or allocates behind the caller's back.
#![cfg_attr(not(test), no_std)]
extern crate alloc;

mod cred;
mod errno;
mod events;
mod time;

pub use cred::{CapSet, Capability, Cred, Landlocked};
pub use errno::{Errno, Result};
pub use events::Events;
pub use time::{NANOS_PER_SEC, Nanos};
