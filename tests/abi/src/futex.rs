//! futex(2): wait, wake, requeue, bitsets, timeouts, robust lists.

use crate::sys::*;
use libc::timespec;
use std::ptr::null;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

const PRIVATE: i32 = libc::FUTEX_PRIVATE_FLAG;

fn futex(
    word: *const u32,
    operation: i32,
    value: u32,
    timeout: *const timespec,
    second: *const u32,
    third: u32,
) -> i64 {
    unsafe { libc::syscall(libc::SYS_futex, word, operation, value, timeout, second, third) }
}

fn wait_on(word: *const u32, value: u32, timeout: *const timespec) -> i64 {
    futex(word, libc::FUTEX_WAIT, value, timeout, null(), 0)
}

fn wake(word: *const u32, count: u32) -> i64 {
    futex(word, libc::FUTEX_WAKE, count, null(), null(), 0)
}

/// Some operations take a second count where others take the timeout.
fn count(number: usize) -> *const timespec {
    null::<u8>().wrapping_add(number).cast()
}

fn after(milliseconds: i64) -> timespec {
    timespec { tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000 }
}

fn clock(id: i32) -> timespec {
    let mut now = after(0);
    ok!(libc::clock_gettime(id, &mut now));
    now
}

fn later(mut moment: timespec, milliseconds: i64) -> timespec {
    moment.tv_nsec += milliseconds * 1_000_000;
    moment.tv_sec += moment.tv_nsec / 1_000_000_000;
    moment.tv_nsec %= 1_000_000_000;
    moment
}

/// A child that waits on the word and exits with 0 if it was woken.
fn waiter(word: *mut u32, value: u32) -> i32 {
    let pid = child(|| i32::from(wait_on(word, value, null()) != 0));
    until_asleep(pid);
    pid
}

