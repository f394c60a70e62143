//! Pipes.

use crate::sys::*;
use std::os::fd::AsRawFd;

fn available(fd: &impl AsRawFd) -> i32 {
    let mut bytes = 0;
    ok!(libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &mut bytes));
    bytes
}

cases! {
    fn bytes_come_out_in_order() {
        let (reader, writer) = pipe();
        write(&writer, b"hello");
        write(&writer, b" world");
        assert_eq!(available(&reader), 11);
        assert_eq!(read(&reader, 3), b"hel");
        assert_eq!(read(&reader, 100), b"lo world");
    }

    fn the_end_comes_when_all_writers_are_gone() {
        let (reader, writer) = pipe();
        let second = writer.try_clone().unwrap();
        write(&writer, b"x");
        drop(writer);
        assert_eq!(read(&reader, 10), b"x");
        set_nonblocking(&reader);
        err!(libc::read(reader.as_raw_fd(), [0u8].as_mut_ptr().cast(), 1), libc::EAGAIN);
        drop(second);
        assert_eq!(read(&reader, 10), b"");
    }

    fn writing_without_readers_is_epipe() {
        act(libc::SIGPIPE, libc::SIG_IGN, 0);
        let (reader, writer) = pipe();
        drop(reader);
        err!(libc::write(writer.as_raw_fd(), b"x".as_ptr().cast(), 1), libc::EPIPE);
    }

    fn ends_are_one_way() {
        let (reader, writer) = pipe();
        err!(libc::write(reader.as_raw_fd(), b"x".as_ptr().cast(), 1), libc::EBADF);
        err!(libc::read(writer.as_raw_fd(), [0u8].as_mut_ptr().cast(), 1), libc::EBADF);
        err!(libc::lseek(reader.as_raw_fd(), 0, libc::SEEK_SET), libc::ESPIPE);
        err!(libc::pread(reader.as_raw_fd(), [0u8].as_mut_ptr().cast(), 1, 0), libc::ESPIPE);
    }

    fn pipe2_checks_flags() {
        let mut fds = [0; 2];
        err!(libc::pipe2(fds.as_mut_ptr(), libc::O_CREAT), libc::EINVAL);
        err!(libc::syscall(libc::SYS_pipe2, 1, 0), libc::EFAULT);
        let (reader, _writer) = pipe_with(libc::O_NONBLOCK | libc::O_CLOEXEC);
        assert_ne!(ok!(libc::fcntl(reader.as_raw_fd(), libc::F_GETFL)) & libc::O_NONBLOCK, 0);
        assert_eq!(ok!(libc::fcntl(reader.as_raw_fd(), libc::F_GETFD)), libc::FD_CLOEXEC);
    }

    fn a_pipe_holds_64_kib() {
        let (reader, writer) = pipe_with(libc::O_NONBLOCK);
        assert_eq!(ok!(libc::fcntl(writer.as_raw_fd(), libc::F_GETPIPE_SZ)), 65536);
        let chunk = [7u8; 4096];
        for _ in 0..16 { write(&writer, &chunk); }
        err!(libc::write(writer.as_raw_fd(), chunk.as_ptr().cast(), 1), libc::EAGAIN);
        assert_eq!(available(&reader), 65536);
        read(&reader, 4096);
        write(&writer, &chunk);
    }

    fn small_writes_are_atomic() {
        let (reader, writer) = pipe_with(libc::O_NONBLOCK);
        for _ in 0..15 { write(&writer, &[0; 4096]); }
        write(&writer, &[0; 4000]);
        // 96 bytes may be free, but a write of up to PIPE_BUF goes in whole or not at all.
        err!(libc::write(writer.as_raw_fd(), [1u8; 200].as_ptr().cast(), 200), libc::EAGAIN);
        let _ = reader;
    }

    fn large_nonblocking_writes_are_cut() {
        let (_reader, writer) = pipe_with(libc::O_NONBLOCK);
        let large = vec![1u8; 200_000];
        assert_eq!(ok!(libc::write(writer.as_raw_fd(), large.as_ptr().cast(), large.len())), 65536);
    }

    fn large_blocking_writes_wait_for_the_reader() {
        let (reader, writer) = pipe();
        let helper = child(|| { write(&writer, &vec![9u8; 1_000_000]); 0 });
        let mut total = 0;
        while total < 1_000_000 {
            let got = read(&reader, 65536);
            assert!(got.iter().all(|byte| *byte == 9) && !got.is_empty());
            total += got.len();
        }
        expect_exit(helper, 0);
    }

    fn writers_do_not_mix_small_writes() {
        let (reader, writer) = pipe();
        let helpers: Vec<i32> = (1..=3u8).map(|byte| child(|| {
            for _ in 0..50 { write(&writer, &[byte; 1000]); }
            0
        })).collect();
        drop(writer);
        let mut all = Vec::new();
        loop {
            let got = read(&reader, 65536);
            if got.is_empty() { break; }
            all.extend(got);
        }
        assert_eq!(all.len(), 150_000);
        assert!(all.chunks(1000).all(|chunk| chunk.iter().all(|byte| *byte == chunk[0])));
        helpers.into_iter().for_each(|pid| expect_exit(pid, 0));
    }

    fn the_size_can_be_changed() {
        let (_reader, writer) = pipe_with(libc::O_NONBLOCK);
        assert_eq!(ok!(libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 5000)), 8192);
        assert_eq!(ok!(libc::write(writer.as_raw_fd(), [0u8; 20000].as_ptr().cast(), 20000)), 8192);
        err!(libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096), libc::EBUSY);
    }

    fn vectors_are_read_and_written() {
        let (reader, writer) = pipe();
        let parts = [
            libc::iovec { iov_base: b"ab".as_ptr() as *mut _, iov_len: 2 },
            libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 },
            libc::iovec { iov_base: b"cde".as_ptr() as *mut _, iov_len: 3 },
        ];
        assert_eq!(ok!(libc::writev(writer.as_raw_fd(), parts.as_ptr(), 3)), 5);
        let (mut one, mut two) = ([0u8; 4], [0u8; 4]);
        let places = [
            libc::iovec { iov_base: one.as_mut_ptr().cast(), iov_len: 4 },
            libc::iovec { iov_base: two.as_mut_ptr().cast(), iov_len: 4 },
        ];
        assert_eq!(ok!(libc::readv(reader.as_raw_fd(), places.as_ptr(), 2)), 5);
        assert_eq!((&one, two[0]), (b"abcd", b'e'));
        err!(libc::writev(writer.as_raw_fd(), parts.as_ptr(), 1025), libc::EINVAL);
        err!(libc::writev(writer.as_raw_fd(), parts.as_ptr(), -1), libc::EINVAL);
    }

    fn stat_says_fifo() {
        let (reader, _writer) = pipe();
        assert_eq!(fstat(&reader).st_mode & libc::S_IFMT, libc::S_IFIFO);
    }

    fn zero_bytes_never_block() {
        let (reader, writer) = pipe();
        assert_eq!(ok!(libc::read(reader.as_raw_fd(), std::ptr::null_mut(), 0)), 0);
        assert_eq!(ok!(libc::write(writer.as_raw_fd(), std::ptr::null(), 0)), 0);
    }

    fn proc_opens_a_pipe_again() {
        let (reader, writer) = pipe();
        let again = open(&format!("/proc/self/fd/{}", writer.as_raw_fd()), libc::O_WRONLY);
        write(&again, b"x");
        assert_eq!(read(&reader, 1), b"x");
    }
}
