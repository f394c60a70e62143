//! wait4, waitid, zombies.

use crate::sys::*;

fn waitid(kind: libc::idtype_t, id: i32, options: i32) -> Option<(i32, i32, i32)> {
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    ok!(libc::waitid(kind, id as u32, &mut info, options));
    let pid = unsafe { info.si_pid() };
    (pid != 0).then(|| (pid, info.si_code, unsafe { info.si_status() }))
}

cases! {
    fn wait_without_children() {
        let mut status = 0;
        err!(libc::waitpid(-1, &mut status, 0), libc::ECHILD);
        err!(libc::waitpid(std::process::id() as i32, &mut status, 0), libc::ECHILD);
        err!(libc::waitpid(-1, &mut status, 0x4000), libc::EINVAL);
    }

    fn wait_nohang_returns_at_once() {
        let (reader, writer) = pipe();
        let pid = child(|| { read(&reader, 1); 0 });
        let mut status = 0;
        assert_eq!(ok!(libc::waitpid(pid, &mut status, libc::WNOHANG)), 0);
        write(&writer, b"x");
        expect_exit(pid, 0);
    }

    fn wait_any_collects_each_child_once() {
        let mut pids: Vec<i32> = (0..10).map(|code| child(move || code)).collect();
        while !pids.is_empty() {
            let mut status = 0;
            let pid = ok!(libc::wait(&mut status));
            let index = pids.iter().position(|each| *each == pid).expect("one of ours, once");
            pids.swap_remove(index);
        }
        err!(libc::wait(std::ptr::null_mut()), libc::ECHILD);
    }

    fn zombies_stay_until_they_are_waited_for() {
        let pid = child(|| 0);
        until(|| state(pid) == 'Z');
        ok!(libc::kill(pid, 0));
        expect_exit(pid, 0);
        err!(libc::kill(pid, 0), libc::ESRCH);
    }

    fn waitid_wnowait_leaves_the_child() {
        let pid = child(|| 3);
        for options in [libc::WNOWAIT, libc::WNOWAIT, 0] {
            let got = waitid(libc::P_PID, pid, libc::WEXITED | options);
            assert_eq!(got, Some((pid, libc::CLD_EXITED, 3)));
        }
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        err!(libc::waitid(libc::P_PID, pid as u32, &mut info, libc::WEXITED), libc::ECHILD);
    }

    fn waitid_needs_an_event_to_wait_for() {
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        err!(libc::waitid(libc::P_ALL, 0, &mut info, 0), libc::EINVAL);
        err!(libc::waitid(99, 0, &mut info, libc::WEXITED), libc::EINVAL);
    }

    fn waitid_tells_how_a_child_was_killed() {
        let pid = child(|| { ok!(libc::raise(libc::SIGKILL)); 0 });
        assert_eq!(waitid(libc::P_PID, pid, libc::WEXITED), Some((pid, libc::CLD_KILLED, libc::SIGKILL)));
    }

    fn waitid_nohang_says_nothing_yet() {
        let (reader, writer) = pipe();
        let pid = child(|| { read(&reader, 1); 0 });
        assert_eq!(waitid(libc::P_PID, pid, libc::WEXITED | libc::WNOHANG), None);
        write(&writer, b"x");
        assert!(waitid(libc::P_ALL, 0, libc::WEXITED).is_some());
    }

    fn stop_and_continue_are_reported() {
        let pid = child(|| loop { nap(1000) });
        ok!(libc::kill(pid, libc::SIGSTOP));
        let mut status = 0;
        assert_eq!(ok!(libc::waitpid(pid, &mut status, libc::WUNTRACED)), pid);
        assert!(libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGSTOP);
        assert_eq!(state(pid), 'T');
        assert_eq!(ok!(libc::waitpid(pid, &mut status, libc::WUNTRACED | libc::WNOHANG)), 0);
        ok!(libc::kill(pid, libc::SIGCONT));
        assert_eq!(ok!(libc::waitpid(pid, &mut status, libc::WCONTINUED)), pid);
        assert!(libc::WIFCONTINUED(status));
        ok!(libc::kill(pid, libc::SIGKILL));
        expect_signal(pid, libc::SIGKILL);
    }

    fn waitid_stopped_and_continued() {
        let pid = child(|| loop { nap(1000) });
        ok!(libc::kill(pid, libc::SIGSTOP));
        assert_eq!(waitid(libc::P_PID, pid, libc::WSTOPPED), Some((pid, libc::CLD_STOPPED, libc::SIGSTOP)));
        ok!(libc::kill(pid, libc::SIGCONT));
        assert_eq!(waitid(libc::P_PID, pid, libc::WCONTINUED), Some((pid, libc::CLD_CONTINUED, libc::SIGCONT)));
        ok!(libc::kill(pid, libc::SIGKILL));
        expect_signal(pid, libc::SIGKILL);
    }

    fn wait_by_process_group() {
        let pid = child(|| { ok!(libc::setpgid(0, 0)); 1 });
        let other = child(|| 2);
        unsafe { libc::setpgid(pid, pid) };
        let mut status = 0;
        until(|| { state(pid) == 'Z' });
        assert_eq!(ok!(libc::waitpid(-pid, &mut status, 0)), pid);
        assert_eq!(ok!(libc::waitpid(0, &mut status, 0)), other);
    }

    fn ignored_sigchld_leaves_no_zombies() {
        act(libc::SIGCHLD, libc::SIG_IGN, 0);
        let pid = child(|| 0);
        let mut status = 0;
        err!(libc::waitpid(pid, &mut status, 0), libc::ECHILD);
        act(libc::SIGCHLD, libc::SIG_DFL, libc::SA_NOCLDWAIT);
        let pid = child(|| 0);
        err!(libc::waitpid(pid, &mut status, 0), libc::ECHILD);
    }

    fn wait4_gives_resource_usage() {
        let pid = child(|| {
            let mut x = 1u64;
            for i in 0..20_000_000u64 { x = std::hint::black_box(x.wrapping_mul(i | 1)); }
            0
        });
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        let mut status = 0;
        assert_eq!(ok!(libc::wait4(pid, &mut status, 0, &mut usage)), pid);
        let time = usage.ru_utime.tv_sec * 1_000_000 + usage.ru_utime.tv_usec;
        assert!(time > 0, "no user time at all");
        let mut children: libc::rusage = unsafe { std::mem::zeroed() };
        ok!(libc::getrusage(libc::RUSAGE_CHILDREN, &mut children));
        assert!(children.ru_utime.tv_sec * 1_000_000 + children.ru_utime.tv_usec >= time);
    }

    fn a_child_of_a_child_cannot_be_waited_for() {
        let (reader, writer) = pipe();
        let middle = child(|| {
            let pid = child(|| 0);
            write(&writer, &pid.to_ne_bytes());
            wait(pid)
        });
        let pid = i32::from_ne_bytes(read(&reader, 4).try_into().unwrap());
        let mut status = 0;
        err!(libc::waitpid(pid, &mut status, 0), libc::ECHILD);
        expect_exit(middle, 0);
    }

    fn wait_is_interrupted_by_a_signal() {
        extern "C" fn nothing(_: i32) {}
        handle(libc::SIGALRM, nothing, 0);
        let pid = child(|| loop { nap(1000) });
        let parent = std::process::id() as i32;
        let killer = child(|| { until_asleep(parent); ok!(libc::kill(parent, libc::SIGALRM)); nap(10_000); 0 });
        let mut status = 0;
        err!(libc::waitpid(pid, &mut status, 0), libc::EINTR);
        for pid in [pid, killer] {
            ok!(libc::kill(pid, libc::SIGKILL));
            expect_signal(pid, libc::SIGKILL);
        }
    }
}
