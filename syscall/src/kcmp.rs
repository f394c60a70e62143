//! kcmp(2): do two threads share something?

use alloc::sync::Arc;
use core::cmp::Ordering;

use base::{Errno, Result};
use hal::user::UserPtr;
use ipc::epoll::Epoll;
use process::{Task, tree};

use crate::args::Args;
use crate::context::Context;

/// KCMP_*.
mod kind {
    pub(super) const FILE: i32 = 0;
    pub(super) const VM: i32 = 1;
    pub(super) const FILES: i32 = 2;
    pub(super) const FS: i32 = 3;
    pub(super) const SIGHAND: i32 = 4;
    pub(super) const IO: i32 = 5;
    pub(super) const SYSVSEM: i32 = 6;
    pub(super) const EPOLL_TFD: i32 = 7;
}

/// An order of kernel objects that tells nothing of where they are: by their addresses, mixed with a secret.
fn compare(a: usize, b: usize) -> usize {
    static SECRET: hal::sync::Once<[usize; 2]> = hal::sync::Once::new();
    let [xor, multiply] = SECRET.get_or_init(|| {
        let mut bytes = [0; 16];
        hal::random::fill(&mut bytes);
        let number = |half: &[u8]| half.iter().fold(0, |sum: usize, &byte| sum << 8 | usize::from(byte));
        [number(&bytes[..8]), number(&bytes[8..]) | 1]
    });
    let mixed = |address: usize| (address ^ xor).wrapping_mul(*multiply);
    match mixed(a).cmp(&mixed(b)) {
        Ordering::Equal => 0,
        Ordering::Less => 1,
        Ordering::Greater => 2,
    }
}

fn file(task: &Task, fd: usize) -> Result<usize> {
    let files = task.files_if_alive().ok_or(Errno::EBADF)?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    files.get_any(fd).map(|open| Arc::as_ptr(&open).addr())
}

/// `struct kcmp_epoll_slot`: the file that an epoll instance of `task` watches there. `EBADF`, `EINVAL`, `ENOENT`.
fn watched(task: &Task, at: usize) -> Result<usize> {
    let [epoll, target, offset] = UserPtr::<[u32; 3]>::new(at).read()?;
    let files = task.files_if_alive().ok_or(Errno::EBADF)?;
    let instance = Epoll::of(&*files.get(epoll as i32)?)?;
    instance.watched(target as i32, offset as usize).ok_or(Errno::ENOENT)
}

pub(crate) fn kcmp(cx: &mut Context, a: Args) -> Result<usize> {
    let find = |pid: i32| tree::task(pid).ok_or(Errno::ESRCH);
    let (one, two) = (find(a.int(0))?, find(a.int(1))?);
    for task in [&one, &two] {
        process::inspect::check(cx.task, task)?;
    }
    let address = |task: &Task| match a.int(2) {
        kind::VM => task.process().address_space().map_or(0, |space| Arc::as_ptr(&space).addr()),
        kind::FILES => task.files_if_alive().map_or(0, |files| Arc::as_ptr(&files).addr()),
        kind::FS => task.fs_if_alive().map_or(0, |fs| Arc::as_ptr(&fs).addr()),
        kind::SIGHAND => Arc::as_ptr(&task.process().actions()).addr(),
        kind::SYSVSEM => task.semaphore_undo_address(),
        // No thread has an I/O context of its own.
        _ => 0,
    };
    match a.int(2) {
        kind::FILE => Ok(compare(file(&one, a.0[3])?, file(&two, a.0[4])?)),
        kind::EPOLL_TFD => Ok(compare(file(&one, a.0[3])?, watched(&two, a.0[4])?)),
        kind::VM | kind::FILES | kind::FS | kind::SIGHAND | kind::IO | kind::SYSVSEM => {
            Ok(compare(address(&one), address(&two)))
        }
        _ => Err(Errno::EINVAL),
    }
}
