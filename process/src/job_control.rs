//! What terminals have to do with sessions.

use hal::sync::Once;

use crate::Pid;

/// What process asks of the terminals; registered by the layer that knows both.
pub trait Terminals: Send + Sync {
    /// The leader of session `sid` exits: its controlling terminal, if any, is hung up and taken from the session.
    fn session_leader_exits(&self, sid: Pid);
    /// Device number of the session's controlling terminal (0 for none) and its foreground process group (-1 for none).
    fn of_session(&self, sid: Pid) -> (u32, Pid);
}

static TERMINALS: Once<&'static dyn Terminals> = Once::new();

/// Registers the terminals. Once, at boot.
pub fn set_terminals(terminals: &'static dyn Terminals) {
    let _ = TERMINALS.set(terminals);
}

pub(crate) fn session_leader_exits(sid: Pid) {
    if let Some(terminals) = TERMINALS.get() {
        terminals.session_leader_exits(sid);
    }
}

/// Device number of the session's controlling terminal and its foreground process group, for `/proc/PID/stat`.
pub fn terminal_of(sid: Pid) -> (u32, Pid) {
    TERMINALS.get().map_or((0, -1), |terminals| terminals.of_session(sid))
}
