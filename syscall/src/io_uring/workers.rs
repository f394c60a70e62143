//! What carries requests on for a process.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base::{Errno, Nanos, Result};
use fs::OpenFile;
use hal::regs::UserRegs;
use hal::sync::SpinLock;
use ipc::io_uring::abi::{Setup, op};
use process::worker::Leaving;
use process::{Resource as Limit, Task};
use sched::{Mutex, Sleep, WaitQueue};

use super::request::{Request, Stage};
use super::ring::{self, Ring};
use super::{cancel, run};
use crate::context::Context;

/// The most requests that a process may have under way.
const MOST_REQUESTS: usize = 1 << 17;
/// How long a worker waits for more to do before it ends.
const IDLE: Nanos = 5_000_000_000;

/// A list with room for every request under way, so that interrupts can add to it.
#[derive(Default)]
pub(super) struct ReadyList(SpinLock<VecDeque<Arc<Request>>>);

impl ReadyList {
    /// Makes room for `count` requests. `ENOMEM`.
    fn reserve(&self, count: usize) -> Result<()> {
        if self.0.lock_irq().capacity() >= count {
            return Ok(());
        }
        let mut bigger = VecDeque::new();
        bigger.try_reserve(count.next_power_of_two()).map_err(|_| Errno::ENOMEM)?;
        let mut list = self.0.lock_irq();
        if list.capacity() >= bigger.capacity() {
            // Somebody else has made more room meanwhile.
            return Ok(());
        }
        bigger.extend(list.drain(..));
        let old = core::mem::replace(&mut *list, bigger);
        drop(list);
        drop(old);
        Ok(())
    }

    /// There is room: see [`Workers::add`].
    fn push(&self, request: Arc<Request>) {
        self.0.lock_irq().push_back(request);
    }

    pub(super) fn pop(&self) -> Option<Arc<Request>> {
        self.0.lock_irq().pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock_irq().is_empty()
    }
}

/// What carries on the requests of one process, on whichever rings.
pub(super) struct Workers {
    ready: ReadyList,
    /// Requests that are under way.
    count: AtomicUsize,
    /// Threads in io_uring_enter(2), which wait for completions and do what is ready.
    entered: AtomicUsize,
    pub(super) entered_wait: WaitQueue,
    service_wait: WaitQueue,
    has_service: AtomicBool,
    /// Held by the service thread as long as it carries something on.
    serving: Mutex<()>,
    /// Rings have their eventfds to be told.
    owes_events: AtomicBool,
    /// What may block.
    jobs: SpinLock<VecDeque<Arc<Request>>>,
    jobs_wait: WaitQueue,
    idle: AtomicUsize,
    /// Workers that take jobs.
    working: AtomicUsize,
    /// All workers, the service thread among them.
    threads: SpinLock<Vec<Arc<Task>>>,
    alive: AtomicUsize,
    /// Rings that threads registered to name them by index (IORING_REGISTER_RING_FDS).
    pub(super) ring_fds: SpinLock<BTreeMap<(usize, u32), Arc<OpenFile>>>,
    /// The process ends, or becomes another program.
    ending: AtomicBool,
    gone: WaitQueue,
}

impl Workers {
    fn new() -> Arc<Workers> {
        Arc::new(Workers {
            ready: ReadyList::default(),
            count: AtomicUsize::new(0),
            entered: AtomicUsize::new(0),
            entered_wait: WaitQueue::new(),
            service_wait: WaitQueue::new(),
            has_service: AtomicBool::new(false),
            serving: Mutex::default(),
            owes_events: AtomicBool::new(false),
            jobs: SpinLock::new(VecDeque::new()),
            jobs_wait: WaitQueue::new(),
            idle: AtomicUsize::new(0),
            working: AtomicUsize::new(0),
            threads: SpinLock::new(Vec::new()),
            alive: AtomicUsize::new(0),
            ring_fds: SpinLock::new(BTreeMap::new()),
            ending: AtomicBool::new(false),
            gone: WaitQueue::new(),
        })
    }

    /// Those of the process that the thread belongs to.
    pub(super) fn of(task: &Task) -> Arc<Workers> {
        let workers = task.process().workers(|| Workers::new());
        workers.downcast().unwrap_or_else(|_| Workers::new())
    }

    /// Counts one more request of `ring`, and makes room for it in the lists. `ENOMEM`, also where a program has very many under way.
    pub(super) fn add(&self, ring: &Ring) -> Result<()> {
        if self.count.load(Ordering::SeqCst) >= MOST_REQUESTS || mm::frames::pressure() > mm::frames::Pressure::None {
            return Err(Errno::ENOMEM);
        }
        let count = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        let room = self.ready.reserve(count).and_then(|()| {
            // Processes that share the ring have counts of their own.
            let on_ring = ring.live.lock().len() + 1;
            ring.deferred.reserve(on_ring)
        });
        if room.is_err() {
            self.remove();
        }
        room
    }

