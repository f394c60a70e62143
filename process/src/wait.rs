//! Waiting for children: wait4(2), waitid(2).

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use base::{Errno, Result};
use sched::{Sleep, WaitError};

use crate::accounting::Used;
use crate::group::Life;
use crate::signal::{SIGCHLD, SIGCONT, info_codes};
use crate::tree::{self, Tree};
use crate::{Pid, Process, Task, exit, ptrace};

/// WNOHANG.
pub const WNOHANG: u32 = 1;
/// WUNTRACED, which waitid calls WSTOPPED.
pub const WUNTRACED: u32 = 2;
/// WEXITED.
pub const WEXITED: u32 = 4;
/// WCONTINUED.
pub const WCONTINUED: u32 = 8;
/// WNOWAIT.
pub const WNOWAIT: u32 = 0x0100_0000;
/// __WNOTHREAD: accepted; children belong to the process, not to a thread of it.
pub const WNOTHREAD: u32 = 0x2000_0000;
/// __WALL.
pub const WALL: u32 = 0x4000_0000;
/// __WCLONE.
pub const WCLONE: u32 = 0x8000_0000;

/// Which children.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// Any.
    Any,
    /// That one.
    Process(Pid),
    /// Those of a process group.
    Group(Pid),
}

/// What became of a child.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Which child.
    pub pid: Pid,
    /// Its real user.
    pub uid: u32,
    /// CLD_* as in siginfo.
    pub code: i32,
    /// Exit code or signal, as in siginfo.
    pub value: i32,
    /// The status as wait4 gives it.
    pub status: i32,
    /// What it used.
    pub used: Used,
}

/// Waits for a child of the calling process to change state. `Ok(None)`: with WNOHANG, nothing yet. `ECHILD`; `ERESTARTSYS`.
pub fn wait(task: &Task, which: Which, options: u32) -> Result<Option<Report>> {
    let process = task.process();
    let scan = || match scan(process, which, options) {
        Ok(None) if options & WNOHANG == 0 => None,
        other => Some(other),
    };
    match process.child_wait.wait_until(Sleep::Interruptible, None, scan) {
        Ok(result) => result,
        Err(WaitError::Interrupted | WaitError::TimedOut) => Err(Errno::ERESTARTSYS),
    }
}

fn scan(parent: &Arc<Process>, which: Which, options: u32) -> Result<Option<Report>> {
    let (traces, report) = scan_tracees(parent, which, options);
    if report.is_some() {
        return Ok(report);
    }
    match scan_children(parent, which, options) {
        Err(Errno::ECHILD) if traces => Ok(None),
        result => result,
    }
}

/// Threads that the caller traces: whether it traces one of those it asks about, and what there is to report.
fn scan_tracees(tracer: &Process, which: Which, options: u32) -> (bool, Option<Report>) {
    let keep = options & WNOWAIT != 0;
    let mut any = false;
    for task in tracer.tracees.lock_irq().iter() {
        let chosen = match which {
            Which::Any => true,
            Which::Process(pid) => task.tid() == pid,
            Which::Group(group) => task.process().pgid() == group,
        };
        any |= chosen;
        if chosen && let Some(code) = ptrace::take_report(task, keep) {
            let (uid, used) = (task.cred().uid, task.used());
            let status = code << 8 | 0x7f;
            return (
                true,
                Some(Report { pid: task.tid(), uid, code: info_codes::CLD_TRAPPED, value: code, status, used }),
            );
        }
    }
    let mut lost = tracer.lost_tracees.lock_irq();
    let asked = |pid: Pid| which == Which::Any || which == Which::Process(pid);
    let Some(at) = lost.iter().position(|(pid, _)| asked(*pid)) else { return (any, None) };
    let (pid, status) = if keep { lost[at] } else { lost.swap_remove(at) };
    let (code, value) = info_codes::of_status(status);
    (true, Some(Report { pid, uid: 0, code, value, status, used: Used::NONE }))
}

fn scan_children(parent: &Arc<Process>, which: Which, options: u32) -> Result<Option<Report>> {
    let mut tree = tree::lock();
    let children = tree.relations.get(parent.pid()).map_or(&[][..], |node| &node.children);
    let mut candidates = children.iter().filter_map(|pid| tree.processes.get(pid)).filter(|child| {
        let chosen = match which {
            Which::Any => true,
            Which::Process(pid) => child.pid() == pid,
            Which::Group(group) => child.pgid() == group,
        };
        chosen && kind_matches(child, options)
    });
    let mut any = false;
    let found = candidates.find_map(|child| {
        any = true;
        look_at(child, options).map(|what| (child.clone(), what))
    });
    let Some((child, what)) = found else {
        return if any { Ok(None) } else { Err(Errno::ECHILD) };
    };
    let report = report(&mut tree, parent, &child, what, options);
    let graves = core::mem::take(&mut tree.graveyard);
    drop(tree);
    drop(graves);
    Ok(Some(report))
}

/// Children whose exit signal is not SIGCHLD are "clone children".
fn kind_matches(child: &Process, options: u32) -> bool {
    let is_clone = child.exit_signal.load(Ordering::Relaxed) != SIGCHLD.number();
    options & WALL != 0 || is_clone == (options & WCLONE != 0)
}

#[derive(Clone, Copy)]
enum What {
    Ended(i32),
    Stopped(i32),
    Continued,
}

fn look_at(child: &Process, options: u32) -> Option<What> {
    let mut group = child.group.lock_irq();
    if group.life == Life::Zombie {
        return (options & WEXITED != 0).then_some(What::Ended(group.exit.unwrap_or(0)));
    }
    let keep = options & WNOWAIT != 0;
    if options & WUNTRACED != 0
        && let Some(signal) = group.stop_to_report
    {
        if !keep {
            group.stop_to_report = None;
        }
        return Some(What::Stopped(signal.number()));
    }
    if options & WCONTINUED != 0 && group.continue_to_report {
        group.continue_to_report = keep;
        return Some(What::Continued);
    }
    None
}

fn report(tree: &mut Tree, parent: &Process, child: &Arc<Process>, what: What, options: u32) -> Report {
    let uid = tree.tasks.get(&child.pid()).map_or(0, |leader| leader.cred().uid);
    let mut used = child.group.lock_irq().used;
    used.add(&child.group.lock_irq().children_used);
    let (code, value, status) = match what {
        What::Ended(status) => {
            if options & WNOWAIT == 0 {
                exit::reap(tree, child, Some(parent));
            }
            let (code, value) = info_codes::of_status(status);
            (code, value, status)
        }
        What::Stopped(signal) => (info_codes::CLD_STOPPED, signal, signal << 8 | 0x7f),
        What::Continued => (info_codes::CLD_CONTINUED, SIGCONT.number(), 0xffff),
    };
    Report { pid: child.pid(), uid, code, value, status, used }
}
