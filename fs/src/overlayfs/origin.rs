//! What a file in the upper layer was copied from, as its attribute `origin` says: a file handle in overlayfs's format.

use alloc::vec::Vec;

use super::Overlay;
use crate::Inode;

const MAGIC: u8 = 0xfb;
/// The handle reads the same on machines of either byte order? No: of this one.
const FLAGS: u8 = 0;
/// The kind of a handle that holds an inode number and a generation (FILEID_INO32_GEN); ours are 64 bits wide.
const KIND: u8 = 0x81;

/// The attribute's value for a copy of `lower`.
fn encode(lower: &Inode) -> Vec<u8> {
    let mut handle = alloc::vec![0, MAGIC, 0, FLAGS, KIND];
    handle.extend_from_slice(&lower.superblock().fsid.to_le_bytes());
    handle.extend_from_slice(&[0; 8]);
    handle.extend_from_slice(&lower.number().to_le_bytes());
    handle[2] = handle.len() as u8;
    handle
}

impl Overlay {
    /// Notes what `upper` was copied from; where the upper layer has no attributes, it goes unnoted.
    pub(super) fn set_origin(&self, upper: &Inode, lower: &Inode) {
        let _ = self.set_own(upper, b"origin", &encode(lower));
    }

    /// Was `upper` copied from `lower`?
    pub(super) fn is_origin(&self, upper: &Inode, lower: &Inode) -> bool {
        upper.kind() == lower.kind() && self.own(upper, b"origin").is_some_and(|value| value == encode(lower))
    }
}
