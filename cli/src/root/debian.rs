//! Debian 12 with the tools that people and test-suites expect, made by mmdebstrap.

use super::{Output, tarball};
use crate::cache::Cache;
use crate::failure::{Context, Failure};
use std::process::{Command, Stdio};

/// Names this recipe; change it when the recipe changes.
pub(super) const RECIPE: &str = concat!("bookworm 1 ", "with the packages below");

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

const OPTIONS: [&str; 8] = [
    "--variant=minbase",
    "--aptopt=Acquire::Languages \"none\"",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/info/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--customize-hook=echo quintet > \"$1/etc/hostname\"",
    "--customize-hook=printf '127.0.0.1 localhost\\n127.0.1.1 quintet\\n::1 localhost\\n' > \"$1/etc/hosts\"",
];

/// Refuses what is no name of a package: it becomes part of a file's name and of a command.
pub(super) fn check_names(packages: &[String]) -> Result<(), Failure> {
    let allowed = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "+-.".contains(letter);
    let good = |name: &&String| name.len() > 1 && !name.starts_with(['-', '+', '.']) && name.chars().all(allowed);
    match packages.iter().find(|name| !good(name)) {
        None => Ok(()),
        Some(name) => Err(Failure::new(format!("\"{name}\" is no name of a Debian package"))
            .advise("Write --root debian,PACKAGE,PACKAGE")),
    }
}

/// Writes the root, with these packages besides the usual ones.
pub(super) fn write(cache: &Cache, packages: &[String], archive: &mut Output) -> Result<(), Failure> {
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
        return Err(Failure::new("mmdebstrap could not make the Debian root")
            .because(status)
            .advise("Its messages are above. As an ordinary user it needs user namespaces."));
    }
    tarball::write(&tar, archive)
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
