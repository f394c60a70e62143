//! The programs that decide about system calls, and the chain of them that a thread has.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};
use bpf::{Instruction, Program};
use hal::regs::UserRegs;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::notify::Listener;

/// AUDIT_ARCH_X86_64: what `seccomp_data` calls this machine.
pub(super) const ARCH: u32 = 0xc000_003e;
/// Instructions of a thread's whole chain at most, each filter counting four more.
const CHAIN_MAX: usize = (1 << 18) / size_of::<[u8; 8]>();
const FILTER_COST: usize = 4;

/// `struct seccomp_data`: what a filter looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct CallData {
    /// The number of the system call.
    pub number: i32,
    /// [`ARCH`].
    pub arch: u32,
    /// Where the call was made.
    pub instruction_pointer: u64,
    /// Its arguments.
    pub args: [u64; 6],
}

impl CallData {
    /// The call that a thread with these registers makes.
    pub fn new(regs: &UserRegs) -> CallData {
        CallData {
            number: regs.orig_rax as u32 as i32,
            arch: ARCH,
            instruction_pointer: regs.rip as u64,
            args: regs.args().map(|argument| argument as u64),
        }
    }
}

impl bpf::Data for CallData {
    fn len(&self) -> u32 {
        size_of::<CallData>() as u32
    }

    /// As the processor holds it, not in network order.
    fn load(&self, offset: i32, size: usize) -> Option<u32> {
        let at = usize::try_from(offset).ok()?;
        let bytes = self.as_bytes().get(at..at.checked_add(size)?)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    }
}

/// What a filter says is to be done. The order is that of Linux's precedence: the first counts where filters differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// The process dies by SIGSYS; so it does by an action that nobody knows.
    KillProcess,
    /// The thread does.
    KillThread,
    /// SIGSYS.
    Trap,
    /// The call fails with this error number.
    Errno,
    /// Whoever listens is asked.
    Notify,
    /// The tracer is told.
    Trace,
    /// The call is made, and logged.
    Log,
    /// The call is made.
    Allow,
}

/// The part of a filter's result that names the action.
const ACTION_MASK: u32 = 0xffff_0000;

impl Action {
    const ALL: [(u32, Action); 8] = [
        (0x8000_0000, Action::KillProcess),
        (0x0000_0000, Action::KillThread),
        (0x0003_0000, Action::Trap),
        (0x0005_0000, Action::Errno),
        (0x7fc0_0000, Action::Notify),
        (0x7ff0_0000, Action::Trace),
        (0x7ffc_0000, Action::Log),
        (0x7fff_0000, Action::Allow),
    ];

    /// The action of a filter's result; `None` for one that nobody knows.
    pub fn of(result: u32) -> Option<Action> {
        Action::ALL.iter().find(|(number, _)| *number == result & ACTION_MASK).map(|&(_, action)| action)
    }
}

/// One filter, and those that were there before it.
pub struct Filter {
    program: Program,
    /// SECCOMP_FILTER_FLAG_LOG.
    pub(super) logs: bool,
    pub(super) listener: Option<Arc<Listener>>,
    previous: Option<Arc<Filter>>,
    /// What the whole chain costs, see [`CHAIN_MAX`].
    cost: usize,
}

impl Filter {
    /// A filter in front of those that are there. `EINVAL` for a program that is not one for system calls, `ENOMEM` for a chain too long.
    pub(super) fn new(
        instructions: Vec<Instruction>,
        logs: bool,
        listener: Option<Arc<Listener>>,
        previous: Option<Arc<Filter>>,
    ) -> Result<Arc<Filter>> {
        let program = Program::new(instructions)?;
        let own = program.instructions().len();
        let before = previous.as_ref().map_or(0, |filter| filter.cost);
        if own + before > CHAIN_MAX {
            return Err(Errno::ENOMEM);
        }
        Ok(Arc::new(Filter { program, logs, listener, previous, cost: own + before + FILTER_COST }))
    }

    /// The filters of a chain, the newest first.
    pub fn chain(self: &Arc<Filter>) -> impl Iterator<Item = &Arc<Filter>> {
        core::iter::successors(Some(self), |filter| filter.previous.as_ref())
    }

    /// Its instructions.
    pub fn instructions(&self) -> &[Instruction] {
        self.program.instructions()
    }

