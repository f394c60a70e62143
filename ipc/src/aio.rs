//! Linux AIO (io_setup(2), io_submit(2), ...): contexts that collect the results of requests until they are asked for.
//!
//! Reads, writes and fsync are done by io_submit(2) itself, as Linux does for what goes through the page cache. Polls wait by hooks in their
//! file's wait queues; a hook runs under the queue's lock, so it only notes that there is news, and a kernel thread looks at the file.
//! Lock order: registry -> a context's state -> the list of news.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base::{Errno, Events, Nanos, Result};
use fs::procfs::{file, file_rw, register_sysctl};
use fs::{OpenFile, PollTable};
use hal::sync::{Once, SpinLock};
use sched::{Notify, Sleep, WaitError, WaitQueue};

use crate::eventfd;

/// `fs.aio-max-nr`: how many requests all contexts together may hold.
static MOST: AtomicU64 = AtomicU64::new(65536);
/// `fs.aio-nr`: how many they hold.
static HELD: AtomicU64 = AtomicU64::new(0);

/// `struct io_event`: what is told of a request that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The request's `aio_data`.
    pub data: u64,
    /// The address of its control block.
    pub object: u64,
    /// The result.
    pub result: i64,
}

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    /// Requests under way.
    polls: Vec<Arc<Poll>>,
    ended: bool,
}

/// A context. It belongs to the address space it was made in.
pub struct Context {
    size: usize,
    state: SpinLock<State>,
    waiters: WaitQueue,
}

/// Contexts, by the process that has them and the number it knows them by.
static CONTEXTS: SpinLock<BTreeMap<(i32, usize), Arc<Context>>> = SpinLock::new(BTreeMap::new());

/// Makes a context for `size` requests, which process `owner` knows as `id`. `EAGAIN` beyond `fs.aio-max-nr`, `ENOMEM`.
pub fn create(owner: i32, id: usize, size: usize) -> Result<()> {
    let room = |held: u64| held.checked_add(size as u64).filter(|&sum| sum <= MOST.load(Ordering::Relaxed));
    HELD.fetch_update(Ordering::SeqCst, Ordering::SeqCst, room).map_err(|_| Errno::EAGAIN)?;
    let context = Context { size, state: SpinLock::default(), waiters: WaitQueue::new() };
    let mut state = context.state.lock();
    let reserved = state.events.try_reserve_exact(size).and_then(|()| state.polls.try_reserve_exact(size));
    drop(state);
    let context = Arc::new(context);
    reserved.map_err(|_| Errno::ENOMEM)?;
    CONTEXTS.lock().insert((owner, id), context);
    Ok(())
}

/// The context. `EINVAL`.
pub fn find(owner: i32, id: usize) -> Result<Arc<Context>> {
    CONTEXTS.lock().get(&(owner, id)).cloned().ok_or(Errno::EINVAL)
}

/// Ends a context and what is under way in it. `EINVAL`.
pub fn destroy(owner: i32, id: usize) -> Result<()> {
    let context = CONTEXTS.lock().remove(&(owner, id)).ok_or(Errno::EINVAL)?;
    context.end();
    Ok(())
}

/// A process has ended, or runs another program: ends its contexts.
pub fn leave(owner: i32) {
    let mut contexts = CONTEXTS.lock();
    if contexts.is_empty() {
        return;
    }
    let own: Vec<_> = contexts.extract_if((owner, 0)..=(owner, usize::MAX), |_, _| true).collect();
    drop(contexts);
    own.iter().for_each(|(_, context)| context.end());
}

impl Drop for Context {
    fn drop(&mut self) {
        HELD.fetch_sub(self.size as u64, Ordering::SeqCst);
    }
}

impl Context {
    fn end(&self) {
        let mut state = self.state.lock();
        state.ended = true;
        let polls = core::mem::take(&mut state.polls);
        drop(state);
        polls.iter().for_each(|poll| poll.stop());
        self.waiters.wake_all();
    }

    /// Is there room for one more request? `EAGAIN`.
    pub fn check_room(&self) -> Result<()> {
        let state = self.state.lock();
        if state.events.len() + state.polls.len() < self.size { Ok(()) } else { Err(Errno::EAGAIN) }
    }

    /// A request has ended: keeps what is to be told, and adds one to its eventfd.
    pub fn complete(&self, event: Event, eventfd: Option<&OpenFile>) {
        let mut state = self.state.lock();
        // There is room: each request was counted when it was made, but for those of calls that ran side by side.
        if state.events.try_reserve(1).is_ok() {
            state.events.push_back(event);
        }
        drop(state);
        if let Some(open) = eventfd {
            eventfd::signal(open);
        }
        self.waiters.wake_all();
    }

    /// Waits until there are `least` events or `deadline` is reached, and takes up to `most`. `EINTR`, `EINVAL` (the context has ended).
    pub fn wait(&self, least: usize, most: usize, deadline: Option<Nanos>) -> Result<Vec<Event>> {
        let enough = || {
            let state = self.state.lock();
            (state.events.len() >= least || state.ended).then_some(())
        };
        let waited = self.waiters.wait_until(Sleep::Interruptible, deadline, enough);
        let mut state = self.state.lock();
        if state.ended {
            return Err(Errno::EINVAL);
        }
        let count = state.events.len().min(most);
        if count == 0 && waited == Err(WaitError::Interrupted) {
            return Err(Errno::EINTR);
        }
        Ok(state.events.drain(..count).collect())
    }

