//! fork(2), vfork(2), clone(2), clone3(2).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use base::{Capability, Errno, Result};
use hal::regs::UserRegs;
use hal::user::UserPtr;
use mm::AddressSpace;
use sched::thread::UserStart;
use sched::{Sleep, Thread};

use crate::accounting::{UserTask, UserTasks};
use crate::rlimit::Resource;
use crate::signal::{Actions, SIGCHLD};
use crate::task::{AltStack, TaskParts};
use crate::{Pid, Process, Task, Vfork, pidfd, ptrace, tree};

/// The flags of clone(2), by Linux's values.
#[allow(missing_docs, reason = "clone(2) documents each")]
pub mod flags {
    pub const CLONE_NEWTIME: u64 = 0x80;
    pub const CLONE_VM: u64 = 0x100;
    pub const CLONE_FS: u64 = 0x200;
    pub const CLONE_FILES: u64 = 0x400;
    pub const CLONE_SIGHAND: u64 = 0x800;
    pub const CLONE_PIDFD: u64 = 0x1000;
    pub const CLONE_PTRACE: u64 = 0x2000;
    pub const CLONE_VFORK: u64 = 0x4000;
    pub const CLONE_PARENT: u64 = 0x8000;
    pub const CLONE_THREAD: u64 = 0x1_0000;
    pub const CLONE_NEWNS: u64 = 0x2_0000;
    pub const CLONE_SYSVSEM: u64 = 0x4_0000;
    pub const CLONE_SETTLS: u64 = 0x8_0000;
    pub const CLONE_PARENT_SETTID: u64 = 0x10_0000;
    pub const CLONE_CHILD_CLEARTID: u64 = 0x20_0000;
    pub const CLONE_DETACHED: u64 = 0x40_0000;
    pub const CLONE_UNTRACED: u64 = 0x80_0000;
    pub const CLONE_CHILD_SETTID: u64 = 0x100_0000;
    pub const CLONE_NEWCGROUP: u64 = 0x200_0000;
    pub const CLONE_NEWUTS: u64 = 0x400_0000;
    pub const CLONE_NEWIPC: u64 = 0x800_0000;
    pub const CLONE_NEWUSER: u64 = 0x1000_0000;
    pub const CLONE_NEWPID: u64 = 0x2000_0000;
    pub const CLONE_NEWNET: u64 = 0x4000_0000;
    pub const CLONE_IO: u64 = 0x8000_0000;
    pub const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    pub const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    /// All that ask for a new namespace.
    pub const NAMESPACES: u64 = CLONE_NEWTIME
        | CLONE_NEWNS
        | CLONE_NEWCGROUP
        | CLONE_NEWUTS
        | CLONE_NEWIPC
        | CLONE_NEWUSER
        | CLONE_NEWPID
        | CLONE_NEWNET;
}
use flags::*;

/// What clone3(2) takes; the other calls are special cases.
#[derive(Clone, Default, Debug)]
pub struct CloneArgs {
    /// CLONE_*.
    pub flags: u64,
    /// Where the pidfd's number goes.
    pub pidfd: usize,
    /// CLONE_CHILD_SETTID, CLONE_CHILD_CLEARTID.
    pub child_tid: usize,
    /// CLONE_PARENT_SETTID.
    pub parent_tid: usize,
    /// What the parent gets when the child ends, 0 for nothing.
    pub exit_signal: i32,
    /// The stack pointer, 0 for the parent's.
    pub stack: usize,
    /// CLONE_SETTLS: the FS base.
    pub tls: usize,
    /// The number that the child must get.
    pub set_tid: Option<Pid>,
}

