//! `map_files/`: a link to the file behind each mapping, by its addresses.

use alloc::format;
use alloc::vec::Vec;

use base::{Capability, Errno, Result};
use fs::procfs::{Listed, Node, ProcDir, ProcLink};
use fs::{FileKind, FsContext, LinkTarget, MappedFile};
use mm::{Backing, MappingInfo};

use super::Subject;
use crate::{inspect, try_current};

/// The file behind a mapping. Shared memory that nobody named has none to open.
fn file(mapping: &MappingInfo) -> Option<&MappedFile> {
    match &mapping.backing {
        Backing::File { file, .. } => file.as_any().downcast_ref(),
        Backing::Anonymous => None,
    }
}

/// The addresses that a name stands for: hexadecimal without leading zeros.
fn addresses(name: &[u8]) -> Option<(usize, usize)> {
    let number = |text: &str| {
        let canonical = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            && (text == "0" || !text.starts_with('0'));
        usize::from_str_radix(text, 16).ok().filter(|_| canonical)
    };
    let (start, end) = core::str::from_utf8(name).ok()?.split_once('-')?;
    Some((number(start)?, number(end)?))
}

/// Calls `f` on the mappings of files from `from` on, until it gives false. `EACCES` for who may not look.
fn for_each(subject: &Subject, from: usize, mut f: impl FnMut(&MappingInfo) -> bool) -> Result<()> {
    inspect::check_current(&subject.task)?;
    if let Some(space) = subject.process().address_space() {
        space.for_each_mapping(from, |mapping| mapping.start < from || file(mapping).is_none() || f(mapping));
    }
    Ok(())
}

struct Link {
    subject: Subject,
    start: usize,
    end: usize,
}

impl Link {
    fn path(&self) -> Result<fs::Path> {
        let mut path = None;
        for_each(&self.subject, self.start, |mapping| {
            if (mapping.start, mapping.end) == (self.start, self.end) {
                path = file(mapping).map(|file| file.open_file().path().clone());
            }
            false
        })?;
        path.ok_or(Errno::ENOENT)
    }
}

impl ProcLink for Link {
    /// It leads to files that no path may lead to, so only an administrator may follow it: `EPERM`.
    fn target(&self, _cx: &FsContext) -> Result<LinkTarget> {
        let may = |capability| try_current().is_none_or(|task| task.cred().capable(capability));
        if !may(Capability::SysAdmin) && !may(Capability::CheckpointRestore) {
            return Err(Errno::EPERM);
        }
        self.path().map(LinkTarget::File)
    }

    fn text(&self, cx: &FsContext) -> Result<Vec<u8>> {
        Ok(self.path()?.name_for_display(&cx.root))
    }
}

struct MapFiles(Subject);

impl ProcDir for MapFiles {
    fn lookup(&self, name: &[u8]) -> Option<Node> {
        let (start, end) = addresses(name)?;
        let mut mode = None;
        let look = for_each(&self.0, start, |mapping| {
            if (mapping.start, mapping.end) == (start, end) {
                let writes = mapping.shared && file(mapping).is_some_and(mm::Mappable::may_write);
                mode = Some(if writes { 0o700 } else { 0o500 });
            }
            false
        });
        look.ok()?;
        let link = Link { subject: self.0.clone(), start, end };
        Some(super::own(&self.0, Node::link_of(link)).mode(mode?))
    }

    fn list(&self, position: u64, emit: &mut dyn FnMut(&Listed) -> bool) -> u64 {
        let mut next = position;
        // Who may not look sees an empty directory.
        let _ = for_each(&self.0, usize::try_from(position).unwrap_or(usize::MAX), |mapping| {
            let name = format!("{:x}-{:x}", mapping.start, mapping.end);
            let entry = Listed { name: name.as_bytes(), kind: FileKind::Symlink, next: mapping.start as u64 + 1 };
            let more = emit(&entry);
            if more {
                next = entry.next;
            }
            more
        });
        next
    }
}

/// The directory.
pub(super) fn directory(subject: &Subject) -> Node {
    Node::dir_of(MapFiles(subject.clone())).mode(0o500)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_addresses_without_decoration() {
        assert_eq!(addresses(b"400000-401000"), Some((0x40_0000, 0x40_1000)));
        assert_eq!(addresses(b"0-1000"), Some((0, 0x1000)));
        for name in [b"0400000-401000".as_slice(), b"400000", b"-", b"400000-", b"+1-2", b"4A-5", b"1-2-3", b" 1-2"] {
            assert_eq!(addresses(name), None, "{}", name.escape_ascii());
        }
    }
}
