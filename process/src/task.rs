//! A thread as the kernel sees it.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use base::{Cred, Errno, Nanos};
use bitflags::bitflags;
use fs::{FdTable, FsContext};
use hal::sync::{Once, SpinLock};
use ipc::sysv::undo::UndoList;
use mm::AddressSpace;
use sched::{Thread, WaitQueue};

use crate::accounting::{Used, User, UserTask};
use crate::ptrace::{Stopped, Trace};
use crate::rlimit::Resource;
use crate::rseq::Rseq;
use crate::signal::queue::Queue;
use crate::signal::{Restart, SigInfo, SigSet, Signal};
use crate::user_dispatch::Dispatch;
use crate::{FsState, Pid, Process, seccomp};

/// A thread's name: at most 15 bytes and a NUL.
pub type Comm = [u8; 16];

bitflags! {
    /// What is to be done at the system calls of a thread besides making them.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct SyscallWork: u8 {
        /// It stops for its tracer.
        const TRACE = 1;
        /// It may not make all of them: [`crate::seccomp`].
        const SECCOMP = 2;
        /// Some come back to it: [`crate::user_dispatch`].
        const DISPATCH = 4;
    }
}

/// Tells a parent in vfork(2) that the child has let go of its memory.
#[derive(Default)]
pub struct Vfork {
    pub(crate) done: AtomicBool,
    pub(crate) wait: WaitQueue,
}

impl Vfork {
    /// The child has called exec or exited.
    pub(crate) fn complete(&self) {
        self.done.store(true, Ordering::SeqCst);
        self.wait.wake_all();
    }
}

/// sigaltstack(2)'s stack.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct AltStack {
    /// Lowest address.
    pub(crate) base: usize,
    /// Bytes; 0 for none.
    pub(crate) size: usize,
    /// SS_AUTODISARM or 0.
    pub(crate) flags: u32,
}

/// The last exception of a thread, for `sigcontext`.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct FaultRecord {
    /// Intel's vector number.
    pub(crate) vector: u64,
    /// The error code.
    pub(crate) code: u64,
    /// The address of a page fault.
    pub(crate) address: u64,
}

/// What fork copies or shares.
pub(crate) struct TaskParts {
    pub(crate) cred: Arc<Cred>,
    pub(crate) files: Arc<FdTable>,
    pub(crate) fs: Arc<FsState>,
    pub(crate) semaphore_undo: Option<Arc<UndoList>>,
    pub(crate) comm: Comm,
    pub(crate) blocked: SigSet,
    pub(crate) user: UserTask,
}

