//! Marks in the stream of data to be sent, of which the user wants to hear: when it was sent and acknowledged (SO_TIMESTAMPING, MSG_ZEROCOPY).

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::connection::{Connection, Effects};
use super::seq::Seq;

/// What is to be told of a mark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// That it was sent (and was put off before), for a timestamp with this number.
    Sent(u32),
    /// That it was acknowledged, for a timestamp with this number.
    Acknowledged(u32),
    /// That the user's memory of this call with MSG_ZEROCOPY is free.
    Released(u32),
}

/// The marks that are still to be told of, in order, and those that are to be told now.
#[derive(Default)]
pub(super) struct Marks {
    waiting: VecDeque<(Seq, Wish)>,
    told: Vec<Wish>,
}

/// Marks that may wait.
const MARKS_MAX: usize = 4096;

impl Connection {
    /// Sets a mark after all data that was written so far.
    pub fn mark(&mut self, wish: Wish) {
        let end = self.send.nxt + self.send.unsent.len();
        if end == self.send.una || matches!(wish, Wish::Sent(_)) && self.send.unsent.is_empty() {
            self.marks.get_or_insert_default().told.push(wish);
            return;
        }
        let marks = self.marks.get_or_insert_default();
        if marks.waiting.len() < MARKS_MAX {
            marks.waiting.push_back((end, wish));
        }
    }

    /// Bytes that were written since a sequence number: the number of the last one, as timestamps have it.
    pub fn written_since(&self, from: u32) -> u32 {
        (self.send.nxt + self.send.unsent.len()).0.wrapping_sub(from).wrapping_sub(1)
    }

    /// The first sequence number that is not acknowledged.
    pub fn unacknowledged_from(&self) -> u32 {
        self.send.una.0
    }

    /// New data was sent.
    pub(super) fn note_marks_sent(&mut self) {
        let nxt = self.send.nxt;
        let Some(marks) = &mut self.marks else { return };
        let Marks { waiting, told } = &mut **marks;
        waiting.retain(|&(end, wish)| {
            let due = matches!(wish, Wish::Sent(_)) && !end.after(nxt);
            if due {
                told.push(wish);
            }
            !due
        });
    }

    /// Data was acknowledged.
    pub(super) fn pass_marks(&mut self, effects: &mut Effects) {
        let una = self.send.una;
        let Some(marks) = &mut self.marks else { return };
        while let Some((_, wish)) = marks.waiting.pop_front_if(|(end, _)| !end.after(una)) {
            marks.told.push(wish);
        }
        if !marks.told.is_empty() {
            *effects |= Effects::NOTICE;
        }
    }

    /// The connection has ended: nothing of it is sent any more.
    pub(super) fn release_marks(&mut self) {
        let Some(marks) = &mut self.marks else { return };
        let released = marks.waiting.drain(..).map(|(_, wish)| wish).filter(|wish| matches!(wish, Wish::Released(_)));
        marks.told.extend(released);
    }

    /// Is there anything to be told?
    pub fn has_notices(&self) -> bool {
        self.marks.as_ref().is_some_and(|marks| !marks.told.is_empty())
    }

    /// What is to be told now.
    pub fn take_notices(&mut self) -> Vec<Wish> {
        self.marks.as_mut().map(|marks| core::mem::take(&mut marks.told)).unwrap_or_default()
    }
}
