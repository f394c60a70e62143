//! What became of each test.

use super::suites::Item;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Passed,
    /// It does not apply, and why.
    Skipped(String),
    Failed(String),
}

/// The tests of one item.
pub(super) type Tests = BTreeMap<String, Verdict>;
/// The tests of all items.
pub(super) type Verdicts = BTreeMap<String, Tests>;

impl Verdict {
    pub(super) fn to_json(&self) -> Value {
        match self {
            Verdict::Passed => json!(["passed"]),
            Verdict::Skipped(why) => json!(["skipped", why]),
            Verdict::Failed(why) => json!(["failed", why]),
        }
    }

    pub(super) fn from_json(value: &Value) -> Option<Verdict> {
        let why = || value[1].as_str().map(str::to_owned);
        match value[0].as_str()? {
            "passed" => Some(Verdict::Passed),
            "skipped" => Some(Verdict::Skipped(why()?)),
            "failed" => Some(Verdict::Failed(why()?)),
            _ => None,
        }
    }

    fn is_worse_than(&self, other: &Verdict) -> bool {
        let badness = |verdict: &Verdict| match verdict {
            Verdict::Passed => 0,
            Verdict::Skipped(_) => 1,
            Verdict::Failed(_) => 2,
        };
        badness(self) > badness(other)
    }
}

/// Notes a verdict; where a test has two, the worse counts.
pub(super) fn note(tests: &mut Tests, name: &str, verdict: Verdict) {
    let known = tests.entry(name.to_owned()).or_insert_with(|| verdict.clone());
    if verdict.is_worse_than(known) {
        *known = verdict;
    }
}

/// The items with tests that Linux passes and Quintet did not, reduced to these tests.
pub(super) fn worth_another_try(items: &[Item], on_linux: &Verdicts, on_quintet: &Verdicts) -> Vec<Item> {
    let retry = |item: &Item| {
        let failed: Vec<String> = failed_tests(&item.name, on_linux, on_quintet).map(str::to_owned).collect();
        (!failed.is_empty()).then(|| Item { only: failed, ..item.clone() })
    };
    items.iter().filter_map(retry).collect()
}

fn failed_tests<'a>(item: &str, on_linux: &'a Verdicts, on_quintet: &'a Verdicts) -> impl Iterator<Item = &'a str> {
    let ours = on_quintet.get(item);
    let passed = on_linux.get(item).into_iter().flatten().filter(|(_, verdict)| **verdict == Verdict::Passed);
    passed
        .filter(move |(name, _)| !matches!(ours.and_then(|tests| tests.get(*name)), Some(Verdict::Passed)))
        .map(|(name, _)| name.as_str())
}

/// Takes over what passed the second time, and names it.
pub(super) fn take_over_passed(verdicts: &mut Verdicts, second: Verdicts, on_linux: &Verdicts) -> Vec<String> {
    let mut unsteady = Vec::new();
    for (item, tests) in second {
        let first = verdicts.entry(item.clone()).or_default();
        for (name, verdict) in tests {
            let counts = on_linux.get(&item).and_then(|tests| tests.get(&name)) == Some(&Verdict::Passed);
            if verdict == Verdict::Passed && counts && first.insert(name.clone(), verdict) != Some(Verdict::Passed) {
                unsteady.push(name);
            }
        }
    }
    unsteady
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(list: &[(&str, Verdict)]) -> Verdicts {
        let tests = list.iter().map(|(name, verdict)| ((*name).to_owned(), verdict.clone())).collect();
        Verdicts::from([("item".to_owned(), tests)])
    }

    #[test]
    fn the_worse_verdict_counts() {
        let mut tests = Tests::new();
        note(&mut tests, "a", Verdict::Failed("x".into()));
        note(&mut tests, "a", Verdict::Passed);
        assert_eq!(tests["a"], Verdict::Failed("x".into()));
    }

    #[test]
    fn only_what_linux_passes_is_tried_again() {
        let bad = || Verdict::Failed("x".into());
        let linux = verdicts(&[("a", Verdict::Passed), ("b", bad()), ("c", Verdict::Passed), ("d", Verdict::Passed)]);
        let mut ours = verdicts(&[("a", bad()), ("b", bad()), ("c", Verdict::Passed)]);
        let again = worth_another_try(&[Item::program("item", "x")], &linux, &ours);
        assert_eq!(again[0].only, ["a", "d"]);
        let second = verdicts(&[("a", Verdict::Passed), ("d", bad())]);
        assert_eq!(take_over_passed(&mut ours, second, &linux), ["a"]);
        assert_eq!(ours["item"]["a"], Verdict::Passed);
        assert_eq!(ours["item"].get("d"), None);
    }

    #[test]
    fn verdicts_survive_json() {
        for verdict in [Verdict::Passed, Verdict::Skipped("x".into()), Verdict::Failed("y".into())] {
            assert_eq!(Verdict::from_json(&verdict.to_json()), Some(verdict));
        }
    }
}
