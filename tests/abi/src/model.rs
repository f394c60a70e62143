//! Random operations on a file, each checked against a model in memory, as fsx does. Run in other folders (TMPDIR), they test other file systems.

use crate::sys::*;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::null_mut;

/// No file gets larger.
const LARGEST: usize = 1 << 18;
const PAGE: usize = 4096;
const COLLAPSE: i32 = 8;
const ZERO: i32 = 16;
const INSERT: i32 = 32;

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

/// A file and what it should contain.
struct Modelled {
    fd: OwnedFd,
    /// The file once more, opened with O_DIRECT, where the file system has that.
    direct: Option<OwnedFd>,
    content: Vec<u8>,
    random: Random,
    /// What was done, for who looks into a failure.
    done: Vec<String>,
}

impl Modelled {
    fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// A range that begins in the file or up to a bit behind its end.
    fn range(&mut self) -> (usize, usize) {
        let at = self.random.below((self.content.len() + 3 * PAGE).min(LARGEST));
        let most = [100, PAGE, 10 * PAGE][self.random.below(3)];
        (at, self.random.below(most.min(LARGEST - at)) + 1)
    }

    fn grow(&mut self, end: usize) {
        if end > self.content.len() {
            self.content.resize(end, 0);
        }
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let first = self.random.below(256);
        (0..len).map(|i| (first + i + i / 255) as u8).collect()
    }

    fn write(&mut self) {
        let (at, len) = self.range();
        let bytes = self.bytes(len);
        assert_eq!(ok!(libc::pwrite(self.raw(), bytes.as_ptr().cast(), len, at as i64)), len as isize);
        self.grow(at + len);
        self.content[at..at + len].copy_from_slice(&bytes);
        self.done.push(format!("write {at} {len}"));
    }

    fn read(&mut self) {
        let (at, len) = self.range();
        let mut bytes = vec![0; len];
        let n = ok!(libc::pread(self.raw(), bytes.as_mut_ptr().cast(), len, at as i64)) as usize;
        let expected = self.content.get(at..(at + len).min(self.content.len())).unwrap_or_default();
        self.check(at, &bytes[..n], expected);
    }

    fn check(&self, at: usize, found: &[u8], expected: &[u8]) {
        if found != expected {
            let wrong = found.iter().zip(expected).position(|(one, other)| one != other);
            let last = &self.done[self.done.len().saturating_sub(30)..];
            panic!(
                "from {at} on {} bytes instead of {}, byte {wrong:?} is wrong, after {last:?}",
                found.len(),
                expected.len()
            );
        }
    }

    fn truncate(&mut self) {
        let (size, _) = self.range();
        ok!(libc::ftruncate(self.raw(), size as i64));
        self.content.resize(size, 0);
        self.done.push(format!("truncate {size}"));
    }

    /// Reads or writes through a shared mapping.
    fn map(&mut self, writes: bool) {
        let len = self.content.len();
        if len == 0 {
            return;
        }
        let at = self.random.below(len);
        let n = self.random.below((len - at).min(5 * PAGE)) + 1;
        let n = n.min(len - at);
        let start = at / PAGE * PAGE;
        let protection = libc::PROT_READ | if writes { libc::PROT_WRITE } else { 0 };
        let map =
            unsafe { libc::mmap(null_mut(), at + n - start, protection, libc::MAP_SHARED, self.raw(), start as i64) };
        assert_ne!(map, libc::MAP_FAILED);
        let part = unsafe { std::slice::from_raw_parts_mut(map.cast::<u8>().add(at - start), n) };
        if writes {
            let bytes = self.bytes(n);
            part.copy_from_slice(&bytes);
            self.content[at..at + n].copy_from_slice(&bytes);
            self.done.push(format!("mapped write {at} {n}"));
        } else {
            let found = part.to_vec();
            self.check(at, &found, &self.content[at..at + n]);
        }
        ok!(libc::munmap(map, at + n - start));
    }

    /// fallocate(2); false where the file system can't.
    fn fallocate(&self, mode: i32, at: usize, len: usize) -> bool {
        if unsafe { libc::fallocate(self.raw(), mode, at as i64, len as i64) } == 0 {
            return true;
        }
        assert_eq!(errno(), libc::EOPNOTSUPP, "fallocate {mode} {at} {len} of {}", self.content.len());
        false
    }

    fn punch(&mut self) {
        let (at, len) = self.range();
        if self.fallocate(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, at, len) {
            let end = (at + len).min(self.content.len());
            self.content.get_mut(at..end).into_iter().for_each(|part| part.fill(0));
            self.done.push(format!("punch {at} {len}"));
        }
    }

    fn zero(&mut self) {
        let (at, len) = self.range();
        let keeps = self.random.below(2) == 0;
        if self.fallocate(ZERO | if keeps { libc::FALLOC_FL_KEEP_SIZE } else { 0 }, at, len) {
            if !keeps {
                self.grow(at + len);
            }
            let end = (at + len).min(self.content.len());
            self.content.get_mut(at..end).into_iter().for_each(|part| part.fill(0));
            self.done.push(format!("zero {at} {len}"));
        }
    }

