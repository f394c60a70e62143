//! Semaphore sets: semget(2), semop(2), semctl(2).
//!
//! The operations of one call happen together or not at all. Calls that can't happen yet wait in the order they came; whenever a value
//! changes, each of them is tried again.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use base::{Errno, Nanos, Result};
use hal::sync::SpinLock;
use sched::{Sleep, Thread, WaitError, WaitQueue};
use zerocopy::{FromBytes, IntoBytes};

use super::registry::{Entry, NO_WAIT, READ, Stamp, WRITE};
use super::undo::UndoList;
use super::{Caller, Namespace};

/// The highest value (SEMVMX).
pub const MAX_VALUE: i32 = 32767;
/// The most that is undone at exit (SEMAEM).
const MAX_UNDO: i32 = 32767;
/// SEM_UNDO.
const UNDO: i32 = 0x1000;

/// `struct sembuf`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, FromBytes, IntoBytes)]
pub struct Operation {
    /// Which semaphore of the set.
    pub number: u16,
    /// What to add; 0 waits for a value of 0.
    pub change: i16,
    /// IPC_NOWAIT, SEM_UNDO.
    pub flags: i16,
}

impl Operation {
    /// Is it to be undone when the process ends (SEM_UNDO)?
    pub fn is_undone(&self) -> bool {
        self.has(UNDO)
    }

    fn has(&self, flag: i32) -> bool {
        i32::from(self.flags) & flag != 0
    }
}

/// One semaphore: its value, and which process changed it last.
#[derive(Clone, Copy, Default, Debug)]
pub struct Semaphore {
    /// The value.
    pub value: i32,
    /// GETPID.
    pub pid: i32,
}

/// A call that waits.
struct Waiter {
    operations: Vec<Operation>,
    pid: i32,
    undo: Option<u64>,
    /// Which of the operations it waits for.
    blocked_by: AtomicUsize,
    result: SpinLock<Option<Result<()>>>,
    queue: WaitQueue,
}

impl Waiter {
    fn finish(&self, result: Result<()>) {
        *self.result.lock() = Some(result);
        self.queue.wake_all();
    }
}

/// A thread that waits for a semaphore.
pub struct Wait {
    /// The thread.
    pub thread: Arc<Thread>,
    /// The semaphore of the set.
    pub number: usize,
    /// Undo lists that have taken from it ([`UndoList::number`]).
    pub holders: Vec<u64>,
    /// The process that changed it last.
    pub last: i32,
}

struct State {
    semaphores: Vec<Semaphore>,
    waiting: VecDeque<Arc<Waiter>>,
    /// What to add to each value when the users of an undo list are gone.
    undo: BTreeMap<u64, Vec<i32>>,
    removed: bool,
}

/// A set.
pub struct SemaphoreSet {
    state: SpinLock<State>,
    len: usize,
    operated: Stamp,
}

/// Why operations did not happen.
enum Refused {
    /// This one has to wait.
    By(usize),
    Error(Errno),
}

impl State {
    /// Carries the operations out, all or none.
    fn attempt(&mut self, operations: &[Operation], pid: i32, undo: Option<u64>) -> core::result::Result<(), Refused> {
        for (index, operation) in operations.iter().enumerate() {
            if let Err(refused) = self.step(index, operation, undo) {
                for done in operations[..index].iter().rev() {
                    self.semaphores[usize::from(done.number)].value -= i32::from(done.change);
                    self.note_undo(done, undo, -1);
                }
                return Err(refused);
            }
        }
        for operation in operations {
            self.semaphores[usize::from(operation.number)].pid = pid;
        }
        Ok(())
    }

    fn step(&mut self, index: usize, operation: &Operation, undo: Option<u64>) -> core::result::Result<(), Refused> {
        let semaphore = &mut self.semaphores[usize::from(operation.number)];
        let change = i32::from(operation.change);
        if change == 0 && semaphore.value != 0 || semaphore.value + change < 0 {
            return Err(Refused::By(index));
        }
        if semaphore.value + change > MAX_VALUE {
            return Err(Refused::Error(Errno::ERANGE));
        }
        semaphore.value += change;
        if !self.note_undo(operation, undo, 1) {
            self.semaphores[usize::from(operation.number)].value -= change;
            return Err(Refused::Error(Errno::ERANGE));
        }
        Ok(())
    }