/// A thread of a process.
pub struct Task {
    tid: AtomicI32,
    process: Arc<Process>,
    thread: Once<Weak<Thread>>,
    comm: SpinLock<Comm>,
    /// Taken with interrupts off: seccomp's TSYNC changes it under the lock of the group, for which interrupts wait.
    cred: SpinLock<Arc<Cred>>,
    user: SpinLock<UserTask>,
    /// `None` once it has exited.
    files: SpinLock<Option<Arc<FdTable>>>,
    /// `None` once it has exited.
    fs: SpinLock<Option<Arc<FsState>>>,
    /// What it, and those it shares this with (CLONE_SYSVSEM), did to semaphores with SEM_UNDO.
    semaphore_undo: SpinLock<Option<Arc<UndoList>>>,
    /// Written by the thread itself alone.
    blocked: AtomicU64,
    /// Signals that it waits for in sigtimedwait(2) although they are blocked.
    pub(crate) awaited: AtomicU64,
    /// Copy of the queue's set, written under its lock.
    pending: AtomicU64,
    queue: SpinLock<Queue>,
    /// The mask to go back to when a call with a temporary one was interrupted.
    pub(crate) saved_mask: SpinLock<Option<SigSet>>,
    pub(crate) alt_stack: SpinLock<AltStack>,
    pub(crate) fault: SpinLock<FaultRecord>,
    pub(crate) restart: SpinLock<Option<Restart>>,
    /// Its system call failed in a way that asks for a restart.
    restarts: AtomicBool,
    /// It has to exit on its way to user mode, with this wait status.
    dying: AtomicBool,
    exit_status: AtomicI32,
    /// Stopped by job control.
    pub(crate) stopped: AtomicBool,
    pub(crate) vfork: SpinLock<Option<Arc<Vfork>>>,
    /// Where to write 0 and wake a futex at exit.
    pub(crate) clear_child_tid: AtomicUsize,
    /// set_robust_list(2)'s head.
    pub(crate) robust_list: AtomicUsize,
    pub(crate) rseq: SpinLock<Option<Rseq>>,
    /// PR_SET_PDEATHSIG.
    pub(crate) parent_death_signal: AtomicI32,
    /// personality(2).
    pub personality: AtomicU32,
    /// ioprio_set(2).
    pub io_priority: AtomicI32,
    /// PR_SET_TIMERSLACK, in nanoseconds.
    pub timer_slack: AtomicU64,
    /// Somebody traces it: copy of whether `trace` is set.
    pub(crate) traced: AtomicBool,
    /// What else is to be done at its system calls: bits of [`SyscallWork`].
    syscall_work: AtomicU8,
    /// How its system calls are restricted.
    pub(crate) seccomp: SpinLock<seccomp::Mode>,
    pub(crate) dispatch: SpinLock<Dispatch>,
    pub(crate) trace: SpinLock<Option<Trace>>,
    /// What a tracer that let go of it in a stop left: registers and a signal.
    pub(crate) left_by_tracer: SpinLock<Option<(Option<Stopped>, Option<Signal>)>>,
    /// It sleeps here while it is stopped for its tracer.
    pub(crate) trace_wait: WaitQueue,
    /// Its tracer let it go on although the process is stopped.
    pub(crate) passed_stop: AtomicBool,
    minor_faults: AtomicU64,
    major_faults: AtomicU64,
    /// When it started, on the monotonic clock.
    pub started: Nanos,
    /// The robust list and futexes were cleaned up, and so on: it is past the point where it can take signals.
    pub(crate) exiting: AtomicBool,
    /// It works for the process and is none of its threads: see [`crate::worker`].
    pub(crate) is_worker: AtomicBool,
}

impl Task {
    /// A thread of `process` that has no `sched::Thread` yet.
    pub(crate) fn new(tid: Pid, process: Arc<Process>, parts: TaskParts) -> Task {
        Task {
            tid: AtomicI32::new(tid),
            process,
            thread: Once::new(),
            comm: SpinLock::new(parts.comm),
            cred: SpinLock::new(parts.cred),
            user: SpinLock::new(parts.user),
            files: SpinLock::new(Some(parts.files)),
            fs: SpinLock::new(Some(parts.fs)),
            semaphore_undo: SpinLock::new(parts.semaphore_undo),
            blocked: AtomicU64::new(parts.blocked.0),
            awaited: AtomicU64::new(0),
            pending: AtomicU64::new(0),
            queue: SpinLock::new(Queue::new()),
            saved_mask: SpinLock::new(None),
            alt_stack: SpinLock::new(AltStack::default()),
            fault: SpinLock::new(FaultRecord::default()),
            restart: SpinLock::new(None),
            restarts: AtomicBool::new(false),
            dying: AtomicBool::new(false),
            exit_status: AtomicI32::new(0),
            stopped: AtomicBool::new(false),
            vfork: SpinLock::new(None),
            clear_child_tid: AtomicUsize::new(0),
            robust_list: AtomicUsize::new(0),
            rseq: SpinLock::new(None),
            parent_death_signal: AtomicI32::new(0),
            personality: AtomicU32::new(0),
            io_priority: AtomicI32::new(0),
            timer_slack: AtomicU64::new(50_000),
            traced: AtomicBool::new(false),
            syscall_work: AtomicU8::new(0),
            seccomp: SpinLock::new(seccomp::Mode::Off),
            dispatch: SpinLock::new(Dispatch::default()),
            trace: SpinLock::new(None),
            left_by_tracer: SpinLock::new(None),
            trace_wait: WaitQueue::new(),
            passed_stop: AtomicBool::new(false),
            minor_faults: AtomicU64::new(0),
            major_faults: AtomicU64::new(0),
            started: sched::time::now(),
            exiting: AtomicBool::new(false),
            is_worker: AtomicBool::new(false),
        }
    }

