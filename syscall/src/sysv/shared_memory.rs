//! shmget(2), shmat(2), shmdt(2), shmctl(2).

use core::sync::atomic::Ordering;

use base::{Errno, Result};
use hal::user::UserPtr;
use ipc::sysv::initial;
use ipc::sysv::shared_memory as segment;
use process::Resource;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{INFO, Look, REMOVE, RawPermission, SET, STAT, change, look, store, with_caller};
use crate::args::Args;
use crate::context::Context;

const SHM_LOCK: i32 = 11;
const SHM_UNLOCK: i32 = 12;
const SHM_STAT: i32 = 13;
const SHM_INFO: i32 = 14;
const SHM_STAT_ANY: i32 = 15;

/// `struct shmid64_ds`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct RawSegment {
    permission: RawPermission,
    size: u64,
    atime: i64,
    dtime: i64,
    ctime: i64,
    creator: i32,
    last_user: i32,
    attachments: u64,
    unused: [u64; 2],
}

pub(crate) fn shmget(cx: &mut Context, a: Args) -> Result<usize> {
    let id = with_caller(cx, |caller| segment::get(initial(), caller, a.int(0), a.size(1), a.int(2)))?;
    Ok(id as usize)
}

pub(crate) fn shmat(cx: &mut Context, a: Args) -> Result<usize> {
    let space = cx.task.address_space();
    with_caller(cx, |caller| segment::attach(initial(), caller, &space, a.int(0), a.size(1), a.int(2)))
}

pub(crate) fn shmdt(cx: &mut Context, a: Args) -> Result<usize> {
    with_caller(cx, |caller| segment::detach(caller, &cx.task.address_space(), a.size(0)))?;
    Ok(0)
}

pub(crate) fn shmctl(cx: &mut Context, a: Args) -> Result<usize> {
    let (id, command, pointer) = (a.int(0), a.int(1), a.0[2]);
    let registry = &initial().segments;
    if id < 0 || command < 0 {
        return Err(Errno::EINVAL);
    }
    match command {
        INFO => info(pointer),
        SHM_INFO => usage(pointer),
        STAT => stat(cx, id, Look::Identifier, pointer),
        SHM_STAT => stat(cx, id, Look::Index, pointer),
        SHM_STAT_ANY => stat(cx, id, Look::IndexOfAny, pointer),
        SET => {
            let new: RawSegment = UserPtr::new(pointer).read()?;
            change(cx, &*registry.find(id)?, &new.permission)?;
            Ok(0)
        }
        REMOVE => {
            let entry = registry.find(id)?;
            with_caller(cx, |caller| entry.permission().check_owner(caller))?;
            segment::remove(initial(), &entry);
            Ok(0)
        }
        SHM_LOCK | SHM_UNLOCK => {
            let entry = registry.find(id)?;
            let may_lock = cx.task.rlimit(Resource::Memlock).0 > 0;
            with_caller(cx, |caller| segment::set_locked(&entry, caller, command == SHM_LOCK, may_lock))?;
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn stat(cx: &Context, number: i32, how: Look, pointer: usize) -> Result<usize> {
    let (entry, result) = look(cx, &initial().segments, number, how)?;
    let segment = &entry.object;
    let raw = RawSegment {
        permission: entry.permission().into(),
        size: segment.size as u64,
        atime: segment.attached.seconds(),
        dtime: segment.detached.seconds(),
        ctime: entry.changed.seconds(),
        creator: segment.creator,
        last_user: segment.last_user.load(Ordering::Relaxed),
        attachments: segment.attachments() as u64,
        unused: [0; 2],
    };
    store(pointer, &raw)?;
    Ok(result)
}

/// `struct shminfo64`: shmmax, shmmin, shmmni, shmseg, shmall.
fn info(pointer: usize) -> Result<usize> {
    let namespace = initial();
    let limits = &namespace.limits;
    let count = limits.shm_count.load(Ordering::Relaxed) as u64;
    let (max, all) = (limits.shm_max.load(Ordering::Relaxed), limits.shm_all.load(Ordering::Relaxed));
    store(pointer, &[max, 1, count, count, all, 0, 0, 0, 0])?;
    Ok(namespace.segments.highest_index() as usize)
}

/// `struct shm_info`: used_ids, shm_tot, shm_rss, shm_swp, swap_attempts, swap_successes.
fn usage(pointer: usize) -> Result<usize> {
    let namespace = initial();
    let all = namespace.segments.all();
    let resident: usize = all.iter().map(|entry| entry.object.resident()).sum();
    store(pointer, &[all.len() as u64, segment::total_pages(namespace), resident as u64, 0, 0, 0])?;
    Ok(namespace.segments.highest_index() as usize)
}
