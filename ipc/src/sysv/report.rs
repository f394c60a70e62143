//! `/proc/sysvipc`, and the limits in `/proc/sys/kernel`.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Display;
use core::str::FromStr;
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use abi::PAGE_SIZE;
use base::{Errno, Result};
use fs::procfs::{Node, dir, file, file_rw, register_root, register_sysctl};

use super::initial;
use super::message_queue::MessageQueue;
use super::registry::{Entry, Permission, Registry};
use super::semaphore::SemaphoreSet;
use super::shared_memory::Segment;

const QUEUES: &str = "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime\n";
const SETS: &str = "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n";
const SEGMENTS: &str = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n";

fn table<T>(head: &str, registry: &Registry<T>, line: impl Fn(&Arc<Entry<T>>) -> String) -> Result<Vec<u8>> {
    let mut text = String::from(head);
    registry.all().iter().for_each(|entry| text.push_str(&line(entry)));
    Ok(text.into_bytes())
}

/// Key, identifier and mode, as each line begins.
fn start<T>(entry: &Entry<T>) -> String {
    let permission = entry.permission();
    format!("{:10} {:10}  {:4o}", permission.key, entry.id, permission.mode)
}

fn owners(permission: &Permission) -> String {
    format!("{:5} {:5} {:5} {:5}", permission.uid, permission.gid, permission.cuid, permission.cgid)
}

fn queue_line(entry: &Arc<Entry<MessageQueue>>) -> String {
    let (queue, usage) = (&entry.object, entry.object.usage());
    format!(
        "{}  {:10} {:10} {:5} {:5} {} {:10} {:10} {:10}\n",
        start(entry),
        usage.bytes,
        usage.messages,
        queue.sender.load(Ordering::Relaxed),
        queue.receiver.load(Ordering::Relaxed),
        owners(&entry.permission()),
        queue.sent.seconds(),
        queue.received.seconds(),
        entry.changed.seconds(),
    )
}

fn set_line(entry: &Arc<Entry<SemaphoreSet>>) -> String {
    format!(
        "{} {:10} {} {:10} {:10}\n",
        start(entry),
        entry.object.len(),
        owners(&entry.permission()),
        entry.object.operated(),
        entry.changed.seconds(),
    )
}

fn segment_line(entry: &Arc<Entry<Segment>>) -> String {
    let segment = &entry.object;
    format!(
        "{} {:21} {:5} {:5}  {:5} {} {:10} {:10} {:10} {:21} {:21}\n",
        start(entry),
        segment.size,
        segment.creator,
        segment.last_user.load(Ordering::Relaxed),
        segment.attachments(),
        owners(&entry.permission()),
        segment.attached.seconds(),
        segment.detached.seconds(),
        entry.changed.seconds(),
        segment.resident() * PAGE_SIZE,
        0,
    )
}

/// The numbers in a line that a program wrote. `EINVAL`.
fn parse<T: FromStr>(data: &[u8]) -> Result<Vec<T>> {
    let text = core::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
    text.split_whitespace().map(|word| word.parse().map_err(|_| Errno::EINVAL)).collect()
}

fn one<T: FromStr + Copy>(data: &[u8]) -> Result<T> {
    parse(data)?.first().copied().ok_or(Errno::EINVAL)
}

fn text(value: impl Display) -> Result<Vec<u8>> {
    Ok(format!("{value}\n").into_bytes())
}

fn wide(limit: &'static AtomicU64) -> Node {
    file_rw(
        || text(limit.load(Ordering::Relaxed)),
        |data| {
            limit.store(one(data)?, Ordering::Relaxed);
            Ok(())
        },
    )
}

/// Up to `most`: beyond, `EINVAL`.
fn narrow(limit: &'static AtomicI32, most: i32) -> Node {
    let write = move |data: &[u8]| {
        let value = Some(one(data)?).filter(|value| (0..=most).contains(value)).ok_or(Errno::EINVAL)?;
        limit.store(value, Ordering::Relaxed);
        Ok(())
    };
    file_rw(|| text(limit.load(Ordering::Relaxed)), write)
}

fn semaphore_limits() -> Node {
    let limits = &initial().limits.sem;
    let read = move || {
        let [a, b, c, d] = [0, 1, 2, 3].map(|n| limits[n].load(Ordering::Relaxed));
        Ok(format!("{a}\t{b}\t{c}\t{d}\n").into_bytes())
    };
    let write = move |data: &[u8]| {
        let values: Vec<i32> = parse(data)?;
        if values.len() > limits.len() || values.iter().any(|&value| value < 0) || values.get(3) > Some(&32768) {
            return Err(Errno::EINVAL);
        }
        values.iter().zip(limits).for_each(|(&value, limit)| limit.store(value, Ordering::Relaxed));
        Ok(())
    };
    file_rw(read, write)
}

pub(super) fn register() {
    let namespace = initial();
    register_root(
        "sysvipc",
        dir(vec![
            ("msg", file(|| table(QUEUES, &namespace.queues, queue_line))),
            ("sem", file(|| table(SETS, &namespace.semaphores, set_line))),
            ("shm", file(|| table(SEGMENTS, &namespace.segments, segment_line))),
        ]),
    );
    let limits = &namespace.limits;
    let nodes = [
        ("msgmax", narrow(&limits.msg_max, i32::MAX)),
        ("msgmnb", narrow(&limits.msg_bytes, i32::MAX)),
        ("msgmni", narrow(&limits.msg_count, 32768)),
        ("sem", semaphore_limits()),
        ("shmall", wide(&limits.shm_all)),
        ("shmmax", wide(&limits.shm_max)),
        ("shmmni", narrow(&limits.shm_count, 32768)),
    ];
    let next_ids = [
        ("msg_next_id", &namespace.queues.next_id),
        ("sem_next_id", &namespace.semaphores.next_id),
        ("shm_next_id", &namespace.segments.next_id),
    ];
    for (name, next) in next_ids {
        register_sysctl("kernel", name, narrow(next, i32::MAX));
    }
    for (name, node) in nodes {
        register_sysctl("kernel", name, node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_a_line() {
        assert_eq!(parse::<i32>(b"1 2\t-3\n"), Ok(vec![1, 2, -3]));
        assert_eq!(parse::<i32>(b"1 x"), Err(Errno::EINVAL));
        assert_eq!(one::<u64>(b"\n"), Err(Errno::EINVAL));
    }
}
