//! epoll: level- and edge-triggered, one-shot, nesting.

use crate::sys::*;
use libc::epoll_event;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null_mut;

const IN: u32 = libc::EPOLLIN as u32;
const OUT: u32 = libc::EPOLLOUT as u32;
const HUP: u32 = libc::EPOLLHUP as u32;
const ET: u32 = libc::EPOLLET as u32;
const ONESHOT: u32 = libc::EPOLLONESHOT as u32;

fn epoll() -> OwnedFd {
    own(ok!(libc::epoll_create1(libc::EPOLL_CLOEXEC)))
}

fn control(epoll: &OwnedFd, operation: i32, fd: &OwnedFd, events: u32, data: u64) -> i32 {
    let mut event = epoll_event { events, u64: data };
    unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, fd.as_raw_fd(), &mut event) }
}

fn add(epoll: &OwnedFd, fd: &OwnedFd, events: u32, data: u64) {
    ok!(control(epoll, libc::EPOLL_CTL_ADD, fd, events, data));
}

fn wait_events(epoll: &OwnedFd, timeout: i32) -> Vec<(u32, u64)> {
    let mut events = [epoll_event { events: 0, u64: 0 }; 8];
    let count = ok!(libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), 8, timeout));
    events[..count as usize].iter().map(|event| (event.events, event.u64)).collect()
}