    /// Its number.
    #[inline]
    pub fn tid(&self) -> Pid {
        self.tid.load(Ordering::Relaxed)
    }

    /// exec by another thread than the leader: it takes the leader's number.
    pub(crate) fn set_tid(&self, tid: Pid) {
        self.tid.store(tid, Ordering::Relaxed);
    }

    /// The number of its process.
    #[inline]
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Is it the thread whose number the process has?
    pub fn is_leader(&self) -> bool {
        self.tid() == self.pid()
    }

    /// Its process.
    #[inline]
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// Connects it with the thread that runs it. Once.
    pub(crate) fn set_thread(&self, thread: &Arc<Thread>) {
        let _ = self.thread.set(Arc::downgrade(thread));
    }

    /// The thread that runs it; `None` once that is gone.
    pub fn thread(&self) -> Option<Arc<Thread>> {
        self.thread.get()?.upgrade()
    }

    /// Its name.
    pub fn comm(&self) -> Comm {
        *self.comm.lock()
    }

    /// Its name, without the NULs.
    pub fn comm_bytes(&self) -> alloc::vec::Vec<u8> {
        let comm = self.comm();
        let len = comm.iter().position(|&b| b == 0).unwrap_or(comm.len());
        comm[..len].to_vec()
    }

    /// Gives it a name, cut to 15 bytes.
    pub fn set_comm(&self, name: &[u8]) {
        let mut comm = [0; 16];
        let len = name.len().min(15);
        comm[..len].copy_from_slice(&name[..len]);
        *self.comm.lock() = comm;
    }

    /// Its credentials.
    #[inline]
    pub fn cred(&self) -> Arc<Cred> {
        self.cred.lock_irq().clone()
    }

    /// Gives it other credentials. Moves it to another user's count if the real user changes.
    pub fn set_cred(&self, cred: Arc<Cred>) {
        let uid = cred.uid;
        let old = core::mem::replace(&mut *self.cred.lock_irq(), cred);
        if old.uid != uid {
            let user = UserTask::new(User::of(uid));
            let left = core::mem::replace(&mut *self.user.lock_irq(), user);
            drop(left);
        }
    }

    /// Its real user. Callable with interrupts off.
    pub(crate) fn user(&self) -> Arc<User> {
        self.user.lock_irq().user().clone()
    }

    /// Its descriptors. After its exit: an empty table.
    #[inline]
    pub fn files(&self) -> Arc<FdTable> {
        self.files.lock().clone().unwrap_or_else(FdTable::new)
    }

    /// Gives it other descriptors (unshare, exec, exit); the old table back.
    pub(crate) fn set_files(&self, files: Option<Arc<FdTable>>) -> Option<Arc<FdTable>> {
        core::mem::replace(&mut *self.files.lock(), files)
    }

    /// Gives it a descriptor table of its own if it shares one (unshare(CLONE_FILES), close_range's CLOSE_RANGE_UNSHARE). `ENOMEM`.
    pub fn unshare_files(&self) -> base::Result<()> {
        let own = self.files().fork()?;
        drop(self.set_files(Some(own)));
        Ok(())
    }

    /// Its descriptors, if it has not exited.
    pub fn files_if_alive(&self) -> Option<Arc<FdTable>> {
        self.files.lock().clone()
    }

    /// Its place in the file system. Panics after exit: only for the calling thread.
    pub fn fs(&self) -> Arc<FsState> {
        self.fs_if_alive().expect("a running thread is somewhere")
    }

    /// Its place in the file system, if it has not exited.
    pub fn fs_if_alive(&self) -> Option<Arc<FsState>> {
        self.fs.lock().clone()
    }

    /// Gives it another place holder (unshare, exit).
    pub(crate) fn set_fs(&self, fs: Option<Arc<FsState>>) {
        let old = core::mem::replace(&mut *self.fs.lock(), fs);
        drop(old);
    }

    /// The number of its list of what it has to undo to semaphores, if it has one.
    pub fn semaphore_undo_number(&self) -> Option<u64> {
        self.semaphore_undo.lock().as_ref().map(|list| list.number())
    }

