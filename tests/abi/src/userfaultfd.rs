//! userfaultfd(2): faults, write protection and changes of memory as messages.

use crate::sys::*;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::{null_mut, read_volatile, write_volatile};

const PAGE: usize = 4096;
const API: libc::c_ulong = 0xc018_aa3f;
const REGISTER: libc::c_ulong = 0xc020_aa00;
const UNREGISTER: libc::c_ulong = 0x8010_aa01;
const WAKE: libc::c_ulong = 0x8010_aa02;
const COPY: libc::c_ulong = 0xc028_aa03;
const ZEROPAGE: libc::c_ulong = 0xc020_aa04;
const WRITEPROTECT: libc::c_ulong = 0xc018_aa06;
const CONTINUE: libc::c_ulong = 0xc020_aa07;

const MISSING: u64 = 1;
const WP: u64 = 2;
const MINOR: u64 = 4;

const FAULT: u64 = 0x12;
const FORK: u64 = 0x13;
const REMAP: u64 = 0x14;
const REMOVE: u64 = 0x15;
const UNMAP: u64 = 0x16;

fn bare(flags: i32) -> i64 {
    unsafe { libc::syscall(libc::SYS_userfaultfd, flags) }
}

fn ioctl(fd: &OwnedFd, request: libc::c_ulong, words: &mut [u64]) -> i32 {
    unsafe { libc::ioctl(fd.as_raw_fd(), request, words.as_mut_ptr()) }
}

/// A descriptor with these features, not blocking.
fn monitor(features: u64) -> OwnedFd {
    let fd = own(ok!(bare(libc::O_CLOEXEC | libc::O_NONBLOCK)) as i32);
    let mut api = [0xaa, features, 0];
    ok!(ioctl(&fd, API, &mut api));
    assert_eq!(api[1] & features, features);
    fd
}

fn watch(fd: &OwnedFd, at: *mut u8, pages: usize, modes: u64) -> u64 {
    let mut words = [at as u64, (pages * PAGE) as u64, modes, 0];
    ok!(ioctl(fd, REGISTER, &mut words));
    words[3]
}

/// Waits for a message: its event and arguments.
fn next(fd: &OwnedFd) -> [u64; 4] {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    assert_eq!(ok!(libc::poll(&mut poll, 1, 5000)), 1, "no message came");
    assert_eq!(poll.revents, libc::POLLIN);
    let mut message = [0u64; 4];
    assert_eq!(ok!(libc::read(fd.as_raw_fd(), message.as_mut_ptr().cast(), 32)), 32);
    message[0] &= 0xff;
    message
}

fn copy(fd: &OwnedFd, to: *mut u8, byte: u8, mode: u64) {
    let source = vec![byte; PAGE];
    let mut words = [to as u64, source.as_ptr() as u64, PAGE as u64, mode, 0];
    ok!(ioctl(fd, COPY, &mut words));
    assert_eq!(words[4], PAGE as u64);
}

fn protect(fd: &OwnedFd, at: *mut u8, pages: usize, mode: u64) -> i32 {
    ioctl(fd, WRITEPROTECT, &mut [at as u64, (pages * PAGE) as u64, mode])
}

fn memory(pages: usize) -> *mut u8 {
    map(pages * PAGE, libc::PROT_READ | libc::PROT_WRITE)
}

fn shared(pages: usize) -> *mut u8 {
    map_with(pages * PAGE, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS)
}

/// Touches memory in another thread, which waits for it.
fn reader(at: *mut u8) -> std::thread::JoinHandle<u8> {
    let at = at as usize;
    std::thread::spawn(move || unsafe { read_volatile(at as *const u8) })
}

fn writer(at: *mut u8, byte: u8) -> std::thread::JoinHandle<()> {
    let at = at as usize;
    std::thread::spawn(move || unsafe { write_volatile(at as *mut u8, byte) })
}