fn validate(task: &Task, args: &CloneArgs) -> Result<()> {
    let has = |flag: u64| args.flags & flag != 0;
    if has(CLONE_SETTLS) && args.tls >= hal::user::USER_END {
        return Err(Errno::EPERM);
    }
    let wrong = has(CLONE_NEWNS) && has(CLONE_FS)
        || has(CLONE_NEWUSER) && has(CLONE_FS)
        || has(CLONE_THREAD) && !has(CLONE_SIGHAND)
        || has(CLONE_SIGHAND) && !has(CLONE_VM)
        || has(CLONE_PARENT) && task.process().is_init()
        || has(CLONE_THREAD) && has(CLONE_NEWUSER | CLONE_NEWPID)
        || has(CLONE_PIDFD) && has(CLONE_THREAD | CLONE_DETACHED)
        || has(CLONE_CLEAR_SIGHAND) && has(CLONE_SIGHAND);
    if wrong {
        return Err(Errno::EINVAL);
    }
    may_make_namespaces(task, args.flags)?;
    if has(CLONE_INTO_CGROUP) {
        return Err(Errno::EINVAL);
    }
    if has(CLONE_SETTLS) && args.tls >= hal::user::USER_END {
        return Err(Errno::EPERM);
    }
    Ok(())
}

/// May the thread make the namespaces that `flags` of clone(2) or unshare(2) ask for? `EPERM`; `EINVAL` for a kind of which there is one
/// only, as on a Linux without them, where the unprivileged are refused before that shows.
pub fn may_make_namespaces(task: &Task, flags: u64) -> Result<()> {
    if flags & NAMESPACES != 0 && flags & CLONE_NEWUSER == 0 && !task.cred().capable(Capability::SysAdmin) {
        return Err(Errno::EPERM);
    }
    if flags & NAMESPACES & !CLONE_NEWNS != 0 { Err(Errno::EINVAL) } else { Ok(()) }
}

fn check_limits(task: &Task) -> Result<()> {
    let cred = task.cred();
    let exempt = cred.uid == 0 || cred.capable(Capability::SysResource) || cred.capable(Capability::SysAdmin);
    let count = UserTasks::of(cred.uid).count() as u64;
    if !exempt && count >= task.rlimit(Resource::Nproc).0 {
        return Err(Errno::EAGAIN);
    }
    if mm::frames::pressure() > mm::frames::Pressure::None {
        return Err(Errno::ENOMEM);
    }
    Ok(())
}

/// Makes a child process or thread of the calling thread, whose registers are `regs`; its number. With CLONE_VFORK, after it has
/// called exec or exited. `EINVAL`, `EPERM`, `EAGAIN` (limits), `ENOMEM`, `EFAULT`, `EEXIST`, `ERESTARTNOINTR` (a signal came first).
pub fn clone(task: &Task, regs: &mut UserRegs, args: &CloneArgs) -> Result<Pid> {
    validate(task, args)?;
    check_limits(task)?;
    let tid = match args.set_tid {
        Some(tid) => {
            task.cred().capable(Capability::CheckpointRestore).then_some(()).ok_or(Errno::EPERM)?;
            tree::lock().allocate_exactly(tid)?
        }
        None => tree::lock().allocate()?,
    };
    let made = make(task, regs, args, tid);
    let (child, thread) = match made {
        Ok(made) => made,
        Err(error) => {
            tree::lock().release(tid);
            return Err(error);
        }
    };
    let vfork = (args.flags & CLONE_VFORK != 0).then(|| Arc::new(Vfork::default()));
    child.vfork.lock().clone_from(&vfork);
    let event = traced_clone(task, &child, args);
    drop(child);
    thread.start();
    drop(thread);
    if let Some(event) = event {
        ptrace::event(task, regs, event, tid as u64);
    }
    if let Some(vfork) = vfork {
        // Only a fatal signal ends this early; the child then goes on alone.
        let _ = vfork.wait.wait_until(Sleep::Killable, None, || vfork.done.load(Ordering::SeqCst).then_some(()));
        if event.is_some() {
            ptrace::event(task, regs, ptrace::Event::VforkDone, tid as u64);
        }
    }
    Ok(tid)
}

