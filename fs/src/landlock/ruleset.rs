//! Rulesets, before a thread is restricted by them.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use base::{Errno, Result};
use sched::Mutex;

use super::domain::fits_in_memory;
use super::{Rights, rights};
use crate::vfs::pseudo::open_anonymous;
use crate::{Access, File, Inode, OpenFile, OpenFlags, Path};

/// LANDLOCK_CREATE_RULESET_VERSION's answer.
pub const VERSION: usize = 2;

/// What is granted to what is below each file, by the address of the inode, which the rule keeps.
pub(super) type Rules = BTreeMap<usize, (Arc<Inode>, Rights)>;

/// What a ruleset's descriptor refers to.
pub struct Ruleset {
    /// The rights that it is about.
    pub(super) handled: Rights,
    pub(super) rules: Mutex<Rules>,
}

impl File for Ruleset {}

impl Ruleset {
    /// landlock_create_ruleset(2): an open file. `EINVAL` (unknown rights), `ENOMSG` (none).
    pub fn create(handled: u64) -> Result<Arc<OpenFile>> {
        if handled & !u64::from(rights::ALL) != 0 {
            return Err(Errno::EINVAL);
        }
        if handled == 0 {
            return Err(Errno::ENOMSG);
        }
        let ruleset = Ruleset { handled: handled as Rights, rules: Mutex::new(Rules::new()) };
        Ok(open_anonymous(Arc::new(ruleset), "landlock-ruleset", OpenFlags::RDWR))
    }

    /// LANDLOCK_RULE_PATH_BENEATH. `EINVAL` (rights that the ruleset is not about, or that a file can't have), `EBADFD` (a file without
    /// a place in the tree), `ENOMEM`.
    pub fn grant(&self, path: &Path, granted: Rights) -> Result<()> {
        let inode = path.inode()?;
        if path.mount.is_internal() {
            return Err(Errno::EBADFD);
        }
        if !inode.is_dir() && granted & !rights::OF_FILES != 0 {
            return Err(Errno::EINVAL);
        }
        // What it is not about, it grants.
        let granted = granted | rights::ALL & !(self.handled | rights::ALWAYS_DENIED);
        let mut rules = self.rules.lock();
        if !fits_in_memory(rules.len()) {
            return Err(Errno::ENOMEM);
        }
        let rule = rules.entry(Arc::as_ptr(inode).addr()).or_insert_with(|| (inode.clone(), 0));
        rule.1 |= granted;
        Ok(())
    }

    /// Is it about all of these rights? `ENOMSG` for none, `EINVAL`.
    pub fn check_rights(&self, granted: u64) -> Result<Rights> {
        if granted == 0 {
            return Err(Errno::ENOMSG);
        }
        if granted & !u64::from(self.handled) != 0 { Err(Errno::EINVAL) } else { Ok(granted as Rights) }
    }
}

/// The ruleset behind an open file, to be used in this way. `EBADFD` for another kind of file, `EPERM`.
pub fn of(open: &OpenFile, access: Access) -> Result<&Ruleset> {
    let ruleset = open.file().downcast::<Ruleset>().ok_or(Errno::EBADFD)?;
    if open.flags().access().contains(access) { Ok(ruleset) } else { Err(Errno::EPERM) }
}
