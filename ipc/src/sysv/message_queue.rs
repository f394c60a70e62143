//! Message queues: msgget(2), msgsnd(2), msgrcv(2).
//!
//! A message goes straight to a receiver that waits for it, in the order in which they came; else it is queued.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicI32, Ordering};

use base::{Errno, Result};
use hal::sync::SpinLock;
use sched::{Sleep, WaitQueue};

use super::registry::{Entry, NO_WAIT, READ, Stamp, WRITE};
use super::{Caller, Namespace};

/// MSG_NOERROR: cut a message that is too long.
const CUT: i32 = 0o10000;
/// MSG_EXCEPT: any type but this.
const EXCEPT: i32 = 0o20000;
/// MSG_COPY: the message at a position, which stays.
const COPY: i32 = 0o40000;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its type, above 0.
    pub kind: i64,
    /// Its text.
    pub text: Vec<u8>,
}

/// Which messages a receiver wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Selector {
    Any,
    Equal(i64),
    Except(i64),
    /// The lowest type up to this.
    UpTo(i64),
}

impl Selector {
    fn new(kind: i64, flags: i32) -> Selector {
        match kind {
            0 => Selector::Any,
            kind if kind < 0 => Selector::UpTo(kind.checked_neg().unwrap_or(i64::MAX)),
            kind if flags & EXCEPT != 0 => Selector::Except(kind),
            kind => Selector::Equal(kind),
        }
    }

    fn accepts(self, kind: i64) -> bool {
        match self {
            Selector::Any => true,
            Selector::Equal(wanted) => kind == wanted,
            Selector::Except(unwanted) => kind != unwanted,
            Selector::UpTo(most) => kind <= most,
        }
    }

    /// Where the message that it takes stands.
    fn find(self, messages: &VecDeque<Message>) -> Option<usize> {
        match self {
            Selector::UpTo(most) => {
                let candidates = messages.iter().enumerate().filter(|(_, message)| message.kind <= most);
                candidates.min_by_key(|(_, message)| message.kind).map(|(index, _)| index)
            }
            _ => messages.iter().position(|message| self.accepts(message.kind)),
        }
    }
}

/// A receiver that waits.
struct Receiver {
    selector: Selector,
    room: usize,
    cut: bool,
    pid: i32,
    result: SpinLock<Option<Result<Message>>>,
    queue: WaitQueue,
}

impl Receiver {
    fn finish(&self, result: Result<Message>) {
        *self.result.lock() = Some(result);
        self.queue.wake_all();
    }
}

struct State {
    messages: VecDeque<Message>,
    bytes: usize,
    /// msg_qbytes.
    limit: usize,
    receivers: VecDeque<Arc<Receiver>>,
    removed: bool,
}

/// A queue.
pub struct MessageQueue {
    state: SpinLock<State>,
    senders: WaitQueue,
    /// When the last message was sent.
    pub sent: Stamp,
    /// When the last one was received.
    pub received: Stamp,
    /// Who sent the last one.
    pub sender: AtomicI32,
    /// Who received the last one.
    pub receiver: AtomicI32,
}

/// How full a queue is.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Bytes in it.
    pub bytes: usize,
    /// Messages in it.
    pub messages: usize,
    /// Bytes that it takes.
    pub limit: usize,
}

/// msgget(2). As [`super::registry::Registry::get`].
pub fn get(namespace: &Namespace, caller: Caller, key: i32, flags: i32) -> Result<i32> {
    let limit = namespace.limits.msg_bytes.load(Ordering::Relaxed).max(0) as usize;
    let queues = namespace.limits.msg_count.load(Ordering::Relaxed);
    namespace.queues.get(caller, key, flags, queues, |_| Ok(()), || Ok(MessageQueue::new(limit)))
}

