//! Threads: the unit that is scheduled.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::{Arc, Weak};
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use base::Nanos;
use hal::regs::UserRegs;
use hal::sync::{Once, SpinLock};
use hal::task::{HasTask, Running, Task, work};

use crate::timer::Timer;
use crate::transfers::{Counters, Transfers};
use crate::{Sleep, SleepEnd, schedule};

pub(crate) static RUNNING: Running<Thread> = Running::new();
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

/// Running or ready.
const AWAKE: u8 = 0;
const SLEEPS_INTERRUPTIBLE: u8 = 1;
const SLEEPS_UNINTERRUPTIBLE: u8 = 2;
const SLEEPS_KILLABLE: u8 = 3;
const DEAD: u8 = 4;

/// An interrupt is pending.
const INTERRUPT: u8 = 1;
/// A fatal one.
const FATAL: u8 = 2;

/// A kernel thread, or the kernel side of a user thread.
pub struct Thread {
    task: Task,
    ext: Option<Box<dyn Any + Send + Sync>>,
    name: String,
    /// Unique for ever, to tell threads apart in queues.
    number: u64,
    state: AtomicU8,
    interrupts: AtomicU8,
    timed_out: AtomicBool,
    sleep_timer: Once<Arc<Timer>>,
    /// A time that its sleeps may end at, and what that is on the real-time clock (see [`crate::time::Until`]).
    follows: SpinLock<Option<(Nanos, Nanos)>>,
    cpu: AtomicUsize,
    affinity: AtomicU64,
    pub(crate) entity: SpinLock<Entity>,
    ticks: [AtomicU64; 2],
    pub(crate) transfers: Counters,
}

/// What the scheduler keeps of a thread.
pub(crate) struct Entity {
    pub(crate) params: Params,
    /// A real-time priority that others lend it, because they wait for what it holds; 0 for none.
    pub(crate) lent: u8,
    pub(crate) vruntime: Nanos,
    /// Running, or in its processor's queue.
    pub(crate) on_queue: bool,
    /// In the queue, not running.
    pub(crate) waiting: bool,
    /// When it began to run, or when that was last accounted.
    pub(crate) accounted: Nanos,
    /// How long it has run since it was picked.
    pub(crate) slice_used: Nanos,
    /// When it became ready.
    pub(crate) ready_since: Nanos,
    pub(crate) run_time: Nanos,
    pub(crate) waited: Nanos,
    pub(crate) voluntary: u64,
    pub(crate) involuntary: u64,
}

impl Entity {
    /// The parameters that it runs with: its own, or as much better as it was lent.
    #[inline]
    pub(crate) fn effective(&self) -> Params {
        if self.lent <= self.params.rt_priority {
            return self.params;
        }
        Params { policy: Policy::Fifo, rt_priority: self.lent, ..self.params }
    }
}

impl HasTask for Thread {
    fn task(&self) -> &Task {
        &self.task
    }
}

/// The thread that is running.
#[inline]
pub fn current() -> Arc<Thread> {
    RUNNING.current()
}

/// Does a thread run yet?
#[inline]
pub(crate) fn is_running() -> bool {
    RUNNING.is_set()
}

/// Runs `f` on the running thread, without counting a reference.
#[inline]
pub fn with_current<R>(f: impl FnOnce(&Thread) -> R) -> R {
    RUNNING.with(f)
}

/// Gives the processor to others that are ready.
pub fn yield_now() {
    schedule::yield_current();
}

/// Yields if the scheduler wants this processor back. For long loops in the kernel, which is not preempted otherwise.
#[inline]
#[cfg_attr(feature = "lockdep", track_caller)]
pub fn preempt_point() {
    hal::sync::lockdep::may_sleep();
    if is_running() && with_current(|t| t.task.work() & work::RESCHEDULE != 0) {
        schedule::reschedule();
    }
}

/// Ends the running thread. Its `Arc` goes when the last holder lets go.
pub fn exit_current() -> ! {
    with_current(|thread| thread.state.store(DEAD, Ordering::SeqCst));
    schedule::schedule();
    panic!("a dead thread runs")
}

/// Sleeps until `deadline` on the monotonic clock.
pub fn sleep_until(how: Sleep, deadline: Nanos) -> SleepEnd {
    let me = current();
    loop {
        me.prepare_to_sleep(how);
        match me.sleep(Some(deadline)) {
            SleepEnd::Woken if crate::time::now() < deadline => {}
            SleepEnd::Woken => return SleepEnd::TimedOut,
            end => return end,
        }
    }
}

/// Starts a kernel thread. Panics when memory is exhausted: kernel threads are started at boot.
pub fn spawn_kernel(name: &str, body: impl FnOnce() + Send + 'static) -> Arc<Thread> {
    let body = Box::new(move || {
        body();
        exit_current();
    });
    let task = Task::kernel(body).expect("memory for a kernel thread");
    let thread = Arc::new(Thread::with(task, name.to_string(), None, Params::default(), u64::MAX));
    thread.start();
    thread
}

