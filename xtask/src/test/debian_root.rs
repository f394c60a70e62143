//! The Debian root on its disk: packages are installed into it, and Debian's tools, e2fsck and Linux find it in order.

use super::disk::tool;
use super::{Selection, Tally};
use crate::build;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const NAME: &str = "Debian root: a package is installed, and Linux finds it in order";
const ROOT: &str = "debian,debsums";
/// A package with two thousand files that needs no other.
const PACKAGE: &str = "vim-runtime";

/// What the root leaves out when it is made is missing, and that is all that dpkg and debsums may say.
const LOOK: &str = "
    { dpkg --verify; debsums -s 2>&1; } | grep -vE '/usr/share/(doc|man|info|locale)/'
    dpkg-query -W -f '${db:Status-Status}\\n' vim-runtime; find /usr/share/vim -type f | wc -l";

pub(super) fn run(selection: &Selection) -> Result<Tally, String> {
    let mut tally = Tally::default();
    if selection.quick || !selection.takes(NAME) {
        tally.skipped += usize::from(selection.quick);
        return Ok(tally);
    }
    let folder = env::temp_dir().join(format!("quintet-debian-{}", std::process::id()));
    fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    tally.note(NAME, &install(&folder));
    let _ = fs::remove_dir_all(&folder);
    Ok(tally)
}

fn install(folder: &Path) -> Result<(), String> {
    check_copy(folder)?;
    let image = folder.join("root.ext4");
    let copied = Command::new("cp").args(["--sparse=always", "--reflink=auto"]).arg(cached()?).arg(&image).status();
    if !copied.is_ok_and(|status| status.success()) {
        return Err("cannot copy the root's image".into());
    }
    let fetched = Command::new("apt-get").args(["download", "-q", PACKAGE]).current_dir(folder).output();
    if !fetched.is_ok_and(|output| output.status.success()) {
        return Err(format!("cannot fetch the package {PACKAGE}"));
    }
    let (root, repository) = (text(&image)?, format!("{}:/mnt:ro", text(folder)?));
    let script = format!("apt-get install -qy /mnt/*.deb >/tmp/log 2>&1 || cat /tmp/log; {LOOK}");
    let here = guest(&["--root", root, "--keep", "-v", &repository], &script)?;
    let count: Option<u32> = here.strip_prefix("installed\n").and_then(|count| count.trim().parse().ok());
    if count.is_none_or(|count| count < 1000) {
        return Err(format!("in Quintet: {here:?}"));
    }
    tool("e2fsck", &["-fn"], &image)?;
    let there = guest(&["--root", root, "--kernel", "linux"], LOOK)?;
    if there == here { Ok(()) } else { Err(format!("in Quintet: {here:?}, in Linux: {there:?}")) }
}

/// `--copy` of a folder: what is below it comes along, on the disk as in memory.
fn check_copy(folder: &Path) -> Result<(), String> {
    let copied = folder.join("copied");
    let made = fs::create_dir_all(copied.join("deep"))
        .and_then(|()| fs::write(copied.join("deep/file"), "hello\n"))
        .and_then(|()| std::os::unix::fs::symlink("deep/file", copied.join("link")));
    made.map_err(|error| format!("cannot make {}: {error}", copied.display()))?;
    let said = guest(&["--root", ROOT, "--copy", &format!("{}:/srv/copied", text(&copied)?)], "cat /srv/copied/link")?;
    if said == "hello\n" { Ok(()) } else { Err(format!("of a copied folder: {said:?}")) }
}

fn text(path: &Path) -> Result<&str, String> {
    path.to_str().ok_or_else(|| format!("{} is not UTF-8", path.display()))
}

/// The image of [`ROOT`] in quintet's cache.
fn cached() -> Result<PathBuf, String> {
    let base =
        env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| env::home_dir().map(|home| home.join(".cache")));
    let folder = base.ok_or("there is no place for the cache")?.join("quintet");
    let names = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut images: Vec<PathBuf> = names.flatten().map(|entry| entry.path()).collect();
    images.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&format!("{ROOT}-")) && name.ends_with(".ext4")
    });
    // Of several the one made last.
    images.sort_by_key(|path| fs::metadata(path).and_then(|metadata| metadata.created()).ok());
    images.pop().ok_or_else(|| format!("there is no image of {ROOT} in {}", folder.display()))
}

/// What a shell script says in a guest.
fn guest(options: &[&str], script: &str) -> Result<String, String> {
    let output = Command::new(build::quintet())
        .args(["run", "--timeout", "600", "--cpus", "2"])
        .args(options)
        .args(["--", "sh", "-c", script])
        .output()
        .map_err(|error| format!("cannot start quintet: {error}"))?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(stdout.into_owned()) } else { Err(format!("{}: {stdout}{stderr}", output.status)) }
}
