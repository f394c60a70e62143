//! Leases on files, and signals about directories.

use crate::sys::*;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

const F_SETSIG: i32 = 10;

fn lease(fd: &OwnedFd, kind: i32) -> i32 {
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLEASE, kind) } == 0 { 0 } else { errno() }
}

fn held(fd: &OwnedFd) -> i32 {
    ok!(libc::fcntl(fd.as_raw_fd(), libc::F_GETLEASE))
}

fn try_open(path: &str, flags: i32) -> i32 {
    let path = std::ffi::CString::new(path).unwrap();
    let fd = unsafe { libc::open(path.as_ptr(), flags) };
    if fd < 0 { errno() } else { ok!(libc::close(fd)) }
}

/// Blocks the signal and takes it within a time.
fn wait_for(signal: i32, millis: i64) -> Option<libc::siginfo_t> {
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let limit = libc::timespec { tv_sec: millis / 1000, tv_nsec: millis % 1000 * 1_000_000 };
    unsafe {
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        (libc::sigtimedwait(&set, &mut info, &limit) == signal).then_some(info)
    }
}

fn block(signal: i32) {
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    unsafe {
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    }
}

cases! {
    fn a_lease_needs_the_file_for_itself() {
        fs::write("file", "x").unwrap();
        let reader = open("file", libc::O_RDONLY);
        assert_eq!(held(&reader), libc::F_UNLCK);
        assert_eq!(lease(&reader, libc::F_UNLCK), libc::EAGAIN);
        assert_eq!(lease(&reader, 7), libc::EINVAL);
        let writer = open("file", libc::O_RDWR);
        assert_eq!(lease(&reader, libc::F_RDLCK), libc::EAGAIN);
        assert_eq!(lease(&writer, libc::F_WRLCK), libc::EAGAIN, "the reader is in the way");
        drop(reader);
        assert_eq!(lease(&writer, libc::F_RDLCK), libc::EAGAIN, "a reader's lease is for readers");
        assert_eq!(lease(&writer, libc::F_WRLCK), 0);
        assert_eq!(held(&writer), libc::F_WRLCK);
        assert_eq!(lease(&writer, libc::F_UNLCK), 0);
        assert_eq!(held(&writer), libc::F_UNLCK);
        let folder = open(".", libc::O_RDONLY);
        assert_eq!(lease(&folder, libc::F_RDLCK), libc::EINVAL);
    }

    fn readers_share_a_readers_lease() {
        fs::write("file", "x").unwrap();
        let (one, two) = (open("file", libc::O_RDONLY), open("file", libc::O_RDONLY));
        assert_eq!((lease(&one, libc::F_RDLCK), lease(&two, libc::F_RDLCK)), (0, 0));
        assert_eq!(lease(&one, libc::F_WRLCK), libc::EAGAIN);
        assert_eq!(try_open("file", libc::O_RDONLY), 0);
    }

    fn an_opener_waits_for_the_holder() {
        fs::write("file", "x").unwrap();
        block(libc::SIGIO);
        let holder = open("file", libc::O_RDONLY);
        assert_eq!(lease(&holder, libc::F_RDLCK), 0);
        assert_eq!(try_open("file", libc::O_WRONLY | libc::O_NONBLOCK), libc::EAGAIN);
        assert!(wait_for(libc::SIGIO, 2000).is_some(), "the holder is told");
        assert_eq!(held(&holder), libc::F_UNLCK, "what it is to become");
        let helper = child(|| try_open("file", libc::O_WRONLY));
        until_asleep(helper);
        assert_eq!(lease(&holder, libc::F_UNLCK), 0);
        expect_exit(helper, 0);
    }

    fn a_writers_lease_can_become_a_readers() {
        fs::write("file", "x").unwrap();
        block(libc::SIGUSR1);
        let holder = open("file", libc::O_RDONLY);
        assert_eq!(lease(&holder, libc::F_WRLCK), 0);
        ok!(libc::fcntl(holder.as_raw_fd(), F_SETSIG, libc::SIGUSR1));
        let helper = child(|| try_open("file", libc::O_RDONLY));
        let info = wait_for(libc::SIGUSR1, 2000).expect("the signal that was asked for");
        assert_eq!(info.si_code, 3, "POLL_MSG");
        until_asleep(helper);
        assert_eq!(held(&holder), libc::F_RDLCK);
        assert_eq!(lease(&holder, libc::F_RDLCK), 0);
        expect_exit(helper, 0);
        assert_eq!(held(&holder), libc::F_RDLCK);
    }

    fn truncating_breaks_leases_and_time_ends_them() {
        fs::write("/proc/sys/fs/lease-break-time", "1").unwrap();
        fs::write("file", "x").unwrap();
        block(libc::SIGIO);
        let holder = open("file", libc::O_RDONLY);
        assert_eq!(lease(&holder, libc::F_RDLCK), 0);
        let begun = std::time::Instant::now();
        ok!(libc::truncate(c"file".as_ptr(), 0));
        assert!(begun.elapsed().as_millis() >= 500);
        assert_eq!(held(&holder), libc::F_UNLCK);
        fs::write("/proc/sys/fs/lease-break-time", "45").unwrap();
    }

    fn closing_gives_a_lease_up() {
        fs::write("file", "x").unwrap();
        block(libc::SIGIO);
        let holder = open("file", libc::O_RDONLY);
        assert_eq!(lease(&holder, libc::F_RDLCK), 0);
        let fd = holder.as_raw_fd();
        let helper = child(move || { ok!(libc::close(fd)); try_open("file", libc::O_WRONLY) });
        until_asleep(helper);
        drop(holder);
        expect_exit(helper, 0);
    }

    fn others_files_are_not_leased() {
        fs::write("file", "x").unwrap();
        set_mode(std::path::Path::new("file"), 0o666);
        let helper = child(|| {
            ok!(libc::setuid(65534));
            lease(&open("file", libc::O_RDONLY), libc::F_RDLCK)
        });
        expect_exit(helper, libc::EACCES);
    }

    fn directories_signal_once_or_more_often() {
        fs::create_dir("folder").unwrap();
        block(libc::SIGIO);
        let folder = open("folder", libc::O_RDONLY);
        let notify = |wanted: u32| ok!(libc::fcntl(folder.as_raw_fd(), libc::F_NOTIFY, wanted));
        notify(4);
        fs::write("folder/a", "").unwrap();
        assert!(wait_for(libc::SIGIO, 2000).is_some());
        fs::write("folder/b", "").unwrap();
        assert!(wait_for(libc::SIGIO, 100).is_none(), "once");
        notify(8 | 0x8000_0000);
        for name in ["folder/a", "folder/b"] {
            fs::remove_file(name).unwrap();
            assert!(wait_for(libc::SIGIO, 2000).is_some());
        }
        notify(0);
        fs::write("folder/c", "").unwrap();
        fs::remove_file("folder/c").unwrap();
        assert!(wait_for(libc::SIGIO, 100).is_none());
        let file = open("/dev/null", libc::O_RDONLY);
        err!(libc::fcntl(file.as_raw_fd(), libc::F_NOTIFY, 4), libc::ENOTDIR);
    }
}
