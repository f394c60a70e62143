//! The end of threads and processes.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use base::Errno;
use hal::sync::Once;
use hal::user::UserPtr;

use crate::accounting::{Used, to_ticks};
use crate::group::{Group, Life};
use crate::signal::send::{self, end_all};
use crate::signal::{SIGCHLD, SIGCONT, SIGHUP, SigFields, SigInfo, Signal, info_codes, mask, stop};
use crate::worker::Leaving;
use crate::{Pid, Process, Task, job_control, tree};

/// The wait status of an exit with `code`.
pub const fn exited(code: i32) -> i32 {
    (code & 0xff) << 8
}

/// What happens when the first process ends: set by the kernel at boot, given the wait status.
static INIT_ENDED: Once<fn(i32)> = Once::new();

/// Sets what happens when the first process ends.
pub fn set_init_ended(f: fn(i32)) {
    let _ = INIT_ENDED.set(f);
}

/// exit(2): the calling thread ends on its way to user mode, with wait status `status`.
pub fn exit(task: &Task, status: i32) {
    task.make_exit(status);
}

/// exit_group(2), or death by a signal: the whole process ends with wait status `status`.
pub fn exit_group(task: &Task, status: i32) {
    end_all(&mut task.process().group.lock_irq(), status);
}

/// Ends the calling thread. Nothing may be owned by the caller's stack.
pub(crate) fn exit_thread() -> ! {
    crate::with_current(leave);
    sched::thread::exit_current()
}

fn leave(task: &Task) {
    if task.is_worker.load(Ordering::Relaxed) {
        return crate::worker::leave(task);
    }
    let process = task.process().clone();
    crate::worker::thread_leaves(task, Leaving::Thread);
    task.exiting.store(true, Ordering::SeqCst);
    if task.traced.load(Ordering::SeqCst) {
        crate::ptrace::tracee_exits(task, task.exit_status());
    }
    release_memory(task);
    // From here on it needs no user memory: with the last thread's hold the pages go, before the parent learns of the end.
    if let Some(thread) = task.thread() {
        thread.drop_page_table();
    }
    task.leave_semaphore_undo();
    task.leave_seccomp();
    drop(task.set_files(None));
    task.set_fs(None);
    let leader = task.is_leader();
    let me = leave_group(task, &process);
    mask::retarget(task, process.pending());
    if me.last {
        end_process(&process, me.status);
    }
    if !leader {
        let removed = tree::lock().tasks.remove(&task.tid());
        drop(removed);
    }
    if let Some(signal) = me.stopped {
        stop::tell_parent(&process, info_codes::CLD_STOPPED, signal.number());
    }
    process.exit_wait.wake_all();
    if me.last {
        tell_parent_of_end(&process, me.status);
    }
}

/// What other threads of this memory have to learn: robust futexes, the word of CLONE_CHILD_CLEARTID, vfork's parent.
pub(crate) fn release_memory(task: &Task) {
    let list = task.robust_list.swap(0, Ordering::Relaxed);
    if list != 0 {
        ipc::futex::robust::exit(&task.address_space(), list, task.tid() as u32);
    }
    let word = task.clear_child_tid.swap(0, Ordering::Relaxed);
    if word != 0 && UserPtr::<u32>::new(word).write(&0).is_ok() {
        let _ = ipc::futex::wake(&task.address_space(), word, true, 1, u32::MAX);
    }
    finish_vfork(task);
}

/// Lets a parent that waits in vfork(2) go on.
pub(crate) fn finish_vfork(task: &Task) {
    let vfork = task.vfork.lock().take();
    if let Some(vfork) = vfork {
        vfork.complete();
    }
}

struct Left {
    /// It was the last thread.
    last: bool,
    /// The wait status of the process, if so.
    status: i32,
    /// Its going completed a stop.
    stopped: Option<Signal>,
}

