//! The signal frame: what a handler finds on its stack, and how rt_sigreturn(2) goes back. Laid out as Linux's `struct rt_sigframe`.

use base::{Errno, Result};
use hal::regs::UserRegs;
use hal::user::{UserBuf, UserPtr, copy_in, copy_out};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::action::{SA_ONSTACK, SA_RESTORER};
use super::info::SIGINFO_SIZE;
use super::{Action, SigInfo, SigSet, deliver};
use crate::Task;
use crate::task::AltStack;

/// Bytes below the stack pointer that a leaf function may use.
const RED_ZONE: usize = 128;
/// The FPU state's alignment on the stack (XSAVE).
const FPU_ALIGN: usize = 64;
/// The part of the image that every processor has.
const FXSAVE_SIZE: usize = 512;
/// The XSAVE header behind it.
const XSAVE_HEADER: usize = 64;
/// Where in the FXSAVE area software may write.
const SW_RESERVED: usize = 464;
const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
const FP_XSTATE_MAGIC2: u32 = 0x4650_5845;
const UC_FP_XSTATE: u64 = 1;
const UC_SIGCONTEXT_SS: u64 = 2;
const UC_STRICT_RESTORE_SS: u64 = 4;
/// Flags that a handler starts without: DF, RF, TF.
const CLEARED_FLAGS: usize = 0x400 | 0x1_0000 | 0x100;
/// Flags that sigreturn restores (Linux's FIX_EFLAGS).
const RESTORED_FLAGS: usize = 0x0005_0dd5;

/// SS_ONSTACK.
const SS_ONSTACK: u32 = 1;
/// SS_DISABLE.
const SS_DISABLE: u32 = 2;
/// SS_AUTODISARM.
const SS_AUTODISARM: u32 = 1 << 31;
/// The least that sigaltstack(2) accepts.
const MINSIGSTKSZ: usize = 2048;

/// `stack_t`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[allow(missing_docs, reason = "as sigaltstack(2) names them")]
pub struct StackT {
    pub sp: usize,
    pub flags: u32,
    pub pad: u32,
    pub size: usize,
}

#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct SigContext {
    r8_to_r15: [usize; 8],
    rdi: usize,
    rsi: usize,
    rbp: usize,
    rbx: usize,
    rdx: usize,
    rax: usize,
    rcx: usize,
    rsp: usize,
    rip: usize,
    rflags: usize,
    cs: u16,
    gs: u16,
    fs: u16,
    ss: u16,
    err: u64,
    trapno: u64,
    oldmask: u64,
    cr2: u64,
    fpstate: usize,
    reserved: [u64; 8],
}

#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct UContext {
    flags: u64,
    link: usize,
    stack: StackT,
    context: SigContext,
    mask: u64,
}

#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Frame {
    return_to: usize,
    ucontext: UContext,
    info: [u8; SIGINFO_SIZE],
}

impl AltStack {
    /// Does `sp` lie on it? Never with SS_AUTODISARM, which takes the stack away while it is used.
    pub(crate) fn holds(&self, sp: usize) -> bool {
        self.flags & SS_AUTODISARM == 0 && self.spans(sp)
    }

    fn spans(&self, sp: usize) -> bool {
        sp > self.base && sp - self.base <= self.size
    }

    /// What sigaltstack(2) says of it to a thread whose stack pointer is `sp`.
    pub(crate) fn flags_at(&self, sp: usize) -> u32 {
        let state = match () {
            () if self.size == 0 => SS_DISABLE,
            () if self.holds(sp) => SS_ONSTACK,
            () => 0,
        };
        state | self.flags & SS_AUTODISARM
    }
}

/// sigaltstack(2): sets `new`, if given, for a thread whose stack pointer is `sp`; the old one.
/// `EPERM` (it is on the old one), `EINVAL` (flags), `ENOMEM` (too small).
pub fn alt_stack(task: &Task, new: Option<StackT>, sp: usize) -> Result<StackT> {
    let mut stack = task.alt_stack.lock();
    let old = StackT { sp: stack.base, flags: stack.flags_at(sp), pad: 0, size: stack.size };
    let Some(new) = new else { return Ok(old) };
    if stack.holds(sp) {
        return Err(Errno::EPERM);
    }
    let mode = new.flags & !SS_AUTODISARM;
    match mode {
        SS_DISABLE => *stack = AltStack { base: 0, size: 0, flags: new.flags },
        0 | SS_ONSTACK if new.size < MINSIGSTKSZ => return Err(Errno::ENOMEM),
        0 | SS_ONSTACK => *stack = AltStack { base: new.sp, size: new.size, flags: new.flags },
        _ => return Err(Errno::EINVAL),
    }
    Ok(old)
}

