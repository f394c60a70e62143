//! futex(2) locks with an owner: priority inheritance, deadlocks, requeueing.

use crate::sys::*;
use libc::{c_int, timespec};
use std::ptr::null;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

const WAIT_REQUEUE_PI: c_int = 11;
const CMP_REQUEUE_PI: c_int = 12;
const WAITERS: u32 = 0x8000_0000;

fn futex(
    word: &AtomicU32,
    operation: c_int,
    value: u32,
    timeout: *const timespec,
    second: *const AtomicU32,
    third: u32,
) -> c_int {
    let result = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, timeout, second, third) };
    if result < 0 { -errno() } else { result as c_int }
}

fn lock(word: &AtomicU32) -> c_int {
    futex(word, libc::FUTEX_LOCK_PI, 0, null(), null(), 0)
}

fn unlock(word: &AtomicU32) -> c_int {
    futex(word, libc::FUTEX_UNLOCK_PI, 0, null(), null(), 0)
}

/// Leaves two threads behind, of which one has a lock and the other waits for it.
pub(crate) fn leave_owner_and_waiter() {
    let word = &words()[0];
    for _ in 0..2 {
        std::thread::spawn(move || {
            lock(word);
            loop {
                unsafe { libc::pause() };
            }
        });
    }
    until(|| word.load(SeqCst) & WAITERS != 0);
}

fn tid() -> u32 {
    ok!(libc::syscall(libc::SYS_gettid)) as u32
}

/// Words that children share.
fn words() -> &'static [AtomicU32; 64] {
    unsafe { &*shared_page().cast::<[AtomicU32; 64]>() }
}

fn count(number: usize) -> *const timespec {
    null::<u8>().wrapping_add(number).cast()
}

/// Runs first come first served at that priority, and on one processor; false if that is not allowed here.
fn realtime(priority: c_int) -> bool {
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &libc::sched_param { sched_priority: priority }) } != 0 {
        return false;
    }
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    unsafe { libc::CPU_SET(0, &mut set) };
    ok!(libc::sched_setaffinity(0, std::mem::size_of::<libc::cpu_set_t>(), &set));
    true
}

fn spin(time: Duration, mut step: impl FnMut()) {
    let start = Instant::now();
    while start.elapsed() < time {
        step();
    }
}