    /// One has completed.
    pub(super) fn remove(&self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
    }

    /// Puts a request on the list of those to carry on, and wakes who does that. Under locks, maybe in an interrupt.
    pub(super) fn push(&self, request: &Arc<Request>) {
        let ring = &request.ring;
        if ring.defers() || self.is_ending() {
            ring.deferred.push(request.clone());
            ring.rings.change_sq_flags(ring.taskrun_flag(), 0);
            ring.deferred_wait.wake_all();
            if ring.completions.has_eventfd() {
                ring.owes_event.store(true, Ordering::SeqCst);
                self.owes_events.store(true, Ordering::SeqCst);
                self.service_wait.wake_one();
            }
            return;
        }
        self.ready.push(request.clone());
        if self.entered.load(Ordering::SeqCst) > 0 {
            self.entered_wait.wake_all();
        } else {
            self.service_wait.wake_one();
        }
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Carries on what is ready.
    pub(super) fn run_ready(&self, cx: &mut Context) {
        while let Some(request) = self.ready.pop() {
            request.hook.unqueued();
            run::carry_on(cx, &request);
        }
    }

    /// A thread waits in io_uring_enter(2) from here on.
    pub(super) fn enter(&self) {
        self.entered.fetch_add(1, Ordering::SeqCst);
    }

    /// It does so no more, and has done what was ready before this.
    pub(super) fn leave(&self, cx: &mut Context) {
        self.entered.fetch_sub(1, Ordering::SeqCst);
        self.run_ready(cx);
    }

    /// Sees to it that somebody carries on requests that wait. `ENOMEM`.
    pub(super) fn need_service(self: &Arc<Workers>, task: &Task) -> Result<()> {
        if self.has_service.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let me = self.clone();
        let started = self.spawn(task, b"iou-service", move |task, regs| me.serve(&mut Context { task, regs }));
        if started.is_err() {
            self.has_service.store(false, Ordering::SeqCst);
        }
        started
    }

    pub(super) fn spawn(
        self: &Arc<Workers>,
        task: &Task,
        name: &[u8],
        body: impl FnOnce(&Task, &mut UserRegs) + Send + 'static,
    ) -> Result<()> {
        let mut threads = self.threads.lock();
        if self.ending.load(Ordering::SeqCst) {
            return Err(Errno::ESRCH);
        }
        threads.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        drop(threads);
        self.alive.fetch_add(1, Ordering::SeqCst);
        let me = self.clone();
        let started = process::worker::spawn(task, name, move |task, regs| {
            body(task, regs);
            me.threads.lock().retain(|other| !core::ptr::eq(&raw const **other, task));
            me.ended();
        });
        match started {
            Ok(worker) => {
                // One that has ended before it is put down here goes when the next is started.
                let mut threads = self.threads.lock();
                let ended: Vec<_> = threads.extract_if(.., |other| other.thread().is_none()).collect();
                threads.push(worker);
                drop(threads);
                drop(ended);
                if self.ending.load(Ordering::SeqCst) {
                    self.interrupt_all();
                }
                Ok(())
            }
            Err(error) => {
                self.ended();
                Err(error)
            }
        }
    }

    fn ended(&self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
        self.gone.wake_all();
    }

    /// Does the process end?
    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    /// Carries on what is ready, and waits for what the service thread is about: what happened before is told when this returns.
    pub(super) fn run_all(&self, cx: &mut Context) {
        self.run_ready(cx);
        drop(self.serving.lock());
    }

    fn signal_events(&self) {
        if self.owes_events.swap(false, Ordering::SeqCst) {
            for ring in ring::all().iter().filter(|ring| ring.owes_event.swap(false, Ordering::SeqCst)) {
                ring.completions.signal(&ring.rings);
            }
        }
    }

    /// The service thread.
    fn serve(&self, cx: &mut Context) {
        while !self.is_ending() {
            let serving = self.serving.lock();
            self.run_ready(cx);
            drop(serving);
            self.signal_events();
            let ready = || {
                let work = self.entered.load(Ordering::SeqCst) == 0 && self.has_ready();
                let work = work || self.owes_events.load(Ordering::SeqCst);
                (work || self.is_ending()).then_some(())
            };
            let _ = self.service_wait.wait_exclusive(Sleep::Uninterruptible, None, ready);
        }
    }

    /// Gives a request to a worker, which may block for it. `ENOMEM`, `ESRCH` where there is no worker and none can be started.
    pub(super) fn give(self: &Arc<Workers>, task: &Task, request: Arc<Request>) -> Result<()> {
        let waiting = {
            let mut jobs = self.jobs.lock();
            jobs.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            request.set_stage(Stage::Worker);
            jobs.push_back(request.clone());
            jobs.len()
        };
        // As many may block at a time as the user may have processes.
        let most = usize::try_from(task.rlimit(Limit::Nproc).0).unwrap_or(usize::MAX).max(1);
        let working = self.working.load(Ordering::SeqCst);
        if self.idle.load(Ordering::SeqCst) < waiting && working < most {
            let me = self.clone();
            self.working.fetch_add(1, Ordering::SeqCst);
            let started = self.spawn(task, b"iou-wrk", move |task, regs| me.work(&mut Context { task, regs }));
            if let Err(error) = started {
                // Those that there are take it in their turn, unless there are none.
                if self.working.fetch_sub(1, Ordering::SeqCst) == 1 && self.take_back(&request) {
                    request.set_stage(Stage::Issuing);
                    return Err(error);
                }
            }
        }
        self.jobs_wait.wake_one();
        Ok(())
    }

    fn work(&self, cx: &mut Context) {
        loop {
            self.idle.fetch_add(1, Ordering::SeqCst);
            let next = || match self.jobs.lock().pop_front() {
                Some(request) => Some(Some(request)),
                None if self.is_ending() => Some(None),
                None => None,
            };
            let until = sched::time::now() + IDLE;
            let request = self.jobs_wait.wait_exclusive(Sleep::Uninterruptible, Some(until), next);
            self.idle.fetch_sub(1, Ordering::SeqCst);
            match request {
                Ok(Some(request)) => run::block(cx, &request),
                Ok(None) => {
                    self.working.fetch_sub(1, Ordering::SeqCst);
                    return;
                }
                Err(_) => {
                    // Who gives a job counts on those who work.
                    let jobs = self.jobs.lock();
                    if jobs.is_empty() {
                        self.working.fetch_sub(1, Ordering::SeqCst);
                        return;
                    }
                }
            }
        }
    }

    /// Takes a request away from the workers that none has begun; true if so.
    pub(super) fn take_back(&self, request: &Arc<Request>) -> bool {
        let mut jobs = self.jobs.lock();
        let at = jobs.iter().position(|other| Arc::ptr_eq(other, request));
        let taken = at.and_then(|at| jobs.remove(at));
        drop(jobs);
        taken.is_some()
    }

    fn interrupt_all(&self) {
        let threads: Vec<_> = self.threads.lock().clone();
        for thread in threads.iter().filter_map(|task| task.thread()) {
            thread.interrupt_fatal();
        }
    }

    /// Ends all workers and waits for that.
    fn end(&self) {
        self.ending.store(true, Ordering::SeqCst);
        let none = || (self.alive.load(Ordering::SeqCst) == 0).then_some(());
        while none().is_none() {
            self.interrupt_all();
            self.service_wait.wake_all();
            self.jobs_wait.wake_all();
            // A worker that was between two sleeps when it was told is told again.
            let soon = sched::time::now() + 10_000_000;
            let _ = self.gone.wait_until(Sleep::Uninterruptible, Some(soon), none);
        }
    }
}

/// A thread leaves its program; with the last, everything that worked for the process ends, and what it submitted is cancelled. Timeouts
/// outlive a process that ends, if the ring does.
pub(super) fn thread_leaves(task: &Task, what: Leaving) {
    let whole = what != Leaving::Thread;
    if whole {
        ipc::aio::leave(task.pid());
    }
    let Some(workers) = task.process().workers_if_any() else { return };
    let Ok(workers) = workers.downcast::<Workers>() else { return };
    let address = core::ptr::from_ref(task).addr();
    let left: Vec<_> = workers.ring_fds.lock().extract_if(.., |key, _| whole || key.0 == address).collect();
    drop(left);
    if !whole {
        // Its requests go on without it, but for those that would keep a ring alive for ever.
        ring::all().iter().for_each(|ring| cancel::cancel_circular(ring, &workers, address));
        return;
    }
    let outlives = |request: &Request| {
        what == Leaving::Process && request.sqe.opcode == op::TIMEOUT && request.stage() == Stage::Waiting
    };
    for ring in ring::all() {
        ring.end_sq_thread(&workers);
        cancel::cancel_of(&ring, &workers, outlives);
    }
    workers.end();
    for ring in ring::all() {
        cancel::cancel_of(&ring, &workers, outlives);
    }
    // What was woken too late has ended by now; left on the list, it would keep these workers as they keep it.
    while let Some(request) = workers.ready.pop() {
        request.hook.unqueued();
    }
    drop(task.process().take_workers());
}

impl Ring {
    /// Are its requests carried on in io_uring_enter(2) alone?
    pub(super) fn defers(&self) -> bool {
        self.flags.contains(Setup::DEFER_TASKRUN)
    }
}
