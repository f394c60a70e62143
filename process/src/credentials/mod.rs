//! Changing credentials: the set*id family, groups, capabilities. Pure: old credentials in, new ones out.

pub mod capability;
pub mod exec;

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{CapSet, Capability, Cred, Errno, Result};

/// SECBIT_NOROOT: root gets no capabilities by exec.
pub const SECBIT_NOROOT: u32 = 1 << 0;
/// SECBIT_NO_SETUID_FIXUP: capabilities stay when ids change.
pub const SECBIT_NO_SETUID_FIXUP: u32 = 1 << 2;
/// SECBIT_KEEP_CAPS.
pub const SECBIT_KEEP_CAPS: u32 = 1 << 4;
/// SECBIT_KEEP_CAPS_LOCKED.
pub const SECBIT_KEEP_CAPS_LOCKED: u32 = 1 << 5;
/// SECBIT_NO_CAP_AMBIENT_RAISE.
pub const SECBIT_NO_CAP_AMBIENT_RAISE: u32 = 1 << 6;
/// All bits that exist, and their locks.
pub const SECBITS_ALL: u32 = 0xff;
/// The locks among them.
pub const SECBITS_LOCKS: u32 = 0xaa;

/// "No change" in setresuid(2) and the like.
const KEEP: u32 = u32::MAX;
/// The most supplementary groups.
pub const NGROUPS_MAX: usize = 65536;

/// setuid(2). `EINVAL` (-1), `EPERM`.
pub fn setuid(old: &Cred, uid: u32) -> Result<Cred> {
    if uid == KEEP {
        return Err(Errno::EINVAL);
    }
    let mut new = old.clone();
    if old.capable(Capability::Setuid) {
        new.uid = uid;
        new.suid = uid;
    } else if uid != old.uid && uid != old.suid {
        return Err(Errno::EPERM);
    }
    new.euid = uid;
    new.fsuid = uid;
    Ok(fix_capabilities(old, new))
}

/// setgid(2). `EINVAL` (-1), `EPERM`.
pub fn setgid(old: &Cred, gid: u32) -> Result<Cred> {
    if gid == KEEP {
        return Err(Errno::EINVAL);
    }
    let mut new = old.clone();
    if old.capable(Capability::Setgid) {
        new.gid = gid;
        new.sgid = gid;
    } else if gid != old.gid && gid != old.sgid {
        return Err(Errno::EPERM);
    }
    new.egid = gid;
    new.fsgid = gid;
    Ok(new)
}

/// setreuid(2). `EPERM`.
pub fn setreuid(old: &Cred, uid: u32, euid: u32) -> Result<Cred> {
    let privileged = old.capable(Capability::Setuid);
    if !privileged && uid != KEEP && uid != old.uid && uid != old.euid {
        return Err(Errno::EPERM);
    }
    if !privileged && euid != KEEP && ![old.uid, old.euid, old.suid].contains(&euid) {
        return Err(Errno::EPERM);
    }
    let mut new = old.clone();
    keep_or_set(&mut new.uid, uid);
    keep_or_set(&mut new.euid, euid);
    if uid != KEEP || euid != KEEP && euid != old.uid {
        new.suid = new.euid;
    }
    new.fsuid = new.euid;
    Ok(fix_capabilities(old, new))
}

/// setregid(2). `EPERM`.
pub fn setregid(old: &Cred, gid: u32, egid: u32) -> Result<Cred> {
    let privileged = old.capable(Capability::Setgid);
    if !privileged && gid != KEEP && gid != old.gid && gid != old.egid {
        return Err(Errno::EPERM);
    }
    if !privileged && egid != KEEP && ![old.gid, old.egid, old.sgid].contains(&egid) {
        return Err(Errno::EPERM);
    }
    let mut new = old.clone();
    keep_or_set(&mut new.gid, gid);
    keep_or_set(&mut new.egid, egid);
    if gid != KEEP || egid != KEEP && egid != old.gid {
        new.sgid = new.egid;
    }
    new.fsgid = new.egid;
    Ok(new)
}

/// setresuid(2). `EPERM`.
pub fn setresuid(old: &Cred, ids: [u32; 3]) -> Result<Cred> {
    let mine = [old.uid, old.euid, old.suid];
    if !old.capable(Capability::Setuid) && ids.iter().any(|id| *id != KEEP && !mine.contains(id)) {
        return Err(Errno::EPERM);
    }
    let mut new = old.clone();
    keep_or_set(&mut new.uid, ids[0]);
    keep_or_set(&mut new.euid, ids[1]);
    keep_or_set(&mut new.suid, ids[2]);
    new.fsuid = new.euid;
    Ok(fix_capabilities(old, new))
}

/// setresgid(2). `EPERM`.
pub fn setresgid(old: &Cred, ids: [u32; 3]) -> Result<Cred> {
    let mine = [old.gid, old.egid, old.sgid];
    if !old.capable(Capability::Setgid) && ids.iter().any(|id| *id != KEEP && !mine.contains(id)) {
        return Err(Errno::EPERM);
    }
    let mut new = old.clone();
    keep_or_set(&mut new.gid, ids[0]);
    keep_or_set(&mut new.egid, ids[1]);
    keep_or_set(&mut new.sgid, ids[2]);
    new.fsgid = new.egid;
    Ok(new)
}