fn leave_group(task: &Task, process: &Arc<Process>) -> Left {
    let used = task.used();
    let mut group = process.group.lock_irq();
    group.used.add(&used);
    task.discard_pending(crate::signal::SigSet::ALL);
    let at = group.threads.iter().position(|thread| core::ptr::eq(&**thread, task));
    let removed = at.map(|at| group.threads.remove(at));
    let last = group.threads.is_empty();
    // The process's status is that of exit_group or of the signal; without either, the leader's own.
    if task.is_leader() {
        group.leader_status = task.exit_status();
    }
    let status = group.exit.unwrap_or(group.leader_status);
    if last {
        group.exit = Some(status);
    }
    let stopped = if last { None } else { stop::complete(process, &mut group) };
    drop(group);
    drop(removed);
    Left { last, status, stopped }
}

/// The last thread is gone: what the process as a whole owned.
fn end_process(process: &Arc<Process>, status: i32) {
    crate::with_current(|task| crate::worker::thread_leaves(task, Leaving::Process));
    process.timers.clear();
    crate::ptrace::tracer_exits(process);
    if let Some(space) = process.set_address_space(None) {
        let peak = space.usage().peak_rss as u64 * 4;
        let mut group = process.group.lock_irq();
        group.used.max_rss = group.used.max_rss.max(peak);
        drop(group);
        drop(space);
    }
    process.set_exe(None);
    if process.is_init() {
        log::error!("the first process ended with wait status {status:#x}");
        if let Some(ended) = INIT_ENDED.get() {
            ended(status);
        }
    }
    if process.sid() == process.pid() {
        job_control::session_leader_exits(process.pid());
    }
    give_children_away(process);
}

/// Children go to a subreaper or to the first process; groups that lose their last link to the session are hung up.
fn give_children_away(process: &Arc<Process>) {
    let pid = process.pid();
    let mut tree = tree::lock();
    let own_group = process.pgid();
    let heir_pid = tree.heir(pid);
    let children = tree.relations.get(pid).map_or_else(Vec::new, |node| node.children.clone());
    let mut watched: Vec<Pid> = Vec::new();
    for child in &children {
        let group = tree.relations.get(*child).map_or(0, |node| node.group);
        if group != own_group && !watched.contains(&group) && !tree.is_orphaned(group, 0) {
            watched.push(group);
        }
    }
    if !tree.is_orphaned(own_group, 0) {
        watched.push(own_group);
    }
    tree.relations.give_children(pid, heir_pid);
    for child in &children {
        tree.refresh(*child);
    }
    process.group.lock_irq().life = Life::Zombie;
    let heir = tree.processes.get(&heir_pid).cloned();
    let orphans: Vec<Arc<Process>> = children.iter().filter_map(|pid| tree.processes.get(pid)).cloned().collect();
    let newly: Vec<Vec<Arc<Process>>> =
        watched.iter().filter(|&&group| tree.is_orphaned(group, pid)).map(|&group| tree.group(group)).collect();
    drop(tree);
    for orphan in &orphans {
        send_death_signal(orphan);
        if orphan.is_zombie() {
            let status = orphan.exit_status().unwrap_or(0);
            orphan.exit_signal.store(SIGCHLD.number(), Ordering::Relaxed);
            tell_parent_of_end(orphan, status);
        }
    }
    if let Some(heir) = heir {
        heir.child_wait.wake_all();
    }
    for members in newly {
        hang_up(&members, pid);
    }
}

/// PR_SET_PDEATHSIG of the threads of a process whose parent has died.
fn send_death_signal(orphan: &Arc<Process>) {
    for thread in orphan.threads() {
        let signal = thread.parent_death_signal.load(Ordering::Relaxed);
        if let Ok(Some(signal)) = Signal::or_zero(signal) {
            let _ = send::to_process(orphan, SigInfo::kernel(signal));
        }
    }
}

/// POSIX: a newly orphaned group with a stopped member gets SIGHUP and SIGCONT.
fn hang_up(members: &[Arc<Process>], except: Pid) {
    let stopped = |p: &Arc<Process>| p.pid() != except && p.group.lock_irq().stop.is_some_and(|stop| stop.complete);
    if !members.iter().any(stopped) {
        return;
    }
    for member in members {
        let _ = send::to_process(member, SigInfo::kernel(SIGHUP));
        let _ = send::to_process(member, SigInfo::kernel(SIGCONT));
    }
}

