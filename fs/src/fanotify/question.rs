//! Questions of permission: who asks waits until the reader has answered, by writing `struct fanotify_response`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};
use hal::sync::SpinLock;
use sched::{Sleep, WaitQueue};

use crate::Fd;

/// Bytes of an answer: the event's descriptor, and FAN_ALLOW or FAN_DENY.
pub(super) const ANSWER: usize = 8;
const ALLOW: u32 = 1;
const DENY: u32 = 2;

/// A question.
pub(super) struct Question {
    allowed: SpinLock<Option<bool>>,
    waiters: WaitQueue,
}

impl Question {
    pub(super) fn new() -> Arc<Question> {
        Arc::new(Question { allowed: SpinLock::new(None), waiters: WaitQueue::new() })
    }

    /// Waits for the answer. `EPERM`, `EINTR` (a fatal signal).
    pub(super) fn wait(&self) -> Result<()> {
        match self.waiters.wait_until(Sleep::Killable, None, || *self.allowed.lock()) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Errno::EPERM),
            Err(_) => Err(Errno::EINTR),
        }
    }

    pub(super) fn answer(&self, allowed: bool) {
        *self.allowed.lock() = Some(allowed);
        self.waiters.wake_all();
    }
}

/// The questions that were read and are not answered yet, by their events' descriptors.
#[derive(Default)]
pub(super) struct Asked(SpinLock<Vec<(Fd, Arc<Question>)>>);

impl Asked {
    /// `ENOMEM`.
    pub(super) fn add(&self, fd: Fd, question: &Arc<Question>) -> Result<()> {
        let mut list = self.0.lock();
        list.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        list.push((fd, question.clone()));
        Ok(())
    }

    /// Takes the reader's answer. `EINVAL`, `ENOENT`.
    pub(super) fn answer(&self, bytes: [u8; ANSWER]) -> Result<()> {
        let [a, b, c, d, rest @ ..] = bytes;
        let (fd, answer) = (Fd::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes(rest));
        if fd < 0 || !matches!(answer, ALLOW | DENY) {
            return Err(Errno::EINVAL);
        }
        let mut list = self.0.lock();
        let at = list.iter().position(|(of, _)| *of == fd).ok_or(Errno::ENOENT)?;
        let (_, question) = list.swap_remove(at);
        drop(list);
        question.answer(answer == ALLOW);
        Ok(())
    }

    /// Nobody waits for this one any more.
    pub(super) fn forget(&self, question: &Arc<Question>) {
        self.0.lock().retain(|(_, other)| !Arc::ptr_eq(other, question));
    }

    /// The reader is gone: what it did not forbid is allowed.
    pub(super) fn end(&self) {
        let left = core::mem::take(&mut *self.0.lock());
        left.iter().for_each(|(_, question)| question.answer(true));
    }
}
