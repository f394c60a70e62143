//! Access control lists as ext4 stores them: entries that name nobody are shorter than in the attribute that programs see.

use alloc::vec::Vec;

use base::{Errno, Result};

use crate::vfs::acl::{self, Acl, Entry, Tag};

/// The version of the stored form.
const VERSION: u32 = 1;
const SHORT: usize = 4;
const LONG: usize = 8;

/// Is it the name of a list?
pub(super) fn is_list(name: &[u8]) -> bool {
    name == acl::ACCESS || name == acl::DEFAULT
}

/// The stored form of an attribute's value. `EINVAL`.
pub(super) fn to_disk(value: &[u8]) -> Result<Vec<u8>> {
    let list = Acl::parse(value)?.ok_or(Errno::EINVAL)?;
    let mut stored = VERSION.to_le_bytes().to_vec();
    for entry in list.entries() {
        stored.extend_from_slice(&(entry.tag as u16).to_le_bytes());
        stored.extend_from_slice(&entry.bits.to_le_bytes());
        if entry.tag.names() {
            stored.extend_from_slice(&entry.id.to_le_bytes());
        }
    }
    Ok(stored)
}

/// The attribute's value of a stored form. `EIO`.
pub(super) fn from_disk(stored: &[u8]) -> Result<Vec<u8>> {
    let (version, mut rest) = stored.split_at_checked(4).ok_or(Errno::EIO)?;
    if version != VERSION.to_le_bytes() {
        return Err(Errno::EIO);
    }
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let half = |at: usize| Some(u16::from_le_bytes([*rest.get(at)?, *rest.get(at + 1)?]));
        let tag = half(0).and_then(Tag::from_number).ok_or(Errno::EIO)?;
        let len = if tag.names() { LONG } else { SHORT };
        let (entry, later) = rest.split_at_checked(len).ok_or(Errno::EIO)?;
        let id = entry.get(SHORT..LONG).and_then(|id| id.try_into().ok()).map_or(u32::MAX, u32::from_le_bytes);
        entries.push(Entry { tag, bits: half(2).ok_or(Errno::EIO)?, id });
        rest = later;
    }
    Ok(Acl::from_entries(entries).value())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let entry = |tag, bits, id| Entry { tag, bits, id };
        let list = Acl::from_entries(alloc::vec![
            entry(Tag::Owner, 7, u32::MAX),
            entry(Tag::User, 5, 1000),
            entry(Tag::OwningGroup, 4, u32::MAX),
            entry(Tag::Mask, 5, u32::MAX),
            entry(Tag::Other, 0, u32::MAX),
        ]);
        let stored = to_disk(&list.value()).expect("right");
        assert_eq!(stored.len(), 4 + 4 * SHORT + LONG);
        assert_eq!(from_disk(&stored), Ok(list.value()));
        for len in 0..stored.len() {
            let cut = from_disk(&stored[..len]);
            assert!(cut.is_err() || len == 4 || cut.is_ok_and(|value| value.len() < list.value().len()));
        }
    }
}