cases! {
    fn level_triggered_repeats() {
        let (epoll, (reader, writer)) = (epoll(), pipe());
        add(&epoll, &reader, IN, 7);
        assert_eq!(wait_events(&epoll, 0), []);
        write(&writer, b"xy");
        assert_eq!(wait_events(&epoll, 0), [(IN, 7)]);
        assert_eq!(wait_events(&epoll, 0), [(IN, 7)]);
        read(&reader, 10);
        assert_eq!(wait_events(&epoll, 0), []);
    }

    fn edge_triggered_tells_once() {
        let (epoll, (reader, writer)) = (epoll(), pipe());
        add(&epoll, &reader, IN | ET, 1);
        write(&writer, b"x");
        assert_eq!(wait_events(&epoll, 0), [(IN, 1)]);
        assert_eq!(wait_events(&epoll, 0), []);
        write(&writer, b"y");
        assert_eq!(wait_events(&epoll, 0), [(IN, 1)]);
    }

    fn one_shot_needs_rearming() {
        let (epoll, (reader, writer)) = (epoll(), pipe());
        add(&epoll, &reader, IN | ONESHOT, 1);
        write(&writer, b"x");
        assert_eq!(wait_events(&epoll, 0), [(IN, 1)]);
        write(&writer, b"x");
        assert_eq!(wait_events(&epoll, 0), []);
        ok!(control(&epoll, libc::EPOLL_CTL_MOD, &reader, IN | ONESHOT, 2));
        assert_eq!(wait_events(&epoll, 0), [(IN, 2)]);
    }

    fn hang_up_is_always_told() {
        let (epoll, (reader, writer)) = (epoll(), pipe());
        add(&epoll, &reader, 0, 3);
        drop(writer);
        assert_eq!(wait_events(&epoll, 0), [(HUP, 3)]);
    }

    fn modify_and_delete() {
        let (epoll, (_reader, writer)) = (epoll(), pipe());
        add(&epoll, &writer, IN, 1);
        assert_eq!(wait_events(&epoll, 0), []);
        ok!(control(&epoll, libc::EPOLL_CTL_MOD, &writer, OUT, 2));
        assert_eq!(wait_events(&epoll, 0), [(OUT, 2)]);
        ok!(control(&epoll, libc::EPOLL_CTL_DEL, &writer, 0, 0));
        assert_eq!(wait_events(&epoll, 0), []);
    }

    fn control_checks_its_arguments() {
        let (epoll, (reader, _writer)) = (epoll(), pipe());
        err!(control(&epoll, libc::EPOLL_CTL_MOD, &reader, IN, 0), libc::ENOENT);
        err!(control(&epoll, libc::EPOLL_CTL_DEL, &reader, IN, 0), libc::ENOENT);
        add(&epoll, &reader, IN, 0);
        err!(control(&epoll, libc::EPOLL_CTL_ADD, &reader, IN, 0), libc::EEXIST);
        err!(control(&epoll, 99, &reader, IN, 0), libc::EINVAL);
        err!(control(&epoll, libc::EPOLL_CTL_ADD, &epoll, IN, 0), libc::EINVAL);
        err!(control(&reader, libc::EPOLL_CTL_ADD, &epoll, IN, 0), libc::EINVAL);
        let plain = open("f", libc::O_RDWR | libc::O_CREAT);
        err!(control(&epoll, libc::EPOLL_CTL_ADD, &plain, IN, 0), libc::EPERM);
        err!(libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, 9999, null_mut()), libc::EFAULT);
        let mut event = epoll_event { events: IN, u64: 0 };
        err!(libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, 9999, &mut event), libc::EBADF);
    }

    fn wait_checks_its_arguments() {
        let epoll = epoll();
        let mut event = epoll_event { events: 0, u64: 0 };
        err!(libc::epoll_wait(epoll.as_raw_fd(), &mut event, 0, 0), libc::EINVAL);
        err!(libc::epoll_wait(epoll.as_raw_fd(), &mut event, -1, 0), libc::EINVAL);
        err!(libc::epoll_create1(0x55), libc::EINVAL);
        err!(libc::epoll_create(0), libc::EINVAL);
    }

    fn wait_blocks_until_something_happens() {
        let (epoll, (reader, writer)) = (epoll(), pipe());
        add(&epoll, &reader, IN, 5);
        let helper = child(|| { nap(30); write(&writer, b"x"); 0 });
        assert_eq!(wait_events(&epoll, 10_000), [(IN, 5)]);
        expect_exit(helper, 0);
        read(&reader, 1);
        let took = timed(|| assert_eq!(wait_events(&epoll, 30), []));
        assert!(took.as_millis() >= 30);
    }

    fn closing_takes_a_descriptor_out() {
        let (epoll, (reader, writer)) = (epoll(), pipe());
        add(&epoll, &reader, IN, 5);
        write(&writer, b"x");
        let again = reader.try_clone().unwrap();
        drop(reader);
        assert_eq!(wait_events(&epoll, 0), [(IN, 5)], "the description is still open");
        drop(again);
        assert_eq!(wait_events(&epoll, 0), []);
    }

    fn an_epoll_can_watch_another() {
        let (outer, inner, (reader, writer)) = (epoll(), epoll(), pipe());
        add(&inner, &reader, IN, 1);
        add(&outer, &inner, IN, 2);
        assert_eq!(wait_events(&outer, 0), []);
        write(&writer, b"x");
        assert_eq!(wait_events(&outer, 0), [(IN, 2)]);
        err!(control(&inner, libc::EPOLL_CTL_ADD, &outer, IN, 0), libc::ELOOP);
    }

    fn waiting_takes_turns_among_ready_descriptors() {
        let epoll = epoll();
        let pipes: Vec<_> = (0..3).map(|_| pipe()).collect();
        for (index, (reader, writer)) in pipes.iter().enumerate() {
            add(&epoll, reader, IN, index as u64);
            write(writer, b"x");
        }
        let mut seen = Vec::new();
        for _ in 0..3 {
            let mut event = epoll_event { events: 0, u64: 0 };
            assert_eq!(ok!(libc::epoll_wait(epoll.as_raw_fd(), &mut event, 1, 0)), 1);
            seen.push(event.u64);
        }
        seen.sort();
        assert_eq!(seen, [0, 1, 2]);
    }

    fn epoll_pwait_swaps_the_mask() {
        extern "C" fn nothing(_: i32) {}
        handle(libc::SIGUSR1, nothing, 0);
        block(&[libc::SIGUSR1]);
        ok!(libc::raise(libc::SIGUSR1));
        let mut event = epoll_event { events: 0, u64: 0 };
        err!(libc::epoll_pwait(epoll().as_raw_fd(), &mut event, 1, 10_000, &signals(&[])), libc::EINTR);
    }
}
