//! ptrace(2): what a tracer hears of its tracee's end.

use crate::sys::*;
use std::ptr::null_mut;

const EXIT_STOP: i32 = libc::SIGTRAP | libc::PTRACE_EVENT_EXIT << 8;

/// A child that stops for its tracer, us, and then does `work`; it goes on, and tells of its end.
fn tracee(work: impl FnOnce() -> i32) -> libc::pid_t {
    let pid = child(|| {
        ok!(libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0));
        ok!(libc::raise(libc::SIGSTOP));
        work()
    });
    let status = wait(pid);
    assert!(libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGSTOP, "{status:#x}");
    ok!(libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, libc::PTRACE_O_TRACEEXIT));
    go_on(pid);
    pid
}

fn go_on(pid: libc::pid_t) {
    ok!(libc::ptrace(libc::PTRACE_CONT, pid, 0, 0));
}

/// Waits for the stop at its end: the wait status that it will have.
fn stops_at_end(pid: libc::pid_t) -> u64 {
    let status = wait(pid);
    assert_eq!((status & 0xff, status >> 8), (0x7f, EXIT_STOP), "{status:#x}");
    let mut message = 0u64;
    ok!(libc::ptrace(libc::PTRACE_GETEVENTMSG, pid, 0, &raw mut message));
    message
}

cases! {
    fn a_tracee_can_be_looked_at_once_more_before_it_ends() {
        static WORD: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let pid = tracee(|| {
            WORD.store(42, std::sync::atomic::Ordering::SeqCst);
            7
        });
        assert_eq!(stops_at_end(pid), 7 << 8);
        let word = unsafe { libc::ptrace(libc::PTRACE_PEEKDATA, pid, &raw const WORD, 0) };
        assert_eq!(word, 42, "its memory is there");
        let mut regs: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        ok!(libc::ptrace(libc::PTRACE_GETREGS, pid, null_mut::<u8>(), &raw mut regs));
        assert_eq!((regs.orig_rax as i64, regs.rdi), (libc::SYS_exit_group, 7));
        go_on(pid);
        expect_exit(pid, 7);
    }

    fn who_is_killed_stops_too() {
        let pid = tracee(|| unsafe { libc::pause() });
        until_asleep(pid);
        ok!(libc::kill(pid, libc::SIGKILL));
        assert_eq!(stops_at_end(pid), libc::SIGKILL as u64);
        go_on(pid);
        expect_signal(pid, libc::SIGKILL);
    }

    fn signals_do_not_end_the_stop() {
        let pid = tracee(|| 7);
        assert_eq!(stops_at_end(pid), 7 << 8);
        ok!(libc::kill(pid, libc::SIGUSR1));
        assert_eq!(unsafe { libc::waitpid(pid, null_mut(), libc::WNOHANG) }, 0);
        go_on(pid);
        expect_exit(pid, 7);
    }

    fn who_loses_its_tracer_ends() {
        let (reader, writer) = pipe();
        let tracer = child(|| {
            let pid = tracee(|| 7);
            stops_at_end(pid);
            0
        });
        expect_exit(tracer, 0);
        drop(writer);
        // The last end of the pipe goes with the tracee.
        assert_eq!(read(&reader, 1), b"");
    }
}
