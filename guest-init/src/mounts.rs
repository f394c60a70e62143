//! The file systems and links that every Linux program expects.

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use std::ffi::CStr;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, symlink};

struct Mount {
    kind: &'static str,
    at: &'static str,
    mode: u32,
    flags: MountFlags,
    data: Option<&'static CStr>,
}

const PLAIN: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

const MOUNTS: [Mount; 6] = [
    Mount { kind: "proc", at: "/proc", mode: 0o555, flags: PLAIN, data: None },
    Mount { kind: "sysfs", at: "/sys", mode: 0o555, flags: PLAIN, data: None },
    Mount { kind: "devtmpfs", at: "/dev", mode: 0o755, flags: MountFlags::NOSUID, data: Some(c"mode=0755") },
    Mount {
        kind: "devpts",
        at: "/dev/pts",
        mode: 0o755,
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        data: Some(c"gid=5,mode=620,ptmxmode=666"),
    },
    Mount {
        kind: "tmpfs",
        at: "/dev/shm",
        mode: 0o1777,
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        data: Some(c"mode=1777"),
    },
    Mount {
        kind: "tmpfs",
        at: "/run",
        mode: 0o755,
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        data: Some(c"mode=0755"),
    },
];

/// The file system that shows folders of the host.
pub(crate) const NINEP: &str = "9p";

/// Where they are, to be moved to another root.
pub(crate) const PLACES: &[&str] = &["/proc", "/sys", "/dev", "/run"];

const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

/// Mounts what is not mounted yet. A kernel without one of them is no reason to give up.
pub(crate) fn set_up() {
    for entry in &MOUNTS {
        make_folder(entry.at, entry.mode);
        match mount(entry.kind, entry.at, entry.kind, entry.flags, entry.data) {
            // BUSY: the kernel mounted it itself.
            Ok(()) | Err(Errno::BUSY) => {}
            Err(error) => eprintln!("quintet init: {} on {}: {error}", entry.kind, entry.at),
        }
    }
    make_folder("/tmp", 0o1777);
    for (target, link) in LINKS {
        // Present already on a devtmpfs that the kernel filled.
        let _ = symlink(target, link);
    }
}

pub(crate) fn make_folder(path: &str, mode: u32) {
    if fs::symlink_metadata(path).is_ok() {
        return;
    }
    // The mode is given twice because mkdir(2) subtracts the umask.
    let made = DirBuilder::new().mode(mode).create(path);
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
    if let Err(error) = made.and_then(|()| fs::set_permissions(path, permissions)) {
        eprintln!("quintet init: {path}: {error}");
    }
}