    /// What the chain says of a call: the strictest result, and the filter that gave it first.
    pub(super) fn decide<'a>(self: &'a Arc<Filter>, data: &CallData) -> (u32, &'a Arc<Filter>) {
        let strictness = |result: u32| (result & ACTION_MASK) as i32;
        let mut decided = (ALLOW, self);
        for filter in self.chain() {
            let result = filter.program.run(data);
            if strictness(result) < strictness(decided.0) {
                decided = (result, filter);
            }
        }
        decided
    }
}

/// SECCOMP_RET_ALLOW.
const ALLOW: u32 = 0x7fff_0000;

impl Drop for Filter {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener.hang_up();
        }
        // One after the other: a chain may be longer than the kernel's stack is deep.
        let mut next = self.previous.take();
        while let Some(mut filter) = next.and_then(Arc::into_inner) {
            next = filter.previous.take();
        }
    }
}

/// Is the program one that system calls can be decided by? It looks at whole words of the data alone, and uses no remainders.
pub(super) fn is_for_calls(instructions: &[Instruction]) -> bool {
    const LOAD_WORD: u16 = 0x20;
    instructions.iter().all(|instruction| match instruction.code & 7 {
        // Constants, memory, the length of the data, and the data.
        0 => match instruction.code {
            LOAD_WORD => instruction.k < size_of::<CallData>() as u32 && instruction.k.is_multiple_of(4),
            code => matches!(code & 0xe0, 0x00 | 0x60 | 0x80) && code & 0x18 == 0,
        },
        1 => matches!(instruction.code & 0xe0, 0x00 | 0x60 | 0x80),
        4 => instruction.code & 0xf0 != 0x90,
        _ => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(code: u16, k: u32) -> Instruction {
        Instruction { code, jt: 0, jf: 0, k }
    }

    fn constant(result: u32, previous: Option<Arc<Filter>>) -> Arc<Filter> {
        Filter::new(vec![op(6, result)], false, None, previous).expect("a filter")
    }

    fn data(number: i32) -> CallData {
        CallData { number, arch: ARCH, instruction_pointer: 0x1234_5678_9abc, args: [1, 2 << 32, 3, 4, 5, 6] }
    }

    #[test]
    fn the_strictest_counts_and_among_equals_the_newest() {
        let first = constant(0x0005_0001, None);
        let second = constant(0x0005_0002, Some(first.clone()));
        assert_eq!(second.decide(&data(1)).0, 0x0005_0002);
        let third = constant(0x0003_0000, Some(second.clone()));
        assert_eq!(third.decide(&data(1)).0, 0x0003_0000);
        let fourth = constant(0x7fff_0000, Some(third));
        assert_eq!(Action::of(fourth.decide(&data(1)).0), Some(Action::Trap));
        let fifth = constant(0x8000_0000, Some(fourth));
        assert_eq!(Action::of(fifth.decide(&data(1)).0), Some(Action::KillProcess));
        assert_eq!(Action::of(0x7000_0000), None);
    }

    #[test]
    fn a_program_sees_words_of_the_data() {
        let load = |at| Filter::new(vec![op(0x20, at), op(0x16, 0)], false, None, None).expect("a filter");
        let see = |at| load(at).program.run(&data(77));
        assert_eq!((see(0), see(4)), (77, ARCH));
        assert_eq!((see(8), see(12)), (0x5678_9abc, 0x1234));
        assert_eq!((see(24), see(28)), (0, 2));
    }

    #[test]
    fn what_is_not_for_calls_is_refused() {
        for wrong in [op(0x20, 64), op(0x20, 2), op(0x28, 0), op(0x30, 0), op(0x40, 0), op(0xb1, 0), op(0x94, 3)] {
            assert!(!is_for_calls(&[wrong, op(6, 0)]), "{wrong:?}");
        }
        for right in [op(0x20, 60), op(0x00, 1), op(0x80, 0), op(0x61, 1), op(0x34, 3), op(0x15, 0), op(0x07, 0)] {
            assert!(is_for_calls(&[right, op(6, 0)]), "{right:?}");
        }
    }

    #[test]
    fn a_long_chain_is_refused_and_goes_without_recursion() {
        let mut chain = constant(ALLOW, None);
        loop {
            match Filter::new(vec![op(6, ALLOW)], false, None, Some(chain.clone())) {
                Ok(longer) => chain = longer,
                Err(error) => break assert_eq!(error, Errno::ENOMEM),
            }
        }
        assert!(chain.chain().count() > 6000);
    }
}