/// How a user thread starts.
pub struct UserStart {
    /// The registers with which it enters user mode.
    pub regs: UserRegs,
    /// Runs in the kernel, in the new thread, before it enters user mode (set_tid, ptrace stop, ...).
    pub first: Box<dyn FnOnce(&mut UserRegs) + Send>,
    /// Its address space.
    pub page_table: Arc<hal::paging::PageTable>,
    /// Copy the current thread's FPU state and TLS bases (fork, clone) rather than start clean.
    pub inherit: bool,
}

impl Thread {
    fn with(
        task: Task,
        name: String,
        ext: Option<Box<dyn Any + Send + Sync>>,
        params: Params,
        affinity: u64,
    ) -> Thread {
        Thread {
            task,
            ext,
            name,
            number: NEXT_NUMBER.fetch_add(1, Ordering::Relaxed),
            state: AtomicU8::new(AWAKE),
            interrupts: AtomicU8::new(0),
            timed_out: AtomicBool::new(false),
            sleep_timer: Once::new(),
            follows: SpinLock::new(None),
            cpu: AtomicUsize::new(hal::cpu::id()),
            affinity: AtomicU64::new(affinity),
            entity: SpinLock::new(Entity {
                params,
                lent: 0,
                vruntime: 0,
                on_queue: false,
                waiting: false,
                accounted: 0,
                slice_used: 0,
                ready_since: 0,
                run_time: 0,
                waited: 0,
                voluntary: 0,
                involuntary: 0,
            }),
            ticks: [const { AtomicU64::new(0) }; 2],
            transfers: Counters::default(),
        }
    }

    /// The thread that the boot flow of processor `cpu` becomes.
    pub(crate) fn idle(cpu: usize) -> Arc<Thread> {
        let mut thread = Thread::with(Task::idle(), "idle".to_string(), None, Params::default(), 1 << cpu);
        *thread.cpu.get_mut() = cpu;
        Arc::new(thread)
    }

    /// A user thread, not yet started; `None` when memory is exhausted. Inherits scheduling policy, nice value and affinity from the
    /// current thread. `ext` belongs to the layer above.
    pub fn new_user(start: UserStart, ext: Box<dyn Any + Send + Sync>) -> Option<Arc<Thread>> {
        let task = Task::user(start.regs, start.page_table, start.first, start.inherit)?;
        let (params, affinity, vruntime) = with_current(|parent| {
            let entity = parent.entity.lock_irq();
            let params = if entity.params.reset_on_fork { entity.params.reset() } else { entity.params };
            (params, parent.affinity(), entity.vruntime)
        });
        let mut thread = Thread::with(task, String::new(), Some(ext), params, affinity);
        thread.entity.get_mut().vruntime = vruntime;
        Some(Arc::new(thread))
    }

    /// Makes a new thread ready to run.
    pub fn start(self: &Arc<Thread>) {
        schedule::enqueue_new(self);
    }

    /// The extension that the layer above attached, if it is a `T`.
    #[inline]
    pub fn ext<T: Any>(&self) -> Option<&T> {
        self.ext.as_ref()?.downcast_ref()
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Makes it ready if it sleeps; true if it did.
    #[inline]
    pub fn wake(self: &Arc<Thread>) -> bool {
        let sleeps = |s: u8| (SLEEPS_INTERRUPTIBLE..=SLEEPS_KILLABLE).contains(&s).then_some(AWAKE);
        if self.state.load(Ordering::SeqCst) == AWAKE {
            return false;
        }
        let mut entity = self.entity.lock_irq();
        if self.state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, sleeps).is_err() {
            return false;
        }
        let told = if entity.on_queue { None } else { schedule::enqueue_woken(self, &mut entity) };
        drop(entity);
        told.into_iter().for_each(schedule::request);
        true
    }

    /// Ends an interruptible sleep, now or (if it is about to sleep) next: sets the flag that [`Thread::clear_interrupt`] clears, and makes a
    /// thread in user mode pass through `before_user`.
    pub fn interrupt(self: &Arc<Thread>) {
        self.interrupt_with(INTERRUPT);
    }

    /// As [`Thread::interrupt`], and also ends killable sleeps.
    pub fn interrupt_fatal(self: &Arc<Thread>) {
        self.interrupt_with(INTERRUPT | FATAL);
    }

    fn interrupt_with(self: &Arc<Thread>, bits: u8) {
        self.interrupts.fetch_or(bits, Ordering::SeqCst);
        self.task.set_work(work::SIGNAL);
        let state = self.state.load(Ordering::SeqCst);
        if state == SLEEPS_INTERRUPTIBLE || state == SLEEPS_KILLABLE && bits & FATAL != 0 {
            self.wake();
        } else if state == AWAKE {
            self.notice();
        }
    }

