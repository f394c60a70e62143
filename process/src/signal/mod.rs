//! Signals: sets, actions, pending queues, sending, delivery on the way to user mode, and stopping.
//!
//! Protocol: a sender puts the signal into a queue (under the group lock or the task's queue lock), then tells the chosen thread by
//! `Thread::interrupt`. The thread takes signals out in [`deliver`] only, on its way to user mode. A mask changes first and is
//! compared with the pending bits after; a sender sets the bits first and compares with the mask after: so one of them sees the other.

mod action;
pub mod deliver;
mod fault;
pub(crate) mod frame;
mod info;
pub mod info_codes;
pub(crate) mod mask;
pub(crate) mod queue;
pub mod restart;
pub mod send;
pub mod signalfd;
pub mod stop;
pub mod wait;

pub(crate) use action::SA_NOCLDSTOP;
pub use action::{Action, Actions, Disposition, SA_KNOWN, SA_NOCLDWAIT};
pub use deliver::before_user;
pub use fault::{user_exception, user_fault};
pub use frame::{StackT, alt_stack, sigreturn};
pub use info::{SIGINFO_SIZE, SigFields, SigInfo};
pub use mask::{pending, set_mask, with_temporary_mask};
pub use restart::Restart;

use base::{Errno, Result};

macro_rules! signals {
    ($($name:ident = $number:literal),* $(,)?) => {
        $(#[doc = concat!("signal(7)'s ", stringify!($name), ".")] pub const $name: Signal = Signal($number);)*
    };
}

/// A signal number, 1 to 64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Signal(u8);

signals! {
    SIGHUP = 1, SIGINT = 2, SIGQUIT = 3, SIGILL = 4, SIGTRAP = 5, SIGABRT = 6, SIGBUS = 7, SIGFPE = 8, SIGKILL = 9, SIGUSR1 = 10,
    SIGSEGV = 11, SIGUSR2 = 12, SIGPIPE = 13, SIGALRM = 14, SIGTERM = 15, SIGSTKFLT = 16, SIGCHLD = 17, SIGCONT = 18, SIGSTOP = 19,
    SIGTSTP = 20, SIGTTIN = 21, SIGTTOU = 22, SIGURG = 23, SIGXCPU = 24, SIGXFSZ = 25, SIGVTALRM = 26, SIGPROF = 27,
    SIGWINCH = 28, SIGIO = 29, SIGPWR = 30, SIGSYS = 31,
}

/// The highest signal number.
pub const MAX_SIGNAL: u8 = 64;
/// The first real-time signal (of the kernel: the C library keeps two for itself).
pub const SIGRTMIN: u8 = 32;

impl Signal {
    /// The signal with that number. `EINVAL` where there is none.
    pub const fn new(number: i32) -> Result<Signal> {
        if number >= 1 && number <= MAX_SIGNAL as i32 { Ok(Signal(number as u8)) } else { Err(Errno::EINVAL) }
    }

    /// The signal with that number, or `None` for 0 (which only tests for existence and permission). `EINVAL`.
    pub const fn or_zero(number: i32) -> Result<Option<Signal>> {
        match number {
            0 => Ok(None),
            n => match Signal::new(n) {
                Ok(signal) => Ok(Some(signal)),
                Err(error) => Err(error),
            },
        }
    }

    /// Its number.
    pub const fn number(self) -> i32 {
        self.0 as i32
    }

    /// Its place in arrays by signal, from 0.
    pub const fn index(self) -> usize {
        self.0 as usize - 1
    }

    /// Is it one of those that queue?
    pub const fn is_realtime(self) -> bool {
        self.0 >= SIGRTMIN
    }

    /// Does its default action stop the process?
    pub const fn stops(self) -> bool {
        matches!(self, SIGSTOP | SIGTSTP | SIGTTIN | SIGTTOU)
    }

    /// Can it be neither caught, blocked nor ignored?
    pub const fn is_kernel_only(self) -> bool {
        matches!(self, SIGKILL | SIGSTOP)
    }
}

/// A set of signals; bit n is signal n + 1, as user space lays it out.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SigSet(pub u64);

impl SigSet {
    /// No signal.
    pub const EMPTY: SigSet = SigSet(0);
    /// Every signal.
    pub const ALL: SigSet = SigSet(u64::MAX);
    /// Those that no mask can hold.
    pub const UNBLOCKABLE: SigSet = SigSet::of(&[SIGKILL, SIGSTOP]);
    /// Those that stop a process by default.
    pub const STOPPING: SigSet = SigSet::of(&[SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU]);
    /// Those that a thread's own instructions cause: they are delivered before others.
    pub const SYNCHRONOUS: SigSet = SigSet::of(&[SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGSYS]);

    /// The set of exactly these.
    pub const fn of(signals: &[Signal]) -> SigSet {
        let mut bits = 0;
        let mut i = 0;
        while i < signals.len() {
            bits |= 1 << signals[i].index();
            i += 1;
        }
        SigSet(bits)
    }

    /// Is `signal` in it?
    pub const fn has(self, signal: Signal) -> bool {
        self.0 & (1 << signal.index()) != 0
    }

    /// Puts it in.
    pub const fn add(&mut self, signal: Signal) {
        self.0 |= 1 << signal.index();
    }

    /// Takes it out.
    pub const fn remove(&mut self, signal: Signal) {
        self.0 &= !(1 << signal.index());
    }

    /// Is it empty?
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What is in both.
    pub const fn and(self, other: SigSet) -> SigSet {
        SigSet(self.0 & other.0)
    }

    /// What is in either.
    pub const fn or(self, other: SigSet) -> SigSet {
        SigSet(self.0 | other.0)
    }

    /// What is here and not in `other`.
    pub const fn without(self, other: SigSet) -> SigSet {
        SigSet(self.0 & !other.0)
    }

    /// The next to deliver: synchronous ones first, then the lowest number.
    pub const fn next(self) -> Option<Signal> {
        let first = self.and(SigSet::SYNCHRONOUS);
        let bits = if first.is_empty() { self.0 } else { first.0 };
        if bits == 0 { None } else { Some(Signal(bits.trailing_zeros() as u8 + 1)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_outside_1_to_64_are_refused() {
        assert_eq!(Signal::new(0), Err(Errno::EINVAL));
        assert_eq!(Signal::new(65), Err(Errno::EINVAL));
        assert_eq!(Signal::new(-1), Err(Errno::EINVAL));
        assert_eq!(Signal::or_zero(0), Ok(None));
        assert_eq!(Signal::new(64).map(Signal::number), Ok(64));
    }

    #[test]
    fn synchronous_signals_come_first_then_the_lowest() {
        assert_eq!(SigSet::of(&[SIGHUP, SIGSEGV, SIGTERM]).next(), Some(SIGSEGV));
        assert_eq!(SigSet::of(&[SIGTERM, SIGUSR1]).next(), Some(SIGUSR1));
        assert_eq!(SigSet::EMPTY.next(), None);
    }
}