/// If the caller's tracer wants to follow it: traces the child too, and says which event that is.
fn traced_clone(task: &Task, child: &Arc<Task>, args: &CloneArgs) -> Option<ptrace::Event> {
    if !task.traced.load(Ordering::SeqCst) || args.flags & CLONE_UNTRACED != 0 {
        return None;
    }
    let event = ptrace::clone_event(task, args.flags & CLONE_VFORK != 0, args.exit_signal);
    if event.is_some() || args.flags & CLONE_PTRACE != 0 {
        ptrace::inherit(task, child);
    }
    event
}

fn make(task: &Task, regs: &UserRegs, args: &CloneArgs, tid: Pid) -> Result<(Arc<Task>, Arc<Thread>)> {
    let has = |flag: u64| args.flags & flag != 0;
    let process = if has(CLONE_THREAD) { task.process().clone() } else { Arc::new(new_process(task, args, tid)?) };
    let child = Arc::new(new_task(task, args, tid, process.clone())?);
    let space = process.address_space().ok_or(Errno::ENOMEM)?;
    let start = UserStart {
        regs: child_regs(regs, args),
        first: first_steps(args),
        page_table: space.page_table().clone(),
        inherit: true,
    };
    let thread = Thread::new_user(start, crate::task::as_ext(&child)).ok_or(Errno::ENOMEM)?;
    child.set_thread(&thread);
    if has(CLONE_PARENT_SETTID) {
        UserPtr::new(args.parent_tid).write(&tid)?;
    }
    let pidfd = if has(CLONE_PIDFD) { Some(pidfd::install_at(task, &process, args.pidfd)?) } else { None };
    if let Err(error) = attach(task, &child, args) {
        if let Some(fd) = pidfd {
            let _ = task.files().close(fd);
        }
        return Err(error);
    }
    Ok((child, thread))
}

fn child_regs(regs: &UserRegs, args: &CloneArgs) -> UserRegs {
    let mut child = *regs;
    child.rax = 0;
    child.orig_rax = usize::MAX;
    if args.stack != 0 {
        child.rsp = args.stack;
    }
    child
}

/// What the child does in the kernel before it enters user mode.
fn first_steps(args: &CloneArgs) -> Box<dyn FnOnce(&mut UserRegs) + Send> {
    let tls = (args.flags & CLONE_SETTLS != 0).then_some(args.tls);
    let child_tid = (args.flags & CLONE_CHILD_SETTID != 0).then_some(args.child_tid);
    Box::new(move |_| {
        // The number of the parent's processor came with its rseq area.
        sched::with_current(|thread| thread.task().set_work(hal::task::work::RSEQ));
        if let Some(base) = tls {
            // `validate` saw that it is in the user half.
            let _ = sched::with_current(|thread| thread.task().set_fs_base(base));
        }
        if let Some(at) = child_tid {
            // As on Linux, a bad address is the child's loss.
            let _ = UserPtr::new(at).write(&crate::with_current(Task::tid));
        }
    })
}

fn new_process(task: &Task, args: &CloneArgs, pid: Pid) -> Result<Process> {
    let parent = task.process();
    let actions = if args.flags & CLONE_SIGHAND != 0 {
        parent.actions()
    } else {
        let copy = parent.actions().duplicate();
        if args.flags & CLONE_CLEAR_SIGHAND != 0 {
            copy.reset_handlers();
        }
        Arc::new(copy)
    };
    let exit_signal =
        if args.flags & CLONE_PARENT != 0 { parent.exit_signal.load(Ordering::Relaxed) } else { args.exit_signal };
    let process = Process::new(pid, parent.limits(), actions, exit_signal);
    let space = task.address_space();
    let space: Arc<AddressSpace> = if args.flags & CLONE_VM != 0 { space } else { space.fork()? };
    process.set_address_space(Some(space));
    process.set_exe(parent.exe());
    process.set_image(parent.image());
    process.set_dumpable(parent.dumpable());
    process.oom_score_adj.store(parent.oom_score_adj.load(Ordering::Relaxed), Ordering::Relaxed);
    for (new, old) in process.login.iter().zip(&parent.login) {
        new.store(old.load(Ordering::Relaxed), Ordering::Relaxed);
    }
    process.membarrier.store(parent.membarrier.load(Ordering::Relaxed), Ordering::Relaxed);
    Ok(process)
}

