//! Signal-driven I/O (O_ASYNC, F_SETOWN, F_SETSIG): SIGIO when a file has news.
//!
//! News comes under the lock of a wait queue, where signals can't be sent: it is noted there, and a kernel thread sends the signals.

use alloc::collections::VecDeque;
use alloc::sync::Arc;

use base::{Errno, Events, Result};
use hal::sync::{Once, SpinLock};
use sched::{Notify, Sleep, WaitQueue};

use crate::{Fd, OpenFile};

/// Where SIGIO goes (fcntl F_SETOWN, F_SETSIG).
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct AsyncOwner {
    /// F_OWNER_TID (0), F_OWNER_PID (1) or F_OWNER_PGRP (2).
    pub kind: u32,
    /// The thread, process or process group; 0 for nobody.
    pub id: i32,
    /// The signal; 0 for SIGIO.
    pub signal: i32,
    /// The real and effective user who set it: whom that user may signal, it may.
    pub users: (u32, u32),
}

/// Sends the signals, given by the layer that has processes.
pub trait AsyncSignals: Send + Sync {
    /// `events` happened on `fd`: signals the owner, if that still is there and may be signalled.
    fn send(&self, owner: &AsyncOwner, fd: Fd, events: Events);
    /// Urgent data came: SIGURG to the owner, whatever signal it has chosen for other news.
    fn send_urgent(&self, owner: &AsyncOwner);
    /// The running process, and its real and effective user.
    fn caller(&self) -> (i32, (u32, u32));
}

/// News for an owner.
enum News {
    Ready(AsyncOwner, Fd, Events),
    Urgent(AsyncOwner),
}

/// News under way at most: more are dropped, as signals that are pending already are.
const QUEUE_MAX: usize = 1024;

static SIGNALS: Once<Arc<dyn AsyncSignals>> = Once::new();
static NEWS: SpinLock<VecDeque<News>> = SpinLock::new(VecDeque::new());
static SENDER: WaitQueue = WaitQueue::new();
static STARTED: Once<()> = Once::new();

/// Sets who sends the signals. Once, at boot.
pub fn set_signals(signals: Arc<dyn AsyncSignals>) {
    assert!(SIGNALS.set(signals).is_ok(), "the sender of SIGIO is set twice");
}

/// The owner of one open file, as its notifier sees it.
pub type OwnerCell = Arc<SpinLock<AsyncOwner>>;

/// Notes the news of a file.
pub(crate) struct Notifier {
    owner: OwnerCell,
    fd: Fd,
}

/// Gets room for news, and starts the thread that sends. `ENOMEM`.
pub(crate) fn prepare() -> Result<()> {
    let mut news = NEWS.lock_irq();
    news.try_reserve(QUEUE_MAX).map_err(|_| Errno::ENOMEM)?;
    drop(news);
    if STARTED.set(()).is_ok() {
        sched::thread::spawn_kernel("async-io", send_forever);
    }
    Ok(())
}

/// The owner of an open file, to whom [`post`] will send; the running process where none is set yet. `ENOMEM`.
pub(crate) fn owned(open: &OpenFile) -> Result<OwnerCell> {
    /// F_OWNER_PID.
    const PROCESS: u32 = 1;
    prepare()?;
    let cell = open.owner_cell().clone();
    let mut owner = cell.lock_irq();
    if owner.id == 0
        && let Some(signals) = SIGNALS.get()
    {
        let (pid, users) = signals.caller();
        *owner = AsyncOwner { kind: PROCESS, id: pid, users, ..*owner };
    }
    drop(owner);
    Ok(cell)
}

/// Notes news for the owner of a file.
pub(crate) fn post(owner: &OwnerCell, fd: Fd, events: Events) {
    put(owner, |owner| News::Ready(owner, fd, events));
}

/// Urgent data came for the owner of a file. What has no owner (F_SETOWN) tells nobody. Callable under locks.
pub fn urgent(owner: &OwnerCell) {
    put(owner, News::Urgent);
}

fn put(owner: &OwnerCell, what: impl FnOnce(AsyncOwner) -> News) {
    let owner = *owner.lock_irq();
    let mut news = NEWS.lock_irq();
    if owner.id != 0 && news.len() < news.capacity().min(QUEUE_MAX) {
        news.push_back(what(owner));
        drop(news);
        SENDER.wake_all();
    }
}

impl Notifier {
    /// A notifier. `ENOMEM`.
    pub(crate) fn new(owner: OwnerCell, fd: Fd) -> Result<Arc<Notifier>> {
        prepare()?;
        Ok(Arc::new(Notifier { owner, fd }))
    }
}

impl Notify for Notifier {
    fn notify(&self, events: Events) -> bool {
        post(&self.owner, self.fd, events);
        false
    }
}

fn send_forever() {
    loop {
        let next = SENDER.wait_until(Sleep::Uninterruptible, None, || NEWS.lock_irq().pop_front());
        let (Ok(news), Some(signals)) = (next, SIGNALS.get()) else { continue };
        match news {
            News::Ready(owner, fd, events) => signals.send(&owner, fd, events),
            News::Urgent(owner) => signals.send_urgent(&owner),
        }
    }
}
