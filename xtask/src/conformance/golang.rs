//! The tests of Go's standard library, from Debian's golang-1.19 packages: Go's run-time schedules threads, polls descriptors, handles
//! signals and maps memory by bare system calls, without a C library in between.

use super::built::Recipe;
use super::suites::Item;
use crate::Failure;

pub(super) const RECIPE: Recipe = Recipe {
    name: "go-tests",
    packages: "golang-1.19-go,golang-1.19-src,gcc,libc6-dev",
    script: "golang.sh",
    place: "/opt/go",
    list: "packages.txt",
};

/// What runs a package's tests in the guest.
pub(super) const RUNNER: &str = "/golang.py";

/// These packages belong to `--quick`.
const QUICK: &[&str] = &["os", "os/signal", "syscall", "time", "internal/poll", "path/filepath"];

/// A package each, whose tests are reported one by one.
pub(super) fn items() -> Result<Vec<Item>, Failure> {
    Ok(RECIPE.lines()?.iter().map(|package| item(package)).collect())
}

fn item(package: &str) -> Item {
    Item {
        quick: QUICK.contains(&package),
        kind: "report",
        limit: 120,
        folder: Some(format!("{}/src/{package}", RECIPE.place)),
        ..Item::program(package, &format!("python3 -u {RUNNER} {package}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_becomes_an_item() {
        let item = item("os/signal");
        assert_eq!((item.name.as_str(), item.quick), ("os/signal", true));
        assert_eq!(item.folder.as_deref(), Some("/opt/go/src/os/signal"));
    }
}
