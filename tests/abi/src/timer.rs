//! Clocks, sleeping, interval timers, POSIX timers, timerfd.

use crate::sys::*;
use libc::{itimerspec, itimerval, timespec, timeval};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

static COUNT: AtomicI32 = AtomicI32::new(0);

extern "C" fn count(_: i32) {
    COUNT.fetch_add(1, SeqCst);
}

fn span(milliseconds: i64) -> timespec {
    timespec { tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000 }
}

fn now(clock: i32) -> i64 {
    let mut time = span(0);
    ok!(libc::clock_gettime(clock, &mut time));
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

fn every(first: i64, interval: i64) -> itimerspec {
    itimerspec { it_value: span(first), it_interval: span(interval) }
}

fn timerfd(flags: i32) -> OwnedFd {
    own(ok!(libc::timerfd_create(libc::CLOCK_MONOTONIC, flags)))
}

fn expirations(fd: &OwnedFd) -> u64 {
    u64::from_ne_bytes(read(fd, 8).try_into().unwrap())
}

fn posix_timer(signal: i32) -> libc::timer_t {
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = signal;
    event.sigev_value.sival_ptr = 55 as *mut _;
    let mut timer = null_mut();
    ok!(libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer));
    timer
}

cases! {
    fn what_adjtime_has_left_is_told() {
        let mut left = libc::timeval { tv_sec: 7777, tv_usec: -1 };
        ok!(libc::adjtime(std::ptr::null(), &raw mut left));
        assert!(left.tv_sec.abs() <= 1 && (0..1_000_000).contains(&left.tv_usec));
    }

    fn clocks_go_forward() {
        for clock in [libc::CLOCK_MONOTONIC, libc::CLOCK_REALTIME, libc::CLOCK_BOOTTIME, libc::CLOCK_MONOTONIC_RAW, libc::CLOCK_MONOTONIC_COARSE] {
            let mut last = now(clock);
            for _ in 0..1000 {
                let next = now(clock);
                assert!(next >= last, "clock {clock} went back");
                last = next;
            }
        }
    }

    fn the_system_call_and_the_vdso_agree() {
        let before = now(libc::CLOCK_MONOTONIC);
        let mut time = span(0);
        ok!(libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_MONOTONIC, &mut time));
        let between = time.tv_sec * 1_000_000_000 + time.tv_nsec;
        let after = now(libc::CLOCK_MONOTONIC);
        assert!(before <= between && between <= after);
    }

    fn clock_calls_check_their_arguments() {
        let mut time = span(0);
        err!(libc::clock_gettime(99, &mut time), libc::EINVAL);
        err!(libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_REALTIME, 1), libc::EFAULT);
        err!(libc::clock_settime(libc::CLOCK_MONOTONIC, &time), libc::EINVAL);
        ok!(libc::clock_getres(libc::CLOCK_MONOTONIC, &mut time));
        assert!(time.tv_sec == 0 && time.tv_nsec >= 1);
    }

    fn real_time_is_this_century() {
        let seconds = now(libc::CLOCK_REALTIME) / 1_000_000_000;
        assert!((1_600_000_000..4_000_000_000).contains(&seconds), "{seconds}");
        assert!((ok!(libc::time(null_mut())) - seconds).abs() <= 1);
    }

    fn cpu_time_counts_work_not_sleep() {
        let before = now(libc::CLOCK_PROCESS_CPUTIME_ID);
        nap(50);
        let slept = now(libc::CLOCK_PROCESS_CPUTIME_ID) - before;
        assert!(slept < 40_000_000, "{slept} ns while asleep");
        let start = now(libc::CLOCK_MONOTONIC);
        while now(libc::CLOCK_PROCESS_CPUTIME_ID) - before < 20_000_000 {
            assert!(now(libc::CLOCK_MONOTONIC) - start < 8_000_000_000, "no CPU time counted");
        }
        assert!(now(libc::CLOCK_THREAD_CPUTIME_ID) > 0);
    }

    fn nanosleep_sleeps_long_enough() {
        let took = timed(|| { ok!(libc::nanosleep(&span(30), null_mut())); });
        assert!(took.as_millis() >= 30);
        for bad in [timespec { tv_sec: -1, tv_nsec: 0 }, timespec { tv_sec: 0, tv_nsec: 1_000_000_000 }] {
            err!(libc::nanosleep(&bad, null_mut()), libc::EINVAL);
        }
    }

    fn nanosleep_tells_the_time_left() {
        handle(libc::SIGUSR1, count, 0);
        let pid = std::process::id() as i32;
        let helper = child(|| { until_asleep(pid); ok!(libc::kill(pid, libc::SIGUSR1)); 0 });
        let mut left = span(0);
        err!(libc::nanosleep(&span(5000), &mut left), libc::EINTR);
        assert!(left.tv_sec <= 4 && left.tv_sec >= 1 || left.tv_sec == 4, "{} s left", left.tv_sec);
        expect_exit(helper, 0);
    }

    fn clock_nanosleep_until_a_moment() {
        let moment = now(libc::CLOCK_MONOTONIC) + 30_000_000;
        let time = timespec { tv_sec: moment / 1_000_000_000, tv_nsec: moment % 1_000_000_000 };
        assert_eq!(unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &time, null_mut()) }, 0);
        assert!(now(libc::CLOCK_MONOTONIC) >= moment);
        let past = span(1);
        assert_eq!(unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &past, null_mut()) }, 0);
        assert_eq!(unsafe { libc::clock_nanosleep(99, 0, &past, null_mut()) }, libc::EINVAL);
    }

    fn alarm_raises_sigalrm() {
        handle(libc::SIGALRM, count, 0);
        assert_eq!(unsafe { libc::alarm(100) }, 0);
        let left = unsafe { libc::alarm(0) };
        assert!((99..=100).contains(&left));
        assert_eq!(unsafe { libc::alarm(1) }, 0);
        err!(libc::pause(), libc::EINTR);
        assert_eq!(COUNT.load(SeqCst), 1);
    }

    fn interval_timers_repeat() {
        handle(libc::SIGALRM, count, 0);
        let time = |ms: i64| timeval { tv_sec: 0, tv_usec: ms * 1000 };
        let timer = itimerval { it_value: time(10), it_interval: time(10) };
        ok!(libc::setitimer(libc::ITIMER_REAL, &timer, null_mut()));
        until(|| COUNT.load(SeqCst) >= 3);
        let mut old: itimerval = unsafe { std::mem::zeroed() };
        ok!(libc::setitimer(libc::ITIMER_REAL, &unsafe { std::mem::zeroed() }, &mut old));
        assert_eq!(old.it_interval.tv_usec, 10_000);
        let bad = itimerval { it_value: time(2000), it_interval: time(0) };
        err!(libc::setitimer(libc::ITIMER_REAL, &bad, null_mut()), libc::EINVAL);
        err!(libc::setitimer(9, &timer, null_mut()), libc::EINVAL);
    }

    fn virtual_timers_count_cpu_time() {
        handle(libc::SIGVTALRM, count, 0);
        handle(libc::SIGPROF, count, 0);
        let once = itimerval { it_value: timeval { tv_sec: 0, tv_usec: 20_000 }, it_interval: timeval { tv_sec: 0, tv_usec: 0 } };
        ok!(libc::setitimer(libc::ITIMER_VIRTUAL, &once, null_mut()));
        nap(60);
        assert_eq!(COUNT.load(SeqCst), 0, "it counted sleep");
        while COUNT.load(SeqCst) == 0 { std::hint::spin_loop(); }
        ok!(libc::setitimer(libc::ITIMER_PROF, &once, null_mut()));
        while COUNT.load(SeqCst) == 1 { std::hint::spin_loop(); }
    }

    fn timers_are_not_inherited() {
        handle(libc::SIGALRM, count, 0);
        unsafe { libc::alarm(100) };
        expect_exit(child(|| unsafe { libc::alarm(0) } as i32), 0);
    }

    fn posix_timers_raise_signals() {
        block(&[libc::SIGUSR1]);
        let timer = posix_timer(libc::SIGUSR1);
        ok!(libc::timer_settime(timer, 0, &every(20, 0), null_mut()));
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        assert_eq!(ok!(libc::sigwaitinfo(&signals(&[libc::SIGUSR1]), &mut info)), libc::SIGUSR1);
        assert_eq!(info.si_code, libc::SI_TIMER);
        assert_eq!(unsafe { info.si_value() }.sival_ptr as usize, 55);
        ok!(libc::timer_delete(timer));
        err!(libc::syscall(libc::SYS_timer_delete, 12345), libc::EINVAL);
    }

    fn posix_timers_count_overruns() {
        block(&[libc::SIGUSR1]);
        let timer = posix_timer(libc::SIGUSR1);
        ok!(libc::timer_settime(timer, 0, &every(5, 5), null_mut()));
        nap(60);
        let mut signal = 0;
        ok!(libc::sigwait(&signals(&[libc::SIGUSR1]), &mut signal));
        assert!(ok!(libc::timer_getoverrun(timer)) >= 3);
        let mut left: itimerspec = unsafe { std::mem::zeroed() };
        ok!(libc::timer_gettime(timer, &mut left));
        assert!(left.it_interval.tv_nsec == 5_000_000 && left.it_value.tv_nsec <= 5_000_000);
    }

    fn posix_timers_check_their_arguments() {
        let mut timer = 0i32;
        err!(libc::syscall(libc::SYS_timer_create, 99, 0, &mut timer), libc::EINVAL);
        err!(libc::syscall(libc::SYS_timer_settime, 12345, 0, &every(1, 1), 0), libc::EINVAL);
    }

    fn timerfd_counts_expirations() {
        let fd = timerfd(libc::TFD_NONBLOCK);
        err!(libc::read(fd.as_raw_fd(), [0u64].as_mut_ptr().cast(), 8), libc::EAGAIN);
        ok!(libc::timerfd_settime(fd.as_raw_fd(), 0, &every(10, 10), null_mut()));
        nap(65);
        assert!(expirations(&fd) >= 5);
        let mut left: itimerspec = unsafe { std::mem::zeroed() };
        ok!(libc::timerfd_gettime(fd.as_raw_fd(), &mut left));
        assert_eq!(left.it_interval.tv_nsec, 10_000_000);
        ok!(libc::timerfd_settime(fd.as_raw_fd(), 0, &every(0, 0), null_mut()));
        nap(30);
        err!(libc::read(fd.as_raw_fd(), [0u64].as_mut_ptr().cast(), 8), libc::EAGAIN);
    }

    fn timerfd_blocks_and_polls() {
        let fd = timerfd(0);
        let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        assert_eq!(ok!(libc::poll(&mut entry, 1, 0)), 0);
        let took = timed(|| {
            ok!(libc::timerfd_settime(fd.as_raw_fd(), 0, &every(30, 0), null_mut()));
            assert_eq!(expirations(&fd), 1);
        });
        assert!(took.as_millis() >= 30);
    }

    fn timerfd_at_a_moment() {
        let fd = timerfd(0);
        let moment = now(libc::CLOCK_MONOTONIC) + 20_000_000;
        let time = timespec { tv_sec: moment / 1_000_000_000, tv_nsec: moment % 1_000_000_000 };
        let once = itimerspec { it_value: time, it_interval: span(0) };
        ok!(libc::timerfd_settime(fd.as_raw_fd(), libc::TFD_TIMER_ABSTIME, &once, null_mut()));
        assert_eq!(expirations(&fd), 1);
        assert!(now(libc::CLOCK_MONOTONIC) >= moment);
    }

    fn timerfd_checks_its_arguments() {
        err!(libc::timerfd_create(99, 0), libc::EINVAL);
        err!(libc::timerfd_create(libc::CLOCK_MONOTONIC, 0x5), libc::EINVAL);
        let fd = timerfd(0);
        err!(libc::timerfd_settime(fd.as_raw_fd(), 0, null(), null_mut()), libc::EFAULT);
        let bad = itimerspec { it_value: timespec { tv_sec: 0, tv_nsec: -1 }, it_interval: span(0) };
        err!(libc::timerfd_settime(fd.as_raw_fd(), 0, &bad, null_mut()), libc::EINVAL);
        err!(libc::timerfd_settime(0, 0, &every(1, 0), null_mut()), libc::EINVAL);
    }

    fn times_and_getrusage_count() {
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        let used = |usage: &mut libc::rusage| {
            ok!(libc::getrusage(libc::RUSAGE_SELF, usage));
            usage.ru_utime.tv_sec * 1_000_000 + usage.ru_utime.tv_usec + usage.ru_stime.tv_sec * 1_000_000 + usage.ru_stime.tv_usec
        };
        let start = now(libc::CLOCK_MONOTONIC);
        while used(&mut usage) < 30_000 { assert!(now(libc::CLOCK_MONOTONIC) - start < 8_000_000_000); }
        assert!(usage.ru_maxrss > 100);
        let mut ticks: libc::tms = unsafe { std::mem::zeroed() };
        assert!(ok!(libc::times(&mut ticks)) > 0);
        err!(libc::getrusage(99, &mut usage), libc::EINVAL);
    }
}
