//! What /proc tells of a process's memory: smaps, pagemap, clear_refs, map_files; and of the call that a thread is in.

use crate::sys::*;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

const PAGE: usize = 4096;
const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
const CHANGED: u64 = 1 << 55;
const ALONE: u64 = 1 << 56;
const FILE: u64 = 1 << 61;
const PRESENT: u64 = 1 << 63;

/// Pages between two that nothing may be merged with.
fn apart(pages: usize, flags: i32) -> *mut u8 {
    let base = map((pages + 2) * PAGE, libc::PROT_NONE).wrapping_add(PAGE);
    let at = unsafe { libc::mmap(base.cast(), pages * PAGE, RW, libc::MAP_FIXED | libc::MAP_ANONYMOUS | flags, -1, 0) };
    assert_eq!(at, base.cast());
    base
}

fn touch(at: *mut u8, pages: impl IntoIterator<Item = usize>) {
    pages.into_iter().for_each(|page| unsafe { at.add(page * PAGE).write_volatile(1) });
}

fn look(at: *mut u8, page: usize) {
    unsafe { at.add(page * PAGE).read_volatile() };
}

/// A figure in KiB of the mapping that begins at `at`.
fn smaps(at: *mut u8, name: &str) -> usize {
    let text = fs::read_to_string("/proc/self/smaps").unwrap();
    let start = format!("{:08x}-", at.addr());
    let line =
        text.lines().skip_while(|line| !line.starts_with(&start)).find(|line| line.starts_with(&format!("{name}:")));
    line.expect(name).split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn pagemap(at: *mut u8, pages: usize) -> Vec<u64> {
    let file = fs::File::open("/proc/self/pagemap").unwrap();
    let mut bytes = vec![0; pages * 8];
    file.read_exact_at(&mut bytes, (at.addr() / PAGE * 8) as u64).unwrap();
    bytes.chunks(8).map(|entry| u64::from_ne_bytes(entry.try_into().unwrap())).collect()
}

fn clear_refs(what: &str) {
    fs::write("/proc/self/clear_refs", what).unwrap();
}

cases! {
    fn smaps_tells_whose_pages_are_whose() {
        let at = apart(8, libc::MAP_PRIVATE);
        touch(at, 0..4);
        // What was only read has no memory of its own.
        look(at, 5);
        assert_eq!(["Size", "Rss", "Pss", "Pss_Dirty", "Anonymous"].map(|name| smaps(at, name)), [32, 16, 16, 16, 16]);
        assert_eq!(["Private_Dirty", "Private_Clean", "Shared_Dirty", "Swap"].map(|name| smaps(at, name)), [16, 0, 0, 0]);
        // A child has half of what it has not written.
        let status = wait(child(|| {
            touch(at, 0..1);
            let seen = ["Rss", "Pss", "Private_Dirty", "Shared_Dirty"].map(|name| smaps(at, name));
            i32::from(seen != [16, 10, 4, 12])
        }));
        assert_eq!(status, 0, "the child's figures differ");
    }

    fn resident_memory_by_kind() {
        let status = |name: &str| -> isize {
            let text = fs::read_to_string("/proc/self/status").unwrap();
            let line = text.lines().find(|line| line.starts_with(name)).expect("a figure");
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        const PAGES: usize = 4096;
        let (private, shared) = (apart(PAGES, libc::MAP_PRIVATE), apart(PAGES, libc::MAP_SHARED));
        // Linux counts in batches, one for each thread and kind.
        let near = |value: isize, expected: isize| (value - expected).abs() <= 2048;
        let kinds = || ["RssAnon:", "RssFile:", "RssShmem:"].map(status);
        let before = kinds();
        touch(shared, 0..PAGES);
        let after = kinds();
        assert!(near(after[2] - before[2], 16384) && near(after[0], before[0]), "{before:?} {after:?}");
        (0..PAGES).for_each(|page| look(private, page));
        assert!(near(kinds()[0], after[0]), "the page of zeros counts as memory");
        ok!(libc::munmap(shared.cast(), PAGES * PAGE));
        assert!(near(kinds()[2], before[2]));
    }

    fn use_is_forgotten_and_seen_again() {
        let at = apart(4, libc::MAP_PRIVATE);
        touch(at, 0..4);
        assert_eq!(smaps(at, "Referenced"), 16);
        clear_refs("1");
        assert_eq!(smaps(at, "Referenced"), 0);
        // Linux lets processors go on with what they remember of a page; this makes them forget.
        ok!(libc::mprotect(at.cast(), 4 * PAGE, libc::PROT_READ));
        look(at, 2);
        assert_eq!(smaps(at, "Referenced"), 4);
        for wrong in ["0", "6", "x"] {
            assert_eq!(fs::write("/proc/self/clear_refs", wrong).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        }
    }

    fn vast_and_empty_costs_nothing() {
        const VAST: usize = 64 << 40;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let at: *mut u8 = unsafe { libc::mmap(std::ptr::null_mut(), VAST, libc::PROT_NONE, flags, -1, 0) }.cast();
        assert_ne!(at.addr(), usize::MAX);
        ok!(libc::mprotect(at.cast(), VAST, libc::PROT_READ));
        let far = at.wrapping_add(VAST - PAGE);
        look(far, 0);
        assert_eq!([smaps(at, "Size"), smaps(at, "Rss")], [VAST / 1024, 0]);
        assert_eq!(pagemap(far, 1)[0] & PRESENT, PRESENT);
        clear_refs("1");
        clear_refs("4");
        ok!(libc::mprotect(at.cast(), VAST, libc::PROT_NONE));
        ok!(libc::munmap(at.cast(), VAST));
    }

    fn pagemap_shows_what_is_there() {
        let (private, shared) = (apart(3, libc::MAP_PRIVATE), apart(2, libc::MAP_SHARED));
        touch(private, [1]);
        touch(shared, [0]);
        let marks = PRESENT | FILE | ALONE;
        assert_eq!(pagemap(private, 3).iter().map(|entry| entry & marks).collect::<Vec<_>>(), [0, PRESENT | ALONE, 0]);
        assert_eq!(pagemap(shared, 2).iter().map(|entry| entry & marks).collect::<Vec<_>>(), [PRESENT | FILE | ALONE, 0]);
        let pid = child(|| unsafe { libc::pause() });
        assert_eq!(pagemap(private, 2)[1] & marks, PRESENT, "two have it");
        ok!(libc::kill(pid, libc::SIGKILL));
        expect_signal(pid, libc::SIGKILL);
        let file = fs::File::open("/proc/self/pagemap").unwrap();
        for (position, length) in [(4, 8), (0, 7)] {
            let mut bytes = vec![0; length];
            assert_eq!(file.read_at(&mut bytes, position).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        }
        assert_eq!(file.read_at(&mut [0; 8], (1 << 57) / PAGE as u64 * 8).unwrap(), 0);
    }

    fn pagemap_hides_places_from_the_unprivileged() {
        let at = apart(1, libc::MAP_PRIVATE);
        touch(at, [0]);
        let status = wait(child(|| {
            become_nobody();
            ok!(libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0));
            let entry = pagemap(at, 1)[0];
            i32::from(entry & PRESENT == 0 || entry & ((1 << 55) - 1) != 0)
        }));
        assert_eq!(status, 0);
    }

    fn changed_pages_are_marked() {
        let changed = |at, pages| -> Vec<bool> { pagemap(at, pages).iter().map(|entry| entry & CHANGED != 0).collect() };
        let (private, shared) = (apart(4, libc::MAP_PRIVATE), apart(2, libc::MAP_SHARED));
        // Linux can be built without the marks.
        if changed(private, 4) == [false; 4] && !std::path::Path::new("/proc/deadlocks").exists() {
            return;
        }
        touch(private, 0..3);
        touch(shared, 0..2);
        assert_eq!(changed(private, 4), [true; 4], "a new mapping");
        clear_refs("4");
        assert_eq!(changed(private, 4), [false; 4]);
        touch(private, [1]);
        look(private, 2);
        touch(shared, [1]);
        look(shared, 0);
        assert_eq!((changed(private, 3), changed(shared, 2)), (vec![false, true, false], vec![false, true]));
        // Neither protection nor a child of fork blurs the marks.
        ok!(libc::mprotect(private.cast(), 4 * PAGE, libc::PROT_READ));
        ok!(libc::mprotect(private.cast(), 4 * PAGE, RW));
        let pid = child(|| i32::from(changed(private, 3) != [false, true, false]));
        expect_exit(pid, 0);
        assert_eq!(changed(private, 3), [false, true, false]);
        // The kernel's writes count, too.
        let (reader, writer) = pipe();
        write(&writer, b"x");
        assert_eq!(unsafe { libc::read(reader.as_raw_fd(), private.cast(), 1) }, 1);
        assert_eq!(changed(private, 3), [true, true, false]);
        let fresh = apart(1, libc::MAP_PRIVATE);
        assert_eq!(changed(fresh, 1), [true]);
    }

    fn mapped_files_can_be_opened_again() {
        file("mapped", &[7; PAGE]);
        let fd = open("mapped", libc::O_RDWR);
        let at = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, libc::PROT_READ, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        let name = format!("/proc/self/map_files/{:x}-{:x}", at.addr(), at.addr() + PAGE);
        fs::remove_file("mapped").unwrap();
        let target = fs::read_link(&name).unwrap();
        assert!(target.to_str().unwrap().ends_with("/mapped (deleted)"), "{}", target.display());
        assert!(fs::read_dir("/proc/self/map_files").unwrap().any(|entry| name.ends_with(entry.unwrap().file_name().to_str().unwrap())));
        assert_eq!(fs::read(&name).unwrap(), [7; PAGE]);
        for wrong in ["0-1000", "x", "1-"] {
            assert_eq!(
                fs::read_link(format!("/proc/self/map_files/{wrong}")).unwrap_err().raw_os_error(),
                Some(libc::ENOENT)
            );
        }
    }

    fn the_call_that_a_thread_is_in() {
        let pid = child(|| unsafe { libc::syscall(libc::SYS_poll, 0u64, 0u64, -1i64, 4u64, 5u64, 6u64) } as i32);
        until_asleep(pid);
        let text = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap();
        ok!(libc::kill(pid, libc::SIGKILL));
        expect_signal(pid, libc::SIGKILL);
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!((words[0], words.len()), ("7", 9), "{text}");
        assert_eq!(words[1..7], ["0x0", "0x0", "0xffffffffffffffff", "0x4", "0x5", "0x6"]);
    }

    fn populating_for_reading_allocates_nothing() {
        let at = apart(8, libc::MAP_PRIVATE);
        ok!(libc::madvise(at.cast(), 8 * PAGE, libc::MADV_POPULATE_READ));
        assert!(pagemap(at, 8).iter().all(|entry| entry & PRESENT != 0));
        assert_eq!(smaps(at, "Rss"), 0);
        ok!(libc::madvise(at.cast(), 8 * PAGE, libc::MADV_POPULATE_WRITE));
        assert_eq!(smaps(at, "Rss"), 32);
        ok!(libc::mprotect(at.cast(), PAGE, libc::PROT_WRITE));
        err!(libc::madvise(at.cast(), PAGE, libc::MADV_POPULATE_READ), libc::EINVAL);
    }
}
