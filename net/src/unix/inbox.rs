//! What waits to be received.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use fs::OpenFile;
use hal::sync::SpinLock;

use super::inflight::Inflight;
use crate::socket::Ucred;

/// A message, or a piece of a stream.
pub(super) struct Message {
    /// The bytes.
    pub(super) data: Vec<u8>,
    /// How many of them were received (streams).
    pub(super) taken: usize,
    /// It is the urgent byte (MSG_OOB) of a stream, not yet received.
    pub(super) urgent: bool,
    /// An urgent byte came right behind it, and has been received: reads stop here all the same.
    pub(super) before_mark: bool,
    /// The descriptors that go with it.
    pub(super) files: Vec<Arc<OpenFile>>,
    /// Their place in the count of descriptors under way.
    pub(super) inflight: Inflight,
    /// Who sent it.
    pub(super) sender: Ucred,
    /// The sender's address, encoded.
    pub(super) from: Vec<u8>,
}

impl Message {
    /// The bytes that were not received yet.
    pub(super) fn rest(&self) -> &[u8] {
        self.data.get(self.taken..).unwrap_or_default()
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        bury(core::mem::take(&mut self.files));
    }
}

/// The messages of a socket.
#[derive(Default)]
pub(super) struct Inbox {
    messages: VecDeque<Message>,
    bytes: usize,
    has_urgent: bool,
    /// Nothing more comes: the other end has gone or shut down writing.
    pub(super) ended: bool,
    /// Nothing more is taken: this end has shut down reading, or is closed.
    pub(super) refuses: bool,
}

impl Inbox {
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Bytes that can be received.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The length of the first message.
    pub(super) fn first_len(&self) -> usize {
        self.messages.front().map_or(0, |m| m.rest().len())
    }

    /// Adds a message; gives it back if there is no memory for it.
    pub(super) fn push(&mut self, message: Message) -> Result<(), Message> {
        if self.messages.try_reserve(1).is_err() {
            return Err(message);
        }
        self.bytes += message.rest().len();
        if message.urgent {
            // A later one makes an earlier one a byte like any other.
            self.messages.iter_mut().for_each(|earlier| earlier.urgent = false);
            self.has_urgent = true;
        }
        self.messages.push_back(message);
        Ok(())
    }

    /// Takes the first message out.
    pub(super) fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.rest().len();
        self.has_urgent &= !message.urgent;
        Some(message)
    }

    /// Puts a message that was only looked at, or received in part, back to the front.
    pub(super) fn unpop(&mut self, message: Message) {
        self.bytes += message.rest().len();
        self.has_urgent |= message.urgent;
        self.messages.push_front(message);
    }

    /// Is there an urgent byte?
    pub(super) fn has_urgent(&self) -> bool {
        self.has_urgent
    }

    /// Is it the next to be received?
    pub(super) fn at_mark(&self) -> bool {
        self.messages.front().is_some_and(|message| message.urgent)
    }

    /// The urgent byte; with `take`, out of the stream.
    pub(super) fn urgent(&mut self, take: bool) -> Option<u8> {
        let at = self.messages.iter().position(|message| message.urgent)?;
        let byte = *self.messages[at].rest().first()?;
        if take {
            self.messages.remove(at);
            self.bytes -= 1;
            self.has_urgent = false;
            if let Some(before) = at.checked_sub(1) {
                self.messages[before].before_mark = true;
            }
        }
        Some(byte)
    }

    /// The files under way in it.
    pub(super) fn files(&self) -> impl Iterator<Item = &Arc<OpenFile>> {
        self.messages.iter().flat_map(|message| &message.files)
    }

    /// Takes everything out.
    pub(super) fn drain(&mut self) -> VecDeque<Message> {
        self.bytes = 0;
        self.has_urgent = false;
        core::mem::take(&mut self.messages)
    }
}

/// Files that were sent and never received, on their way out.
static GRAVES: SpinLock<(Vec<Arc<OpenFile>>, bool)> = SpinLock::new((Vec::new(), false));

/// Drops files that were under way. One of them may be a socket that has others under way, and so on: a chain as long as a program
/// likes, so they are dropped one after the other by whoever came first, never by recursion.
pub(super) fn bury(files: Vec<Arc<OpenFile>>) {
    if files.is_empty() {
        return;
    }
    let mut graves = GRAVES.lock();
    graves.0.extend(files);
    if core::mem::replace(&mut graves.1, true) {
        return;
    }
    loop {
        let Some(file) = graves.0.pop() else {
            graves.1 = false;
            return;
        };
        drop(graves);
        drop(file);
        graves = GRAVES.lock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(data: &[u8]) -> Message {
        Message {
            data: data.to_vec(),
            taken: 0,
            urgent: false,
            before_mark: false,
            files: Vec::new(),
            inflight: Inflight::default(),
            sender: Ucred::NOBODY,
            from: Vec::new(),
        }
    }

    #[test]
    fn the_last_urgent_byte_is_taken_out_of_line() {
        let mut inbox = Inbox::default();
        for (data, urgent) in [(b"a".as_slice(), true), (b"bc", false), (b"d", true), (b"e", false)] {
            let mut message = message(data);
            message.urgent = urgent;
            assert!(inbox.push(message).is_ok());
        }
        assert!(inbox.has_urgent() && !inbox.at_mark());
        assert_eq!((inbox.urgent(false), inbox.urgent(true), inbox.urgent(true)), (Some(b'd'), Some(b'd'), None));
        assert_eq!((inbox.bytes(), inbox.has_urgent(), inbox.len()), (4, false, 3));
    }

    #[test]
    fn bytes_are_counted_through_partial_receipt() {
        let mut inbox = Inbox::default();
        assert!(inbox.push(message(b"hello")).is_ok());
        assert!(inbox.push(message(b"you")).is_ok());
        assert_eq!((inbox.bytes(), inbox.first_len()), (8, 5));
        let mut first = inbox.pop().unwrap();
        first.taken = 2;
        inbox.unpop(first);
        assert_eq!((inbox.bytes(), inbox.first_len()), (6, 3));
        assert_eq!(inbox.drain().len(), 2);
        assert_eq!(inbox.bytes(), 0);
    }
}
