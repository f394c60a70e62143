//! `/proc/PID/mounts`, `mountinfo` and `mountstats`.

use alloc::format;
use alloc::vec::Vec;

use crate::Path;
use crate::vfs::mount;

/// Appends a name with the characters that separate fields written in octal.
fn escaped(out: &mut Vec<u8>, name: &[u8]) {
    for &byte in name {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => out.extend_from_slice(format!("\\{byte:03o}").as_bytes()),
            _ => out.push(byte),
        }
    }
}

/// The attached mounts with the names of their places, as seen from `root`.
fn places(root: &Path) -> Vec<(alloc::sync::Arc<crate::Mount>, Vec<u8>)> {
    let mut list = Vec::new();
    for mount in mount::list() {
        let path = Path { dentry: mount.root.clone(), mount: mount.clone() };
        // What lies outside of a chroot is not shown.
        if let Ok(name) = path.name_for_cwd(root)
            && name.starts_with(b"/")
        {
            list.push((mount, name));
        }
    }
    list
}

/// `/proc/PID/mounts` for a process with that root.
pub fn mounts(root: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    for (mount, name) in places(root) {
        escaped(&mut out, &mount.source);
        out.push(b' ');
        escaped(&mut out, &name);
        out.push(b' ');
        out.extend_from_slice(mount.superblock.kind.as_bytes());
        out.push(b' ');
        out.extend_from_slice(&mount.flags().options());
        out.extend_from_slice(&mount.superblock.ops.show_options());
        out.extend_from_slice(b" 0 0\n");
    }
    out
}

/// `/proc/PID/mountinfo` for a process with that root.
pub fn mountinfo(root: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    for (mount, name) in places(root) {
        let parent = mount.place().map_or(1, |place| place.mount.id);
        let device = mount.superblock.device;
        out.extend_from_slice(format!("{} {parent} {}:{} ", mount.id, device.major, device.minor).as_bytes());
        let shown = Path { dentry: mount.root.clone(), mount: mount.clone() }.name_in_mount();
        escaped(&mut out, &shown);
        out.push(b' ');
        escaped(&mut out, &name);
        out.push(b' ');
        out.extend_from_slice(&mount.flags().options());
        out.extend_from_slice(format!(" - {} ", mount.superblock.kind).as_bytes());
        escaped(&mut out, &mount.source);
        out.extend_from_slice(b" rw");
        out.extend_from_slice(&mount.superblock.ops.show_options());
        out.push(b'\n');
    }
    out
}

/// `/proc/PID/mountstats` for a process with that root.
pub fn mountstats(root: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    for (mount, name) in places(root) {
        out.extend_from_slice(b"device ");
        escaped(&mut out, &mount.source);
        out.extend_from_slice(b" mounted on ");
        escaped(&mut out, &name);
        out.extend_from_slice(format!(" with fstype {}\n", mount.superblock.kind).as_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_are_escaped() {
        let mut out = Vec::new();
        escaped(&mut out, b"a b\\c");
        assert_eq!(out, b"a\\040b\\134c");
    }
}
