//! Installs what is missing on this machine, saying what and why.

use crate::{Failure, Outcome, toolchain};
use std::env;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// Something that has to be on the machine.
#[derive(Clone, Copy)]
pub(crate) struct Need {
    /// The file that shows it is there: an absolute path, or a program's name.
    sign: &'static str,
    package: &'static str,
    why: &'static str,
}

impl Need {
    /// A need, the package that fills it, and the reason for it.
    pub(crate) const fn new(sign: &'static str, package: &'static str, why: &'static str) -> Need {
        Need { sign, package, why }
    }
}

/// For running programs.
pub(crate) const RUN: &[Need] = &[
    Need::new("cc", "gcc", "links Rust programs"),
    Need::new("/usr/include/stdio.h", "libc6-dev", "links Rust programs"),
    Need::new("qemu-system-x86_64", "qemu-system-x86", "is the machine that Quintet boots on"),
    Need::new("mmdebstrap", "mmdebstrap", "makes the Debian root"),
    Need::new("/usr/sbin/mke2fs", "e2fsprogs", "makes a disk image of the Debian root"),
    Need::new("fakeroot", "fakeroot", "keeps owners in mind while the image is made by an ordinary user"),
    Need::new("xz", "xz-utils", "unpacks packages"),
];

/// For making disk images and checking them.
pub(crate) const DISKS: &[Need] = &[
    Need::new("/usr/sbin/mke2fs", "e2fsprogs", "makes ext4 images"),
    Need::new("/usr/sbin/e2fsck", "e2fsprogs", "checks ext4 images"),
];

/// For looking into databases after a crash.
pub(crate) const CRASHES: &[Need] = &[Need::new("python3", "python3", "reads SQLite's databases")];

/// For measuring the network between guest and host.
pub(crate) const PEERS: &[Need] = &[Need::new("iperf3", "iperf3", "sends to guests and receives from them")];

/// `cargo xtask setup [--without-rustup]`.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let without_rustup = match arguments {
        [] => false,
        [option] if option == "--without-rustup" => true,
        _ => return Err("setup takes only --without-rustup, which tries the way around it".into()),
    };
    install(RUN)?;
    toolchain::set_up(without_rustup)?;
    println!("xtask: everything is there");
    Ok(ExitCode::SUCCESS)
}

/// Quickly makes sure of `needs` and of the kernel's toolchain.
pub(crate) fn ensure(needs: &[Need]) -> Result<(), Failure> {
    install(needs)?;
    if toolchain::is_ready() { Ok(()) } else { toolchain::set_up(false) }
}

/// Installs the packages whose signs are missing.
pub(crate) fn install(needs: &[Need]) -> Result<(), Failure> {
    let missing: Vec<Need> = needs.iter().copied().filter(|need| !is_there(need.sign)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        eprintln!("xtask: installing {}, which {}", need.package, need.why);
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    apt_get(&["update"], &packages)?;
    apt_get(&["install", "--yes", "--no-install-recommends"], &packages)?;
    match missing.iter().find(|need| !is_there(need.sign)) {
        None => Ok(()),
        Some(need) => Err(format!("{} is installed, but there is no {}", need.package, need.sign)),
    }
}

/// Runs apt-get with rights to change the machine.
fn apt_get(arguments: &[&str], packages: &[&str]) -> Result<(), Failure> {
    let by_hand = format!("install by hand what is missing: {}", packages.join(" "));
    if !is_there("apt-get") {
        return Err(format!("this machine has no apt-get; {by_hand}"));
    }
    let mut command = if is_root() {
        Command::new("apt-get")
    } else if is_there("sudo") {
        let mut command = Command::new("sudo");
        command.arg("apt-get");
        command
    } else {
        return Err(format!("only root may install packages, and there is no sudo; {by_hand}"));
    };
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
    if arguments[0] == "install" {
        command.args(packages);
    }
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("apt-get {}: {status}; {by_hand}", arguments[0])),
        Err(error) => Err(format!("cannot run apt-get: {error}; {by_hand}")),
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// True if the file exists, or the program is in PATH.
pub(crate) fn is_there(sign: &str) -> bool {
    if sign.starts_with('/') {
        return Path::new(sign).exists();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).any(|folder| folder.join(sign).is_file())
}