    /// Notes that the operation is to be undone (`sign` -1: no longer); false if that is too much.
    fn note_undo(&mut self, operation: &Operation, undo: Option<u64>, sign: i32) -> bool {
        let amounts = undo.filter(|_| operation.is_undone()).and_then(|list| self.undo.get_mut(&list));
        let Some(amount) = amounts.and_then(|amounts| amounts.get_mut(usize::from(operation.number))) else {
            return true;
        };
        let new = *amount - sign * i32::from(operation.change);
        if !(-MAX_UNDO - 1..=MAX_UNDO).contains(&new) {
            return false;
        }
        *amount = new;
        true
    }

    /// Lets every call that can now happen do so.
    fn retry_waiting(&mut self) {
        let mut index = 0;
        while let Some(waiter) = self.waiting.get(index).cloned() {
            match self.attempt(&waiter.operations, waiter.pid, waiter.undo) {
                Err(Refused::By(operation)) => {
                    waiter.blocked_by.store(operation, Ordering::Relaxed);
                    index += 1;
                    continue;
                }
                Ok(()) => waiter.finish(Ok(())),
                Err(Refused::Error(error)) => waiter.finish(Err(error)),
            }
            self.waiting.remove(index);
            if waiter.operations.iter().any(|operation| operation.change != 0) {
                // Others, that came before, may be able to go on now.
                index = 0;
            }
        }
    }
}

/// semget(2). `EINVAL` (count), and as [`super::registry::Registry::get`].
pub fn get(namespace: &Namespace, caller: Caller, key: i32, count: i32, flags: i32) -> Result<i32> {
    let [most, of_all, _, sets] = [0, 1, 2, 3].map(|n| namespace.limits.sem[n].load(Ordering::Relaxed));
    let len = usize::try_from(count).ok().filter(|_| count <= most).ok_or(Errno::EINVAL)?;
    let fits = |set: &SemaphoreSet| if len <= set.len { Ok(()) } else { Err(Errno::EINVAL) };
    let used = total(namespace);
    let make = || {
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        if used + len > of_all as usize {
            return Err(Errno::ENOSPC);
        }
        SemaphoreSet::new(len)
    };
    namespace.semaphores.get(caller, key, flags, sets, fits, make)
}

/// How many semaphores there are in all sets.
pub fn total(namespace: &Namespace) -> usize {
    namespace.semaphores.all().iter().map(|entry| entry.object.len).sum()
}

/// semop(2), semtimedop(2): `deadline` is on the monotonic clock; `undo` gives the caller's list where something is to be undone. `EFBIG`, `EACCES`, `EAGAIN`, `EIDRM`, `EINTR`, `ERANGE`, `ENOMEM`.
pub fn operate(
    entry: &Arc<Entry<SemaphoreSet>>,
    caller: Caller,
    operations: Vec<Operation>,
    undo: impl FnOnce() -> Arc<UndoList>,
    deadline: Option<Nanos>,
) -> Result<()> {
    let set = &entry.object;
    if operations.iter().any(|operation| usize::from(operation.number) >= set.len) {
        return Err(Errno::EFBIG);
    }
    let alters = operations.iter().any(|operation| operation.change != 0);
    entry.permission().check(caller, if alters { WRITE } else { READ })?;
    let undo = match operations.iter().any(Operation::is_undone) {
        true => Some(set.join_undo(entry, &undo(), caller.pid)?),
        false => None,
    };
    let mut state = set.state.lock();
    if state.removed {
        return Err(Errno::EIDRM);
    }
    let blocked_by = match state.attempt(&operations, caller.pid, undo) {
        Ok(()) => {
            set.operated.touch();
            if alters {
                state.retry_waiting();
            }
            return Ok(());
        }
        Err(Refused::Error(error)) => return Err(error),
        Err(Refused::By(index)) => index,
    };
    if operations[blocked_by].has(NO_WAIT) {
        return Err(Errno::EAGAIN);
    }
    let waiter = Arc::new(Waiter {
        operations,
        pid: caller.pid,
        undo,
        blocked_by: AtomicUsize::new(blocked_by),
        result: SpinLock::new(None),
        queue: WaitQueue::new(),
    });
    state.waiting.push_back(waiter.clone());
    drop(state);
    set.wait(&waiter, deadline)
}

impl SemaphoreSet {
    fn new(len: usize) -> Result<SemaphoreSet> {
        let mut semaphores = Vec::new();
        semaphores.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
        semaphores.resize(len, Semaphore::default());
        let state = State { semaphores, waiting: VecDeque::new(), undo: BTreeMap::new(), removed: false };
        Ok(SemaphoreSet { state: SpinLock::new(state), len, operated: Stamp::default() })
    }

