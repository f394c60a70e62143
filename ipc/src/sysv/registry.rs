//! Keys, identifiers and permissions: what the three System V mechanisms share.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicI32, AtomicI64, Ordering};

use base::{Capability, Errno, NANOS_PER_SEC, Result};
use hal::sync::SpinLock;
use sched::Mutex;

use super::Caller;

/// IPC_CREAT.
pub const CREATE: i32 = 0o1000;
/// IPC_EXCL.
pub const EXCLUSIVE: i32 = 0o2000;
/// IPC_NOWAIT.
pub const NO_WAIT: i32 = 0o4000;
/// IPC_PRIVATE.
pub const PRIVATE: i32 = 0;
/// Read permission, of whoever the caller counts as.
pub const READ: i32 = 0o444;
/// Write permission.
pub const WRITE: i32 = 0o222;

/// An identifier is a sequence number (of 16 bits) times this, and an index.
const INDICES: i32 = 1 << 15;
/// Indices are used up to here, at least, before one is used again.
const LEAST_CYCLE: i32 = 64;

/// `struct ipc_perm`.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "as sysvipc(7) names them")]
pub struct Permission {
    pub key: i32,
    pub uid: u32,
    pub gid: u32,
    pub cuid: u32,
    pub cgid: u32,
    pub mode: u32,
    pub sequence: u16,
}

