//! POSIX access control lists (acl(5)): what they allow, and how new files get theirs.
//!
//! A list is kept as the extended attribute `system.posix_acl_access`, that for what is made in a directory as `system.posix_acl_default`.
//! Lists that say no more than the mode are not kept. The group bits of a file with a list are its mask.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use base::{Cred, Errno, Result};
use hal::sync::SpinLock;

use crate::xattr::SetMode;
use crate::{Access, FileKind, Inode};

/// The attributes' names.
pub(crate) const ACCESS: &[u8] = b"system.posix_acl_access";
/// That of what is made in a directory.
pub(crate) const DEFAULT: &[u8] = b"system.posix_acl_default";
/// The version of the attributes' format.
const VERSION: u32 = 2;
const HEADER: usize = 4;
const ENTRY: usize = 8;
/// The id of entries that have none.
const NO_ID: u32 = u32::MAX;

/// Whom an entry is for, in the numbers of the format.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u16)]
pub(crate) enum Tag {
    Owner = 1,
    User = 2,
    OwningGroup = 4,
    Group = 8,
    Mask = 16,
    Other = 32,
}

/// An entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) tag: Tag,
    pub(crate) bits: u16,
    pub(crate) id: u32,
}

/// A list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Acl(Vec<Entry>);

impl Tag {
    pub(crate) fn from_number(number: u16) -> Option<Tag> {
        [Tag::Owner, Tag::User, Tag::OwningGroup, Tag::Group, Tag::Mask, Tag::Other]
            .into_iter()
            .find(|tag| *tag as u16 == number)
    }

    /// Does it name a user or group?
    pub(crate) fn names(self) -> bool {
        matches!(self, Tag::User | Tag::Group)
    }
}

impl Acl {
    pub(crate) fn from_entries(entries: Vec<Entry>) -> Acl {
        Acl(entries)
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// Reads an attribute's value; `None` where it has no entries. `EINVAL`, `EOPNOTSUPP` for another version.
    pub(crate) fn parse(value: &[u8]) -> Result<Option<Acl>> {
        let (header, rest) = value.split_at_checked(HEADER).ok_or(Errno::EINVAL)?;
        if header != VERSION.to_le_bytes() {
            return Err(Errno::EOPNOTSUPP);
        }
        if !rest.len().is_multiple_of(ENTRY) {
            return Err(Errno::EINVAL);
        }
        let mut entries = Vec::new();
        entries.try_reserve_exact(rest.len() / ENTRY).map_err(|_| Errno::ENOMEM)?;
        for bytes in rest.chunks_exact(ENTRY) {
            let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            let tag = Tag::from_number(half(0)).ok_or(Errno::EINVAL)?;
            let id = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
            if tag.names() && id == NO_ID {
                return Err(Errno::EINVAL);
            }
            entries.push(Entry { tag, bits: half(2), id: if tag.names() { id } else { NO_ID } });
        }
        Ok((!entries.is_empty()).then_some(Acl(entries)))
    }

    /// The attribute's value.
    pub(crate) fn value(&self) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            value.extend_from_slice(&(entry.tag as u16).to_le_bytes());
            value.extend_from_slice(&entry.bits.to_le_bytes());
            value.extend_from_slice(&entry.id.to_le_bytes());
        }
        value
    }

    /// Checks that the entries are in order: owner, users, owning group, groups, mask (where somebody is named), others. `EINVAL`.
    pub(crate) fn check(&self) -> Result<()> {
        let sorted = self
            .0
            .windows(2)
            .all(|pair| pair[0].tag < pair[1].tag || pair[0].tag == pair[1].tag && pair[0].tag.names());
        let count = |tag: Tag| self.0.iter().filter(|entry| entry.tag == tag).count();
        let needs_mask = self.0.iter().any(|entry| entry.tag.names());
        let whole = count(Tag::Owner) == 1 && count(Tag::OwningGroup) == 1 && count(Tag::Other) == 1;
        let right =
            sorted && whole && self.0.iter().all(|entry| entry.bits <= 7) && (!needs_mask || count(Tag::Mask) == 1);
        if right { Ok(()) } else { Err(Errno::EINVAL) }
    }

    fn bits(&self, tag: Tag) -> Option<u32> {
        self.0.iter().find(|entry| entry.tag == tag).map(|entry| u32::from(entry.bits))
    }

    /// The permission bits that it shows as, and whether these say all of it.
    pub(crate) fn mode(&self) -> (u32, bool) {
        let group = self.bits(Tag::Mask).or(self.bits(Tag::OwningGroup)).unwrap_or(0);
        let mode = self.bits(Tag::Owner).unwrap_or(0) << 6 | group << 3 | self.bits(Tag::Other).unwrap_or(0);
        (mode, self.0.iter().all(|entry| !entry.tag.names() && entry.tag != Tag::Mask))
    }

    /// May the holder of `cred`, who is not the owner, do what is `wanted`? `EACCES`.
    fn check_access(&self, cred: &Cred, group: u32, wanted: Access) -> Result<()> {
        let allows = |bits: u32| Access::from_bits_truncate(bits).contains(wanted);
        let verdict = |allowed: bool| if allowed { Ok(()) } else { Err(Errno::EACCES) };
        let mask = self.bits(Tag::Mask).unwrap_or(7);
        let user = self.0.iter().find(|entry| entry.tag == Tag::User && entry.id == cred.fsuid);
        if let Some(user) = user {
            return verdict(allows(u32::from(user.bits) & mask));
        }
        let mut member = false;
        for entry in &self.0 {
            let is_in = match entry.tag {
                Tag::OwningGroup => cred.in_group(group),
                Tag::Group => cred.in_group(entry.id),
                _ => false,
            };
            if is_in && allows(entry.bits.into()) {
                return verdict(allows(u32::from(entry.bits) & mask));
            }
            member |= is_in;
        }
        verdict(!member && allows(self.bits(Tag::Other).unwrap_or(0)))
    }

    /// What a new file gets of a directory's list: only what `mode` asks for, and the permission bits that come of it.
    fn inherited(&self, mode: u32) -> (Acl, u32) {
        let mut list = self.clone();
        let group_tag = if self.bits(Tag::Mask).is_some() { Tag::Mask } else { Tag::OwningGroup };
        let mut result = mode & !0o777;
        for entry in &mut list.0 {
            let shift = match entry.tag {
                Tag::Owner => 6,
                Tag::Other => 0,
                tag if tag == group_tag => 3,
                _ => continue,
            };
            entry.bits &= (mode >> shift & 7) as u16;
            result |= u32::from(entry.bits) << shift;
        }
        (list, result)
    }

    /// After chmod(2).
    fn with_mode(&self, mode: u32) -> Acl {
        let mut list = self.clone();
        let group_tag = if self.bits(Tag::Mask).is_some() { Tag::Mask } else { Tag::OwningGroup };
        for entry in &mut list.0 {
            match entry.tag {
                Tag::Owner => entry.bits = (mode >> 6 & 7) as u16,
                Tag::Other => entry.bits = (mode & 7) as u16,
                tag if tag == group_tag => entry.bits = (mode >> 3 & 7) as u16,
                _ => {}
            }
        }
        list
    }
}

