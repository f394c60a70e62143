//! Debian packages, fetched with apt-get and taken apart with dpkg-deb.

use crate::failure::{Context, Failure};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ADVICE: &str = "Roots and kernels come from Debian's packages: this needs apt-get and \
                      dpkg-deb, and `apt-get update` to have run.";

fn output(command: &mut Command) -> Result<Output, Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output =
        command.output().map_err(|error| Failure::new(format!("cannot run {name}")).because(error).advise(ADVICE))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(Failure::new(format!("{name} failed")).because(String::from_utf8_lossy(&output.stderr)).advise(ADVICE))
}

/// The first dependency of `package` whose name starts with `prefix`.
pub fn dependency(package: &str, prefix: &str) -> Result<String, Failure> {
    let listed = output(Command::new("apt-cache").args(["depends", package]))?;
    String::from_utf8_lossy(&listed.stdout)
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with(prefix))
        .map(str::to_owned)
        .ok_or_else(|| Failure::new(format!("{package} names no {prefix} package")).advise(ADVICE))
}

fn download(package: &str, folder: &Path) -> Result<Output, Failure> {
    // The sandbox user of apt cannot write to a folder of ours, and says so at length.
    output(Command::new("apt-get").args(["download", "-o", "APT::Sandbox::User=root", package]).current_dir(folder))
}

/// Fetches a package and shows each file's path and data to `visit`.
pub fn unpack(
    package: &str,
    mut visit: impl FnMut(&str, &mut dyn FnMut() -> io::Result<Vec<u8>>) -> io::Result<()>,
) -> Result<(), Failure> {
    let folder = tempfile::tempdir().or_fail(|| "cannot make a folder".into())?;
    if download(package, folder.path()).is_err() {
        // A fresh machine has no package lists yet. Only root may fetch them: others get the advice.
        let _ = output(Command::new("apt-get").arg("update"));
        download(package, folder.path())?;
    }
    let files = std::fs::read_dir(folder.path()).or_fail(|| "cannot read a folder".into())?;
    let archive: PathBuf = files
        .flatten()
        .map(|entry| entry.path())
        .next()
        .ok_or_else(|| Failure::new(format!("apt-get downloaded nothing for {package}")))?;
    let unpacked = output(Command::new("dpkg-deb").arg("--fsys-tarfile").arg(archive))?;
    let mut tar = tar::Archive::new(unpacked.stdout.as_slice());
    let mut walk = || -> io::Result<()> {
        for entry in tar.entries()? {
            let mut entry = entry?;
            let path = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
            visit(&path, &mut || {
                let mut data = Vec::new();
                entry.read_to_end(&mut data)?;
                Ok(data)
            })?;
        }
        Ok(())
    };
    walk().or_fail(|| format!("cannot unpack {package}"))
}
