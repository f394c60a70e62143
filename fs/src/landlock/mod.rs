//! Landlock: a thread that takes rights to files away from itself, for good (landlock(7)).
//!
//! A [`Ruleset`] says which rights it is about, and to what is below which files they are granted. Restricting itself by one, a thread
//! gets a [`Domain`]: all rulesets so far as layers, each of which has to grant what is asked. [`check`] walks from a file up to the root
//! for that. The version is 2, as Linux 6.1's.

mod check;
mod domain;
mod ruleset;

pub use domain::{Domain, may_trace, restrict};
pub use ruleset::{Ruleset, VERSION, of};

pub(crate) use check::{Move, make, mount, open, remove, rename};

/// Rights, LANDLOCK_ACCESS_FS_*.
pub type Rights = u16;

/// The rights by name.
#[allow(missing_docs, reason = "landlock(7) documents each")]
pub mod rights {
    use super::Rights;

    pub const EXECUTE: Rights = 1;
    pub const WRITE_FILE: Rights = 1 << 1;
    pub const READ_FILE: Rights = 1 << 2;
    pub const READ_DIR: Rights = 1 << 3;
    pub const REMOVE_DIR: Rights = 1 << 4;
    pub const REMOVE_FILE: Rights = 1 << 5;
    pub const MAKE_CHAR: Rights = 1 << 6;
    pub const MAKE_DIR: Rights = 1 << 7;
    pub const MAKE_REG: Rights = 1 << 8;
    pub const MAKE_SOCK: Rights = 1 << 9;
    pub const MAKE_FIFO: Rights = 1 << 10;
    pub const MAKE_BLOCK: Rights = 1 << 11;
    pub const MAKE_SYM: Rights = 1 << 12;
    pub const REFER: Rights = 1 << 13;
    /// All.
    pub const ALL: Rights = (1 << 14) - 1;
    /// Those that make sense for what is no directory.
    pub const OF_FILES: Rights = EXECUTE | WRITE_FILE | READ_FILE;
    /// Denied where no rule grants it, whether a ruleset is about it or not: it came later, and what moves must not gain rights.
    pub const ALWAYS_DENIED: Rights = REFER;
}

/// How many rights there are.
const KINDS: usize = 14;
/// Rulesets that a thread may be restricted by.
const LAYERS_MAX: usize = 16;
