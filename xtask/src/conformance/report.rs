//! Both kernels side by side.

use super::expected::Known;
use super::verdict::{Verdict, Verdicts};
use serde_json::{Value, json};

/// What came of one suite.
pub(super) struct Comparison {
    name: String,
    /// How many of the suite's items ran, and how many it has.
    items: [usize; 2],
    linux_passed: usize,
    both_passed: usize,
    /// Tests that do not apply on Linux, or fail there as well.
    skipped: usize,
    failed_on_linux: usize,
    /// Failed on Quintet only, and why; not on the list.
    failures: Vec<(String, String)>,
    /// Failed on Quintet only, and on the list.
    known: Vec<(String, String)>,
    /// On the list, but it passed.
    mended: Vec<String>,
    /// Passed on Quintet the second time only.
    unsteady: Vec<String>,
}

impl Comparison {
    pub(super) fn new(
        name: &str,
        items: [usize; 2],
        on_linux: &Verdicts,
        on_quintet: &Verdicts,
        unsteady: Vec<String>,
        known: &Known,
    ) -> Comparison {
        let mut comparison = Comparison {
            name: name.to_owned(),
            items,
            linux_passed: 0,
            both_passed: 0,
            skipped: 0,
            failed_on_linux: 0,
            failures: Vec::new(),
            known: Vec::new(),
            mended: Vec::new(),
            unsteady,
        };
        for (item, tests) in on_linux {
            let ours = on_quintet.get(item);
            for (test, verdict) in tests {
                match verdict {
                    Verdict::Skipped(_) => comparison.skipped += 1,
                    Verdict::Failed(_) => comparison.failed_on_linux += 1,
                    Verdict::Passed => comparison.compare(test, ours.and_then(|tests| tests.get(test)), known),
                }
            }
        }
        comparison
    }

    /// Counts a test that Linux passes.
    fn compare(&mut self, test: &str, ours: Option<&Verdict>, known: &Known) {
        self.linux_passed += 1;
        let why = match ours {
            Some(Verdict::Passed) => {
                self.both_passed += 1;
                if known.contains_key(test) && !self.unsteady.iter().any(|name| name == test) {
                    self.mended.push(test.to_owned());
                }
                return;
            }
            Some(Verdict::Failed(why)) => why.clone(),
            Some(Verdict::Skipped(why)) => format!("skipped: {why}"),
            None => "no result".to_owned(),
        };
        match known.get(test) {
            Some(reason) => self.known.push((test.to_owned(), reason.clone())),
            None => self.failures.push((test.to_owned(), why)),
        }
    }

    /// True if only what is on the list failed, and all of it.
    pub(super) fn is_as_expected(&self) -> bool {
        self.failures.is_empty() && self.mended.is_empty()
    }

    /// `{linux_passed, both_passed, failures: [...], share, ...}`.
    pub(super) fn json(&self) -> Value {
        let list = |tests: &[(String, String)]| -> Vec<Value> {
            tests.iter().map(|(name, why)| json!({ "name": name, "why": why })).collect()
        };
        json!({
            "items": self.items[0],
            "items_there": self.items[1],
            "linux_passed": self.linux_passed,
            "both_passed": self.both_passed,
            "failures": list(&self.failures),
            "expected": list(&self.known),
            "mended": self.mended,
            "unsteady": self.unsteady,
            "failed_on_linux": self.failed_on_linux,
            "skipped": self.skipped,
            "share": self.share(),
        })
    }

    fn share(&self) -> Option<f64> {
        share(self.both_passed, self.linux_passed)
    }
}

/// What part of what Linux passes passes here.
pub(super) fn share(both: usize, linux: usize) -> Option<f64> {
    (linux > 0).then(|| both as f64 / linux as f64)
}

/// Per suite the failures, then a table of all suites.
pub(super) fn text(comparisons: &[Comparison], not_run: &[String]) -> String {
    let mut text: String = not_run.iter().map(|why| format!("NOT RUN {why}\n")).collect();
    for suite in comparisons {
        for (test, why) in &suite.failures {
            text += &format!("FAILED  {}: {test}: {why}\n", suite.name);
        }
        for test in &suite.mended {
            text += &format!("MENDED  {}: {test}: take it off conformance/expected.toml\n", suite.name);
        }
        for test in &suite.unsteady {
            text += &format!("unsteady {}: {test} passed the second time only\n", suite.name);
        }
    }
    text += &format!(
        "{:<12} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}\n",
        "", "Linux", "both", "Quintet", "Linux", "skipped", "share"
    );
    text += &format!("{:<12} {:>8} {:>8} {:>8} {:>8}\n", "", "passed", "passed", "failed", "failed");
    for suite in comparisons {
        let failed = suite.failures.len() + suite.known.len();
        let counts = [suite.linux_passed, suite.both_passed, failed, suite.failed_on_linux, suite.skipped];
        text += &format!("{:<12}", suite.name);
        counts.iter().for_each(|count| text += &format!(" {count:>8}"));
        text += &format!(" {:>8}\n", percent(suite.share()));
    }
    let [linux, both] = totals(comparisons);
    text + &format!("of {linux} tests that Linux passes Quintet passes {both}: {}\n", percent(share(both, linux)))
}

fn totals(comparisons: &[Comparison]) -> [usize; 2] {
    let sum = |count: fn(&Comparison) -> usize| comparisons.iter().map(count).sum();
    [sum(|suite| suite.linux_passed), sum(|suite| suite.both_passed)]
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

#[cfg(test)]
mod tests {
    use super::super::verdict::Tests;
    use super::*;

    fn verdicts(list: &[(&str, Verdict)]) -> Verdicts {
        let tests: Tests = list.iter().map(|(name, verdict)| ((*name).to_owned(), verdict.clone())).collect();
        Verdicts::from([("item".to_owned(), tests)])
    }

    fn compared(known: &[&str]) -> Comparison {
        let bad = || Verdict::Failed("x".into());
        let passed = || Verdict::Passed;
        let linux = verdicts(&[("a", passed()), ("b", passed()), ("c", passed()), ("d", bad()), ("e", passed())]);
        let ours = verdicts(&[("a", passed()), ("b", bad()), ("d", passed()), ("e", Verdict::Skipped("s".into()))]);
        let known = known.iter().map(|name| ((*name).to_owned(), "why".to_owned())).collect();
        Comparison::new("suite", [1, 1], &linux, &ours, Vec::new(), &known)
    }

    #[test]
    fn what_linux_passes_counts() {
        let result = compared(&[]);
        assert_eq!((result.linux_passed, result.both_passed, result.failed_on_linux), (4, 1, 1));
        assert_eq!(result.failures.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["b", "c", "e"]);
        assert_eq!(result.share(), Some(0.25));
        assert!(!result.is_as_expected());
    }

    #[test]
    fn the_list_has_to_be_exact() {
        assert!(compared(&["b", "c", "e"]).is_as_expected());
        let mended = compared(&["a", "b", "c", "e"]);
        assert_eq!(mended.mended, ["a"]);
        assert!(!mended.is_as_expected());
        assert_eq!(mended.json()["linux_passed"], 4);
        assert_eq!(mended.json()["share"], 0.25);
    }
}
