//! `fd/` and `fdinfo/`.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};
use fs::procfs::{Listed, Node, ProcDir, file, link};
use fs::{Access, Fd, FileKind, LinkTarget, OpenFile};

use super::{Subject, list_numbers, number};
use crate::inspect;

fn open_file(subject: &Subject, fd: Fd) -> Result<Arc<OpenFile>> {
    inspect::check_current(&subject.task)?;
    let files = subject.task.files_if_alive().ok_or(Errno::ENOENT)?;
    files.get_any(fd).map_err(|_| Errno::ENOENT)
}

fn numbers(subject: &Subject) -> Vec<Fd> {
    if inspect::check_current(&subject.task).is_err() {
        return Vec::new();
    }
    subject.task.files_if_alive().map_or_else(Vec::new, |files| files.numbers())
}

struct Links(Subject);

impl ProcDir for Links {
    fn lookup(&self, name: &[u8]) -> Option<Node> {
        let fd = number(name)?;
        let open = open_file(&self.0, fd).ok()?;
        // The owner's bits show what the descriptor is open for.
        let mut mode = 0o100;
        if open.access().contains(Access::READ) {
            mode |= 0o400;
        }
        if open.access().contains(Access::WRITE) {
            mode |= 0o200;
        }
        let subject = self.0.clone();
        let node = link(move |_| open_file(&subject, fd).map(|open| LinkTarget::File(open.path().clone())));
        Some(super::own(&self.0, node).mode(mode))
    }

    fn list(&self, position: u64, emit: &mut dyn FnMut(&Listed) -> bool) -> u64 {
        list_numbers(&numbers(&self.0), FileKind::Symlink, position, emit)
    }
}

/// The directory `fd/`.
pub(super) fn links(subject: &Subject) -> Node {
    Node::dir_of(Links(subject.clone()))
}

struct Infos(Subject);

fn info(subject: &Subject, fd: Fd) -> Result<Vec<u8>> {
    const CLOEXEC: u32 = 0o2000000;
    inspect::check_current(&subject.task)?;
    let files = subject.task.files_if_alive().ok_or(Errno::ENOENT)?;
    let descriptor = files.descriptor(fd).map_err(|_| Errno::ENOENT)?;
    let open = &descriptor.open;
    let flags = open.flags().bits() | if descriptor.close_on_exec { CLOEXEC } else { 0 };
    let (mount, inode) = (open.path().mount.id, open.inode().number());
    let mut text =
        format!("pos:\t{}\nflags:\t0{flags:o}\nmnt_id:\t{mount}\nino:\t{inode}\n", open.position()).into_bytes();
    text.extend_from_slice(&fs::lock::of_open_file(open.inode(), open.id(), files.id()));
    text.extend_from_slice(&open.file().fdinfo());
    Ok(text)
}

impl ProcDir for Infos {
    fn lookup(&self, name: &[u8]) -> Option<Node> {
        let fd = number(name)?;
        open_file(&self.0, fd).ok()?;
        let subject = self.0.clone();
        Some(super::own(&self.0, file(move || info(&subject, fd))))
    }

    fn list(&self, position: u64, emit: &mut dyn FnMut(&Listed) -> bool) -> u64 {
        list_numbers(&numbers(&self.0), FileKind::Regular, position, emit)
    }
}

/// The directory `fdinfo/`.
pub(super) fn infos(subject: &Subject) -> Node {
    Node::dir_of(Infos(subject.clone()))
}
