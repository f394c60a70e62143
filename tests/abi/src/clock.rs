//! `abi-tests clock` sets the real-time clock and looks whether waits until a time on it follow: for a machine of one's own only.

use crate::sys::*;
use std::process::ExitCode;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const FUTEX_WAIT_BITSET: i32 = 9;
const FUTEX_PRIVATE_FLAG: i32 = 128;
const FUTEX_CLOCK_REALTIME: i32 = 256;
const LONG: i64 = 1000;

fn real() -> libc::timespec {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    ok!(libc::clock_gettime(libc::CLOCK_REALTIME, &mut time));
    time
}

fn shift(seconds: i64) {
    let time = real();
    let new = libc::timespec { tv_sec: time.tv_sec + seconds, ..time };
    ok!(libc::clock_settime(libc::CLOCK_REALTIME, &new));
}

fn after(seconds: i64) -> libc::timespec {
    let time = real();
    libc::timespec { tv_sec: time.tv_sec + seconds, ..time }
}

/// Waits for a word that nobody changes, until that time.
fn wait_word(until: libc::timespec) -> i32 {
    let word = AtomicU32::new(0);
    let operation = FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME;
    let none = null_mut::<u32>();
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, 0, &until, none, u32::MAX) };
    errno()
}

/// Waits for a message that nobody sends, until that time.
fn wait_message(until: libc::timespec) -> i32 {
    let flags = libc::O_CREAT | libc::O_RDWR;
    let queue = ok!(libc::mq_open(c"/clock".as_ptr(), flags, 0o600, null_mut::<libc::mq_attr>()));
    ok!(libc::mq_unlink(c"/clock".as_ptr()));
    let mut text = [0u8; 8192];
    unsafe { libc::mq_timedreceive(queue, text.as_mut_ptr().cast(), text.len(), null_mut(), &until) };
    let why = errno();
    ok!(libc::close(queue));
    why
}

/// A wait that has a long time to go ends when the clock is set past its end, and one that is about to end goes on when it is set back.
fn follows(wait: fn(libc::timespec) -> i32) {
    static ENDED: AtomicU32 = AtomicU32::new(0);
    ENDED.store(0, Ordering::SeqCst);
    let far = after(LONG);
    let (begun, waits) = (Instant::now(), thread::spawn(move || wait(far)));
    thread::sleep(Duration::from_millis(300));
    shift(2 * LONG);
    assert_eq!(waits.join().expect("a wait"), libc::ETIMEDOUT);
    assert!(begun.elapsed() < Duration::from_secs(LONG as u64 / 2), "it waited for its time");

    let near = after(1);
    let waits = thread::spawn(move || {
        let why = wait(near);
        ENDED.store(1, Ordering::SeqCst);
        why
    });
    thread::sleep(Duration::from_millis(300));
    shift(-2 * LONG);
    thread::sleep(Duration::from_secs(2));
    assert_eq!(ENDED.load(Ordering::SeqCst), 0, "its time has not come any more");
    shift(2 * LONG);
    assert_eq!(waits.join().expect("a wait"), libc::ETIMEDOUT);
    shift(-2 * LONG);
}

pub(crate) fn run() -> ExitCode {
    follows(wait_word);
    follows(wait_message);
    ExitCode::SUCCESS
}
