//! Scheduling: policies, priorities, affinity.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use base::{Capability, Errno, Result};
use process::{Pid, Resource, Task, tree};
use sched::Thread;
use sched::thread::{Params, Policy};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::args::Args;
use crate::context::Context;
use crate::timespec::Timespec;

const RESET_ON_FORK: u32 = 0x4000_0000;

fn target(cx: &Context, pid: Pid) -> Result<Arc<Task>> {
    match pid {
        i32::MIN..0 => Err(Errno::EINVAL),
        0 => tree::task(cx.task.tid()).ok_or(Errno::ESRCH),
        pid => tree::task(pid).ok_or(Errno::ESRCH),
    }
}

fn thread(task: &Task) -> Result<Arc<Thread>> {
    task.thread().ok_or(Errno::ESRCH)
}

pub(crate) fn sched_yield(_: &mut Context, _: Args) -> Result<usize> {
    sched::yield_now();
    Ok(0)
}

fn policy(number: u32) -> Result<Policy> {
    Ok(match number {
        0 => Policy::Other,
        1 => Policy::Fifo,
        2 => Policy::RoundRobin,
        3 => Policy::Batch,
        5 => Policy::Idle,
        _ => return Err(Errno::EINVAL),
    })
}

fn is_realtime(policy: Policy) -> bool {
    matches!(policy, Policy::Fifo | Policy::RoundRobin)
}

/// May the caller touch the scheduling of `task` at all? `EPERM`.
fn check_owner(cx: &Context, task: &Task) -> Result<()> {
    let (mine, other) = (cx.task.cred(), task.cred());
    let owner = mine.euid == other.euid || mine.euid == other.uid;
    if owner || mine.capable(Capability::SysNice) { Ok(()) } else { Err(Errno::EPERM) }
}

/// May the caller give `task` these parameters? `EPERM`.
fn check_change(cx: &Context, task: &Task, old: Params, new: Params) -> Result<()> {
    check_owner(cx, task)?;
    if cx.task.cred().capable(Capability::SysNice) {
        return Ok(());
    }
    let limit = task.rlimit(Resource::Rtprio).0;
    let raises = new.rt_priority > old.rt_priority && u64::from(new.rt_priority) > limit;
    let enters = is_realtime(new.policy) && new.policy != old.policy && limit == 0;
    let less_nice = new.nice < old.nice && !may_be_nice(task, new.nice);
    let unresets = old.reset_on_fork && !new.reset_on_fork;
    if raises || enters || less_nice || unresets { Err(Errno::EPERM) } else { Ok(()) }
}

/// RLIMIT_NICE counts from 1 (nice 19) to 40 (nice -20).
fn may_be_nice(task: &Task, nice: i8) -> bool {
    (20 - i64::from(nice)) as u64 <= task.rlimit(Resource::Nice).0
}

fn change(cx: &Context, pid: Pid, number: Option<u32>, priority: i32, nice: Option<i8>) -> Result<usize> {
    let task = target(cx, pid)?;
    let thread = thread(&task)?;
    let old = thread.params();
    let (policy, reset_on_fork) = match number {
        Some(number) => (policy(number & !RESET_ON_FORK)?, number & RESET_ON_FORK != 0),
        None => (old.policy, old.reset_on_fork),
    };
    let range = if is_realtime(policy) { 1..=99 } else { 0..=0 };
    if !range.contains(&priority) {
        return Err(Errno::EINVAL);
    }
    let new = Params { policy, nice: nice.unwrap_or(old.nice), rt_priority: priority as u8, reset_on_fork };
    check_change(cx, &task, old, new)?;
    thread.set_params(new);
    Ok(0)
}

pub(crate) fn sched_setscheduler(cx: &mut Context, a: Args) -> Result<usize> {
    if a.int(1) < 0 || a.size(2) == 0 {
        return Err(Errno::EINVAL);
    }
    let priority = a.ptr::<i32>(2).read()?;
    change(cx, a.int(0), Some(a.uint(1)), priority, None)
}

