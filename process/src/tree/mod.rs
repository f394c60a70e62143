//! All tasks and processes by number, under one lock.

mod ids;
mod relations;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use base::{Errno, Result};
use hal::sync::{IrqSpinGuard, SpinLock};

use crate::{Pid, Process, Task};

pub(crate) use ids::Ids;
pub(crate) use relations::Relations;

/// A process and its leader, taken out of the tree.
pub(crate) type Removed = (Option<Arc<Process>>, Option<Arc<Task>>);

/// Everything by number.
pub(crate) struct Tree {
    pub(crate) relations: Relations,
    pub(crate) tasks: BTreeMap<Pid, Arc<Task>>,
    pub(crate) processes: BTreeMap<Pid, Arc<Process>>,
    ids: Ids,
    /// Taken out, to be dropped after the lock.
    pub(crate) graveyard: Vec<Removed>,
}

static TREE: SpinLock<Tree> = SpinLock::new(Tree {
    relations: Relations::new(),
    tasks: BTreeMap::new(),
    processes: BTreeMap::new(),
    ids: Ids::new(),
    graveyard: Vec::new(),
});

/// Takes the tree's lock.
pub(crate) fn lock() -> IrqSpinGuard<'static, Tree> {
    TREE.lock_irq()
}

impl Tree {
    fn is_used(&self, id: Pid) -> bool {
        self.tasks.contains_key(&id) || self.processes.contains_key(&id) || self.relations.is_group_or_session(id)
    }

    /// Reserves a number for a new task. `EAGAIN` where all are used.
    pub(crate) fn allocate(&mut self) -> Result<Pid> {
        let mut ids = core::mem::take(&mut self.ids);
        let id = ids.allocate(|id| self.is_used(id));
        self.ids = ids;
        id
    }

    /// Reserves the number that clone3's set_tid asks for. `EEXIST`, `EINVAL`.
    pub(crate) fn allocate_exactly(&mut self, id: Pid) -> Result<Pid> {
        if id < 1 || id >= self.ids.max {
            return Err(Errno::EINVAL);
        }
        if self.is_used(id) || self.ids.reserved.contains(&id) {
            return Err(Errno::EEXIST);
        }
        self.ids.reserved.push(id);
        Ok(id)
    }

    /// Gives back a number that was reserved but not used.
    pub(crate) fn release(&mut self, id: Pid) {
        self.ids.reserved.retain(|&reserved| reserved != id);
    }

    /// Makes a task visible under its number.
    pub(crate) fn add_task(&mut self, task: &Arc<Task>) {
        self.release(task.tid());
        self.tasks.insert(task.tid(), task.clone());
    }

    /// Adds a process: a child of `parent`, in the group and session of `like`.
    pub(crate) fn add_process(&mut self, process: &Arc<Process>, parent: Pid, like: Pid) {
        self.relations.insert(process.pid(), parent, like);
        self.processes.insert(process.pid(), process.clone());
        self.refresh(process.pid());
    }

    /// Takes a process and its leader out.
    pub(crate) fn remove_process(&mut self, pid: Pid) -> Removed {
        self.relations.remove(pid);
        (self.processes.remove(&pid), self.tasks.remove(&pid))
    }

    /// Writes what the relations say into the copies that the process keeps.
    pub(crate) fn refresh(&self, pid: Pid) {
        if let (Some(process), Some(node)) = (self.processes.get(&pid), self.relations.get(pid)) {
            process.ppid.store(node.parent, Ordering::Relaxed);
            process.pgid.store(node.group, Ordering::Relaxed);
            process.sid.store(node.session, Ordering::Relaxed);
        }
    }

    /// The parent of a process.
    pub(crate) fn parent(&self, pid: Pid) -> Option<&Arc<Process>> {
        self.processes.get(&self.relations.get(pid)?.parent)
    }