    /// What is to be undone to semaphores when it and those it shares this with have ended.
    pub fn semaphore_undo(&self) -> Arc<UndoList> {
        self.semaphore_undo.lock().get_or_insert_with(UndoList::new).clone()
    }

    /// What tells whether two tasks share that: an address, 0 for nothing yet.
    pub fn semaphore_undo_address(&self) -> usize {
        self.semaphore_undo.lock().as_ref().map_or(0, |list| Arc::as_ptr(list).addr())
    }

    /// Parts with what it shared, which is undone if it was the last (exit, unshare(CLONE_SYSVSEM)).
    pub fn leave_semaphore_undo(&self) {
        let left = self.semaphore_undo.lock().take();
        drop(left);
    }

    /// What file operations need to know of it.
    pub fn fs_context(&self) -> FsContext {
        let fs = self.fs();
        let (cwd, root) = fs.places();
        FsContext { cred: self.cred(), cwd, root, umask: fs.umask() }
    }

    /// Its memory. Panics after exit: only for the calling thread.
    #[inline]
    pub fn address_space(&self) -> Arc<AddressSpace> {
        self.process.address_space().expect("a running thread has memory")
    }

    /// A limit of its process: soft and hard.
    #[inline]
    pub fn rlimit(&self, resource: Resource) -> (u64, u64) {
        let limit = self.process.limit(resource);
        (limit.soft, limit.hard)
    }

    /// Sends the process a signal on the kernel's behalf of a call of this thread (SIGPIPE for EPIPE, SIGXFSZ): to this thread.
    pub fn raise(self: &Task, signal: Signal) {
        let info = SigInfo::from_user(signal, crate::signal::send::SI_USER, self.pid(), self.cred().uid);
        crate::signal::send::to_self(self, info);
    }

    /// The signals it blocks.
    #[inline]
    pub fn blocked(&self) -> SigSet {
        SigSet(self.blocked.load(Ordering::SeqCst))
    }

    /// Stores the mask alone; see [`crate::signal::set_mask`].
    pub(crate) fn store_blocked(&self, mask: SigSet) {
        self.blocked.store(mask.without(SigSet::UNBLOCKABLE).0, Ordering::SeqCst);
    }

    /// Signals pending for this thread alone.
    pub fn own_pending(&self) -> SigSet {
        SigSet(self.pending.load(Ordering::SeqCst))
    }

    /// Is there a signal to deliver, or another reason to go through [`crate::signal::before_user`]?
    #[inline]
    pub fn has_signal(&self) -> bool {
        !self.own_pending().or(self.process.pending()).without(self.blocked()).is_empty() || self.is_dying()
    }

    /// Changes the queue of this thread and keeps the copy of its set.
    pub(crate) fn with_queue<R>(&self, f: impl FnOnce(&mut Queue) -> R) -> R {
        let mut queue = self.queue.lock_irq();
        let result = f(&mut queue);
        self.pending.store(queue.set().0, Ordering::SeqCst);
        result
    }

    pub(crate) fn discard_pending(&self, signals: SigSet) {
        if !self.own_pending().and(signals).is_empty() {
            self.with_queue(|queue| queue.discard(signals));
        }
    }

    /// Makes it exit with `status` on its way to user mode, and cuts every killable sleep short.
    pub(crate) fn make_exit(&self, status: i32) {
        self.exit_status.store(status, Ordering::SeqCst);
        self.dying.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread() {
            thread.interrupt_fatal();
        }
    }

    /// Does it have to exit?
    #[inline]
    pub fn is_dying(&self) -> bool {
        self.dying.load(Ordering::SeqCst)
    }

    /// The wait status that it exits with.
    pub(crate) fn exit_status(&self) -> i32 {
        self.exit_status.load(Ordering::SeqCst)
    }

    /// The dispatcher's note that a call failed with `error`: where that asks for a restart, it is decided on the way to user mode,
    /// which this makes the thread pass through.
    #[inline]
    pub fn note_restart(&self, error: Errno) {
        if error.code() >= Errno::ERESTARTSYS.code()
            && let Some(thread) = self.thread()
        {
            self.restarts.store(true, Ordering::Relaxed);
            thread.interrupt();
        }
    }

    /// Was a restart noted since the last call of this?
    pub(crate) fn take_restart_note(&self) -> bool {
        self.restarts.load(Ordering::Relaxed) && self.restarts.swap(false, Ordering::Relaxed)
    }

