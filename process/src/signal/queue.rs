//! A queue of pending signals.

use alloc::collections::VecDeque;

use crate::accounting::QueuedSignal;

use super::{SigFields, SigInfo, SigSet, Signal};

/// What is pending for a thread or for a process.
#[derive(Default)]
pub(crate) struct Queue {
    set: SigSet,
    /// In order of arrival. A signal whose details there was no room for is in `set` alone.
    infos: VecDeque<(SigInfo, Room)>,
}

/// What an entry takes up of RLIMIT_SIGPENDING.
pub(crate) enum Room {
    /// It is one of its user's.
    Counted { _as: QueuedSignal },
    /// Its timer has been counted when that was made.
    OfTimer,
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

    /// Adds a signal. A standard signal that is pending already is not added again. Without `room` (RLIMIT_SIGPENDING is used up) only
    /// the bit is set.
    pub(crate) fn push(&mut self, info: SigInfo, room: Option<Room>) {
        if self.set.has(info.signal) && !info.signal.is_realtime() {
            return;
        }
        self.set.add(info.signal);
        if let Some(room) = room
            && self.infos.try_reserve(1).is_ok()
        {
            self.infos.push_back((info, room));
        }
    }

    /// The entry at that place, in order of arrival.
    pub(crate) fn peek(&self, at: usize) -> Option<SigInfo> {
        self.infos.get(at).map(|(info, _)| *info)
    }

    /// Takes out the next signal of `wanted`.
    pub(crate) fn take(&mut self, wanted: SigSet) -> Option<SigInfo> {
        let signal = self.set.and(wanted).next()?;
        let at = self.infos.iter().position(|(info, _)| info.signal == signal);
        let entry = at.and_then(|at| self.infos.remove(at));
        if !self.infos.iter().any(|(info, _)| info.signal == signal) {
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
        self.infos.retain(|(info, _)| !signals.has(info.signal));
        self.set = self.set.without(signals);
    }

    /// Is there an entry of timer `id`?
    pub(crate) fn has_timer(&self, id: i32, signal: Signal) -> bool {
        let of_timer = |info: &SigInfo| matches!(info.fields, SigFields::Timer { id: of, .. } if of == id);
        self.infos.iter().any(|(info, _)| info.signal == signal && of_timer(info))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SIGTERM, SIGUSR1};
    use super::*;
    use crate::accounting::User;

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
        queue.push(with_value(10, 1), Some(Room::OfTimer));
        queue.push(with_value(10, 2), Some(Room::OfTimer));
        queue.push(with_value(40, 3), Some(Room::OfTimer));
        queue.push(with_value(35, 4), Some(Room::OfTimer));
        queue.push(with_value(40, 5), Some(Room::OfTimer));
        let taken: Vec<u64> = core::iter::from_fn(|| queue.take(SigSet::ALL)).map(value).collect();
        assert_eq!(taken, [1, 4, 3, 5]);
        assert!(queue.set().is_empty());
    }

    #[test]
    fn without_room_only_the_bit_is_kept() {
        let mut queue = Queue::new();
        queue.push(with_value(10, 1), None);
        assert!(queue.set().has(SIGUSR1));
        let info = queue.take(SigSet::ALL).unwrap();
        assert_eq!((info.signal, info.code), (SIGUSR1, 0));
        assert!(matches!(info.fields, SigFields::Sender { pid: 0, uid: 0 }));
        assert!(queue.take(SigSet::ALL).is_none());
    }

    #[test]
    fn discard_gives_room_back_and_take_respects_the_wanted_set() {
        let mut queue = Queue::new();
        let user = User::of(4321);
        let room = || QueuedSignal::new(&user, 2).map(|queued| Room::Counted { _as: queued });
        queue.push(with_value(40, 1), room());
        queue.push(with_value(40, 2), room());
        assert!(room().is_none() && user.signals() == 2);
        queue.push(with_value(15, 3), Some(Room::OfTimer));
        assert!(queue.take(SigSet::of(&[SIGUSR1])).is_none());
        queue.discard(SigSet::of(&[Signal::new(40).unwrap()]));
        assert_eq!(user.signals(), 0);
        assert_eq!(queue.set(), SigSet::of(&[SIGTERM]));
        assert_eq!(queue.infos.len(), 1);
    }
}
