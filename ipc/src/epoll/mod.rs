//! epoll(7).
//!
//! Each watched file has an [`Item`] in the file's wait queues. When the file has news, the item puts itself on the ready list; waiting
//! looks at the items on that list only, so its cost is that of what is ready, not of what is watched.
//!
//! Lock order: nesting lock -> items -> ready list. The ready list is taken with interrupts off, since wake-ups come from interrupts;
//! it never allocates there, because room for every item is made when the item is added.

mod item;
mod nesting;
mod queued;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use base::{Errno, Events, Result};
use fs::{Fd, File, OpenFile, OpenFlags, PollTable};
use hal::sync::SpinLock;
use sched::{Mutex, Sleep, WaitError, WaitQueue};

use item::Item;
pub use item::{EventFlags, Interest};

use crate::poll::Until;

/// An event as a waiter gets it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Occurred {
    /// What the file is ready for.
    pub events: u32,
    /// The number that the program gave when it added the file.
    pub data: u64,
}

/// The key of an item: a file may be watched under several descriptors, and a descriptor may come to mean another file.
type Key = (Fd, u64);

/// An epoll instance.
pub struct Epoll {
    me: Weak<Epoll>,
    items: Mutex<BTreeMap<Key, Arc<Item>>>,
    ready: SpinLock<VecDeque<Arc<Item>>>,
    /// Threads in epoll_wait.
    waiters: Arc<WaitQueue>,
    /// Those who poll this instance itself.
    pollers: Arc<WaitQueue>,
    /// The items that stand for this instance in others.
    parents: SpinLock<Vec<Weak<Item>>>,
}

impl Epoll {
    fn new() -> Arc<Epoll> {
        Arc::new_cyclic(|me| Epoll {
            me: me.clone(),
            items: Mutex::new(BTreeMap::new()),
            ready: SpinLock::new(VecDeque::new()),
            waiters: Arc::new(WaitQueue::new()),
            // Instances watch each other, but not in a circle (`nesting`).
            pollers: Arc::new(WaitQueue::ranked(0)),
            parents: SpinLock::new(Vec::new()),
        })
    }

    /// The instance behind an open file. `EINVAL`.
    pub fn of(open: &OpenFile) -> Result<Arc<Epoll>> {
        open.file().downcast::<EpollFile>().map(|file| file.0.clone()).ok_or(Errno::EINVAL)
    }

    /// EPOLL_CTL_ADD. `EEXIST`, `EPERM` for files that are always ready, `ELOOP`, `EINVAL`, `ENOMEM`.
    pub fn add(&self, fd: Fd, open: &Arc<OpenFile>, interest: Interest) -> Result<()> {
        if !open.file().pollable() {
            return Err(Errno::EPERM);
        }
        let nested = Epoll::of(open).ok();
        if nested.is_some() && interest.flags.contains(EventFlags::EXCLUSIVE) {
            return Err(Errno::EINVAL);
        }
        let _nesting = nested.as_ref().map(|child| nesting::check(self, child)).transpose()?;
        let mut items = self.items.lock();
        let key = (fd, open.id());
        if items.contains_key(&key) {
            return Err(Errno::EEXIST);
        }
        self.purge(&mut items, fd);
        self.reserve(items.len() + 1)?;
        let item = Item::new(&self.me, open, interest);
        items.insert(key, item.clone());
        if let Some(child) = nested {
            child.parents.lock().push(Arc::downgrade(&item));
        }
        item.start(open);
        Ok(())
    }

    /// EPOLL_CTL_MOD. `ENOENT`, `EINVAL` for exclusive items.
    pub fn modify(&self, fd: Fd, open: &Arc<OpenFile>, interest: Interest) -> Result<()> {
        let items = self.items.lock();
        let item = items.get(&(fd, open.id())).ok_or(Errno::ENOENT)?;
        item.change(open, interest)
    }

    /// EPOLL_CTL_DEL. `ENOENT`.
    pub fn remove(&self, fd: Fd, open: &OpenFile) -> Result<()> {
        let item = self.items.lock().remove(&(fd, open.id())).ok_or(Errno::ENOENT)?;
        self.forget(&item);
        Ok(())
    }

    /// The address of the open file of the item number `offset` that was added under `fd`: what kcmp(2) compares.
    pub fn watched(&self, fd: Fd, offset: usize) -> Option<usize> {
        let items = self.items.lock();
        let found = items.range((fd, 0)..=(fd, u64::MAX)).filter_map(|(_, item)| item.file()).nth(offset)?;
        Some(Arc::as_ptr(&found).addr())
    }

    fn forget(&self, item: &Arc<Item>) {
        item.stop();
        self.ready.lock_irq().retain(|queued| !Arc::ptr_eq(queued, item));
    }

    /// Drops items whose file is gone: those of `fd`, and all of them now and then.
    fn purge(&self, items: &mut BTreeMap<Key, Arc<Item>>, fd: Fd) {
        let everything = items.len().is_power_of_two();
        let range = if everything { (Fd::MIN, 0)..=(Fd::MAX, u64::MAX) } else { (fd, 0)..=(fd, u64::MAX) };
        let dead: Vec<Key> =
            items.range(range).filter(|(_, item)| item.file().is_none()).map(|(key, _)| *key).collect();
        for key in dead {
            if let Some(item) = items.remove(&key) {
                self.forget(&item);
            }
        }
    }

