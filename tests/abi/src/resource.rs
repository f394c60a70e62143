//! Limits.

use crate::sys::*;
use libc::rlimit;

fn get(what: u32) -> (u64, u64) {
    let mut limit = rlimit { rlim_cur: 0, rlim_max: 0 };
    ok!(libc::getrlimit(what, &mut limit));
    (limit.rlim_cur, limit.rlim_max)
}

fn set(what: u32, soft: u64, hard: u64) -> i32 {
    unsafe { libc::setrlimit(what, &rlimit { rlim_cur: soft, rlim_max: hard }) }
}

fn may_raise_limits() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_some_and(|bits| bits >> CAP_SYS_RESOURCE & 1 == 1)
}

cases! {
    fn limits_are_set_and_inherited() {
        ok!(set(libc::RLIMIT_NOFILE, 100, 200));
        in_child(|| assert_eq!(get(libc::RLIMIT_NOFILE), (100, 200)));
        err!(set(libc::RLIMIT_NOFILE, 300, 200), libc::EINVAL);
        err!(set(99, 1, 1), libc::EINVAL);
        err!(libc::syscall(libc::SYS_getrlimit, libc::RLIMIT_CORE, 1), libc::EFAULT);
    }

    fn only_root_raises_the_hard_limit() {
        in_child(|| {
            ok!(set(libc::RLIMIT_CORE, 0, 1000));
            // In some containers even root may not.
            if may_raise_limits() { ok!(set(libc::RLIMIT_CORE, 0, 2000)); }
            become_nobody();
            ok!(set(libc::RLIMIT_CORE, 1000, 1000));
            err!(set(libc::RLIMIT_CORE, 1000, 3000), libc::EPERM);
        });
    }

    fn descriptors_are_limited() {
        in_child(|| {
            ok!(set(libc::RLIMIT_NOFILE, 20, 20));
            let mut count = 0;
            while unsafe { libc::dup(0) } >= 0 { count += 1; }
            assert_eq!(errno(), libc::EMFILE);
            assert!(count > 5 && count < 20);
            err!(libc::dup2(0, 20), libc::EBADF);
            err!(libc::fcntl(0, libc::F_DUPFD, 20), libc::EINVAL);
            err!(libc::pipe([0, 0].as_mut_ptr()), libc::EMFILE);
        });
    }

    fn processes_are_limited() {
        in_child(|| {
            ok!(set(libc::RLIMIT_NPROC, 3, 3));
            ok!(libc::setgroups(0, std::ptr::null()));
            ok!(libc::setresuid(45678, 45678, 45678));
            let mut pids = Vec::new();
            loop {
                let pid = unsafe { libc::fork() };
                if pid == 0 { loop { nap(1000) } }
                if pid < 0 { break; }
                pids.push(pid);
                assert!(pids.len() < 10, "no limit");
            }
            assert_eq!(errno(), libc::EAGAIN);
            assert_eq!(pids.len(), 2);
            for pid in pids {
                ok!(libc::kill(pid, libc::SIGKILL));
                wait(pid);
            }
        });
    }

    fn cpu_time_is_limited() {
        let pid = child(|| {
            ok!(set(libc::RLIMIT_CPU, 1, 2));
            loop { std::hint::spin_loop() }
        });
        expect_signal(pid, libc::SIGXCPU);
    }

    fn prlimit_works_on_others() {
        let pid = child(|| loop { nap(1000) });
        let new = rlimit { rlim_cur: 5, rlim_max: 6 };
        let mut old = rlimit { rlim_cur: 0, rlim_max: 0 };
        ok!(libc::prlimit(pid, libc::RLIMIT_CORE, &new, &mut old));
        ok!(libc::prlimit(pid, libc::RLIMIT_CORE, std::ptr::null(), &mut old));
        assert_eq!((old.rlim_cur, old.rlim_max), (5, 6));
        err!(libc::prlimit(999_999, libc::RLIMIT_CORE, std::ptr::null(), &mut old), libc::ESRCH);
        let root = std::process::id() as i32;
        in_child(|| { become_nobody(); err!(libc::prlimit(root, libc::RLIMIT_CORE, std::ptr::null(), &mut old), libc::EPERM); });
        ok!(libc::kill(pid, libc::SIGKILL));
        wait(pid);
    }

    fn timers_of_processor_time_look_at_limits_that_are_being_looked_at() {
        extern "C" fn nothing(_: i32) {}
        let status = wait(child(|| {
            unsafe { libc::signal(libc::SIGPROF, nothing as *const () as usize) };
            let often = libc::timeval { tv_sec: 0, tv_usec: 500 };
            ok!(libc::setitimer(libc::ITIMER_PROF, &libc::itimerval { it_interval: often, it_value: often }, std::ptr::null_mut()));
            let until = std::time::Instant::now() + std::time::Duration::from_millis(800);
            let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            while std::time::Instant::now() < until {
                for _ in 0..200 {
                    ok!(libc::getrlimit(libc::RLIMIT_CPU, &mut limit));
                    ok!(libc::setrlimit(libc::RLIMIT_CPU, &limit));
                }
            }
            0
        }));
        assert_eq!(status, 0);
    }
}