    /// Puts events back that could not be told.
    pub fn put_back(&self, events: &[Event]) {
        let mut state = self.state.lock();
        for event in events.iter().rev() {
            state.events.push_front(*event);
        }
    }

    /// IOCB_CMD_POLL: an event when the file is ready for one of `events`. `ENOMEM`.
    pub fn poll(
        self: &Arc<Context>,
        open: &Arc<OpenFile>,
        events: Events,
        (data, object): (u64, u64),
        eventfd: Option<Arc<OpenFile>>,
    ) -> Result<()> {
        start()?;
        let poll = Arc::new_cyclic(|me| Poll {
            me: me.clone(),
            context: Arc::downgrade(self),
            open: open.clone(),
            events: events | Events::ALWAYS,
            data,
            object,
            eventfd,
            noted: AtomicBool::new(false),
            table: SpinLock::new(None),
        });
        let mut state = self.state.lock();
        state.polls.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        state.polls.push(poll.clone());
        drop(state);
        let mut table = PollTable::new(Arc::new(Hook(SpinLock::new(Some(poll.clone())))), false);
        let _ = open.poll(&mut table);
        *poll.table.lock() = Some(table);
        // It may be ready already, or have become so while this was set up, and have ended before the table was there to be dropped.
        poll.look();
        if !self.state.lock().polls.iter().any(|other| Arc::ptr_eq(other, &poll)) {
            poll.stop();
        }
        Ok(())
    }

    /// io_cancel(2): ends the poll with that control block; false if there is none.
    pub fn cancel(&self, object: u64) -> bool {
        let mut state = self.state.lock();
        let at = state.polls.iter().position(|poll| poll.object == object);
        let poll = at.map(|at| state.polls.swap_remove(at));
        drop(state);
        let Some(poll) = poll else { return false };
        poll.stop();
        let event = Event { data: poll.data, object, result: 0 };
        self.complete(event, poll.eventfd.as_deref());
        true
    }
}

/// A poll that is under way.
struct Poll {
    me: Weak<Poll>,
    context: Weak<Context>,
    open: Arc<OpenFile>,
    events: Events,
    data: u64,
    object: u64,
    eventfd: Option<Arc<OpenFile>>,
    /// It is on the list of news.
    noted: AtomicBool,
    table: SpinLock<Option<PollTable>>,
}

impl Poll {
    /// Leaves the file's wait queues.
    fn stop(&self) {
        let table = self.table.lock().take();
        drop(table);
    }

    /// Ends it if its file is ready.
    fn look(&self) {
        let ready = self.open.poll(&mut PollTable::ask()) & self.events;
        let Some(context) = self.context.upgrade().filter(|_| !ready.is_empty()) else { return };
        let mut state = context.state.lock();
        let at = state.polls.iter().position(|poll| core::ptr::eq(&raw const **poll, self));
        let me = at.map(|at| state.polls.swap_remove(at));
        drop(state);
        // Whoever took it off the list tells.
        if me.is_some() {
            self.stop();
            let event = Event { data: self.data, object: self.object, result: ready.bits().into() };
            context.complete(event, self.eventfd.as_deref());
        }
    }
}

/// What is in the wait queues. It keeps the poll alive as long as it is there: nothing is let go of under a queue's lock.
struct Hook(SpinLock<Option<Arc<Poll>>>);

impl Notify for Hook {
    fn notify(&self, events: Events) -> bool {
        let slot = self.0.lock_irq();
        let Some(poll) = slot.as_ref().filter(|poll| events.intersects(poll.events)) else { return false };
        let mut news = NEWS.lock_irq();
        if news.len() < news.capacity() && !poll.noted.swap(true, Ordering::SeqCst) {
            news.push_back(poll.clone());
            drop(news);
            LOOKER.wake_all();
        }
        true
    }
}

/// The most polls with news at a time; beyond that, news waits for the next.
const NEWS_MAX: usize = 1 << 16;

static NEWS: SpinLock<VecDeque<Arc<Poll>>> = SpinLock::new(VecDeque::new());
static LOOKER: WaitQueue = WaitQueue::new();
static STARTED: Once<()> = Once::new();

/// Starts the thread that looks at files with news. `ENOMEM`.
fn start() -> Result<()> {
    if STARTED.get().is_none() {
        let mut room = VecDeque::new();
        room.try_reserve(NEWS_MAX).map_err(|_| Errno::ENOMEM)?;
        if STARTED.set(()).is_ok() {
            *NEWS.lock_irq() = room;
            sched::thread::spawn_kernel("aio-poll", look_forever);
        }
    }
    Ok(())
}

fn look_forever() {
    loop {
        let next = LOOKER.wait_until(Sleep::Uninterruptible, None, || NEWS.lock_irq().pop_front());
        if let Ok(poll) = next {
            poll.noted.store(false, Ordering::SeqCst);
            if let Some(poll) = poll.me.upgrade() {
                poll.look();
            }
        }
    }
}

/// `/proc/sys/fs/aio-nr` and `aio-max-nr`. Once, at boot.
pub(crate) fn register() {
    let number = |value: u64| Ok(alloc::format!("{value}\n").into_bytes());
    register_sysctl("fs", "aio-nr", file(move || number(HELD.load(Ordering::Relaxed))));
    let most = file_rw(
        move || number(MOST.load(Ordering::Relaxed)),
        |data| {
            let text = core::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
            MOST.store(text.trim().parse().map_err(|_| Errno::EINVAL)?, Ordering::Relaxed);
            Ok(())
        },
    );
    register_sysctl("fs", "aio-max-nr", most);
}
