//! A queue of pending signals.

use alloc::collections::VecDeque;

use super::{SigFields, SigInfo, SigSet, Signal};

/// What is pending for a thread or for a process.
#[derive(Default)]
pub(crate) struct Queue {
    set: SigSet,
    /// In order of arrival. A signal whose details there was no room for is in `set` alone.
    infos: VecDeque<SigInfo>,
}

impl Queue {
    /// Nothing pending.
    pub(crate) const fn new() -> Queue {
        Queue { set: SigSet::EMPTY, infos: VecDeque::new() }
    }

    /// The signals that are pending.
    pub(crate) fn set(&self) -> SigSet {
        self.set
    }

    /// Adds a signal. A standard signal that is pending already is not added again. With `!room` (RLIMIT_SIGPENDING is used up) only
    /// the bit is set. True if an entry was queued.
    pub(crate) fn push(&mut self, info: SigInfo, room: bool) -> bool {
        if self.set.has(info.signal) && !info.signal.is_realtime() {
            return false;
        }
        self.set.add(info.signal);
        let queued = room && self.infos.try_reserve(1).is_ok();
        if queued {
            self.infos.push_back(info);
        }
        queued
    }

    /// The entry at that place, in order of arrival.
    pub(crate) fn peek(&self, at: usize) -> Option<SigInfo> {
        self.infos.get(at).copied()
    }

    /// Takes out the next signal of `wanted`; the second part says whether it had an entry.
    pub(crate) fn take(&mut self, wanted: SigSet) -> Option<(SigInfo, bool)> {
        let signal = self.set.and(wanted).next()?;
        let at = self.infos.iter().position(|info| info.signal == signal);
        let info = at.and_then(|at| self.infos.remove(at));
        if !self.infos.iter().any(|info| info.signal == signal) {
            self.set.remove(signal);
        }
        let bare = SigInfo {
            signal,
            errno: 0,
            code: super::info_codes::SI_USER,
            fields: SigFields::Sender { pid: 0, uid: 0 },
        };
        Some((info.unwrap_or(bare), info.is_some()))
    }

    /// Throws away all of `signals`; how many entries that were.
    pub(crate) fn discard(&mut self, signals: SigSet) -> usize {
        if self.set.and(signals).is_empty() {
            return 0;
        }
        let before = self.infos.len();
        self.infos.retain(|info| !signals.has(info.signal));
        self.set = self.set.without(signals);
        before - self.infos.len()
    }

    /// Is there an entry of timer `id`?
    pub(crate) fn has_timer(&self, id: i32, signal: Signal) -> bool {
        let of_timer = |info: &SigInfo| matches!(info.fields, SigFields::Timer { id: of, .. } if of == id);
        self.infos.iter().any(|info| info.signal == signal && of_timer(info))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SIGTERM, SIGUSR1};
    use super::*;

    fn with_value(number: i32, value: u64) -> SigInfo {
        let signal = Signal::new(number).unwrap();
        SigInfo { signal, errno: 0, code: -1, fields: SigFields::Queued { pid: 1, uid: 0, value } }
    }

    fn value(info: SigInfo) -> u64 {
        let SigFields::Queued { value, .. } = info.fields else { panic!("no value") };
        value
    }

    #[test]
    fn standard_signals_coalesce_and_realtime_signals_queue_in_order() {
        let mut queue = Queue::new();
        assert!(queue.push(with_value(10, 1), true));
        assert!(!queue.push(with_value(10, 2), true));
        assert!(queue.push(with_value(40, 3), true));
        assert!(queue.push(with_value(35, 4), true));
        assert!(queue.push(with_value(40, 5), true));
        let taken: Vec<u64> = core::iter::from_fn(|| queue.take(SigSet::ALL)).map(|(i, _)| value(i)).collect();
        assert_eq!(taken, [1, 4, 3, 5]);
        assert!(queue.set().is_empty());
    }

    #[test]
    fn without_room_only_the_bit_is_kept() {
        let mut queue = Queue::new();
        assert!(!queue.push(with_value(10, 1), false));
        assert!(queue.set().has(SIGUSR1));
        let (info, counted) = queue.take(SigSet::ALL).unwrap();
        assert_eq!((info.signal, info.code, counted), (SIGUSR1, 0, false));
        assert!(queue.take(SigSet::ALL).is_none());
    }

    #[test]
    fn discard_counts_entries_and_take_respects_the_wanted_set() {
        let mut queue = Queue::new();
        queue.push(with_value(40, 1), true);
        queue.push(with_value(40, 2), true);
        queue.push(with_value(15, 3), true);
        assert!(queue.take(SigSet::of(&[SIGUSR1])).is_none());
        assert_eq!(queue.discard(SigSet::of(&[Signal::new(40).unwrap()])), 2);
        assert_eq!(queue.set(), SigSet::of(&[SIGTERM]));
        assert_eq!(queue.infos.len(), 1);
    }
}