    /// Makes a thread that runs in user mode on another processor enter the kernel, so that it sees its work word.
    pub fn notice(&self) {
        let cpu = self.cpu();
        if self.task.on_cpu() && cpu != hal::cpu::id() {
            hal::cpu::kick(cpu);
        }
    }

    /// No interrupt is pending any more: no deliverable signal is left. The caller rechecks its queues after.
    pub fn clear_interrupt(&self) {
        self.interrupts.store(0, Ordering::SeqCst);
    }

    /// Is an interrupt pending?
    pub fn interrupted(&self) -> bool {
        self.interrupts.load(Ordering::SeqCst) != 0
    }

    fn interrupts_sleep(&self) -> bool {
        let bits = self.interrupts.load(Ordering::SeqCst);
        match self.state.load(Ordering::SeqCst) {
            SLEEPS_INTERRUPTIBLE => bits != 0,
            SLEEPS_KILLABLE => bits & FATAL != 0,
            _ => false,
        }
    }

    /// First half of a sleep: from here on a wake-up is not lost.
    #[inline]
    pub fn prepare_to_sleep(&self, how: Sleep) {
        let state = match how {
            Sleep::Uninterruptible => SLEEPS_UNINTERRUPTIBLE,
            Sleep::Interruptible => SLEEPS_INTERRUPTIBLE,
            Sleep::Killable => SLEEPS_KILLABLE,
        };
        self.state.store(state, Ordering::SeqCst);
    }

    /// Takes [`Thread::prepare_to_sleep`] back.
    #[inline]
    pub fn cancel_sleep(&self) {
        self.state.store(AWAKE, Ordering::SeqCst);
    }

    /// Second half of a sleep of the current thread.
    pub fn sleep(self: &Arc<Thread>, deadline: Option<Nanos>) -> SleepEnd {
        let interruptible = self.state.load(Ordering::SeqCst);
        if self.interrupts_sleep() {
            self.cancel_sleep();
            return SleepEnd::Interrupted;
        }
        let Some(deadline) = deadline else {
            schedule::schedule();
            return self.why_awake(interruptible, false);
        };
        let follows = self.follows.lock().filter(|(at, _)| *at == deadline);
        let deadline = follows.map_or(deadline, |(_, real)| crate::time::monotonic(real));
        if deadline <= crate::time::now() {
            self.cancel_sleep();
            return SleepEnd::TimedOut;
        }
        self.timed_out.store(false, Ordering::SeqCst);
        let timer = self.sleep_timer.get_or_init(|| sleep_timer(Arc::downgrade(self)));
        timer.arm(deadline);
        schedule::schedule();
        timer.disarm();
        // The timer of an earlier sleep may have been on its way on another processor when that sleep ended: only the clock tells.
        let timed_out = self.timed_out.load(Ordering::SeqCst) && deadline <= crate::time::now();
        self.why_awake(interruptible, timed_out)
    }

    /// Has its sleeps until the first of these times end at the second, on the real-time clock.
    pub(crate) fn follow(&self, times: Option<(Nanos, Nanos)>) {
        *self.follows.lock() = times;
    }

    fn why_awake(&self, slept: u8, timed_out: bool) -> SleepEnd {
        let bits = self.interrupts.load(Ordering::SeqCst);
        let interrupted = slept == SLEEPS_INTERRUPTIBLE && bits != 0 || slept == SLEEPS_KILLABLE && bits & FATAL != 0;
        match (timed_out, interrupted) {
            (true, _) => SleepEnd::TimedOut,
            (false, true) => SleepEnd::Interrupted,
            (false, false) => SleepEnd::Woken,
        }
    }

    pub(crate) fn is_asleep(&self) -> bool {
        self.state.load(Ordering::SeqCst) != AWAKE
    }

    /// Switches the current thread to another address space (exec).
    pub fn set_page_table(&self, page_table: Arc<hal::paging::PageTable>) {
        self.task.set_page_table(Some(page_table));
    }

    /// Gives up the current thread's address space (exit): it goes on in the kernel's own.
    pub fn drop_page_table(&self) {
        self.task.set_page_table(None);
    }

    /// hal's part: TLS bases, FPU state, registers when stopped.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// One letter as in `/proc/PID/stat` for the scheduler's part of the state: R, S, D (the layer above knows T, t, Z, X).
    pub fn state_letter(&self) -> char {
        match self.state.load(Ordering::Relaxed) {
            AWAKE => 'R',
            SLEEPS_INTERRUPTIBLE => 'S',
            DEAD => 'X',
            _ => 'D',
        }
    }

    /// The scheduling parameters.
    pub fn params(&self) -> Params {
        self.entity.lock_irq().params
    }

