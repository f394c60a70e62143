//! futex(2), futex_waitv(2) and robust lists.

use alloc::vec::Vec;

use base::{Errno, Nanos, Result};
use hal::user::UserPtr;
use ipc::futex::{self, Wait, WakeOperation};
use process::signal::Restart;
use process::tree;
use sched::time::Until;
use zerocopy::{FromBytes, IntoBytes};

use crate::args::Args;
use crate::context::Context;
use crate::timespec::Timespec;

const FUTEX_WAIT: u32 = 0;
const FUTEX_WAKE: u32 = 1;
const FUTEX_REQUEUE: u32 = 3;
const FUTEX_CMP_REQUEUE: u32 = 4;
const FUTEX_WAKE_OP: u32 = 5;
const FUTEX_LOCK_PI: u32 = 6;
const FUTEX_UNLOCK_PI: u32 = 7;
const FUTEX_TRYLOCK_PI: u32 = 8;
const FUTEX_WAIT_BITSET: u32 = 9;
const FUTEX_WAKE_BITSET: u32 = 10;
const FUTEX_WAIT_REQUEUE_PI: u32 = 11;
const FUTEX_CMP_REQUEUE_PI: u32 = 12;
const FUTEX_LOCK_PI2: u32 = 13;
const FUTEX_PRIVATE_FLAG: u32 = 128;
const FUTEX_CLOCK_REALTIME: u32 = 256;
const MATCH_ANY: u32 = u32::MAX;

/// When a wait until `time` on the clock that the flags name ends.
fn until(time: Nanos, realtime: bool) -> Until {
    if realtime { Until::Real(time) } else { Until::Monotonic(time) }
}

pub(crate) fn futex(cx: &mut Context, a: Args) -> Result<usize> {
    let (word, operation, value) = (a.size(0), a.uint(1), a.uint(2));
    let command = operation & !(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME);
    let shared = operation & FUTEX_PRIVATE_FLAG == 0;
    if operation & FUTEX_CLOCK_REALTIME != 0
        && !matches!(command, FUTEX_WAIT_BITSET | FUTEX_WAIT_REQUEUE_PI | FUTEX_LOCK_PI2)
    {
        return Err(Errno::ENOSYS);
    }
    let space = cx.task.address_space();
    let count = |value: u32| value as i32 as usize;
    match command {
        FUTEX_WAIT | FUTEX_WAIT_BITSET => wait(cx, a, command),
        FUTEX_WAKE => futex::wake(&space, word, shared, wake_count(value), MATCH_ANY),
        FUTEX_WAKE_BITSET if a.uint(5) == 0 => Err(Errno::EINVAL),
        FUTEX_WAKE_BITSET => futex::wake(&space, word, shared, wake_count(value), a.uint(5)),
        FUTEX_REQUEUE | FUTEX_CMP_REQUEUE => {
            let moved = a.uint(3);
            if (value as i32) < 0 || (moved as i32) < 0 {
                return Err(Errno::EINVAL);
            }
            let expected = (command == FUTEX_CMP_REQUEUE).then_some(a.uint(5));
            futex::requeue(&space, (word, a.size(4)), shared, (count(value), count(moved)), expected)
        }
        FUTEX_WAKE_OP => {
            let counts = (wake_count(value), wake_count(a.uint(3)));
            futex::wake_operation(&space, (word, a.size(4)), shared, counts, WakeOperation(a.uint(5)))
        }
        FUTEX_CMP_REQUEUE_PI => {
            let moved = a.uint(3);
            if value != 1 || (moved as i32) < 0 {
                return Err(Errno::EINVAL);
            }
            futex::requeue_to_lock(&space, (word, a.size(4)), shared, 1 + moved as usize, a.uint(5))
        }
        FUTEX_LOCK_PI | FUTEX_LOCK_PI2 | FUTEX_TRYLOCK_PI | FUTEX_UNLOCK_PI | FUTEX_WAIT_REQUEUE_PI => {
            priority(cx, a, command)
        }
        _ => Err(Errno::ENOSYS),
    }
}

/// The operations on locks with an owner.
fn priority(cx: &Context, a: Args, command: u32) -> Result<usize> {
    let (word, operation) = (a.size(0), a.uint(1));
    let shared = operation & FUTEX_PRIVATE_FLAG == 0;
    let space = cx.task.address_space();
    let thread = |tid: u32| tree::task(tid as i32)?.thread();
    let caller = futex::pi::Caller { space: &space, tid: cx.task.tid() as u32, thread: &thread };
    if command == FUTEX_UNLOCK_PI {
        return futex::pi::unlock(&caller, word, shared).map(|()| 0);
    }
    // The first version counts real time, whatever the flag says.
    let realtime = command == FUTEX_LOCK_PI || operation & FUTEX_CLOCK_REALTIME != 0;
    if command == FUTEX_WAIT_REQUEUE_PI {
        let timeout = Timespec::read_optional(a.ptr(3))?;
        let end = timeout.map(|time| until(time, operation & FUTEX_CLOCK_REALTIME != 0));
        let wait = Wait { word, value: a.uint(2), bits: MATCH_ANY, shared };
        return Until::follow(end, |end| futex::pi::wait_requeue(&caller, &wait, a.size(4), end)).map(|()| 0);
    }
    let only_try = command == FUTEX_TRYLOCK_PI;
    let timeout = if only_try { None } else { Timespec::read_optional(a.ptr(3))? };
    let end = timeout.map(|time| until(time, realtime));
    Until::follow(end, |end| futex::pi::lock(&caller, word, shared, end, only_try)).map(|()| 0)
}

