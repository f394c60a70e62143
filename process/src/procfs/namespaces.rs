//! `ns/`: the namespaces of a process.

use fs::procfs::{Listed, Node, ProcDir, link};
use fs::{FileKind, LinkTarget};

use super::Subject;
use crate::inspect;
use crate::namespace::{self, ONLY};

/// The directory.
pub(super) struct Namespaces(pub(super) Subject);

/// The names, in their order.
fn names() -> impl Iterator<Item = &'static str> {
    let split = ONLY.iter().position(|kind| kind.name > "mnt").unwrap_or(ONLY.len());
    let name = |kind: &'static namespace::Only| kind.name;
    ONLY[..split].iter().map(name).chain(["mnt"]).chain(ONLY[split..].iter().map(name))
}

impl ProcDir for Namespaces {
    fn lookup(&self, name: &[u8]) -> Option<Node> {
        let name = names().find(|known| known.as_bytes() == name)?;
        let subject = self.0.clone();
        let (uid, gid) = subject.owner();
        let node = link(move |_| {
            inspect::check_current(&subject.task).map_err(|_| base::Errno::EACCES)?;
            namespace::file_of(&subject.task, name.as_bytes()).map(LinkTarget::File)
        });
        Some(node.owner(uid, gid))
    }

    fn list(&self, position: u64, emit: &mut dyn FnMut(&Listed) -> bool) -> u64 {
        let mut next = position;
        for (at, name) in names().enumerate().skip(usize::try_from(position).unwrap_or(usize::MAX)) {
            let entry = Listed { name: name.as_bytes(), kind: FileKind::Symlink, next: at as u64 + 1 };
            if !emit(&entry) {
                break;
            }
            next = entry.next;
        }
        next
    }
}
