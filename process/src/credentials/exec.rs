//! What exec does to credentials: set-user-id programs, and the transformation of capabilities(7).

use base::{CapSet, Cred};
use fs::{MountFlags, OpenFile};

use super::{SECBIT_KEEP_CAPS, SECBIT_NOROOT};
use crate::Task;

const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;
const S_IXGRP: u32 = 0o010;

/// The ids that a program file gives, if it does.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct FileIds {
    /// Its owner, with the set-user-id bit.
    pub uid: Option<u32>,
    /// Its group, with the set-group-id bit.
    pub gid: Option<u32>,
}

/// The credentials after exec of `file` by a thread that has `old`, and whether the program must be careful (AT_SECURE).
pub(crate) fn on_exec(_task: &Task, old: &Cred, file: &OpenFile) -> (Cred, bool) {
    let attributes = file.stat().attributes;
    let honoured = !file.path().mount.flags().contains(MountFlags::NOSUID) && !old.no_new_privs;
    let mut ids = FileIds::default();
    if honoured && attributes.mode & S_ISUID != 0 {
        ids.uid = Some(attributes.uid);
    }
    // Without the group's execute bit the flag once meant mandatory locking.
    if honoured && attributes.mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP {
        ids.gid = Some(attributes.gid);
    }
    transform(old, ids)
}

/// The pure part of [`on_exec`].
pub fn transform(old: &Cred, ids: FileIds) -> (Cred, bool) {
    let mut new = old.clone();
    new.euid = ids.uid.unwrap_or(old.euid);
    new.egid = ids.gid.unwrap_or(old.egid);
    let changed = new.euid != old.euid || new.egid != old.egid;
    let set_id = new.euid != new.uid || new.egid != new.gid;
    new.suid = new.euid;
    new.fsuid = new.euid;
    new.sgid = new.egid;
    new.fsgid = new.egid;
    let rootly = old.securebits & SECBIT_NOROOT == 0;
    let (mut permitted, mut effective) = (CapSet::empty(), false);
    if rootly && (new.euid == 0 || new.uid == 0) {
        permitted = old.bounding | old.inheritable;
        effective = new.euid == 0;
    }
    new.ambient = if set_id { CapSet::empty() } else { old.ambient };
    new.permitted = permitted | new.ambient;
    new.effective = if effective { new.permitted } else { new.ambient };
    new.securebits &= !SECBIT_KEEP_CAPS;
    let gained = new.uid != 0 && (effective || !new.ambient.contains(new.permitted));
    (new, changed || set_id || gained)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> Cred {
        super::super::setuid(&super::super::setgid(&Cred::root(), 1000).unwrap(), 1000).unwrap()
    }

    #[test]
    fn ordinary_programs_change_nothing() {
        let (cred, secure) = transform(&user(), FileIds::default());
        assert!(!secure && cred.permitted.is_empty());
        let (root, secure) = transform(&Cred::root(), FileIds::default());
        assert!(!secure);
        assert_eq!(root.effective, CapSet::FULL);
    }

    #[test]
    fn set_user_id_root_gives_root() {
        let (cred, secure) = transform(&user(), FileIds { uid: Some(0), gid: None });
        assert!(secure);
        assert_eq!((cred.uid, cred.euid, cred.suid, cred.fsuid), (1000, 0, 0, 0));
        assert_eq!(cred.effective, CapSet::FULL);
    }

    #[test]
    fn the_bounding_set_bounds_root() {
        let root = Cred { bounding: CapSet::from_bits_retain(6), ..Cred::root() };
        assert_eq!(transform(&root, FileIds::default()).0.permitted, CapSet::from_bits_retain(6));
    }

    #[test]
    fn ambient_capabilities_survive_ordinary_programs_only() {
        let set = CapSet::from_bits_retain(1 << 10);
        let cred = Cred { ambient: set, inheritable: set, permitted: set, ..user() };
        let (plain, secure) = transform(&cred, FileIds::default());
        assert!(!secure);
        assert_eq!((plain.permitted, plain.effective, plain.ambient), (set, set, set));
        let (special, _) = transform(&cred, FileIds { uid: Some(7), gid: None });
        assert!(special.ambient.is_empty() && special.permitted.is_empty());
    }
}
