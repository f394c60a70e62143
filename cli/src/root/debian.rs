//! Debian 12 with the tools that people and test-suites expect, made by mmdebstrap and kept as an ext4 image.

use super::fingerprint;
use crate::cache::Cache;
use crate::disk::Disk;
use crate::failure::{Context, Failure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Names this recipe; change it when the recipe changes.
const RECIPE: &str = "bookworm 2 with the packages below, on ext4";

/// Makes `$1/root.ext4` of `$1/root.tar`, with 4 GiB to spare. What is in `/dev` the guest makes itself, and not everyone can here.
const PACK: &str = r#"
set -e
mkdir "$1/tree"
tar -C "$1/tree" --exclude='./dev/*' --numeric-owner -xpf "$1/root.tar"
size=$(( $(du -sm "$1/tree" | cut -f1) * 5 / 4 + 4096 ))
PATH=$PATH:/usr/sbin:/sbin mke2fs -q -t ext4 -L quintet -d "$1/tree" "$1/root.ext4" "${size}M"
rm -rf "$1/tree"
"#;

const PACKAGES: [&str; 18] = [
    "bash",
    "bzip2",
    "file",
    "gcc",
    "gdb-minimal",
    "less",
    "libc6-dev",
    "libpython3.11-testsuite",
    "make",
    "ncurses-term",
    "patch",
    "perl",
    "procps",
    "psmisc",
    "python3",
    "strace",
    "util-linux",
    "xz-utils",
];

const OPTIONS: [&str; 9] = [
    "--variant=minbase",
    "--aptopt=Acquire::Languages \"none\"",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/info/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    // Packages with alternatives (Java's) want to put links there.
    "--essential-hook=for n in 1 2 3 4 5 6 7 8; do mkdir -p \"$1/usr/share/man/man$n\"; done",
    "--customize-hook=echo quintet > \"$1/etc/hostname\"",
    "--customize-hook=printf '127.0.0.1 localhost\\n127.0.1.1 quintet\\n::1 localhost\\n' > \"$1/etc/hosts\"",
];

/// Refuses what is no name of a package: it becomes part of a file's name and of a command.
fn check_names(packages: &[String]) -> Result<(), Failure> {
    let allowed = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "+-.".contains(letter);
    let good = |name: &&String| name.len() > 1 && !name.starts_with(['-', '+', '.']) && name.chars().all(allowed);
    match packages.iter().find(|name| !good(name)) {
        None => Ok(()),
        Some(name) => Err(Failure::new(format!("\"{name}\" is no name of a Debian package"))
            .advise("Write --root debian,PACKAGE,PACKAGE")),
    }
}

/// The disk with the root, with these packages besides the usual ones. `keep`: what the guest writes stays there.
pub(super) fn disk(cache: &Cache, packages: &[String], keep: bool) -> Result<Disk, Failure> {
    check_names(packages)?;
    let name = [&["debian".to_owned()], packages].concat().join(",");
    let path = cache.path(&format!("{name}-{:016x}.ext4", fingerprint(RECIPE.as_bytes())));
    if !path.exists() {
        let _lock = cache.lock(&name)?;
        if !path.exists() {
            make(cache, packages, &path)?;
        }
    }
    let image = path.to_str().ok_or_else(|| Failure::new("the name of the cache has to be UTF-8"))?.to_owned();
    Ok(Disk { image, read_only: false, snapshot: !keep })
}

fn make(cache: &Cache, packages: &[String], place: &Path) -> Result<(), Failure> {
    match packages.join(", ").as_str() {
        "" => eprintln!("quintet: making the Debian root (once, a minute or two)"),
        list => eprintln!("quintet: making a Debian root with {list} (once, a minute or two)"),
    }
    let folder = tempfile::tempdir_in(cache.folder()).or_fail(|| "cannot make a folder".into())?;
    let tar = folder.path().join("root.tar");
    let status = Command::new("mmdebstrap")
        .args(OPTIONS)
        .arg(format!("--include={}", include(packages)))
        .arg("bookworm")
        .arg(&tar)
        .stdin(Stdio::null())
        // Its progress is ours; our standard output is the program's.
        .stdout(Stdio::null())
        .status()
        .map_err(|error| {
            Failure::new("cannot run mmdebstrap")
                .because(error)
                .advise("`apt-get install mmdebstrap`, or run `cargo xtask setup`.")
        })?;
    if !status.success() {
        return Err(Failure::new("mmdebstrap could not make the Debian root").because(status).advise(
            "Its messages, above, say what failed: a mirror cannot be reached, a package does not exist or, for an \
                     ordinary user, there are no user namespaces.",
        ));
    }
    pack(folder.path())?;
    std::fs::rename(folder.path().join("root.ext4"), place).or_fail(|| format!("cannot make {}", place.display()))
}

/// Runs [`PACK`], in front of which fakeroot keeps owners in mind where we are not root.
fn pack(folder: &Path) -> Result<(), Failure> {
    let mut words: Vec<PathBuf> = ["fakeroot", "sh", "-c", PACK, "sh"].map(PathBuf::from).to_vec();
    if rustix::process::geteuid().is_root() {
        words.remove(0);
    }
    words.push(folder.to_owned());
    let advice = "`apt-get install e2fsprogs fakeroot`, or run `cargo xtask setup`.";
    let output =
        Command::new(&words[0]).args(&words[1..]).stdin(Stdio::null()).output().map_err(|error| {
            Failure::new(format!("cannot run {}", words[0].display())).because(error).advise(advice)
        })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::new("cannot make a disk image of the Debian root").because(said).advise(advice))
}

fn include(packages: &[String]) -> String {
    PACKAGES.iter().copied().chain(packages.iter().map(String::as_str)).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_packages() {
        let check = |name: &str| check_names(&[name.to_owned()]).is_ok();
        assert!(check("g++") && check("libc6-dev") && check("7zip"));
        assert!(!check("") && !check("x") && !check("-o=x") && !check("a b") && !check("../x") && !check("A1"));
    }
}
