//! Files: making and deleting them, reading them again, locking them.

use crate::sys::{c, open};
use crate::timing::{bandwidth, batches, each};
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Seek};
use std::mem::zeroed;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Files that exist at a time.
const FILES: usize = 64;

/// Makes files of a size, then deletes them; the times of both.
fn make_and_delete(names: &[CString], contents: &[u8]) -> (Duration, Duration) {
    let start = Instant::now();
    for name in names {
        let fd = ok!(libc::open(name.as_ptr(), libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY, 0o644));
        if !contents.is_empty() {
            let wrote = ok!(libc::write(fd, contents.as_ptr().cast(), contents.len()));
            assert_eq!(wrote as usize, contents.len(), "bytes written");
        }
        ok!(libc::close(fd));
    }
    let made = start.elapsed();
    let start = Instant::now();
    for name in names {
        ok!(libc::unlink(name.as_ptr()));
    }
    (made, start.elapsed())
}

fn churn(size: usize, which: fn((Duration, Duration)) -> Duration) -> f64 {
    let names: Vec<CString> = (0..FILES).map(|index| c(&format!("churn-{index}"))).collect();
    let contents = vec![b'x'; size];
    batches(|count| (0..count).map(|_| which(make_and_delete(&names, &contents))).sum()) / FILES as f64
}

pub(crate) fn create(size: usize) -> f64 {
    churn(size, |(made, _)| made)
}

pub(crate) fn delete(size: usize) -> f64 {
    churn(size, |(_, deleted)| deleted)
}

/// Reading 4 MiB that are in the page cache, 64 KiB at a time.
pub(crate) fn reread() -> f64 {
    const SIZE: usize = 4 << 20;
    std::fs::write("reread", vec![1; SIZE]).expect("a file");
    let mut file = File::open("reread").expect("the file");
    let mut buffer = vec![0; 64 << 10];
    let time = each(|| {
        file.rewind().expect("the beginning");
        let mut left = SIZE;
        while left > 0 {
            left -= file.read(&mut buffer).expect("a part");
        }
    });
    bandwidth(SIZE, time)
}

/// Reading a page that is in the page cache.
pub(crate) fn read_page() -> f64 {
    let (file, mut page) = a_page();
    each(|| assert_eq!(ok!(libc::pread(file.as_raw_fd(), page.as_mut_ptr().cast(), page.len(), 0)), 4096))
}

/// Writing a page again that is in the page cache.
pub(crate) fn write_page() -> f64 {
    let (file, page) = a_page();
    each(|| assert_eq!(ok!(libc::pwrite(file.as_raw_fd(), page.as_ptr().cast(), page.len(), 0)), 4096))
}

fn a_page() -> (impl AsRawFd, Vec<u8>) {
    std::fs::write("page", [1; 4096]).expect("a file");
    (open("page", libc::O_RDWR), vec![0; 4096])
}

/// A write lock on a byte that nobody else wants, and its release.
pub(crate) fn fcntl_lock() -> f64 {
    let file = open("locked", libc::O_CREAT | libc::O_RDWR);
    let mut lock: libc::flock = unsafe { zeroed() };
    lock.l_len = 1;
    each(|| {
        for kind in [libc::F_WRLCK, libc::F_UNLCK] {
            lock.l_type = kind as i16;
            ok!(libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &lock));
        }
    })
}
