//! The Linux kernel's own selftests: built once from Debian's linux-source package, in a chroot that
//! `mmdebstrap` makes and throws away, so that they fit the root that they run on.

use super::suites::Item;
use crate::Failure;
use crate::workspace::{root, shown};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Where they are in the guest.
pub(super) const IN_GUEST: &str = "/opt/selftests";
/// What builds them.
const PACKAGES: &str = "linux-source-6.1,gcc,libc6-dev,make,rsync,xz-utils,libcap-dev,libcap-ng-dev,libmnl-dev,\
                        libnuma-dev,libpopt-dev,libfuse-dev,pkg-config,bison,flex,perl,python3-minimal";
/// These collections belong to `--quick`.
const QUICK: &[&str] = &["clone3", "futex/functional", "pidfd", "proc", "timers", "openat2", "sigaltstack", "epoll"];

fn folder() -> PathBuf {
    root().join("target/conformance/linux-selftests")
}

/// The folder with the programs, for the guest.
pub(super) fn files() -> Result<Vec<(PathBuf, &'static str)>, Failure> {
    Ok(vec![(folder(), IN_GUEST)])
}

/// Builds them unless they are there.
pub(super) fn prepare() -> Result<(), Failure> {
    let folder = folder();
    if folder.exists() {
        return Ok(());
    }
    let target = root().join("target/conformance");
    let (new, log) = (target.join("selftests.new"), target.join("selftests-build.log"));
    let failed = |error: std::io::Error| format!("{}: {error}", new.display());
    if new.exists() {
        fs::remove_dir_all(&new).map_err(failed)?;
    }
    fs::create_dir_all(&new).map_err(failed)?;
    eprintln!("xtask: building the kernel's selftests (once, a few minutes); log in {}", shown(&log));
    let output = fs::File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    let script = root().join("conformance/selftests.sh");
    let status = Command::new("mmdebstrap")
        .args(["--variant=minbase", "--format=null"])
        .arg(format!("--include={PACKAGES}"))
        .arg(format!("--customize-hook=upload \"{}\" /selftests.sh", script.display()))
        .arg("--customize-hook=chroot \"$1\" sh /selftests.sh")
        .arg(format!("--customize-hook=sync-out {IN_GUEST} \"{}\"", new.display()))
        .args(["bookworm", "/dev/null"])
        .stdin(Stdio::null())
        .stdout(output.try_clone().map_err(failed)?)
        .stderr(output)
        .status()
        .map_err(|error| format!("cannot run mmdebstrap: {error}"))?;
    if !status.success() || !new.join("kselftest-list.txt").exists() {
        return Err(format!("the kernel's selftests could not be built: see {}", shown(&log)));
    }
    fs::rename(&new, &folder).map_err(failed)
}

/// A program each; status 4 says that it does not apply.
pub(super) fn items() -> Result<Vec<Item>, Failure> {
    let path = folder().join("kselftest-list.txt");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(text.lines().filter_map(|line| line.split_once(':')).map(|(folder, program)| item(folder, program)).collect())
}

fn item(folder: &str, program: &str) -> Item {
    Item {
        quick: QUICK.iter().any(|quick| folder.ends_with(quick)),
        kind: "tap:4",
        limit: 60,
        folder: Some(format!("{IN_GUEST}/{folder}")),
        ..Item::program(&format!("{folder}:{program}"), &format!("./{program}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_list_becomes_an_item() {
        let item = item("timers", "nanosleep");
        assert_eq!((item.name.as_str(), item.quick), ("timers:nanosleep", true));
        assert_eq!(item.folder.as_deref(), Some("/opt/selftests/timers"));
    }
}
