//! A queue of pending signals.

use alloc::collections::VecDeque;

use super::{SigFields, SigInfo, SigSet, Signal};
use crate::accounting::QueuedSignal;

/// What is pending for a thread or for a process.
#[derive(Default)]
pub(crate) struct Queue {
    set: SigSet,
    /// In order of arrival. A signal whose details there was no room for is in `set` alone.
    entries: VecDeque<(SigInfo, QueuedSignal)>,
}

impl Queue {
    /// Nothing pending.
    pub(crate) const fn new() -> Queue {
        Queue { set: SigSet::EMPTY, entries: VecDeque::new() }
    }

    /// The signals that are pending.
    pub(crate) fn set(&self) -> SigSet {
        self.set
    }

    /// Adds a signal. A standard signal that is pending already is not added again. Without `room` (RLIMIT_SIGPENDING is used up) only
    /// the bit is set.
    pub(crate) fn push(&mut self, info: SigInfo, room: Option<QueuedSignal>) {
        if self.set.has(info.signal) && !info.signal.is_realtime() {
            return;
        }
        self.set.add(info.signal);
        if let Some(room) = room
            && self.entries.try_reserve(1).is_ok()
        {
            self.entries.push_back((info, room));
        }
    }

    /// The entry at that place, in order of arrival.
    pub(crate) fn peek(&self, at: usize) -> Option<SigInfo> {
        self.entries.get(at).map(|(info, _)| *info)
    }

    /// Takes out the next signal of `wanted`.
    pub(crate) fn take(&mut self, wanted: SigSet) -> Option<SigInfo> {
        let signal = self.set.and(wanted).next()?;
        let at = self.entries.iter().position(|(info, _)| info.signal == signal);
        let entry = at.and_then(|at| self.entries.remove(at));
        if !self.entries.iter().any(|(info, _)| info.signal == signal) {
            self.set.remove(signal);
        }
        let bare = SigInfo {
            signal,
            errno: 0,
            code: super::info_codes::SI_USER,
            fields: SigFields::Sender { pid: 0, uid: 0 },
        };
        Some(entry.map_or(bare, |(info, _)| info))
    }

    /// Throws away all of `signals`.
    pub(crate) fn discard(&mut self, signals: SigSet) {
        if !self.set.and(signals).is_empty() {
            self.entries.retain(|(info, _)| !signals.has(info.signal));
            self.set = self.set.without(signals);
        }
    }

    /// Is there an entry of timer `id`?
    pub(crate) fn has_timer(&self, id: i32, signal: Signal) -> bool {
        let of_timer = |info: &SigInfo| matches!(info.fields, SigFields::Timer { id: of, .. } if of == id);
        self.entries.iter().any(|(info, _)| info.signal == signal && of_timer(info))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SIGTERM, SIGUSR1};
    use super::*;
    use crate::accounting::UserCounts;
    use alloc::sync::Arc;

    fn with_value(number: i32, value: u64) -> SigInfo {
        let signal = Signal::new(number).unwrap();
        SigInfo { signal, errno: 0, code: -1, fields: SigFields::Queued { pid: 1, uid: 0, value } }
    }

    fn value(info: SigInfo) -> u64 {
        let SigFields::Queued { value, .. } = info.fields else { panic!("no value") };
        value
    }

    fn room(user: &Arc<UserCounts>) -> Option<QueuedSignal> {
        QueuedSignal::new(user, 100)
    }

    #[test]
    fn standard_signals_coalesce_and_realtime_signals_queue_in_order() {
        let (mut queue, user) = (Queue::new(), UserCounts::of(1));
        for (signal, value) in [(10, 1), (10, 2), (40, 3), (35, 4), (40, 5)] {
            queue.push(with_value(signal, value), room(&user));
        }
        assert_eq!(user.signals(), 4);
        let taken: Vec<u64> = core::iter::from_fn(|| queue.take(SigSet::ALL)).map(value).collect();
        assert_eq!(taken, [1, 4, 3, 5]);
        assert!(queue.set().is_empty());
        assert_eq!(user.signals(), 0);
    }

    #[test]
    fn without_room_only_the_bit_is_kept() {
        let (mut queue, user) = (Queue::new(), UserCounts::of(2));
        queue.push(with_value(10, 1), QueuedSignal::new(&user, 0));
        assert!(queue.set().has(SIGUSR1));
        let info = queue.take(SigSet::ALL).unwrap();
        assert_eq!((info.signal, info.code, user.signals()), (SIGUSR1, 0, 0));
        assert!(queue.take(SigSet::ALL).is_none());
    }

    #[test]
    fn discarding_frees_room_and_take_respects_the_wanted_set() {
        let (mut queue, user) = (Queue::new(), UserCounts::of(3));
        for (signal, value) in [(40, 1), (40, 2), (15, 3)] {
            queue.push(with_value(signal, value), room(&user));
        }
        assert!(queue.take(SigSet::of(&[SIGUSR1])).is_none());
        queue.discard(SigSet::of(&[Signal::new(40).unwrap()]));
        assert_eq!(queue.set(), SigSet::of(&[SIGTERM]));
        assert_eq!((queue.entries.len(), user.signals()), (1, 1));
    }
}
