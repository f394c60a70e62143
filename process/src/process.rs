//! A process: what its threads share.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use base::Nanos;
use fs::OpenFile;
use hal::sync::SpinLock;
use mm::AddressSpace;
use sched::WaitQueue;

use crate::accounting::Used;
use crate::group::{Group, Life};
use crate::rlimit::{Limit, Limits, Resource};
use crate::signal::{Actions, SigSet};
use crate::timer::Timers;
use crate::{Pid, Task};

/// Where exec put things, for `/proc/PID/{stat,cmdline,environ,auxv}` and PR_SET_MM. Addresses in the process's memory.
#[derive(Clone, Default, Debug)]
#[allow(missing_docs, reason = "as proc(5) names them")]
pub struct Image {
    pub start_code: usize,
    pub end_code: usize,
    pub start_data: usize,
    pub end_data: usize,
    pub start_brk: usize,
    pub start_stack: usize,
    pub arg_start: usize,
    pub arg_end: usize,
    pub env_start: usize,
    pub env_end: usize,
    /// The auxiliary vector.
    pub auxv: Vec<u64>,
    /// The address of the vDSO, for the signal trampoline of old programs; 0 where there is none.
    pub vdso: usize,
}

/// A thread group.
pub struct Process {
    pid: Pid,
    /// Copies of what the tree knows, written under its lock.
    pub(crate) ppid: AtomicI32,
    pub(crate) pgid: AtomicI32,
    pub(crate) sid: AtomicI32,
    pub(crate) group: SpinLock<Group>,
    /// Copy of the shared queue's set, written under the group lock.
    pub(crate) pending: AtomicU64,
    /// Entries queued in the process and its threads, for RLIMIT_SIGPENDING.
    pub(crate) queued_signals: AtomicUsize,
    actions: SpinLock<Arc<Actions>>,
    address_space: SpinLock<Option<Arc<AddressSpace>>>,
    exe: SpinLock<Option<Arc<OpenFile>>>,
    image: SpinLock<Arc<Image>>,
    /// Timers look at it in interrupts: taken with these off.
    limits: SpinLock<Limits>,
    /// The signal that the parent gets when it ends: SIGCHLD, another, or 0.
    pub(crate) exit_signal: AtomicI32,
    /// Threads of this process that wait for children.
    pub(crate) child_wait: WaitQueue,
    /// Woken when a thread exits and when the process ends: exec, pidfds.
    pub(crate) exit_wait: Arc<WaitQueue>,
    /// Woken when a signal arrives: signalfds.
    pub(crate) signal_wait: Arc<WaitQueue>,
    /// Stopped threads sleep here.
    pub(crate) stop_wait: WaitQueue,
    /// Copy of whether `Group::stop` is set.
    pub(crate) stop_requested: AtomicBool,
    /// It gets no signal that it has no handler for: the first process.
    pub(crate) unkillable: AtomicBool,
    /// When it started, on the monotonic clock.
    pub started: Nanos,
    /// PR_SET_CHILD_SUBREAPER.
    pub(crate) subreaper: AtomicBool,
    /// It has called exec since it was forked: setpgid by its parent is refused.
    pub(crate) did_exec: AtomicBool,
    /// PR_SET_DUMPABLE.
    pub(crate) dumpable: AtomicU8,
    /// `/proc/PID/oom_score_adj`.
    pub oom_score_adj: AtomicI32,
    /// Who has logged in: the user and the session's number (`/proc/PID/loginuid`, `sessionid`); `u32::MAX` for nobody.
    pub(crate) login: [AtomicU32; 2],
    pub(crate) timers: Timers,
    /// The threads that it traces.
    pub(crate) tracees: SpinLock<Vec<Arc<Task>>>,
    /// Threads that it traced and that have exited: number and wait status, to be waited for.
    pub(crate) lost_tracees: SpinLock<Vec<(Pid, i32)>>,
    /// membarrier(2) registrations, as bits of the commands.
    pub membarrier: AtomicI32,
    /// What does asynchronous I/O for it, made and understood by the layer above: see [`crate::worker`].
    pub(crate) workers: SpinLock<Option<Arc<dyn Any + Send + Sync>>>,
}

