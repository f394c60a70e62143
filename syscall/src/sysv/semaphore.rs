//! semget(2), semop(2), semtimedop(2), semctl(2).

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use base::{Errno, Nanos, Result};
use hal::user::UserPtr;
use ipc::sysv::initial;
use ipc::sysv::registry::{Entry, READ, WRITE};
use ipc::sysv::semaphore::{self, MAX_VALUE, Operation, SemaphoreSet};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{INFO, Look, REMOVE, RawPermission, SET, STAT, change, look, store, with_caller};
use crate::args::Args;
use crate::context::Context;
use crate::timespec::Timespec;

const GETPID: i32 = 11;
const GETVAL: i32 = 12;
const GETALL: i32 = 13;
const GETNCNT: i32 = 14;
const GETZCNT: i32 = 15;
const SETVAL: i32 = 16;
const SETALL: i32 = 17;
const SEM_STAT: i32 = 18;
const SEM_INFO: i32 = 19;
const SEM_STAT_ANY: i32 = 20;

/// `struct semid64_ds`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct RawSet {
    permission: RawPermission,
    otime: i64,
    unused1: u64,
    ctime: i64,
    unused2: u64,
    count: u64,
    unused3: [u64; 2],
}

pub(crate) fn semget(cx: &mut Context, a: Args) -> Result<usize> {
    let id = with_caller(cx, |caller| semaphore::get(initial(), caller, a.int(0), a.int(1), a.int(2)))?;
    Ok(id as usize)
}

fn operate(cx: &Context, a: Args, deadline: Option<Nanos>) -> Result<usize> {
    let (id, count) = (a.int(0), a.uint(2) as usize);
    if count == 0 || id < 0 {
        return Err(Errno::EINVAL);
    }
    if count > initial().limits.sem[2].load(Ordering::Relaxed).max(0) as usize {
        return Err(Errno::E2BIG);
    }
    let mut operations = Vec::<Operation>::new();
    operations.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
    operations.resize(count, Operation::default());
    hal::user::copy_in(operations.as_mut_slice().as_mut_bytes(), a.0[1])?;
    let entry = initial().semaphores.find(id)?;
    let undo = || cx.task.semaphore_undo();
    with_caller(cx, |caller| semaphore::operate(&entry, caller, operations, undo, deadline))?;
    Ok(0)
}

pub(crate) fn semop(cx: &mut Context, a: Args) -> Result<usize> {
    operate(cx, a, None)
}

pub(crate) fn semtimedop(cx: &mut Context, a: Args) -> Result<usize> {
    let timeout = Timespec::read_optional(a.ptr(3))?;
    operate(cx, a, timeout.map(|nanos| sched::time::now().saturating_add(nanos)))
}

pub(crate) fn semctl(cx: &mut Context, a: Args) -> Result<usize> {
    let (id, number, command, argument) = (a.int(0), a.int(1), a.int(2), a.0[3]);
    let registry = &initial().semaphores;
    if id < 0 {
        return Err(Errno::EINVAL);
    }
    match command {
        INFO | SEM_INFO => info(command == SEM_INFO, argument),
        STAT => stat(cx, id, Look::Identifier, argument),
        SEM_STAT => stat(cx, id, Look::Index, argument),
        SEM_STAT_ANY => stat(cx, id, Look::IndexOfAny, argument),
        SET => {
            let new: RawSet = UserPtr::new(argument).read()?;
            change(cx, &*registry.find(id)?, &new.permission)?;
            Ok(0)
        }
        REMOVE => {
            let entry = registry.find(id)?;
            with_caller(cx, |caller| entry.permission().check_owner(caller))?;
            registry.remove(&entry);
            entry.object.removed();
            Ok(0)
        }
        GETALL | GETPID | GETVAL | GETNCNT | GETZCNT => {
            let entry = registry.find(id)?;
            with_caller(cx, |caller| entry.permission().check(caller, READ))?;
            get(&entry.object, number, command, argument)
        }
        SETVAL | SETALL => {
            let entry = registry.find(id)?;
            set(cx, &entry, number, command, argument)?;
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn get(set: &SemaphoreSet, number: i32, command: i32, argument: usize) -> Result<usize> {
    if command == GETALL {
        hal::user::copy_out(argument, set.values()?.as_slice().as_bytes())?;
        return Ok(0);
    }
    let number = usize::try_from(number).map_err(|_| Errno::EINVAL)?;
    match command {
        GETPID => Ok(set.semaphore(number)?.pid as usize),
        GETVAL => Ok(set.semaphore(number)?.value as usize),
        _ => set.waiting(number, command == GETZCNT),
    }
}

fn set(cx: &Context, entry: &Entry<SemaphoreSet>, number: i32, command: i32, argument: usize) -> Result<()> {
    let value = argument as i32;
    if command == SETVAL && !(0..=MAX_VALUE).contains(&value) {
        return Err(Errno::ERANGE);
    }
    with_caller(cx, |caller| entry.permission().check(caller, WRITE))?;
    if command == SETVAL {
        let number = usize::try_from(number).map_err(|_| Errno::EINVAL)?;
        entry.object.set(number, value, cx.task.pid())?;
    } else {
        let mut values = Vec::new();
        values.try_reserve_exact(entry.object.len()).map_err(|_| Errno::ENOMEM)?;
        values.resize(entry.object.len(), 0u16);
        hal::user::copy_in(values.as_mut_slice().as_mut_bytes(), argument)?;
        entry.object.set_all(&values, cx.task.pid())?;
    }
    entry.changed.touch();
    Ok(())
}

fn stat(cx: &Context, number: i32, how: Look, pointer: usize) -> Result<usize> {
    let (entry, result) = look(cx, &initial().semaphores, number, how)?;
    let raw = RawSet {
        permission: entry.permission().into(),
        otime: entry.object.operated(),
        unused1: 0,
        ctime: entry.changed.seconds(),
        unused2: 0,
        count: entry.object.len() as u64,
        unused3: [0; 2],
    };
    store(pointer, &raw)?;
    Ok(result)
}

/// `struct seminfo`: semmap, semmni, semmns, semmnu, semmsl, semopm, semume, semusz, semvmx, semaem.
fn info(used: bool, pointer: usize) -> Result<usize> {
    let namespace = initial();
    let [each, all, operations, sets] = [0, 1, 2, 3].map(|n| namespace.limits.sem[n].load(Ordering::Relaxed));
    let in_use = [namespace.semaphores.count() as i32, semaphore::total(namespace) as i32];
    let [size, most] = if used { in_use } else { [20, MAX_VALUE] };
    store(pointer, &[all, sets, all, all, each, operations, operations, size, MAX_VALUE, most])?;
    Ok(namespace.semaphores.highest_index() as usize)
}
