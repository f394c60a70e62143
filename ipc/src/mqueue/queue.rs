//! One POSIX message queue.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Events, Nanos, Result};
use fs::{File, Io, PollTable};
use hal::sync::SpinLock;
use mm::Sink;
use sched::{Sleep, WaitError, WaitQueue};

/// `struct mq_attr`, without the flags that belong to a descriptor and the count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// mq_maxmsg.
    pub messages: usize,
    /// mq_msgsize.
    pub size: usize,
}

/// What a request to be told ends with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    /// A message, from this sender.
    Message(Sender),
    /// It was taken back.
    Removed,
}

/// What a process is told by when a message comes to an empty queue.
pub struct Notification {
    /// The descriptor table that it asked through.
    pub table: u64,
    /// Its number, to be shown.
    pub pid: i32,
    /// Its sigev_notify and sigev_signo, to be shown.
    pub shown: (i32, i32),
    /// Tells it: of a message. Called with the queue locked: it must not sleep. Or that the request was taken back.
    pub tell: Box<dyn Fn(News) + Send + Sync>,
}

struct State {
    /// By priority, each in the order of sending.
    messages: BTreeMap<u32, VecDeque<Vec<u8>>>,
    count: usize,
    bytes: usize,
    notification: Option<Notification>,
    /// Receivers that sleep: they come before a notification.
    receivers: usize,
}

/// A queue.
pub struct Queue {
    attributes: Attributes,
    state: SpinLock<State>,
    /// Woken when there is a message.
    messages: Arc<WaitQueue>,
    /// Woken when there is room.
    room: Arc<WaitQueue>,
}

/// Who sends a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sender {
    /// Its process.
    pub pid: i32,
    /// Its real user.
    pub uid: u32,
}

/// How long to wait.
#[derive(Clone, Copy)]
pub enum Patience {
    /// Not at all (O_NONBLOCK).
    None,
    /// Until then, on the monotonic clock; for ever without a time.
    Until(Option<Nanos>),
}

impl Queue {
    pub(super) fn new(attributes: Attributes) -> Queue {
        let state = State { messages: BTreeMap::new(), count: 0, bytes: 0, notification: None, receivers: 0 };
        Queue {
            attributes,
            state: SpinLock::new(state),
            messages: Arc::new(WaitQueue::new()),
            room: Arc::new(WaitQueue::new()),
        }
    }

    /// What it was made with.
    pub fn attributes(&self) -> Attributes {
        self.attributes
    }

    /// Messages in it.
    pub fn len(&self) -> usize {
        self.state.lock().count
    }

    /// Has it no message?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// mq_timedsend(3). `EMSGSIZE`, `EAGAIN`, `ETIMEDOUT`, `ERESTARTSYS`, `ENOMEM`.
    pub fn send(&self, text: Vec<u8>, priority: u32, sender: Sender, patience: Patience) -> Result<()> {
        if text.len() > self.attributes.size {
            return Err(Errno::EMSGSIZE);
        }
        let mut text = Some(text);
        wait(&self.room, patience, || self.try_send(&mut text, priority, sender))?;
        self.messages.wake_for(Events::READABLE, 1);
        Ok(())
    }

    fn try_send(&self, text: &mut Option<Vec<u8>>, priority: u32, sender: Sender) -> Option<()> {
        let mut state = self.state.lock();
        if state.count >= self.attributes.messages {
            return None;
        }
        let text = text.take()?;
        let was_empty = state.count == 0;
        state.count += 1;
        state.bytes += text.len();
        state.messages.entry(priority).or_default().push_back(text);
        if was_empty
            && state.receivers == 0
            && let Some(notification) = state.notification.take()
        {
            (notification.tell)(News::Message(sender));
        }
        Some(())
    }

    /// mq_timedreceive(3): text and priority of the first message of the highest one. `EAGAIN`, `ETIMEDOUT`, `ERESTARTSYS`.
    pub fn receive(&self, patience: Patience) -> Result<(Vec<u8>, u32)> {
        let message = match self.try_receive() {
            Some(message) => message,
            None => {
                self.state.lock().receivers += 1;
                let result = wait(&self.messages, patience, || self.try_receive());
                self.state.lock().receivers -= 1;
                result?
            }
        };
        self.room.wake_for(Events::WRITABLE, 1);
        Ok(message)
    }

    fn try_receive(&self) -> Option<(Vec<u8>, u32)> {
        let mut state = self.state.lock();
        let mut highest = state.messages.last_entry()?;
        let priority = *highest.key();
        let text = highest.get_mut().pop_front()?;
        if highest.get().is_empty() {
            highest.remove();
        }
        state.count -= 1;
        state.bytes -= text.len();
        Some((text, priority))
    }