/// A list of an inode, so that it is not read on each use.
#[derive(Default)]
struct Slot {
    /// [`UNKNOWN`], [`NONE`] or [`SOME`].
    state: AtomicU8,
    /// How often it was forgotten: what was read before does not count.
    version: AtomicU32,
    list: SpinLock<Option<Arc<Acl>>>,
}

const UNKNOWN: u8 = 0;
const NONE: u8 = 1;
const SOME: u8 = 2;

/// The lists of an inode.
#[derive(Default)]
pub(crate) struct Cached {
    access: Slot,
    default: Slot,
}

impl Slot {
    fn get(&self, inode: &Inode, name: &[u8]) -> Result<Option<Arc<Acl>>> {
        match self.state.load(Ordering::Acquire) {
            NONE => return Ok(None),
            SOME => {
                if let Some(list) = self.list.lock().clone() {
                    return Ok(Some(list));
                }
            }
            _ => {}
        }
        let version = self.version.load(Ordering::Acquire);
        let list = read(inode, name)?.map(Arc::new);
        let mut kept = self.list.lock();
        if self.version.load(Ordering::Acquire) == version {
            self.state.store(if list.is_some() { SOME } else { NONE }, Ordering::Release);
            kept.clone_from(&list);
        }
        Ok(list)
    }

    fn forget(&self) {
        let mut kept = self.list.lock();
        self.version.fetch_add(1, Ordering::AcqRel);
        self.state.store(UNKNOWN, Ordering::Release);
        let old = kept.take();
        drop(kept);
        drop(old);
    }
}

impl Cached {
    /// The lists were changed.
    pub(crate) fn forget(&self) {
        self.access.forget();
        self.default.forget();
    }
}

