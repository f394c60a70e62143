//! io_uring by bare system calls: rings, links, timeouts, polls, cancellation, buffers, what is registered, hostile input.

use crate::sys::*;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering};

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Params {
    pub(crate) sq_entries: u32,
    pub(crate) cq_entries: u32,
    pub(crate) flags: u32,
    pub(crate) cpu: u32,
    pub(crate) idle: u32,
    pub(crate) features: u32,
    pub(crate) wq_fd: u32,
    pub(crate) reserved: [u32; 3],
    pub(crate) sq: [u32; 10],
    pub(crate) cq: [u32; 10],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Sqe {
    pub(crate) opcode: u8,
    pub(crate) flags: u8,
    pub(crate) ioprio: u16,
    pub(crate) fd: i32,
    pub(crate) off: u64,
    pub(crate) addr: u64,
    pub(crate) len: u32,
    pub(crate) op_flags: u32,
    pub(crate) user_data: u64,
    pub(crate) buf: u16,
    pub(crate) personality: u16,
    pub(crate) file_index: i32,
    pub(crate) rest: [u64; 2],
}

pub(crate) const NOP: u8 = 0;
const READV: u8 = 1;
pub(crate) const POLL_ADD: u8 = 6;
const POLL_REMOVE: u8 = 7;
pub(crate) const TIMEOUT: u8 = 11;
const CANCEL: u8 = 14;
const LINK_TIMEOUT: u8 = 15;
const READ: u8 = 22;
const WRITE: u8 = 23;
const RECV: u8 = 27;
const PROVIDE: u8 = 31;
const OPENAT: u8 = 18;
const CLOSE: u8 = 19;
const FSYNC: u8 = 3;

const FIXED_FILE: u8 = 1;
const DRAIN: u8 = 2;
const LINK: u8 = 4;
const HARDLINK: u8 = 8;
const SELECT: u8 = 32;
const SKIP: u8 = 64;

const CQSIZE: u32 = 8;
const R_DISABLED: u32 = 64;
pub(crate) const MORE: u32 = 2;

pub(crate) struct Ring {
    pub(crate) fd: OwnedFd,
    pub(crate) params: Params,
    pub(crate) ring: *mut u8,
    pub(crate) sqes: *mut Sqe,
}

fn setup(entries: u32, params: &mut Params) -> i64 {
    unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, params) }
}

pub(crate) fn enter(fd: i32, submit: u32, wait: u32, flags: u32) -> i64 {
    unsafe { libc::syscall(libc::SYS_io_uring_enter, fd, submit, wait, flags, null::<u8>(), 8usize) }
}

fn register<T>(ring: &Ring, opcode: u32, at: *const T, count: u32) -> i64 {
    unsafe { libc::syscall(libc::SYS_io_uring_register, ring.fd.as_raw_fd(), opcode, at, count) }
}

impl Ring {
    pub(crate) fn new(entries: u32, flags: u32) -> Ring {
        Ring::with(entries, Params { flags, ..Params::default() })
    }

    pub(crate) fn with(entries: u32, mut params: Params) -> Ring {
        let fd = ok!(setup(entries, &mut params)) as i32;
        let shared = |length: usize, offset: i64| {
            let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
            let at = unsafe { libc::mmap(null_mut(), length, 3, flags, fd, offset) };
            assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
            at.cast::<u8>()
        };
        let after_array = params.sq[6] as usize + params.sq_entries as usize * 4;
        let after_cqes = params.cq[5] as usize + params.cq_entries as usize * 16;
        let ring = shared(after_array.max(after_cqes), 0);
        let sqes = shared(params.sq_entries as usize * 64, 0x1000_0000).cast();
        Ring { fd: unsafe { OwnedFd::from_raw_fd(fd) }, params, ring, sqes }
    }

    pub(crate) fn word(&self, offset: u32) -> &AtomicU32 {
        unsafe { &*self.ring.add(offset as usize).cast() }
    }