cases! {
    fn a_free_lock_is_taken_and_given_back() {
        let word = &words()[0];
        assert_eq!(lock(word), 0);
        assert_eq!(word.load(SeqCst), tid());
        assert_eq!(lock(word), -libc::EDEADLK);
        in_child(|| {
            assert_eq!(unlock(word), -libc::EPERM);
            assert_eq!(futex(word, libc::FUTEX_TRYLOCK_PI, 0, null(), null(), 0), -libc::EAGAIN);
        });
        assert_eq!(unlock(word), 0);
        assert_eq!(word.load(SeqCst) & !WAITERS, 0);
    }

    fn a_lock_is_handed_over() {
        let word = &words()[0];
        assert_eq!(lock(word), 0);
        let waiter = child(|| {
            assert_eq!(lock(word), 0);
            assert_eq!(word.load(SeqCst) & !WAITERS, tid());
            unlock(word)
        });
        until_asleep(waiter);
        assert_eq!(word.load(SeqCst), tid() | WAITERS);
        assert_eq!(unlock(word), 0);
        expect_exit(waiter, 0);
    }

    fn waiting_ends_at_a_time() {
        let word = &words()[0];
        assert_eq!(lock(word), 0);
        in_child(|| {
            let mut until: timespec = unsafe { std::mem::zeroed() };
            ok!(libc::clock_gettime(libc::CLOCK_REALTIME, &mut until));
            until.tv_sec += 1;
            until.tv_nsec = 0;
            assert_eq!(futex(word, libc::FUTEX_LOCK_PI, 0, &until, null(), 0), -libc::ETIMEDOUT);
        });
    }

    fn the_number_of_nobody_is_refused() {
        let word = &words()[0];
        word.store(0x3fff_fffe, SeqCst);
        assert_eq!(lock(word), -libc::ESRCH);
    }

    fn a_circle_is_a_deadlock() {
        let words = words();
        assert_eq!(lock(&words[0]), 0);
        let other = child(|| {
            assert_eq!(lock(&words[1]), 0);
            words[2].store(1, SeqCst);
            assert_eq!(lock(&words[0]), 0);
            unlock(&words[0])
        });
        until(|| words[2].load(SeqCst) == 1);
        until_asleep(other);
        assert_eq!(lock(&words[1]), -libc::EDEADLK);
        assert_eq!(unlock(&words[0]), 0);
        expect_exit(other, 0);
    }

    fn an_owner_is_lent_the_priority_of_those_who_wait() {
        let words = words();
        // Low holds the lock and is held up by medium, until high waits for it.
        let low = child(|| {
            if !realtime(10) {
                words[1].store(9, SeqCst);
                return 0;
            }
            assert_eq!(lock(&words[0]), 0);
            words[1].store(1, SeqCst);
            while words[2].load(SeqCst) == 0 { std::hint::spin_loop(); }
            unlock(&words[0])
        });
        until(|| words[1].load(SeqCst) != 0);
        if words[1].load(SeqCst) == 9 {
            return expect_exit(low, 0);
        }
        let medium = child(|| {
            assert!(realtime(20));
            words[3].store(1, SeqCst);
            // Must not last as long as this: low's work is done when high has come.
            spin(Duration::from_millis(400), || {});
            words[4].store(1, SeqCst);
            0
        });
        let high = child(|| {
            until(|| words[3].load(SeqCst) == 1);
            assert!(realtime(30));
            words[2].store(1, SeqCst);
            assert_eq!(lock(&words[0]), 0);
            let waited_for_medium = words[4].load(SeqCst);
            assert_eq!(unlock(&words[0]), 0);
            waited_for_medium as c_int
        });
        expect_exit(high, 0);
        expect_exit(low, 0);
        expect_exit(medium, 0);
    }

    fn waiters_are_moved_to_a_lock() {
        let words = words();
        assert_eq!(lock(&words[1]), 0);
        let waiter = child(|| {
            assert_eq!(futex(&words[0], WAIT_REQUEUE_PI, 0, null(), &words[1], 0), 0);
            assert_eq!(words[1].load(SeqCst) & !WAITERS, tid());
            words[2].store(1, SeqCst);
            unlock(&words[1])
        });
        until_asleep(waiter);
        assert_eq!(futex(&words[0], CMP_REQUEUE_PI, 1, count(0), &words[1], 5), -libc::EAGAIN);
        assert_eq!(futex(&words[0], CMP_REQUEUE_PI, 2, count(0), &words[1], 0), -libc::EINVAL);
        assert_eq!(futex(&words[0], CMP_REQUEUE_PI, 1, count(5), &words[1], 0), 1);
        nap(30);
        assert_eq!(words[2].load(SeqCst), 0);
        assert_eq!(unlock(&words[1]), 0);
        expect_exit(waiter, 0);
    }

    fn operations_that_do_not_match_are_refused() {
        let words = words();
        let plain = child(|| futex(&words[0], libc::FUTEX_WAIT, 0, null(), null(), 0));
        until_asleep(plain);
        assert_eq!(futex(&words[0], CMP_REQUEUE_PI, 1, count(0), &words[1], 0), -libc::EINVAL);
        assert_eq!(futex(&words[0], libc::FUTEX_WAKE, 1, null(), null(), 0), 1);
        expect_exit(plain, 0);
        let requeued = child(|| futex(&words[0], WAIT_REQUEUE_PI, 0, null(), &words[1], 0));
        until_asleep(requeued);
        assert_eq!(futex(&words[0], libc::FUTEX_WAKE, 1, null(), null(), 0), -libc::EINVAL);
        assert_eq!(futex(&words[0], CMP_REQUEUE_PI, 1, count(0), &words[2], 0), -libc::EINVAL);
        assert_eq!(futex(&words[0], WAIT_REQUEUE_PI, 0, null(), &words[0], 0), -libc::EINVAL);
        assert_eq!(futex(&words[0], CMP_REQUEUE_PI, 1, count(0), &words[1], 0), 1);
        expect_exit(requeued, 0);
    }
}