/// A list as the file system has it; one that makes no sense is `EIO`.
fn read(inode: &Inode, name: &[u8]) -> Result<Option<Acl>> {
    if !inode.superblock().ops.has_acls() {
        return Ok(None);
    }
    let Some(store) = inode.ops().xattrs() else { return Ok(None) };
    match store.get(name) {
        Ok(value) => Acl::parse(&value).map_err(|_| Errno::EIO),
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the list says, for who is not the owner of a file whose group bits are not all clear; `None` where there is none.
#[inline]
pub(crate) fn check(cred: &Cred, inode: &Inode, wanted: Access) -> Option<Result<()>> {
    if inode.acls.access.state.load(Ordering::Relaxed) == NONE {
        return None;
    }
    match inode.acls.access.get(inode, ACCESS) {
        Ok(None) => None,
        Ok(Some(list)) => Some(list.check_access(cred, inode.gid(), wanted)),
        Err(error) => Some(Err(error)),
    }
}

/// What a directory has in store for a new file that is asked for with `mode`: the permission bits in place of those that the umask leaves.
pub(crate) fn mode_for_new(dir: &Inode, kind: FileKind, mode: u32) -> Option<u32> {
    if kind == FileKind::Symlink {
        return None;
    }
    let list = dir.acls.default.get(dir, DEFAULT).ok().flatten()?;
    Some(list.inherited(mode).1)
}

/// Gives a new file, asked for with `mode`, what its directory has in store. `ENOSPC`, `EIO`, ...
pub(crate) fn inherit(dir: &Inode, made: &Inode, mode: u32) -> Result<()> {
    if made.kind() == FileKind::Symlink {
        return Ok(());
    }
    let Some(default) = dir.acls.default.get(dir, DEFAULT)? else { return Ok(()) };
    let store = made.ops().xattrs().ok_or(Errno::EIO)?;
    let (list, _) = default.inherited(mode);
    if !list.mode().1 {
        store.set(ACCESS, &list.value(), SetMode::Any)?;
    }
    if made.is_dir() {
        store.set(DEFAULT, &default.value(), SetMode::Any)?;
    }
    made.acls.forget();
    Ok(())
}

/// The permission bits of a file with a list were changed: so is the list. `EIO`, `ENOSPC`.
pub(crate) fn chmod(inode: &Inode, mode: u32) -> Result<()> {
    let Some(list) = inode.acls.access.get(inode, ACCESS)? else { return Ok(()) };
    let store = inode.ops().xattrs().ok_or(Errno::EIO)?;
    store.set(ACCESS, &list.with_mode(mode).value(), SetMode::Any)?;
    inode.acls.forget();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use Tag::*;

    fn list(entries: &[(Tag, u16, u32)]) -> Acl {
        Acl(entries.iter().map(|&(tag, bits, id)| Entry { tag, bits, id }).collect())
    }

    fn full() -> Acl {
        list(&[
            (Owner, 7, NO_ID),
            (User, 6, 10),
            (User, 4, 11),
            (OwningGroup, 4, NO_ID),
            (Group, 2, 20),
            (Mask, 6, NO_ID),
            (Other, 0, NO_ID),
        ])
    }

    #[test]
    fn values_survive_a_round_trip_and_wrong_ones_are_refused() {
        assert_eq!(Acl::parse(&full().value()), Ok(Some(full())));
        assert_eq!(Acl::parse(&[2, 0, 0, 0]), Ok(None));
        assert_eq!(Acl::parse(&[1, 0, 0, 0]), Err(Errno::EOPNOTSUPP));
        for len in [0, 3, 5, 13] {
            assert_eq!(Acl::parse(&full().value()[..len]), Err(Errno::EINVAL));
        }
        assert_eq!(Acl::parse(&[2, 0, 0, 0, 3, 0, 7, 0, 0, 0, 0, 0]), Err(Errno::EINVAL));
    }

    #[test]
    fn order_and_completeness_are_checked() {
        assert_eq!(full().check(), Ok(()));
        let three = [(Owner, 7, NO_ID), (OwningGroup, 5, NO_ID), (Other, 1, NO_ID)];
        assert_eq!((list(&three).check(), list(&three).mode()), (Ok(()), (0o751, true)));
        assert_eq!(full().mode(), (0o760, false));
        let wrong: [&[(Tag, u16, u32)]; 5] = [
            &three[..2],
            &[three[1], three[0], three[2]],
            &[three[0], (User, 7, 1), three[1], three[2]],
            &[(Owner, 8, NO_ID), three[1], three[2]],
            &[three[0], three[0], three[1], three[2]],
        ];
        for entries in wrong {
            assert_eq!(list(entries).check(), Err(Errno::EINVAL));
        }
    }

    #[test]
    fn the_first_entry_that_applies_decides() {
        let who = |uid: u32, groups: &[u32]| {
            let mut cred = Cred::root();
            (cred.fsuid, cred.fsgid) = (uid, 999);
            cred.groups = groups.into();
            cred
        };
        let may = |cred: &Cred, wanted: Access| full().check_access(cred, 30, wanted).is_ok();
        assert!(may(&who(10, &[]), Access::READ | Access::WRITE) && !may(&who(11, &[20]), Access::WRITE));
        assert!(may(&who(1, &[20]), Access::WRITE) && !may(&who(1, &[20]), Access::READ));
        assert!(may(&who(1, &[20, 30]), Access::READ) && !may(&who(1, &[20, 30]), Access::READ | Access::WRITE));
        assert!(!may(&who(1, &[]), Access::READ));
    }

    #[test]
    fn new_files_get_what_is_asked_for_of_what_is_in_store() {
        let (inherited, mode) = full().inherited(0o640);
        assert_eq!(mode, 0o640);
        assert_eq!((inherited.bits(Owner), inherited.bits(Mask), inherited.bits(Other)), (Some(6), Some(4), Some(0)));
        assert_eq!(inherited.bits(OwningGroup), Some(4));
        assert_eq!(full().with_mode(0o707).mode().0, 0o707);
    }
}
