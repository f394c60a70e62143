//! `mounts`, `mountinfo` and `mountstats`: what is mounted, as seen from the root of the process.

use alloc::format;
use alloc::vec::Vec;

use base::Result;
use fs::vfs::mount;
use fs::{Mount, Path};

use super::Subject;

/// Blanks and backslashes in octal, so that fields stay apart.
fn escape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for &byte in text {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' | b'#' => out.extend_from_slice(format!("\\{byte:03o}").as_bytes()),
            byte => out.push(byte),
        }
    }
    out
}

/// The place where it is mounted, from `root`.
fn point(mount: &alloc::sync::Arc<Mount>, root: &Path) -> Vec<u8> {
    let path = Path { mount: mount.clone(), dentry: mount.root.clone() };
    escape(&path.name_for_display(root))
}

fn source(mount: &Mount) -> Vec<u8> {
    if mount.source.is_empty() { b"none".to_vec() } else { escape(&mount.source) }
}

fn each(subject: &Subject, line: impl Fn(&alloc::sync::Arc<Mount>, &Path) -> Vec<u8>) -> Result<Vec<u8>> {
    let root = subject.place().map_err(|_| base::Errno::EINVAL)?.root();
    Ok(mount::list().iter().filter(|mount| !mount.is_internal()).flat_map(|mount| line(mount, &root)).collect())
}

pub(super) fn mounts(subject: &Subject) -> Result<Vec<u8>> {
    each(subject, |mount, root| {
        let own = mount.superblock.ops.show_options();
        let kind = mount.superblock.kind.as_bytes();
        let fields = [&source(mount), b" ".as_slice(), &point(mount, root), b" ", kind, b" "].concat();
        [&fields, mount.flags().options().as_slice(), &own, b" 0 0\n"].concat()
    })
}

pub(super) fn mountinfo(subject: &Subject) -> Result<Vec<u8>> {
    each(subject, |mount, root| {
        let superblock = &mount.superblock;
        let parent = mount.place().map_or(1, |place| place.mount.id);
        let device = superblock.device;
        let head = format!("{} {parent} {}:{} ", mount.id, device.major, device.minor);
        let top = Path { mount: mount.clone(), dentry: mount.root.clone() };
        let flags = mount.flags();
        let access = if flags.options().starts_with(b"ro") { b"ro".as_slice() } else { b"rw" };
        let place = [head.as_bytes(), &escape(&top.name_in_mount()), b" ", &point(mount, root), b" ", &flags.options()]
            .concat();
        let tail =
            [b" - ", superblock.kind.as_bytes(), b" ", &source(mount), b" ", access, &superblock.ops.show_options()]
                .concat();
        [place, tail, b"\n".to_vec()].concat()
    })
}

pub(super) fn mountstats(subject: &Subject) -> Result<Vec<u8>> {
    each(subject, |mount, root| {
        let kind = mount.superblock.kind.as_bytes();
        [b"device ", source(mount).as_slice(), b" mounted on ", &point(mount, root), b" with fstype ", kind, b"\n"]
            .concat()
    })
}
