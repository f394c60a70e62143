//! Restarting system calls that a signal interrupted.

use base::{Errno, Nanos};
use hal::regs::UserRegs;
use sched::time::Until;

use super::Action;
use super::action::SA_RESTART;

/// The number of restart_syscall(2).
const RESTART_SYSCALL: usize = 219;
/// The length of the `syscall` instruction.
const SYSCALL_LENGTH: usize = 2;

/// How to go on with a call that failed with `ERESTART_RESTARTBLOCK`: restart_syscall(2) reads it.
#[derive(Clone, Debug)]
pub enum Restart {
    /// nanosleep(2), clock_nanosleep(2).
    Sleep {
        /// When it ends, on the monotonic clock.
        deadline: Nanos,
        /// Where to write what is left, or 0.
        remaining: usize,
    },
    /// poll(2).
    Poll {
        /// The array.
        fds: usize,
        /// Its length.
        count: u32,
        /// When it ends, on the monotonic clock.
        deadline: Option<Nanos>,
    },
    /// futex(2)'s FUTEX_WAIT with a timeout.
    Futex {
        /// The word.
        word: usize,
        /// What it must hold.
        value: u32,
        /// The bits to wait for.
        bits: u32,
        /// The operation with its flags.
        operation: u32,
        /// When it ends.
        end: Until,
    },
}

/// The error of the system call that `regs` come from, if it asks for a restart.
fn pending_error(regs: &UserRegs) -> Option<Errno> {
    if regs.orig_rax == usize::MAX {
        return None;
    }
    [Errno::ERESTARTSYS, Errno::ERESTARTNOINTR, Errno::ERESTARTNOHAND, Errno::ERESTART_RESTARTBLOCK]
        .into_iter()
        .find(|error| regs.rax == error.to_return())
}

fn again(regs: &mut UserRegs, number: usize) {
    regs.rax = number;
    regs.rip = regs.rip.wrapping_sub(SYSCALL_LENGTH);
    regs.orig_rax = usize::MAX;
}

/// A handler is about to run: the call restarts after it, or gives `EINTR`.
pub(crate) fn before_handler(regs: &mut UserRegs, action: &Action) {
    match pending_error(regs) {
        None => {}
        Some(Errno::ERESTARTNOINTR) => again(regs, regs.orig_rax),
        Some(Errno::ERESTARTSYS) if action.flags & SA_RESTART != 0 => again(regs, regs.orig_rax),
        Some(_) => regs.rax = Errno::EINTR.to_return(),
    }
}

/// No handler runs: the call restarts as if nothing had been.
pub(crate) fn without_handler(regs: &mut UserRegs) {
    match pending_error(regs) {
        None => {}
        Some(Errno::ERESTART_RESTARTBLOCK) => again(regs, RESTART_SYSCALL),
        Some(_) => again(regs, regs.orig_rax),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interrupted(error: Errno) -> UserRegs {
        UserRegs { rax: error.to_return(), orig_rax: 7, rip: 0x1002, ..UserRegs::default() }
    }

    #[test]
    fn handlers_with_sa_restart_restart_only_what_may() {
        let restarting = Action { flags: SA_RESTART, ..Action::DEFAULT };
        let mut regs = interrupted(Errno::ERESTARTSYS);
        before_handler(&mut regs, &restarting);
        assert_eq!((regs.rax, regs.rip), (7, 0x1000));
        let mut regs = interrupted(Errno::ERESTARTSYS);
        before_handler(&mut regs, &Action::DEFAULT);
        assert_eq!((regs.rax, regs.rip), (Errno::EINTR.to_return(), 0x1002));
        for error in [Errno::ERESTARTNOHAND, Errno::ERESTART_RESTARTBLOCK] {
            let mut regs = interrupted(error);
            before_handler(&mut regs, &restarting);
            assert_eq!((regs.rax, regs.rip), (Errno::EINTR.to_return(), 0x1002));
        }
        let mut regs = interrupted(Errno::ERESTARTNOINTR);
        before_handler(&mut regs, &Action::DEFAULT);
        assert_eq!((regs.rax, regs.rip), (7, 0x1000));
    }

    #[test]
    fn without_a_handler_everything_restarts() {
        let mut regs = interrupted(Errno::ERESTARTNOHAND);
        without_handler(&mut regs);
        assert_eq!((regs.rax, regs.rip), (7, 0x1000));
        let mut regs = interrupted(Errno::ERESTART_RESTARTBLOCK);
        without_handler(&mut regs);
        assert_eq!((regs.rax, regs.rip), (RESTART_SYSCALL, 0x1000));
    }

    #[test]
    fn results_that_are_no_restart_stay() {
        let mut regs = UserRegs { rax: Errno::EAGAIN.to_return(), orig_rax: 7, rip: 9, ..UserRegs::default() };
        without_handler(&mut regs);
        assert_eq!((regs.rax, regs.rip), (Errno::EAGAIN.to_return(), 9));
        let mut regs = UserRegs { orig_rax: usize::MAX, ..interrupted(Errno::ERESTARTSYS) };
        without_handler(&mut regs);
        assert_eq!(regs.rip, 0x1002);
    }
}