impl Permission {
    /// Checks that the caller may do what `wanted` (nine permission bits) asks. `EACCES`.
    pub fn check(&self, caller: Caller, wanted: i32) -> Result<()> {
        let wanted = (wanted >> 6 | wanted >> 3 | wanted) as u32 & 7;
        let cred = caller.cred;
        let granted = if cred.euid == self.cuid || cred.euid == self.uid {
            self.mode >> 6
        } else if cred.in_egroup(self.cgid) || cred.in_egroup(self.gid) {
            self.mode >> 3
        } else {
            self.mode
        };
        if wanted & !granted == 0 || cred.capable(Capability::IpcOwner) { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// Checks that the caller may change or remove the object. `EPERM`.
    pub fn check_owner(&self, caller: Caller) -> Result<()> {
        let cred = caller.cred;
        let owner = cred.euid == self.cuid || cred.euid == self.uid || cred.capable(Capability::SysAdmin);
        if owner { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// IPC_SET: another owner and mode. `EINVAL` for ids that are none.
    pub fn change(&mut self, uid: u32, gid: u32, mode: u32) -> Result<()> {
        if uid == u32::MAX || gid == u32::MAX {
            return Err(Errno::EINVAL);
        }
        (self.uid, self.gid) = (uid, gid);
        self.mode = self.mode & !0o777 | mode & 0o777;
        Ok(())
    }
}

/// A time of day in seconds, 0 for never.
#[derive(Default)]
pub struct Stamp(AtomicI64);

impl Stamp {
    /// Sets it to now.
    pub fn touch(&self) {
        self.0.store((sched::time::realtime() / NANOS_PER_SEC) as i64, Ordering::Relaxed);
    }

    /// Seconds since 1970.
    pub fn seconds(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// An object with its identifier and permissions.
pub struct Entry<T> {
    /// The identifier.
    pub id: i32,
    /// Key, owner and mode.
    pub permission: SpinLock<Permission>,
    /// When it was made or changed last.
    pub changed: Stamp,
    /// The object.
    pub object: T,
}

impl<T> Entry<T> {
    /// The permissions as they are now.
    pub fn permission(&self) -> Permission {
        *self.permission.lock()
    }

    /// The index in its identifier.
    pub fn index(&self) -> i32 {
        self.id % INDICES
    }
}

struct Entries<T> {
    by_index: BTreeMap<i32, Arc<Entry<T>>>,
    by_key: BTreeMap<i32, i32>,
    last: i32,
    sequence: u16,
}

/// All objects of one kind.
pub struct Registry<T> {
    entries: Mutex<Entries<T>>,
    /// The identifier that the next object gets, or one close behind it; -1 for any (`kernel.*_next_id`).
    pub next_id: AtomicI32,
}

impl<T> Registry<T> {
    pub(super) fn new() -> Registry<T> {
        let entries = Entries { by_index: BTreeMap::new(), by_key: BTreeMap::new(), last: -1, sequence: 0 };
        Registry { entries: Mutex::new(entries), next_id: AtomicI32::new(-1) }
    }

    /// The identifier for a key: of the object that has it, if `fits` it, or of a new one from `make`. `limit` is how many there may be.
    /// `ENOENT`, `EEXIST`, `EACCES`, `ENOSPC`, and what `fits` and `make` give.
    pub fn get(
        &self,
        caller: Caller,
        key: i32,
        flags: i32,
        limit: i32,
        fits: impl FnOnce(&T) -> Result<()>,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<i32> {
        let mut entries = self.entries.lock();
        let found = if key == PRIVATE { None } else { entries.by_key.get(&key) };
        if let Some(entry) = found.and_then(|index| entries.by_index.get(index)) {
            if flags & (CREATE | EXCLUSIVE) == CREATE | EXCLUSIVE {
                return Err(Errno::EEXIST);
            }
            fits(&entry.object)?;
            entry.permission().check(caller, flags)?;
            return Ok(entry.id);
        }
        if key != PRIVATE && flags & CREATE == 0 {
            return Err(Errno::ENOENT);
        }
        if entries.by_index.len() as i64 >= i64::from(limit) {
            return Err(Errno::ENOSPC);
        }
        let object = make()?;
        let wanted = self.next_id.swap(-1, Ordering::Relaxed);
        let place = if wanted < 0 { entries.next_index(limit) } else { entries.index_from(wanted) };
        let (index, sequence) = place.ok_or(Errno::ENOSPC)?;
        let cred = caller.cred;
        let permission = Permission {
            key,
            uid: cred.euid,
            gid: cred.egid,
            cuid: cred.euid,
            cgid: cred.egid,
            mode: flags as u32 & 0o777,
            sequence,
        };
        let id = i32::from(sequence) * INDICES + index;
        let entry = Arc::new(Entry { id, permission: SpinLock::new(permission), changed: Stamp::default(), object });
        entry.changed.touch();
        entries.by_index.insert(index, entry);
        if key != PRIVATE {
            entries.by_key.insert(key, index);
        }
        Ok(id)
    }

    /// The object with an identifier. `EINVAL`.
    pub fn find(&self, id: i32) -> Result<Arc<Entry<T>>> {
        if id < 0 {
            return Err(Errno::EINVAL);
        }
        self.at_index(id % INDICES).ok().filter(|entry| entry.id == id).ok_or(Errno::EINVAL)
    }

    /// The object with an index (SHM_STAT and its kin). `EINVAL`.
    pub fn at_index(&self, index: i32) -> Result<Arc<Entry<T>>> {
        self.entries.lock().by_index.get(&index).cloned().ok_or(Errno::EINVAL)
    }

    /// All objects, by index.
    pub fn all(&self) -> Vec<Arc<Entry<T>>> {
        self.entries.lock().by_index.values().cloned().collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.entries.lock().by_index.len()
    }

    /// The highest index in use, 0 if none is.
    pub fn highest_index(&self) -> i32 {
        self.entries.lock().by_index.last_key_value().map_or(0, |(index, _)| *index)
    }

    /// Takes an object out; false if another did before.
    pub fn remove(&self, entry: &Entry<T>) -> bool {
        let mut entries = self.entries.lock();
        entries.forget_key(entry);
        entries.by_index.remove(&entry.index()).is_some_and(|removed| removed.id == entry.id)
    }

    /// Takes an object's key away, so that another can be made with it.
    pub fn make_private(&self, entry: &Entry<T>) {
        self.entries.lock().forget_key(entry);
        entry.permission.lock().key = PRIVATE;
    }
}

impl<T> Entries<T> {
    fn forget_key(&mut self, entry: &Entry<T>) {
        let key = entry.permission().key;
        if self.by_key.get(&key) == Some(&entry.index()) {
            self.by_key.remove(&key);
        }
    }

    /// The first free index from that of `id` on, with the sequence number of `id`.
    fn index_from(&self, id: i32) -> Option<(i32, u16)> {
        let index = (id % INDICES..INDICES).find(|index| !self.by_index.contains_key(index))?;
        Some((index, (id / INDICES) as u16))
    }

    /// A free index behind the last one, so that an identifier comes back late, and the sequence number to go with it.
    fn next_index(&mut self, limit: i32) -> Option<(i32, u16)> {
        let used = i32::try_from(self.by_index.len()).ok()?;
        let end = (used.saturating_mul(3) / 2).max(LEAST_CYCLE).min(limit.clamp(1, INDICES));
        let free = |index: &i32| !self.by_index.contains_key(index);
        let index = (self.last + 1..end).find(free).or_else(|| (0..end).find(free))?;
        if index <= self.last {
            self.sequence = self.sequence.wrapping_add(1);
        }
        self.last = index;
        Some((index, self.sequence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Cred;

    fn get(registry: &Registry<u8>, key: i32, flags: i32) -> Result<i32> {
        let cred = Cred::root();
        registry.get(Caller { cred: &cred, pid: 1 }, key, flags, 100, |_| Ok(()), || Ok(7))
    }

    #[test]
    fn keys_lead_to_objects_until_these_are_removed() {
        let registry = Registry::new();
        assert_eq!(get(&registry, 5, 0o600), Err(Errno::ENOENT));
        let id = get(&registry, 5, CREATE | 0o600).unwrap();
        assert_eq!(get(&registry, 5, 0), Ok(id));
        assert_eq!(get(&registry, 5, CREATE | EXCLUSIVE), Err(Errno::EEXIST));
        let entry = registry.find(id).unwrap();
        assert!(registry.remove(&entry) && !registry.remove(&entry));
        assert!(registry.find(id).is_err());
        assert_ne!(get(&registry, 5, CREATE), Ok(id));
        assert_ne!(get(&registry, PRIVATE, 0), get(&registry, PRIVATE, 0));
    }

    #[test]
    fn identifiers_come_back_late() {
        let registry = Registry::new();
        let mut seen = alloc::collections::BTreeSet::new();
        for _ in 0..1000 {
            let id = get(&registry, PRIVATE, 0).unwrap();
            assert!(seen.insert(id));
            registry.remove(&registry.find(id).unwrap());
        }
    }

    #[test]
    fn an_identifier_can_be_asked_for_once() {
        let registry = Registry::new();
        for (wanted, expected) in [(5 * INDICES + 7, 5 * INDICES + 7), (9 * INDICES + 7, 9 * INDICES + 8)] {
            registry.next_id.store(wanted, Ordering::Relaxed);
            assert_eq!(get(&registry, PRIVATE, 0), Ok(expected));
        }
        assert_eq!(get(&registry, PRIVATE, 0), Ok(0));
    }

    #[test]
    fn permissions_go_by_owner_group_and_others() {
        let permission = Permission { key: 1, uid: 10, gid: 20, cuid: 11, cgid: 21, mode: 0o640, sequence: 0 };
        let with = |euid: u32, egid: u32| Cred { euid, egid, effective: base::CapSet::empty(), ..Cred::root() };
        let check = |cred: &Cred, wanted| permission.check(Caller { cred, pid: 1 }, wanted);
        assert_eq!(check(&with(10, 0), READ | WRITE), Ok(()));
        assert_eq!(check(&with(11, 0), WRITE), Ok(()));
        assert_eq!(check(&with(5, 21), READ), Ok(()));
        assert_eq!(check(&with(5, 20), WRITE), Err(Errno::EACCES));
        assert_eq!(check(&with(5, 5), READ), Err(Errno::EACCES));
        assert_eq!(check(&Cred::root(), WRITE), Ok(()));
    }
}