/// setfsuid(2): fails silently.
pub fn setfsuid(old: &Cred, uid: u32) -> Option<Cred> {
    let mine = [old.uid, old.euid, old.suid, old.fsuid];
    if uid == KEEP || !mine.contains(&uid) && !old.capable(Capability::Setuid) {
        return None;
    }
    let mut new = Cred { fsuid: uid, ..old.clone() };
    if old.securebits & SECBIT_NO_SETUID_FIXUP == 0 {
        // What CAP_*_DAC_* and the like mean for files goes with the file-system user.
        match (old.fsuid, uid) {
            (0, 1..) => new.effective = new.effective.difference(capability::FILES),
            (1.., 0) => new.effective |= new.permitted.intersection(capability::FILES),
            _ => {}
        }
    }
    Some(new)
}

/// setfsgid(2): fails silently.
pub fn setfsgid(old: &Cred, gid: u32) -> Option<Cred> {
    let mine = [old.gid, old.egid, old.sgid, old.fsgid];
    let allowed = gid != KEEP && (mine.contains(&gid) || old.capable(Capability::Setgid));
    allowed.then(|| Cred { fsgid: gid, ..old.clone() })
}

/// setgroups(2). `EPERM`, `EINVAL` (too many).
pub fn setgroups(old: &Cred, mut groups: Vec<u32>) -> Result<Cred> {
    if !old.capable(Capability::Setgid) {
        return Err(Errno::EPERM);
    }
    if groups.len() > NGROUPS_MAX || groups.contains(&KEEP) {
        return Err(Errno::EINVAL);
    }
    groups.sort_unstable();
    Ok(Cred { groups: Arc::from(groups), ..old.clone() })
}

fn keep_or_set(id: &mut u32, new: u32) {
    if new != KEEP {
        *id = new;
    }
}

/// What leaving and becoming root means for capabilities (capabilities(7), "effect of user ID changes").
fn fix_capabilities(old: &Cred, mut new: Cred) -> Cred {
    if old.securebits & SECBIT_NO_SETUID_FIXUP != 0 {
        return new;
    }
    let had_root = [old.uid, old.euid, old.suid].contains(&0);
    let has_root = [new.uid, new.euid, new.suid].contains(&0);
    if had_root && !has_root {
        if old.securebits & SECBIT_KEEP_CAPS == 0 {
            new.permitted = CapSet::empty();
            new.effective = CapSet::empty();
        }
        new.ambient = CapSet::empty();
    }
    if old.euid == 0 && new.euid != 0 {
        new.effective = CapSet::empty();
    }
    if old.euid != 0 && new.euid == 0 {
        new.effective = new.permitted;
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(uid: u32) -> Cred {
        setresuid(&Cred::root(), [uid; 3]).unwrap()
    }

    #[test]
    fn root_that_leaves_loses_its_capabilities() {
        let user = setuid(&Cred::root(), 1000).unwrap();
        assert_eq!((user.uid, user.euid, user.suid, user.fsuid), (1000, 1000, 1000, 1000));
        assert!(user.permitted.is_empty() && user.effective.is_empty());
        assert_eq!(setuid(&user, 0).unwrap_err(), Errno::EPERM);
    }

    #[test]
    fn root_that_leaves_for_a_while_gets_them_back() {
        let away = setresuid(&Cred::root(), [KEEP, 1000, KEEP]).unwrap();
        assert!(away.effective.is_empty());
        assert_eq!(away.permitted, CapSet::FULL);
        let back = setresuid(&away, [KEEP, 0, KEEP]).unwrap();
        assert_eq!(back.effective, CapSet::FULL);
    }

    #[test]
    fn keep_caps_keeps_the_permitted_set() {
        let root = Cred { securebits: SECBIT_KEEP_CAPS, ..Cred::root() };
        let user = setuid(&root, 1000).unwrap();
        assert_eq!(user.permitted, CapSet::FULL);
        assert!(user.effective.is_empty());
    }

    #[test]
    fn the_unprivileged_move_between_their_ids_only() {
        let user = Cred { suid: 7, ..user(1000) };
        assert_eq!(setresuid(&user, [7, KEEP, KEEP]).unwrap().uid, 7);
        assert_eq!(setresuid(&user, [8, KEEP, KEEP]).unwrap_err(), Errno::EPERM);
        assert_eq!(setreuid(&user, 7, KEEP).unwrap_err(), Errno::EPERM);
        assert_eq!(setreuid(&user, KEEP, 7).unwrap().suid, 7);
        assert!(setfsuid(&user, 8).is_none());
        assert_eq!(setfsuid(&user, 7).unwrap().fsuid, 7);
        assert_eq!(setgroups(&user, vec![1]).unwrap_err(), Errno::EPERM);
    }

    #[test]
    fn groups_are_kept_sorted() {
        let cred = setgroups(&Cred::root(), vec![30, 10, 20]).unwrap();
        assert_eq!(&*cred.groups, [10, 20, 30]);
        assert!(cred.in_group(20) && !cred.in_group(5));
    }
}
