//! ptrace(2).

use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::PAGE_SIZE;
use base::{Errno, Result};
use hal::user::{UserPtr, copy_in, copy_out};
use process::Task;
use process::ptrace::request::{self, AllRegs};
use process::ptrace::{Point, Resume};
use process::signal::{SIGINFO_SIZE, SigInfo, Signal};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::args::Args;
use crate::context::Context;
use crate::seccomp;

const TRACEME: usize = 0;
const PEEKTEXT: usize = 1;
const PEEKDATA: usize = 2;
const PEEKUSER: usize = 3;
const POKETEXT: usize = 4;
const POKEDATA: usize = 5;
const POKEUSER: usize = 6;
const CONT: usize = 7;
const KILL: usize = 8;
const SINGLESTEP: usize = 9;
const GETREGS: usize = 12;
const SETREGS: usize = 13;
const GETFPREGS: usize = 14;
const SETFPREGS: usize = 15;
const ATTACH: usize = 16;
const DETACH: usize = 17;
const SYSCALL: usize = 24;
const SETOPTIONS: usize = 0x4200;
const GETEVENTMSG: usize = 0x4201;
const GETSIGINFO: usize = 0x4202;
const SETSIGINFO: usize = 0x4203;
const GETREGSET: usize = 0x4204;
const SETREGSET: usize = 0x4205;
const SEIZE: usize = 0x4206;
const INTERRUPT: usize = 0x4207;
const LISTEN: usize = 0x4208;
const PEEKSIGINFO: usize = 0x4209;
const GETSIGMASK: usize = 0x420a;
const SETSIGMASK: usize = 0x420b;
const SECCOMP_GET_FILTER: usize = 0x420c;
const SECCOMP_GET_METADATA: usize = 0x420d;
const GET_SYSCALL_INFO: usize = 0x420e;

/// Bytes of `struct user`: the area that PEEKUSER reads.
const USER_SIZE: usize = 912;
/// Bytes of `struct user_fpregs_struct`.
const FPREGS_SIZE: usize = 512;

pub(crate) fn ptrace(cx: &mut Context, a: Args) -> Result<usize> {
    let (what, tid, data) = (a.size(0), a.int(1), a.size(3));
    match what {
        TRACEME => request::trace_me(cx.task)?,
        ATTACH => request::attach_to(cx.task, tid, None)?,
        SEIZE if a.size(2) != 0 => return Err(Errno::EIO),
        SEIZE => request::attach_to(cx.task, tid, Some(data as u32))?,
        _ => {
            let task = request::tracee(cx.task.process(), tid)?;
            if !matches!(what, KILL | INTERRUPT) {
                request::check_stopped(&task)?;
            }
            return control(cx.task, &task, what, a);
        }
    }
    Ok(0)
}

fn control(tracer: &Task, task: &Arc<Task>, what: usize, a: Args) -> Result<usize> {
    let data = a.size(3);
    let signal = || Signal::or_zero(data as i32).map_err(|_| Errno::EIO);
    match what {
        CONT => request::resume(task, Resume::Continue, signal()?)?,
        SYSCALL => request::resume(task, Resume::Syscall, signal()?)?,
        SINGLESTEP => request::resume(task, Resume::Step, signal()?)?,
        DETACH => request::let_go(task, signal()?)?,
        KILL => request::kill(task),
        INTERRUPT => request::interrupt(task)?,
        LISTEN => request::listen(task)?,
        SETOPTIONS => request::set_options(tracer, task, data as u32)?,
        GETEVENTMSG => UserPtr::new(data).write(&request::message(task)?)?,
        GETSIGINFO => copy_out(data, &request::info(task)?.to_bytes())?,
        SETSIGINFO => {
            let bytes: [u8; SIGINFO_SIZE] = UserPtr::new(data).read()?;
            let number = i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            request::set_info(task, SigInfo::from_bytes(Signal::new(number)?, &bytes))?;
        }
        GETSIGMASK | SETSIGMASK => mask(task, what, a)?,
        PEEKSIGINFO => return peek_signals(task, a.size(2), data),
        SECCOMP_GET_FILTER => return seccomp::get_filter(tracer, task, a.size(2), data),
        SECCOMP_GET_METADATA => return seccomp::get_metadata(tracer, task, a.size(2), data),
        GET_SYSCALL_INFO => return syscall_info(task, a.size(2), data),
        PEEKTEXT | PEEKDATA | POKETEXT | POKEDATA => memory(task, what, a)?,
        _ => registers(task, what, a)?,
    }
    Ok(0)
}

/// `struct ptrace_peeksiginfo_args`, and where copies of pending signals go: how many. `EINVAL`, `EFAULT`.
fn peek_signals(task: &Task, args: usize, to: usize) -> Result<usize> {
    const SHARED: u32 = 1;
    let [from, packed] = UserPtr::<[u64; 2]>::new(args).read()?;
    let (flags, count) = (packed as u32, (packed >> 32) as i32);
    let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
    if flags & !SHARED != 0 {
        return Err(Errno::EINVAL);
    }
    let from = usize::try_from(from).unwrap_or(usize::MAX);
    for done in 0..count {
        let Some(info) = from.checked_add(done).and_then(|at| request::pending(task, flags & SHARED != 0, at)) else {
            return Ok(done);
        };
        if let Err(error) = copy_out(to.wrapping_add(done * SIGINFO_SIZE), &info.to_bytes()) {
            return if done > 0 { Ok(done) } else { Err(error) };
        }
    }
    Ok(count)
}

fn mask(task: &Task, what: usize, a: Args) -> Result<()> {
    crate::signal::check_set_size(a.size(2))?;
    let at = UserPtr::<u64>::new(a.size(3));
    if what == GETSIGMASK { at.write(&task.blocked().0) } else { request::set_mask(task, at.read()?) }
}

