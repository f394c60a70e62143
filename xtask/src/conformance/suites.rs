//! The suites: what each consists of, and what it needs in the guest.

use super::{golang, liburing, runtimes, selftests};
use crate::Failure;
use crate::workspace::root;
use std::fs;
use std::path::PathBuf;

/// A test-suite.
pub(super) struct Suite {
    pub(super) name: &'static str,
    /// The root that it runs on.
    pub(super) root: &'static str,
    /// Makes what the next two need.
    pub(super) prepare: fn() -> Result<(), Failure>,
    /// Files to add to the root, and where.
    pub(super) files: fn() -> Result<Vec<(PathBuf, &'static str)>, Failure>,
    pub(super) items: fn() -> Result<Vec<Item>, Failure>,
    /// Megabytes of memory that the machine has.
    pub(super) memory: u32,
    /// Megabytes of an empty disk, `/dev/vda`, if it has one.
    pub(super) disk: Option<u64>,
}

/// A program of a suite.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) name: String,
    /// It belongs to `--quick`.
    pub(super) quick: bool,
    /// As the runner's plan has it: `report`, or `status` or `tap` with the
    /// statuses that mean skipped: `status:3,4`.
    pub(super) kind: &'static str,
    /// Seconds that one of its tests may take.
    pub(super) limit: u32,
    /// Where it starts; a new folder if nothing.
    pub(super) folder: Option<String>,
    pub(super) command: Vec<String>,
    /// Only these tests of it.
    pub(super) only: Vec<String>,
}

impl Item {
    /// An item that is one program, judged by its status.
    pub(super) fn program(name: &str, command: &str) -> Item {
        Item {
            name: name.to_owned(),
            quick: true,
            kind: "status",
            limit: 60,
            folder: None,
            command: command.split(' ').map(str::to_owned).collect(),
            only: Vec::new(),
        }
    }
}

/// What the selftests' programs and scripts call.
const SELFTESTS_ROOT: &str = "debian,iproute2,iputils-ping,libcap-ng0,libcap2-bin,libmnl0,libnuma1,libpopt0,xxd";

const FILES_ROOT: &str = "debian,bonnie++,dbench,e2fsprogs,fio,fsmark,git,postmark,sqlite3,stress-ng";

/// Every suite there is.
pub(super) fn all() -> Vec<Suite> {
    let suite = |name, root, items| Suite {
        name,
        root,
        prepare: || Ok(()),
        files: || Ok(Vec::new()),
        items,
        memory: 4096,
        disk: None,
    };
    vec![
        Suite { files: cpython_files, ..suite("cpython", "debian,netbase", cpython) },
        suite("stress-ng", "debian,stress-ng", stress_ng),
        Suite {
            prepare: || selftests::RECIPE.build(),
            files: || Ok(selftests::RECIPE.files()),
            ..suite("selftests", SELFTESTS_ROOT, selftests::items)
        },
        Suite {
            prepare: || liburing::RECIPE.build(),
            files: || Ok(liburing::RECIPE.files()),
            ..suite("liburing", "debian", liburing::items)
        },
        Suite { files: runtimes::files, ..suite("runtimes", runtimes::ROOT, runtimes::items) },
        Suite {
            prepare: || golang::RECIPE.build(),
            files: golang_files,
            ..suite("go", "debian,netbase", golang::items)
        },
        Suite { files: files_files, disk: Some(1024), ..suite("files", FILES_ROOT, files) },
    ]
}

const CPYTHON_IN_GUEST: &str = "/cpython.py";

fn cpython_files() -> Result<Vec<(PathBuf, &'static str)>, Failure> {
    Ok(vec![(root().join("conformance/cpython.py"), CPYTHON_IN_GUEST)])
}

fn golang_files() -> Result<Vec<(PathBuf, &'static str)>, Failure> {
    let mut files = golang::RECIPE.files();
    files.push((root().join("conformance/golang.py"), golang::RUNNER));
    Ok(files)
}

const FILES_IN_GUEST: &str = "/files.sh";

fn files_files() -> Result<Vec<(PathBuf, &'static str)>, Failure> {
    Ok(vec![(root().join("conformance/files.sh"), FILES_IN_GUEST)])
}

fn cpython() -> Result<Vec<Item>, Failure> {
    let item = |(name, quick): (String, bool)| Item {
        quick,
        kind: "report",
        limit: 120,
        ..Item::program(&name, &format!("python3 -u -E {CPYTHON_IN_GUEST} {name}"))
    };
    Ok(list("cpython.txt")?.into_iter().map(item).collect())
}

/// Each stressor twice at a time, checking its own results. Statuses 3 and 4: it lacks a resource, or
/// does not apply.
fn stress_ng() -> Result<Vec<Item>, Failure> {
    let item = |(name, quick): (String, bool)| Item {
        quick,
        kind: "status:3,4",
        limit: 90,
        ..Item::program(&name, &format!("stress-ng --verify --timeout 1 --{name} 2"))
    };
    Ok(list("stress-ng.txt")?.into_iter().map(item).collect())
}

/// Programs that write files and check what they find, on a disk and on tmpfs.
fn files() -> Result<Vec<Item>, Failure> {
    let mut items = Vec::new();
    for line in text("files.txt")?.lines().filter(|line| !line.starts_with('#')) {
        let (name, command) = line.split_once(" = ").ok_or_else(|| format!("files.txt: no command in {line:?}"))?;
        let (name, quick) = name.strip_suffix(" quick").map_or((name, false), |name| (name, true));
        for place in ["disk", "tmpfs"] {
            items.push(Item {
                quick,
                kind: "status:3,4",
                limit: 120,
                command: ["sh", FILES_IN_GUEST, place, command].map(str::to_owned).to_vec(),
                ..Item::program(&format!("{place}:{name}"), "")
            });
        }
    }
    Ok(items)
}

/// The names in a list under `conformance/`, and whether they are marked as quick.
fn list(file: &str) -> Result<Vec<(String, bool)>, Failure> {
    Ok(names(&text(file)?))
}

/// What is in a file under `conformance/`.
fn text(file: &str) -> Result<String, Failure> {
    let path = root().join("conformance").join(file);
    fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
}

fn names(text: &str) -> Vec<(String, bool)> {
    let line = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        Some((words.next()?.to_owned(), words.next() == Some("quick")))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        assert_eq!(names("# why\na quick\n\nb # c\n"), [("a".to_owned(), true), ("b".to_owned(), false)]);
    }

    #[test]
    fn every_suite_has_quick_items() {
        for suite in all() {
            // A suite that is still to be built has no list yet.
            let items = (suite.items)().unwrap_or_default();
            assert!(items.is_empty() || items.iter().any(|item| item.quick), "{}", suite.name);
        }
    }
}
