//! The scheduler: a run queue per processor, switching, preemption, placement and balancing.
//!
//! A thread belongs to the queue of the processor it runs on or is ready on; moving it takes its entity's lock and then the queue's.
//! The running thread is not in the queue. Idle processors take ready threads from others.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use base::Nanos;
use hal::cpu::{self, PerCpu};
use hal::sync::{Once, SpinLock};
use hal::task::work;

use crate::fair::{self, FairQueue};
use crate::realtime::{RR_SLICE, RtQueue, Throttle};
use crate::statistics;
use crate::thread::{Entity, Policy, RUNNING, Thread, with_current};
use crate::time::now;
use crate::timer;

/// The scheduler's tick while a processor is busy.
const TICK: Nanos = 4_000_000;
/// A busy processor looks for a busier one every so many ticks.
const TICKS_TO_BALANCE: usize = 8;

struct RunQueue {
    rt: RtQueue,
    throttle: Throttle,
    fair: FairQueue,
}

struct Processor {
    queue: SpinLock<RunQueue>,
    idle: Once<Arc<Thread>>,
    /// Threads ready or running, the idle thread not counted.
    load: AtomicUsize,
    is_idle: AtomicBool,
    /// Ticks while busy.
    ticks: AtomicUsize,
}

static PROCESSORS: PerCpu<Processor> = hal::per_cpu!(Processor {
    queue: SpinLock::new(RunQueue { rt: RtQueue::new(), throttle: Throttle::new(), fair: FairQueue::new() }),
    idle: Once::new(),
    load: AtomicUsize::new(0),
    is_idle: AtomicBool::new(false),
    ticks: AtomicUsize::new(0),
});

/// Makes the flow that calls it this processor's idle thread. Once on each processor.
pub(crate) fn adopt_boot_flow() {
    let idle = Thread::idle(cpu::id());
    let _ = PROCESSORS.get().idle.set(idle.clone());
    RUNNING.adopt(idle);
}

/// Runs threads for ever.
pub(crate) fn idle_loop() -> ! {
    let me = PROCESSORS.get();
    loop {
        let irq = hal::irq::disable();
        if me.load.load(Ordering::SeqCst) == 0 && !steal(cpu::id()) {
            me.is_idle.store(true, Ordering::SeqCst);
            if me.load.load(Ordering::SeqCst) == 0 {
                let since = now();
                statistics::idle_begins(since);
                timer::set_tick(None);
                cpu::halt_with_interrupts();
                statistics::idle_ends(now());
            }
            me.is_idle.store(false, Ordering::SeqCst);
        }
        drop(irq);
        schedule();
    }
}

/// How many threads are ready or running.
pub(crate) fn runnable() -> usize {
    PROCESSORS.iter().map(|p| p.load.load(Ordering::Relaxed)).sum()
}

impl RunQueue {
    fn push(&mut self, thread: Arc<Thread>, entity: &mut Entity, in_front: bool) {
        entity.waiting = true;
        if entity.effective().is_realtime() {
            self.rt.push(entity.effective().rt_priority, thread, in_front);
        } else {
            self.fair.push(entity.vruntime, thread);
        }
    }

    fn remove(&mut self, thread: &Thread, entity: &mut Entity) -> bool {
        let removed = if entity.effective().is_realtime() {
            self.rt.remove(entity.effective().rt_priority, thread.number())
        } else {
            self.fair.remove(entity.vruntime, thread.number())
        };
        if removed.is_some() {
            entity.waiting = false;
        }
        removed.is_some()
    }

    /// Takes the thread to run next. One that is still on its way out on another processor is passed over: two processors that each
    /// waited for the other's thread would wait for ever.
    fn pop(&mut self, now: Nanos) -> Option<Arc<Thread>> {
        let has_left = |t: &Thread| !t.task().on_cpu() || with_current(|me| core::ptr::eq(me, t));
        if self.rt.len() > 0
            && self.throttle.is_over(now)
            && let Some(thread) = self.fair.pop(has_left)
        {
            return Some(thread);
        }
        self.rt.pop(has_left).or_else(|| self.fair.pop(has_left))
    }

    /// The thread to give to processor `target`, if any may go there.
    fn stealable(&self, target: usize) -> Option<Arc<Thread>> {
        let may_go = |t: &Thread| t.allowed_on(target) && !t.task().on_cpu();
        self.rt.find(may_go).or_else(|| self.fair.find_last(may_go))
    }

    fn is_empty(&self) -> bool {
        self.rt.len() + self.fair.len() == 0
    }
}