    /// Makes room to note what `list` undoes here; its number.
    fn join_undo(&self, entry: &Arc<Entry<SemaphoreSet>>, list: &Arc<UndoList>, pid: i32) -> Result<u64> {
        list.used_by(pid);
        if self.state.lock().undo.contains_key(&list.number()) {
            return Ok(list.number());
        }
        let mut amounts = Vec::new();
        amounts.try_reserve_exact(self.len).map_err(|_| Errno::ENOMEM)?;
        amounts.resize(self.len, 0);
        list.join(entry)?;
        self.state.lock().undo.entry(list.number()).or_insert(amounts);
        Ok(list.number())
    }

    fn wait(&self, waiter: &Arc<Waiter>, deadline: Option<Nanos>) -> Result<()> {
        let result = || waiter.result.lock().take();
        let early = match waiter.queue.wait_until(Sleep::Interruptible, deadline, result) {
            Ok(result) => {
                self.operated.touch();
                return result;
            }
            Err(WaitError::TimedOut) => Errno::EAGAIN,
            // semop(2) is never restarted.
            Err(WaitError::Interrupted) => Errno::EINTR,
        };
        let mut state = self.state.lock();
        state.waiting.retain(|other| !Arc::ptr_eq(other, waiter));
        // It may have happened just before we gave up.
        result().unwrap_or(Err(early))
    }

    /// How many semaphores it has.
    #[allow(clippy::len_without_is_empty, reason = "a set is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// When semop(2) last succeeded, in seconds since 1970; 0 for never.
    pub fn operated(&self) -> i64 {
        self.operated.seconds()
    }

    /// GETVAL, GETPID. `EINVAL` if there is no such semaphore.
    pub fn semaphore(&self, number: usize) -> Result<Semaphore> {
        self.state.lock().semaphores.get(number).copied().ok_or(Errno::EINVAL)
    }

    /// GETALL. `ENOMEM`.
    pub fn values(&self) -> Result<Vec<u16>> {
        let mut values = Vec::new();
        values.try_reserve_exact(self.len).map_err(|_| Errno::ENOMEM)?;
        values.extend(self.state.lock().semaphores.iter().map(|semaphore| semaphore.value as u16));
        Ok(values)
    }

    /// GETZCNT (`for_zero`), GETNCNT: how many calls wait for semaphore `number` to become 0, or to grow. `EINVAL`.
    pub fn waiting(&self, number: usize, for_zero: bool) -> Result<usize> {
        if number >= self.len {
            return Err(Errno::EINVAL);
        }
        let state = self.state.lock();
        let counts = |waiter: &&Arc<Waiter>| {
            let operation = waiter.operations.get(waiter.blocked_by.load(Ordering::Relaxed));
            operation.is_some_and(|op| usize::from(op.number) == number && (op.change == 0) == for_zero)
        };
        Ok(state.waiting.iter().filter(counts).count())
    }

    /// SETVAL. `EINVAL`, `ERANGE`.
    pub fn set(&self, number: usize, value: i32, pid: i32) -> Result<()> {
        if !(0..=MAX_VALUE).contains(&value) {
            return Err(Errno::ERANGE);
        }
        let mut state = self.state.lock();
        self.check_present(&state)?;
        *state.semaphores.get_mut(number).ok_or(Errno::EINVAL)? = Semaphore { value, pid };
        state.undo.values_mut().for_each(|amounts| amounts[number] = 0);
        state.retry_waiting();
        Ok(())
    }

    /// SETALL: one value each. `ERANGE`.
    pub fn set_all(&self, values: &[u16], pid: i32) -> Result<()> {
        if values.iter().any(|&value| i32::from(value) > MAX_VALUE) {
            return Err(Errno::ERANGE);
        }
        let mut state = self.state.lock();
        self.check_present(&state)?;
        for (semaphore, &value) in state.semaphores.iter_mut().zip(values) {
            *semaphore = Semaphore { value: value.into(), pid };
        }
        state.undo.values_mut().for_each(|amounts| amounts.fill(0));
        state.retry_waiting();
        Ok(())
    }

    fn check_present(&self, state: &State) -> Result<()> {
        if state.removed { Err(Errno::EIDRM) } else { Ok(()) }
    }

