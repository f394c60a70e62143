//! The journal of ext3 and ext4, in Linux's jbd2 format.
//!
//! Changed metadata blocks are collected in a transaction. Committing one writes them to the log, an area of blocks used in a circle:
//!
//! ```text
//! descriptor: which blocks follow | the blocks | ... | revoke: which older copies don't count | commit
//! ```
//!
//! When the commit block has reached the disk (a flush before it, so that nothing is missing, and one after it), all of the
//! transaction will be found by [`recovery`] after a crash; until then nothing of it counts. Later the blocks are written to their
//! own places (checkpoint), and the log's space is used again.
//!
//! [`Store`] is the blocks as they are now, with the transaction that is running. [`format`] is what is on the disk, [`Log`] the circle.
//! All is plain data over a `BlockIo`, without locks: tests run it on the host.

mod format;
mod log;
mod recovery;
mod store;

pub(crate) use log::{Area, Log};
pub(crate) use store::{Commit, Store};