    /// Makes room on the ready list for `count` items.
    fn reserve(&self, count: usize) -> Result<()> {
        let mut bigger = VecDeque::new();
        if self.ready.lock_irq().capacity() >= count {
            return Ok(());
        }
        bigger.try_reserve(count.next_power_of_two()).map_err(|_| Errno::ENOMEM)?;
        let mut ready = self.ready.lock_irq();
        bigger.extend(ready.drain(..));
        let old = core::mem::replace(&mut *ready, bigger);
        drop(ready);
        drop(old);
        Ok(())
    }

    /// Puts an item on the ready list, unless it is there. True if a thread was waiting for it.
    fn queue(&self, item: Arc<Item>) -> bool {
        self.queue_again(item);
        let waiting = self.waiters.has_waiters();
        self.waiters.wake_one();
        self.pollers.wake_for(Events::READABLE, usize::MAX);
        waiting
    }

    fn has_ready(&self) -> bool {
        !self.ready.lock_irq().is_empty()
    }

    /// epoll_wait(2): gives up to `max` events to `store`, and says how many; none when time ran out. An event that can't be stored stays.
    /// `EINTR` at a signal, and what `store` gives for the first event.
    pub fn wait(&self, max: usize, until: Until, mut store: impl FnMut(Occurred) -> Result<()>) -> Result<usize> {
        loop {
            let count = self.collect(max, &mut store)?;
            if count > 0 || until == Until::Now {
                return Ok(count);
            }
            let deadline = match until {
                Until::Deadline(nanos) => Some(nanos),
                _ => None,
            };
            let ready = || self.has_ready().then_some(());
            match self.waiters.wait_exclusive(Sleep::Interruptible, deadline, ready) {
                Ok(()) => {}
                Err(WaitError::TimedOut) => return Ok(0),
                Err(WaitError::Interrupted) => return Err(Errno::EINTR),
            }
        }
    }

    /// Looks at the items on the ready list, each once, and stores what is really ready.
    fn collect(&self, max: usize, store: &mut impl FnMut(Occurred) -> Result<()>) -> Result<usize> {
        let items = self.items.lock();
        let (mut count, mut left) = (0, usize::MAX);
        while count < max {
            let item = {
                let mut ready = self.ready.lock_irq();
                left = left.min(ready.len());
                if left == 0 {
                    break;
                }
                left -= 1;
                ready.pop_front()
            };
            let Some(item) = item else { break };
            item.unmark_queued();
            let Some(occurred) = item.occurred() else { continue };
            let stored = store(occurred);
            if stored.is_err() || item.reported() {
                self.queue_again(item);
            }
            match stored {
                Ok(()) => count += 1,
                Err(error) if count == 0 => return Err(error),
                Err(_) => break,
            }
        }
        drop(items);
        // Another waiter may take what is left.
        if count > 0 && self.waiters.has_waiters() && self.has_ready() {
            self.waiters.wake_one();
        }
        Ok(count)
    }

    fn queue_again(&self, item: Arc<Item>) {
        if item.mark_queued() {
            self.ready.lock_irq().push_back(item);
        }
    }

    /// Is anything on the ready list really ready?
    fn any_ready(&self) -> bool {
        let queued: Vec<_> = self.ready.lock_irq().iter().cloned().collect();
        queued.iter().any(|item| item.is_ready())
    }
}

/// The file that descriptors of an instance refer to.
struct EpollFile(Arc<Epoll>);

impl Drop for EpollFile {
    /// Takes the items out of all wait queues here, where that may lock them: the instance itself may be dropped last by a wake-up in
    /// progress, under the lock of such a queue.
    fn drop(&mut self) {
        let items = core::mem::take(&mut *self.0.items.lock());
        for item in items.values() {
            item.stop();
        }
        let queued = core::mem::take(&mut *self.0.ready.lock_irq());
        drop((items, queued));
    }
}

impl File for EpollFile {
    fn poll(&self, table: &mut PollTable) -> Events {
        table.register(&self.0.pollers);
        if self.0.any_ready() { Events::READABLE } else { Events::empty() }
    }

    fn fdinfo(&self) -> Vec<u8> {
        let mut lines = Vec::new();
        for ((fd, _), item) in self.0.items.lock().iter() {
            let (interest, inode) = (item.interest(), item.file().map_or(0, |open| open.inode().number()));
            let line = alloc::format!(
                "tfd: {fd:8} events: {:8x} data: {:16x}  pos:0 ino:{inode:x} sdev:0\n",
                interest.bits(),
                interest.data
            );
            lines.extend_from_slice(line.as_bytes());
        }
        lines
    }
}

/// epoll_create1(2).
pub fn create() -> Arc<OpenFile> {
    fs::vfs::pseudo::open_anonymous(Arc::new(EpollFile(Epoll::new())), "[eventpoll]", OpenFlags::RDWR)
}