    /// Who waits, for which semaphore, and who is known to hold it: for reports.
    pub fn waits(&self) -> Vec<Wait> {
        let state = self.state.lock();
        let wait = |waiter: &Arc<Waiter>| {
            let operation = waiter.operations.get(waiter.blocked_by.load(Ordering::Relaxed))?;
            let number = usize::from(operation.number);
            // Who took something with SEM_UNDO has to give it back, one day.
            let owes =
                |(list, amounts): (&u64, &Vec<i32>)| amounts.get(number).is_some_and(|&n| n > 0).then_some(*list);
            Some(Wait {
                thread: waiter.queue.threads().into_iter().next()?,
                number,
                holders: state.undo.iter().filter_map(owes).collect(),
                last: state.semaphores.get(number)?.pid,
            })
        };
        state.waiting.iter().filter_map(wait).collect()
    }

    /// Tells all who wait that the set is gone.
    pub fn removed(&self) {
        let mut state = self.state.lock();
        state.removed = true;
        state.undo.clear();
        for waiter in state.waiting.drain(..) {
            waiter.finish(Err(Errno::EIDRM));
        }
    }

    /// Undoes what the users of list `number` did, the last of them being process `pid`.
    pub(super) fn undo(&self, number: u64, pid: i32) {
        let mut state = self.state.lock();
        let Some(amounts) = state.undo.remove(&number) else { return };
        for (semaphore, amount) in state.semaphores.iter_mut().zip(amounts).filter(|(_, amount)| *amount != 0) {
            *semaphore = Semaphore { value: (semaphore.value + amount).clamp(0, MAX_VALUE), pid };
        }
        self.operated.touch();
        state.retry_waiting();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(number: u16, change: i16, flags: i32) -> Operation {
        Operation { number, change, flags: flags as i16 }
    }

    fn values(state: &State) -> Vec<i32> {
        state.semaphores.iter().map(|semaphore| semaphore.value).collect()
    }

    #[test]
    fn operations_happen_together_or_not_at_all() {
        let set = SemaphoreSet::new(3).unwrap();
        let mut state = set.state.lock();
        assert!(state.attempt(&[op(0, 2, 0), op(1, 1, 0), op(0, -2, 0)], 9, None).is_ok());
        assert_eq!(values(&state), [0, 1, 0]);
        assert!(matches!(state.attempt(&[op(1, -1, 0), op(2, 0, 0), op(0, -1, 0)], 9, None), Err(Refused::By(2))));
        assert_eq!(values(&state), [0, 1, 0]);
        assert!(matches!(state.attempt(&[op(1, 32767, 0)], 9, None), Err(Refused::Error(Errno::ERANGE))));
        assert_eq!(state.semaphores[1].pid, 9);
    }

    #[test]
    fn what_is_noted_is_undone_within_bounds() {
        let set = SemaphoreSet::new(2).unwrap();
        set.state.lock().undo.insert(1, alloc::vec![0; 2]);
        assert!(set.state.lock().attempt(&[op(0, 5, UNDO), op(1, 3, 0)], 9, Some(1)).is_ok());
        assert!(set.state.lock().attempt(&[op(0, -3, 0)], 9, None).is_ok());
        set.undo(1, 4);
        let state = set.state.lock();
        assert_eq!(values(&state), [0, 3]);
        assert_eq!((state.semaphores[0].pid, state.semaphores[1].pid), (4, 9));
    }

    #[test]
    fn those_who_wait_go_on_in_turn() {
        let set = SemaphoreSet::new(1).unwrap();
        let wait = |change| {
            let waiter = Arc::new(Waiter {
                operations: alloc::vec![op(0, change, 0)],
                pid: 1,
                undo: None,
                blocked_by: AtomicUsize::new(0),
                result: SpinLock::new(None),
                queue: WaitQueue::new(),
            });
            set.state.lock().waiting.push_back(waiter.clone());
            waiter
        };
        let (two, one, zero) = (wait(-2), wait(-1), wait(0));
        assert_eq!((set.waiting(0, false), set.waiting(0, true)), (Ok(2), Ok(1)));
        set.set(0, 1, 1).unwrap();
        let done = |waiter: &Waiter| waiter.result.lock().is_some();
        assert!(!done(&two) && done(&one) && done(&zero));
        set.removed();
        assert_eq!(*two.result.lock(), Some(Err(Errno::EIDRM)));
    }
}
