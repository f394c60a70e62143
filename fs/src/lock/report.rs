//! Locks as text: `/proc/locks` and the lines of `/proc/PID/fdinfo/N` (proc(5)).

use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use super::{AnyLock, FILES, FileLocks, LockKind, LockOwner, WAITS, Wait};
use crate::Inode;

/// A lock's line without its number.
fn line(lock: &AnyLock, file: &FileLocks) -> String {
    let (class, kind, pid, range) = match lock {
        AnyLock::Whole(lock) => ("FLOCK ", lock.kind, lock.pid, (0, None)),
        AnyLock::Range(lock) => {
            let class = if matches!(lock.owner, LockOwner::Table(_)) { "POSIX " } else { "OFDLCK" };
            (class, lock.kind, lock.pid, (lock.start, (lock.end != i64::MAX as u64).then_some(lock.end)))
        }
    };
    let kind = if kind == LockKind::Write { "WRITE" } else { "READ" };
    let end = range.1.map_or_else(|| String::from("EOF"), |end| format!("{end}"));
    let (major, minor) = (file.device.major, file.device.minor);
    format!("{class} ADVISORY  {kind} {pid} {major:02x}:{minor:02x}:{} {} {end}\n", file.number, range.0)
}

/// All locks of all files, each followed by those that wait for it.
pub(crate) fn all() -> Vec<u8> {
    let files: Vec<Arc<FileLocks>> = FILES.lock().iter().filter_map(Weak::upgrade).collect();
    let waits: Vec<Wait> = WAITS.lock().clone();
    let (mut text, mut number) = (String::new(), 0);
    for file in &files {
        for lock in file.list() {
            number += 1;
            text.push_str(&format!("{number}: {}", line(&lock, file)));
            let is_blocked = |wait: &&Wait| wait.file == file.address() && wait.holder == lock.owner();
            for wait in waits.iter().filter(is_blocked) {
                text.push_str(&format!("{number}: -> {}", line(&wait.wanted, file)));
            }
        }
        sched::preempt_point();
    }
    text.into_bytes()
}

/// The locks on `inode` that came through the open file `open` and belong to it or to the descriptor table `table`.
pub fn of_open_file(inode: &Inode, open: u64, table: u64) -> Vec<u8> {
    let Some(file) = inode.locks() else { return Vec::new() };
    let is_ours = |lock: &AnyLock| match lock {
        AnyLock::Whole(lock) => lock.open == open,
        AnyLock::Range(lock) => {
            lock.open == open && [LockOwner::Table(table), LockOwner::OpenFile(open)].contains(&lock.owner)
        }
    };
    let held = file.list().into_iter().filter(is_ours);
    let lines = held.enumerate().map(|(i, lock)| format!("lock:\t{}: {}", i + 1, line(&lock, file)));
    lines.collect::<String>().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::{RangeLock, WholeLock};
    use super::*;
    use crate::DeviceNumber;

    #[test]
    fn lines_are_those_of_linux() {
        let file = FileLocks::unlocked(DeviceNumber { major: 254, minor: 1 }, 77);
        let whole = AnyLock::Whole(WholeLock { open: 1, pid: 12, kind: LockKind::Read });
        assert_eq!(line(&whole, &file), "FLOCK  ADVISORY  READ 12 fe:01:77 0 EOF\n");
        let range = RangeLock { owner: LockOwner::Table(3), pid: 4, open: 3, kind: LockKind::Write, start: 5, end: 9 };
        assert_eq!(line(&AnyLock::Range(range), &file), "POSIX  ADVISORY  WRITE 4 fe:01:77 5 9\n");
        let range = RangeLock { owner: LockOwner::OpenFile(3), pid: -1, end: i64::MAX as u64, ..range };
        assert_eq!(line(&AnyLock::Range(range), &file), "OFDLCK ADVISORY  WRITE -1 fe:01:77 5 EOF\n");
    }
}
