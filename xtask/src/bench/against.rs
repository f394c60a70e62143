//! The kernel of another revision, built in a work tree of its own under `target/against`.

use crate::workspace::{root, shown};
use crate::{Failure, build, toolchain};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A kernel that was built.
pub(super) struct Built {
    /// The revision's short name.
    pub(super) name: String,
    pub(super) file: PathBuf,
}

/// Builds the kernel of a revision; again only if it is not there.
pub(super) fn kernel(revision: &str) -> Result<Built, Failure> {
    let name = git(&["rev-parse", "--short=10", &format!("{revision}^{{commit}}")])
        .map_err(|why| format!("no revision {revision}: {why}"))?;
    let folder = root().join("target/against");
    let file = folder.join(format!("kernel-{name}"));
    if !file.exists() {
        let tree = folder.join("tree");
        check_out(&tree, &name)?;
        eprintln!("xtask: building the kernel of {name}; its work tree is {}", shown(&tree));
        build_in(&tree, &folder)?;
        let built = folder.join("target").join(build::KERNEL_TARGET).join("release/kernel");
        std::fs::copy(&built, &file).map_err(|error| format!("{}: {error}", built.display()))?;
    }
    Ok(Built { name, file })
}

/// Makes the work tree, or moves it to the revision.
fn check_out(tree: &Path, name: &str) -> Result<(), Failure> {
    let path = tree.display().to_string();
    if tree.join(".git").exists() {
        return git(&["-C", &path, "checkout", "--quiet", "--force", "--detach", name]).map(drop);
    }
    // One whose folder was deleted is still listed.
    git(&["worktree", "prune"])?;
    git(&["worktree", "add", "--quiet", "--detach", &path, name]).map(drop)
}

fn build_in(tree: &Path, folder: &Path) -> Result<(), Failure> {
    let output = toolchain::kernel_cargo()?
        .current_dir(tree)
        .args(["build", "--quiet", "--release", "--package", "kernel", "--target", build::KERNEL_TARGET])
        .arg("--target-dir")
        .arg(folder.join("target"))
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}

fn git(arguments: &[&str]) -> Result<String, Failure> {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(root())
        .output()
        .map_err(|error| format!("cannot run git: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}
