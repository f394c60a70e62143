//! What signals carry: siginfo, values, order of real-time signals, waiting for signals.

use crate::sys::*;
use libc::siginfo_t;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};

static CODE: AtomicI32 = AtomicI32::new(-99);
static SENDER: AtomicI32 = AtomicI32::new(0);
static ADDRESS: AtomicUsize = AtomicUsize::new(0);
static SKIP: AtomicUsize = AtomicUsize::new(0);

extern "C" fn note(_: i32, info: *mut siginfo_t, context: *mut libc::c_void) {
    let info = unsafe { &*info };
    CODE.store(info.si_code, SeqCst);
    SENDER.store(unsafe { info.si_pid() }, SeqCst);
    ADDRESS.store(unsafe { info.si_addr() } as usize, SeqCst);
    if SKIP.load(SeqCst) != 0 {
        let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
        context.uc_mcontext.gregs[libc::REG_RIP as usize] += SKIP.load(SeqCst) as i64;
    }
}

fn with_info(signal: i32) {
    act(signal, note as *const () as usize, libc::SA_SIGINFO);
}

fn queue(signal: i32, value: usize) {
    let value = libc::sigval { sival_ptr: value as *mut libc::c_void };
    ok!(libc::sigqueue(std::process::id() as i32, signal, value));
}

fn wait_for(set: &libc::sigset_t) -> (i32, siginfo_t) {
    let mut info: siginfo_t = unsafe { std::mem::zeroed() };
    let signal = ok!(libc::sigwaitinfo(set, &mut info));
    (signal, info)
}

