//! What programs say that run many tests by the kernel's test harness (kselftest_harness.h): lines
//! of the Test Anything Protocol, with the test's name in each.
//!
//! Other programs that speak TAP have no names, but numbers and free text: those go by their status, and
//! have failed as well if they say so of a part.

use crate::say;

/// True if a line says that something failed that should not.
pub(crate) fn is_failure(line: &str) -> bool {
    let excused = || ["# SKIP", "# TODO", "# XFAIL"].iter().any(|word| line.to_uppercase().contains(word));
    line.starts_with("not ok ") && !excused()
}

/// What a line tells about a test.
#[derive(Debug, PartialEq)]
pub(crate) enum Said {
    Start(String),
    Ok(String),
    Skip(String, String),
    Fail(String),
}

/// Listens to one program.
#[derive(Default)]
pub(crate) struct Harness {
    /// The program uses the harness.
    there: bool,
    /// The test that runs.
    running: String,
}

impl Harness {
    /// Reads a line.
    pub(crate) fn hear(&mut self, line: &str) -> Option<Said> {
        self.there |= line.starts_with("# Starting ") && line.contains(" test cases");
        if !self.there {
            return None;
        }
        if let Some(rest) = line.strip_prefix("#  RUN ") {
            self.running = rest.trim().trim_end_matches("...").trim().to_owned();
            return Some(Said::Start(self.running.clone()));
        }
        let (passed, rest) = match line.strip_prefix("ok ") {
            Some(rest) => (true, rest),
            None => (false, line.strip_prefix("not ok ")?),
        };
        let (_, name) = rest.split_once(' ')?;
        let (name, note) = name.split_once(" # ").unwrap_or((name, ""));
        // What is skipped comes without its name from older harnesses.
        if let Some(why) = name.strip_prefix("# SKIP").filter(|_| passed) {
            return Some(Said::Skip(self.running.clone(), why.trim().to_owned()));
        }
        let name = name.trim().to_owned();
        Some(match (passed, note.strip_prefix("SKIP")) {
            (true, Some(why)) => Said::Skip(name, why.trim().to_owned()),
            (true, None) => Said::Ok(name),
            (false, _) => Said::Fail(name),
        })
    }
}

impl Said {
    /// The test that runs now.
    pub(crate) fn current(&self, item: &str) -> Option<String> {
        match self {
            Said::Start(test) => Some(format!("{item} {test}")),
            _ => None,
        }
    }

    /// Tells the world outside.
    pub(crate) fn pass_on(&self, item: &str) {
        let name = |test: &str| format!("{item} {test}");
        match self {
            Said::Start(test) => say(&["start", &name(test)]),
            Said::Ok(test) => say(&["ok", &name(test)]),
            Said::Skip(test, why) => say(&["skip", &name(test), why]),
            Said::Fail(test) => say(&["fail", &name(test), "see the log"]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_without_names() {
        assert!(is_failure("not ok 3 - x") && !is_failure("ok 3 - not ok") && !is_failure("not ok 3 x # SKIP no y"));
    }

    #[test]
    fn lines_of_the_harness() {
        let mut harness = Harness::default();
        assert_eq!(harness.hear("ok 1 a.b"), None);
        assert_eq!(harness.hear("# Starting 2 tests from 1 test cases."), None);
        assert_eq!(harness.hear("#  RUN           a.b ..."), Some(Said::Start("a.b".into())));
        assert_eq!(harness.hear("#            OK  a.b"), None);
        assert_eq!(harness.hear("ok 1 a.b"), Some(Said::Ok("a.b".into())));
        assert_eq!(harness.hear("not ok 2 a.c"), Some(Said::Fail("a.c".into())));
        let skipped = Said::Skip("a.d".into(), "no such thing".into());
        assert_eq!(harness.hear("ok 3 a.d # SKIP no such thing"), Some(skipped));
        harness.hear("#  RUN           a.e ...");
        assert_eq!(harness.hear("ok 4 # SKIP not here"), Some(Said::Skip("a.e".into(), "not here".into())));
    }
}
