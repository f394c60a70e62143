//! seccomp(2).

use alloc::vec::Vec;

use base::{Errno, Result};
use bpf::Instruction;
use hal::user::{UserPtr, copy_in, copy_out};
use process::Task;
use process::seccomp::{self, Action, flags};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::args::Args;
use crate::context::Context;

const SET_MODE_STRICT: u32 = 0;
const SET_MODE_FILTER: u32 = 1;
const GET_ACTION_AVAIL: u32 = 2;
const GET_NOTIF_SIZES: u32 = 3;

pub(crate) fn seccomp(cx: &mut Context, a: Args) -> Result<usize> {
    let (flags, at) = (a.uint(1), a.size(2));
    match a.uint(0) {
        SET_MODE_STRICT if flags != 0 || at != 0 => Err(Errno::EINVAL),
        SET_MODE_STRICT => seccomp::set_strict(cx.task).map(|()| 0),
        SET_MODE_FILTER => set_filter(cx.task, flags, at),
        GET_ACTION_AVAIL | GET_NOTIF_SIZES if flags != 0 => Err(Errno::EINVAL),
        GET_ACTION_AVAIL => {
            let action = UserPtr::<u32>::new(at).read()?;
            let known = action & 0xffff == 0 && Action::of(action).is_some();
            if known { Ok(0) } else { Err(Errno::EOPNOTSUPP) }
        }
        GET_NOTIF_SIZES => UserPtr::new(at).write(&seccomp::NOTIFY_SIZES).map(|()| 0),
        _ => Err(Errno::EINVAL),
    }
}

/// PR_SET_SECCOMP.
pub(crate) fn set_mode(task: &Task, mode: usize, at: usize) -> Result<usize> {
    const STRICT: usize = 1;
    const FILTER: usize = 2;
    match mode {
        STRICT => seccomp::set_strict(task).map(|()| 0),
        FILTER => set_filter(task, 0, at),
        _ => Err(Errno::EINVAL),
    }
}

/// `struct sock_fprog`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Program {
    len: u16,
    padding: [u16; 3],
    instructions: usize,
}

fn set_filter(task: &Task, flags: u32, at: usize) -> Result<usize> {
    let has = |flag: u32| flags & flag != 0;
    let wrong = flags & !flags::ALL != 0
        || has(flags::TSYNC) && has(flags::NEW_LISTENER) && !has(flags::TSYNC_ESRCH)
        || has(flags::WAIT_KILLABLE_RECV) && !has(flags::NEW_LISTENER);
    if wrong {
        return Err(Errno::EINVAL);
    }
    let program = UserPtr::<Program>::new(at).read()?;
    let len = usize::from(program.len);
    if len == 0 || len > bpf::LENGTH_MAX {
        return Err(Errno::EINVAL);
    }
    seccomp::check_rights(&task.cred())?;
    let mut instructions = Vec::new();
    instructions.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
    for number in 0..len {
        let mut raw = [0; Instruction::SIZE];
        copy_in(&mut raw, program.instructions.wrapping_add(number * Instruction::SIZE))?;
        instructions.push(Instruction::parse(raw));
    }
    seccomp::add_filter(task, instructions, flags)
}

/// PTRACE_SECCOMP_GET_FILTER: how many instructions the filter has, which go to `to` unless that is 0.
pub(crate) fn get_filter(tracer: &Task, task: &Task, number: usize, to: usize) -> Result<usize> {
    let (instructions, _) = seccomp::nth_filter(tracer, task, number)?;
    if to != 0 {
        for (index, instruction) in instructions.iter().enumerate() {
            copy_out(to.wrapping_add(index * Instruction::SIZE), &instruction.bytes())?;
        }
    }
    Ok(instructions.len())
}

/// PTRACE_SECCOMP_GET_METADATA: the flags of the filter whose number is at `at`, as far as `size` bytes go; how many those are.
pub(crate) fn get_metadata(tracer: &Task, task: &Task, size: usize, at: usize) -> Result<usize> {
    let size = size.min(16);
    if size < 8 {
        return Err(Errno::EINVAL);
    }
    let number = UserPtr::<u64>::new(at).read()?;
    let (_, flags) = seccomp::nth_filter(tracer, task, number as usize)?;
    copy_out(at, &[number, flags].as_bytes()[..size])?;
    Ok(size)
}
