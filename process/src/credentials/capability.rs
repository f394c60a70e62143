//! capset(2) and the capability parts of prctl(2).

use base::{CapSet, Capability, Cred, Errno, Result};

use super::{SECBIT_KEEP_CAPS, SECBIT_KEEP_CAPS_LOCKED, SECBIT_NO_CAP_AMBIENT_RAISE, SECBITS_ALL, SECBITS_LOCKS};

const fn bit(capability: Capability) -> u64 {
    1 << capability as u8
}

/// Those that setfsuid(2) takes and gives: about files.
pub const FILES: CapSet = CapSet::from_bits_retain(
    bit(Capability::Chown)
        | bit(Capability::Mknod)
        | bit(Capability::DacOverride)
        | bit(Capability::DacReadSearch)
        | bit(Capability::Fowner)
        | bit(Capability::Fsetid)
        | bit(Capability::LinuxImmutable)
        | bit(Capability::MacOverride),
);

/// The highest capability.
pub const LAST: u32 = 40;

/// The set that holds capability number `n` alone. `EINVAL`.
pub fn single(n: u64) -> Result<CapSet> {
    if n > u64::from(LAST) { Err(Errno::EINVAL) } else { Ok(CapSet::from_bits_retain(1 << n)) }
}

/// capset(2). `EPERM`.
pub fn set(old: &Cred, effective: CapSet, permitted: CapSet, inheritable: CapSet) -> Result<Cred> {
    let (effective, permitted, inheritable) =
        (effective & CapSet::FULL, permitted & CapSet::FULL, inheritable & CapSet::FULL);
    let free_inheritable = old.capable(Capability::Setpcap);
    let inheritable_ok = free_inheritable || (old.inheritable | old.permitted).contains(inheritable);
    let bounded = (old.inheritable | old.bounding).contains(inheritable);
    if !inheritable_ok || !bounded || !old.permitted.contains(permitted) || !permitted.contains(effective) {
        return Err(Errno::EPERM);
    }
    let ambient = old.ambient & permitted & inheritable;
    Ok(Cred { effective, permitted, inheritable, ambient, ..old.clone() })
}

/// PR_CAPBSET_DROP. `EINVAL`, `EPERM`.
pub fn drop_bounding(old: &Cred, n: u64) -> Result<Cred> {
    let dropped = single(n)?;
    if !old.capable(Capability::Setpcap) {
        return Err(Errno::EPERM);
    }
    Ok(Cred { bounding: old.bounding - dropped, ..old.clone() })
}

/// PR_SET_SECUREBITS. `EPERM`.
pub fn set_securebits(old: &Cred, bits: u32) -> Result<Cred> {
    let locked = (old.securebits & SECBITS_LOCKS) >> 1;
    let changes_locked = (old.securebits ^ bits) & locked != 0;
    let unlocks = old.securebits & SECBITS_LOCKS & !bits != 0;
    if changes_locked || unlocks || bits & !SECBITS_ALL != 0 || !old.capable(Capability::Setpcap) {
        return Err(Errno::EPERM);
    }
    Ok(Cred { securebits: bits, ..old.clone() })
}

/// PR_SET_KEEPCAPS. `EINVAL`, `EPERM`.
pub fn set_keep(old: &Cred, value: u64) -> Result<Cred> {
    if value > 1 {
        return Err(Errno::EINVAL);
    }
    if old.securebits & SECBIT_KEEP_CAPS_LOCKED != 0 {
        return Err(Errno::EPERM);
    }
    let securebits = old.securebits & !SECBIT_KEEP_CAPS | if value == 1 { SECBIT_KEEP_CAPS } else { 0 };
    Ok(Cred { securebits, ..old.clone() })
}

/// PR_CAP_AMBIENT_RAISE (`true`) and PR_CAP_AMBIENT_LOWER. `EINVAL`, `EPERM`.
pub fn set_ambient(old: &Cred, n: u64, raise: bool) -> Result<Cred> {
    let one = single(n)?;
    let mut new = old.clone();
    if !raise {
        new.ambient -= one;
        return Ok(new);
    }
    let held = old.permitted.contains(one) && old.inheritable.contains(one);
    if !held || old.securebits & SECBIT_NO_CAP_AMBIENT_RAISE != 0 {
        return Err(Errno::EPERM);
    }
    new.ambient |= one;
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_only_shrink() {
        let root = Cred::root();
        let some = CapSet::from_bits_retain(3);
        let less = set(&root, some, some, CapSet::empty()).unwrap();
        assert_eq!((less.effective, less.permitted), (some, some));
        assert_eq!(set(&less, CapSet::FULL, CapSet::FULL, CapSet::empty()).unwrap_err(), Errno::EPERM);
        assert_eq!(set(&root, some, CapSet::empty(), CapSet::empty()).unwrap_err(), Errno::EPERM);
    }

    #[test]
    fn ambient_needs_permitted_and_inheritable() {
        let root = Cred::root();
        assert_eq!(set_ambient(&root, 5, true).unwrap_err(), Errno::EPERM);
        assert_eq!(set_ambient(&root, 41, true).unwrap_err(), Errno::EINVAL);
        let ready = set(&root, CapSet::FULL, CapSet::FULL, single(5).unwrap()).unwrap();
        let raised = set_ambient(&ready, 5, true).unwrap();
        assert_eq!(raised.ambient, single(5).unwrap());
        assert!(set_ambient(&raised, 5, false).unwrap().ambient.is_empty());
        // Losing it from the permitted set loses it here too.
        assert!(set(&raised, CapSet::empty(), CapSet::empty(), single(5).unwrap()).unwrap().ambient.is_empty());
    }

    #[test]
    fn locked_securebits_stay() {
        let locked = set_securebits(&Cred::root(), 3).unwrap();
        assert_eq!(set_securebits(&locked, 2).unwrap_err(), Errno::EPERM);
        assert_eq!(set_securebits(&locked, 1).unwrap_err(), Errno::EPERM);
        assert!(set_securebits(&locked, 3 | 4).is_ok());
    }
}