    /// Changes policy, priority and nice value.
    pub fn set_params(self: &Arc<Thread>, params: Params) {
        schedule::change(self, |entity| entity.params = params);
    }

    /// The real-time priority that it runs with, its own or a lent one; 0 if none.
    pub fn priority(&self) -> u8 {
        self.entity.lock_irq().effective().rt_priority
    }

    /// Lends it a real-time priority, in place of what it was lent before (priority inheritance); 0 takes that back.
    pub fn lend(self: &Arc<Thread>, priority: u8) {
        if self.entity.lock_irq().lent != priority {
            schedule::change(self, |entity| entity.lent = priority);
        }
    }

    /// The processors it may run on, bit n being processor n.
    pub fn affinity(&self) -> u64 {
        self.affinity.load(Ordering::Relaxed)
    }

    /// Restricts it to the processors of `mask` (not empty, within the online ones); moves it if it must.
    pub fn set_affinity(self: &Arc<Thread>, mask: u64) {
        self.affinity.store(mask, Ordering::SeqCst);
        schedule::change(self, |_| {});
    }

    pub(crate) fn allowed_on(&self, cpu: usize) -> bool {
        self.affinity() & 1 << cpu != 0
    }

    /// The processor it runs on or ran on last.
    pub fn cpu(&self) -> usize {
        self.cpu.load(Ordering::Relaxed)
    }

    pub(crate) fn set_cpu(&self, cpu: usize) {
        self.cpu.store(cpu, Ordering::Relaxed);
    }

    /// Counts a timer tick that hit user mode or the kernel.
    pub(crate) fn count_tick(&self, user: bool) {
        self.ticks[usize::from(!user)].fetch_add(1, Ordering::Relaxed);
    }

    /// Time spent. What the switches measured is divided between user mode and the kernel as the ticks fell.
    pub fn times(&self) -> Times {
        let entity = self.entity.lock_irq();
        let running = entity.on_queue && !entity.waiting && self.task.on_cpu();
        let current = if running { crate::time::now().saturating_sub(entity.accounted) } else { 0 };
        let total = entity.run_time + current;
        let [user, system] = [0, 1].map(|i| self.ticks[i].load(Ordering::Relaxed));
        let user_part = match (user, system) {
            (_, 0) => total,
            _ => (u128::from(total) * u128::from(user) / u128::from(user + system)) as Nanos,
        };
        Times {
            user: user_part,
            system: total - user_part,
            voluntary: entity.voluntary,
            involuntary: entity.involuntary,
            waited: entity.waited,
            transfers: self.transfers.sums(),
        }
    }

    /// The name that debuggers show (kernel threads); user threads' `comm` is kept by the layer above.
    pub fn name(&self) -> String {
        self.name.clone()
    }
}

fn sleep_timer(thread: Weak<Thread>) -> Arc<Timer> {
    Timer::new(Box::new(move |_| {
        if let Some(thread) = thread.upgrade() {
            thread.timed_out.store(true, Ordering::SeqCst);
            thread.wake();
        }
        None
    }))
}

/// Scheduling policy, as sched(7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Policy {
    /// SCHED_OTHER.
    Other = 0,
    /// SCHED_FIFO.
    Fifo = 1,
    /// SCHED_RR.
    RoundRobin = 2,
    /// SCHED_BATCH.
    Batch = 3,
    /// SCHED_IDLE.
    Idle = 5,
}

/// A thread's scheduling parameters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Params {
    /// The policy.
    pub policy: Policy,
    /// -20 (most) to 19 (least), for OTHER and BATCH.
    pub nice: i8,
    /// 1 (least) to 99 (most) for FIFO and RR, else 0.
    pub rt_priority: u8,
    /// SCHED_RESET_ON_FORK.
    pub reset_on_fork: bool,
}

impl Default for Params {
    fn default() -> Params {
        Params { policy: Policy::Other, nice: 0, rt_priority: 0, reset_on_fork: false }
    }
}

impl Params {
    /// Is it of the real-time class?
    pub fn is_realtime(self) -> bool {
        matches!(self.policy, Policy::Fifo | Policy::RoundRobin)
    }

    /// What a child gets with SCHED_RESET_ON_FORK.
    fn reset(self) -> Params {
        Params { nice: self.nice.max(0), ..Params::default() }
    }
}

/// Processor time, switches and transfers of a thread.
#[derive(Clone, Copy, Default, Debug)]
pub struct Times {
    /// In user mode, in nanoseconds.
    pub user: Nanos,
    /// In the kernel, in nanoseconds.
    pub system: Nanos,
    /// Switches because it slept.
    pub voluntary: u64,
    /// Switches because it was preempted.
    pub involuntary: u64,
    /// Nanoseconds spent ready but not running.
    pub waited: Nanos,
    /// What it read and wrote.
    pub transfers: Transfers,
}
