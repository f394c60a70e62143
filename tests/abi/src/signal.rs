//! Signals: handlers, masks, alternate stack, restart, default actions.

use crate::sys::*;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};

static COUNT: AtomicI32 = AtomicI32::new(0);
static PLACE: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_: i32) {
    COUNT.fetch_add(1, SeqCst);
}

extern "C" fn note_stack(_: i32) {
    let here = 0u8;
    PLACE.store(&raw const here as usize, SeqCst);
}

extern "C" fn raise_within(_: i32) {
    if PLACE.load(SeqCst) != 0 {
        return;
    }
    let before = COUNT.load(SeqCst);
    PLACE.store(9, SeqCst);
    unsafe { libc::raise(libc::SIGUSR2) };
    // Higher digits: did the nested handler run before we returned?
    PLACE.store(usize::from(COUNT.load(SeqCst) > before) + 1, SeqCst);
}

fn counted() -> i32 {
    COUNT.load(SeqCst)
}

fn raise(signal: i32) {
    ok!(libc::raise(signal));
}

fn signal_when_asleep(pid: i32, signal: i32) -> i32 {
    child(move || {
        until_asleep(pid);
        ok!(libc::kill(pid, signal));
        0
    })
}

cases! {
    fn a_handler_runs_and_returns() {
        handle(libc::SIGUSR1, count, 0);
        raise(libc::SIGUSR1);
        raise(libc::SIGUSR1);
        assert_eq!(counted(), 2);
    }

    fn default_actions_kill() {
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGUSR1, libc::SIGALRM, libc::SIGPIPE, libc::SIGRTMIN()] {
            expect_signal(child(|| { act(signal, libc::SIG_DFL, 0); raise(signal); 0 }), signal);
        }
    }

    fn default_actions_ignore() {
        for signal in [libc::SIGCHLD, libc::SIGURG, libc::SIGWINCH, libc::SIGCONT] {
            raise(signal);
        }
    }

    fn ignored_signals_do_nothing() {
        act(libc::SIGTERM, libc::SIG_IGN, 0);
        raise(libc::SIGTERM);
    }

    fn kill_and_stop_cannot_be_caught() {
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = libc::SIG_IGN;
        for signal in [libc::SIGKILL, libc::SIGSTOP, 0, 65, -1] {
            err!(libc::syscall(libc::SYS_rt_sigaction, signal, &action, 0, 8), libc::EINVAL);
        }
        err!(libc::syscall(libc::SYS_rt_sigaction, libc::SIGINT, 0, 0, 4), libc::EINVAL);
    }

    fn kill_and_stop_cannot_be_blocked() {
        block(&[libc::SIGKILL, libc::SIGSTOP, libc::SIGUSR1]);
        let mut set = signals(&[]);
        ok!(libc::sigprocmask(libc::SIG_BLOCK, std::ptr::null(), &mut set));
        assert_eq!(ok!(libc::sigismember(&set, libc::SIGKILL)), 0);
        assert_eq!(ok!(libc::sigismember(&set, libc::SIGSTOP)), 0);
        assert_eq!(ok!(libc::sigismember(&set, libc::SIGUSR1)), 1);
    }

    fn blocked_signals_wait() {
        handle(libc::SIGUSR1, count, 0);
        block(&[libc::SIGUSR1]);
        raise(libc::SIGUSR1);
        raise(libc::SIGUSR1);
        assert_eq!(counted(), 0);
        let mut set = signals(&[]);
        ok!(libc::sigpending(&mut set));
        assert_eq!(ok!(libc::sigismember(&set, libc::SIGUSR1)), 1);
        unblock(&[libc::SIGUSR1]);
        assert_eq!(counted(), 1, "standard signals do not queue");
    }

    fn a_signal_is_blocked_in_its_own_handler() {
        handle(libc::SIGUSR2, raise_within, 0);
        raise(libc::SIGUSR2);
        assert_eq!(PLACE.load(SeqCst), 1, "the handler was nested");
    }

    fn sa_nodefer_lets_it_nest() {
        extern "C" fn nest(_: i32) {
            if COUNT.fetch_add(1, SeqCst) < 3 { unsafe { libc::raise(libc::SIGUSR1) }; }
        }
        handle(libc::SIGUSR1, nest, libc::SA_NODEFER);
        raise(libc::SIGUSR1);
        assert_eq!(counted(), 4);
    }

    fn sa_mask_blocks_others_in_the_handler() {
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = raise_within as *const () as usize;
        action.sa_mask = signals(&[libc::SIGUSR2]);
        ok!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()));
        handle(libc::SIGUSR2, count, 0);
        raise(libc::SIGUSR1);
        assert_eq!(PLACE.load(SeqCst), 1, "the other ran inside");
        assert_eq!(counted(), 1);
    }

    fn other_signals_interrupt_a_handler() {
        handle(libc::SIGUSR1, raise_within, 0);
        handle(libc::SIGUSR2, count, 0);
        raise(libc::SIGUSR1);
        assert_eq!(PLACE.load(SeqCst), 2);
    }

    fn sa_resethand_works_once() {
        handle(libc::SIGUSR1, count, libc::SA_RESETHAND);
        raise(libc::SIGUSR1);
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        ok!(libc::sigaction(libc::SIGUSR1, std::ptr::null(), &mut action));
        assert_eq!(action.sa_sigaction, libc::SIG_DFL);
    }

    fn handlers_run_on_the_alternate_stack() {
        let size = 64 << 10;
        let stack = map(size, libc::PROT_READ | libc::PROT_WRITE);
        let alternate = libc::stack_t { ss_sp: stack.cast(), ss_flags: 0, ss_size: size };
        ok!(libc::sigaltstack(&alternate, std::ptr::null_mut()));
        let range = stack as usize..stack as usize + size;
        handle(libc::SIGUSR1, note_stack, libc::SA_ONSTACK);
        raise(libc::SIGUSR1);
        assert!(range.contains(&PLACE.load(SeqCst)));
        handle(libc::SIGUSR1, note_stack, 0);
        raise(libc::SIGUSR1);
        assert!(!range.contains(&PLACE.load(SeqCst)));
    }

    fn sigaltstack_checks() {
        let small = libc::stack_t { ss_sp: map(4096, 3).cast(), ss_flags: 0, ss_size: 100 };
        err!(libc::sigaltstack(&small, std::ptr::null_mut()), libc::ENOMEM);
        let odd = libc::stack_t { ss_flags: 0x55, ss_size: 64 << 10, ..small };
        err!(libc::sigaltstack(&odd, std::ptr::null_mut()), libc::EINVAL);
        err!(libc::syscall(libc::SYS_sigaltstack, 1, 0), libc::EFAULT);
    }

    fn stack_overflow_is_caught_on_the_alternate_stack() {
        extern "C" fn escape(_: i32) { unsafe { libc::_exit(44) } }
        fn dive(depth: usize) -> usize {
            let mut frame = [depth as u8; 512];
            std::hint::black_box(&mut frame);
            if depth == usize::MAX { return 0; }
            dive(depth + 1) + frame[depth % 512] as usize
        }
        let pid = child(|| {
            let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: libc::RLIM_INFINITY };
            ok!(libc::setrlimit(libc::RLIMIT_STACK, &limit));
            let size = 64 << 10;
            let stack = libc::stack_t { ss_sp: map(size, 3).cast(), ss_flags: 0, ss_size: size };
            ok!(libc::sigaltstack(&stack, std::ptr::null_mut()));
            handle(libc::SIGSEGV, escape, libc::SA_ONSTACK);
            dive(0) as i32
        });
        expect_exit(pid, 44);
    }

    fn a_fault_without_a_handler_kills() {
        expect_signal(child(|| unsafe { std::ptr::read_volatile(8 as *const i32) }), libc::SIGSEGV);
        expect_signal(child(|| { act(libc::SIGSEGV, libc::SIG_IGN, 0); unsafe { std::ptr::read_volatile(8 as *const i32) } }), libc::SIGSEGV);
        expect_signal(child(|| { block(&[libc::SIGSEGV]); unsafe { std::ptr::read_volatile(8 as *const i32) } }), libc::SIGSEGV);
    }

    fn processor_exceptions_become_signals() {
        expect_signal(child(|| { unsafe { std::arch::asm!("ud2") }; 0 }), libc::SIGILL);
        expect_signal(child(|| { unsafe { std::arch::asm!("int3") }; 0 }), libc::SIGTRAP);
        expect_signal(child(|| { unsafe { std::arch::asm!("xor edx, edx", "xor ecx, ecx", "div ecx", out("eax") _, out("ecx") _, out("edx") _) }; 0 }), libc::SIGFPE);
        expect_signal(child(|| { unsafe { std::arch::asm!("hlt") }; 0 }), libc::SIGSEGV);
        expect_signal(child(|| { unsafe { std::arch::asm!("out dx, al", in("dx") 0x80u16, in("al") 0u8) }; 0 }), libc::SIGSEGV);
    }

    fn read_is_restarted_with_sa_restart() {
        handle(libc::SIGUSR1, count, libc::SA_RESTART);
        let (reader, writer) = pipe();
        let pid = std::process::id() as i32;
        let helper = child(|| {
            until_asleep(pid);
            ok!(libc::kill(pid, libc::SIGUSR1));
            nap(50);
            write(&writer, b"late");
            0
        });
        assert_eq!(read(&reader, 10), b"late");
        assert_eq!(counted(), 1);
        expect_exit(helper, 0);
    }

    fn read_is_interrupted_without_sa_restart() {
        handle(libc::SIGUSR1, count, 0);
        let (reader, _writer) = pipe();
        let helper = signal_when_asleep(std::process::id() as i32, libc::SIGUSR1);
        let mut byte = 0u8;
        err!(libc::read(reader.as_raw_fd(), (&raw mut byte).cast(), 1), libc::EINTR);
        expect_exit(helper, 0);
    }

    fn an_ignored_signal_interrupts_nothing() {
        act(libc::SIGUSR1, libc::SIG_IGN, 0);
        let (reader, writer) = pipe();
        let pid = std::process::id() as i32;
        let helper = child(|| {
            until_asleep(pid);
            ok!(libc::kill(pid, libc::SIGUSR1));
            nap(50);
            write(&writer, b"x");
            0
        });
        assert_eq!(read(&reader, 1), b"x");
        expect_exit(helper, 0);
    }

    fn poll_is_never_restarted() {
        handle(libc::SIGUSR1, count, libc::SA_RESTART);
        let helper = signal_when_asleep(std::process::id() as i32, libc::SIGUSR1);
        err!(libc::poll(std::ptr::null_mut(), 0, 10_000), libc::EINTR);
        expect_exit(helper, 0);
    }

    fn pause_returns_eintr() {
        handle(libc::SIGUSR1, count, libc::SA_RESTART);
        let helper = signal_when_asleep(std::process::id() as i32, libc::SIGUSR1);
        err!(libc::pause(), libc::EINTR);
        assert_eq!(counted(), 1);
        expect_exit(helper, 0);
    }

    fn sigsuspend_swaps_the_mask() {
        handle(libc::SIGUSR1, count, 0);
        block(&[libc::SIGUSR1]);
        raise(libc::SIGUSR1);
        err!(libc::sigsuspend(&signals(&[])), libc::EINTR);
        assert_eq!(counted(), 1);
        raise(libc::SIGUSR1);
        assert_eq!(counted(), 1, "the old mask is back");
    }

    fn the_mask_is_back_after_a_handler() {
        handle(libc::SIGUSR1, count, 0);
        raise(libc::SIGUSR1);
        let mut set = signals(&[]);
        ok!(libc::sigprocmask(libc::SIG_BLOCK, std::ptr::null(), &mut set));
        assert_eq!(ok!(libc::sigismember(&set, libc::SIGUSR1)), 0);
    }

    fn registers_survive_a_handler() {
        extern "C" fn trample(_: i32) {
            COUNT.fetch_add(1, SeqCst);
            let x = std::hint::black_box(1.5f64);
            std::hint::black_box(x * x);
        }
        handle(libc::SIGUSR1, trample, 0);
        let (mut a, mut b, mut c) = (1.0f64, 2u64, 3i64);
        for _ in 0..100 {
            a = std::hint::black_box(a * 1.5);
            b = std::hint::black_box(b.wrapping_mul(3));
            raise(libc::SIGUSR1);
            c = std::hint::black_box(c - 7);
        }
        let expected = (0..100).fold(1.0f64, |x, _| x * 1.5);
        assert_eq!((a, c), (expected, 3 - 700));
        assert_eq!(b, (0..100).fold(2u64, |x, _| x.wrapping_mul(3)));
        assert_eq!(counted(), 100);
    }

    fn kill_checks_pid_and_signal() {
        err!(libc::kill(999_999, 0), libc::ESRCH);
        err!(libc::kill(std::process::id() as i32, 65), libc::EINVAL);
        err!(libc::kill(std::process::id() as i32, -1), libc::EINVAL);
        ok!(libc::kill(std::process::id() as i32, 0));
    }

    fn nobody_cannot_signal_root() {
        let root = std::process::id() as i32;
        in_child(|| {
            become_nobody();
            err!(libc::kill(root, libc::SIGUSR1), libc::EPERM);
            err!(libc::kill(1, 0), libc::EPERM);
            ok!(libc::kill(std::process::id() as i32, 0));
        });
    }

    fn sigcont_always_continues_and_drops_stops() {
        let pid = child(|| { block(&[libc::SIGCONT]); loop { nap(1000) } });
        ok!(libc::kill(pid, libc::SIGSTOP));
        until(|| state(pid) == 'T');
        ok!(libc::kill(pid, libc::SIGCONT));
        until(|| state(pid) == 'S');
        ok!(libc::kill(pid, libc::SIGKILL));
        wait(pid);
    }

    fn sigkill_ends_a_stopped_process() {
        let pid = child(|| loop { nap(1000) });
        ok!(libc::kill(pid, libc::SIGSTOP));
        until(|| state(pid) == 'T');
        ok!(libc::kill(pid, libc::SIGTERM));
        nap(20);
        assert_eq!(state(pid), 'T', "only SIGCONT and SIGKILL get through");
        ok!(libc::kill(pid, libc::SIGKILL));
        expect_signal(pid, libc::SIGKILL);
    }

    fn broken_pipes_raise_sigpipe() {
        let pid = child(|| {
            let (reader, writer) = pipe();
            act(libc::SIGPIPE, libc::SIG_DFL, 0);
            drop(reader);
            write(&writer, b"x");
            0
        });
        expect_signal(pid, libc::SIGPIPE);
    }

    fn sigaction_returns_the_old_action() {
        handle(libc::SIGUSR1, count, libc::SA_RESTART | libc::SA_NODEFER);
        let mut old: libc::sigaction = unsafe { std::mem::zeroed() };
        ok!(libc::sigaction(libc::SIGUSR1, std::ptr::null(), &mut old));
        assert_eq!(old.sa_sigaction, count as *const () as usize);
        assert_eq!(old.sa_flags & (libc::SA_RESTART | libc::SA_NODEFER | libc::SA_RESETHAND), libc::SA_RESTART | libc::SA_NODEFER);
    }

    fn a_running_loop_gets_signals() {
        handle(libc::SIGUSR1, count, 0);
        let pid = std::process::id() as i32;
        let helper = child(|| { nap(20); ok!(libc::kill(pid, libc::SIGUSR1)); 0 });
        while counted() == 0 { std::hint::spin_loop(); }
        expect_exit(helper, 0);
    }
}