cases! {
    fn wait_checks_the_value() {
        let word = 5u32;
        err!(wait_on(&word, 4, null()), libc::EAGAIN);
        err!(futex(&word, libc::FUTEX_WAIT | PRIVATE, 6, null(), null(), 0), libc::EAGAIN);
    }

    fn wait_times_out() {
        let word = 0u32;
        for operation in [libc::FUTEX_WAIT, libc::FUTEX_WAIT | PRIVATE] {
            let took = timed(|| err!(futex(&word, operation, 0, &after(30), null(), 0), libc::ETIMEDOUT));
            assert!(took.as_millis() >= 30, "only {took:?}");
        }
        err!(wait_on(&word, 0, &timespec { tv_sec: 0, tv_nsec: -1 }), libc::EINVAL);
        err!(wait_on(&word, 0, &timespec { tv_sec: -1, tv_nsec: 0 }), libc::EINVAL);
    }

    fn absolute_timeouts_on_both_clocks() {
        let word = 0u32;
        for (id, flag) in [(libc::CLOCK_MONOTONIC, 0), (libc::CLOCK_REALTIME, libc::FUTEX_CLOCK_REALTIME)] {
            let moment = later(clock(id), 30);
            let operation = libc::FUTEX_WAIT_BITSET | PRIVATE | flag;
            let took = timed(|| err!(futex(&word, operation, 0, &moment, null(), u32::MAX), libc::ETIMEDOUT));
            assert!(took.as_millis() >= 20, "only {took:?}");
            let past = timespec { tv_sec: 1, tv_nsec: 0 };
            err!(futex(&word, operation, 0, &past, null(), u32::MAX), libc::ETIMEDOUT);
        }
    }

    fn wake_without_waiters() {
        assert_eq!(ok!(wake(&0, 10)), 0);
    }

    fn wake_wakes_as_many_as_asked() {
        let word = shared_page();
        let pids: Vec<i32> = (0..3).map(|_| waiter(word, 0)).collect();
        assert_eq!(ok!(wake(word, 2)), 2);
        assert_eq!(ok!(wake(word, 100)), 1);
        pids.into_iter().for_each(|pid| expect_exit(pid, 0));
    }

    fn shared_futexes_work_at_two_addresses() {
        use std::os::fd::AsRawFd;
        let fd = own(ok!(libc::memfd_create(c"f".as_ptr(), 0)));
        ok!(libc::ftruncate(fd.as_raw_fd(), 4096));
        let map = || ok!(libc::mmap(std::ptr::null_mut(), 4096, 3, libc::MAP_SHARED, fd.as_raw_fd(), 0)).cast::<u32>();
        let (one, two) = (map(), map());
        let pid = waiter(one, 0);
        assert_eq!(ok!(wake(two, 1)), 1);
        expect_exit(pid, 0);
    }

    fn private_futexes_of_two_processes_differ() {
        let word = shared_page();
        let pid = child(|| {
            err!(futex(word, libc::FUTEX_WAIT | PRIVATE, 0, &after(200), null(), 0), libc::ETIMEDOUT);
            0
        });
        until_asleep(pid);
        assert_eq!(ok!(futex(word, libc::FUTEX_WAKE | PRIVATE, 1, null(), null(), 0)), 0);
        expect_exit(pid, 0);
    }

    fn bitsets_select_who_wakes() {
        let word = shared_page();
        let wait_bits = |bits: u32| {
            let pid = child(|| i32::from(futex(word, libc::FUTEX_WAIT_BITSET, 0, null(), null(), bits) != 0));
            until_asleep(pid);
            pid
        };
        let (one, two) = (wait_bits(1), wait_bits(2));
        assert_eq!(ok!(futex(word, libc::FUTEX_WAKE_BITSET, 10, null(), null(), 2)), 1);
        expect_exit(two, 0);
        assert_eq!(state(one), 'S');
        assert_eq!(ok!(futex(word, libc::FUTEX_WAKE_BITSET, 10, null(), null(), 5)), 1);
        expect_exit(one, 0);
        err!(futex(word, libc::FUTEX_WAKE_BITSET, 10, null(), null(), 0), libc::EINVAL);
    }

    fn requeue_moves_waiters() {
        let first = shared_page();
        let second = first.wrapping_add(16);
        let pids: Vec<i32> = (0..3).map(|_| waiter(first, 0)).collect();
        let moved = futex(first, libc::FUTEX_REQUEUE, 1, count(10), second, 0);
        assert_eq!(ok!(moved), 3, "woken and requeued");
        assert_eq!(ok!(wake(first, 10)), 0);
        assert_eq!(ok!(wake(second, 10)), 2);
        pids.into_iter().for_each(|pid| expect_exit(pid, 0));
    }

    fn cmp_requeue_compares() {
        let first = shared_page();
        let second = first.wrapping_add(16);
        let pid = waiter(first, 0);
        err!(futex(first, libc::FUTEX_CMP_REQUEUE, 1, count(1), second, 77), libc::EAGAIN);
        assert_eq!(ok!(futex(first, libc::FUTEX_CMP_REQUEUE, 0, count(1), second, 0)), 1);
        assert_eq!(ok!(wake(second, 1)), 1);
        expect_exit(pid, 0);
    }

    fn wake_op_changes_and_wakes() {
        let first = shared_page();
        let second = first.wrapping_add(16);
        let one = waiter(first, 0);
        let two = waiter(second, 0);
        // *second = *second + 5; wake second's waiters if the old value was 0.
        let encoded = (1 << 28) | (5 << 12);
        assert_eq!(ok!(futex(first, libc::FUTEX_WAKE_OP, 1, count(1), second, encoded)), 2);
        assert_eq!(unsafe { second.read_volatile() }, 5);
        expect_exit(one, 0);
        expect_exit(two, 0);
    }

    fn bad_words_are_refused() {
        let word = [0u32; 2];
        let odd = word.as_ptr().cast::<u8>().wrapping_add(1).cast::<u32>();
        err!(wait_on(odd, 0, null()), libc::EINVAL);
        err!(wait_on(null(), 0, null()), libc::EFAULT);
        err!(wait_on(0xffff_8000_0000_0000usize as *const u32, 0, null()), libc::EFAULT);
        err!(futex(word.as_ptr(), 99, 0, null(), null(), 0), libc::ENOSYS);
    }

    fn a_signal_interrupts_a_wait() {
        extern "C" fn nothing(_: i32) {}
        handle(libc::SIGUSR1, nothing, 0);
        let pid = std::process::id() as i32;
        let helper = child(|| { until_asleep(pid); ok!(libc::kill(pid, libc::SIGUSR1)); 0 });
        err!(wait_on(&0, 0, null()), libc::EINTR);
        expect_exit(helper, 0);
    }

    fn threads_hand_a_word_to_and_fro() {
        static TURN: AtomicU32 = AtomicU32::new(0);
        const ROUNDS: u32 = 500;
        fn play(mine: u32) {
            for _ in 0..ROUNDS {
                while TURN.load(SeqCst) % 2 != mine {
                    let seen = TURN.load(SeqCst);
                    if seen % 2 != mine { futex(TURN.as_ptr(), libc::FUTEX_WAIT | PRIVATE, seen, null(), null(), 0); }
                }
                TURN.fetch_add(1, SeqCst);
                futex(TURN.as_ptr(), libc::FUTEX_WAKE | PRIVATE, 1, null(), null(), 0);
            }
        }
        let other = std::thread::spawn(|| play(1));
        play(0);
        other.join().unwrap();
        assert_eq!(TURN.load(SeqCst), 2 * ROUNDS);
    }

    fn a_dead_owner_of_a_robust_mutex_is_noticed() {
        let lock = map_with(4096, 3, libc::MAP_SHARED).cast::<libc::pthread_mutex_t>();
        let mut attributes: libc::pthread_mutexattr_t = unsafe { std::mem::zeroed() };
        unsafe {
            libc::pthread_mutexattr_init(&mut attributes);
            libc::pthread_mutexattr_setpshared(&mut attributes, libc::PTHREAD_PROCESS_SHARED);
            libc::pthread_mutexattr_setrobust(&mut attributes, libc::PTHREAD_MUTEX_ROBUST);
            libc::pthread_mutex_init(lock, &attributes);
        }
        expect_exit(child(|| unsafe { libc::pthread_mutex_lock(lock) }), 0);
        assert_eq!(unsafe { libc::pthread_mutex_lock(lock) }, libc::EOWNERDEAD);
        assert_eq!(unsafe { libc::pthread_mutex_consistent(lock) }, 0);
        assert_eq!(unsafe { libc::pthread_mutex_unlock(lock) }, 0);
    }

    fn a_dead_owner_wakes_a_robust_waiter() {
        let lock = map_with(4096, 3, libc::MAP_SHARED).cast::<libc::pthread_mutex_t>();
        let mut attributes: libc::pthread_mutexattr_t = unsafe { std::mem::zeroed() };
        unsafe {
            libc::pthread_mutexattr_init(&mut attributes);
            libc::pthread_mutexattr_setpshared(&mut attributes, libc::PTHREAD_PROCESS_SHARED);
            libc::pthread_mutexattr_setrobust(&mut attributes, libc::PTHREAD_MUTEX_ROBUST);
            libc::pthread_mutex_init(lock, &attributes);
        }
        let (reader, writer) = pipe();
        let owner = child(|| {
            assert_eq!(unsafe { libc::pthread_mutex_lock(lock) }, 0);
            write(&writer, b"x");
            loop { nap(1000) }
        });
        read(&reader, 1);
        let waiting = child(|| unsafe { libc::pthread_mutex_lock(lock) });
        until_asleep(waiting);
        ok!(libc::kill(owner, libc::SIGKILL));
        wait(owner);
        expect_exit(waiting, libc::EOWNERDEAD);
    }

    fn robust_list_can_be_asked_for() {
        let mut head: usize = 0;
        let mut length: usize = 0;
        ok!(libc::syscall(libc::SYS_get_robust_list, 0, &mut head, &mut length));
        assert_eq!(length, 24);
        err!(libc::syscall(libc::SYS_set_robust_list, head, 8), libc::EINVAL);
        err!(libc::syscall(libc::SYS_get_robust_list, 999_999, &mut head, &mut length), libc::ESRCH);
    }
}
