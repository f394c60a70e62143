//! Sessions and their controlling terminals: what terminals ask of processes, and the other way round.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use fs::tty::{Caller, JobControl, Tty};
use hal::sync::SpinLock;

use crate::signal::{SigInfo, Signal, send};
use crate::{Pid, tree, try_current};

/// The controlling terminal of each session that has one.
static TERMINALS: SpinLock<BTreeMap<Pid, Arc<Tty>>> = SpinLock::new(BTreeMap::new());

struct Answers;

impl JobControl for Answers {
    fn caller(&self) -> Option<Caller> {
        let task = try_current()?;
        let process = task.process();
        let (pid, group, session) = (process.pid(), process.pgid(), process.sid());
        Some(Caller { pid, group, session, is_leader: session == pid, orphaned: tree::is_orphaned(group) })
    }

    fn caller_ignores(&self, signal: i32) -> bool {
        let (Some(task), Ok(signal)) = (try_current(), Signal::new(signal)) else { return false };
        task.blocked().has(signal) || task.process().actions().get(signal).is_ignore()
    }

    fn signal_group(&self, group: i32, signal: i32) {
        if let Ok(signal) = Signal::new(signal) {
            send::to_group(group, SigInfo::kernel(signal));
        }
    }

    fn signal_leader(&self, session: i32, signal: i32) {
        if let (Some(leader), Ok(signal)) = (tree::process(session), Signal::new(signal)) {
            // A leader that is just ending needs no signal any more.
            let _ = send::to_process(&leader, SigInfo::kernel(signal));
        }
    }

    fn session_of_group(&self, group: i32) -> Option<i32> {
        tree::session_of_group(group)
    }

    fn terminal(&self) -> Option<Arc<Tty>> {
        let session = try_current()?.process().sid();
        TERMINALS.lock_irq().get(&session).cloned()
    }

    fn set_terminal(&self, session: i32, tty: Option<Arc<Tty>>) {
        let mut terminals = TERMINALS.lock_irq();
        let old = match tty {
            Some(tty) => terminals.insert(session, tty),
            None => terminals.remove(&session),
        };
        // The last reference to a terminal does more than free memory.
        drop(terminals);
        drop(old);
    }
}

/// Gives the terminals who answers. Once, at boot.
pub(crate) fn register() {
    fs::tty::set_job_control(Arc::new(Answers));
}

/// The leader of session `sid` exits: its terminal is free for another.
pub(crate) fn session_leader_exits(sid: Pid) {
    let terminal = TERMINALS.lock_irq().remove(&sid);
    if let Some(terminal) = terminal {
        terminal.leader_exits();
    }
}

/// Device number (as in `/proc/PID/stat`) of the session's controlling terminal, 0 for none, and its foreground process group, -1 for none.
pub fn terminal_of(sid: Pid) -> (u32, Pid) {
    let terminal = TERMINALS.lock_irq().get(&sid).cloned();
    terminal.map_or((0, -1), |tty| {
        let device = tty.number;
        let number = device.major << 8 | device.minor & 0xff | (device.minor & !0xff) << 12;
        (number, tty.foreground())
    })
}