/// Adds what the thread has run since it was last accounted, and says how long that was.
fn account(entity: &mut Entity, now: Nanos) -> Nanos {
    let run = now.saturating_sub(entity.accounted);
    entity.accounted = now;
    entity.run_time += run;
    entity.slice_used += run;
    if !entity.effective().is_realtime() {
        entity.vruntime += fair::virtual_time(run, fair::weight(entity.effective().policy, entity.params.nice));
    }
    run
}

/// Accounts a thread that runs on `processor`, where real-time threads use up what they may of a period.
fn charge(processor: &Processor, entity: &mut Entity, now: Nanos) {
    let run = account(entity, now);
    if entity.effective().is_realtime() {
        processor.queue.lock().throttle.account(run, now);
    }
}

/// Switches to the next thread: the running one stays ready unless it has prepared to sleep (or has died).
pub(crate) fn schedule() {
    let _irq = hal::irq::disable();
    let here = cpu::id();
    let processor = PROCESSORS.of(here);
    let me = crate::thread::current();
    me.task().clear_work(work::RESCHEDULE);
    let now = now();
    let is_idle = processor.idle.get().is_some_and(|idle| Arc::ptr_eq(idle, &me));
    let mut elsewhere = false;
    if !is_idle {
        let mut entity = me.entity.lock();
        charge(processor, &mut entity, now);
        if me.is_asleep() {
            entity.on_queue = false;
            entity.voluntary += 1;
            processor.load.fetch_sub(1, Ordering::SeqCst);
        } else if me.allowed_on(here) {
            let mut queue = processor.queue.lock();
            if queue.is_empty() {
                entity.slice_used = 0;
                return;
            }
            entity.ready_since = now;
            let in_front = entity.effective().policy == Policy::Fifo || entity.slice_used < RR_SLICE;
            queue.push(me.clone(), &mut entity, in_front);
            entity.involuntary += 1;
        } else {
            processor.load.fetch_sub(1, Ordering::SeqCst);
            elsewhere = true;
            entity.on_queue = false;
        }
    }
    if elsewhere {
        let mut entity = me.entity.lock();
        let told = if entity.on_queue { None } else { enqueue(&me, &mut entity, place(&me), now) };
        drop(entity);
        told.into_iter().for_each(request);
    }
    switch(here, me, now);
}

/// Picks the next thread and runs it.
fn switch(here: usize, me: Arc<Thread>, now: Nanos) {
    let processor = PROCESSORS.of(here);
    let mut picked = processor.queue.lock().pop(now);
    if picked.is_none() && steal(here) {
        picked = processor.queue.lock().pop(now);
    }
    let next = match picked {
        Some(next) => {
            let mut entity = next.entity.lock();
            entity.waiting = false;
            entity.waited += now.saturating_sub(entity.ready_since);
            entity.accounted = now;
            entity.slice_used = 0;
            next.set_cpu(here);
            note_current(here, &entity);
            drop(entity);
            timer::set_tick(Some(now + TICK));
            next
        }
        None => processor.idle.get().expect("every processor has an idle thread").clone(),
    };
    if !Arc::ptr_eq(&next, &me) {
        statistics::count_switch();
        if me.task().page_table().is_some() {
            me.task().set_work(work::RSEQ);
        }
        // A thread that has exited never comes back to let go of itself; `RUNNING` keeps it alive until it has left its stack.
        drop(me);
        RUNNING.switch_to(next);
    }
}

/// Puts a thread that is in no queue into processor `target`'s. The entity is locked. Gives the processor that is to be told of it
/// ([`request`]) once the entity is unlocked: it needs that lock to run the thread, and telling takes long.
#[must_use]
fn enqueue(thread: &Arc<Thread>, entity: &mut Entity, target: usize, now: Nanos) -> Option<usize> {
    let processor = PROCESSORS.of(target);
    let mut queue = processor.queue.lock_irq();
    entity.on_queue = true;
    entity.ready_since = now;
    if !entity.effective().is_realtime() {
        let weight = fair::weight(entity.effective().policy, entity.params.nice);
        entity.vruntime = queue.fair.place(entity.vruntime, weight);
    }
    thread.set_cpu(target);
    let preempts = preempts(target, entity, &queue);
    queue.push(thread.clone(), entity, false);
    processor.load.fetch_add(1, Ordering::SeqCst);
    drop(queue);
    // One interrupt gets an idle processor going, whoever else gives it threads meanwhile.
    (processor.is_idle.swap(false, Ordering::SeqCst) || preempts).then_some(target)
}

