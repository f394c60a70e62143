//! The user-mode register file and what an exception tells.

/// The general registers of a user thread, in the order of Linux's `struct pt_regs` (and `user_regs_struct`'s first part).
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
)]
#[allow(missing_docs, reason = "register names")]
pub struct UserRegs {
    pub r15: usize,
    pub r14: usize,
    pub r13: usize,
    pub r12: usize,
    pub rbp: usize,
    pub rbx: usize,
    pub r11: usize,
    pub r10: usize,
    pub r9: usize,
    pub r8: usize,
    pub rax: usize,
    pub rcx: usize,
    pub rdx: usize,
    pub rsi: usize,
    pub rdi: usize,
    /// The system-call number on entry by `syscall`, `usize::MAX` on entry by an exception or interrupt.
    pub orig_rax: usize,
    pub rip: usize,
    pub cs: usize,
    pub rflags: usize,
    pub rsp: usize,
    pub ss: usize,
}

/// The user code segment selector, as Linux's `__USER_CS`.
pub const USER_CS: usize = 0x33;
/// The user data segment selector, as Linux's `__USER_DS`.
pub const USER_SS: usize = 0x2b;
/// The flags that user mode may change (CF PF AF ZF SF TF DF OF RF NT AC ID).
pub const USER_FLAGS: usize = 0x0025_4dd5;

impl UserRegs {
    /// The registers of a fresh program: `entry`, `stack`, all else zero, interrupts on.
    pub fn start(entry: usize, stack: usize) -> UserRegs {
        UserRegs {
            rip: entry,
            rsp: stack,
            cs: USER_CS,
            ss: USER_SS,
            rflags: 0x202,
            orig_rax: usize::MAX,
            ..UserRegs::default()
        }
    }

    /// Forces segments and privileged flags to what user mode must have. hal does so before every entry to user mode after a change
    /// from above, so that no caller can hand out privilege.
    pub fn sanitize(&mut self) {
        self.cs = USER_CS;
        self.ss = USER_SS;
        self.rflags = (self.rflags & USER_FLAGS) | 0x202;
    }

    /// The arguments of the system call.
    #[inline]
    pub fn args(&self) -> [usize; 6] {
        [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9]
    }
}

/// A processor exception, by Intel's vector number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exception {
    /// 0 #DE, 1 #DB, 3 #BP, 4 #OF, 5 #BR, 6 #UD, 11 #NP, 12 #SS, 13 #GP, 16 #MF, 17 #AC, 19 #XM.
    pub vector: u8,
    /// The error code, or 0.
    pub code: usize,
}

/// A page fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageFault {
    /// The address touched.
    pub address: usize,
    /// It was a write.
    pub write: bool,
    /// It was an instruction fetch.
    pub execute: bool,
    /// The page was present: a protection violation.
    pub present: bool,
    /// It came from user mode (else from a copy in [`crate::user`]).
    pub from_user: bool,
}
