//! What `quintet` says and returns when it cannot do what it was asked.

use std::fmt;

/// `quintet` itself failed.
pub const FAILED: u8 = 125;
/// The guest's kernel panicked.
pub const PANICKED: u8 = 123;
/// `--timeout` ran out.
pub const TIMED_OUT: u8 = 124;

/// What happened, why, and what to do next.
#[derive(Debug)]
pub struct Failure {
    /// The exit status.
    pub status: u8,
    what: String,
    why: Option<String>,
    next: Option<String>,
}

impl Failure {
    /// A failure of `quintet` itself.
    pub fn new(what: impl Into<String>) -> Failure {
        Failure { status: FAILED, what: what.into(), why: None, next: None }
    }

    /// With another exit status.
    pub fn status(mut self, status: u8) -> Failure {
        self.status = status;
        self
    }

    /// With its cause.
    pub fn because(mut self, why: impl fmt::Display) -> Failure {
        let why = why.to_string();
        self.why = (!why.trim().is_empty()).then(|| why.trim().to_owned());
        self
    }

    /// With advice.
    pub fn advise(mut self, next: impl Into<String>) -> Failure {
        self.next = Some(next.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "quintet: {}", self.what)?;
        if let Some(why) = &self.why {
            write!(f, ": {}", why.replace('\n', "\n    "))?;
        }
        if let Some(next) = &self.next {
            write!(f, "\n  {next}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// Gives an error of another kind its place in a [`Failure`].
pub trait Context<T> {
    /// Says what could not be done.
    fn or_fail(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> Context<T> for Result<T, E> {
    fn or_fail(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(what()).because(error))
    }
}
