//! io_uring(7), a request at a time: submitted and waited for by one io_uring_enter(2).

use crate::sys::{open, own};
use crate::timing::each;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering};

const ENTRIES: u32 = 8;
const ENTER_GETEVENTS: u32 = 1;
const OP_NOP: u8 = 0;
const OP_READ: u8 = 22;
const OFFSET_OF_SUBMISSIONS: i64 = 0x1000_0000;

/// `struct io_sqring_offsets` and `io_cqring_offsets` begin alike.
#[repr(C)]
struct Offsets {
    head: u32,
    tail: u32,
    mask: u32,
    entries: u32,
    rest: [u32; 6],
}

/// `struct io_uring_params`.
#[repr(C)]
struct Parameters {
    sizes_and_flags: [u32; 10],
    submission: Offsets,
    completion: Offsets,
}

/// `struct io_uring_sqe`.
#[repr(C)]
#[derive(Default)]
struct Submission {
    operation: u8,
    flags: u8,
    priority: u16,
    file: RawFd,
    offset: u64,
    address: u64,
    len: u32,
    rest: [u32; 9],
}

struct Ring {
    fd: OwnedFd,
    rings: *mut u8,
    submissions: *mut Submission,
    submitted: *const AtomicU32,
    taken: *const AtomicU32,
    results: *const [i32; 4],
    mask: u32,
}

impl Ring {
    fn new() -> Ring {
        let mut parameters: Parameters = unsafe { zeroed() };
        let fd = own(ok!(libc::syscall(libc::SYS_io_uring_setup, ENTRIES, &mut parameters)) as RawFd);
        let map = |offset| {
            let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
            let at = unsafe { libc::mmap(null_mut(), 4096, access, kind, fd.as_raw_fd(), offset) };
            assert_ne!(at, libc::MAP_FAILED, "io_uring's rings can be mapped");
            at.cast::<u8>()
        };
        // One mapping has both rings (IORING_FEAT_SINGLE_MMAP).
        let rings = map(0);
        let submissions = map(OFFSET_OF_SUBMISSIONS).cast();
        let word = |offset: u32| unsafe { rings.add(offset as usize) };
        let array: *mut u32 = word(parameters.submission.rest[2]).cast();
        // The submissions are used in turn.
        (0..ENTRIES).for_each(|index| unsafe { array.add(index as usize).write(index) });
        Ring {
            submitted: word(parameters.submission.tail).cast(),
            taken: word(parameters.completion.head).cast(),
            results: word(parameters.completion.rest[1]).cast(),
            mask: unsafe { word(parameters.completion.mask).cast::<u32>().read() },
            fd,
            rings,
            submissions,
        }
    }

    /// Has a request done; its result.
    fn perform(&self, request: Submission) -> i32 {
        let (submitted, taken) = unsafe { (&*self.submitted, &*self.taken) };
        let tail = submitted.load(Ordering::Relaxed);
        unsafe { self.submissions.add((tail % ENTRIES) as usize).write(request) };
        submitted.store(tail.wrapping_add(1), Ordering::Release);
        let fd = self.fd.as_raw_fd();
        let enter = libc::SYS_io_uring_enter;
        assert_eq!(ok!(libc::syscall(enter, fd, 1, 1, ENTER_GETEVENTS, null::<u8>(), 0)), 1);
        let head = taken.load(Ordering::Relaxed);
        let [_, _, result, _] = unsafe { self.results.add((head & self.mask) as usize).read_volatile() };
        taken.store(head.wrapping_add(1), Ordering::Release);
        result
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        unsafe {
            libc::munmap(self.rings.cast(), 4096);
            libc::munmap(self.submissions.cast(), 4096);
        }
    }
}

/// A request that does nothing.
pub(crate) fn nop() -> f64 {
    let ring = Ring::new();
    each(|| assert_eq!(ring.perform(Submission { operation: OP_NOP, ..Submission::default() }), 0))
}

/// 4 KiB of a file that is in memory.
pub(crate) fn read_page() -> f64 {
    const LEN: u32 = 4096;
    std::fs::write("page", [1; LEN as usize]).expect("a file");
    let file = open("page", libc::O_RDONLY);
    let mut page = vec![0u8; LEN as usize];
    let ring = Ring::new();
    each(|| {
        let address = page.as_mut_ptr() as u64;
        let request =
            Submission { operation: OP_READ, file: file.as_raw_fd(), address, len: LEN, ..Submission::default() };
        assert_eq!(ring.perform(request), LEN as i32);
    })
}