/// msgsnd(2). `EACCES`, `EAGAIN`, `EIDRM`, `ERESTARTNOHAND`.
pub fn send(entry: &Entry<MessageQueue>, caller: Caller, message: Message, flags: i32) -> Result<()> {
    let queue = &entry.object;
    let mut message = Some(message);
    let mut attempt = || {
        if let Err(error) = entry.permission().check(caller, WRITE) {
            return Some(Err(error));
        }
        queue.try_send(&mut message, caller.pid)
    };
    let sent = if flags & NO_WAIT != 0 {
        attempt().unwrap_or(Err(Errno::EAGAIN))
    } else {
        queue.senders.wait_until(Sleep::Interruptible, None, attempt).map_err(|_| Errno::ERESTARTNOHAND)?
    };
    sent?;
    queue.sent.touch();
    queue.sender.store(caller.pid, Ordering::Relaxed);
    Ok(())
}

/// msgrcv(2): a message of at most `room` bytes. `EACCES`, `E2BIG`, `ENOMSG`, `EINVAL`, `EIDRM`, `ERESTARTNOHAND`, `ENOMEM`.
pub fn receive(entry: &Entry<MessageQueue>, caller: Caller, room: usize, kind: i64, flags: i32) -> Result<Message> {
    if flags & COPY != 0 && (flags & EXCEPT != 0 || flags & NO_WAIT == 0) {
        return Err(Errno::EINVAL);
    }
    entry.permission().check(caller, READ)?;
    let queue = &entry.object;
    if flags & COPY != 0 {
        return queue.copy(room, kind, flags & CUT != 0);
    }
    let receiver = Arc::new(Receiver {
        selector: Selector::new(kind, flags),
        room,
        cut: flags & CUT != 0,
        pid: caller.pid,
        result: SpinLock::new(None),
        queue: WaitQueue::new(),
    });
    let message = match queue.try_receive(&receiver, flags & NO_WAIT == 0)? {
        Some(message) => message,
        None => queue.wait(&receiver)?,
    };
    queue.senders.wake_all();
    Ok(message)
}

fn cut(mut message: Message, room: usize) -> Message {
    message.text.truncate(room);
    message
}

impl MessageQueue {
    fn new(limit: usize) -> MessageQueue {
        let state = State { messages: VecDeque::new(), bytes: 0, limit, receivers: VecDeque::new(), removed: false };
        MessageQueue {
            state: SpinLock::new(state),
            senders: WaitQueue::new(),
            sent: Stamp::default(),
            received: Stamp::default(),
            sender: AtomicI32::new(0),
            receiver: AtomicI32::new(0),
        }
    }

    /// Sends the message if there is a receiver or room for it.
    fn try_send(&self, message: &mut Option<Message>, pid: i32) -> Option<Result<()>> {
        let mut state = self.state.lock();
        if state.removed {
            return Some(Err(Errno::EIDRM));
        }
        let len = message.as_ref()?.text.len();
        if state.bytes + len > state.limit || state.messages.len() >= state.limit {
            return None;
        }
        if state.messages.try_reserve(1).is_err() {
            return Some(Err(Errno::ENOMEM));
        }
        let message = message.take()?;
        while let Some(index) = state.receivers.iter().position(|r| r.selector.accepts(message.kind)) {
            let Some(receiver) = state.receivers.remove(index) else { break };
            if len > receiver.room && !receiver.cut {
                receiver.finish(Err(Errno::E2BIG));
                continue;
            }
            self.note_received(receiver.pid);
            // A sender that ends before its receiver runs has sent all the same.
            self.sender.store(pid, Ordering::Relaxed);
            let room = receiver.room;
            receiver.finish(Ok(cut(message, room)));
            return Some(Ok(()));
        }
        state.bytes += len;
        state.messages.push_back(message);
        Some(Ok(()))
    }

    fn note_received(&self, pid: i32) {
        self.received.touch();
        self.receiver.store(pid, Ordering::Relaxed);
    }

