//! The command line of `cargo xtask bench`.

use super::suites::{self, Suite};
use crate::Failure;
use std::path::PathBuf;

/// What to measure, and how.
#[derive(Debug, Default)]
pub(super) struct Options {
    suites: Vec<String>,
    rounds: Option<usize>,
    quick: bool,
    pub(super) cpus: String,
    pub(super) accel: String,
    pub(super) icount: bool,
    /// The revision to compare with, instead of Linux.
    pub(super) against: Option<String>,
    pub(super) json: Option<PathBuf>,
    pub(super) plot: Option<PathBuf>,
}

impl Options {
    pub(super) fn takes(&self, suite: &str) -> bool {
        self.suites.iter().any(|taken| taken == suite)
    }

    /// How often each side runs a suite.
    pub(super) fn rounds_of(&self, suite: &Suite) -> usize {
        match (self.rounds, self.icount, self.quick) {
            (Some(rounds), ..) => rounds,
            (None, true, _) => 1,
            (None, false, true) => suite.quick_rounds,
            (None, false, false) => suite.rounds,
        }
    }
}

/// Reads the command line.
pub(super) fn parse(arguments: &[String]) -> Result<Options, Failure> {
    let mut options = Options { accel: "tcg".into(), ..Options::default() };
    let mut words = arguments.iter();
    let mut cpus = None;
    while let Some(word) = words.next() {
        let mut value = || words.next().cloned().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--quick" => options.quick = true,
            "--icount" => options.icount = true,
            "--rounds" => options.rounds = Some(number(&value()?)?),
            "--cpus" => cpus = Some(number(&value()?)?),
            // Whether there is KVM must not change from one guest to the next.
            "--accel" => options.accel = value()?,
            "--against" => options.against = Some(value()?),
            "--json" => options.json = Some(value()?.into()),
            "--plot" => options.plot = Some(value()?.into()),
            option if option.starts_with('-') => return Err(format!("bench has no option {option}")),
            name if suites::ALL.iter().any(|suite| suite.name == name) => options.suites.push(name.to_owned()),
            other => return Err(format!("no suite {other}; there are: {}", names(|_| true).join(", "))),
        }
    }
    if options.icount {
        if cpus.is_some_and(|cpus| cpus != 1) || options.accel != "tcg" {
            return Err("--icount has one CPU, and needs --accel tcg".into());
        }
        let unsuited = suites::ALL.iter().find(|suite| !suite.icount && options.takes(suite.name));
        if let Some(suite) = unsuited {
            return Err(format!("--icount does not suit {}, which goes by the clock", suite.name));
        }
    }
    if options.suites.is_empty() {
        let (quick, icount) = (options.quick, options.icount);
        options.suites = names(|suite| (suite.icount || !icount) && (suite.quick_rounds > 0 || !quick));
    }
    options.cpus = cpus.unwrap_or(1).to_string();
    Ok(options)
}

fn names(which: impl Fn(&Suite) -> bool) -> Vec<String> {
    suites::ALL.iter().filter(|suite| which(suite)).map(|suite| suite.name.to_owned()).collect()
}

fn number(text: &str) -> Result<usize, Failure> {
    text.parse().ok().filter(|number| *number > 0).ok_or(format!("{text} is not a number above 0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, Failure> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read() {
        let options = parsed("--quick").expect("good options");
        assert!(options.takes("micro") && options.takes("boot") && !options.takes("apps"));
        let options = parsed("--icount --json x --against HEAD~1").expect("good options");
        assert!(options.takes("micro") && !options.takes("perf") && options.cpus == "1");
        assert_eq!(options.rounds_of(&suites::ALL[0]), 1);
        for bad in ["--rounds 0", "--rounds", "nano", "--fast", "--icount --cpus 2", "perf --icount", "--against"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }
}
