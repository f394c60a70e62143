//! Resource limits and usage.

use base::{Capability, Errno, Result};
use hal::user::UserPtr;
use process::accounting::{Used, to_ticks};
use process::rlimit::{Limit, Resource};
use process::{Task, tree};
use zerocopy::{Immutable, IntoBytes};

use crate::args::Args;
use crate::context::Context;
use crate::timespec::Timeval;

/// `struct rusage`.
#[repr(C)]
#[derive(Clone, Copy, Default, IntoBytes, Immutable)]
pub(crate) struct Rusage {
    user: Timeval,
    system: Timeval,
    max_rss: i64,
    shared_text: [i64; 3],
    minor_faults: i64,
    major_faults: i64,
    swaps: i64,
    /// Blocks of 512 bytes.
    blocks_in: i64,
    blocks_out: i64,
    messages_and_signals: [i64; 3],
    voluntary: i64,
    involuntary: i64,
}

impl Rusage {
    pub(crate) fn of(used: &Used) -> Rusage {
        Rusage {
            user: Timeval::from_nanos(used.user),
            system: Timeval::from_nanos(used.system),
            max_rss: used.max_rss as i64,
            minor_faults: used.minor_faults as i64,
            major_faults: used.major_faults as i64,
            blocks_in: (used.transfers.from_storage >> 9) as i64,
            blocks_out: (used.transfers.to_storage >> 9) as i64,
            voluntary: used.voluntary as i64,
            involuntary: used.involuntary as i64,
            ..Rusage::default()
        }
    }
}

pub(crate) fn getrusage(cx: &mut Context, a: Args) -> Result<usize> {
    const RUSAGE_SELF: i32 = 0;
    const RUSAGE_CHILDREN: i32 = -1;
    const RUSAGE_THREAD: i32 = 1;
    let used = match a.int(0) {
        RUSAGE_SELF => cx.task.process().used(),
        RUSAGE_CHILDREN => cx.task.process().children_used(),
        RUSAGE_THREAD => cx.task.used(),
        _ => return Err(Errno::EINVAL),
    };
    a.ptr(1).write(&Rusage::of(&used))?;
    Ok(0)
}

pub(crate) fn times(cx: &mut Context, a: Args) -> Result<usize> {
    if let Some(to) = a.ptr::<[u64; 4]>(0).non_null() {
        let (user, system) = cx.task.process().cpu_time();
        let children = cx.task.process().children_used();
        to.write(&[user, system, children.user, children.system].map(to_ticks))?;
    }
    Ok(to_ticks(sched::time::now()) as usize)
}

pub(crate) fn getrlimit(cx: &mut Context, a: Args) -> Result<usize> {
    let resource = Resource::new(a.uint(0))?;
    a.ptr(1).write(&cx.task.process().limit(resource))?;
    Ok(0)
}

pub(crate) fn setrlimit(cx: &mut Context, a: Args) -> Result<usize> {
    let resource = Resource::new(a.uint(0))?;
    let limit = a.ptr::<Limit>(1).read()?;
    cx.task.process().set_limit(resource, limit, &cx.task.cred())?;
    Ok(0)
}

/// May the caller see and change another process's limits? `EPERM`.
fn check_access(cx: &Context, target: &Task) -> Result<()> {
    let (mine, other) = (cx.task.cred(), target.cred());
    let same_user = [other.uid, other.euid, other.suid] == [mine.uid; 3];
    let same_group = [other.gid, other.egid, other.sgid] == [mine.gid; 3];
    if same_user && same_group || mine.capable(Capability::SysResource) { Ok(()) } else { Err(Errno::EPERM) }
}

pub(crate) fn prlimit64(cx: &mut Context, a: Args) -> Result<usize> {
    let new = a.ptr::<Limit>(2).non_null().map(UserPtr::read).transpose()?;
    let process = match a.int(0) {
        0 => cx.task.process().clone(),
        pid => {
            let target = tree::task(pid).ok_or(Errno::ESRCH)?;
            if !alloc::sync::Arc::ptr_eq(target.process(), cx.task.process()) {
                check_access(cx, &target)?;
            }
            target.process().clone()
        }
    };
    let resource = Resource::new(a.uint(1))?;
    let old = match new {
        Some(limit) => process.set_limit(resource, limit, &cx.task.cred())?,
        None => process.limit(resource),
    };
    if let Some(to) = a.ptr::<Limit>(3).non_null() {
        to.write(&old)?;
    }
    Ok(0)
}
