//! Named pipes.

use crate::sys::*;
use std::os::fd::AsRawFd;

fn make() {
    ok!(libc::mkfifo(c"fifo".as_ptr(), 0o600));
}

cases! {
    fn mkfifo_makes_one() {
        make();
        assert_eq!(stat("fifo").st_mode, libc::S_IFIFO | 0o600);
        err!(libc::mkfifo(c"fifo".as_ptr(), 0o600), libc::EEXIST);
    }

    fn opening_waits_for_the_other_side() {
        make();
        let helper = child(|| { nap(30); write(&open("fifo", libc::O_WRONLY), b"hi"); 0 });
        let reader = open("fifo", libc::O_RDONLY);
        assert_eq!(read(&reader, 10), b"hi");
        assert_eq!(read(&reader, 10), b"");
        expect_exit(helper, 0);
    }

    fn nonblocking_writers_need_a_reader() {
        make();
        err!(libc::open(c"fifo".as_ptr(), libc::O_WRONLY | libc::O_NONBLOCK), libc::ENXIO);
        let reader = open("fifo", libc::O_RDONLY | libc::O_NONBLOCK);
        assert_eq!(read(&reader, 10), b"", "no writer yet: the end");
        let writer = open("fifo", libc::O_WRONLY | libc::O_NONBLOCK);
        err!(libc::read(reader.as_raw_fd(), [0u8].as_mut_ptr().cast(), 1), libc::EAGAIN);
        write(&writer, b"x");
        assert_eq!(read(&reader, 10), b"x");
    }

    fn both_ways_at_once_never_blocks() {
        make();
        let fd = open("fifo", libc::O_RDWR);
        write(&fd, b"abc");
        assert_eq!(read(&fd, 10), b"abc");
    }

    fn contents_vanish_with_the_last_user() {
        make();
        let fd = open("fifo", libc::O_RDWR);
        write(&fd, b"abc");
        drop(fd);
        let reader = open("fifo", libc::O_RDONLY | libc::O_NONBLOCK);
        assert_eq!(read(&reader, 10), b"");
    }

    fn a_signal_interrupts_opening() {
        extern "C" fn nothing(_: i32) {}
        make();
        handle(libc::SIGUSR1, nothing, 0);
        let pid = std::process::id() as i32;
        let helper = child(|| { until_asleep(pid); ok!(libc::kill(pid, libc::SIGUSR1)); 0 });
        err!(libc::open(c"fifo".as_ptr(), libc::O_RDONLY), libc::EINTR);
        expect_exit(helper, 0);
    }
}
