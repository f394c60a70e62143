//! The results as JSON, written suite by suite: what ran stays, whatever becomes of the rest, and what other runs left in the file stays
//! until its suite runs again.

use super::report::{Comparison, share};
use crate::Failure;
use crate::workspace::revision;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::PathBuf;

/// A file `{suites: {NAME: {linux_passed, both_passed, failures: [...], share, ...}}, share}`.
pub(super) struct Record {
    path: PathBuf,
    suites: Map<String, Value>,
}

impl Record {
    pub(super) fn open(path: PathBuf) -> Record {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let value = serde_json::from_str::<Value>(&text).unwrap_or_default();
        Record { path, suites: value["suites"].as_object().cloned().unwrap_or_default() }
    }

    /// Takes in what came of a suite, or why nothing did.
    pub(super) fn put(&mut self, name: &str, result: &Result<Comparison, Failure>) -> Result<(), Failure> {
        let mut value = match result {
            Ok(comparison) => comparison.json(),
            Err(why) => json!({ "not_run": why, "share": null }),
        };
        value["revision"] = revision().into();
        self.suites.insert(name.to_owned(), value);
        fs::write(&self.path, self.text()).map_err(|error| format!("{}: {error}", self.path.display()))
    }

    fn text(&self) -> String {
        let sum = |key: &str| self.suites.values().filter_map(|suite| suite[key].as_u64()).sum::<u64>() as usize;
        let share = share(sum("both_passed"), sum("linux_passed"));
        format!("{:#}\n", json!({ "suites": self.suites, "share": share }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_of_other_runs_stay() {
        let path = std::env::temp_dir().join(format!("quintet-record-{}.json", std::process::id()));
        fs::write(&path, r#"{"suites": {"old": {"linux_passed": 3, "both_passed": 2}}, "share": 0.6}"#)
            .expect("to write");
        Record::open(path.clone()).put("new", &Err("no network".into())).expect("to write");
        let text = fs::read_to_string(&path).expect("the file");
        let _ = fs::remove_file(&path);
        let value: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["suites"]["old"]["both_passed"], 2);
        assert_eq!(value["suites"]["new"]["not_run"], "no network");
        assert_eq!(value["share"], 2.0 / 3.0);
    }
}