/// What runs on each processor, as far as preemption has to know: its real-time priority (0: fair) and its virtual run time.
static CURRENT: PerCpu<(AtomicUsize, AtomicU64)> = hal::per_cpu!((AtomicUsize::new(0), AtomicU64::new(0)));

fn note_current(here: usize, entity: &Entity) {
    let priority = if entity.effective().is_realtime() { usize::from(entity.effective().rt_priority) } else { 0 };
    CURRENT.of(here).0.store(priority, Ordering::Relaxed);
    CURRENT.of(here).1.store(entity.vruntime, Ordering::Relaxed);
}

fn preempts(target: usize, entity: &Entity, queue: &RunQueue) -> bool {
    let (priority, vruntime) = CURRENT.of(target);
    let running = priority.load(Ordering::Relaxed);
    if entity.effective().is_realtime() {
        return usize::from(entity.effective().rt_priority) > running;
    }
    let behind = vruntime.load(Ordering::Relaxed).saturating_sub(entity.vruntime);
    running == 0
        && queue.rt.len() == 0
        && entity.effective().policy == Policy::Other
        && behind > fair::WAKEUP_GRANULARITY
}

/// Asks processor `target` to call [`schedule`] soon.
pub(crate) fn request(target: usize) {
    if target == cpu::id() {
        if RUNNING.is_set() {
            with_current(|t| t.task().set_work(work::RESCHEDULE));
        }
    } else {
        cpu::kick(target);
    }
}

/// The interrupt that [`request`] sends.
pub(crate) fn on_kick() {
    with_current(|t| t.task().set_work(work::RESCHEDULE));
}

/// The processor for a thread that becomes ready: where it was if that is idle, else any idle one, else where it was.
fn place(thread: &Thread) -> usize {
    let last = thread.cpu();
    let free = |cpu: usize| thread.allowed_on(cpu) && PROCESSORS.of(cpu).load.load(Ordering::Relaxed) == 0;
    if last < cpu::count() && free(last) {
        return last;
    }
    if let Some(idle) = (0..cpu::count()).find(|&cpu| free(cpu)) {
        return idle;
    }
    if thread.allowed_on(last) && last < cpu::count() {
        return last;
    }
    (0..cpu::count())
        .filter(|&cpu| thread.allowed_on(cpu))
        .min_by_key(|&cpu| PROCESSORS.of(cpu).load.load(Ordering::Relaxed))
        .unwrap_or(0)
}

/// Makes a thread ready that was woken; its entity is locked and it is in no queue. Gives the processor to [`request`] when it is unlocked.
#[must_use]
pub(crate) fn enqueue_woken(thread: &Arc<Thread>, entity: &mut Entity) -> Option<usize> {
    enqueue(thread, entity, place(thread), now())
}

/// Makes a new thread ready.
pub(crate) fn enqueue_new(thread: &Arc<Thread>) {
    let mut entity = thread.entity.lock_irq();
    let now = now();
    let told = enqueue(thread, &mut entity, place(thread), now);
    drop(entity);
    told.into_iter().for_each(request);
}

/// Changes what decides about a thread's place, wherever it is.
pub(crate) fn change(thread: &Arc<Thread>, change: impl FnOnce(&mut Entity)) {
    let mut entity = thread.entity.lock_irq();
    let home = thread.cpu();
    let queued = entity.waiting && PROCESSORS.of(home).queue.lock().remove(thread, &mut entity);
    if entity.on_queue && !entity.waiting {
        charge(PROCESSORS.of(home), &mut entity, now());
    }
    change(&mut entity);
    let told = if queued {
        PROCESSORS.of(home).load.fetch_sub(1, Ordering::SeqCst);
        let target = if thread.allowed_on(home) { home } else { place(thread) };
        enqueue(thread, &mut entity, target, now())
    } else {
        // If it runs, let its processor decide anew.
        entity.on_queue.then_some(home)
    };
    drop(entity);
    told.into_iter().for_each(request);
    if !with_current(|me| core::ptr::eq(me, &raw const **thread)) {
        return;
    }
    preempt_if_misplaced(thread);
}

/// The running thread may have just lost the right to be here.
fn preempt_if_misplaced(me: &Arc<Thread>) {
    if !me.allowed_on(cpu::id()) {
        reschedule();
    }
}

