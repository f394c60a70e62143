//! Page faults and mappings.

use crate::sys::{child, open, pipe, wait};
use crate::timing::{batches, each};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

const PAGE: usize = 4096;
const PAGES: usize = 256;
const SIZE: usize = PAGES * PAGE;
/// Coprime to the number of pages: visits all of them, neighbours far apart.
const STRIDE: usize = 97;

/// Writable memory of this process alone, in small pages.
pub(crate) fn anonymous(size: usize) -> *mut u8 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let address = map(size, libc::PROT_READ | libc::PROT_WRITE, flags, -1);
    // A kernel without huge pages may not know the advice.
    unsafe { libc::madvise(address.cast(), size, libc::MADV_NOHUGEPAGE) };
    address
}

fn map(size: usize, protection: i32, flags: i32, fd: i32) -> *mut u8 {
    let address = unsafe { libc::mmap(null_mut(), size, protection, flags, fd, 0) };
    assert_ne!(address, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
    address.cast()
}

fn unmap(address: *mut u8, size: usize) {
    ok!(libc::munmap(address.cast(), size));
}

/// Time of one visit to each page, in an order that read-ahead does not guess.
fn visit(mut page: impl FnMut(usize)) -> Duration {
    let start = Instant::now();
    for index in 0..PAGES {
        page(index * STRIDE % PAGES * PAGE);
    }
    start.elapsed()
}

fn write_pages(memory: *mut u8) -> Duration {
    visit(|offset| unsafe { memory.add(offset).write_volatile(1) })
}

pub(crate) fn fault_anonymous() -> f64 {
    let round = || {
        let memory = anonymous(SIZE);
        let took = write_pages(memory);
        unmap(memory, SIZE);
        took
    };
    batches(|count| (0..count).map(|_| round()).sum()) / PAGES as f64
}

/// Reading a mapped file whose pages are in the page cache.
pub(crate) fn fault_file() -> f64 {
    std::fs::write("mapped", vec![1; SIZE]).expect("a file");
    let file = open("mapped", libc::O_RDONLY);
    let round = || {
        let memory = map(SIZE, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd());
        let took = visit(|offset| {
            unsafe { memory.add(offset).read_volatile() };
        });
        unmap(memory, SIZE);
        took
    };
    batches(|count| (0..count).map(|_| round()).sum()) / PAGES as f64
}

/// Writing to pages that a parent still has.
pub(crate) fn fault_copy_on_write() -> f64 {
    let memory = anonymous(SIZE);
    write_pages(memory);
    let (reader, writer) = pipe();
    let (mut reader, mut writer) = (File::from(reader), File::from(writer));
    let mut round = || {
        let pid = child(|| {
            let took = write_pages(memory).as_nanos() as u64;
            writer.write_all(&took.to_ne_bytes()).expect("write to the parent");
        });
        let mut took = [0; 8];
        reader.read_exact(&mut took).expect("read from the child");
        wait(pid);
        Duration::from_nanos(u64::from_ne_bytes(took))
    };
    batches(|count| (0..count).map(|_| round()).sum()) / PAGES as f64
}

/// Mapping a file, touching every 16 KiB of it, unmapping it.
pub(crate) fn mmap_munmap() -> f64 {
    const LENGTH: usize = 64 << 10;
    std::fs::write("mapped", vec![1; LENGTH]).expect("a file");
    let file = open("mapped", libc::O_RDWR);
    each(|| {
        let memory = map(LENGTH, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file.as_raw_fd());
        for offset in (0..LENGTH).step_by(16 << 10) {
            unsafe { memory.add(offset).write_volatile(2) };
        }
        unmap(memory, LENGTH);
    })
}
