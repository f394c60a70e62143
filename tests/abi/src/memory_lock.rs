//! Memory that is locked, marked by advice, moved, and promised.

use crate::sys::*;
use std::fs;
use std::ptr::null_mut;

const PAGE: usize = 4096;
const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
const ANONYMOUS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
const MADV_DONTNEED_LOCKED: i32 = 24;
const MADV_COLD: i32 = 20;

fn page(base: *mut u8, number: usize) -> *mut u8 {
    base.wrapping_add(number * PAGE)
}

/// Pages that make a mapping of their own.
fn apart(pages: usize) -> *mut u8 {
    let base = map((pages + 2) * PAGE, libc::PROT_NONE);
    ok!(libc::mprotect(page(base, 1).cast(), pages * PAGE, RW));
    page(base, 1)
}

/// A number in KiB of /proc/self/status.
fn status(name: &str) -> usize {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What /proc/self/smaps says of the mapping that begins at `at`: the lines after its first.
fn smaps(at: *mut u8) -> Vec<String> {
    let text = fs::read_to_string("/proc/self/smaps").unwrap();
    let start = format!("{:08x}-", at.addr());
    let mut lines = text.lines().skip_while(|line| !line.starts_with(&start));
    lines.next().expect("a mapping begins there");
    lines.take_while(|line| !line.split(' ').next().unwrap_or("").contains('-')).map(str::to_owned).collect()
}

fn has_flag(at: *mut u8, flag: &str) -> bool {
    let lines = smaps(at);
    let flags = lines.iter().find(|line| line.starts_with("VmFlags:")).expect("flags");
    flags.split_whitespace().any(|word| word == flag)
}

fn resident(base: *mut u8, pages: usize) -> usize {
    let mut vector = vec![0u8; pages];
    ok!(libc::mincore(base.cast(), pages * PAGE, vector.as_mut_ptr()));
    vector.iter().filter(|&&byte| byte & 1 == 1).count()
}

/// In a child without privileges and with this limit of locked bytes: what `body` gives must be true.
fn limited(bytes: u64, body: impl FnOnce() -> bool) {
    let status = wait(child(|| {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
        ok!(libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit));
        ok!(libc::setresuid(65534, 65534, 65534));
        i32::from(!body())
    }));
    assert_eq!(status, 0, "the child said no");
}

fn failed_with(result: i32, errno: i32) -> bool {
    let got = std::io::Error::last_os_error().raw_os_error();
    result == -1 && got == Some(errno)
}

