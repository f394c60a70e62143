//! io_uring beyond one thread that waits: workers, polling threads, processes that end.

use crate::io_uring::{MORE, NOP, POLL_ADD, Params, Ring, SOON, Sqe, TIMEOUT, timeout};
use crate::sys::*;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

const SPLICE: u8 = 30;
const POLL_MULTISHOT: u32 = 1;
const SQPOLL: u32 = 2;
const ATTACH: u32 = 32;
const NEED_WAKEUP: u32 = 1;
const SQ_WAKEUP: u32 = 2;

cases! {
    /// More than any fixed number of workers could be doing, and the last to begin is the first that can end.
    fn a_hundred_requests_block_at_once() {
        const MANY: usize = 100;
        let ring = Ring::new(128, 0);
        let (sink, into) = pipe();
        let pipes: Vec<_> = (0..MANY).map(|_| pipe()).collect();
        for (index, (reader, _)) in pipes.iter().enumerate() {
            ring.push(Sqe {
                opcode: SPLICE,
                fd: into.as_raw_fd(),
                off: u64::MAX,
                addr: u64::MAX,
                len: 1,
                user_data: index as u64,
                file_index: reader.as_raw_fd(),
                ..Sqe::default()
            });
        }
        assert_eq!(ring.submit(MANY as u32, 0), MANY as i64);
        for index in (0..MANY).rev() {
            write(&pipes[index].1, b"x");
            assert_eq!(ring.wait(), (index as u64, 1, 0));
            read(&sink, 1);
        }
    }

    fn a_timeout_outlives_the_process_that_set_it() {
        let ring = Ring::new(8, 0);
        in_child(|| {
            ring.push(timeout(TIMEOUT, &SOON, 1));
            ring.submit(1, 0);
        });
        assert_eq!(ring.wait(), (1, -libc::ETIME, 0));
    }

    fn a_poll_tells_of_what_was_taken_since() {
        let ring = Ring::new(8, 0);
        let (reader, writer) = pipe();
        let poll = Sqe { opcode: POLL_ADD, fd: reader.as_raw_fd(), op_flags: 1, ..Sqe::default() };
        ring.push(Sqe { len: POLL_MULTISHOT, user_data: 1, ..poll });
        ring.submit(1, 0);
        for _ in 0..3 {
            write(&writer, b"x");
            read(&reader, 1);
            assert_eq!(ring.wait(), (1, 1, MORE));
        }
    }

    fn rings_share_a_thread_that_submits() {
        let first = Ring::with(8, Params { flags: SQPOLL, idle: 10, ..Params::default() });
        let wq_fd = first.fd.as_raw_fd() as u32;
        let second = Ring::with(8, Params { flags: SQPOLL | ATTACH, idle: 10, wq_fd, ..Params::default() });
        let submit = |ring: &Ring, data: u64| {
            ring.push(Sqe { opcode: NOP, user_data: data, ..Sqe::default() });
            std::sync::atomic::fence(Ordering::SeqCst);
            if ring.word(ring.params.sq[4]).load(Ordering::SeqCst) & NEED_WAKEUP != 0 {
                ok!(crate::io_uring::enter(ring.fd.as_raw_fd(), 0, 0, SQ_WAKEUP));
            }
            assert_eq!(ring.wait(), (data, 0, 0));
        };
        for round in 0..3 {
            submit(&first, round);
            submit(&second, round + 10);
            // The thread falls asleep.
            std::thread::sleep(std::time::Duration::from_millis(30));
        }
        drop(first);
        submit(&second, 20);
    }
}
