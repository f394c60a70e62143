//! Page faults and mappings.

use crate::sys::{child, open, pipe, wait};
use crate::timing::{bandwidth, batches, each};
use std::fs::File;
use std::hint::black_box;
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

/// Mapping a file, writing to every 16 KiB of it, unmapping it.
pub(crate) fn mmap_munmap(length: usize) -> f64 {
    std::fs::write("mapped", vec![1; length]).expect("a file");
    let file = open("mapped", libc::O_RDWR);
    each(|| {
        let memory = map(length, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file.as_raw_fd());
        for offset in (0..length).step_by(16 << 10) {
            unsafe { memory.add(offset).write_volatile(2) };
        }
        unmap(memory, length);
    })
}

/// Bytes that the bandwidth rows go through: more than a cache holds is what lmbench takes, less is
/// enough here, where caches are not modelled.
const STREAM: usize = 4 << 20;

/// Reading memory, word by word.
pub(crate) fn read_bandwidth() -> f64 {
    let memory = vec![1u64; STREAM / 8];
    bandwidth(STREAM, each(|| sum(&memory)))
}

/// Writing memory, word by word.
pub(crate) fn write_bandwidth() -> f64 {
    let mut memory = vec![1u64; STREAM / 8];
    let time = each(|| {
        for word in black_box(memory.as_mut_slice()) {
            // A plain loop might become memset.
            unsafe { std::ptr::write_volatile(word, 2) };
        }
    });
    bandwidth(STREAM, time)
}

/// memcpy(3).
pub(crate) fn copy_bandwidth() -> f64 {
    let from = vec![1u64; STREAM / 8];
    let mut to = vec![2u64; STREAM / 8];
    bandwidth(STREAM, each(|| black_box(to.as_mut_slice()).copy_from_slice(black_box(&from))))
}

/// Mapping a file that is in the page cache, reading all of it, unmapping it.
pub(crate) fn mmap_reread() -> f64 {
    std::fs::write("mapped", vec![1; STREAM]).expect("a file");
    let file = open("mapped", libc::O_RDONLY);
    let time = each(|| {
        let memory = map(STREAM, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd());
        sum(unsafe { std::slice::from_raw_parts(memory.cast::<u64>(), STREAM / 8) });
        unmap(memory, STREAM);
    });
    bandwidth(STREAM, time)
}

fn sum(memory: &[u64]) {
    black_box(black_box(memory).iter().fold(0u64, |sum, word| sum.wrapping_add(*word)));
}