    fn preallocate(&mut self) {
        let (at, len) = self.range();
        let keeps = self.random.below(2) == 0;
        if self.fallocate(if keeps { libc::FALLOC_FL_KEEP_SIZE } else { 0 }, at, len) && !keeps {
            self.grow(at + len);
        }
        self.done.push(format!("allocate {at} {len}"));
    }

    fn shift(&mut self, insert: bool) {
        let pages = self.content.len() / PAGE;
        if pages < 3 {
            return;
        }
        let at = self.random.below(pages - 2) * PAGE;
        let len = (self.random.below(2) + 1) * PAGE;
        if insert && self.content.len() + len <= LARGEST && self.fallocate(INSERT, at, len) {
            self.content.splice(at..at, std::iter::repeat_n(0, len));
            self.done.push(format!("insert {at} {len}"));
        } else if !insert && at + len < self.content.len() && self.fallocate(COLLAPSE, at, len) {
            self.content.drain(at..at + len);
            self.done.push(format!("collapse {at} {len}"));
        }
    }

    fn copy(&mut self) {
        let ((from, len), (to, _)) = (self.range(), self.range());
        let len = len.min(LARGEST - to);
        if from.abs_diff(to) < len {
            return;
        }
        let (mut source, mut target) = (from as i64, to as i64);
        let n = unsafe { libc::copy_file_range(self.raw(), &mut source, self.raw(), &mut target, len, 0) };
        if n < 0 {
            assert!(matches!(errno(), libc::EOPNOTSUPP | libc::EXDEV | libc::EINVAL));
            return;
        }
        let expected = self.content.get(from..(from + len).min(self.content.len())).unwrap_or_default().to_vec();
        assert_eq!(n as usize, expected.len(), "copied from {from} to {to} of {}", self.content.len());
        if !expected.is_empty() {
            self.grow(to + expected.len());
            self.content[to..to + expected.len()].copy_from_slice(&expected);
        }
        self.done.push(format!("copy {from} {to} {len}"));
    }

    fn step(&mut self) {
        match self.random.below(26) {
            0..5 => self.write(),
            5..8 => self.read(),
            8..10 => self.truncate(),
            10..13 => self.map(true),
            13..15 => self.map(false),
            15 => self.punch(),
            16 => self.zero(),
            17 => self.preallocate(),
            18 => self.shift(self.done.len().is_multiple_of(2)),
            19 => self.copy(),
            20 => drop(ok!(libc::fsync(self.raw()))),
            21..24 => self.directly(true),
            24 => self.directly(false),
            // What is clean is read anew from where it is kept.
            _ => drop(unsafe { libc::posix_fadvise(self.raw(), 0, 0, libc::POSIX_FADV_DONTNEED) }),
        }
    }

    /// Reads or writes whole blocks past the page cache.
    fn directly(&mut self, writes: bool) {
        let Some(fd) = self.direct.as_ref().map(AsRawFd::as_raw_fd) else { return };
        let block = [512, PAGE][self.random.below(2)];
        let (at, len) = self.range();
        let (at, len) = (at / block * block, len.next_multiple_of(block));
        if at + len > LARGEST {
            return;
        }
        let layout = std::alloc::Layout::from_size_align(len, PAGE).unwrap();
        let memory = unsafe { std::slice::from_raw_parts_mut(std::alloc::alloc_zeroed(layout), len) };
        if writes {
            memory.copy_from_slice(&self.bytes(len));
            assert_eq!(ok!(libc::pwrite(fd, memory.as_ptr().cast(), len, at as i64)), len as isize);
            self.grow(at + len);
            self.content[at..at + len].copy_from_slice(memory);
            self.done.push(format!("direct write {at} {len}"));
        } else {
            let n = ok!(libc::pread(fd, memory.as_mut_ptr().cast(), len, at as i64)) as usize;
            let expected = self.content.get(at..(at + len).min(self.content.len())).unwrap_or_default();
            self.check(at, &memory[..n], expected);
        }
        unsafe { std::alloc::dealloc(memory.as_mut_ptr(), layout) };
    }

    fn compare(&self) {
        let size = stat("f").st_size as usize;
        assert_eq!(size, self.content.len(), "the size, after {:?}", &self.done[self.done.len().saturating_sub(10)..]);
        self.check(0, &std::fs::read("f").unwrap(), &self.content);
    }
}

fn run(seed: u64, steps: usize) {
    let fd = open("f", libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC);
    let direct = unsafe { libc::open(c("f").as_ptr(), libc::O_RDWR | libc::O_DIRECT) };
    // tmpfs and others refuse it.
    let direct = (direct >= 0).then(|| unsafe { OwnedFd::from_raw_fd(direct) });
    let mut file = Modelled { fd, direct, content: Vec::new(), random: Random(seed), done: Vec::new() };
    for step in 0..steps {
        file.step();
        if step % 25 == 0 {
            file.compare();
        }
        if step % 100 == 99 {
            file.fd = open("f", libc::O_RDWR);
        }
    }
    file.compare();
}

cases! {
    fn random_operations_give_what_they_should() {
        for seed in 1..4 {
            run(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed), 400);
        }
    }

    fn other_random_operations_give_what_they_should() {
        let seed = std::env::var("MODEL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(77);
        run(seed, 1200);
    }
}
