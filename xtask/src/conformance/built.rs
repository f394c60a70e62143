//! Suites that are built from Debian's packages: once, in a chroot that `mmdebstrap` makes and throws away, so that they fit the root
//! that they run on.

use crate::Failure;
use crate::workspace::{root, shown};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// How a suite is built.
pub(super) struct Recipe {
    /// What it is called: `target/conformance/NAME` gets it.
    pub(super) name: &'static str,
    /// Debian's packages that the chroot has.
    pub(super) packages: &'static str,
    /// The script under `conformance/` that leaves the suite in [`Recipe::place`].
    pub(super) script: &'static str,
    /// Where the suite is, in the chroot and in the guest.
    pub(super) place: &'static str,
    /// The list of its programs, in that folder.
    pub(super) list: &'static str,
}

impl Recipe {
    /// Where it is kept.
    pub(super) fn folder(&self) -> PathBuf {
        root().join("target/conformance").join(self.name)
    }

    /// The folder, for the guest.
    pub(super) fn files(&self) -> Vec<(PathBuf, &'static str)> {
        vec![(self.folder(), self.place)]
    }

    /// The lines of its list.
    pub(super) fn lines(&self) -> Result<Vec<String>, Failure> {
        let path = self.folder().join(self.list);
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Builds it unless it is there.
    pub(super) fn build(&self) -> Result<(), Failure> {
        if self.folder().exists() {
            return Ok(());
        }
        let target = root().join("target/conformance");
        let new = target.join(format!("{}.new", self.name));
        let log = target.join(format!("{}-build.log", self.name));
        let failed = |error: std::io::Error| format!("{}: {error}", new.display());
        if new.exists() {
            fs::remove_dir_all(&new).map_err(failed)?;
        }
        fs::create_dir_all(&new).map_err(failed)?;
        eprintln!("xtask: building {} (once, a few minutes); log in {}", self.name, shown(&log));
        let output = fs::File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let script = root().join("conformance").join(self.script);
        let status = Command::new("mmdebstrap")
            .args(["--variant=minbase", "--format=null"])
            .arg(format!("--include={}", self.packages))
            .arg(format!("--customize-hook=upload \"{}\" /build.sh", script.display()))
            .arg("--customize-hook=chroot \"$1\" sh /build.sh")
            .arg(format!("--customize-hook=sync-out {} \"{}\"", self.place, new.display()))
            .args(["bookworm", "/dev/null"])
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(failed)?)
            .stderr(output)
            .status()
            .map_err(|error| format!("cannot run mmdebstrap: {error}"))?;
        if !status.success() || !new.join(self.list).exists() {
            return Err(format!("{} could not be built: see {}", self.name, shown(&log)));
        }
        fs::rename(&new, self.folder()).map_err(failed)
    }
}