/// Takes a ready thread from the busiest other processor; true if there was one. Interrupts are off.
fn steal(here: usize) -> bool {
    let busiest = (0..cpu::count())
        .filter(|&cpu| cpu != here)
        .max_by_key(|&cpu| PROCESSORS.of(cpu).load.load(Ordering::Relaxed))
        .filter(|&cpu| PROCESSORS.of(cpu).load.load(Ordering::Relaxed) > 1);
    let Some(busiest) = busiest else { return false };
    take_from(busiest, here)
}

fn take_from(from: usize, here: usize) -> bool {
    let source = PROCESSORS.of(from);
    let Some(thread) = source.queue.lock().stealable(here) else {
        return false;
    };
    let mut entity = thread.entity.lock();
    // It may have run, slept or been moved since.
    if !entity.waiting || thread.cpu() != from || !thread.allowed_on(here) {
        return false;
    }
    let theirs = {
        let mut queue = source.queue.lock();
        if !queue.remove(&thread, &mut entity) {
            return false;
        }
        queue.fair.min
    };
    source.load.fetch_sub(1, Ordering::SeqCst);
    let target = PROCESSORS.of(here);
    thread.set_cpu(here);
    let mut queue = target.queue.lock();
    // It keeps its distance to the others.
    entity.vruntime = (entity.vruntime + queue.fair.min).saturating_sub(theirs);
    queue.push(thread.clone(), &mut entity, false);
    target.load.fetch_add(1, Ordering::SeqCst);
    true
}

/// Evens out, from a busy processor's tick: wakes an idle processor that could run what waits here, and now and then takes a thread
/// from a processor that has two more than this one.
fn balance(here: usize) {
    let mine = PROCESSORS.of(here);
    let load = mine.load.load(Ordering::Relaxed);
    let idle = |cpu: &usize| PROCESSORS.of(*cpu).is_idle.load(Ordering::Relaxed);
    if load > 1
        && let Some(idle) = (0..cpu::count()).find(idle)
    {
        if mine.queue.lock().stealable(idle).is_some() {
            request(idle);
        }
        return;
    }
    if mine.ticks.fetch_add(1, Ordering::Relaxed).is_multiple_of(TICKS_TO_BALANCE) {
        let loads = (0..cpu::count()).map(|cpu| (PROCESSORS.of(cpu).load.load(Ordering::Relaxed), cpu));
        if let Some((busiest, cpu)) = loads.max()
            && busiest >= load + 2
        {
            take_from(cpu, here);
        }
    }
}

/// Switches if anyone else is ready.
pub fn reschedule() {
    schedule();
}

/// Lets the others of its level go first (sched_yield).
pub(crate) fn yield_current() {
    with_current(|me| {
        let mut entity = me.entity.lock_irq();
        charge(PROCESSORS.get(), &mut entity, now());
        if entity.effective().is_realtime() {
            entity.slice_used = RR_SLICE;
        } else if let Some(last) = PROCESSORS.get().queue.lock().fair.first() {
            entity.vruntime = entity.vruntime.max(last + 1);
        }
    });
    schedule();
}

/// The timer interrupt.
pub(crate) fn on_timer() {
    if timer::run_expired() {
        tick();
    }
}

/// Accounts the running thread and takes the processor from it if its slice is over.
fn tick() {
    let here = cpu::id();
    let processor = PROCESSORS.of(here);
    let me = crate::thread::current();
    if processor.idle.get().is_some_and(|idle| Arc::ptr_eq(idle, &me)) {
        return;
    }
    let now = now();
    let user = hal::task::interrupted_user();
    me.count_tick(user);
    let mut entity = me.entity.lock();
    statistics::count_tick(user, entity.params.nice > 0);
    charge(processor, &mut entity, now);
    let mut queue = processor.queue.lock();
    let throttled = queue.throttle.is_over(now);
    if !entity.effective().is_realtime() {
        queue.fair.advance(entity.vruntime);
    }
    let over = if entity.effective().is_realtime() {
        throttled && queue.fair.len() > 0
            || queue.rt.highest() > entity.effective().rt_priority
            || entity.effective().policy == Policy::RoundRobin
                && entity.slice_used >= RR_SLICE
                && queue.rt.highest() == entity.effective().rt_priority
    } else {
        queue.rt.len() > 0 && !throttled
            || entity.slice_used >= fair::SLICE && queue.fair.first().is_some_and(|first| first < entity.vruntime)
    };
    note_current(here, &entity);
    drop(queue);
    drop(entity);
    if over {
        me.task().set_work(work::RESCHEDULE);
    }
    balance(here);
    statistics::sample_load(now);
    timer::set_tick(Some(now + TICK));
}
