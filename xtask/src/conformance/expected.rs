//! `conformance/expected.toml`: failures that are known and explained. The list only shrinks.
//!
//! ```toml
//! [cpython]
//! "test.test_x.Class.test_y" = "why it fails on Quintet"
//! ```

use crate::Failure;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The tests that are expected to fail, with reasons.
pub(super) type Known = BTreeMap<String, String>;

/// Reads the list, suite by suite.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, Known>, Failure> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    parse(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn parse(text: &str) -> Result<BTreeMap<String, Known>, Failure> {
    let suites: BTreeMap<String, Known> = toml::from_str(text).map_err(|error| error.to_string())?;
    let unexplained = suites.values().flatten().find(|(_, reason)| reason.trim().is_empty());
    match unexplained {
        Some((test, _)) => Err(format!("{test} has no reason")),
        None => Ok(suites),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_needed() {
        let list = parse("[a]\n\"x.y\" = \"because\"\n").expect("a good list");
        assert_eq!(list["a"]["x.y"], "because");
        assert!(parse("[a]\n\"x.y\" = \" \"\n").is_err());
        assert!(parse("[a]\nx = 1\n").is_err());
    }

    #[test]
    fn the_list_in_the_repository_is_good() {
        read(&crate::workspace::root().join("conformance/expected.toml")).expect("a good list");
    }
}
