//! `cargo xtask conformance`: test-suites that nobody here wrote, on Debian's Linux and on Quintet.
//!
//! [`suites`] says what there is to run; [`guest`] runs items in guests, one after the other, and
//! starts a new guest where one hangs or panics; [`linux`] keeps what Linux gave; [`expected`] is the
//! list of failures that are known and explained; [`report`] compares.

mod built;
mod expected;
mod golang;
mod guest;
mod liburing;
mod linux;
mod record;
mod report;
mod runtimes;
mod selftests;
mod suites;
mod verdict;

use crate::guest::Kernel;
use crate::workspace::root;
use crate::{Failure, Outcome, build, setup};
use expected::Known;
use record::Record;
use report::Comparison;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use suites::{Item, Suite};
use verdict::Verdicts;

/// What to run, and how.
#[derive(Default)]
struct Options {
    suites: Vec<String>,
    /// Only items with one of these words in their names.
    words: Vec<String>,
    quick: bool,
    fresh: bool,
    json: Option<PathBuf>,
}

/// Runs the suites on both kernels and compares.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let options = parse(arguments)?;
    let expected = expected::read(&root().join("conformance/expected.toml"))?;
    setup::ensure(setup::RUN)?;
    build::all()?;
    let runner = build::for_guest("conformance-runner")?;
    let mut record = options.json.clone().map(Record::open);
    let (mut comparisons, mut not_run) = (Vec::new(), Vec::new());
    for suite in suites::all().into_iter().filter(|suite| options.suites.contains(&suite.name.to_owned())) {
        let known = expected.get(suite.name).cloned().unwrap_or_default();
        let result = compare(&suite, &runner, &options, &known);
        if let Some(record) = &mut record {
            record.put(suite.name, &result)?;
        }
        match result {
            Ok(comparison) => comparisons.push(comparison),
            Err(why) => {
                eprintln!("{}: {why}", suite.name);
                not_run.push(format!("{}: {why}", suite.name));
            }
        }
    }
    print!("{}", report::text(&comparisons, &not_run));
    let good = not_run.is_empty() && comparisons.iter().all(Comparison::is_as_expected);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a suite on both kernels. It fails where the suite can't be had or no guest comes up.
fn compare(suite: &Suite, runner: &Path, options: &Options, known: &Known) -> Result<Comparison, Failure> {
    (suite.prepare)()?;
    let all = (suite.items)()?;
    let there = all.len();
    let items = chosen(suite, all, options)?;
    let machine = guest::Machine { suite, runner };
    let on_linux = linux::verdicts(&machine, &items, options.fresh)?;
    let (on_quintet, unsteady) = on_quintet(&machine, &items, &on_linux)?;
    Ok(Comparison::new(suite.name, [items.len(), there], &on_linux, &on_quintet, unsteady, known))
}

/// Runs the items of which Linux passes anything, and what failed here but not there once more; the tests
/// that passed only then.
fn on_quintet(
    machine: &guest::Machine,
    items: &[Item],
    on_linux: &Verdicts,
) -> Result<(Verdicts, Vec<String>), Failure> {
    let passed = |tests: &verdict::Tests| tests.values().any(|verdict| *verdict == verdict::Verdict::Passed);
    let items: Vec<Item> = items.iter().filter(|item| on_linux.get(&item.name).is_some_and(passed)).cloned().collect();
    let mut verdicts = guest::run(machine, Kernel::Quintet, "first", &items, &mut |_, _| {})?;
    let again = verdict::worth_another_try(&items, on_linux, &verdicts);
    if again.is_empty() {
        return Ok((verdicts, Vec::new()));
    }
    eprintln!("{}: once more on Quintet what failed there and not on Linux", machine.suite.name);
    let second = guest::run(machine, Kernel::Quintet, "second", &again, &mut |_, _| {})?;
    let unsteady = verdict::take_over_passed(&mut verdicts, second, on_linux);
    Ok((verdicts, unsteady))
}

fn chosen(suite: &Suite, items: Vec<Item>, options: &Options) -> Result<Vec<Item>, Failure> {
    let wanted = |item: &Item| options.words.is_empty() || options.words.iter().any(|word| item.name.contains(word));
    let items: Vec<Item> = items.into_iter().filter(|item| (item.quick || !options.quick) && wanted(item)).collect();
    if items.is_empty() {
        return Err(format!("{}: no item has such a name", suite.name));
    }
    Ok(items)
}

fn parse(arguments: &[String]) -> Result<Options, Failure> {
    let mut options = Options::default();
    let names: Vec<&str> = suites::all().iter().map(|suite| suite.name).collect();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().cloned().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--quick" => options.quick = true,
            "--fresh" => options.fresh = true,
            "--item" => options.words.push(value()?),
            "--json" => options.json = Some(value()?.into()),
            option if option.starts_with('-') => return Err(format!("conformance has no option {option}")),
            suite if names.contains(&suite) => options.suites.push(suite.to_owned()),
            other => return Err(format!("no suite {other}; there are: {}", names.join(", "))),
        }
    }
    if options.suites.is_empty() {
        options.suites = names.iter().map(|&name| name.to_owned()).collect();
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, Failure> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read() {
        let options = parsed("cpython --quick --item os --json x").expect("good options");
        assert!(options.quick && options.suites == ["cpython"] && options.words == ["os"] && options.json.is_some());
        assert_eq!(parsed("").expect("all suites").suites.len(), suites::all().len());
        for bad in ["haskell", "--fast", "--json", "--item"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }
}