cases! {
    fn locked_memory_counts_once() {
        let before = status("VmLck:");
        let base = apart(16);
        ok!(libc::mlock(page(base, 2).cast(), 4 * PAGE));
        ok!(libc::mlock(page(base, 4).wrapping_add(5).cast(), 4 * PAGE));
        assert_eq!(status("VmLck:") - before, 7 * 4);
        assert_eq!(resident(page(base, 2), 7), 7);
        assert!(has_flag(page(base, 2), "lo") && !has_flag(page(base, 9), "lo"));
        ok!(libc::munlock(base.cast(), 4 * PAGE));
        assert_eq!(status("VmLck:") - before, 5 * 4);
        ok!(libc::munmap(base.cast(), 16 * PAGE));
        assert_eq!(status("VmLck:"), before);
    }

    fn locking_on_fault_brings_nothing_in() {
        let base = apart(4);
        ok!(libc::mlock2(base.cast(), 4 * PAGE, 1));
        assert_eq!(resident(base, 4), 0);
        assert!(has_flag(base, "lo"));
        unsafe { page(base, 1).write_volatile(1) };
        assert_eq!(resident(base, 4), 1);
        assert!(smaps(base).iter().any(|line| line.starts_with("Locked:") && line.ends_with(" 4 kB")));
        err!(libc::mlock2(base.cast(), PAGE, 2), libc::EINVAL);
    }

    fn what_is_before_a_hole_is_locked() {
        let base = map(4 * PAGE, RW);
        ok!(libc::munmap(page(base, 2).cast(), PAGE));
        err!(libc::mlock(base.cast(), 4 * PAGE), libc::ENOMEM);
        assert!(has_flag(base, "lo") && !has_flag(page(base, 3), "lo"));
        err!(libc::munlock(page(base, 2).cast(), PAGE), libc::ENOMEM);
        err!(libc::mlock(page(base, 0).cast(), usize::MAX - PAGE), libc::EINVAL);
        ok!(libc::mlock(page(base, 2).cast(), 0));
        let closed = map(PAGE, libc::PROT_NONE);
        err!(libc::mlock(closed.cast(), PAGE), libc::ENOMEM);
    }

    fn the_limit_of_locked_memory() {
        limited(8 * PAGE as u64, || {
            let base = map(16 * PAGE, RW);
            let full = unsafe { libc::mlock(base.cast(), 8 * PAGE) } == 0;
            // What is locked already does not count again.
            let again = unsafe { libc::mlock(base.cast(), 8 * PAGE) } == 0;
            let over = failed_with(unsafe { libc::mlock(base.cast(), 9 * PAGE) }, libc::ENOMEM);
            let mapped = unsafe { libc::mmap(null_mut(), PAGE, RW, ANONYMOUS | libc::MAP_LOCKED, -1, 0) };
            let refused = mapped == libc::MAP_FAILED && std::io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN);
            let grown = unsafe { libc::mremap(base.cast(), 8 * PAGE, 9 * PAGE, libc::MREMAP_MAYMOVE) };
            let no_growth = grown == libc::MAP_FAILED && std::io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN);
            full && again && over && refused && no_growth
        });
        limited(0, || {
            let base = map(PAGE, RW);
            let all = failed_with(unsafe { libc::mlockall(libc::MCL_CURRENT) }, libc::EPERM);
            let mapped = unsafe { libc::mmap(null_mut(), PAGE, RW, ANONYMOUS | libc::MAP_LOCKED, -1, 0) };
            let refused = mapped == libc::MAP_FAILED && std::io::Error::last_os_error().raw_os_error() == Some(libc::EPERM);
            failed_with(unsafe { libc::mlock(base.cast(), PAGE) }, libc::EPERM) && all && refused
        });
    }

    fn mlockall_of_what_comes() {
        err!(libc::mlockall(0), libc::EINVAL);
        err!(libc::mlockall(4), libc::EINVAL);
        err!(libc::mlockall(8 | libc::MCL_CURRENT), libc::EINVAL);
        let old = map(2 * PAGE, RW);
        ok!(libc::mlockall(libc::MCL_FUTURE));
        let new = map(4 * PAGE, RW);
        let marked = apart(2);
        assert_eq!((resident(old, 2), resident(new, 4)), (0, 4));
        // A child starts without.
        let status = wait(child(|| i32::from(resident(map(4 * PAGE, RW), 4) != 0)));
        assert_eq!(status, 0);
        ok!(libc::mlockall(libc::MCL_FUTURE | 4));
        let on_fault = apart(4);
        assert!(resident(on_fault, 4) == 0 && has_flag(on_fault, "lo"));
        ok!(libc::munlockall());
        let free = map(4 * PAGE, RW);
        assert!(resident(free, 4) == 0 && !has_flag(marked, "lo"));
    }

    fn mlockall_of_what_is_there() {
        let base = map(4 * PAGE, RW);
        let status = wait(child(|| {
            ok!(libc::mlockall(libc::MCL_CURRENT));
            i32::from(resident(base, 4) != 4 || status("VmLck:") == 0)
        }));
        assert_eq!(status, 0);
        limited(64 * 1024, || failed_with(unsafe { libc::mlockall(libc::MCL_CURRENT) }, libc::ENOMEM));
    }

    fn advice_and_locked_memory() {
        let base = map(2 * PAGE, RW);
        ok!(libc::mlock(base.cast(), 2 * PAGE));
        unsafe { base.write_volatile(7) };
        err!(libc::madvise(base.cast(), PAGE, libc::MADV_DONTNEED), libc::EINVAL);
        err!(libc::madvise(base.cast(), PAGE, libc::MADV_FREE), libc::EINVAL);
        err!(libc::madvise(base.cast(), PAGE, MADV_COLD), libc::EINVAL);
        err!(libc::madvise(base.cast(), PAGE, libc::MADV_REMOVE), libc::EINVAL);
        ok!(libc::madvise(base.cast(), PAGE, MADV_DONTNEED_LOCKED));
        assert_eq!(unsafe { base.read_volatile() }, 0);
    }

    fn advice_shows_in_smaps() {
        let base = apart(8);
        let marks = [
            (libc::MADV_RANDOM, "rr"),
            (libc::MADV_SEQUENTIAL, "sr"),
            (libc::MADV_DONTFORK, "dc"),
            (libc::MADV_DONTDUMP, "dd"),
            (libc::MADV_WIPEONFORK, "wf"),
        ];
        for (number, (advice, flag)) in marks.into_iter().enumerate() {
            ok!(libc::madvise(page(base, number).cast(), PAGE, advice));
            assert!(has_flag(page(base, number), flag), "{flag}");
        }
        ok!(libc::madvise(page(base, 1).cast(), PAGE, libc::MADV_NORMAL));
        ok!(libc::madvise(page(base, 2).cast(), PAGE, libc::MADV_DOFORK));
        ok!(libc::madvise(page(base, 3).cast(), PAGE, libc::MADV_DODUMP));
        ok!(libc::madvise(page(base, 4).cast(), PAGE, libc::MADV_KEEPONFORK));
        assert!(has_flag(page(base, 1), "ac"));
        let merged = smaps(page(base, 1));
        assert!(merged.iter().any(|line| line.starts_with("Size:") && line.ends_with(" 28 kB")), "{merged:?}");
    }

    fn advice_that_does_not_fit() {
        let shared = ok!(libc::mmap(null_mut(), PAGE, RW, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0));
        err!(libc::madvise(shared, PAGE, libc::MADV_WIPEONFORK), libc::EINVAL);
        err!(libc::madvise(shared, PAGE, libc::MADV_FREE), libc::EINVAL);
        err!(libc::madvise(map(PAGE, RW).cast(), PAGE, 1234), libc::EINVAL);
        let base = map(3 * PAGE, RW);
        err!(libc::madvise(page(base, 0).wrapping_add(1).cast(), 0, libc::MADV_NORMAL), libc::EINVAL);
        err!(libc::madvise(base.cast(), usize::MAX, libc::MADV_NORMAL), libc::EINVAL);
        ok!(libc::munmap(page(base, 1).cast(), PAGE));
        unsafe { page(base, 2).write_volatile(7) };
        // The hole is told, and what comes after it is done.
        err!(libc::madvise(base.cast(), 3 * PAGE, libc::MADV_DONTNEED), libc::ENOMEM);
        assert_eq!(unsafe { page(base, 2).read_volatile() }, 0);
    }

    fn moving_without_unmapping() {
        let base = map(2 * PAGE, RW);
        unsafe { base.write_volatile(7) };
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP;
        let null = null_mut::<u8>();
        let moved = ok!(libc::mremap(base.cast(), 2 * PAGE, 2 * PAGE, flags, null)).cast::<u8>();
        assert_eq!(unsafe { (moved.read_volatile(), base.read_volatile()) }, (7, 0));
        err!(libc::mremap(base.cast(), PAGE, 2 * PAGE, flags, null), libc::EINVAL);
        // Shared memory shows the same at both places.
        let shared = ok!(libc::mmap(null_mut(), PAGE, RW, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0)).cast::<u8>();
        unsafe { shared.write_volatile(9) };
        let moved = ok!(libc::mremap(shared.cast(), PAGE, PAGE, flags, null)).cast::<u8>();
        assert_eq!(unsafe { (moved.read_volatile(), shared.read_volatile()) }, (9, 9));
    }

    fn mremap_checks_in_order() {
        let base = apart(4);
        let fixed = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let to = |target: *mut u8, len| unsafe { libc::mremap(base.cast(), 2 * PAGE, len, fixed, target) };
        let is = |result: *mut libc::c_void, errno| {
            assert!(result == libc::MAP_FAILED);
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(errno));
        };
        is(to(page(base, 1), PAGE), libc::EINVAL);
        is(to(page(base, 3).wrapping_add(1), PAGE), libc::EINVAL);
        is(unsafe { libc::mremap(base.cast(), PAGE, 0, libc::MREMAP_MAYMOVE) }, libc::EINVAL);
        is(unsafe { libc::mremap(base.cast(), 5 * PAGE, 6 * PAGE, libc::MREMAP_MAYMOVE) }, libc::EFAULT);
        is(unsafe { libc::mremap(base.cast(), PAGE, PAGE, 8) }, libc::EINVAL);
        is(unsafe { libc::mremap(base.cast(), 0, PAGE, libc::MREMAP_MAYMOVE) }, libc::EINVAL);
        ok!(libc::munmap(base.cast(), PAGE));
        is(unsafe { libc::mremap(base.cast(), PAGE, PAGE, libc::MREMAP_MAYMOVE) }, libc::EFAULT);
    }

    fn promises_are_counted() {
        let promised = || {
            let text = fs::read_to_string("/proc/meminfo").unwrap();
            let line = text.lines().find(|line| line.starts_with("Committed_AS:")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<i64>().unwrap()
        };
        let before = promised();
        const SIZE: usize = 256 << 20;
        let base = map(SIZE, RW);
        let with = promised();
        assert!(with - before > 200 << 10, "{before} {with}");
        ok!(libc::munmap(base.cast(), SIZE));
        assert!(with - promised() > 200 << 10);
        map(SIZE, libc::PROT_READ);
        ok!(libc::mmap(null_mut(), SIZE, RW, ANONYMOUS | libc::MAP_NORESERVE, -1, 0));
        assert!(promised() - before < 100 << 10);
    }
}