cases! {
    fn kill_says_who_sent_it() {
        with_info(libc::SIGUSR1);
        ok!(libc::kill(std::process::id() as i32, libc::SIGUSR1));
        assert_eq!(CODE.load(SeqCst), libc::SI_USER);
        assert_eq!(SENDER.load(SeqCst) as u32, std::process::id());
    }

    fn tgkill_says_so() {
        with_info(libc::SIGUSR1);
        let pid = std::process::id() as i32;
        ok!(libc::syscall(libc::SYS_tgkill, pid, pid, libc::SIGUSR1));
        assert_eq!(CODE.load(SeqCst), libc::SI_TKILL);
        err!(libc::syscall(libc::SYS_tgkill, pid, 999_999, 0), libc::ESRCH);
        err!(libc::syscall(libc::SYS_tgkill, 0, pid, 0), libc::EINVAL);
    }

    fn sigqueue_carries_a_value() {
        block(&[libc::SIGUSR1]);
        queue(libc::SIGUSR1, 0x1234_5678_9abc);
        let (signal, info) = wait_for(&signals(&[libc::SIGUSR1]));
        assert_eq!((signal, info.si_code), (libc::SIGUSR1, libc::SI_QUEUE));
        assert_eq!(unsafe { info.si_value() }.sival_ptr as usize, 0x1234_5678_9abc);
    }

    fn real_time_signals_queue_in_order() {
        let (low, high) = (libc::SIGRTMIN(), libc::SIGRTMIN() + 1);
        let set = signals(&[low, high]);
        block(&[low, high]);
        for value in [1, 2, 3] { queue(high, value); }
        for value in [4, 5] { queue(low, value); }
        let got: Vec<(i32, usize)> = (0..5).map(|_| {
            let (signal, info) = wait_for(&set);
            (signal, unsafe { info.si_value() }.sival_ptr as usize)
        }).collect();
        assert_eq!(got, [(low, 4), (low, 5), (high, 1), (high, 2), (high, 3)]);
    }

    fn the_signal_queue_has_a_limit() {
        in_child(|| {
            let limit = libc::rlimit { rlim_cur: 5, rlim_max: 5 };
            ok!(libc::setresuid(54321, 54321, 54321));
            ok!(libc::setrlimit(libc::RLIMIT_SIGPENDING, &limit));
            block(&[libc::SIGRTMIN()]);
            for value in 0..5 { queue(libc::SIGRTMIN(), value); }
            let value = libc::sigval { sival_ptr: std::ptr::null_mut() };
            err!(libc::sigqueue(std::process::id() as i32, libc::SIGRTMIN(), value), libc::EAGAIN);
            // A plain kill still gets through for a standard signal.
            ok!(libc::kill(std::process::id() as i32, libc::SIGCONT));
        });
    }

    fn a_fault_tells_its_address() {
        with_info(libc::SIGSEGV);
        // mov eax, [rdi] is two bytes long.
        SKIP.store(2, SeqCst);
        unsafe { std::arch::asm!("mov eax, [rdi]", in("rdi") 0x1234usize, out("eax") _) };
        assert_eq!(ADDRESS.load(SeqCst), 0x1234);
        assert_eq!(CODE.load(SeqCst), 1, "SEGV_MAPERR");
        let page = map(4096, libc::PROT_READ);
        // mov [rdi], eax is two bytes long as well.
        unsafe { std::arch::asm!("mov [rdi], eax", in("rdi") page, in("eax") 1) };
        assert_eq!(ADDRESS.load(SeqCst), page as usize);
        assert_eq!(CODE.load(SeqCst), 2, "SEGV_ACCERR");
    }

    fn a_non_canonical_address_is_a_general_fault() {
        with_info(libc::SIGSEGV);
        SKIP.store(2, SeqCst);
        unsafe { std::arch::asm!("mov eax, [rdi]", in("rdi") 0x8000_0000_0000_0000usize, out("eax") _) };
        assert_eq!(CODE.load(SeqCst), 128, "SI_KERNEL");
    }

    fn beyond_the_end_of_a_file_is_sigbus() {
        let fd = open("f", libc::O_RDWR | libc::O_CREAT);
        ok!(libc::ftruncate(fd.as_raw_fd(), 100));
        let page = ok!(libc::mmap(std::ptr::null_mut(), 8192, libc::PROT_READ, libc::MAP_SHARED, fd.as_raw_fd(), 0));
        with_info(libc::SIGBUS);
        SKIP.store(2, SeqCst);
        let beyond = page as usize + 4096;
        unsafe { std::arch::asm!("mov eax, [rdi]", in("rdi") beyond, out("eax") _) };
        assert_eq!((CODE.load(SeqCst), ADDRESS.load(SeqCst)), (2, beyond), "BUS_ADRERR");
    }

    fn divide_by_zero_says_so() {
        with_info(libc::SIGFPE);
        SKIP.store(2, SeqCst);
        unsafe { std::arch::asm!("div ecx", inout("eax") 1 => _, in("ecx") 0, inout("edx") 0 => _) };
        assert_eq!(CODE.load(SeqCst), 1, "FPE_INTDIV");
    }

    fn sigchld_tells_about_the_child() {
        block(&[libc::SIGCHLD]);
        let pid = child(|| 12);
        let (_, info) = wait_for(&signals(&[libc::SIGCHLD]));
        assert_eq!(info.si_code, libc::CLD_EXITED);
        assert_eq!(unsafe { (info.si_pid(), info.si_status()) }, (pid, 12));
        wait(pid);
    }

    fn sa_nocldstop_hides_stops() {
        block(&[libc::SIGCHLD]);
        let pid = child(|| loop { nap(1000) });
        act(libc::SIGCHLD, libc::SIG_DFL, libc::SA_NOCLDSTOP);
        ok!(libc::kill(pid, libc::SIGSTOP));
        until(|| state(pid) == 'T');
        let mut set = signals(&[]);
        ok!(libc::sigpending(&mut set));
        assert_eq!(ok!(libc::sigismember(&set, libc::SIGCHLD)), 0);
        ok!(libc::kill(pid, libc::SIGKILL));
        wait(pid);
    }

    fn sigtimedwait_times_out() {
        block(&[libc::SIGUSR1]);
        let short = libc::timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        let took = timed(|| err!(libc::sigtimedwait(&signals(&[libc::SIGUSR1]), std::ptr::null_mut(), &short), libc::EAGAIN));
        assert!(took.as_millis() >= 20);
        let bad = libc::timespec { tv_sec: 0, tv_nsec: 2_000_000_000 };
        err!(libc::sigtimedwait(&signals(&[libc::SIGUSR1]), std::ptr::null_mut(), &bad), libc::EINVAL);
    }

    fn sigtimedwait_is_interrupted_by_others() {
        extern "C" fn nothing(_: i32) {}
        handle(libc::SIGUSR2, nothing, 0);
        block(&[libc::SIGUSR1]);
        let pid = std::process::id() as i32;
        let helper = child(|| { until_asleep(pid); ok!(libc::kill(pid, libc::SIGUSR2)); 0 });
        err!(libc::sigwaitinfo(&signals(&[libc::SIGUSR1]), std::ptr::null_mut()), libc::EINTR);
        expect_exit(helper, 0);
    }

    fn signalfd_reads_signals() {
        block(&[libc::SIGUSR1, libc::SIGUSR2]);
        let set = signals(&[libc::SIGUSR1, libc::SIGUSR2]);
        let fd = own(ok!(libc::signalfd(-1, &set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC)));
        let mut info: [libc::signalfd_siginfo; 3] = unsafe { std::mem::zeroed() };
        let size = std::mem::size_of::<libc::signalfd_siginfo>();
        assert_eq!(size, 128);
        err!(libc::read(fd.as_raw_fd(), info.as_mut_ptr().cast(), size), libc::EAGAIN);
        queue(libc::SIGUSR2, 77);
        ok!(libc::kill(std::process::id() as i32, libc::SIGUSR1));
        let got = ok!(libc::read(fd.as_raw_fd(), info.as_mut_ptr().cast(), size * 3));
        assert_eq!(got as usize, size * 2);
        assert_eq!(info[0].ssi_signo, libc::SIGUSR1 as u32);
        assert_eq!(info[0].ssi_pid, std::process::id());
        assert_eq!((info[1].ssi_signo, info[1].ssi_ptr), (libc::SIGUSR2 as u32, 77));
        err!(libc::read(fd.as_raw_fd(), info.as_mut_ptr().cast(), 100), libc::EINVAL);
    }

    fn signalfd_can_be_polled() {
        block(&[libc::SIGUSR1]);
        let fd = own(ok!(libc::signalfd(-1, &signals(&[libc::SIGUSR1]), 0)));
        let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        assert_eq!(ok!(libc::poll(&mut poll, 1, 0)), 0);
        ok!(libc::raise(libc::SIGUSR1));
        assert_eq!(ok!(libc::poll(&mut poll, 1, 1000)), 1);
    }

    fn rt_sigqueueinfo_cannot_pretend() {
        let pid = std::process::id() as i32;
        let mut info: siginfo_t = unsafe { std::mem::zeroed() };
        info.si_code = libc::SI_USER;
        in_child(|| {
            err!(libc::syscall(libc::SYS_rt_sigqueueinfo, pid, libc::SIGUSR1, &info), libc::EPERM);
        });
    }

    fn a_tracer_looks_at_pending_signals() {
        const PEEKSIGINFO: u32 = 0x4209;
        let pid = child(|| {
            block(&[libc::SIGUSR1, libc::SIGUSR2, libc::SIGRTMIN()]);
            ok!(libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0));
            queue(libc::SIGRTMIN(), 5);
            queue(libc::SIGRTMIN(), 6);
            ok!(libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), libc::SIGUSR2));
            ok!(libc::raise(libc::SIGSTOP));
            0
        });
        let mut status = 0;
        ok!(libc::waitpid(pid, &mut status, 0));
        let peek = |from: u64, shared: bool, count: i32| {
            let args = [from, u64::from(shared) | (count as u32 as u64) << 32];
            let mut infos: [siginfo_t; 4] = unsafe { std::mem::zeroed() };
            let got = unsafe { libc::ptrace(PEEKSIGINFO, pid, args.as_ptr(), infos.as_mut_ptr()) };
            if got < 0 { Err(errno()) } else { Ok(infos[..got as usize].iter().map(|i| i.si_signo).collect::<Vec<_>>()) }
        };
        assert_eq!(peek(0, true, 4), Ok(vec![libc::SIGRTMIN(); 2]));
        assert_eq!(peek(1, true, 4), Ok(vec![libc::SIGRTMIN()]));
        assert_eq!(peek(0, true, 1), Ok(vec![libc::SIGRTMIN()]));
        assert_eq!(peek(9, true, 4), Ok(vec![]));
        assert_eq!(peek(0, false, 4), Ok(vec![libc::SIGUSR2]));
        assert_eq!(peek(0, false, -1), Err(libc::EINVAL));
        let args = [0u64, 2];
        err!(libc::ptrace(PEEKSIGINFO, pid, args.as_ptr(), std::ptr::null_mut::<u8>()), libc::EINVAL);
        ok!(libc::kill(pid, libc::SIGKILL));
        ok!(libc::waitpid(pid, &mut status, 0));
    }
}