    pub(crate) fn push(&self, sqe: Sqe) {
        let tail = self.word(self.params.sq[1]);
        let at = tail.load(Ordering::Relaxed);
        let index = at & (self.params.sq_entries - 1);
        unsafe { self.sqes.add(index as usize).write(sqe) };
        self.word(self.params.sq[6] + 4 * index).store(index, Ordering::Relaxed);
        tail.store(at + 1, Ordering::Release);
    }

    pub(crate) fn submit(&self, count: u32, wait: u32) -> i64 {
        ok!(enter(self.fd.as_raw_fd(), count, wait, 1))
    }

    /// The next completion: user data, result, flags.
    pub(crate) fn reap(&self) -> Option<(u64, i32, u32)> {
        let head = self.word(self.params.cq[0]);
        let at = head.load(Ordering::Relaxed);
        if at == self.word(self.params.cq[1]).load(Ordering::Acquire) {
            return None;
        }
        let offset = self.params.cq[5] + (at & (self.params.cq_entries - 1)) * 16;
        let cqe = unsafe { self.ring.add(offset as usize).cast::<(u64, i32, u32)>().read_volatile() };
        head.store(at + 1, Ordering::Release);
        Some(cqe)
    }

    pub(crate) fn wait(&self) -> (u64, i32, u32) {
        loop {
            if let Some(cqe) = self.reap() {
                return cqe;
            }
            self.submit(0, 1);
        }
    }

    pub(crate) fn run(&self, sqes: &[Sqe]) -> Vec<(u64, i32)> {
        sqes.iter().for_each(|sqe| self.push(*sqe));
        self.submit(sqes.len() as u32, sqes.len() as u32);
        let mut all: Vec<_> = std::iter::from_fn(|| self.reap()).map(|(data, result, _)| (data, result)).collect();
        all.sort_unstable();
        all
    }
}

fn nop(data: u64, flags: u8) -> Sqe {
    Sqe { opcode: NOP, flags, user_data: data, ..Sqe::default() }
}

fn transfer(opcode: u8, fd: &OwnedFd, buffer: &mut [u8], data: u64) -> Sqe {
    Sqe {
        opcode,
        fd: fd.as_raw_fd(),
        addr: buffer.as_mut_ptr() as u64,
        len: buffer.len() as u32,
        user_data: data,
        ..Sqe::default()
    }
}

pub(crate) fn timeout(opcode: u8, time: &[i64; 2], data: u64) -> Sqe {
    Sqe { opcode, addr: time.as_ptr() as u64, len: 1, user_data: data, fd: -1, ..Sqe::default() }
}

/// Leaves a ring behind that has requests under way: reads of a pipe, polls, timeouts, and what waits for them; and a registered file.
pub(crate) fn leave_requests() {
    let ring = Ring::new(32, 0);
    let (reader, writer) = pipe();
    let mut buffer = [0u8; 64];
    assert_eq!(register(&ring, 2, [reader.as_raw_fd()].as_ptr(), 1), 0, "IORING_REGISTER_FILES");
    for data in 0..4 {
        ring.push(transfer(READ, &reader, &mut buffer, data));
        ring.push(Sqe { opcode: POLL_ADD, fd: reader.as_raw_fd(), op_flags: 1, user_data: data, ..Sqe::default() });
        ring.push(timeout(TIMEOUT, &LATER, data));
    }
    ring.push(Sqe { flags: LINK, ..transfer(READ, &reader, &mut buffer, 9) });
    ring.push(timeout(LINK_TIMEOUT, &LATER, 10));
    assert_eq!(ring.submit(14, 0), 14);
    std::mem::forget((ring, reader, writer));
}

pub(crate) const SOON: [i64; 2] = [0, 20_000_000];
const LATER: [i64; 2] = [100, 0];

