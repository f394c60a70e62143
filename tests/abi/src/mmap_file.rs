//! Mapped files.

use crate::sys::*;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null_mut;

const PAGE: usize = 4096;
const R: i32 = libc::PROT_READ;
const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

fn sample(length: usize) -> OwnedFd {
    let contents: Vec<u8> = (0..length).map(|at| (at / PAGE + 1) as u8).collect();
    file("f", &contents);
    open("f", libc::O_RDWR)
}

fn map_file(fd: &OwnedFd, length: usize, protection: i32, flags: i32, offset: i64) -> *mut u8 {
    ok!(libc::mmap(null_mut(), length, protection, flags, fd.as_raw_fd(), offset)).cast()
}

fn get(base: *mut u8, at: usize) -> u8 {
    unsafe { base.add(at).read_volatile() }
}

fn put(base: *mut u8, at: usize, value: u8) {
    unsafe { base.add(at).write_volatile(value) }
}

cases! {
    fn a_mapping_shows_the_file() {
        let fd = sample(3 * PAGE);
        let base = map_file(&fd, 3 * PAGE, R, libc::MAP_PRIVATE, 0);
        assert_eq!((get(base, 0), get(base, PAGE), get(base, 3 * PAGE - 1)), (1, 2, 3));
        let base = map_file(&fd, PAGE, R, libc::MAP_PRIVATE, 2 * PAGE as i64);
        assert_eq!(get(base, 0), 3);
    }

    fn shared_writes_reach_the_file() {
        let fd = sample(2 * PAGE);
        let base = map_file(&fd, 2 * PAGE, RW, libc::MAP_SHARED, 0);
        put(base, PAGE + 5, 77);
        let mut byte = 0u8;
        ok!(libc::pread(fd.as_raw_fd(), (&raw mut byte).cast(), 1, PAGE as i64 + 5));
        assert_eq!(byte, 77);
        ok!(libc::msync(base.cast(), 2 * PAGE, libc::MS_SYNC));
        assert_eq!(std::fs::read("f").unwrap()[PAGE + 5], 77);
    }

    fn file_writes_reach_shared_mappings() {
        let fd = sample(PAGE);
        let shared = map_file(&fd, PAGE, R, libc::MAP_SHARED, 0);
        let private = map_file(&fd, PAGE, R, libc::MAP_PRIVATE, 0);
        assert_eq!(get(shared, 9), 1);
        ok!(libc::pwrite(fd.as_raw_fd(), b"z".as_ptr().cast(), 1, 9));
        assert_eq!((get(shared, 9), get(private, 9)), (b'z', b'z'));
    }

    fn private_writes_stay_private() {
        let fd = sample(PAGE);
        let (one, two) = (map_file(&fd, PAGE, RW, libc::MAP_PRIVATE, 0), map_file(&fd, PAGE, R, libc::MAP_SHARED, 0));
        put(one, 0, 50);
        assert_eq!((get(one, 0), get(two, 0)), (50, 1));
        assert_eq!(std::fs::read("f").unwrap()[0], 1);
    }

    fn private_mappings_are_copied_on_fork() {
        let fd = sample(PAGE);
        let base = map_file(&fd, PAGE, RW, libc::MAP_PRIVATE, 0);
        put(base, 0, 50);
        in_child(|| { assert_eq!(get(base, 0), 50); put(base, 0, 60); });
        assert_eq!(get(base, 0), 50);
    }

    fn shared_mappings_are_shared_on_fork() {
        let fd = sample(PAGE);
        let base = map_file(&fd, PAGE, RW, libc::MAP_SHARED, 0);
        in_child(|| put(base, 0, 60));
        assert_eq!(get(base, 0), 60);
    }

    fn the_tail_of_the_last_page_is_zero() {
        let fd = sample(100);
        let base = map_file(&fd, PAGE, RW, libc::MAP_SHARED, 0);
        assert_eq!((get(base, 99), get(base, 100), get(base, PAGE - 1)), (1, 0, 0));
        put(base, 200, 9);
        assert_eq!(std::fs::read("f").unwrap().len(), 100);
    }

    fn truncation_takes_pages_away() {
        let fd = sample(2 * PAGE);
        let base = map_file(&fd, 2 * PAGE, R, libc::MAP_SHARED, 0);
        assert_eq!(get(base, PAGE), 2);
        ok!(libc::ftruncate(fd.as_raw_fd(), PAGE as i64));
        expect_signal(child(|| i32::from(get(base, PAGE))), libc::SIGBUS);
        ok!(libc::ftruncate(fd.as_raw_fd(), 2 * PAGE as i64));
        assert_eq!(get(base, PAGE), 0);
    }

    fn system_calls_into_truncated_mappings_fail() {
        let fd = sample(PAGE);
        let base = map_file(&fd, PAGE, RW, libc::MAP_SHARED, 0);
        ok!(libc::ftruncate(fd.as_raw_fd(), 0));
        let (_reader, writer) = pipe();
        err!(libc::write(writer.as_raw_fd(), base.cast(), 1), libc::EFAULT);
    }

    fn rights_follow_the_descriptor() {
        sample(PAGE);
        let reading = open("f", libc::O_RDONLY);
        let writing = open("f", libc::O_WRONLY);
        let map = |fd: &OwnedFd, protection, flags| unsafe { libc::mmap(null_mut(), PAGE, protection, flags, fd.as_raw_fd(), 0) };
        err!(map(&reading, RW, libc::MAP_SHARED), libc::EACCES);
        ok!(map(&reading, RW, libc::MAP_PRIVATE));
        err!(map(&writing, R, libc::MAP_PRIVATE), libc::EACCES);
        let base = ok!(map(&reading, R, libc::MAP_SHARED));
        err!(libc::mprotect(base, PAGE, RW), libc::EACCES);
    }

    fn what_cannot_be_mapped() {
        let map = |fd: i32, offset| unsafe { libc::mmap(null_mut(), PAGE, R, libc::MAP_PRIVATE, fd, offset) };
        let (reader, _writer) = pipe();
        err!(map(reader.as_raw_fd(), 0), libc::ENODEV);
        let folder = open("/", libc::O_RDONLY | libc::O_DIRECTORY);
        err!(map(folder.as_raw_fd(), 0), libc::ENODEV);
        let fd = sample(PAGE);
        err!(map(fd.as_raw_fd(), 100), libc::EINVAL);
        err!(map(9999, 0), libc::EBADF);
    }

    fn a_mapping_outlives_its_descriptor_and_name() {
        let fd = sample(PAGE);
        let base = map_file(&fd, PAGE, R, libc::MAP_PRIVATE, 0);
        drop(fd);
        std::fs::remove_file("f").unwrap();
        assert_eq!(get(base, 100), 1);
    }

    fn dev_zero_maps_as_memory() {
        let fd = open("/dev/zero", libc::O_RDWR);
        let base = map_file(&fd, PAGE, RW, libc::MAP_PRIVATE, 0);
        put(base, 3, 1);
        assert_eq!((get(base, 2), get(base, 3)), (0, 1));
        let shared = map_file(&fd, PAGE, RW, libc::MAP_SHARED, 0);
        let status = wait(child(|| {
            put(shared, 3, 7);
            0
        }));
        assert_eq!((status, get(shared, 3)), (0, 7));
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let name = |base: *mut u8| {
            let line = maps.lines().find(|line| line.starts_with(&format!("{:08x}-", base.addr()))).expect("a line");
            line.split_whitespace().skip(5).collect::<Vec<_>>().join(" ")
        };
        assert_eq!([name(base), name(shared)], ["/dev/zero", "/dev/zero (deleted)"]);
        let anonymous = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, RW, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0) };
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(maps.lines().any(|line| {
            line.starts_with(&format!("{:08x}-", anonymous.addr())) && line.ends_with(" /dev/zero (deleted)")
        }));
    }

    fn dontneed_brings_the_file_back() {
        let fd = sample(PAGE);
        let base = map_file(&fd, PAGE, RW, libc::MAP_PRIVATE, 0);
        put(base, 0, 50);
        ok!(libc::madvise(base.cast(), PAGE, libc::MADV_DONTNEED));
        assert_eq!(get(base, 0), 1);
    }

    fn msync_checks_its_arguments() {
        let fd = sample(PAGE);
        let base = map_file(&fd, PAGE, RW, libc::MAP_SHARED, 0);
        err!(libc::msync(base.wrapping_add(1).cast(), PAGE, libc::MS_SYNC), libc::EINVAL);
        err!(libc::msync(base.cast(), PAGE, libc::MS_SYNC | libc::MS_ASYNC), libc::EINVAL);
        ok!(libc::munmap(base.cast(), PAGE));
        err!(libc::msync(base.cast(), PAGE, libc::MS_SYNC), libc::ENOMEM);
    }

    fn reading_a_file_into_its_own_mapping() {
        let fd = sample(2 * PAGE);
        let base = map_file(&fd, 2 * PAGE, RW, libc::MAP_SHARED, 0);
        assert_eq!(ok!(libc::pread(fd.as_raw_fd(), base.cast(), PAGE, PAGE as i64)), PAGE as isize);
        assert_eq!(get(base, 0), 2);
    }

    fn pages_written_through_mappings_fill_a_tmpfs() {
        ok!(libc::unshare(libc::CLONE_NEWNS));
        let root = c"/".as_ptr();
        ok!(libc::mount(std::ptr::null(), root, std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE, std::ptr::null()));
        std::fs::create_dir("small").unwrap();
        let options = c"size=32k".as_ptr().cast();
        ok!(libc::mount(c"small".as_ptr(), c"small".as_ptr(), c"tmpfs".as_ptr(), 0, options));
        let free = || {
            let mut found: libc::statfs = unsafe { std::mem::zeroed() };
            ok!(libc::statfs(c"small".as_ptr(), &mut found));
            found.f_bfree
        };
        let fd = open("small/f", libc::O_CREAT | libc::O_RDWR);
        ok!(libc::ftruncate(fd.as_raw_fd(), 16 * PAGE as i64));
        let base = map_file(&fd, 16 * PAGE, RW, libc::MAP_SHARED, 0);
        assert_eq!(free(), 8);
        (0..3).for_each(|page| put(base, page * PAGE, 1));
        assert_eq!(free(), 5);
        expect_signal(child(|| (0..16).map(|page| put(base, page * PAGE, 1)).count() as i32), libc::SIGBUS);
        assert_eq!(free(), 0);
        let byte = [1u8];
        err!(libc::pwrite(fd.as_raw_fd(), byte.as_ptr().cast(), 1, 15 * PAGE as i64), libc::ENOSPC);
        ok!(libc::ftruncate(fd.as_raw_fd(), PAGE as i64));
        assert_eq!(free(), 7);
    }
}
