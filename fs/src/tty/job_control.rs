//! What terminals need to know of processes.

use alloc::sync::Arc;

use base::{Errno, Result};
use hal::sync::Once;

/// The process that calls, as terminals see it.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// Its process id.
    pub pid: i32,
    /// Its process group.
    pub group: i32,
    /// Its session.
    pub session: i32,
    /// Is it the session's leader?
    pub is_leader: bool,
    /// Is its process group orphaned?
    pub orphaned: bool,
}

/// Answers about processes, given by the layer that has them.
pub trait JobControl: Send + Sync {
    /// Who calls. `None` in a kernel thread.
    fn caller(&self) -> Option<Caller>;
    /// Does the caller block or ignore the signal?
    fn caller_ignores(&self, signal: i32) -> bool;
    /// Sends a signal to all of a process group.
    fn signal_group(&self, group: i32, signal: i32);
    /// Sends a signal to the leader of a session.
    fn signal_leader(&self, session: i32, signal: i32);
    /// The session of a process group, if there is such a group.
    fn session_of_group(&self, group: i32) -> Option<i32>;
    /// The controlling terminal of the caller's session.
    fn terminal(&self) -> Option<Arc<super::Tty>>;
    /// Makes a terminal the controlling one of a session, or takes it away (`None`).
    fn set_terminal(&self, session: i32, tty: Option<Arc<super::Tty>>);
}

static JOB_CONTROL: Once<Arc<dyn JobControl>> = Once::new();

/// Sets who answers. Once, at boot.
pub fn set_job_control(answers: Arc<dyn JobControl>) {
    assert!(JOB_CONTROL.set(answers).is_ok(), "job control is set twice");
}

/// Who answers; `ENOTTY` before anybody does.
pub(crate) fn job_control() -> Result<&'static dyn JobControl> {
    JOB_CONTROL.get().map(|j| &**j).ok_or(Errno::ENOTTY)
}