impl Process {
    /// A process without threads. `like` is the process it is forked from.
    pub(crate) fn new(pid: Pid, limits: Limits, actions: Arc<Actions>, exit_signal: i32) -> Process {
        Process {
            pid,
            ppid: AtomicI32::new(0),
            pgid: AtomicI32::new(0),
            sid: AtomicI32::new(0),
            group: SpinLock::new(Group::new()),
            pending: AtomicU64::new(0),
            queued_signals: AtomicUsize::new(0),
            actions: SpinLock::new(actions),
            address_space: SpinLock::new(None),
            exe: SpinLock::new(None),
            image: SpinLock::new(Arc::new(Image::default())),
            limits: SpinLock::new(limits),
            exit_signal: AtomicI32::new(exit_signal),
            child_wait: WaitQueue::new(),
            exit_wait: Arc::new(WaitQueue::new()),
            signal_wait: Arc::new(WaitQueue::new()),
            stop_wait: WaitQueue::new(),
            stop_requested: AtomicBool::new(false),
            unkillable: AtomicBool::new(pid == 1),
            started: sched::time::now(),
            subreaper: AtomicBool::new(false),
            did_exec: AtomicBool::new(false),
            dumpable: AtomicU8::new(1),
            oom_score_adj: AtomicI32::new(0),
            login: [const { AtomicU32::new(u32::MAX) }; 2],
            timers: Timers::new(),
            tracees: SpinLock::new(Vec::new()),
            lost_tracees: SpinLock::new(Vec::new()),
            membarrier: AtomicI32::new(0),
            workers: SpinLock::new(None),
        }
    }

    /// Its number: the tgid.
    #[inline]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Its parent's number.
    #[inline]
    pub fn ppid(&self) -> Pid {
        self.ppid.load(Ordering::Relaxed)
    }

    /// Its process group.
    pub fn pgid(&self) -> Pid {
        self.pgid.load(Ordering::Relaxed)
    }

    /// Its session.
    pub fn sid(&self) -> Pid {
        self.sid.load(Ordering::Relaxed)
    }

    /// Is it the first process, which gets no signal that it has no handler for, and adopts orphans?
    pub fn is_init(&self) -> bool {
        self.pid == 1
    }

    /// Signals pending for the process as a whole.
    pub fn pending(&self) -> SigSet {
        SigSet(self.pending.load(Ordering::SeqCst))
    }

    /// Its signal actions.
    pub fn actions(&self) -> Arc<Actions> {
        self.actions.lock_irq().clone()
    }

    /// Gives it other actions (exec unshares them).
    pub(crate) fn set_actions(&self, actions: Arc<Actions>) {
        let old = core::mem::replace(&mut *self.actions.lock_irq(), actions);
        drop(old);
    }

    /// Its memory; `None` once its last thread has exited.
    #[inline]
    pub fn address_space(&self) -> Option<Arc<AddressSpace>> {
        self.address_space.lock().clone()
    }

    /// Gives it other memory, and the old one back.
    pub(crate) fn set_address_space(&self, space: Option<Arc<AddressSpace>>) -> Option<Arc<AddressSpace>> {
        core::mem::replace(&mut *self.address_space.lock(), space)
    }

    /// The program it runs.
    pub fn exe(&self) -> Option<Arc<OpenFile>> {
        self.exe.lock().clone()
    }

    /// Sets the program it runs.
    pub fn set_exe(&self, exe: Option<Arc<OpenFile>>) {
        let old = core::mem::replace(&mut *self.exe.lock(), exe);
        drop(old);
    }

    /// Where exec put things.
    pub fn image(&self) -> Arc<Image> {
        self.image.lock().clone()
    }

    /// Notes where exec put things.
    pub fn set_image(&self, image: Arc<Image>) {
        let old = core::mem::replace(&mut *self.image.lock(), image);
        drop(old);
    }

    /// All limits.
    pub fn limits(&self) -> Limits {
        self.limits.lock_irq().clone()
    }

    /// One limit.
    #[inline]
    pub fn limit(&self, resource: Resource) -> Limit {
        self.limits.lock_irq().get(resource)
    }