/// A word of the tracee's memory.
fn memory(task: &Task, what: usize, a: Args) -> Result<()> {
    let space = task.process().address_space().ok_or(Errno::ESRCH)?;
    let (addr, data) = (a.size(2), a.size(3));
    let mut word = data.to_ne_bytes();
    if matches!(what, POKETEXT | POKEDATA) {
        let written = space.write_remote(addr, &word, true);
        return if written == word.len() { Ok(()) } else { Err(Errno::EIO) };
    }
    if space.read_remote(addr, &mut word) != word.len() {
        return Err(Errno::EIO);
    }
    copy_out(data, &word)
}

fn registers(task: &Task, what: usize, a: Args) -> Result<()> {
    let (addr, data) = (a.size(2), a.size(3));
    match what {
        GETREGS => UserPtr::new(data).write(&request::regs(task)?),
        SETREGS => set_registers(task, &UserPtr::<AllRegs>::new(data).read()?),
        GETFPREGS => {
            let image = request::fpu(task)?;
            copy_out(data, image.get(..FPREGS_SIZE).ok_or(Errno::EIO)?)
        }
        SETFPREGS => {
            let mut image = [0; FPREGS_SIZE];
            copy_in(&mut image, data)?;
            request::set_fpu(task, &image)
        }
        PEEKUSER | POKEUSER => user_area(task, what, addr, data),
        GETREGSET | SETREGSET => register_set(task, what, addr, UserPtr::new(data)),
        _ => Err(Errno::EIO),
    }
}

fn set_registers(task: &Task, new: &AllRegs) -> Result<()> {
    request::set_regs(task, new)
}

/// A word of `struct user`, of which there are only the registers; the rest (debug registers among it) reads as 0.
fn user_area(task: &Task, what: usize, addr: usize, data: usize) -> Result<()> {
    if !addr.is_multiple_of(8) || addr >= USER_SIZE {
        return Err(Errno::EIO);
    }
    let mut all = request::regs(task)?;
    let slot = all.as_mut_bytes().get_mut(addr..addr + 8);
    if what == PEEKUSER {
        let mut word = [0; 8];
        if let Some(slot) = slot {
            word.copy_from_slice(slot);
        }
        return copy_out(data, &word);
    }
    match slot {
        Some(slot) => slot.copy_from_slice(&data.to_ne_bytes()),
        None if data == 0 => return Ok(()),
        // Hardware break-points are not there.
        None => return Err(Errno::EIO),
    }
    set_registers(task, &all)
}

/// `struct iovec`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct Iovec {
    base: usize,
    len: usize,
}

fn register_set(task: &Task, what: usize, kind: usize, vector: UserPtr<Iovec>) -> Result<()> {
    const NT_PRSTATUS: usize = 1;
    const NT_PRFPREG: usize = 2;
    const NT_X86_XSTATE: usize = 0x202;
    let mut iov = vector.read()?;
    let current: Vec<u8> = match kind {
        NT_PRSTATUS => request::regs(task)?.as_bytes().to_vec(),
        NT_PRFPREG => request::fpu(task)?.into_iter().take(FPREGS_SIZE).collect(),
        NT_X86_XSTATE => xstate(request::fpu(task)?),
        _ => return Err(Errno::EINVAL),
    };
    let len = iov.len.min(current.len()).min(PAGE_SIZE);
    if what == GETREGSET {
        copy_out(iov.base, &current[..len])?;
    } else {
        let mut new = current;
        copy_in(&mut new[..len], iov.base)?;
        match kind {
            NT_PRSTATUS => set_registers(task, &AllRegs::read_from_bytes(&new).map_err(|_| Errno::EINVAL)?)?,
            _ => request::set_fpu(task, &new)?,
        }
    }
    iov.len = len;
    vector.write(&iov)
}

/// The image as debuggers want it: with XCR0 in the bytes that are software's.
fn xstate(mut image: Vec<u8>) -> Vec<u8> {
    const SW_XCR0: core::ops::Range<usize> = 464..472;
    if let Some(slot) = image.get_mut(SW_XCR0) {
        slot.copy_from_slice(&hal::task::Task::fpu_components().to_ne_bytes());
    }
    image
}

/// The part of `struct ptrace_syscall_info` that tells of a call that is about to be made.
fn put_call(words: &mut [u64; 11], kind: u64, regs: &hal::regs::UserRegs) {
    words[0] |= kind;
    words[3] = regs.orig_rax as u64;
    for (word, argument) in words[4..10].iter_mut().zip(regs.args()) {
        *word = argument as u64;
    }
}

/// PTRACE_GET_SYSCALL_INFO: as much of `struct ptrace_syscall_info` as there is room for; how long it is.
fn syscall_info(task: &Task, room: usize, to: usize) -> Result<usize> {
    const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
    let at = request::at(task)?;
    let mut words: [u64; 11] = [0; 11];
    words[0] = u64::from(AUDIT_ARCH_X86_64) << 32;
    words[1] = at.regs.rip as u64;
    words[2] = at.regs.rsp as u64;
    let len = match at.point {
        Point::None => 24,
        Point::Entry => {
            put_call(&mut words, 1, &at.regs);
            80
        }
        Point::Seccomp(detail) => {
            put_call(&mut words, 3, &at.regs);
            words[10] = u64::from(detail);
            84
        }
        Point::Exit => {
            words[0] |= 2;
            words[3] = at.regs.rax as u64;
            words[4] = u64::from((-4095..0).contains(&(at.regs.rax as isize)));
            33
        }
    };
    copy_out(to, &words.as_bytes()[..len.min(room)])?;
    Ok(len)
}