    /// Takes a message; without one, queues the receiver if it `waits`.
    fn try_receive(&self, receiver: &Arc<Receiver>, waits: bool) -> Result<Option<Message>> {
        let mut state = self.state.lock();
        if state.removed {
            return Err(Errno::EIDRM);
        }
        let Some(index) = receiver.selector.find(&state.messages) else {
            if !waits {
                return Err(Errno::ENOMSG);
            }
            state.receivers.push_back(receiver.clone());
            return Ok(None);
        };
        if state.messages[index].text.len() > receiver.room && !receiver.cut {
            return Err(Errno::E2BIG);
        }
        let message = state.messages.remove(index).ok_or(Errno::ENOMSG)?;
        state.bytes -= message.text.len();
        self.note_received(receiver.pid);
        Ok(Some(cut(message, receiver.room)))
    }

    fn wait(&self, receiver: &Arc<Receiver>) -> Result<Message> {
        let result = || receiver.result.lock().take();
        if let Ok(result) = receiver.queue.wait_until(Sleep::Interruptible, None, result) {
            return result;
        }
        let mut state = self.state.lock();
        state.receivers.retain(|other| !Arc::ptr_eq(other, receiver));
        // A message may have come just before we gave up.
        result().unwrap_or(Err(Errno::ERESTARTNOHAND))
    }

    /// MSG_COPY.
    fn copy(&self, room: usize, position: i64, may_cut: bool) -> Result<Message> {
        let state = self.state.lock();
        if state.removed {
            return Err(Errno::EIDRM);
        }
        let position = usize::try_from(position).map_err(|_| Errno::ENOMSG)?;
        let message = state.messages.get(position).ok_or(Errno::ENOMSG)?;
        if message.text.len() > room && !may_cut {
            return Err(Errno::E2BIG);
        }
        let mut text = Vec::new();
        let len = message.text.len().min(room);
        text.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
        text.extend_from_slice(&message.text[..len]);
        Ok(Message { kind: message.kind, text })
    }

    /// How full it is.
    pub fn usage(&self) -> Usage {
        let state = self.state.lock();
        Usage { bytes: state.bytes, messages: state.messages.len(), limit: state.limit }
    }

    /// IPC_SET's msg_qbytes.
    pub fn set_limit(&self, bytes: usize) {
        self.state.lock().limit = bytes;
        self.senders.wake_all();
    }

    /// Tells all who wait that the queue is gone.
    pub fn removed(&self) {
        let mut state = self.state.lock();
        state.removed = true;
        for receiver in state.receivers.drain(..) {
            receiver.finish(Err(Errno::EIDRM));
        }
        let messages = core::mem::take(&mut state.messages);
        state.bytes = 0;
        drop(state);
        drop(messages);
        self.senders.wake_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(kinds: &[i64]) -> VecDeque<Message> {
        kinds.iter().map(|&kind| Message { kind, text: Vec::new() }).collect()
    }

    #[test]
    fn receivers_choose_by_type() {
        let messages = queue(&[5, 3, 4, 3]);
        let find = |kind, flags| Selector::new(kind, flags).find(&messages);
        assert_eq!(find(0, 0), Some(0));
        assert_eq!(find(4, 0), Some(2));
        assert_eq!(find(5, EXCEPT), Some(1));
        assert_eq!(find(-4, 0), Some(1));
        assert_eq!(find(-2, 0), None);
        assert_eq!(find(i64::MIN, 0), Some(1));
    }

    #[test]
    fn a_message_waits_until_there_is_room() {
        let queue = MessageQueue::new(4);
        let mut first = Some(Message { kind: 1, text: b"abc".to_vec() });
        let mut second = Some(Message { kind: 1, text: b"de".to_vec() });
        assert_eq!(queue.try_send(&mut first, 1), Some(Ok(())));
        assert_eq!(queue.try_send(&mut second, 1), None);
        queue.set_limit(5);
        assert_eq!(queue.try_send(&mut second, 1), Some(Ok(())));
        assert_eq!(queue.copy(10, 1, false).map(|message| message.text), Ok(b"de".to_vec()));
        assert_eq!(queue.copy(1, 0, false), Err(Errno::E2BIG));
        queue.removed();
        assert_eq!(queue.try_send(&mut Some(Message { kind: 1, text: Vec::new() }), 1), Some(Err(Errno::EIDRM)));
    }
}
