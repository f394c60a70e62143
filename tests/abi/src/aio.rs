//! Linux AIO, kcmp and process_madvise by bare system calls.

use crate::sys::*;
use std::os::fd::AsRawFd;
use std::ptr::null;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Block {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    fd: i32,
    buf: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    eventfd: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq)]
struct Event {
    data: u64,
    object: u64,
    result: i64,
    result2: i64,
}

const PREAD: u16 = 0;
const PWRITE: u16 = 1;
const FSYNC: u16 = 2;
const POLL: u16 = 5;

fn setup(count: u32, id: &mut usize) -> i64 {
    unsafe { libc::syscall(libc::SYS_io_setup, count, id) }
}

fn context(count: u32) -> usize {
    let mut id = 0;
    ok!(setup(count, &mut id));
    id
}

fn submit(id: usize, blocks: &[&Block]) -> i64 {
    unsafe { libc::syscall(libc::SYS_io_submit, id, blocks.len(), blocks.as_ptr()) }
}

fn events(id: usize, least: i64, most: i64) -> Vec<(u64, i64)> {
    let mut events = [Event::default(); 8];
    let none = null::<libc::timespec>();
    let count = ok!(libc::syscall(libc::SYS_io_getevents, id, least, most, events.as_mut_ptr(), none));
    events[..count as usize].iter().map(|event| (event.data, event.result)).collect()
}

fn block(opcode: u16, fd: i32, buffer: &mut [u8], data: u64) -> Block {
    Block { opcode, fd, buf: buffer.as_mut_ptr() as u64, bytes: buffer.len() as u64, data, ..Block::default() }
}

