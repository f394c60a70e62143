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

/// Writes the root.
pub(super) fn write(cache: &Cache, archive: &mut Output) -> Result<(), Failure> {
    eprintln!("quintet: making the Debian root (once, a minute or two)");
    let folder = tempfile::tempdir_in(cache.folder()).or_fail(|| "cannot make a folder".into())?;
    let tar = folder.path().join("root.tar");
    let status = Command::new("mmdebstrap")
        .args(OPTIONS)
        .arg(format!("--include={}", PACKAGES.join(",")))
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
