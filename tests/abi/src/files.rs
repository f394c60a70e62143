//! Open files: descriptors, offsets, flags, truncation, sparse files, copying.

use crate::sys::*;
use std::fs;
use std::os::fd::AsRawFd;

fn size(path: &str) -> i64 {
    stat(path).st_size
}

fn opened(path: &str, flags: i32) -> i32 {
    unsafe { libc::open(c(path).as_ptr(), flags, 0o644) }
}

cases! {
    fn the_lowest_descriptor_is_used() {
        let (one, two) = (open("/dev/null", 0), open("/dev/null", 0));
        let number = one.as_raw_fd();
        drop(one);
        assert_eq!(open("/dev/null", 0).as_raw_fd(), number);
        assert_eq!(ok!(libc::fcntl(two.as_raw_fd(), libc::F_DUPFD, 50)), 50);
        assert_eq!(ok!(libc::fcntl(two.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 50)), 51);
        assert_eq!(ok!(libc::fcntl(51, libc::F_GETFD)), libc::FD_CLOEXEC);
        assert_eq!(ok!(libc::fcntl(50, libc::F_GETFD)), 0);
    }

    fn dup2_and_dup3() {
        let fd = open("/dev/null", 0).as_raw_fd();
        let fd = ok!(libc::dup2(open("/dev/null", 0).as_raw_fd(), fd + 10));
        assert_eq!(ok!(libc::dup2(fd, fd)), fd);
        err!(libc::dup3(fd, fd, 0), libc::EINVAL);
        err!(libc::dup2(9999, 5), libc::EBADF);
        err!(libc::dup2(fd, -1), libc::EBADF);
        assert_eq!(ok!(libc::dup3(fd, 60, libc::O_CLOEXEC)), 60);
        assert_eq!(ok!(libc::fcntl(60, libc::F_GETFD)), libc::FD_CLOEXEC);
    }

    fn closed_descriptors_are_bad() {
        err!(libc::close(9999), libc::EBADF);
        err!(libc::read(9999, std::ptr::null_mut(), 0), libc::EBADF);
        err!(libc::fcntl(9999, libc::F_GETFD), libc::EBADF);
        err!(libc::dup(-1), libc::EBADF);
    }

    fn close_range_closes() {
        let fd = open("/dev/null", 0);
        for number in 40..45 { ok!(libc::dup2(fd.as_raw_fd(), number)); }
        ok!(libc::syscall(libc::SYS_close_range, 41, 43, 0));
        ok!(libc::fcntl(40, libc::F_GETFD));
        err!(libc::fcntl(42, libc::F_GETFD), libc::EBADF);
        ok!(libc::fcntl(44, libc::F_GETFD));
        ok!(libc::syscall(libc::SYS_close_range, 44, 44, libc::CLOSE_RANGE_CLOEXEC));
        assert_eq!(ok!(libc::fcntl(44, libc::F_GETFD)), libc::FD_CLOEXEC);
        err!(libc::syscall(libc::SYS_close_range, 5, 4, 0), libc::EINVAL);
    }

    fn direct_io_is_for_files_and_disks() {
        ok!(libc::mkfifo(c"p".as_ptr(), 0o644));
        for path in [".", "p", "/dev/null", "/proc/version"] {
            err!(opened(path, libc::O_RDONLY | libc::O_NONBLOCK | libc::O_DIRECT), libc::EINVAL);
        }
        for path in [".", "/dev/null", "/proc/version"] {
            let fd = open(path, libc::O_RDONLY);
            err!(libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_DIRECT), libc::EINVAL);
        }
        let (reader, _writer) = pipe();
        ok!(libc::fcntl(reader.as_raw_fd(), libc::F_SETFL, libc::O_DIRECT));
    }

    fn open_flags() {
        err!(opened("f", libc::O_RDONLY), libc::ENOENT);
        ok!(opened("f", libc::O_RDWR | libc::O_CREAT | libc::O_EXCL));
        err!(opened("f", libc::O_RDWR | libc::O_CREAT | libc::O_EXCL), libc::EEXIST);
        file("f", b"abc");
        drop(open("f", libc::O_WRONLY | libc::O_TRUNC));
        assert_eq!(size("f"), 0);
        err!(opened("f", libc::O_RDONLY | libc::O_DIRECTORY), libc::ENOTDIR);
        err!(opened(".", libc::O_RDWR), libc::EISDIR);
        err!(opened(".", libc::O_RDONLY | libc::O_CREAT), libc::EISDIR);
        std::os::unix::fs::symlink("f", "link").unwrap();
        err!(opened("link", libc::O_RDONLY | libc::O_NOFOLLOW), libc::ELOOP);
        err!(opened("link", libc::O_RDWR | libc::O_CREAT | libc::O_EXCL), libc::EEXIST);
        err!(opened("f/", libc::O_RDONLY), libc::ENOTDIR);
        err!(opened("", libc::O_RDONLY), libc::ENOENT);
        err!(opened(&"x".repeat(256), libc::O_RDONLY), libc::ENAMETOOLONG);
        err!(opened(&"x/".repeat(2100), libc::O_RDONLY), libc::ENAMETOOLONG);
    }

    fn access_modes_are_kept() {
        file("f", b"abc");
        err!(libc::write(open("f", libc::O_RDONLY).as_raw_fd(), b"x".as_ptr().cast(), 1), libc::EBADF);
        err!(libc::read(open("f", libc::O_WRONLY).as_raw_fd(), [0u8].as_mut_ptr().cast(), 1), libc::EBADF);
        let path = open("f", libc::O_PATH);
        err!(libc::read(path.as_raw_fd(), [0u8].as_mut_ptr().cast(), 1), libc::EBADF);
        assert_eq!(fstat(&path).st_size, 3);
        assert_eq!(ok!(libc::fcntl(open("f", libc::O_RDWR | libc::O_APPEND).as_raw_fd(), libc::F_GETFL)) & (libc::O_ACCMODE | libc::O_APPEND), libc::O_RDWR | libc::O_APPEND);
    }

    fn seeking() {
        file("f", b"abcdef");
        let fd = open("f", libc::O_RDWR);
        let seek = |offset, whence| unsafe { libc::lseek(fd.as_raw_fd(), offset, whence) };
        assert_eq!(ok!(seek(-2, libc::SEEK_END)), 4);
        assert_eq!(read(&fd, 9), b"ef");
        assert_eq!(ok!(seek(-3, libc::SEEK_CUR)), 3);
        assert_eq!(ok!(seek(100, libc::SEEK_SET)), 100);
        assert_eq!(read(&fd, 9), b"");
        err!(seek(-1, libc::SEEK_SET), libc::EINVAL);
        err!(seek(0, 99), libc::EINVAL);
        write(&fd, b"z");
        assert_eq!(fs::read("f").unwrap()[6..], [&[0u8; 94][..], b"z"].concat());
    }

    fn appending_always_goes_to_the_end() {
        file("f", b"abc");
        let fd = open("f", libc::O_RDWR | libc::O_APPEND);
        ok!(libc::lseek(fd.as_raw_fd(), 0, libc::SEEK_SET));
        file("g", b"");
        write(&fd, b"d");
        assert_eq!(fs::read("f").unwrap(), b"abcd");
        assert_eq!(ok!(libc::lseek(fd.as_raw_fd(), 0, libc::SEEK_CUR)), 4);
    }

    fn positioned_input_and_output() {
        file("f", b"abcdef");
        let fd = open("f", libc::O_RDWR);
        let mut bytes = [0u8; 3];
        assert_eq!(ok!(libc::pread(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), 3, 2)), 3);
        assert_eq!(&bytes, b"cde");
        assert_eq!(ok!(libc::pwrite(fd.as_raw_fd(), b"XY".as_ptr().cast(), 2, 1)), 2);
        assert_eq!(read(&fd, 9), b"aXYdef", "the offset did not move");
        err!(libc::pread(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), 3, -1), libc::EINVAL);
    }

    fn truncation() {
        file("f", b"abcdef");
        ok!(libc::truncate(c"f".as_ptr(), 3));
        assert_eq!(fs::read("f").unwrap(), b"abc");
        ok!(libc::truncate(c"f".as_ptr(), 5));
        assert_eq!(fs::read("f").unwrap(), b"abc\0\0");
        err!(libc::truncate(c"f".as_ptr(), -1), libc::EINVAL);
        err!(libc::truncate(c".".as_ptr(), 0), libc::EISDIR);
        err!(libc::ftruncate(open("f", libc::O_RDONLY).as_raw_fd(), 0), libc::EINVAL);
    }

    fn sparse_files() {
        let fd = open("f", libc::O_RDWR | libc::O_CREAT);
        ok!(libc::pwrite(fd.as_raw_fd(), b"x".as_ptr().cast(), 1, 10 << 20));
        assert_eq!(size("f"), (10 << 20) + 1);
        assert!(stat("f").st_blocks < 1000, "{} blocks", stat("f").st_blocks);
        let mut bytes = [1u8; 100];
        ok!(libc::pread(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), 100, 5 << 20));
        assert_eq!(bytes, [0; 100]);
    }

    fn file_size_limit() {
        in_child(|| {
            ok!(libc::setrlimit(libc::RLIMIT_FSIZE, &libc::rlimit { rlim_cur: 10, rlim_max: 10 }));
            act(libc::SIGXFSZ, libc::SIG_IGN, 0);
            let fd = open("f", libc::O_RDWR | libc::O_CREAT);
            assert_eq!(ok!(libc::write(fd.as_raw_fd(), [0u8; 20].as_ptr().cast(), 20)), 10);
            err!(libc::write(fd.as_raw_fd(), [0u8; 20].as_ptr().cast(), 20), libc::EFBIG);
            err!(libc::ftruncate(fd.as_raw_fd(), 100), libc::EFBIG);
        });
    }

    fn unlinked_files_live_on() {
        file("f", b"abc");
        let fd = open("f", libc::O_RDWR);
        fs::remove_file("f").unwrap();
        assert_eq!(read(&fd, 9), b"abc");
        assert_eq!(fstat(&fd).st_nlink, 0);
        let shown = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
        assert!(shown.to_string_lossy().ends_with("/f (deleted)"));
    }

    fn times_move() {
        file("f", b"abc");
        let times = [libc::timespec { tv_sec: 1000, tv_nsec: 5 }, libc::timespec { tv_sec: 2000, tv_nsec: 6 }];
        ok!(libc::utimensat(libc::AT_FDCWD, c"f".as_ptr(), times.as_ptr(), 0));
        let got = stat("f");
        assert_eq!((got.st_atime, got.st_atime_nsec, got.st_mtime, got.st_mtime_nsec), (1000, 5, 2000, 6));
        write(&open("f", libc::O_WRONLY), b"x");
        assert!(stat("f").st_mtime > 2000);
        let bad = [libc::timespec { tv_sec: 0, tv_nsec: 2_000_000_000 }; 2];
        err!(libc::utimensat(libc::AT_FDCWD, c"f".as_ptr(), bad.as_ptr(), 0), libc::EINVAL);
    }

    fn files_go_to_sockets_whole() {
        use std::io::Read;
        use std::net::{TcpListener, TcpStream};
        const LEN: usize = 300_001;
        // The middle is a hole.
        let pattern = |at: usize| if (100_000..200_000).contains(&at) { 0 } else { (at * 31 / 7) as u8 | 1 };
        let expected: Vec<u8> = (0..LEN).map(pattern).collect();
        let file = open("sent", libc::O_RDWR | libc::O_CREAT);
        ok!(libc::pwrite(file.as_raw_fd(), expected.as_ptr().cast(), 100_000, 0));
        ok!(libc::pwrite(file.as_raw_fd(), expected[200_000..].as_ptr().cast(), LEN - 200_000, 200_000));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let (unix, other) = std::os::unix::net::UnixStream::pair().unwrap();
        let collect = |mut stream: Box<dyn Read + Send>| std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            bytes
        });
        let readers = [collect(Box::new(accepted)), collect(Box::new(other))];
        for out in [tcp.as_raw_fd(), unix.as_raw_fd()] {
            let mut offset = 5000i64;
            // A length beyond the end.
            while offset < LEN as i64 {
                assert!(ok!(libc::sendfile(out, file.as_raw_fd(), &raw mut offset, 2 * LEN)) > 0);
            }
            assert_eq!(ok!(libc::sendfile(out, file.as_raw_fd(), &raw mut offset, 10)), 0, "at the end");
            // The rest by way of a pipe, by pieces that do not fit pages.
            let (reader, writer) = pipe();
            let mut at = 1i64;
            while at < 5000 {
                let want = (5000 - at).min(1777) as usize;
                let moved = ok!(libc::splice(file.as_raw_fd(), &raw mut at, writer.as_raw_fd(), std::ptr::null_mut(), want, 0));
                let mut left = moved as usize;
                while left > 0 {
                    left -= ok!(libc::splice(reader.as_raw_fd(), std::ptr::null_mut(), out, std::ptr::null_mut(), left, 0)) as usize;
                }
            }
        }
        drop((tcp, unix));
        let sent = [&expected[5000..], &expected[1..5000]].concat();
        for reader in readers {
            assert!(reader.join().unwrap() == sent);
        }
        assert_eq!(ok!(libc::lseek(file.as_raw_fd(), 0, libc::SEEK_CUR)), 0, "its position stays");
    }

    fn sendfile_copies() {
        file("f", &[5u8; 100_000]);
        let (from, to) = (open("f", libc::O_RDONLY), open("g", libc::O_RDWR | libc::O_CREAT));
        let mut left = 100_000;
        while left > 0 { left -= ok!(libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), std::ptr::null_mut(), left)) as usize; }
        assert!(fs::read("g").unwrap() == vec![5u8; 100_000]);
        let mut offset = 99_990;
        assert_eq!(ok!(libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), &mut offset, 100)), 10);
        assert_eq!(offset, 100_000);
    }

    fn locks_between_processes() {
        let fd = open("f", libc::O_RDWR | libc::O_CREAT);
        let lock = |fd: i32, kind: i32, command| {
            let mut lock: libc::flock = unsafe { std::mem::zeroed() };
            (lock.l_type, lock.l_len) = (kind as i16, 10);
            (unsafe { libc::fcntl(fd, command, &mut lock) }, lock)
        };
        ok!(lock(fd.as_raw_fd(), libc::F_WRLCK, libc::F_SETLK).0);
        let owner = std::process::id() as i32;
        in_child(|| {
            let again = open("f", libc::O_RDWR);
            err!(lock(again.as_raw_fd(), libc::F_RDLCK, libc::F_SETLK).0, libc::EAGAIN);
            let (_, held) = lock(again.as_raw_fd(), libc::F_RDLCK, libc::F_GETLK);
            assert_eq!((i32::from(held.l_type), held.l_pid), (libc::F_WRLCK, owner));
        });
        // Closing any descriptor of the file drops this process's locks.
        drop(open("f", libc::O_RDWR));
        in_child(|| { ok!(lock(open("f", libc::O_RDWR).as_raw_fd(), libc::F_WRLCK, libc::F_SETLK).0); });
    }

    fn whole_file_locks() {
        let (one, two) = (open("f", libc::O_RDWR | libc::O_CREAT), open("f", libc::O_RDWR));
        ok!(libc::flock(one.as_raw_fd(), libc::LOCK_EX));
        err!(libc::flock(two.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB), libc::EAGAIN);
        ok!(libc::flock(one.as_raw_fd(), libc::LOCK_SH));
        ok!(libc::flock(two.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB));
        err!(libc::flock(one.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB), libc::EAGAIN);
        drop(two);
        ok!(libc::flock(one.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB));
    }

    fn ranges_are_copied_within_limits() {
        fs::write("f", "0123456789").unwrap();
        let (file, other) = (open("f", libc::O_RDWR), open("g", libc::O_RDWR | libc::O_CREAT));
        let copy = |from: i32, at: i64, to: i32, to_at: i64, len: usize, flags: u32| {
            let (mut at, mut to_at) = (at, to_at);
            let n = unsafe { libc::copy_file_range(from, &mut at, to, &mut to_at, len, flags) };
            if n < 0 { -(errno() as isize) } else { n }
        };
        let (f, g) = (file.as_raw_fd(), other.as_raw_fd());
        assert_eq!(copy(f, 4, g, 2, 100, 0), 6);
        assert_eq!(fs::read("g").unwrap(), [b"\0\0", &b"456789"[..]].concat());
        // What the copy adds to the file is not copied on.
        assert_eq!(copy(f, 7, f, 12, 5, 0), 3);
        assert_eq!(fs::read("f").unwrap(), [b"0123456789\0\0", &b"789"[..]].concat());
        assert_eq!(copy(f, 0, f, 5, 6, 0), -(libc::EINVAL as isize));
        assert_eq!(copy(f, 100, g, 0, 10, 0), 0);
        assert_eq!(copy(f, 0, g, 0, 1, 1), -(libc::EINVAL as isize));
        assert_eq!(copy(f, 0, -1, 0, 1, 1), -(libc::EBADF as isize));
        let folder = open(".", libc::O_RDONLY);
        assert_eq!(copy(f, 0, folder.as_raw_fd(), 0, 1, 0), -(libc::EISDIR as isize));
        assert_eq!(copy(f, 0, open("/dev/null", libc::O_RDWR).as_raw_fd(), 0, 1, 0), -(libc::EINVAL as isize));
        assert_eq!(copy(f, 0, open("g", libc::O_RDONLY).as_raw_fd(), 0, 1, 0), -(libc::EBADF as isize));
        assert_eq!(copy(f, 0, open("g", libc::O_WRONLY | libc::O_APPEND).as_raw_fd(), 0, 1, 0), -(libc::EBADF as isize));
        assert_eq!(copy(f, 1, g, 0, usize::MAX, 0), -(libc::EOVERFLOW as isize));
        let elsewhere = unsafe { libc::memfd_create(c"m".as_ptr(), 0) };
        assert_eq!(copy(f, 0, elsewhere, 0, 1, 0), -(libc::EXDEV as isize));
    }

    fn locks_are_listed() {
        let (one, two) = (open("f", libc::O_RDWR | libc::O_CREAT), open("f", libc::O_RDWR));
        let mut range: libc::flock = unsafe { std::mem::zeroed() };
        (range.l_type, range.l_start, range.l_len) = (libc::F_WRLCK as i16, 5, 10);
        ok!(libc::fcntl(one.as_raw_fd(), libc::F_SETLK, &range));
        ok!(libc::flock(two.as_raw_fd(), libc::LOCK_SH));
        (range.l_start, range.l_len) = (100, 0);
        ok!(libc::fcntl(two.as_raw_fd(), libc::F_OFD_SETLK, &range));
        let (pid, number) = (std::process::id(), stat("f").st_ino);
        let listed = |file: &str| {
            let text = fs::read_to_string(file).unwrap();
            let ours = text.lines().filter(|line| line.contains(&format!(":{number} ")));
            ours.map(|line| line.split_whitespace().filter(|word| !word.contains(':')).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
        };
        let mut all = listed("/proc/locks");
        all.sort();
        let (flock, posix) = (format!("FLOCK ADVISORY READ {pid} 0 EOF"), format!("POSIX ADVISORY WRITE {pid} 5 14"));
        let ofd = "OFDLCK ADVISORY WRITE -1 100 EOF".to_owned();
        assert_eq!(all, [flock.clone(), ofd.clone(), posix.clone()]);
        assert_eq!(listed(&format!("/proc/self/fdinfo/{}", one.as_raw_fd())), std::slice::from_ref(&posix));
        assert_eq!(listed(&format!("/proc/self/fdinfo/{}", two.as_raw_fd())), [flock, ofd]);
        let child = child(|| { ok!(libc::flock(one.as_raw_fd(), libc::LOCK_EX)); 0 });
        until_asleep(child);
        assert!(listed("/proc/locks").contains(&format!("-> FLOCK ADVISORY WRITE {child} 0 EOF")), "{:?}", listed("/proc/locks"));
        ok!(libc::flock(two.as_raw_fd(), libc::LOCK_UN));
        expect_exit(child, 0);
    }

    fn devices_behave() {
        assert_eq!(read(&open("/dev/null", libc::O_RDONLY), 9), b"");
        write(&open("/dev/null", libc::O_WRONLY), &[0; 100]);
        assert_eq!(read(&open("/dev/zero", libc::O_RDONLY), 9), [0; 9]);
        assert_eq!(read(&open("/dev/full", libc::O_RDONLY), 2), [0; 2]);
        err!(libc::write(open("/dev/full", libc::O_WRONLY).as_raw_fd(), b"x".as_ptr().cast(), 1), libc::ENOSPC);
        let random = open("/dev/urandom", libc::O_RDONLY);
        assert_ne!(read(&random, 16), read(&random, 16));
        assert_eq!(stat("/dev/null").st_rdev, libc::makedev(1, 3));
    }

    fn getrandom_gives_bytes() {
        let mut bytes = [0u8; 64];
        assert_eq!(ok!(libc::getrandom(bytes.as_mut_ptr().cast(), 64, 0)), 64);
        assert!(bytes.iter().any(|byte| *byte != 0));
        err!(libc::getrandom(bytes.as_mut_ptr().cast(), 64, 0x100), libc::EINVAL);
        err!(libc::syscall(libc::SYS_getrandom, 1, 64, 0), libc::EFAULT);
    }
}