cases! {
    fn setup_checks_its_arguments() {
        let mut params = Params::default();
        err!(setup(0, &mut params), libc::EINVAL);
        err!(setup(32769, &mut params), libc::EINVAL);
        params.flags = 1 << 31;
        err!(setup(4, &mut params), libc::EINVAL);
        params = Params { reserved: [0, 1, 0], ..Params::default() };
        err!(setup(4, &mut params), libc::EINVAL);
        params = Params { flags: CQSIZE, cq_entries: 2, ..Params::default() };
        err!(setup(4, &mut params), libc::EINVAL);
        err!(setup(4, unsafe { &mut *(8 as *mut Params) }), libc::EFAULT);
        let ring = Ring::new(5, 0);
        assert_eq!((ring.params.sq_entries, ring.params.cq_entries), (8, 16));
        err!(enter(ring.fd.as_raw_fd(), 0, 0, 1 << 30), libc::EINVAL);
        err!(enter(pipe().0.as_raw_fd(), 0, 0, 0), libc::EOPNOTSUPP);
        err!(enter(-1, 0, 0, 0), libc::EBADF);
    }

    fn mapping_is_of_the_regions_alone() {
        let ring = Ring::new(4, 0);
        let map = |length: usize, offset: i64| unsafe {
            libc::mmap(null_mut(), length, 3, libc::MAP_SHARED, ring.fd.as_raw_fd(), offset)
        };
        // EINVAL up to Linux 6.8; later kernels look for an address first.
        assert_eq!(map(4096, 0x2000_0000), libc::MAP_FAILED);
        assert_ne!(map(4096, 0x800_0000), libc::MAP_FAILED);
    }

    fn nops_complete_in_order() {
        let ring = Ring::new(8, 0);
        (0..5).for_each(|data| ring.push(nop(data, 0)));
        assert_eq!(ring.submit(5, 5), 5);
        for data in 0..5 {
            assert_eq!(ring.wait(), (data, 0, 0));
        }
        assert_eq!(ring.reap(), None);
    }

    fn reads_and_writes_of_files() {
        file("data", b"hello world");
        let ring = Ring::new(8, 0);
        let fd = open("data", libc::O_RDWR);
        let mut buffer = [0u8; 5];
        assert_eq!(ring.run(&[Sqe { off: 6, ..transfer(READ, &fd, &mut buffer, 1) }]), [(1, 5)]);
        assert_eq!(&buffer, b"world");
        let mut text = *b"HELLO";
        assert_eq!(ring.run(&[transfer(WRITE, &fd, &mut text, 2)]), [(2, 5)]);
        assert_eq!(std::fs::read("data").unwrap(), b"HELLO world");
        // -1 is the file's own position.
        assert_eq!(ring.run(&[Sqe { off: u64::MAX, ..transfer(READ, &fd, &mut buffer, 3) }]), [(3, 5)]);
        assert_eq!(&buffer, b"HELLO");
        assert_eq!(ring.run(&[Sqe { opcode: FSYNC, fd: fd.as_raw_fd(), ..Sqe::default() }]), [(0, 0)]);
        assert_eq!(ring.run(&[Sqe { fd: 99, ..transfer(READ, &fd, &mut buffer, 4) }]), [(4, -libc::EBADF)]);
        let bad = Sqe { addr: 8, ..transfer(READ, &fd, &mut buffer, 5) };
        assert_eq!(ring.run(&[bad]), [(5, -libc::EFAULT)]);
    }

    fn a_read_of_an_empty_pipe_waits_without_blocking() {
        let ring = Ring::new(8, 0);
        let (reader, writer) = pipe();
        let mut buffer = [0u8; 8];
        ring.push(transfer(READ, &reader, &mut buffer, 9));
        assert_eq!(ring.submit(1, 0), 1);
        assert_eq!(ring.reap(), None);
        write(&writer, b"abc");
        assert_eq!(ring.wait(), (9, 3, 0));
        assert_eq!(&buffer[..3], b"abc");
    }

    fn completions_come_without_entering() {
        let ring = Ring::new(8, 0);
        let (reader, writer) = pipe();
        let mut buffer = [0u8; 8];
        ring.push(transfer(READ, &reader, &mut buffer, 9));
        ok!(enter(ring.fd.as_raw_fd(), 1, 0, 0));
        write(&writer, b"abc");
        until(|| ring.word(ring.params.cq[1]).load(Ordering::Acquire) == 1);
        assert_eq!(ring.reap(), Some((9, 3, 0)));
    }

    fn unknown_operations_and_flags_fail_alone() {
        let ring = Ring::new(8, 0);
        assert_eq!(ring.run(&[Sqe { opcode: 200, user_data: 1, ..Sqe::default() }]), [(1, -libc::EINVAL)]);
        assert_eq!(ring.run(&[nop(2, 128)]), [(2, -libc::EINVAL)]);
        assert_eq!(ring.run(&[Sqe { ioprio: 1, ..nop(3, 0) }]), [(3, -libc::EINVAL)]);
        assert_eq!(ring.run(&[nop(4, SELECT)]), [(4, -libc::EOPNOTSUPP)]);
        assert_eq!(ring.run(&[Sqe { personality: 7, ..nop(5, 0) }]), [(5, -libc::EINVAL)]);
        assert_eq!(ring.run(&[timeout(LINK_TIMEOUT, &SOON, 6)]), [(6, -libc::EINVAL)]);
    }

    fn an_index_out_of_range_is_dropped() {
        let ring = Ring::new(4, 0);
        ring.push(nop(1, 0));
        ring.word(ring.params.sq[6]).store(77, Ordering::Relaxed);
        assert_eq!(ok!(enter(ring.fd.as_raw_fd(), 1, 0, 0)), 0);
        assert_eq!(ring.word(ring.params.sq[5]).load(Ordering::Relaxed), 1);
        assert_eq!(ring.reap(), None);
        ring.push(nop(2, 0));
        ring.submit(1, 1);
        assert_eq!(ring.wait(), (2, 0, 0));
    }

    fn a_wild_tail_and_head_harm_nobody() {
        let ring = Ring::new(4, 0);
        ring.word(ring.params.sq[1]).store(0x8000_0000, Ordering::Release);
        ring.word(ring.params.sq[2]).store(u32::MAX, Ordering::Release);
        ok!(enter(ring.fd.as_raw_fd(), 1000, 0, 0));
        ring.word(ring.params.cq[0]).store(0xdead_beef, Ordering::Release);
        enter(ring.fd.as_raw_fd(), 4, 0, 1);
        let other = Ring::new(4, 0);
        assert_eq!(other.run(&[nop(3, 0)]), [(3, 0)]);
    }

    fn a_chain_breaks_where_one_fails() {
        let ring = Ring::new(8, 0);
        let bad = Sqe { fd: 99, opcode: READ, flags: LINK, user_data: 2, ..Sqe::default() };
        assert_eq!(
            ring.run(&[nop(1, LINK), bad, nop(3, LINK), nop(4, 0)]),
            [(1, 0), (2, -libc::EBADF), (3, -libc::ECANCELED), (4, -libc::ECANCELED)]
        );
        assert_eq!(ring.run(&[Sqe { flags: HARDLINK, ..bad }, nop(3, 0)]), [(2, -libc::EBADF), (3, 0)]);
    }

    fn a_chain_goes_on_only_when_its_head_has_ended() {
        let ring = Ring::new(8, 0);
        let (reader, writer) = pipe();
        let mut buffer = [0u8; 3];
        ring.push(Sqe { flags: LINK, ..transfer(READ, &reader, &mut buffer, 1) });
        ring.push(nop(2, 0));
        ring.push(nop(3, DRAIN));
        ring.submit(3, 0);
        assert_eq!(ring.reap(), None);
        write(&writer, b"abc");
        let order: Vec<_> = (0..3).map(|_| ring.wait().0).collect();
        assert_eq!(order, [1, 2, 3]);
    }

    fn success_can_be_silent() {
        let ring = Ring::new(8, 0);
        ring.push(nop(1, SKIP));
        ring.push(nop(2, 0));
        ring.submit(2, 1);
        assert_eq!(ring.wait(), (2, 0, 0));
        assert_eq!(ring.reap(), None);
    }

    fn timeouts_run_out_or_count() {
        let ring = Ring::new(8, 0);
        ring.push(timeout(TIMEOUT, &SOON, 1));
        ring.submit(1, 1);
        assert_eq!(ring.wait(), (1, -libc::ETIME, 0));
        ring.push(Sqe { off: 1, ..timeout(TIMEOUT, &LATER, 2) });
        ring.push(nop(3, 0));
        ring.submit(2, 2);
        let mut both = [ring.wait(), ring.wait()];
        both.sort_unstable();
        assert_eq!(both, [(2, 0, 0), (3, 0, 0)]);
        assert_eq!(ring.run(&[timeout(TIMEOUT, &[-1, 0], 4)]), [(4, -libc::EINVAL)]);
    }

    fn a_link_timeout_cancels_what_it_limits() {
        let ring = Ring::new(8, 0);
        let (reader, _writer) = pipe();
        let mut buffer = [0u8; 3];
        ring.push(Sqe { flags: LINK, ..transfer(READ, &reader, &mut buffer, 1) });
        ring.push(timeout(LINK_TIMEOUT, &SOON, 2));
        ring.submit(2, 2);
        let mut both = [ring.wait(), ring.wait()];
        both.sort_unstable();
        assert_eq!(both, [(1, -libc::ECANCELED, 0), (2, -libc::ETIME, 0)]);
        assert_eq!(ring.run(&[nop(1, LINK), timeout(LINK_TIMEOUT, &LATER, 2)]), [(1, 0), (2, -libc::ECANCELED)]);
    }

    fn polls_once_and_many_times() {
        let ring = Ring::new(8, 0);
        let (reader, writer) = pipe();
        let poll = Sqe { opcode: POLL_ADD, fd: reader.as_raw_fd(), op_flags: 1, user_data: 1, ..Sqe::default() };
        ring.push(poll);
        ring.submit(1, 0);
        assert_eq!(ring.reap(), None);
        write(&writer, b"x");
        assert_eq!(ring.wait(), (1, 1, 0));
        read(&reader, 1);
        ring.push(Sqe { len: 1, user_data: 2, ..poll });
        ring.submit(1, 0);
        for _ in 0..3 {
            write(&writer, b"y");
            assert_eq!(ring.wait(), (2, 1, MORE));
            read(&reader, 1);
        }
        ring.push(Sqe { opcode: POLL_REMOVE, fd: -1, addr: 2, user_data: 3, ..Sqe::default() });
        ring.submit(1, 2);
        let mut both = [ring.wait(), ring.wait()];
        both.sort_unstable();
        assert_eq!(both, [(2, -libc::ECANCELED, 0), (3, 0, 0)]);
    }

    fn cancelling_finds_by_user_data_and_by_file() {
        let ring = Ring::new(8, 0);
        let (reader, _writer) = pipe();
        let mut buffer = [0u8; 3];
        let cancel = |addr: u64, flags: u32, fd: i32| {
            Sqe { opcode: CANCEL, addr, op_flags: flags, fd, user_data: 100, ..Sqe::default() }
        };
        assert_eq!(ring.run(&[cancel(1, 0, -1)]), [(100, -libc::ENOENT)]);
        ring.push(transfer(READ, &reader, &mut buffer, 1));
        ring.submit(1, 0);
        ring.push(cancel(1, 0, -1));
        ring.submit(1, 2);
        let mut both = [ring.wait(), ring.wait()];
        both.sort_unstable();
        assert_eq!(both, [(1, -libc::ECANCELED, 0), (100, 0, 0)]);
        let (mut one, mut two) = ([0u8; 1], [0u8; 1]);
        ring.push(transfer(READ, &reader, &mut one, 1));
        ring.push(transfer(READ, &reader, &mut two, 2));
        ring.submit(2, 0);
        ring.push(cancel(0, 1 | 2, reader.as_raw_fd()));
        ring.submit(1, 3);
        let mut all = [ring.wait(), ring.wait(), ring.wait()];
        all.sort_unstable();
        assert_eq!(all, [(1, -libc::ECANCELED, 0), (2, -libc::ECANCELED, 0), (100, 2, 0)]);
        assert_eq!(ring.run(&[cancel(1, 1 << 20, -1)]), [(100, -libc::EINVAL)]);
    }

    fn registered_files_are_used_by_index() {
        file("data", b"contents");
        let ring = Ring::new(8, 0);
        let fd = open("data", libc::O_RDONLY);
        let fds = [fd.as_raw_fd(), -1];
        ok!(register(&ring, 2, fds.as_ptr(), 2));
        err!(register(&ring, 2, fds.as_ptr(), 2), libc::EBUSY);
        drop(fd);
        let mut buffer = [0u8; 8];
        let read = |index: i32, buffer: &mut [u8; 8]| Sqe {
            opcode: READ,
            flags: FIXED_FILE,
            fd: index,
            addr: buffer.as_mut_ptr() as u64,
            len: 8,
            ..Sqe::default()
        };
        assert_eq!(ring.run(&[read(0, &mut buffer)]), [(0, 8)]);
        assert_eq!(ring.run(&[read(1, &mut buffer)]), [(0, -libc::EBADF)]);
        assert_eq!(ring.run(&[read(2, &mut buffer)]), [(0, -libc::EBADF)]);
        // Opened into a slot, read, and closed there.
        let name = c("data");
        let into = Sqe { opcode: OPENAT, fd: libc::AT_FDCWD, addr: name.as_ptr() as u64, file_index: 2, ..Sqe::default() };
        assert_eq!(ring.run(&[into]), [(0, 0)]);
        assert_eq!(ring.run(&[read(1, &mut buffer)]), [(0, 8)]);
        assert_eq!(ring.run(&[Sqe { opcode: CLOSE, file_index: 2, ..Sqe::default() }]), [(0, 0)]);
        assert_eq!(ring.run(&[Sqe { opcode: CLOSE, file_index: 2, ..Sqe::default() }]), [(0, -libc::EBADF)]);
        ok!(register(&ring, 3, null::<u8>(), 0));
        err!(register(&ring, 3, null::<u8>(), 0), libc::ENXIO);
    }

    fn provided_buffers_are_taken_in_turn() {
        let ring = Ring::new(8, 0);
        let (one, two) = {
            let mut fds = [0; 2];
            ok!(libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, fds.as_mut_ptr()));
            (own(fds[0]), own(fds[1]))
        };
        let mut memory = [0u8; 64];
        let provide =
            Sqe { opcode: PROVIDE, fd: 2, addr: memory.as_mut_ptr() as u64, len: 32, buf: 5, off: 10, ..Sqe::default() };
        assert_eq!(ring.run(&[provide]), [(0, 0)]);
        let receive = Sqe { opcode: RECV, flags: SELECT, fd: one.as_raw_fd(), buf: 5, user_data: 1, ..Sqe::default() };
        for id in [10, 11] {
            write(&two, b"hey");
            ring.push(receive);
            ring.submit(1, 1);
            let (_, result, flags) = ring.wait();
            assert_eq!((result, flags & 1, flags >> 16), (3, 1, id));
        }
        assert_eq!(&memory[..3], b"hey");
        assert_eq!(&memory[32..35], b"hey");
        write(&two, b"more");
        assert_eq!(ring.run(&[receive]), [(1, -libc::ENOBUFS)]);
    }

    fn completions_that_do_not_fit_are_kept() {
        let ring = Ring::with(2, Params { flags: CQSIZE, cq_entries: 2, ..Params::default() });
        for data in 0..6 {
            ring.push(nop(data, 0));
            ok!(enter(ring.fd.as_raw_fd(), 1, 0, 0));
        }
        assert_eq!(ring.word(ring.params.sq[4]).load(Ordering::Acquire) & 2, 2);
        let all: Vec<_> = (0..6).map(|_| ring.wait().0).collect();
        assert_eq!(all, [0, 1, 2, 3, 4, 5]);
    }

    fn a_disabled_ring_takes_nothing() {
        let ring = Ring::new(4, R_DISABLED);
        ring.push(nop(1, 0));
        err!(enter(ring.fd.as_raw_fd(), 1, 0, 0), libc::EBADFD);
        ok!(register(&ring, 12, null::<u8>(), 0));
        err!(register(&ring, 12, null::<u8>(), 0), libc::EBADFD);
        assert_eq!(ring.submit(1, 1), 1);
        assert_eq!(ring.wait(), (1, 0, 0));
    }

    fn an_eventfd_hears_of_completions() {
        let ring = Ring::new(4, 0);
        let event = own(ok!(libc::eventfd(0, libc::EFD_NONBLOCK)));
        ok!(register(&ring, 4, &event.as_raw_fd(), 1));
        err!(register(&ring, 4, &event.as_raw_fd(), 1), libc::EBUSY);
        ring.run(&[nop(1, 0)]);
        assert_eq!(read(&event, 8), 1u64.to_ne_bytes());
        ok!(register(&ring, 5, null::<u8>(), 0));
        err!(register(&ring, 5, null::<u8>(), 0), libc::ENXIO);
    }

    fn a_ring_can_be_polled() {
        let ring = Ring::new(4, 0);
        let ready = |events: i16| {
            let mut one = libc::pollfd { fd: ring.fd.as_raw_fd(), events, revents: 0 };
            ok!(libc::poll(&mut one, 1, 0));
            one.revents
        };
        assert_eq!(ready(libc::POLLIN | libc::POLLOUT), libc::POLLOUT);
        ring.push(nop(1, 0));
        ring.submit(1, 0);
        assert_eq!(ready(libc::POLLIN), libc::POLLIN);
    }

    fn closing_and_exiting_with_requests_under_way() {
        let (reader, writer) = pipe();
        let mut buffer = [0u8; 3];
        for _ in 0..3 {
            in_child(|| {
                let ring = Ring::new(8, 0);
                let mut own = [0u8; 3];
                ring.push(transfer(READ, &reader, &mut own, 1));
                ring.push(timeout(TIMEOUT, &LATER, 2));
                ring.push(Sqe { opcode: READV, flags: LINK, fd: -1, ..Sqe::default() });
                ring.push(nop(1, 0));
                ring.submit(4, 0);
            });
            let ring = Ring::new(8, 0);
            ring.push(transfer(READ, &reader, &mut buffer, 1));
            ring.push(timeout(TIMEOUT, &LATER, 2));
            ring.submit(2, 0);
            let length = ring.params.sq[6] as usize + 32;
            ok!(libc::munmap(ring.ring.cast(), length));
            ok!(libc::munmap(ring.sqes.cast(), 512));
        }
        drop(reader);
        act(libc::SIGPIPE, libc::SIG_IGN, 0);
        // Nothing holds the reading end any more.
        until(|| unsafe { libc::write(writer.as_raw_fd(), b"x".as_ptr().cast(), 1) } == -1 && errno() == libc::EPIPE);
    }

    fn a_waiting_thread_hears_signals_and_timeouts() {
        let ring = Ring::new(4, 0);
        let time = [0i64, 20_000_000];
        let arg = [0u64, 8, time.as_ptr() as u64];
        let wait = |size: usize| unsafe {
            libc::syscall(libc::SYS_io_uring_enter, ring.fd.as_raw_fd(), 0, 1, 1 | 8, arg.as_ptr(), size)
        };
        err!(wait(24), libc::ETIME);
        err!(wait(16), libc::EINVAL);
        extern "C" fn nothing(_: i32) {}
        handle(libc::SIGALRM, nothing, 0);
        let timer = libc::itimerval {
            it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 },
            it_value: libc::timeval { tv_sec: 0, tv_usec: 20_000 },
        };
        ok!(libc::setitimer(libc::ITIMER_REAL, &timer, null_mut()));
        err!(enter(ring.fd.as_raw_fd(), 0, 1, 1), libc::EINTR);
    }
}
