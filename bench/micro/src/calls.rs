//! System calls that do next to nothing, and signals.

use crate::sys::{c, open};
use crate::timing::each;
use libc::c_int;
use std::mem::zeroed;
use std::os::fd::AsRawFd;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::time::Instant;

/// A file three folders deep, as lmbench's stat has it.
const PATH: &str = "a/b/file";

pub(crate) fn null() -> f64 {
    each(|| {
        ok!(libc::getppid());
    })
}

pub(crate) fn read() -> f64 {
    let zero = open("/dev/zero", libc::O_RDONLY);
    let mut byte = 0u8;
    each(|| assert_eq!(ok!(libc::read(zero.as_raw_fd(), (&raw mut byte).cast(), 1)), 1))
}

pub(crate) fn write() -> f64 {
    let null = open("/dev/null", libc::O_WRONLY);
    let byte = 0u8;
    each(|| assert_eq!(ok!(libc::write(null.as_raw_fd(), (&raw const byte).cast(), 1)), 1))
}

const DEEP: &str = "one/two/three/four/five/six/seven/eight";

fn file() -> std::ffi::CString {
    std::fs::create_dir_all("a/b").expect("folders");
    std::fs::write(PATH, "x").expect("a file");
    c(PATH)
}

pub(crate) fn fstat() -> f64 {
    file();
    let file = open(PATH, libc::O_RDONLY);
    let mut stat: libc::stat = unsafe { zeroed() };
    each(|| {
        ok!(libc::fstat(file.as_raw_fd(), &mut stat));
    })
}

pub(crate) fn stat() -> f64 {
    let path = file();
    let mut stat: libc::stat = unsafe { zeroed() };
    each(|| {
        ok!(libc::stat(path.as_ptr(), &mut stat));
    })
}

/// stat(2) of a file eight folders down.
pub(crate) fn stat_deep() -> f64 {
    std::fs::create_dir_all(DEEP).expect("folders");
    let path = c(DEEP);
    let mut stat: libc::stat = unsafe { zeroed() };
    each(|| {
        ok!(libc::stat(path.as_ptr(), &mut stat));
    })
}

pub(crate) fn open_close() -> f64 {
    let path = file();
    each(|| {
        let fd = ok!(libc::open(path.as_ptr(), libc::O_RDONLY));
        ok!(libc::close(fd));
    })
}

/// As programs call it: through the vDSO where there is one.
pub(crate) fn clock_gettime() -> f64 {
    let mut time: libc::timespec = unsafe { zeroed() };
    each(|| {
        ok!(libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time));
    })
}

fn action(signal: c_int, handler: extern "C" fn(c_int)) -> libc::sigaction {
    let mut action: libc::sigaction = unsafe { zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    ok!(libc::sigaction(signal, &action, null_mut()));
    action
}

extern "C" fn nothing(_signal: c_int) {}

pub(crate) fn signal_install() -> f64 {
    let action = action(libc::SIGUSR1, nothing);
    each(|| {
        ok!(libc::sigaction(libc::SIGUSR1, &action, null_mut()));
    })
}

/// kill(2) of this process, the handler, and back.
pub(crate) fn signal_deliver() -> f64 {
    action(libc::SIGUSR1, nothing);
    let pid = ok!(libc::getpid());
    each(|| {
        ok!(libc::kill(pid, libc::SIGUSR1));
    })
}

static FAULTS_LEFT: AtomicU64 = AtomicU64::new(0);
static PAGE: AtomicPtr<libc::c_void> = AtomicPtr::new(null_mut());

/// Lets the write fault again, until enough times; then allows it.
extern "C" fn count_fault(_signal: c_int) {
    if FAULTS_LEFT.fetch_sub(1, Ordering::Relaxed) == 1 {
        protect(libc::PROT_READ | libc::PROT_WRITE);
    }
}

fn protect(protection: c_int) {
    ok!(libc::mprotect(PAGE.load(Ordering::Relaxed), 4096, protection));
}

/// A write to a page that is read-only: the fault, SIGSEGV's handler, and back.
pub(crate) fn protection_fault() -> f64 {
    let page = crate::memory::anonymous(4096);
    PAGE.store(page.cast(), Ordering::Relaxed);
    action(libc::SIGSEGV, count_fault);
    crate::timing::batches(|count| {
        FAULTS_LEFT.store(count, Ordering::Relaxed);
        protect(libc::PROT_READ);
        let start = Instant::now();
        unsafe { page.write_volatile(1) };
        start.elapsed()
    })
}