fn new_task(task: &Task, args: &CloneArgs, tid: Pid, process: Arc<Process>) -> Result<Task> {
    let has = |flag: u64| args.flags & flag != 0;
    let files = if has(CLONE_FILES) { task.files() } else { task.files().fork()? };
    let fs = match args.flags & (CLONE_FS | CLONE_NEWNS) {
        0 => Arc::new(task.fs().duplicate()),
        CLONE_NEWNS => Arc::new(task.fs().with_own_namespace()),
        _ => task.fs(),
    };
    let cred = task.cred();
    let user = UserTask::new(UserTasks::of(cred.uid));
    let semaphore_undo = has(CLONE_SYSVSEM).then(|| task.semaphore_undo());
    let parts = TaskParts { cred, files, fs, semaphore_undo, comm: task.comm(), blocked: task.blocked(), user };
    let child = Task::new(tid, process, parts);
    if !has(CLONE_VM) || has(CLONE_VFORK) {
        *child.alt_stack.lock() = *task.alt_stack.lock();
    } else {
        *child.alt_stack.lock() = AltStack::default();
    }
    if !has(CLONE_VM) {
        *child.rseq.lock() = *task.rseq.lock();
    }
    if has(CLONE_CHILD_CLEARTID) {
        child.clear_child_tid.store(args.child_tid, Ordering::Relaxed);
    }
    child.personality.store(task.personality.load(Ordering::Relaxed), Ordering::Relaxed);
    child.io_priority.store(task.io_priority.load(Ordering::Relaxed), Ordering::Relaxed);
    child.timer_slack.store(task.timer_slack.load(Ordering::Relaxed), Ordering::Relaxed);
    Ok(child)
}

/// Makes the child visible, unless a signal came for the caller: the signal goes first, so that one sent to a whole group can't miss
/// a child.
fn attach(task: &Task, child: &Arc<Task>, args: &CloneArgs) -> Result<()> {
    let process = child.process();
    let mut threads = Vec::new();
    threads.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
    let mut tree = tree::lock();
    if task.has_signal() {
        return Err(Errno::ERESTARTNOINTR);
    }
    if args.flags & CLONE_THREAD != 0 {
        let mut group = process.group.lock_irq();
        if group.exit.is_some() || group.exec.is_some() {
            return Err(Errno::ERESTARTNOINTR);
        }
        child.inherit_seccomp(task);
        group.threads.push(child.clone());
        drop(group);
        tree.add_task(child);
        if process.stop_requested.load(Ordering::SeqCst)
            && let Some(thread) = child.thread()
        {
            thread.interrupt();
        }
        return Ok(());
    }
    threads.push(child.clone());
    {
        let _group = task.process().group.lock_irq();
        child.inherit_seccomp(task);
    }
    process.group.lock_irq().threads = threads;
    let parent = if args.flags & CLONE_PARENT != 0 { task.process().ppid() } else { task.pid() };
    tree.add_task(child);
    tree.add_process(process, parent, task.pid());
    Ok(())
}

/// The arguments of fork(2).
pub fn fork_args() -> CloneArgs {
    CloneArgs { exit_signal: SIGCHLD.number(), ..CloneArgs::default() }
}

/// The arguments of vfork(2).
pub fn vfork_args() -> CloneArgs {
    CloneArgs { flags: CLONE_VM | CLONE_VFORK, ..fork_args() }
}

/// A fresh table of signal actions, for the first process.
pub(crate) fn initial_actions() -> Arc<Actions> {
    Arc::new(Actions::new())
}
