//! poll, ppoll, select, pselect, eventfd.

use crate::sys::*;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::{null, null_mut};

fn poll(fd: RawFd, events: i16, timeout: i32) -> i16 {
    let mut entry = libc::pollfd { fd, events, revents: 0x55 };
    let count = ok!(libc::poll(&mut entry, 1, timeout));
    assert_eq!(count == 1, entry.revents != 0);
    entry.revents
}

fn eventfd(value: u32, flags: i32) -> OwnedFd {
    own(ok!(libc::eventfd(value, flags)))
}

fn number(fd: &OwnedFd) -> u64 {
    u64::from_ne_bytes(read(fd, 8).try_into().unwrap())
}

cases! {
    fn poll_tells_what_is_ready() {
        let (reader, writer) = pipe();
        assert_eq!(poll(reader.as_raw_fd(), libc::POLLIN, 0), 0);
        assert_eq!(poll(writer.as_raw_fd(), libc::POLLOUT, 0), libc::POLLOUT);
        write(&writer, b"x");
        assert_eq!(poll(reader.as_raw_fd(), libc::POLLIN | libc::POLLOUT, 0), libc::POLLIN);
        drop(writer);
        assert_eq!(poll(reader.as_raw_fd(), libc::POLLIN, 0), libc::POLLIN | libc::POLLHUP);
        read(&reader, 1);
        assert_eq!(poll(reader.as_raw_fd(), 0, 0), libc::POLLHUP);
    }

    fn poll_of_a_broken_pipe() {
        let (reader, writer) = pipe();
        drop(reader);
        assert_eq!(poll(writer.as_raw_fd(), libc::POLLOUT, 0), libc::POLLOUT | libc::POLLERR);
    }

    fn poll_of_closed_and_negative_descriptors() {
        assert_eq!(poll(12345, libc::POLLIN, 0), libc::POLLNVAL);
        assert_eq!(poll(-1, libc::POLLIN, 0), 0);
    }

    fn poll_waits() {
        let (reader, writer) = pipe();
        let helper = child(|| { nap(30); write(&writer, b"x"); 0 });
        assert_eq!(poll(reader.as_raw_fd(), libc::POLLIN, 10_000), libc::POLLIN);
        expect_exit(helper, 0);
        let took = timed(|| assert_eq!(ok!(libc::poll(null_mut(), 0, 30)), 0));
        assert!(took.as_millis() >= 30);
    }

    fn poll_checks_its_arguments() {
        err!(libc::syscall(libc::SYS_poll, 1, 1, 0), libc::EFAULT);
        err!(libc::syscall(libc::SYS_poll, 0, u32::MAX, 0), libc::EINVAL);
        let bad = libc::timespec { tv_sec: 0, tv_nsec: -1 };
        err!(libc::ppoll(null_mut(), 0, &bad, null()), libc::EINVAL);
    }

    fn files_are_always_ready() {
        let fd = open("f", libc::O_RDWR | libc::O_CREAT);
        assert_eq!(poll(fd.as_raw_fd(), libc::POLLIN | libc::POLLOUT, 0), libc::POLLIN | libc::POLLOUT);
    }

    fn ppoll_swaps_the_mask() {
        extern "C" fn nothing(_: i32) {}
        handle(libc::SIGUSR1, nothing, 0);
        block(&[libc::SIGUSR1]);
        ok!(libc::raise(libc::SIGUSR1));
        let long = libc::timespec { tv_sec: 10, tv_nsec: 0 };
        err!(libc::ppoll(null_mut(), 0, &long, &signals(&[])), libc::EINTR);
    }

    fn select_tells_what_is_ready() {
        let (reader, writer) = pipe();
        write(&writer, b"x");
        let (mut readable, mut writable): (libc::fd_set, libc::fd_set) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        unsafe {
            libc::FD_SET(reader.as_raw_fd(), &mut readable);
            libc::FD_SET(writer.as_raw_fd(), &mut readable);
            libc::FD_SET(writer.as_raw_fd(), &mut writable);
        }
        let mut timeout = libc::timeval { tv_sec: 5, tv_usec: 0 };
        assert_eq!(ok!(libc::select(100, &mut readable, &mut writable, null_mut(), &mut timeout)), 2);
        let set = |fd: &OwnedFd, set| unsafe { libc::FD_ISSET(fd.as_raw_fd(), set) };
        assert!(set(&reader, &readable) && !set(&writer, &readable) && set(&writer, &writable));
    }

    fn select_checks_its_arguments() {
        let mut set: libc::fd_set = unsafe { std::mem::zeroed() };
        unsafe { libc::FD_SET(50, &mut set) };
        err!(libc::select(51, &mut set, null_mut(), null_mut(), null_mut()), libc::EBADF);
        err!(libc::select(-1, null_mut(), null_mut(), null_mut(), null_mut()), libc::EINVAL);
        let mut bad = libc::timeval { tv_sec: -1, tv_usec: 0 };
        err!(libc::select(0, null_mut(), null_mut(), null_mut(), &mut bad), libc::EINVAL);
    }

    fn select_writes_back_the_time_left() {
        let mut timeout = libc::timeval { tv_sec: 0, tv_usec: 30_000 };
        assert_eq!(ok!(libc::select(0, null_mut(), null_mut(), null_mut(), &mut timeout)), 0);
        assert_eq!((timeout.tv_sec, timeout.tv_usec), (0, 0));
    }

    fn pselect_swaps_the_mask() {
        extern "C" fn nothing(_: i32) {}
        handle(libc::SIGUSR1, nothing, 0);
        block(&[libc::SIGUSR1]);
        ok!(libc::raise(libc::SIGUSR1));
        err!(libc::pselect(0, null_mut(), null_mut(), null_mut(), null(), &signals(&[])), libc::EINTR);
    }

    fn eventfd_counts() {
        let fd = eventfd(3, libc::EFD_NONBLOCK);
        write(&fd, &5u64.to_ne_bytes());
        assert_eq!(number(&fd), 8);
        err!(libc::read(fd.as_raw_fd(), [0u64].as_mut_ptr().cast(), 8), libc::EAGAIN);
        err!(libc::read(fd.as_raw_fd(), [0u32].as_mut_ptr().cast(), 4), libc::EINVAL);
        err!(libc::write(fd.as_raw_fd(), [u64::MAX].as_ptr().cast(), 8), libc::EINVAL);
    }

    fn eventfd_has_a_ceiling() {
        let fd = eventfd(0, libc::EFD_NONBLOCK);
        write(&fd, &(u64::MAX - 1).to_ne_bytes());
        err!(libc::write(fd.as_raw_fd(), [1u64].as_ptr().cast(), 8), libc::EAGAIN);
        assert_eq!(poll(fd.as_raw_fd(), libc::POLLIN | libc::POLLOUT, 0), libc::POLLIN);
        assert_eq!(number(&fd), u64::MAX - 1);
        assert_eq!(poll(fd.as_raw_fd(), libc::POLLIN | libc::POLLOUT, 0), libc::POLLOUT);
    }

    fn eventfd_as_semaphore() {
        let fd = eventfd(2, libc::EFD_SEMAPHORE | libc::EFD_NONBLOCK);
        assert_eq!((number(&fd), number(&fd)), (1, 1));
        err!(libc::read(fd.as_raw_fd(), [0u64].as_mut_ptr().cast(), 8), libc::EAGAIN);
        err!(libc::eventfd(0, 0x10000), libc::EINVAL);
    }

    fn eventfd_wakes_a_reader() {
        let fd = eventfd(0, 0);
        let helper = child(|| { nap(20); write(&fd, &7u64.to_ne_bytes()); 0 });
        assert_eq!(number(&fd), 7);
        expect_exit(helper, 0);
    }
}