cases! {
    fn contexts_are_made_and_destroyed() {
        let mut id = 1;
        err!(setup(8, &mut id), libc::EINVAL);
        id = 0;
        err!(setup(0, &mut id), libc::EINVAL);
        err!(setup(200_000, &mut id), libc::EAGAIN);
        ok!(setup(8, &mut id));
        assert_ne!(id, 0);
        ok!(libc::syscall(libc::SYS_io_destroy, id));
        err!(libc::syscall(libc::SYS_io_destroy, id), libc::EINVAL);
        err!(submit(id, &[]), libc::EINVAL);
    }

    fn files_are_read_and_written() {
        file("data", b"hello world");
        let (id, fd) = (context(8), open("data", libc::O_RDWR));
        let mut buffer = [0u8; 5];
        let read = Block { offset: 6, ..block(PREAD, fd.as_raw_fd(), &mut buffer, 7) };
        assert_eq!(ok!(submit(id, &[&read])), 1);
        assert_eq!(events(id, 1, 8), [(7, 5)]);
        assert_eq!(&buffer, b"world");
        let mut text = *b"HELLO";
        let write = block(PWRITE, fd.as_raw_fd(), &mut text, 8);
        let sync = Block { opcode: FSYNC, fd: fd.as_raw_fd(), data: 9, ..Block::default() };
        assert_eq!(ok!(submit(id, &[&write, &sync])), 2);
        let mut both = events(id, 2, 8);
        both.sort_unstable();
        assert_eq!(both, [(8, 5), (9, 0)]);
        assert_eq!(std::fs::read("data").unwrap(), b"HELLO world");
    }

    fn bad_requests_are_refused_by_submit() {
        let id = context(8);
        let mut buffer = [0u8; 5];
        let (reader, writer) = pipe();
        err!(submit(id, &[&block(PREAD, 99, &mut buffer, 0)]), libc::EBADF);
        err!(submit(id, &[&block(PREAD, writer.as_raw_fd(), &mut buffer, 0)]), libc::EBADF);
        err!(submit(id, &[&block(77, reader.as_raw_fd(), &mut buffer, 0)]), libc::EINVAL);
        let reserved = Block { reserved: 1, ..block(PREAD, reader.as_raw_fd(), &mut buffer, 0) };
        err!(submit(id, &[&reserved]), libc::EINVAL);
        let eventfd = Block { flags: 1, eventfd: reader.as_raw_fd(), ..block(PREAD, reader.as_raw_fd(), &mut buffer, 0) };
        err!(submit(id, &[&eventfd]), libc::EINVAL);
        err!(libc::syscall(libc::SYS_io_submit, id, -1i64, null::<u8>()), libc::EINVAL);
        err!(libc::syscall(libc::SYS_io_submit, id, 1i64, 8usize), libc::EFAULT);
        err!(libc::syscall(libc::SYS_io_getevents, id, 2i64, 1i64, null::<u8>(), null::<u8>()), libc::EINVAL);
    }

    fn a_poll_completes_when_ready_and_tells_an_eventfd() {
        let (id, (reader, writer)) = (context(8), pipe());
        let event = own(ok!(libc::eventfd(0, libc::EFD_NONBLOCK)));
        let poll = Block {
            opcode: POLL,
            fd: reader.as_raw_fd(),
            buf: libc::POLLIN as u64,
            data: 5,
            flags: 1,
            eventfd: event.as_raw_fd(),
            ..Block::default()
        };
        ok!(submit(id, &[&poll]));
        assert_eq!(events(id, 0, 8), []);
        write(&writer, b"x");
        // What else the wake-up told shows as well, on Linux.
        let ready = || events(id, 1, 8).iter().map(|(data, mask)| (*data, mask & 1)).collect::<Vec<_>>();
        assert_eq!(ready(), [(5, 1)]);
        assert_eq!(crate::sys::read(&event, 8), 1u64.to_ne_bytes());
        // Ready at once.
        ok!(submit(id, &[&poll]));
        assert_eq!(ready(), [(5, 1)]);
    }

    fn time_runs_out() {
        let id = context(8);
        let time = libc::timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        let mut event = Event::default();
        assert_eq!(ok!(libc::syscall(libc::SYS_io_getevents, id, 1i64, 1i64, &mut event, &time)), 0);
    }

    fn the_number_of_contexts_shows_in_proc() {
        let held = || std::fs::read_to_string("/proc/sys/fs/aio-nr").unwrap().trim().parse::<u64>().unwrap();
        let before = held();
        let id = context(100);
        assert!(held() > before);
        ok!(libc::syscall(libc::SYS_io_destroy, id));
    }

    fn kcmp_tells_what_is_shared() {
        let kcmp = |one: i32, two: i32, kind: i32, a: i32, b: i32| unsafe {
            libc::syscall(libc::SYS_kcmp, one, two, kind, a, b)
        };
        let me = unsafe { libc::getpid() };
        let (reader, writer) = pipe();
        let (r, w) = (reader.as_raw_fd(), writer.as_raw_fd());
        let again = own(ok!(libc::dup(r)));
        assert_eq!(kcmp(me, me, 0, r, again.as_raw_fd()), 0);
        let (there, back) = (kcmp(me, me, 0, r, w), kcmp(me, me, 0, w, r));
        assert!(matches!((there, back), (1, 2) | (2, 1)), "{there} {back}");
        err!(kcmp(me, me, 0, r, 99), libc::EBADF);
        err!(kcmp(me, me, 99, 0, 0), libc::EINVAL);
        err!(kcmp(me, 1 << 30, 1, 0, 0), libc::ESRCH);
        let pid = child(|| {
            nap(10_000);
            0
        });
        for (kind, shared) in [(1, false), (2, false), (3, false), (4, false), (0, true)] {
            assert_eq!(kcmp(me, pid, kind, r, r) == 0, shared, "kind {kind}");
        }
        ok!(libc::kill(pid, libc::SIGKILL));
        expect_signal(pid, libc::SIGKILL);
    }

    fn process_madvise_takes_advice_for_oneself() {
        let me = own(ok!(libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0)) as i32);
        let page = map(8192, libc::PROT_READ | libc::PROT_WRITE);
        let range = libc::iovec { iov_base: page.cast(), iov_len: 8192 };
        let advise = |advice: i32, flags: u32| unsafe {
            libc::syscall(libc::SYS_process_madvise, me.as_raw_fd(), &range, 1usize, advice, flags)
        };
        assert_eq!(ok!(advise(libc::MADV_COLD, 0)), 8192);
        err!(advise(libc::MADV_COLD, 1), libc::EINVAL);
        err!(advise(9999, 0), libc::EINVAL);
    }

    fn regular_files_are_polled_at_once_or_never() {
        let id = context(8);
        file("f", b"x");
        let regular = open("f", libc::O_RDONLY);
        let poll = |mask: u64| Block { opcode: POLL, fd: regular.as_raw_fd(), buf: mask, data: 3, ..Block::default() };
        ok!(submit(id, &[&poll(1)]));
        assert_eq!(events(id, 1, 8), [(3, 1)]);
        err!(submit(id, &[&poll(2)]), libc::EINVAL);
    }

    fn requests_may_have_priorities_of_their_own() {
        let id = context(8);
        file("f", b"hello");
        let open = open("f", libc::O_RDONLY);
        let mut buffer = [0; 5];
        let mut read = block(PREAD, open.as_raw_fd(), &mut buffer, 1);
        read.flags = 2;
        read.priority = 2 << 13 | 4;
        ok!(submit(id, &[&read]));
        assert_eq!(events(id, 1, 8), [(1, 5)]);
        read.priority = i16::MIN;
        err!(submit(id, &[&read]), libc::EINVAL);
    }
}