/// At least one is woken, as on Linux.
fn wake_count(value: u32) -> usize {
    (value as i32).max(1) as usize
}

fn wait(cx: &Context, a: Args, command: u32) -> Result<usize> {
    let (operation, value) = (a.uint(1), a.uint(2));
    let bits = if command == FUTEX_WAIT { MATCH_ANY } else { a.uint(5) };
    if bits == 0 {
        return Err(Errno::EINVAL);
    }
    let timeout = Timespec::read_optional(a.ptr(3))?;
    let relative = command == FUTEX_WAIT;
    let end = timeout.map(|time| match relative {
        true => Until::Monotonic(sched::time::now().saturating_add(time)),
        false => until(time, operation & FUTEX_CLOCK_REALTIME != 0),
    });
    wait_until(cx, a.size(0), value, bits, operation, end)
}

/// restart_syscall(2) for a wait with a deadline.
pub(crate) fn wait_again(
    cx: &Context,
    word: usize,
    value: u32,
    bits: u32,
    operation: u32,
    end: Until,
) -> Result<usize> {
    wait_until(cx, word, value, bits, operation, Some(end))
}

fn wait_until(cx: &Context, word: usize, value: u32, bits: u32, operation: u32, end: Option<Until>) -> Result<usize> {
    let wait = Wait { word, value, bits, shared: operation & FUTEX_PRIVATE_FLAG == 0 };
    let result = Until::follow(end, |end| futex::wait(&cx.task.address_space(), &wait, end));
    match (result, end) {
        (Err(Errno::ERESTARTSYS), Some(end)) => {
            cx.task.set_restart(Restart::Futex { word, value, bits, operation, end });
            Err(Errno::ERESTART_RESTARTBLOCK)
        }
        (result, _) => result.map(|()| 0),
    }
}

/// `struct futex_waitv`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes)]
struct UserWait {
    value: u64,
    word: u64,
    flags: u32,
    reserved: u32,
}

pub(crate) fn futex_waitv(cx: &mut Context, a: Args) -> Result<usize> {
    const FUTEX_32: u32 = 2;
    const MAX: u32 = 128;
    let (at, count, flags, clock) = (a.ptr::<UserWait>(0), a.uint(1), a.uint(2), a.int(4));
    if flags != 0 || count == 0 || count > MAX || at.is_null() {
        return Err(Errno::EINVAL);
    }
    let end = match a.ptr::<Timespec>(3).non_null() {
        Some(_) if clock != 0 && clock != 1 => return Err(Errno::EINVAL),
        Some(timeout) => Some(until(timeout.read()?.to_nanos()?, clock == 0)),
        None => None,
    };
    let mut waits: Vec<Wait> = Vec::new();
    waits.try_reserve_exact(count as usize).map_err(|_| Errno::ENOMEM)?;
    for index in 0..count as usize {
        let wait = at.at(index).read()?;
        if wait.flags & !(FUTEX_32 | FUTEX_PRIVATE_FLAG) != 0 || wait.flags & FUTEX_32 == 0 || wait.reserved != 0 {
            return Err(Errno::EINVAL);
        }
        let shared = wait.flags & FUTEX_PRIVATE_FLAG == 0;
        waits.push(Wait { word: wait.word as usize, value: wait.value as u32, bits: MATCH_ANY, shared });
    }
    Until::follow(end, |end| futex::wait_many(&cx.task.address_space(), &waits, end))
}

/// Bytes in `struct robust_list_head`.
const ROBUST_LIST_HEAD: usize = 24;

pub(crate) fn set_robust_list(cx: &mut Context, a: Args) -> Result<usize> {
    if a.size(1) != ROBUST_LIST_HEAD {
        return Err(Errno::EINVAL);
    }
    cx.task.set_robust_list(a.size(0));
    Ok(0)
}

pub(crate) fn get_robust_list(cx: &mut Context, a: Args) -> Result<usize> {
    let head = match a.int(0) {
        0 => cx.task.robust_list(),
        pid => {
            let target = tree::task(pid).ok_or(Errno::ESRCH)?;
            let cred = cx.task.cred();
            let own = alloc::sync::Arc::ptr_eq(target.process(), cx.task.process());
            if !own && cred.euid != target.cred().uid && !cred.capable(base::Capability::SysPtrace) {
                return Err(Errno::EPERM);
            }
            target.robust_list()
        }
    };
    UserPtr::new(a.size(2)).write(&ROBUST_LIST_HEAD)?;
    a.ptr(1).write(&head)?;
    Ok(0)
}
