//! Waiting for many descriptors at once, without having to wait.

use crate::sys::{eventfd, own, pipe};
use crate::timing::each;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null_mut;

/// Pipes, the last of which can be read.
fn pipes(count: usize) -> Vec<(OwnedFd, OwnedFd)> {
    let pipes: Vec<_> = (0..count).map(|_| pipe()).collect();
    let last = pipes[count - 1].1.as_raw_fd();
    ok!(libc::write(last, b"x".as_ptr().cast(), 1));
    pipes
}

/// select(2) for reading, with one descriptor ready.
pub(crate) fn select(count: usize) -> f64 {
    let pipes = pipes(count);
    let mut set: libc::fd_set = unsafe { zeroed() };
    for (reader, _) in &pipes {
        unsafe { libc::FD_SET(reader.as_raw_fd(), &mut set) };
    }
    let end = pipes[count - 1].0.as_raw_fd() + 1;
    each(|| {
        let mut readable = set;
        let mut time: libc::timeval = unsafe { zeroed() };
        assert_eq!(ok!(libc::select(end, &mut readable, null_mut(), null_mut(), &mut time)), 1);
    })
}

/// epoll_wait(2), with one descriptor ready.
pub(crate) fn epoll(count: usize) -> f64 {
    let pipes = pipes(count);
    let epoll = own(ok!(libc::epoll_create1(0)));
    for (reader, _) in &pipes {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
        ok!(libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, reader.as_raw_fd(), &mut event));
    }
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; count];
    each(|| {
        assert_eq!(ok!(libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), count as i32, 0)), 1);
    })
}

/// epoll_wait(2) with 10,000 descriptors idle and 100 ready, for each of those.
pub(crate) fn epoll_of_many() -> f64 {
    const IDLE: usize = 10_000;
    const READY: usize = 100;
    let most = libc::rlimit { rlim_cur: 2 * IDLE as u64, rlim_max: 2 * IDLE as u64 };
    ok!(libc::setrlimit(libc::RLIMIT_NOFILE, &most));
    let epoll = own(ok!(libc::epoll_create1(0)));
    let descriptors: Vec<OwnedFd> =
        (0..IDLE + READY).map(|index| eventfd((index % (IDLE / READY + 1) == 0).into())).collect();
    for descriptor in &descriptors {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
        ok!(libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, descriptor.as_raw_fd(), &mut event));
    }
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 2 * READY];
    let wait = each(|| {
        let count = ok!(libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), events.len() as i32, 0));
        assert_eq!(count as usize, READY);
    });
    wait / READY as f64
}