pub(crate) fn sched_setparam(cx: &mut Context, a: Args) -> Result<usize> {
    if a.size(1) == 0 {
        return Err(Errno::EINVAL);
    }
    let priority = a.ptr::<i32>(1).read()?;
    change(cx, a.int(0), None, priority, None)
}

pub(crate) fn sched_getscheduler(cx: &mut Context, a: Args) -> Result<usize> {
    let params = thread(&*target(cx, a.int(0))?)?.params();
    Ok((params.policy as u32 | if params.reset_on_fork { RESET_ON_FORK } else { 0 }) as usize)
}

pub(crate) fn sched_getparam(cx: &mut Context, a: Args) -> Result<usize> {
    if a.size(1) == 0 {
        return Err(Errno::EINVAL);
    }
    let params = thread(&*target(cx, a.int(0))?)?.params();
    a.ptr(1).write(&i32::from(params.rt_priority))?;
    Ok(0)
}

pub(crate) fn sched_get_priority_max(_: &mut Context, a: Args) -> Result<usize> {
    match a.int(0) {
        1 | 2 => Ok(99),
        0 | 3 | 5 | 6 => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

pub(crate) fn sched_get_priority_min(_: &mut Context, a: Args) -> Result<usize> {
    match a.int(0) {
        1 | 2 => Ok(1),
        0 | 3 | 5 | 6 => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

pub(crate) fn sched_rr_get_interval(cx: &mut Context, a: Args) -> Result<usize> {
    const RR_SLICE: u64 = 100_000_000;
    const FAIR_SLICE: u64 = 3_000_000;
    let slice = match thread(&*target(cx, a.int(0))?)?.params().policy {
        Policy::RoundRobin => RR_SLICE,
        Policy::Fifo => 0,
        Policy::Other | Policy::Batch | Policy::Idle => FAIR_SLICE,
    };
    a.ptr(1).write(&Timespec::from_nanos(slice))?;
    Ok(0)
}

/// `struct sched_attr`, first version.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

pub(crate) fn sched_setattr(cx: &mut Context, a: Args) -> Result<usize> {
    const FLAG_RESET_ON_FORK: u64 = 1;
    const FLAG_KEEP_POLICY: u64 = 8;
    const FLAG_KEEP_PARAMS: u64 = 16;
    const SCHED_DEADLINE: u32 = 6;
    if a.size(1) == 0 || a.int(0) < 0 || a.uint(2) != 0 {
        return Err(Errno::EINVAL);
    }
    let at = a.ptr::<SchedAttr>(1);
    let size = at.cast::<u32>().read()?;
    if size != 0 && (size as usize) < size_of::<SchedAttr>() {
        at.cast::<u32>().write(&(size_of::<SchedAttr>() as u32))?;
        return Err(Errno::E2BIG);
    }
    let attr = at.read()?;
    if attr.policy == SCHED_DEADLINE {
        return Err(Errno::EINVAL);
    }
    let keep = FLAG_KEEP_POLICY | FLAG_KEEP_PARAMS;
    if attr.flags & !(FLAG_RESET_ON_FORK | keep) != 0 {
        return Err(Errno::EINVAL);
    }
    let old = thread(&*target(cx, a.int(0))?)?.params();
    let reset = if attr.flags & FLAG_RESET_ON_FORK != 0 { RESET_ON_FORK } else { 0 };
    let number = if attr.flags & FLAG_KEEP_POLICY != 0 { old.policy as u32 } else { attr.policy } | reset;
    let (priority, nice) = match attr.flags & FLAG_KEEP_PARAMS {
        0 => (attr.priority as i32, attr.nice.clamp(-20, 19) as i8),
        _ => (i32::from(old.rt_priority), old.nice),
    };
    change(cx, a.int(0), Some(number), priority, Some(nice))
}

pub(crate) fn sched_getattr(cx: &mut Context, a: Args) -> Result<usize> {
    let size = a.uint(2) as usize;
    if size < size_of::<SchedAttr>() || size > abi::PAGE_SIZE || a.uint(3) != 0 || a.size(1) == 0 {
        return Err(Errno::EINVAL);
    }
    let params = thread(&*target(cx, a.int(0))?)?.params();
    let attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        policy: params.policy as u32,
        flags: u64::from(params.reset_on_fork),
        nice: if is_realtime(params.policy) { 0 } else { i32::from(params.nice) },
        priority: u32::from(params.rt_priority),
        ..SchedAttr::default()
    };
    a.ptr(1).write(&attr)?;
    Ok(0)
}

fn online() -> u64 {
    let count = hal::cpu::count();
    if count >= 64 { u64::MAX } else { (1 << count) - 1 }
}

pub(crate) fn sched_setaffinity(cx: &mut Context, a: Args) -> Result<usize> {
    let mut bytes = [0; 8];
    let len = a.uint(1) as usize;
    hal::user::copy_in(&mut bytes[..len.min(8)], a.size(2))?;
    let task = target(cx, a.int(0)).map_err(|_| Errno::ESRCH)?;
    check_owner(cx, &task)?;
    let mask = u64::from_ne_bytes(bytes) & online();
    if mask == 0 {
        return Err(Errno::EINVAL);
    }
    thread(&task)?.set_affinity(mask);
    Ok(0)
}

pub(crate) fn sched_getaffinity(cx: &mut Context, a: Args) -> Result<usize> {
    let len = a.uint(1) as usize;
    if len * 8 < hal::cpu::count() || !len.is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    let task = target(cx, a.int(0)).map_err(|_| Errno::ESRCH)?;
    let mask = thread(&task)?.affinity() & online();
    a.ptr(2).write(&mask)?;
    Ok(8)
}

const PRIO_PROCESS: i32 = 0;
const PRIO_PGRP: i32 = 1;
const PRIO_USER: i32 = 2;

/// The threads that getpriority(2) and setpriority(2) mean. `EINVAL`, `ESRCH`.
fn priority_targets(cx: &Context, which: i32, who: i32) -> Result<Vec<Arc<Task>>> {
    let all_threads = |processes: Vec<Arc<process::Process>>| processes.iter().flat_map(|p| p.threads()).collect();
    let tasks: Vec<Arc<Task>> = match which {
        PRIO_PROCESS => alloc::vec![target(cx, who).map_err(|_| Errno::ESRCH)?],
        PRIO_PGRP => all_threads(tree::group(if who == 0 { cx.task.process().pgid() } else { who })),
        PRIO_USER => {
            let uid = if who == 0 { cx.task.cred().uid } else { who as u32 };
            let mut tasks: Vec<Arc<Task>> = all_threads(tree::processes());
            tasks.retain(|task| task.cred().uid == uid);
            tasks
        }
        _ => return Err(Errno::EINVAL),
    };
    if tasks.is_empty() { Err(Errno::ESRCH) } else { Ok(tasks) }
}

pub(crate) fn getpriority(cx: &mut Context, a: Args) -> Result<usize> {
    let tasks = priority_targets(cx, a.int(0), a.int(1))?;
    // Given as 1 (least) to 40 (most), so that no result looks like an error.
    let highest =
        tasks.iter().filter_map(|task| task.thread()).map(|thread| 20 - i32::from(thread.params().nice)).max();
    highest.map(|value| value as usize).ok_or(Errno::ESRCH)
}

pub(crate) fn setpriority(cx: &mut Context, a: Args) -> Result<usize> {
    let nice = a.int(2).clamp(-20, 19) as i8;
    let mut result = Err(Errno::ESRCH);
    for task in priority_targets(cx, a.int(0), a.int(1))? {
        let Some(thread) = task.thread() else { continue };
        let old = thread.params();
        let capable = cx.task.cred().capable(Capability::SysNice);
        if check_owner(cx, &task).is_err() {
            result = Err(Errno::EPERM);
        } else if nice < old.nice && !capable && !may_be_nice(&task, nice) {
            result = Err(Errno::EACCES);
        } else {
            thread.set_params(Params { nice, ..old });
            if result == Err(Errno::ESRCH) {
                result = Ok(0);
            }
        }
    }
    result
}

pub(crate) fn getcpu(_: &mut Context, a: Args) -> Result<usize> {
    if let Some(cpu) = a.ptr::<u32>(0).non_null() {
        cpu.write(&(hal::cpu::id() as u32))?;
    }
    if let Some(node) = a.ptr::<u32>(1).non_null() {
        node.write(&0)?;
    }
    Ok(0)
}

const IOPRIO_WHO_PROCESS: i32 = 1;
const IOPRIO_WHO_PGRP: i32 = 2;
const IOPRIO_WHO_USER: i32 = 3;

fn io_targets(cx: &Context, which: i32, who: i32) -> Result<Vec<Arc<Task>>> {
    let which = match which {
        IOPRIO_WHO_PROCESS => PRIO_PROCESS,
        IOPRIO_WHO_PGRP => PRIO_PGRP,
        IOPRIO_WHO_USER => PRIO_USER,
        _ => return Err(Errno::EINVAL),
    };
    priority_targets(cx, which, who)
}

/// May the thread give that I/O priority? `EINVAL` where it is none, `EPERM` for the real-time class.
pub(crate) fn check_io_priority(task: &Task, priority: i32) -> Result<()> {
    const CLASS_SHIFT: i32 = 13;
    let (class, level) = (priority >> CLASS_SHIFT, priority & ((1 << CLASS_SHIFT) - 1));
    let cred = task.cred();
    match class {
        0 if level != 0 => Err(Errno::EINVAL),
        1 if !cred.capable(Capability::SysNice) && !cred.capable(Capability::SysAdmin) => Err(Errno::EPERM),
        1 | 2 if level > 7 => Err(Errno::EINVAL),
        0..=3 => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

pub(crate) fn ioprio_set(cx: &mut Context, a: Args) -> Result<usize> {
    let priority = a.int(2);
    check_io_priority(cx.task, priority)?;
    for task in io_targets(cx, a.int(0), a.int(1))? {
        check_owner(cx, &task)?;
        task.io_priority.store(priority, Ordering::Relaxed);
    }
    Ok(0)
}

pub(crate) fn ioprio_get(cx: &mut Context, a: Args) -> Result<usize> {
    let tasks = io_targets(cx, a.int(0), a.int(1))?;
    let best = tasks.iter().map(|task| task.io_priority.load(Ordering::Relaxed)).min();
    best.map(|value| value as usize).ok_or(Errno::ESRCH)
}

pub(crate) fn membarrier(cx: &mut Context, a: Args) -> Result<usize> {
    const GLOBAL: i32 = 1;
    const GLOBAL_EXPEDITED: i32 = 2;
    const REGISTER_GLOBAL_EXPEDITED: i32 = 4;
    const PRIVATE_EXPEDITED: i32 = 8;
    const REGISTER_PRIVATE_EXPEDITED: i32 = 16;
    const SUPPORTED: i32 =
        GLOBAL | GLOBAL_EXPEDITED | REGISTER_GLOBAL_EXPEDITED | PRIVATE_EXPEDITED | REGISTER_PRIVATE_EXPEDITED;
    if a.uint(1) != 0 {
        return Err(Errno::EINVAL);
    }
    let registered = &cx.task.process().membarrier;
    match a.int(0) {
        0 => return Ok(SUPPORTED as usize),
        REGISTER_GLOBAL_EXPEDITED | REGISTER_PRIVATE_EXPEDITED => {
            registered.fetch_or(a.int(0), Ordering::Relaxed);
            return Ok(0);
        }
        PRIVATE_EXPEDITED if registered.load(Ordering::Relaxed) & REGISTER_PRIVATE_EXPEDITED == 0 => {
            return Err(Errno::EPERM);
        }
        GLOBAL | GLOBAL_EXPEDITED | PRIVATE_EXPEDITED => {}
        _ => return Err(Errno::EINVAL),
    }
    hal::cpu::barrier_everywhere();
    Ok(0)
}

pub(crate) fn rseq(cx: &mut Context, a: Args) -> Result<usize> {
    process::rseq::register(cx.task, a.size(0), a.uint(1), a.uint(2), a.uint(3))?;
    Ok(0)
}
