//! The small root: Debian's busybox with a link for each of its programs.

use super::{Output, package};
use crate::cpio::{Entry, kind};
use crate::failure::{Context, Failure};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// Names this recipe; change it when the recipe changes.
pub(super) const RECIPE: &str = "busybox-static 1";

const FOLDERS: [(&str, u32); 28] = [
    (".", 0o755),
    ("bin", 0o755),
    ("boot", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("lib", 0o755),
    ("lib64", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sbin", 0o755),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/sbin", 0o755),
    ("usr/lib", 0o755),
    ("usr/share", 0o755),
    ("usr/local", 0o755),
    ("usr/local/bin", 0o755),
    ("usr/local/sbin", 0o755),
    ("var", 0o755),
    ("var/tmp", 0o1777),
];

const FILES: [(&str, &str); 7] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"),
    ("etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
    ("etc/shadow", "root:*:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n"),
    ("etc/hostname", "quintet\n"),
    ("etc/hosts", "127.0.0.1 localhost\n127.0.1.1 quintet\n::1 localhost ip6-localhost\n"),
    ("etc/shells", "/bin/sh\n"),
    ("etc/profile", "export PS1='\\u@\\h:\\w\\$ '\n"),
];

/// Writes the root.
pub(super) fn write(archive: &mut Output) -> Result<(), Failure> {
    eprintln!("quintet: making the builtin root from Debian's busybox-static (once)");
    let mut busybox = None;
    package::unpack("busybox-static", |path, data| {
        if path == "bin/busybox" || path == "usr/bin/busybox" {
            busybox = Some(data()?);
        }
        Ok(())
    })?;
    let busybox = busybox.ok_or_else(|| Failure::new("busybox-static has no bin/busybox"))?;
    let applets = applets(&busybox)?;
    write_tree(archive, &busybox, &applets).or_fail(|| "cannot write the builtin root".into())
}

/// The paths of the programs in busybox, which it lists itself.
fn applets(busybox: &[u8]) -> Result<Vec<String>, Failure> {
    let what = || "cannot run busybox".to_owned();
    let folder = tempfile::tempdir().or_fail(what)?;
    let path = folder.path().join("busybox");
    fs::write(&path, busybox).or_fail(what)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).or_fail(what)?;
    let listed = Command::new(&path).arg("--list-full").output().or_fail(what)?;
    Ok(String::from_utf8_lossy(&listed.stdout)
        .lines()
        .filter(|path| *path != "bin/busybox" && path.contains('/'))
        .map(str::to_owned)
        .collect())
}

fn write_tree(archive: &mut Output, busybox: &[u8], applets: &[String]) -> std::io::Result<()> {
    for (name, mode) in FOLDERS {
        let entry = entry(archive, kind::FOLDER | mode);
        archive.node(name.as_bytes(), entry)?;
    }
    for (name, text) in FILES {
        let mode = if name == "etc/shadow" { 0o640 } else { 0o644 };
        let entry = entry(archive, kind::FILE | mode);
        archive.file(name.as_bytes(), entry, text.len() as u64, &mut text.as_bytes())?;
    }
    let program = entry(archive, kind::FILE | 0o755);
    archive.file(b"bin/busybox", program, busybox.len() as u64, &mut &*busybox)?;
    for path in applets {
        let link = entry(archive, kind::LINK | 0o777);
        archive.link(path.as_bytes(), link, b"/bin/busybox")?;
    }
    Ok(())
}

fn entry(archive: &mut Output, mode: u32) -> Entry {
    Entry { inode: archive.next_inode(), mode, links: 1, ..Entry::default() }
}
