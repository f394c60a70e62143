//! Events as they wait, and as the reader gets them: `struct fanotify_event_metadata` and the records behind it.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::Result;

use super::GroupFlags;
use super::question::Question;
use crate::notify::{self, Happening};
use crate::vfs::handle;
use crate::{Fd, Inode, Path};

/// Bytes of `struct fanotify_event_metadata`.
pub(super) const HEADER: usize = 24;
/// Bytes of a record with a process's descriptor.
pub(super) const PIDFD_LEN: usize = 8;
/// FAN_NOFD, FAN_NOPIDFD.
pub(super) const NO_FD: Fd = -1;

/// FANOTIFY_METADATA_VERSION.
const VERSION: u8 = 3;
/// FAN_EVENT_INFO_TYPE_*.
const INFO_FID: u8 = 1;
const INFO_DFID_NAME: u8 = 2;
const INFO_DFID: u8 = 3;
const INFO_PIDFD: u8 = 4;
const INFO_OLD_DFID_NAME: u8 = 10;
const INFO_NEW_DFID_NAME: u8 = 12;

/// The files that an event tells handles of.
pub(super) struct Files {
    object: Option<Arc<Inode>>,
    /// The directory and the name in it, which is empty where no names are told.
    parent: Option<(Arc<Inode>, Vec<u8>)>,
    /// The directory and the name that a rename led to.
    moved: Option<(Arc<Inode>, Vec<u8>)>,
}

impl Files {
    /// What a group with these flags is told; of the ends of a rename, the old and the new, those that it watches.
    pub(super) fn of(what: &Happening, flags: GroupFlags, (old, new): (bool, bool)) -> Files {
        let dirs = flags.contains(GroupFlags::REPORT_DIR_FID);
        let named = flags.contains(GroupFlags::REPORT_NAME);
        let name = |name: &[u8]| if named { name.to_vec() } else { Vec::new() };
        let of_dir = what.object.filter(|object| object.is_dir() && !what.of_entry);
        let parent = match (dirs, of_dir) {
            (true, Some(dir)) => Some((dir.clone(), name(b"."))),
            (true, None) => what.parent.map(|(dir, in_it)| (dir.clone(), name(in_it))),
            (false, _) => None,
        };
        // Entries are told by their directory; without FAN_REPORT_DIR_FID that is the object.
        let object = match (what.of_entry, dirs) {
            (true, true) => what.object.filter(|_| flags.contains(GroupFlags::REPORT_TARGET_FID)).cloned(),
            (true, false) => what.parent.map(|(dir, _)| dir.clone()),
            (false, true) if !flags.contains(GroupFlags::REPORT_FID) || of_dir.is_some() => None,
            (false, _) => what.object.cloned(),
        };
        let renamed = what.mask & notify::event::RENAME != 0;
        let moved = what.moved.filter(|_| new).map(|(dir, in_it)| (dir.clone(), name(in_it)));
        Files { object, parent: parent.filter(|_| old || !renamed), moved }
    }

    fn same(&self, other: &Files) -> bool {
        let same = |one: &Option<Arc<Inode>>, other: &Option<Arc<Inode>>| match (one, other) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        let entry = |one: &Option<(Arc<Inode>, Vec<u8>)>, other: &Option<(Arc<Inode>, Vec<u8>)>| match (one, other) {
            (Some((dir, name)), Some((other_dir, other_name))) => Arc::ptr_eq(dir, other_dir) && name == other_name,
            (one, other) => one.is_none() && other.is_none(),
        };
        entry(&self.parent, &other.parent) && entry(&self.moved, &other.moved) && same(&self.object, &other.object)
    }
}

/// What an event is about.
pub(super) enum About {
    /// Nothing: events were lost.
    Nothing,
    /// A file to be opened.
    Path(Path),
    /// Files to tell handles of.
    Files(Files),
}

/// An event that waits.
pub(super) struct Event {
    pub(super) mask: u32,
    pub(super) pid: i32,
    pub(super) about: About,
    /// Somebody waits for the answer.
    pub(super) question: Option<Arc<Question>>,
}

impl Event {
    /// That events were lost.
    pub(super) fn overflow() -> Event {
        Event { mask: super::mask::Q_OVERFLOW, pid: 0, about: About::Nothing, question: None }
    }

    /// Can the other be told with this one? Where handles are told, directories and files stay apart, and renames from all else.
    pub(super) fn merges(&self, other: &Event) -> bool {
        let apart = super::mask::ONDIR | notify::event::RENAME;
        let about = match (&self.about, &other.about) {
            (About::Path(one), About::Path(other)) => one == other,
            (About::Files(one), About::Files(two)) => one.same(two) && self.mask & apart == other.mask & apart,
            _ => false,
        };
        about && self.pid == other.pid && self.question.is_none() && other.question.is_none()
    }
}

/// The head of an event of `len` bytes in all.
pub(super) fn header(event: &Event, len: usize, fd: Fd) -> Vec<u8> {
    let mut bytes = (len as u32).to_ne_bytes().to_vec();
    bytes.extend_from_slice(&[VERSION, 0]);
    bytes.extend_from_slice(&(HEADER as u16).to_ne_bytes());
    bytes.extend_from_slice(&u64::from(event.mask).to_ne_bytes());
    bytes.extend_from_slice(&fd.to_ne_bytes());
    bytes.extend_from_slice(&event.pid.to_ne_bytes());
    bytes
}

/// The records with handles.
pub(super) fn details(event: &Event, flags: GroupFlags) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let About::Files(files) = &event.about else { return Ok(bytes) };
    if let Some((dir, name)) = &files.parent {
        let named = flags.contains(GroupFlags::REPORT_NAME);
        let kind = match named {
            true if event.mask & notify::event::RENAME != 0 => INFO_OLD_DFID_NAME,
            true => INFO_DFID_NAME,
            false => INFO_DFID,
        };
        put_file(&mut bytes, kind, dir, named.then_some(name.as_slice()))?;
    }
    if let Some((dir, name)) = &files.moved {
        put_file(&mut bytes, INFO_NEW_DFID_NAME, dir, Some(name))?;
    }
    if let Some(object) = &files.object {
        put_file(&mut bytes, INFO_FID, object, None)?;
    }
    Ok(bytes)
}

/// `struct fanotify_event_info_fid`, a name behind it.
fn put_file(out: &mut Vec<u8>, kind: u8, inode: &Inode, name: Option<&[u8]>) -> Result<()> {
    let handle = handle::encode(inode)?;
    let name = name.map_or(Vec::new(), |name| [name, b"\0"].concat());
    let len = (20 + handle.bytes.len() + name.len()).next_multiple_of(4);
    let end = out.len() + len;
    out.extend_from_slice(&[kind, 0]);
    out.extend_from_slice(&(len as u16).to_ne_bytes());
    // The file system's number, as statfs(2) gives it.
    out.extend_from_slice(&(inode.superblock().device.encode() as u32).to_ne_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(handle.bytes.len() as u32).to_ne_bytes());
    out.extend_from_slice(&handle.kind.to_ne_bytes());
    out.extend_from_slice(&handle.bytes);
    out.extend_from_slice(&name);
    out.resize(end, 0);
    Ok(())
}

/// `struct fanotify_event_info_pidfd`.
pub(super) fn put_pidfd(out: &mut Vec<u8>, fd: Fd) {
    out.extend_from_slice(&[INFO_PIDFD, 0]);
    out.extend_from_slice(&(PIDFD_LEN as u16).to_ne_bytes());
    out.extend_from_slice(&fd.to_ne_bytes());
}