    /// Changes one limit, with the rights of `cred`; the old one. `EINVAL`, `EPERM`.
    pub fn set_limit(self: &Arc<Self>, resource: Resource, limit: Limit, cred: &base::Cred) -> base::Result<Limit> {
        let mut limits = self.limits.lock_irq();
        let old = limits.get(resource);
        limits.set(resource, limit, cred)?;
        let memory = memory_limits(&limits);
        drop(limits);
        if let Some(space) = self.address_space() {
            space.set_limits(memory);
        }
        if resource == Resource::Cpu {
            self.timers.cpu_limit_changed(self);
        }
        Ok(old)
    }

    /// The limits that its memory has to respect.
    pub(crate) fn memory_limits(&self) -> mm::Limits {
        memory_limits(&self.limits.lock_irq())
    }

    /// The threads that have not exited, the leader first while it lives.
    pub fn threads(&self) -> Vec<Arc<Task>> {
        self.group.lock_irq().threads.clone()
    }

    /// How many threads have not exited.
    pub fn thread_count(&self) -> usize {
        self.group.lock_irq().threads.len()
    }

    /// A thread of it, the leader if it lives; `None` for a zombie.
    pub fn any_thread(&self) -> Option<Arc<Task>> {
        self.group.lock_irq().threads.first().cloned()
    }

    /// Is it dead and not waited for?
    pub fn is_zombie(&self) -> bool {
        self.group.lock_irq().life == Life::Zombie
    }

    /// Has it ended (waited for or not)?
    pub fn has_ended(&self) -> bool {
        self.group.lock_irq().life != Life::Alive
    }

    /// Has it been waited for?
    pub fn is_reaped(&self) -> bool {
        self.group.lock_irq().life == Life::Reaped
    }

    /// The wait status, once it is ending.
    pub fn exit_status(&self) -> Option<i32> {
        self.group.lock_irq().exit
    }

    /// What its threads, living and dead, have used.
    pub fn used(&self) -> Used {
        let group = self.group.lock_irq();
        let mut used = group.used;
        for task in &group.threads {
            used.add(&task.used());
        }
        drop(group);
        if let Some(space) = self.address_space() {
            used.max_rss = used.max_rss.max(space.usage().peak_rss as u64 * 4);
        }
        used
    }

    /// Processor time of its threads, living and dead: callable with interrupts off.
    pub fn cpu_time(&self) -> (Nanos, Nanos) {
        let group = self.group.lock_irq();
        group
            .threads
            .iter()
            .map(|task| task.used())
            .fold((group.used.user, group.used.system), |(u, s), used| (u + used.user, s + used.system))
    }

    /// What the children that it has waited for used.
    pub fn children_used(&self) -> Used {
        self.group.lock_irq().children_used
    }

    /// PR_GET_DUMPABLE.
    pub fn dumpable(&self) -> u8 {
        self.dumpable.load(Ordering::Relaxed)
    }

    /// PR_SET_DUMPABLE.
    pub fn set_dumpable(&self, value: u8) {
        self.dumpable.store(value, Ordering::Relaxed);
    }

    /// PR_GET_CHILD_SUBREAPER.
    pub fn is_subreaper(&self) -> bool {
        self.subreaper.load(Ordering::Relaxed)
    }

    /// PR_SET_CHILD_SUBREAPER.
    pub fn set_subreaper(&self, on: bool) {
        self.subreaper.store(on, Ordering::Relaxed);
    }

    /// The queue that is woken when it ends, for pidfds.
    pub fn exit_wait(&self) -> &Arc<WaitQueue> {
        &self.exit_wait
    }

    /// The queue that is woken when a signal arrives for any of its threads, for signalfds.
    pub fn signal_wait(&self) -> &Arc<WaitQueue> {
        &self.signal_wait
    }

    /// Its ITIMER_REAL.
    pub fn real_timer(self: &Arc<Self>) -> Arc<crate::timer::RealTimer> {
        self.timers.real(self)
    }

    /// Its ITIMER_VIRTUAL and ITIMER_PROF.
    pub fn cpu_timers(self: &Arc<Self>) -> Arc<crate::timer::CpuTimers> {
        self.timers.cpu(self)
    }

    /// Its timers.
    pub fn timers(&self) -> &Timers {
        &self.timers
    }
}

fn memory_limits(limits: &Limits) -> mm::Limits {
    mm::Limits {
        address_space: limits.get(Resource::As).soft,
        data: limits.get(Resource::Data).soft,
        stack: limits.get(Resource::Stack).soft,
        locked: limits.get(Resource::Memlock).soft,
    }
}
