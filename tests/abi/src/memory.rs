//! Anonymous memory: mmap, mprotect, mremap, madvise, brk, the stack.

use crate::sys::*;
use std::ptr::null_mut;

const PAGE: usize = 4096;
const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

fn put(at: *mut u8, value: u8) {
    unsafe { at.write_volatile(value) }
}

fn get(at: *mut u8) -> u8 {
    unsafe { at.read_volatile() }
}

fn page(base: *mut u8, number: usize) -> *mut u8 {
    base.wrapping_add(number * PAGE)
}

/// True if reading there raises SIGSEGV.
fn faults(at: *mut u8) -> bool {
    let status = wait(child(|| {
        std::hint::black_box(get(at));
        0
    }));
    libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV
}

fn write_faults(at: *mut u8) -> bool {
    let status = wait(child(|| {
        put(at, 1);
        0
    }));
    libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV
}

fn resident(base: *mut u8, pages: usize) -> Vec<bool> {
    let mut vector = vec![0u8; pages];
    ok!(libc::mincore(base.cast(), pages * PAGE, vector.as_mut_ptr()));
    vector.iter().map(|byte| byte & 1 == 1).collect()
}

cases! {
    fn fresh_memory_is_zero() {
        let base = map(64 * PAGE, RW);
        assert!((0..64 * PAGE).all(|at| get(base.wrapping_add(at)) == 0));
    }

    fn mmap_checks_its_arguments() {
        let call = |length, flags| unsafe { libc::mmap(null_mut(), length, RW, flags, -1, 0) };
        err!(call(0, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS), libc::EINVAL);
        err!(call(PAGE, libc::MAP_ANONYMOUS), libc::EINVAL);
        err!(call(PAGE, libc::MAP_PRIVATE), libc::EBADF);
        err!(call(1 << 47, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS), libc::ENOMEM);
        err!(call(usize::MAX, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS), libc::ENOMEM);
        err!(libc::mmap(null_mut::<u8>().wrapping_add(1).cast(), PAGE, RW, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED, -1, 0), libc::EINVAL);
    }

    fn mmap_takes_a_hint() {
        let base = map(3 * PAGE, RW);
        ok!(libc::munmap(base.cast(), 3 * PAGE));
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        assert_eq!(ok!(libc::mmap(page(base, 1).cast(), PAGE, RW, flags, -1, 0)), page(base, 1).cast());
        assert_ne!(ok!(libc::mmap(page(base, 1).cast(), PAGE, RW, flags, -1, 0)), page(base, 1).cast());
    }

    fn map_fixed_replaces() {
        let base = map(3 * PAGE, RW);
        (0..3).for_each(|number| put(page(base, number), 7));
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        ok!(libc::mmap(page(base, 1).cast(), PAGE, RW, flags, -1, 0));
        assert_eq!((0..3).map(|number| get(page(base, number))).collect::<Vec<_>>(), [7, 0, 7]);
    }

    fn map_fixed_noreplace_refuses() {
        let base = map(PAGE, RW);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        err!(libc::mmap(base.cast(), PAGE, RW, flags, -1, 0), libc::EEXIST);
        ok!(libc::munmap(base.cast(), PAGE));
        assert_eq!(ok!(libc::mmap(base.cast(), PAGE, RW, flags, -1, 0)), base.cast());
    }

    fn munmap_makes_a_hole() {
        let base = map(3 * PAGE, RW);
        ok!(libc::munmap(page(base, 1).cast(), PAGE));
        put(page(base, 0), 1);
        put(page(base, 2), 1);
        assert!(faults(page(base, 1)));
        ok!(libc::munmap(base.cast(), 3 * PAGE));
        assert!(faults(base));
    }

    fn munmap_checks_its_arguments() {
        let base = map(PAGE, RW);
        err!(libc::munmap(base.wrapping_add(1).cast(), PAGE), libc::EINVAL);
        err!(libc::munmap(base.cast(), 0), libc::EINVAL);
        ok!(libc::munmap(base.cast(), PAGE));
        ok!(libc::munmap(base.cast(), PAGE));
    }

    fn mprotect_takes_and_gives_rights() {
        let base = map(3 * PAGE, RW);
        put(page(base, 1), 9);
        ok!(libc::mprotect(page(base, 1).cast(), PAGE, libc::PROT_READ));
        assert_eq!(get(page(base, 1)), 9);
        assert!(write_faults(page(base, 1)) && !write_faults(page(base, 0)) && !write_faults(page(base, 2)));
        ok!(libc::mprotect(page(base, 1).cast(), PAGE, libc::PROT_NONE));
        assert!(faults(page(base, 1)));
        ok!(libc::mprotect(base.cast(), 3 * PAGE, RW));
        put(page(base, 1), get(page(base, 1)) + 1);
        assert_eq!(get(page(base, 1)), 10);
    }

    fn mprotect_checks_its_arguments() {
        let base = map(2 * PAGE, RW);
        err!(libc::mprotect(base.wrapping_add(8).cast(), PAGE, RW), libc::EINVAL);
        err!(libc::mprotect(base.cast(), PAGE, 0x800), libc::EINVAL);
        ok!(libc::munmap(page(base, 1).cast(), PAGE));
        err!(libc::mprotect(base.cast(), 2 * PAGE, libc::PROT_READ), libc::ENOMEM);
        ok!(libc::mprotect(base.cast(), 0, libc::PROT_READ));
    }

    fn memory_is_not_executable_unless_asked() {
        let code = [0xb8u8, 7, 0, 0, 0, 0xc3]; // mov eax, 7; ret
        let base = map(PAGE, RW);
        unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), base, code.len()) };
        let call: extern "C" fn() -> i32 = unsafe { std::mem::transmute(base) };
        expect_signal(child(|| call()), libc::SIGSEGV);
        ok!(libc::mprotect(base.cast(), PAGE, libc::PROT_READ | libc::PROT_EXEC));
        assert_eq!(call(), 7);
    }

    fn mremap_grows_and_keeps_contents() {
        let base = map(PAGE, RW);
        put(base, 5);
        err!(libc::mremap(base.cast(), PAGE, 1 << 46, libc::MREMAP_MAYMOVE), libc::ENOMEM);
        let moved: *mut u8 = ok!(libc::mremap(base.cast(), PAGE, 100 * PAGE, libc::MREMAP_MAYMOVE)).cast();
        assert_eq!((get(moved), get(page(moved, 99))), (5, 0));
        let shrunk = ok!(libc::mremap(moved.cast(), 100 * PAGE, PAGE, 0));
        assert_eq!(shrunk, moved.cast());
        assert!(faults(page(moved, 1)));
    }

    fn mremap_in_place_needs_room() {
        let base = map(3 * PAGE, RW);
        err!(libc::mremap(base.cast(), PAGE, 2 * PAGE, 0), libc::ENOMEM);
        ok!(libc::munmap(page(base, 1).cast(), 2 * PAGE));
        assert_eq!(ok!(libc::mremap(base.cast(), PAGE, 2 * PAGE, 0)), base.cast());
        put(page(base, 1), 1);
    }

    fn mremap_to_a_fixed_place() {
        let (from, to) = (map(PAGE, RW), map(PAGE, RW));
        put(from, 3);
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        assert_eq!(ok!(libc::mremap(from.cast(), PAGE, PAGE, flags, to)), to.cast());
        assert_eq!(get(to), 3);
        assert!(faults(from));
        err!(libc::mremap(to.cast(), PAGE, PAGE, flags, to), libc::EINVAL);
        err!(libc::mremap(to.cast(), PAGE, PAGE, libc::MREMAP_FIXED, from), libc::EINVAL);
        err!(libc::mremap(from.cast(), PAGE, 2 * PAGE, libc::MREMAP_MAYMOVE), libc::EFAULT);
    }

    fn dontneed_gives_zero_pages() {
        let base = map(4 * PAGE, RW);
        (0..4).for_each(|number| put(page(base, number), 1));
        ok!(libc::madvise(page(base, 1).cast(), 2 * PAGE, libc::MADV_DONTNEED));
        assert_eq!((0..4).map(|number| get(page(base, number))).collect::<Vec<_>>(), [1, 0, 0, 1]);
        err!(libc::madvise(base.wrapping_add(1).cast(), PAGE, libc::MADV_DONTNEED), libc::EINVAL);
        err!(libc::madvise(base.cast(), PAGE, 12345), libc::EINVAL);
        ok!(libc::munmap(base.cast(), 4 * PAGE));
        err!(libc::madvise(base.cast(), PAGE, libc::MADV_DONTNEED), libc::ENOMEM);
    }

    fn dontfork_and_wipeonfork() {
        let base = map(2 * PAGE, RW);
        (0..2).for_each(|number| put(page(base, number), 1));
        ok!(libc::madvise(base.cast(), PAGE, libc::MADV_DONTFORK));
        ok!(libc::madvise(page(base, 1).cast(), PAGE, libc::MADV_WIPEONFORK));
        assert!(faults(base));
        expect_exit(child(|| i32::from(get(page(base, 1)))), 0);
        assert_eq!((get(base), get(page(base, 1))), (1, 1));
    }

    fn pages_come_on_demand() {
        let base = map(8 * PAGE, RW);
        ok!(libc::madvise(base.cast(), 8 * PAGE, libc::MADV_NOHUGEPAGE));
        put(page(base, 3), 1);
        let expected: Vec<bool> = (0..8).map(|number| number == 3).collect();
        assert_eq!(resident(base, 8), expected);
        ok!(libc::munmap(base.cast(), 8 * PAGE));
        err!(libc::mincore(base.cast(), PAGE, [0u8].as_mut_ptr()), libc::ENOMEM);
    }

    fn populate_brings_all_pages() {
        let base = map_with(8 * PAGE, RW, libc::MAP_PRIVATE | libc::MAP_POPULATE);
        assert_eq!(resident(base, 8), [true; 8]);
    }

    fn shared_memory_is_shared_with_children() {
        let value = shared_page();
        in_child(|| unsafe { value.write_volatile(99) });
        assert_eq!(unsafe { value.read_volatile() }, 99);
    }

    fn private_memory_is_not() {
        let base = map(PAGE, RW);
        put(base, 1);
        in_child(|| put(base, 2));
        assert_eq!(get(base), 1);
    }

    fn brk_moves_the_end_of_the_heap() {
        let end = ok!(libc::syscall(libc::SYS_brk, 0)) as usize;
        let wanted = end + 10 * PAGE;
        assert_eq!(ok!(libc::syscall(libc::SYS_brk, wanted)) as usize, wanted);
        put((end + 9 * PAGE) as *mut u8, 1);
        assert_eq!(ok!(libc::syscall(libc::SYS_brk, end)) as usize, end);
        assert!(faults((end.next_multiple_of(PAGE) + 8 * PAGE) as *mut u8));
        assert_eq!(ok!(libc::syscall(libc::SYS_brk, 1)) as usize, end, "brk below the heap changes nothing");
    }

    fn brk_memory_is_zero_again() {
        let end = ok!(libc::syscall(libc::SYS_brk, 0)) as usize;
        let last = (end + 4 * PAGE) as *mut u8;
        for _ in 0..2 {
            ok!(libc::syscall(libc::SYS_brk, end + 5 * PAGE));
            assert_eq!(get(last), 0);
            put(last, 1);
            ok!(libc::syscall(libc::SYS_brk, end));
        }
    }

    fn the_stack_grows() {
        fn dive(depth: usize) -> u64 {
            let mut frame = [depth as u8; 4000];
            std::hint::black_box(&mut frame);
            if depth == 0 { 0 } else { dive(depth - 1) + u64::from(frame[17]) }
        }
        // 4 MB of the usual 8.
        assert!(dive(1000) > 0);
    }

    fn the_stack_stops_at_its_limit() {
        fn dive(depth: usize) -> u64 {
            let mut frame = [depth as u8; 4000];
            std::hint::black_box(&mut frame);
            if depth == usize::MAX { return 0; }
            dive(depth + 1) + u64::from(frame[17])
        }
        let pid = child(|| {
            let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
            ok!(libc::setrlimit(libc::RLIMIT_STACK, &limit));
            dive(0) as i32
        });
        expect_signal(pid, libc::SIGSEGV);
    }

    fn address_space_limit() {
        in_child(|| {
            let limit = libc::rlimit { rlim_cur: 64 << 20, rlim_max: 64 << 20 };
            ok!(libc::setrlimit(libc::RLIMIT_AS, &limit));
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            err!(libc::mmap(null_mut(), 128 << 20, RW, flags, -1, 0), libc::ENOMEM);
            map(1 << 20, RW);
        });
    }

    fn system_calls_check_memory() {
        let (reader, writer) = pipe();
        use std::os::fd::AsRawFd;
        let hole = map(PAGE, libc::PROT_NONE);
        err!(libc::write(writer.as_raw_fd(), hole.cast(), 1), libc::EFAULT);
        err!(libc::write(writer.as_raw_fd(), usize::MAX as *const _, 1), libc::EFAULT);
        write(&writer, b"x");
        err!(libc::read(reader.as_raw_fd(), 0xffff_8000_0000_0000usize as *mut _, 1), libc::EFAULT);
        let fixed = map(PAGE, libc::PROT_READ);
        err!(libc::read(reader.as_raw_fd(), fixed.cast(), 1), libc::EFAULT);
        err!(libc::syscall(libc::SYS_uname, 0xffff_ffff_ffff_f000usize), libc::EFAULT);
        err!(libc::open(hole.cast(), 0), libc::EFAULT);
    }

    fn mlock_and_munlock() {
        let base = map(4 * PAGE, RW);
        ok!(libc::mlock(base.cast(), 4 * PAGE));
        assert_eq!(resident(base, 4), [true; 4]);
        ok!(libc::munlock(base.cast(), 4 * PAGE));
        ok!(libc::munmap(base.cast(), 4 * PAGE));
        err!(libc::mlock(base.cast(), PAGE), libc::ENOMEM);
    }

    fn membarrier_answers() {
        let commands = ok!(libc::syscall(libc::SYS_membarrier, 0, 0, 0));
        assert!(commands & 1 == 1, "MEMBARRIER_CMD_GLOBAL");
        ok!(libc::syscall(libc::SYS_membarrier, 1, 0, 0));
        err!(libc::syscall(libc::SYS_membarrier, 1 << 30, 0, 0), libc::EINVAL);
        err!(libc::syscall(libc::SYS_membarrier, 0, 1, 0), libc::EINVAL);
        if commands & 8 != 0 {
            in_child(|| { ok!(libc::syscall(libc::SYS_membarrier, 16, 0, 0)); ok!(libc::syscall(libc::SYS_membarrier, 8, 0, 0)); });
        }
    }

    fn memfd_can_be_kept_from_being_executable() {
        use std::os::fd::AsRawFd;
        const NOEXEC_SEAL: u32 = 8;
        const EXEC: u32 = 16;
        const SEAL_EXEC: i32 = 32;
        let plain = unsafe { libc::memfd_create(c"m".as_ptr(), EXEC) };
        if plain == -1 {
            // Linux has this since 6.3.
            assert_eq!(errno(), libc::EINVAL);
            return;
        }
        let plain = own(plain);
        assert_eq!(fstat(&plain).st_mode & 0o777, 0o777);
        err!(libc::fcntl(plain.as_raw_fd(), libc::F_ADD_SEALS, SEAL_EXEC), libc::EPERM);
        err!(libc::memfd_create(c"m".as_ptr(), EXEC | NOEXEC_SEAL), libc::EINVAL);
        let data = own(ok!(libc::memfd_create(c"m".as_ptr(), NOEXEC_SEAL)));
        assert_eq!(fstat(&data).st_mode & 0o777, 0o666);
        assert_eq!(ok!(libc::fcntl(data.as_raw_fd(), libc::F_GET_SEALS)), SEAL_EXEC);
        err!(libc::fchmod(data.as_raw_fd(), 0o700), libc::EPERM);
        ok!(libc::fchmod(data.as_raw_fd(), 0o600));
        ok!(libc::ftruncate(data.as_raw_fd(), 100));
        // What stays executable can't be changed any more.
        let code = own(ok!(libc::memfd_create(c"m".as_ptr(), EXEC | libc::MFD_ALLOW_SEALING)));
        ok!(libc::fcntl(code.as_raw_fd(), libc::F_ADD_SEALS, SEAL_EXEC));
        let all = SEAL_EXEC | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE | libc::F_SEAL_FUTURE_WRITE;
        assert_eq!(ok!(libc::fcntl(code.as_raw_fd(), libc::F_GET_SEALS)), all);
        err!(libc::ftruncate(code.as_raw_fd(), 100), libc::EPERM);
    }

    fn allocated_pages_of_a_file_in_memory_are_resident_once_they_are_used() {
        use std::os::fd::AsRawFd;
        let fd = own(ok!(libc::memfd_create(c"m".as_ptr(), 0)));
        ok!(libc::fallocate(fd.as_raw_fd(), 0, 0, 4 * PAGE as i64));
        let base: *mut u8 = unsafe { libc::mmap(null_mut(), 4 * PAGE, RW, libc::MAP_SHARED, fd.as_raw_fd(), 0) }.cast();
        assert_eq!(resident(base, 4), [false; 4]);
        put(base.wrapping_add(2 * PAGE), 1);
        assert!(resident(base, 4)[2]);
        let blocks = std::fs::metadata(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::blocks(&blocks), 32);
    }

    fn seals_and_allocation() {
        use std::os::fd::AsRawFd;
        const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let sealed = |seals: i32| {
            let fd = own(ok!(libc::memfd_create(c"m".as_ptr(), libc::MFD_ALLOW_SEALING)));
            ok!(libc::ftruncate(fd.as_raw_fd(), PAGE as i64));
            ok!(libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals));
            fd
        };
        let allocate = |fd: &std::os::fd::OwnedFd, mode, len: usize| unsafe {
            if libc::fallocate(fd.as_raw_fd(), mode, 0, len as i64) == 0 { 0 } else { errno() }
        };
        let written = sealed(libc::F_SEAL_WRITE);
        let results = [allocate(&written, 0, 4 * PAGE), allocate(&written, PUNCH, PAGE), allocate(&written, 1, 8 * PAGE)];
        assert_eq!(results, [0, libc::EPERM, 0]);
        let grown = sealed(libc::F_SEAL_GROW);
        let results = [allocate(&grown, 0, 2 * PAGE), allocate(&grown, 1, 2 * PAGE), allocate(&grown, 0, PAGE), allocate(&grown, PUNCH, PAGE)];
        assert_eq!(results, [libc::EPERM, libc::EPERM, 0, 0]);
        let unknown_to_memory = [2, 16, 18, 66, 64, 128, 8].map(|mode| allocate(&grown, mode, PAGE));
        assert_eq!(unknown_to_memory, [libc::EOPNOTSUPP; 7]);
    }

    fn memfd_is_a_file_without_a_name() {
        use std::os::fd::AsRawFd;
        let fd = own(ok!(libc::memfd_create(c"test".as_ptr(), libc::MFD_CLOEXEC)));
        write(&fd, b"hello");
        let base = ok!(libc::mmap(null_mut(), PAGE, RW, libc::MAP_SHARED, fd.as_raw_fd(), 0)).cast::<u8>();
        assert_eq!(get(base), b'h');
        put(base, b'j');
        ok!(libc::lseek(fd.as_raw_fd(), 0, libc::SEEK_SET));
        assert_eq!(read(&fd, 10), b"jello");
    }
}
