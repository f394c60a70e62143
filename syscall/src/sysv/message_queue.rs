//! msgget(2), msgsnd(2), msgrcv(2), msgctl(2).

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use base::{Capability, Errno, Result};
use hal::user::UserPtr;
use ipc::sysv::initial;
use ipc::sysv::message_queue::{self, Message};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{INFO, Look, REMOVE, RawPermission, SET, STAT, change, look, store, with_caller};
use crate::args::Args;
use crate::context::Context;

const MSG_STAT: i32 = 11;
const MSG_INFO: i32 = 12;
const MSG_STAT_ANY: i32 = 13;

/// `struct msqid64_ds`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct RawQueue {
    permission: RawPermission,
    stime: i64,
    rtime: i64,
    ctime: i64,
    bytes: u64,
    messages: u64,
    limit: u64,
    sender: i32,
    receiver: i32,
    unused: [u64; 2],
}

/// `struct msginfo`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct RawInfo {
    pool: i32,
    map: i32,
    max: i32,
    bytes: i32,
    queues: i32,
    segment_size: i32,
    headers: i32,
    segments: u16,
    pad: u16,
}

pub(crate) fn msgget(cx: &mut Context, a: Args) -> Result<usize> {
    let id = with_caller(cx, |caller| message_queue::get(initial(), caller, a.int(0), a.int(1)))?;
    Ok(id as usize)
}

pub(crate) fn msgsnd(cx: &mut Context, a: Args) -> Result<usize> {
    let (id, pointer, len, flags) = (a.int(0), a.0[1], a.size(2), a.int(3));
    let kind: i64 = UserPtr::new(pointer).read()?;
    let most = initial().limits.msg_max.load(Ordering::Relaxed).max(0) as usize;
    if len > most || id < 0 || kind < 1 {
        return Err(Errno::EINVAL);
    }
    let mut text = Vec::new();
    text.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
    text.resize(len, 0);
    hal::user::copy_in(&mut text, pointer.wrapping_add(size_of::<i64>()))?;
    let entry = initial().queues.find(id)?;
    with_caller(cx, |caller| message_queue::send(&entry, caller, Message { kind, text }, flags))?;
    Ok(0)
}

pub(crate) fn msgrcv(cx: &mut Context, a: Args) -> Result<usize> {
    let (id, pointer, room, kind, flags) = (a.int(0), a.0[1], a.size(2), a.offset(3), a.int(4));
    if id < 0 || room > isize::MAX as usize {
        return Err(Errno::EINVAL);
    }
    let entry = initial().queues.find(id)?;
    let message = with_caller(cx, |caller| message_queue::receive(&entry, caller, room, kind, flags))?;
    store(pointer, &message.kind)?;
    hal::user::copy_out(pointer.wrapping_add(size_of::<i64>()), &message.text)?;
    Ok(message.text.len())
}

pub(crate) fn msgctl(cx: &mut Context, a: Args) -> Result<usize> {
    let (id, command, pointer) = (a.int(0), a.int(1), a.0[2]);
    let registry = &initial().queues;
    if id < 0 || command < 0 {
        return Err(Errno::EINVAL);
    }
    match command {
        INFO | MSG_INFO => info(command == MSG_INFO, pointer),
        STAT => stat(cx, id, Look::Identifier, pointer),
        MSG_STAT => stat(cx, id, Look::Index, pointer),
        MSG_STAT_ANY => stat(cx, id, Look::IndexOfAny, pointer),
        SET => {
            let new: RawQueue = UserPtr::new(pointer).read()?;
            let entry = registry.find(id)?;
            with_caller(cx, |caller| entry.permission().check_owner(caller))?;
            let most = initial().limits.msg_bytes.load(Ordering::Relaxed).max(0) as u64;
            if new.limit > most && !cx.task.cred().capable(Capability::SysResource) {
                return Err(Errno::EPERM);
            }
            change(cx, &entry, &new.permission)?;
            entry.object.set_limit(usize::try_from(new.limit).unwrap_or(usize::MAX));
            Ok(0)
        }
        REMOVE => {
            let entry = registry.find(id)?;
            with_caller(cx, |caller| entry.permission().check_owner(caller))?;
            registry.remove(&entry);
            entry.object.removed();
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn stat(cx: &Context, number: i32, how: Look, pointer: usize) -> Result<usize> {
    let (entry, result) = look(cx, &initial().queues, number, how)?;
    let (queue, usage) = (&entry.object, entry.object.usage());
    let raw = RawQueue {
        permission: entry.permission().into(),
        stime: queue.sent.seconds(),
        rtime: queue.received.seconds(),
        ctime: entry.changed.seconds(),
        bytes: usage.bytes as u64,
        messages: usage.messages as u64,
        limit: usage.limit as u64,
        sender: queue.sender.load(Ordering::Relaxed),
        receiver: queue.receiver.load(Ordering::Relaxed),
        unused: [0; 2],
    };
    store(pointer, &raw)?;
    Ok(result)
}

fn info(used: bool, pointer: usize) -> Result<usize> {
    let namespace = initial();
    let limit = |limit: &core::sync::atomic::AtomicI32| limit.load(Ordering::Relaxed);
    let (max, bytes, queues) =
        (limit(&namespace.limits.msg_max), limit(&namespace.limits.msg_bytes), limit(&namespace.limits.msg_count));
    let usages = namespace.queues.all();
    let sum = |f: fn(message_queue::Usage) -> usize| usages.iter().map(|entry| f(entry.object.usage()) as i32).sum();
    // Constants of Linux's for what neither kernel has.
    let (pool, map, headers) = if used {
        (namespace.queues.count() as i32, sum(|usage| usage.messages), sum(|usage| usage.bytes))
    } else {
        (queues.saturating_mul(bytes / 1024), bytes, bytes)
    };
    let raw = RawInfo { pool, map, max, bytes, queues, segment_size: 16, headers, segments: 0xffff, pad: 0 };
    store(pointer, &raw)?;
    Ok(namespace.queues.highest_index() as usize)
}