    /// set_tid_address(2): where to write 0 and wake a futex at exit.
    pub fn set_clear_child_tid(&self, at: usize) {
        self.clear_child_tid.store(at, Ordering::Relaxed);
    }

    /// What [`Task::set_clear_child_tid`] set.
    pub fn clear_child_tid(&self) -> usize {
        self.clear_child_tid.load(Ordering::Relaxed)
    }

    /// set_robust_list(2).
    pub fn set_robust_list(&self, head: usize) {
        self.robust_list.store(head, Ordering::Relaxed);
    }

    /// get_robust_list(2).
    pub fn robust_list(&self) -> usize {
        self.robust_list.load(Ordering::Relaxed)
    }

    /// Notes how restart_syscall(2) goes on with the call that now fails with `ERESTART_RESTARTBLOCK`.
    pub fn set_restart(&self, restart: Restart) {
        *self.restart.lock() = Some(restart);
    }

    /// Takes that note.
    pub fn take_restart(&self) -> Option<Restart> {
        self.restart.lock().take()
    }

    /// unshare(CLONE_FS).
    pub fn replace_fs(&self, fs: FsState) {
        self.set_fs(Some(Arc::new(fs)));
    }

    /// PR_SET_PDEATHSIG.
    pub fn set_parent_death_signal(&self, signal: Option<Signal>) {
        self.parent_death_signal.store(signal.map_or(0, Signal::number), Ordering::Relaxed);
    }

    /// PR_GET_PDEATHSIG.
    pub fn parent_death_signal(&self) -> Option<Signal> {
        Signal::new(self.parent_death_signal.load(Ordering::Relaxed)).ok()
    }

    /// What else is to be done at its system calls.
    #[inline]
    pub fn syscall_work(&self) -> SyscallWork {
        SyscallWork::from_bits_retain(self.syscall_work.load(Ordering::Relaxed))
    }

    pub(crate) fn add_syscall_work(&self, work: SyscallWork) {
        self.syscall_work.fetch_or(work.bits(), Ordering::SeqCst);
    }

    pub(crate) fn remove_syscall_work(&self, work: SyscallWork) {
        self.syscall_work.fetch_and(!work.bits(), Ordering::SeqCst);
    }

    /// Counts a page fault.
    pub fn count_fault(&self, major: bool) {
        let counter = if major { &self.major_faults } else { &self.minor_faults };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// What it has used so far. Callable with interrupts off.
    pub fn used(&self) -> Used {
        let mut used = Used {
            minor_faults: self.minor_faults.load(Ordering::Relaxed),
            major_faults: self.major_faults.load(Ordering::Relaxed),
            ..Used::default()
        };
        if let Some(thread) = self.thread() {
            used.add_times(&thread.times());
        }
        used
    }

    /// The state letter of `/proc/PID/stat`.
    pub fn state_letter(&self) -> char {
        if self.exiting.load(Ordering::Relaxed) {
            return if self.process.has_ended() || self.thread().is_none() { 'Z' } else { 'R' };
        }
        if self.traced.load(Ordering::Relaxed) && crate::ptrace::is_stopped(self) {
            return 't';
        }
        if self.stopped.load(Ordering::Relaxed) {
            return 'T';
        }
        self.thread().map_or('Z', |thread| thread.state_letter())
    }
}

/// The calling thread. Panics in a kernel thread.
pub fn current() -> Arc<Task> {
    try_current().expect("a user thread")
}

/// The calling thread, if it is a user thread.
pub fn try_current() -> Option<Arc<Task>> {
    sched::with_current(|thread| thread.ext::<Arc<Task>>().cloned())
}

/// Runs `f` on the calling thread, without counting a reference. Panics in a kernel thread.
#[inline]
pub fn with_current<R>(f: impl FnOnce(&Task) -> R) -> R {
    sched::with_current(|thread| f(thread.ext::<Arc<Task>>().expect("a user thread")))
}

/// The extension that a thread carries.
pub(crate) fn as_ext(task: &Arc<Task>) -> Box<dyn core::any::Any + Send + Sync> {
    Box::new(task.clone())
}