/// Where the FPU image (`fpu` bytes) and the frame go: addresses of both. `EFAULT` if the alternate stack is too small.
fn place(stack: &AltStack, sp: usize, on_stack: bool, fpu: usize) -> Result<(usize, usize)> {
    let mut top = sp.wrapping_sub(RED_ZONE);
    let nested = stack.holds(sp);
    let entering = on_stack && stack.flags_at(sp) & !SS_AUTODISARM == 0;
    if entering {
        top = stack.base.wrapping_add(stack.size);
    }
    let image = top.wrapping_sub(fpu) & !(FPU_ALIGN - 1);
    let frame = (image.wrapping_sub(size_of::<Frame>()) & !15).wrapping_sub(8);
    if (nested || entering) && !stack.spans(frame) {
        return Err(Errno::EFAULT);
    }
    Ok((image, frame))
}

/// Bytes that the largest signal frame takes on a stack, as AT_MINSIGSTKSZ tells programs: what Linux counts for a frame of either word size
/// with its alignment, and the FPU image.
pub(crate) fn stack_needed() -> usize {
    const FRAME: usize = 932;
    (FRAME + hal::task::Task::fpu_size()).next_multiple_of(16)
}

/// Pushes a frame and points `regs` at the handler. `EFAULT` where the stack can't be written.
pub(super) fn set_up(task: &Task, regs: &mut UserRegs, info: &SigInfo, action: &Action, mask: SigSet) -> Result<()> {
    if action.flags & SA_RESTORER == 0 {
        return Err(Errno::EFAULT);
    }
    let stack = *task.alt_stack.lock();
    let fpu = hal::task::Task::fpu_size();
    let extended = fpu >= FXSAVE_SIZE + XSAVE_HEADER;
    let marks = if extended { size_of::<u32>() } else { 0 };
    let (image, at) = place(&stack, regs.rsp, action.flags & SA_ONSTACK != 0, fpu + marks)?;
    task.thread().ok_or(Errno::EFAULT)?.task().fpu_to_user(image)?;
    if extended {
        mark_fpu(image, fpu)?;
    }
    let xstate = if extended { UC_FP_XSTATE } else { 0 };
    let frame = Frame {
        return_to: action.restorer,
        ucontext: UContext {
            flags: xstate | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS,
            link: 0,
            stack: StackT { sp: stack.base, flags: stack.flags, pad: 0, size: stack.size },
            context: save(task, regs, mask, image),
            mask: mask.0,
        },
        info: info.to_bytes(),
    };
    UserPtr::<Frame>::new(at).write(&frame)?;
    if stack.flags & SS_AUTODISARM != 0 {
        *task.alt_stack.lock() = AltStack { base: 0, size: 0, flags: SS_DISABLE };
    }
    regs.rdi = info.signal.number() as usize;
    regs.rsi = at + core::mem::offset_of!(Frame, info);
    regs.rdx = at + core::mem::offset_of!(Frame, ucontext);
    regs.rax = 0;
    regs.rip = action.handler;
    regs.rsp = at;
    regs.rflags &= !CLEARED_FLAGS;
    regs.orig_rax = usize::MAX;
    regs.sanitize();
    Ok(())
}

fn save(task: &Task, regs: &UserRegs, mask: SigSet, fpstate: usize) -> SigContext {
    let fault = *task.fault.lock();
    SigContext {
        r8_to_r15: [regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15],
        rdi: regs.rdi,
        rsi: regs.rsi,
        rbp: regs.rbp,
        rbx: regs.rbx,
        rdx: regs.rdx,
        rax: regs.rax,
        rcx: regs.rcx,
        rsp: regs.rsp,
        rip: regs.rip,
        rflags: regs.rflags,
        cs: regs.cs as u16,
        gs: 0,
        fs: 0,
        ss: regs.ss as u16,
        err: fault.code,
        trapno: fault.vector,
        oldmask: mask.0,
        cr2: fault.address,
        fpstate,
        reserved: [0; 8],
    }
}

/// Marks an XSAVE image of `size` bytes on the stack as such: in the bytes of the legacy part that are software's, and behind it.
fn mark_fpu(image: usize, size: usize) -> Result<()> {
    // x87 and SSE are always there, whatever the processor's tracking says.
    let header = UserPtr::<u64>::new(image + FXSAVE_SIZE);
    header.write(&(header.read()? | 3))?;
    let mut software = [0; FXSAVE_SIZE - SW_RESERVED];
    let words = [FP_XSTATE_MAGIC1, (size + size_of::<u32>()) as u32];
    software[..8].copy_from_slice(words.as_bytes());
    software[8..16].copy_from_slice(&hal::task::Task::fpu_components().to_ne_bytes());
    software[16..20].copy_from_slice(&(size as u32).to_ne_bytes());
    copy_out(image + SW_RESERVED, &software)?;
    UserPtr::new(image + size).write(&FP_XSTATE_MAGIC2)
}