    /// Who adopts the children of `pid`: its nearest living ancestor that is a subreaper, or the first process.
    pub(crate) fn heir(&self, pid: Pid) -> Pid {
        self.relations
            .ancestors(pid)
            .find(|ancestor| self.processes.get(ancestor).is_some_and(|p| p.is_subreaper() && !p.has_ended()))
            .unwrap_or(1)
    }

    /// Is the group orphaned, apart from `ignoring`?
    pub(crate) fn is_orphaned(&self, group: Pid, ignoring: Pid) -> bool {
        self.relations.is_orphaned(group, ignoring, |pid| self.processes.get(&pid).is_some_and(|p| !p.has_ended()))
    }

    /// The processes of a group.
    pub(crate) fn group(&self, group: Pid) -> Vec<Arc<Process>> {
        self.relations.members(group).iter().filter_map(|pid| self.processes.get(pid)).cloned().collect()
    }
}

/// The thread with number `tid`.
pub fn task(tid: Pid) -> Option<Arc<Task>> {
    lock().tasks.get(&tid).cloned()
}

/// The process with number `pid`, a zombie included.
pub fn process(pid: Pid) -> Option<Arc<Process>> {
    lock().processes.get(&pid).cloned()
}

/// The first process with a number of at least `from`: for walking `/proc`.
pub fn next_process(from: Pid) -> Option<Arc<Process>> {
    lock().processes.range(from..).next().map(|(_, process)| process.clone())
}

/// All processes, by number.
pub fn processes() -> Vec<Arc<Process>> {
    lock().processes.values().cloned().collect()
}

/// The processes of a process group.
pub fn group(pgid: Pid) -> Vec<Arc<Process>> {
    lock().group(pgid)
}

/// The children of a process, oldest first.
pub fn children(pid: Pid) -> Vec<Pid> {
    lock().relations.get(pid).map_or_else(Vec::new, |node| node.children.clone())
}

/// The session of a process group, if the group exists.
pub fn session_of_group(pgid: Pid) -> Option<Pid> {
    lock().relations.session_of_group(pgid)
}

/// Is the process group orphaned? (Then background reads from its terminal fail rather than stop it.)
pub fn is_orphaned(pgid: Pid) -> bool {
    lock().is_orphaned(pgid, 0)
}

/// Tasks now, and the number given out last: for `/proc/loadavg`, sysinfo(2).
pub fn count() -> (usize, Pid) {
    let tree = lock();
    (tree.tasks.len(), tree.ids.last)
}

/// One past the highest number (`kernel.pid_max`).
pub fn pid_max() -> Pid {
    lock().ids.max
}

/// Sets `kernel.pid_max`. `EINVAL`.
pub fn set_pid_max(max: Pid) -> Result<()> {
    if !(301..=ids::PID_MAX_LIMIT).contains(&max) {
        return Err(Errno::EINVAL);
    }
    lock().ids.max = max;
    Ok(())
}

/// setsid(2): the new session. `EPERM`.
pub fn new_session(pid: Pid) -> Result<Pid> {
    let mut tree = lock();
    tree.relations.new_session(pid)?;
    tree.refresh(pid);
    Ok(pid)
}

/// setpgid(2), its arguments as they come. `EINVAL`, `ESRCH`, `EPERM`, `EACCES` (the child has called exec).
pub fn set_group(caller: Pid, pid: Pid, group: Pid) -> Result<()> {
    let pid = if pid == 0 { caller } else { pid };
    let group = if group == 0 { pid } else { group };
    if group < 0 {
        return Err(Errno::EINVAL);
    }
    let mut tree = lock();
    let process = tree.processes.get(&pid).cloned().ok_or(Errno::ESRCH)?;
    let is_child = tree.relations.get(pid).is_some_and(|node| node.parent == caller);
    let same_session = tree.relations.get(caller).map(|n| n.session) == tree.relations.get(pid).map(|n| n.session);
    if pid != caller && is_child && same_session && process.did_exec.load(Ordering::Relaxed) {
        return Err(Errno::EACCES);
    }
    tree.relations.set_group(caller, pid, group)?;
    tree.refresh(pid);
    Ok(())
}
