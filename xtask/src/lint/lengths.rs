//! Files, functions and names that a reader would stumble over.

use crate::Failure;
use crate::source::{bare, functions};
use crate::workspace::{Crate, rust_files, shown};
use std::fs;

const LONGEST_FILE: usize = 600;
const LONGEST_FUNCTION: usize = 60;
/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["util", "utils", "misc", "common", "helper", "helpers"];

/// Refuses file names that say nothing.
pub(super) fn check_names(crates: &[Crate]) -> Result<(), Failure> {
    let bad: Vec<String> = crates
        .iter()
        .flat_map(|each| rust_files(&each.folder))
        .map(|path| shown(&path))
        .filter(|path| path.split(['/', '.']).any(|part| EMPTY_NAMES.contains(&part)))
        .collect();
    if bad.is_empty() { Ok(()) } else { Err(bad.join("\n")) }
}

/// Reports what is long; the reader decides.
pub(super) fn report(crates: &[Crate]) {
    for path in crates.iter().flat_map(|each| rust_files(&each.folder)) {
        let Ok(source) = fs::read_to_string(&path) else {
            continue;
        };
        let lines = source.lines().count();
        if lines > LONGEST_FILE {
            println!("long    {}: {lines} lines", shown(&path));
        }
        for function in functions(&bare(&source)) {
            let lines = function.last - function.first + 1;
            if lines > LONGEST_FUNCTION {
                let (path, line) = (shown(&path), function.first + 1);
                println!("long    {path}:{line}: fn {}, {lines} lines", function.name);
            }
        }
    }
}