    /// mq_notify(3): asks to be told once. `EBUSY` if somebody has.
    pub fn notify(&self, notification: Notification) -> Result<()> {
        let mut state = self.state.lock();
        if state.notification.is_some() {
            return Err(Errno::EBUSY);
        }
        state.notification = Some(notification);
        Ok(())
    }

    /// Takes the request that was made through a descriptor table back, if there is one.
    pub fn cancel_notification(&self, table: u64) {
        let cancelled = {
            let mut state = self.state.lock();
            let own = state.notification.as_ref().is_some_and(|notification| notification.table == table);
            if own { state.notification.take() } else { None }
        };
        if let Some(notification) = cancelled {
            (notification.tell)(News::Removed);
        }
    }
}

/// Does `step` until it succeeds.
fn wait<R>(queue: &WaitQueue, patience: Patience, mut step: impl FnMut() -> Option<R>) -> Result<R> {
    match patience {
        Patience::None => step().ok_or(Errno::EAGAIN),
        Patience::Until(deadline) => {
            queue.wait_exclusive(Sleep::Interruptible, deadline, step).map_err(|error| match error {
                WaitError::TimedOut => Errno::ETIMEDOUT,
                WaitError::Interrupted => Errno::ERESTARTSYS,
            })
        }
    }
}

/// A descriptor's view of a queue. Reading it as a file tells its state, as mq_overview(7) says.
pub(super) struct QueueFile(pub(super) Arc<Queue>);

impl File for QueueFile {
    fn read(&self, sink: &mut Sink, io: &mut Io) -> Result<usize> {
        let text = {
            let state = self.0.state.lock();
            let (notify, signal) = state.notification.as_ref().map_or((0, 0), |n| n.shown);
            let pid = state.notification.as_ref().map_or(0, |n| n.pid);
            format!("QSIZE:{:<10} NOTIFY:{notify:<5} SIGNO:{signal:<5} NOTIFY_PID:{pid:<6}\n", state.bytes)
        };
        let from = usize::try_from(io.offset).unwrap_or(usize::MAX).min(text.len());
        sink.put(&text.as_bytes()[from..])
    }

    fn flush(&self, table: u64) {
        self.0.cancel_notification(table);
    }

    fn positioned(&self) -> bool {
        true
    }

    fn poll(&self, table: &mut PollTable) -> Events {
        table.register(&self.0.messages);
        table.register(&self.0.room);
        let count = self.0.len();
        let mut ready = Events::empty();
        if count > 0 {
            ready |= Events::READABLE;
        }
        if count < self.0.attributes.messages {
            ready |= Events::WRITABLE;
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENDER: Sender = Sender { pid: 7, uid: 8 };

    fn send(queue: &Queue, text: &[u8], priority: u32) -> Result<()> {
        queue.send(text.to_vec(), priority, SENDER, Patience::None)
    }

    #[test]
    fn messages_come_by_priority_then_age() {
        let queue = Queue::new(Attributes { messages: 4, size: 3 });
        for (text, priority) in [(b"a", 1), (b"b", 5), (b"c", 1), (b"d", 5)] {
            assert_eq!(send(&queue, text, priority), Ok(()));
        }
        assert_eq!(send(&queue, b"e", 9), Err(Errno::EAGAIN));
        assert_eq!(send(&queue, b"long", 9), Err(Errno::EMSGSIZE));
        let order: Vec<_> = (0..4).map(|_| queue.receive(Patience::None).unwrap().0).collect();
        assert_eq!(order, [b"b", b"d", b"a", b"c"]);
        assert_eq!(queue.receive(Patience::None), Err(Errno::EAGAIN));
    }

    #[test]
    fn the_first_message_notifies_once() {
        use core::sync::atomic::{AtomicI32, Ordering};
        let queue = Queue::new(Attributes { messages: 4, size: 3 });
        let told = Arc::new(AtomicI32::new(0));
        let request = || {
            let told = told.clone();
            let tell = Box::new(move |news| {
                let by = if let News::Message(sender) = news { sender.pid } else { 100 };
                told.fetch_add(by, Ordering::Relaxed);
            });
            Notification { table: 1, pid: 1, shown: (0, 10), tell }
        };
        queue.notify(request()).unwrap();
        assert_eq!(queue.notify(request()), Err(Errno::EBUSY));
        send(&queue, b"a", 0).unwrap();
        send(&queue, b"b", 0).unwrap();
        assert_eq!(told.load(Ordering::Relaxed), 7);
        queue.notify(request()).unwrap();
        queue.cancel_notification(2);
        assert_eq!(queue.notify(request()), Err(Errno::EBUSY));
        queue.cancel_notification(1);
        assert_eq!(told.load(Ordering::Relaxed), 107);
        assert_eq!(queue.notify(request()), Ok(()));
    }
}