/// Tells the parent by the exit signal and wakes its waiters; removes the process at once if the parent does not want to know.
fn tell_parent_of_end(process: &Arc<Process>, status: i32) {
    let pid = process.pid();
    let (parent, leader) = {
        let tree = tree::lock();
        (tree.parent(pid).cloned(), tree.tasks.get(&pid).cloned())
    };
    let Some(parent) = parent else { return };
    let exit_signal = Signal::new(process.exit_signal.load(Ordering::Relaxed)).ok();
    let action = parent.actions().get(SIGCHLD);
    let unwanted =
        exit_signal == Some(SIGCHLD) && (action.is_ignore() || action.flags & crate::signal::SA_NOCLDWAIT != 0);
    if let Some(signal) = exit_signal.filter(|_| !(unwanted && action.is_ignore())) {
        let uid = leader.map_or(0, |leader| leader.cred().uid);
        let _ = send::to_process(&parent, child_info(process, signal, status, uid));
    }
    if unwanted {
        let mut tree = tree::lock();
        reap(&mut tree, process, None);
        let graves = core::mem::take(&mut tree.graveyard);
        drop(tree);
        drop(graves);
    }
    parent.child_wait.wake_all();
}

/// The siginfo of a child that ended with wait status `status`.
pub(crate) fn child_info(process: &Process, signal: Signal, status: i32, uid: u32) -> SigInfo {
    let (code, value) = info_codes::of_status(status);
    let (user, system) = process.cpu_time();
    let fields = SigFields::Child {
        pid: process.pid(),
        uid,
        status: value,
        utime: to_ticks(user) as i64,
        stime: to_ticks(system) as i64,
    };
    SigInfo { signal, errno: 0, code, fields }
}

/// Takes a zombie out of the tree, and adds what it used to its parent's account. What it used, itself and its children.
pub(crate) fn reap(tree: &mut tree::Tree, process: &Arc<Process>, parent: Option<&Process>) -> Option<Used> {
    let mut group = process.group.lock_irq();
    if group.life != Life::Zombie {
        return None;
    }
    group.life = Life::Reaped;
    let mut used = group.used;
    used.add(&group.children_used);
    drop(group);
    let removed = tree.remove_process(process.pid());
    // Dropping the last references frees memory and may close files: not under the tree's lock.
    tree.graveyard.push(removed);
    if let Some(parent) = parent {
        parent.group.lock_irq().children_used.add(&used);
    }
    Some(used)
}

/// Ends all threads but the calling one, and waits until they are gone: exec's first step. `EAGAIN` where another thread got there
/// first, or the process is ending.
pub(crate) fn end_other_threads(task: &Task) -> base::Result<()> {
    let process = task.process();
    {
        let mut group = process.group.lock_irq();
        if group.exit.is_some() || group.exec.is_some() {
            return Err(Errno::EAGAIN);
        }
        if group.threads.len() == 1 {
            return Ok(());
        }
        group.exec = Some(task.tid());
        stop::resume(process, &mut group, false);
        for other in group.threads.iter().filter(|other| !core::ptr::eq(&***other, task)) {
            other.make_exit(0);
        }
    }
    let alone = || (group_len(&process.group.lock_irq()) == 1).then_some(());
    let waited = process.exit_wait.wait_until(sched::Sleep::Killable, None, alone);
    process.group.lock_irq().exec = None;
    waited.map_err(|_| Errno::EAGAIN)
}

fn group_len(group: &Group) -> usize {
    group.threads.len()
}

/// The calling thread, alone in its process by now, takes the leader's number if it is not the leader.
pub(crate) fn become_leader(task: &Task) {
    let pid = task.pid();
    let tid = task.tid();
    if tid == pid {
        return;
    }
    let mut tree = tree::lock();
    let me = tree.tasks.remove(&tid);
    task.set_tid(pid);
    let old = me.and_then(|me| tree.tasks.insert(pid, me));
    drop(tree);
    drop(old);
}