cases! {
    fn userfaultfd_must_be_told_its_api_once() {
        err!(bare(!(libc::O_CLOEXEC | libc::O_NONBLOCK)), libc::EINVAL);
        let fd = own(ok!(bare(libc::O_NONBLOCK)) as i32);
        err!(ioctl(&fd, REGISTER, &mut [0; 4]), libc::EINVAL);
        let mut buffer = [0u8; 64];
        err!(libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), 64), libc::EINVAL);
        let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        assert_eq!((ok!(libc::poll(&mut poll, 1, 0)), poll.revents), (1, libc::POLLERR));
        let mut api = [0xab, 0, 7];
        err!(ioctl(&fd, API, &mut api), libc::EINVAL);
        assert_eq!(api, [0; 3]);
        err!(ioctl(&fd, API, &mut [0xaa, 1 << 60, 0]), libc::EINVAL);
        let mut api = [0xaa, 0, 0];
        ok!(ioctl(&fd, API, &mut api));
        assert_eq!(api[2], 1 << 0x3f | 3);
        assert_eq!(api[1] & 0x1ef, 0x1ef);
        err!(ioctl(&fd, API, &mut [0xaa, 0, 0]), libc::EINVAL);
        err!(libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), 64), libc::EAGAIN);
        err!(libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), 31), libc::EINVAL);
        err!(libc::write(fd.as_raw_fd(), buffer.as_ptr().cast(), 8), libc::EBADF);
        assert!(std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap().to_str().unwrap().contains("[userfaultfd]"));
    }

    fn userfaultfd_checks_ranges_and_modes() {
        let fd = monitor(0);
        let at = memory(2);
        for words in [[at as u64, 100, MISSING, 0], [at as u64 + 1, PAGE as u64, MISSING, 0], [at as u64, 0, MISSING, 0],
                      [at as u64, PAGE as u64, 0, 0], [at as u64, PAGE as u64, 8, 0], [0, PAGE as u64, MISSING, 0],
                      [u64::MAX - 4095, PAGE as u64, MISSING, 0]] {
            err!(ioctl(&fd, REGISTER, &mut words.clone()), libc::EINVAL);
        }
        // Minor faults are for shared memory.
        err!(ioctl(&fd, REGISTER, &mut [at as u64, PAGE as u64, MINOR, 0]), libc::EINVAL);
        assert_eq!(watch(&fd, at, 2, MISSING) & 0x5c, 0x1c);
        let other = monitor(0);
        err!(ioctl(&other, REGISTER, &mut [at as u64, PAGE as u64, MISSING, 0]), libc::EBUSY);
        err!(protect(&fd, at, 1, 1), libc::ENOENT);
        err!(protect(&fd, at, 1, 3), libc::EINVAL);
        let mut words = [at as u64, at as u64, PAGE as u64, 4, 0];
        err!(ioctl(&fd, COPY, &mut words), libc::EINVAL);
        let unwatched = memory(1);
        let source = vec![1u8; 2 * PAGE];
        let mut words = [unwatched as u64, source.as_ptr() as u64, PAGE as u64, 0, 0];
        err!(ioctl(&fd, COPY, &mut words), libc::ENOENT);
        assert_eq!(words[4] as i64, -i64::from(libc::ENOENT));
        copy(&fd, at, 5, 0);
        let mut words = [at as u64, source.as_ptr() as u64, PAGE as u64, 0, 0];
        err!(ioctl(&fd, COPY, &mut words), libc::EEXIST);
        let mut words = [at as u64 + PAGE as u64, 8, PAGE as u64, 0, 0];
        err!(ioctl(&fd, COPY, &mut words), libc::EFAULT);
        ok!(ioctl(&fd, UNREGISTER, &mut [at as u64, 2 * PAGE as u64]));
        assert_eq!(unsafe { (read_volatile(at), read_volatile(at.add(PAGE))) }, (5, 0));
    }

    fn userfaultfd_resolves_missing_pages() {
        let fd = monitor(0);
        let at = memory(3);
        watch(&fd, at, 3, MISSING);
        let thread = reader(unsafe { at.add(5) });
        assert_eq!(next(&fd)[..3], [FAULT, 0, at as u64]);
        copy(&fd, at, 7, 0);
        assert_eq!(thread.join().unwrap(), 7);
        let thread = writer(unsafe { at.add(PAGE) }, 3);
        assert_eq!(next(&fd)[..3], [FAULT, 1, at as u64 + PAGE as u64]);
        let mut words = [at as u64 + PAGE as u64, PAGE as u64, 0, 0];
        ok!(ioctl(&fd, ZEROPAGE, &mut words));
        assert_eq!(words[3], PAGE as u64);
        thread.join().unwrap();
        assert_eq!(unsafe { read_volatile(at.add(PAGE)) }, 3);
        // Put in without waking, then woken.
        let thread = reader(unsafe { at.add(2 * PAGE) });
        next(&fd);
        copy(&fd, unsafe { at.add(2 * PAGE) }, 9, 1);
        nap(30);
        assert!(!thread.is_finished());
        ok!(ioctl(&fd, WAKE, &mut [at as u64 + 2 * PAGE as u64, PAGE as u64]));
        assert_eq!(thread.join().unwrap(), 9);
        // Dropped pages are missing again.
        ok!(libc::madvise(at.cast(), PAGE, libc::MADV_DONTNEED));
        let thread = reader(at);
        assert_eq!(next(&fd)[..3], [FAULT, 0, at as u64]);
        // The thread goes on when nobody is left to ask.
        drop(fd);
        assert_eq!(thread.join().unwrap(), 0);
    }

    fn userfaultfd_resolves_faults_of_the_kernel() {
        let fd = monitor(0);
        let at = memory(1);
        watch(&fd, at, 1, MISSING);
        let (reading, writing) = pipe();
        write(&writing, b"hello");
        let address = at as usize;
        let thread = std::thread::spawn(move || ok!(libc::read(reading.as_raw_fd(), address as *mut libc::c_void, 5)));
        assert_eq!(next(&fd)[..3], [FAULT, 1, at as u64]);
        copy(&fd, at, b'x', 0);
        assert_eq!(thread.join().unwrap(), 5);
        assert_eq!(unsafe { std::slice::from_raw_parts(at, 6) }, b"hellox");
        // Who waits in the kernel can be killed.
        let fd = monitor(0);
        let at = memory(1);
        watch(&fd, at, 1, MISSING);
        let (reading, writing) = pipe();
        write(&writing, b"x");
        let pid = child(|| {
            let mine = monitor(0);
            let at = memory(1);
            watch(&mine, at, 1, MISSING);
            unsafe { libc::read(reading.as_raw_fd(), at.cast(), 1) };
            0
        });
        until(|| matches!(state(pid), 'S' | 'D'));
        ok!(libc::kill(pid, libc::SIGKILL));
        expect_signal(pid, libc::SIGKILL);
    }

    fn userfaultfd_lets_signals_interrupt_faults() {
        extern "C" fn nothing(_: i32) {}
        handle(libc::SIGUSR1, nothing, 0);
        let fd = monitor(0);
        let at = memory(1);
        watch(&fd, at, 1, MISSING);
        let thread = reader(at);
        next(&fd);
        let id = std::os::unix::thread::JoinHandleExt::as_pthread_t(&thread);
        assert_eq!(unsafe { libc::pthread_kill(id, libc::SIGUSR1) }, 0);
        // It faults once more after the handler.
        assert_eq!(next(&fd)[..3], [FAULT, 0, at as u64]);
        copy(&fd, at, 4, 0);
        assert_eq!(thread.join().unwrap(), 4);
    }

    fn userfaultfd_in_user_mode_only_fails_the_kernel() {
        let fd = own(ok!(bare(libc::O_NONBLOCK | 1)) as i32);
        ok!(ioctl(&fd, API, &mut [0xaa, 0, 0]));
        let at = memory(1);
        watch(&fd, at, 1, MISSING);
        let (reading, writing) = pipe();
        write(&writing, b"x");
        err!(libc::read(reading.as_raw_fd(), at.cast(), 1), libc::EFAULT);
    }

    fn userfaultfd_needs_privilege_for_faults_of_the_kernel() {
        in_child(|| {
            become_nobody();
            err!(bare(libc::O_NONBLOCK), libc::EPERM);
            own(ok!(bare(libc::O_NONBLOCK | 1)) as i32);
        });
    }

    fn userfaultfd_gives_sigbus_where_asked_to() {
        let fd = monitor(1 << 7);
        let at = memory(1);
        watch(&fd, at, 1, MISSING);
        let pid = child(|| {
            let mine = monitor(1 << 7);
            let at = memory(1);
            watch(&mine, at, 1, MISSING);
            unsafe { read_volatile(at) };
            0
        });
        expect_signal(pid, libc::SIGBUS);
    }

    fn userfaultfd_protects_pages_from_writes() {
        for at in [memory(2), shared(2)] {
            let fd = monitor(0);
            unsafe { write_volatile(at, 1) };
            unsafe { write_volatile(at.add(PAGE), 2) };
            assert_ne!(watch(&fd, at, 2, WP) & 1 << 6, 0);
            ok!(protect(&fd, at, 2, 1));
            assert_eq!(unsafe { read_volatile(at) }, 1);
            let thread = writer(at, 9);
            assert_eq!(next(&fd)[..3], [FAULT, 3, at as u64]);
            assert_eq!(unsafe { read_volatile(at) }, 1);
            ok!(protect(&fd, at, 1, 0));
            thread.join().unwrap();
            assert_eq!(unsafe { read_volatile(at) }, 9);
            // mprotect(2) does not undo it.
            let second = unsafe { at.add(PAGE) };
            ok!(libc::mprotect(second.cast(), PAGE, libc::PROT_READ));
            ok!(libc::mprotect(second.cast(), PAGE, libc::PROT_READ | libc::PROT_WRITE));
            let thread = writer(second, 8);
            assert_eq!(next(&fd)[..3], [FAULT, 3, second as u64]);
            ok!(protect(&fd, second, 1, 0));
            thread.join().unwrap();
            assert_eq!(unsafe { read_volatile(second) }, 8);
            // What is not watched any more is not protected any more.
            ok!(protect(&fd, at, 2, 1));
            ok!(ioctl(&fd, UNREGISTER, &mut [at as u64, 2 * PAGE as u64]));
            unsafe { write_volatile(at, 7) };
        }
    }

    fn userfaultfd_puts_protected_pages_in() {
        let fd = monitor(0);
        let at = memory(1);
        watch(&fd, at, 1, MISSING | WP);
        copy(&fd, at, 6, 2);
        assert_eq!(unsafe { read_volatile(at) }, 6);
        let thread = writer(at, 1);
        assert_eq!(next(&fd)[..3], [FAULT, 3, at as u64]);
        ok!(protect(&fd, at, 1, 0));
        thread.join().unwrap();
        let unprotected = memory(1);
        watch(&fd, unprotected, 1, MISSING);
        let mut words = [unprotected as u64, at as u64, PAGE as u64, 2, 0];
        err!(ioctl(&fd, COPY, &mut words), libc::EINVAL);
    }

    fn userfaultfd_watches_shared_memory() {
        let fd = monitor(0);
        let name = c("watched");
        let memory = own(ok!(libc::memfd_create(name.as_ptr(), 0)));
        ok!(libc::ftruncate(memory.as_raw_fd(), 2 * PAGE as i64));
        let map = || {
            let flags = libc::PROT_READ | libc::PROT_WRITE;
            ok!(libc::mmap(null_mut(), 2 * PAGE, flags, libc::MAP_SHARED, memory.as_raw_fd(), 0) as isize) as *mut u8
        };
        let (at, other) = (map(), map());
        watch(&fd, at, 2, MISSING);
        let thread = reader(at);
        assert_eq!(next(&fd)[..3], [FAULT, 0, at as u64]);
        copy(&fd, at, 3, 0);
        assert_eq!(thread.join().unwrap(), 3);
        assert_eq!(unsafe { read_volatile(other) }, 3);
        // What another mapping has put in is not missing.
        unsafe { write_volatile(other.add(PAGE), 4) };
        assert_eq!(unsafe { read_volatile(at.add(PAGE)) }, 4);
        // But it is not mapped: a minor fault.
        let third = map();
        assert_ne!(watch(&fd, third, 2, MINOR) & 1 << 7, 0);
        let thread = reader(third);
        assert_eq!(next(&fd)[..3], [FAULT, 4, third as u64]);
        ok!(ioctl(&fd, CONTINUE, &mut [third as u64, PAGE as u64, 0, 0]));
        assert_eq!(thread.join().unwrap(), 3);
    }

    fn userfaultfd_tells_of_changes() {
        let fd = monitor(1 << 2 | 1 << 3 | 1 << 6);
        let at = memory(4);
        watch(&fd, at, 4, MISSING);
        copy(&fd, at, 1, 0);
        let address = at as usize;
        let thread = std::thread::spawn(move || ok!(libc::madvise(address as *mut libc::c_void, PAGE, libc::MADV_DONTNEED)));
        assert_eq!(next(&fd)[..3], [REMOVE, at as u64, at as u64 + PAGE as u64]);
        thread.join().unwrap();
        let target = memory(4) as usize;
        let thread = std::thread::spawn(move || {
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            ok!(libc::mremap(address as *mut libc::c_void, PAGE, PAGE, flags, target as *mut libc::c_void) as isize);
        });
        assert_eq!(next(&fd), [REMAP, address as u64, target as u64, PAGE as u64]);
        assert_eq!(next(&fd)[..3], [UNMAP, address as u64, (address + PAGE) as u64]);
        thread.join().unwrap();
        let thread = reader(target as *mut u8);
        assert_eq!(next(&fd)[..3], [FAULT, 0, target as u64]);
        copy(&fd, target as *mut u8, 2, 0);
        assert_eq!(thread.join().unwrap(), 2);
        let thread = std::thread::spawn(move || ok!(libc::munmap(address as *mut libc::c_void, 4 * PAGE)));
        assert_eq!(next(&fd)[..3], [UNMAP, address as u64, (address + 4 * PAGE) as u64]);
        thread.join().unwrap();
    }

    fn userfaultfd_follows_forks() {
        let fd = monitor(1 << 1);
        let at = memory(2);
        watch(&fd, at, 2, MISSING);
        copy(&fd, at, 1, 0);
        let address = at as usize;
        let thread = std::thread::spawn(move || {
            let pid = child(|| i32::from(unsafe { read_volatile((address + PAGE) as *const u8) }));
            expect_exit(pid, 6);
        });
        let message = next(&fd);
        assert_eq!(message[0], FORK);
        let theirs = own(message[1] as i32);
        assert_eq!(next(&theirs)[..3], [FAULT, 0, (address + PAGE) as u64]);
        copy(&theirs, (address + PAGE) as *mut u8, 6, 0);
        thread.join().unwrap();
        // Its memory has gone.
        let source = vec![0u8; PAGE];
        err!(ioctl(&theirs, COPY, &mut [at as u64, source.as_ptr() as u64, PAGE as u64, 0, 0]), libc::ESRCH);
    }

    fn userfaultfd_is_not_inherited_unless_asked_for() {
        let fd = monitor(0);
        let at = memory(1);
        watch(&fd, at, 1, MISSING);
        let pid = child(|| i32::from(unsafe { read_volatile(at) }));
        expect_exit(pid, 0);
        drop(fd);
    }

    fn userfaultfd_tells_threads_and_exact_addresses() {
        let fd = monitor(1 << 8 | 1 << 11);
        let at = memory(1);
        watch(&fd, at, 1, MISSING);
        let address = at as usize;
        let thread = std::thread::spawn(move || {
            unsafe { read_volatile((address + 77) as *const u8) };
            unsafe { libc::gettid() }
        });
        let message = next(&fd);
        assert_eq!(message[..3], [FAULT, 0, at as u64 + 77]);
        copy(&fd, at, 0, 0);
        assert_eq!(message[3], thread.join().unwrap() as u64);
    }

    fn userfaultfd_comes_from_its_device_too() {
        let device = open("/dev/userfaultfd", libc::O_RDWR);
        err!(libc::ioctl(device.as_raw_fd(), 0xaa01, 0), libc::EINVAL);
        err!(libc::ioctl(device.as_raw_fd(), 0xaa00, 2), libc::EINVAL);
        let fd = own(ok!(libc::ioctl(device.as_raw_fd(), 0xaa00, libc::O_NONBLOCK)));
        ok!(ioctl(&fd, API, &mut [0xaa, 0, 0]));
    }
}