/// rt_sigreturn(2): restores what [`set_up`] saved. On a bad frame the thread gets SIGSEGV. Gives the value for `rax`.
pub fn sigreturn(task: &Task, regs: &mut UserRegs) -> usize {
    let restored = restore(task, regs);
    regs.orig_rax = usize::MAX;
    if restored.is_err() {
        deliver::force_segv(task, super::SIGUSR1);
        return 0;
    }
    regs.rax
}

fn restore(task: &Task, regs: &mut UserRegs) -> Result<()> {
    // The handler's `ret` has popped the return address.
    let at = regs.rsp.wrapping_sub(8);
    let ucontext: UContext = UserPtr::new(at.wrapping_add(core::mem::offset_of!(Frame, ucontext))).read()?;
    let saved = &ucontext.context;
    super::set_mask(task, SigSet(ucontext.mask));
    let [r8, r9, r10, r11, r12, r13, r14, r15] = saved.r8_to_r15;
    *regs = UserRegs {
        r15,
        r14,
        r13,
        r12,
        rbp: saved.rbp,
        rbx: saved.rbx,
        r11,
        r10,
        r9,
        r8,
        rax: saved.rax,
        rcx: saved.rcx,
        rdx: saved.rdx,
        rsi: saved.rsi,
        rdi: saved.rdi,
        orig_rax: usize::MAX,
        rip: saved.rip,
        cs: regs.cs,
        rflags: regs.rflags & !RESTORED_FLAGS | saved.rflags & RESTORED_FLAGS,
        rsp: saved.rsp,
        ss: regs.ss,
    };
    regs.sanitize();
    restore_fpu(task, saved.fpstate)?;
    // As Linux, a stack that is no longer acceptable is passed over.
    let _ = alt_stack(task, Some(ucontext.stack), regs.rsp);
    Ok(())
}

fn restore_fpu(task: &Task, at: usize) -> Result<()> {
    let thread = task.thread().ok_or(Errno::EFAULT)?;
    if at == 0 {
        let (fs, gs) = (thread.task().fs_base(), thread.task().gs_base());
        thread.task().reset_user_state();
        // They were the thread's own.
        let _ = thread.task().set_fs_base(fs);
        let _ = thread.task().set_gs_base(gs);
        return Ok(());
    }
    if !UserBuf::new(at, FXSAVE_SIZE).in_user_half() {
        return Err(Errno::EFAULT);
    }
    let mut software = [0; 20];
    copy_in(&mut software, at + SW_RESERVED)?;
    let word = |at: usize| u32::from_ne_bytes([software[at], software[at + 1], software[at + 2], software[at + 3]]);
    let size = word(16) as usize;
    let marked = word(0) == FP_XSTATE_MAGIC1
        && (FXSAVE_SIZE + XSAVE_HEADER..=hal::task::Task::fpu_size()).contains(&size)
        && UserPtr::<u32>::new(at.wrapping_add(size)).read() == Ok(FP_XSTATE_MAGIC2);
    // An old frame has x87 and SSE only.
    thread.task().fpu_from_user(at, if marked { size } else { FXSAVE_SIZE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_is_laid_out_as_linux_does() {
        assert_eq!(size_of::<SigContext>(), 256);
        assert_eq!(size_of::<UContext>(), 304);
        assert_eq!(core::mem::offset_of!(UContext, context), 40);
        assert_eq!(core::mem::offset_of!(UContext, mask), 296);
        assert_eq!(core::mem::offset_of!(Frame, info), 312);
        assert_eq!(size_of::<Frame>(), 440);
    }

    #[test]
    fn frames_keep_the_abi_alignment_and_the_red_zone() {
        let none = AltStack { base: 0, size: 0, flags: SS_DISABLE };
        let (image, frame) = place(&none, 0x7000_1234, true, 836).unwrap();
        assert_eq!((image % 64, (frame + 8) % 16), (0, 0));
        assert!(image + 836 <= 0x7000_1234 - RED_ZONE);
        assert!(frame + size_of::<Frame>() <= image);
    }

    #[test]
    fn the_alternate_stack_is_used_once_and_must_be_large_enough() {
        let stack = AltStack { base: 0x1_0000, size: 0x2000, flags: 0 };
        let (_, frame) = place(&stack, 0x7000_0000, true, 512).unwrap();
        assert!(stack.spans(frame));
        let (_, nested) = place(&stack, frame, true, 512).unwrap();
        assert!(nested < frame && stack.spans(nested));
        assert!(place(&stack, 0x1_0100, true, 512).is_err());
        let (_, plain) = place(&stack, 0x7000_0000, false, 512).unwrap();
        assert!(!stack.spans(plain));
    }
}
