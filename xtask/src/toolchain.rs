//! The toolchain that builds the kernel.
//!
//! Normally rustup's, with the target `x86_64-unknown-none` added. Where rustup cannot fetch that,
//! Debian's `rustc-web` is new enough: its source builds `core` and `alloc` for the target once,
//! and they are laid out like one of rustup's toolchains in `target/none-toolchain`.

use crate::Failure;
use crate::build::{HOST, KERNEL_TARGET};
use crate::setup::{Need, install, is_there};
use crate::workspace::{cargo, root};
use std::env;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_LIBRARY: &str = "/usr/lib/rustlib/src/rust/library";

const FALLBACK_NEEDS: &[Need] = &[
    Need::new(DEBIAN_RUSTC, "rustc-web", "builds the kernel in place of rustup's compiler"),
    Need::new(DEBIAN_CARGO, "cargo-web", "builds the kernel in place of rustup's cargo"),
    Need::new(DEBIAN_LIBRARY, "rust-web-src", "is the source of core and alloc"),
    Need::new("ld.lld", "lld", "links the kernel"),
];

/// True if the kernel can be built at once.
pub(crate) fn is_ready() -> bool {
    has_target(&sysroot()) || fallback().join("bin/cargo").exists()
}

/// The cargo to build the kernel with.
pub(crate) fn kernel_cargo() -> Result<Command, Failure> {
    if !prefers_fallback() {
        return Ok(cargo());
    }
    if !fallback().join("bin/cargo").exists() {
        return Err(format!("nothing here builds for {KERNEL_TARGET}; run `cargo xtask setup`"));
    }
    let mut command = Command::new(fallback().join("bin/cargo"));
    command.current_dir(root());
    for inherited in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC", "RUSTDOC"] {
        command.env_remove(inherited);
    }
    Ok(command)
}

/// True if rustup's toolchain cannot build the kernel.
pub(crate) fn prefers_fallback() -> bool {
    !has_target(&sysroot())
}

/// Adds the target to rustup's toolchain, or makes the other one.
pub(crate) fn set_up(without_rustup: bool) -> Result<(), Failure> {
    if !without_rustup {
        if has_target(&sysroot()) || add_target() {
            return Ok(());
        }
        eprintln!("xtask: rustup could not add {KERNEL_TARGET}; trying Debian's Rust instead");
    }
    install(FALLBACK_NEEDS)?;
    make_fallback(&fallback())
}

fn has_target(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib").join(KERNEL_TARGET).join("lib").is_dir()
}

/// The running toolchain's folder, without asking rustc where rustup has told us.
fn sysroot() -> PathBuf {
    let home =
        env::var_os("RUSTUP_HOME").map(PathBuf::from).or_else(|| env::home_dir().map(|home| home.join(".rustup")));
    if let (Some(home), Some(name)) = (home, env::var_os("RUSTUP_TOOLCHAIN")) {
        let folder = home.join("toolchains").join(name);
        if folder.is_dir() {
            return folder;
        }
    }
    let output = Command::new("rustc").args(["--print", "sysroot"]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    PathBuf::from(text.unwrap_or_default())
}

fn add_target() -> bool {
    if !is_there("rustup") {
        return false;
    }
    eprintln!("xtask: adding the target {KERNEL_TARGET}, which the kernel is built for");
    let status = Command::new("rustup").args(["target", "add", KERNEL_TARGET]).stdout(Stdio::null()).status();
    status.is_ok_and(|status| status.success()) && has_target(&sysroot())
}

fn fallback() -> PathBuf {
    root().join("target/none-toolchain")
}

fn make_fallback(place: &Path) -> Result<(), Failure> {
    let version = version_of(DEBIAN_RUSTC)?;
    let stamp = place.join("made-from");
    if fs::read_to_string(&stamp).is_ok_and(|made_from| made_from == version) {
        return Ok(());
    }
    eprintln!("xtask: building core and alloc with {version} (once)");
    let work = root().join("target/none-toolchain.work");
    let libraries = build_libraries(&work)?;
    lay_out(place, &libraries).map_err(|error| format!("{}: {error}", place.display()))?;
    // The stamp comes last: without it the toolchain is made anew.
    fs::write(&stamp, version)
        .and_then(|()| fs::remove_dir_all(&work))
        .map_err(|error| format!("{}: {error}", place.display()))
}

fn version_of(rustc: &str) -> Result<String, Failure> {
    let output = Command::new(rustc).arg("--version").output();
    let output = output.map_err(|error| format!("cannot run {rustc}: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Builds an empty crate, and with it the libraries, whose files it returns.
fn build_libraries(work: &Path) -> Result<Vec<PathBuf>, Failure> {
    let manifest = "[package]\nname = \"seed\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\
                    [profile.release]\npanic = \"abort\"\ndebug = 1\n[workspace]\n";
    let failed = |error: std::io::Error| format!("{}: {error}", work.display());
    fs::create_dir_all(work.join("src")).map_err(failed)?;
    fs::write(work.join("Cargo.toml"), manifest).map_err(failed)?;
    fs::write(work.join("src/lib.rs"), "#![no_std]\n").map_err(failed)?;
    let mut command = Command::new(DEBIAN_CARGO);
    for inherited in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(inherited);
    }
    let status = command
        .current_dir(work)
        .args(["build", "--quiet", "--release", "-Zbuild-std=core,alloc", "--target", KERNEL_TARGET])
        .args(["--target-dir", "out"])
        .env("PATH", "/usr/bin:/bin")
        .env("RUSTC", DEBIAN_RUSTC)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_X86_64_UNKNOWN_NONE_RUSTFLAGS", "-Cembed-bitcode=yes")
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => return Err(format!("building core and alloc: {status}")),
        Err(error) => return Err(format!("cannot run {DEBIAN_CARGO}: {error}")),
    }
    let built = work.join("out").join(KERNEL_TARGET).join("release/deps");
    let wanted = ["libcore-", "liballoc-", "libcompiler_builtins-"];
    let files = fs::read_dir(&built).map_err(|error| format!("{}: {error}", built.display()))?;
    Ok(files
        .flatten()
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rlib"))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            wanted.iter().any(|prefix| name.starts_with(prefix))
        })
        .collect())
}

/// Makes a folder that looks like one of rustup's toolchains.
fn lay_out(place: &Path, libraries: &[PathBuf]) -> std::io::Result<()> {
    if place.exists() {
        fs::remove_dir_all(place)?;
    }
    let rustlib = place.join("lib/rustlib");
    let target = rustlib.join(KERNEL_TARGET).join("lib");
    let host_bin = rustlib.join(HOST).join("bin");
    for folder in [&target, &host_bin.join("gcc-ld"), &place.join("bin")] {
        fs::create_dir_all(folder)?;
    }
    for library in libraries {
        fs::copy(library, target.join(library.file_name().unwrap_or_default()))?;
    }
    symlink(format!("/usr/lib/rustlib/{HOST}/lib"), rustlib.join(HOST).join("lib"))?;
    symlink("/usr/bin/ld.lld", host_bin.join("rust-lld"))?;
    let place_text = place.display();
    let scripts = [
        ("rustc", format!("exec {DEBIAN_RUSTC} --sysroot '{place_text}' \"$@\"")),
        ("rustdoc", format!("exec /usr/bin/rustdoc --sysroot '{place_text}' \"$@\"")),
        (
            "cargo",
            format!(
                "export RUSTC='{place_text}/bin/rustc' RUSTDOC='{place_text}/bin/rustdoc'\n\
                 exec {DEBIAN_CARGO} \"$@\""
            ),
        ),
    ];
    for (name, body) in scripts {
        let path = place.join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}
