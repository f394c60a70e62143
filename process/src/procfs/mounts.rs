//! `mounts`, `mountinfo` and `mountstats`: what is mounted, as seen from the root of the process.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};
use fs::procfs::ProcFile;
use fs::vfs::mount;
use fs::{Mount, MountFlags, Path, SuperFlags};
use sched::WaitQueue;

use super::Subject;

/// A line for a mount: it, the name of its place, and its root within the file system.
type Line = fn(&Arc<Mount>, &[u8]) -> Vec<u8>;

/// One of the files: what it is about, and how it shows a mount. poll(2) tells when something was mounted or unmounted.
pub(super) struct Listing(pub(super) Subject, pub(super) Line);

impl ProcFile for Listing {
    fn read(&self) -> Result<Vec<u8>> {
        self.0.check_alive()?;
        let place = self.0.place().map_err(|_| Errno::EINVAL)?;
        let root = place.root();
        let mut text = Vec::new();
        for mount in place.namespace().list() {
            let top = Path { mount: mount.clone(), dentry: mount.root.clone() };
            // What the process cannot reach is not shown.
            if let Some(name) = top.name_for_cwd(&root).ok().filter(|name| name.starts_with(b"/")) {
                text.extend_from_slice(&self.1(&mount, &escape(&name)));
            }
        }
        Ok(text)
    }

    fn news(&self) -> Option<(Arc<WaitQueue>, u64)> {
        let namespace = self.0.place().ok()?.namespace();
        Some((namespace.queue().clone(), namespace.changes()))
    }
}

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

fn source(mount: &Mount) -> Vec<u8> {
    if mount.source.is_empty() { b"none".to_vec() } else { escape(&mount.source) }
}

fn access(read_only: bool) -> &'static [u8] {
    if read_only { b"ro" } else { b"rw" }
}

pub(super) fn mounts(mount: &Arc<Mount>, place: &[u8]) -> Vec<u8> {
    let superblock = &mount.superblock;
    let fields = [&source(mount), b" ".as_slice(), place, b" ", superblock.kind.as_bytes(), b" "].concat();
    let of_super = superblock.flags().options();
    let own = superblock.ops.show_options();
    [&fields, access(mount.is_read_only()), &of_super, &mount.flags().options(), &own, b" 0 0\n"].concat()
}

pub(super) fn mountinfo(mount: &Arc<Mount>, place: &[u8]) -> Vec<u8> {
    let superblock = &mount.superblock;
    let parent = mount.place().map_or(mount.id, |place| place.mount.id);
    let device = superblock.device;
    let head = format!("{} {parent} {}:{} ", mount.id, device.major, device.minor);
    let top = Path { mount: mount.clone(), dentry: mount.root.clone() };
    let flags = mount.flags();
    let own = [access(flags.contains(MountFlags::RDONLY)), &flags.options()].concat();
    let place = [head.as_bytes(), &escape(&top.name_in_mount()), b" ", place, b" ", &own, &propagation(mount)].concat();
    let of_super = superblock.flags();
    let rights = [access(of_super.contains(SuperFlags::RDONLY)), &of_super.options()].concat();
    let kind = superblock.kind.as_bytes();
    let tail = [b" - ", kind, b" ", &source(mount), b" ", &rights, &superblock.ops.show_options(), b"\n"].concat();
    [place, tail].concat()
}

/// The optional fields of `mountinfo`, each with a blank in front.
fn propagation(mount: &Arc<Mount>) -> Vec<u8> {
    let mut text = Vec::new();
    let (group, master) = mount.propagation();
    if group != 0 {
        text.extend_from_slice(format!(" shared:{group}").as_bytes());
    }
    if master != 0 {
        text.extend_from_slice(format!(" master:{master}").as_bytes());
        if let Some(from) = mount::dominating(mount) {
            text.extend_from_slice(format!(" propagate_from:{from}").as_bytes());
        }
    }
    if mount.is_unbindable() {
        text.extend_from_slice(b" unbindable");
    }
    text
}

pub(super) fn mountstats(mount: &Arc<Mount>, place: &[u8]) -> Vec<u8> {
    let kind = mount.superblock.kind.as_bytes();
    [b"device ", source(mount).as_slice(), b" mounted on ", place, b" with fstype ", kind, b"\n"].concat()
}
