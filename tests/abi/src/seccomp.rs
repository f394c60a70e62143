//! Seccomp filters and dispatch of system calls to user mode.

use crate::sys::*;
use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU8, Ordering};

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const TRAP: u32 = 0x0003_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;
const TRACE: u32 = 0x7ff0_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const TSYNC: u32 = 1;
const NEW_LISTENER: u32 = 8;
const TSYNC_ESRCH: u32 = 16;
const RECEIVE: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;
const ID_VALID: libc::c_ulong = 0x4008_2102;
const ADD_FD: libc::c_ulong = 0x4018_2103;

#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
struct Request {
    id: u64,
    pid: u32,
    flags: u32,
    number: i32,
    arch: u32,
    ip: u64,
    args: [u64; 6],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct AddFd {
    id: u64,
    flags: u32,
    source: u32,
    target: u32,
    target_flags: u32,
}

fn op(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

/// `action` for one system call, leave for all others.
fn only(number: libc::c_long, action: u32) -> Vec<libc::sock_filter> {
    vec![op(0x20, 0), libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: number as u32 }, op(6, action), op(6, ALLOW)]
}

fn seccomp(operation: u32, flags: u32, argument: usize) -> i32 {
    unsafe { libc::syscall(libc::SYS_seccomp, operation, flags, argument) as i32 }
}

fn try_install(program: &[libc::sock_filter], flags: u32) -> i32 {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    seccomp(1, flags, (&raw const program).addr())
}

fn install(program: &[libc::sock_filter]) {
    ok!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    assert_eq!(try_install(program, 0), 0, "{}", std::io::Error::last_os_error());
}

/// The wait status of a child that does this.
fn status_of(body: impl FnOnce() -> i32) -> i32 {
    wait(child(body))
}

/// Runs `body` in a child, which must be content.
fn apart(body: impl FnOnce() -> bool) {
    assert_eq!(status_of(|| i32::from(!body())), 0, "the child said no");
}

fn dies_by(signal: i32, body: impl FnOnce()) {
    let status = status_of(|| {
        body();
        0
    });
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == signal, "status {status:#x}");
}

fn getppid() -> i64 {
    unsafe { libc::syscall(libc::SYS_getppid) }
}

fn failed(errno: i32) -> bool {
    std::io::Error::last_os_error().raw_os_error() == Some(errno)
}

fn status_line(name: &str) -> String {
    let text = fs::read_to_string("/proc/thread-self/status").unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)).expect("the line").trim().to_owned()
}

/// A listener whose filter asks about getppid(2), and is inherited by children.
fn listener() -> OwnedFd {
    ok!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    let fd = try_install(&only(libc::SYS_getppid, NOTIFY), NEW_LISTENER);
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn receive(fd: &OwnedFd) -> Request {
    let mut request = Request::default();
    ok!(libc::ioctl(fd.as_raw_fd(), RECEIVE, &raw mut request));
    request
}

fn events(fd: &OwnedFd) -> i16 {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN | libc::POLLOUT, revents: 0 };
    ok!(libc::poll(&raw mut poll, 1, 5000));
    poll.revents
}

static SEEN: [AtomicI64; 5] = [const { AtomicI64::new(0) }; 5];

extern "C" fn on_sigsys(signal: i32, info: *const libc::siginfo_t, context: *mut libc::c_void) {
    let word = |at: usize| unsafe { info.cast::<i32>().add(at).read() };
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    SELECTOR.store(0, Ordering::SeqCst);
    for (slot, value) in SEEN.iter().zip([signal, word(1), word(2), word(6), registers[libc::REG_RAX as usize] as i32])
    {
        slot.store(i64::from(value), Ordering::SeqCst);
    }
    registers[libc::REG_RAX as usize] = 4711;
}

static SELECTOR: AtomicU8 = AtomicU8::new(0);

fn catch_sigsys() {
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_sigsys as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    ok!(libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut()));
}

fn seen() -> Vec<i64> {
    SEEN.iter().map(|value| value.load(Ordering::SeqCst)).collect()
}

cases! {
    fn arguments_are_checked() {
        assert!(seccomp(0, 1, 0) == -1 && failed(libc::EINVAL));
        assert!(seccomp(0, 0, 1) == -1 && failed(libc::EINVAL));
        assert!(seccomp(4, 0, 0) == -1 && failed(libc::EINVAL));
        assert!(seccomp(1, 64, 0) == -1 && failed(libc::EINVAL));
        assert!(seccomp(1, TSYNC | NEW_LISTENER, 0) == -1 && failed(libc::EINVAL));
        assert!(seccomp(1, 0, 0) == -1 && failed(libc::EFAULT));
        assert!(try_install(&[], 0) == -1 && failed(libc::EINVAL));
        assert!(seccomp(2, 0, 0) == -1 && failed(libc::EFAULT));
        let known = |action: u32| seccomp(2, 0, (&raw const action).addr());
        for action in [ALLOW, ERRNO, TRAP, KILL_PROCESS, KILL_THREAD, TRACE, NOTIFY, 0x7ffc_0000] {
            assert_eq!(known(action), 0, "{action:#x}");
        }
        assert!(known(0x7ff0_0001) == -1 && failed(libc::EOPNOTSUPP));
        let mut sizes = [0u16; 3];
        assert_eq!(seccomp(3, 0, sizes.as_mut_ptr().addr()), 0);
        assert_eq!(sizes, [80, 24, 64]);
        err!(libc::prctl(libc::PR_SET_SECCOMP, 3, 0, 0, 0), libc::EINVAL);
        assert_eq!(ok!(libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0)), 0);
    }

    fn programs_are_checked() {
        apart(|| {
            ok!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
            let refused = |program: &[libc::sock_filter]| try_install(program, 0) == -1 && failed(libc::EINVAL);
            let end = op(6, ALLOW);
            // Beyond the data, not a word, half a word, a byte, no end, a remainder, a jump too far.
            refused(&[op(0x20, 64), end])
                && refused(&[op(0x20, 1), end])
                && refused(&[op(0x28, 0), end])
                && refused(&[op(0x30, 0), end])
                && refused(&[op(0x20, 0)])
                && refused(&[op(0x94, 2), end])
                && refused(&[op(0x05, 1), end])
        });
    }

    fn only_who_can_gain_nothing_installs() {
        apart(|| {
            ok!(libc::setresuid(65534, 65534, 65534));
            let refused = try_install(&[op(6, ALLOW)], 0) == -1 && failed(libc::EACCES);
            install(&[op(6, ALLOW)]);
            refused && status_line("Seccomp:") == "2" && status_line("Seccomp_filters:") == "1"
        });
    }

    fn a_call_fails_as_the_filter_says() {
        apart(|| {
            install(&only(libc::SYS_getppid, ERRNO | 77));
            let one = getppid() == -1 && failed(77);
            // The newest of those that agree counts, and no error is above 4095.
            install(&only(libc::SYS_getppid, ERRNO | 0xffff));
            let two = getppid() == -1 && failed(4095);
            install(&only(libc::SYS_getppid, ERRNO));
            one && two && getppid() == 0 && ok!(libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0)) == 2
        });
    }

    fn filters_see_the_arguments() {
        apart(|| {
            // kill(0x12345678_9abcdef0, ..) by the high half of its first argument.
            let mut program = only(libc::SYS_getppid, ALLOW);
            program = vec![op(0x20, 0), libc::sock_filter { code: 0x15, jt: 0, jf: 3, k: program[1].k }];
            program.extend([op(0x20, 20), libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: 0x1234_5678 }]);
            program.extend([op(6, ERRNO | 5), op(6, ALLOW)]);
            install(&program);
            let with = |argument: u64| unsafe { libc::syscall(libc::SYS_getppid, argument) };
            with(0x1234_5678_9abc_def0) == -1 && failed(5) && with(0x9abc_def0) > 0
        });
    }

    fn children_and_programs_inherit() {
        apart(|| {
            install(&only(libc::SYS_getppid, ERRNO | 77));
            let child = status_of(|| i32::from(!(getppid() == -1 && failed(77))));
            let thread = std::thread::spawn(|| getppid() == -1 && failed(77)).join().unwrap();
            child == 0 && thread
        });
    }

    fn killing_a_process_or_a_thread() {
        dies_by(libc::SIGSYS, || {
            install(&only(libc::SYS_getppid, KILL_PROCESS));
            getppid();
        });
        dies_by(libc::SIGSYS, || {
            install(&only(libc::SYS_getppid, KILL_THREAD));
            getppid();
        });
        // An action that nobody knows kills, too, and neither a handler nor ignoring helps.
        dies_by(libc::SIGSYS, || {
            unsafe { libc::signal(libc::SIGSYS, libc::SIG_IGN) };
            install(&only(libc::SYS_getppid, 0x1234_0000));
            getppid();
        });
        apart(|| {
            static LEFT: AtomicI32 = AtomicI32::new(0);
            install(&only(libc::SYS_getppid, KILL_THREAD));
            extern "C" fn body(_: *mut libc::c_void) -> *mut libc::c_void {
                getppid();
                LEFT.store(1, Ordering::SeqCst);
                std::ptr::null_mut()
            }
            let mut thread = 0;
            ok!(libc::pthread_create(&mut thread, std::ptr::null(), body, std::ptr::null_mut()));
            ok!(libc::pthread_join(thread, std::ptr::null_mut()));
            LEFT.load(Ordering::SeqCst) == 0
        });
        dies_by(libc::SIGSYS, || {
            install(&only(libc::SYS_getppid, KILL_PROCESS));
            let _ = std::thread::spawn(getppid).join();
        });
    }

    fn strict_mode() {
        dies_by(libc::SIGKILL, || {
            ok!(libc::prctl(libc::PR_SET_SECCOMP, 1, 0, 0, 0));
            unsafe { libc::syscall(libc::SYS_getpid) };
        });
        let status = status_of(|| {
            ok!(libc::prctl(libc::PR_SET_SECCOMP, 1, 0, 0, 0));
            unsafe { libc::syscall(libc::SYS_exit, 7) };
            0
        });
        assert_eq!(libc::WEXITSTATUS(status), 7);
        apart(|| {
            install(&[op(6, ALLOW)]);
            seccomp(0, 0, 0) == -1 && failed(libc::EINVAL)
        });
    }

    fn a_trap_is_a_signal() {
        apart(|| {
            catch_sigsys();
            install(&only(libc::SYS_getppid, TRAP | 99));
            let result = getppid();
            let number = libc::SYS_getppid;
            // The signal, si_errno, SYS_SECCOMP, si_syscall, and rax as before the call.
            result == 4711 && seen() == [i64::from(libc::SIGSYS), 99, 1, number, number]
        });
        dies_by(libc::SIGSYS, || {
            install(&only(libc::SYS_getppid, TRAP));
            getppid();
        });
    }

    fn without_a_tracer_or_listener_there_is_no_such_call() {
        apart(|| {
            install(&only(libc::SYS_getppid, TRACE));
            let traced = getppid() == -1 && failed(libc::ENOSYS);
            install(&only(libc::SYS_getuid, NOTIFY));
            traced && unsafe { libc::syscall(libc::SYS_getuid) } == -1 && failed(libc::ENOSYS)
        });
    }

    fn a_tracer_decides() {
        let pid = child(|| {
            ok!(libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0));
            install(&only(libc::SYS_getppid, TRACE | 5));
            ok!(libc::raise(libc::SIGSTOP));
            i32::from(getppid() != 123)
        });
        let stopped = || {
            let mut status = 0;
            assert_eq!(ok!(libc::waitpid(pid, &raw mut status, 0)), pid);
            status
        };
        assert_eq!(stopped() >> 8, libc::SIGSTOP);
        ok!(libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, libc::PTRACE_O_TRACESECCOMP));
        ok!(libc::ptrace(libc::PTRACE_CONT, pid, 0, 0));
        assert_eq!(stopped() >> 8, libc::SIGTRAP | libc::PTRACE_EVENT_SECCOMP << 8);
        let mut detail: libc::c_ulong = 0;
        ok!(libc::ptrace(libc::PTRACE_GETEVENTMSG, pid, 0, &raw mut detail));
        assert_eq!(detail, 5);
        let mut info = [0u8; 88];
        assert_eq!(ok!(libc::ptrace(0x420e, pid, info.len(), info.as_mut_ptr())), 84);
        assert_eq!((info[0], info[80]), (3, 5));
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        ok!(libc::ptrace(libc::PTRACE_GETREGS, pid, 0, &raw mut registers));
        assert_eq!(registers.orig_rax as i64, libc::SYS_getppid);
        // Takes the call away and gives a result.
        (registers.orig_rax, registers.rax) = (u64::MAX, 123);
        ok!(libc::ptrace(libc::PTRACE_SETREGS, pid, 0, &raw const registers));
        ok!(libc::ptrace(libc::PTRACE_CONT, pid, 0, 0));
        assert_eq!(stopped(), 0);
    }

    fn threads_follow() {
        apart(|| {
            let (go, gone) = std::sync::mpsc::channel::<()>();
            let thread = std::thread::spawn(move || {
                let _ = gone.recv();
                getppid() == -1 && failed(77)
            });
            ok!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
            let done = try_install(&only(libc::SYS_getppid, ERRNO | 77), TSYNC) == 0;
            go.send(()).unwrap();
            done && thread.join().unwrap()
        });
        apart(|| {
            let (report, tid) = std::sync::mpsc::channel();
            let (go, gone) = std::sync::mpsc::channel::<()>();
            let thread = std::thread::spawn(move || {
                install(&[op(6, ALLOW)]);
                report.send(unsafe { libc::syscall(libc::SYS_gettid) } as i32).unwrap();
                let _ = gone.recv();
            });
            let tid = tid.recv().unwrap();
            ok!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
            let by_number = try_install(&[op(6, ALLOW)], TSYNC) == tid;
            let by_error = try_install(&[op(6, ALLOW)], TSYNC | TSYNC_ESRCH) == -1 && failed(libc::ESRCH);
            go.send(()).unwrap();
            thread.join().unwrap();
            by_number && by_error && status_line("Seccomp:") == "0"
        });
    }

    fn a_supervisor_answers() {
        apart(|| {
            let listener = listener();
            let pid = child(|| {
                let first = getppid() == 4711;
                let second = getppid() == -1 && failed(libc::ENOTTY);
                let third = getppid() > 0;
                i32::from(!(first && second && third))
            });
            let answer = |value, error, flags| {
                let request = receive(&listener);
                assert_eq!((request.pid as i32, i64::from(request.number)), (pid, libc::SYS_getppid));
                ok!(libc::ioctl(listener.as_raw_fd(), ID_VALID, &raw const request.id));
                let response = Response { id: request.id, value, error, flags };
                ok!(libc::ioctl(listener.as_raw_fd(), SEND, &raw const response));
                request.id
            };
            assert_eq!(events(&listener) & libc::POLLIN, libc::POLLIN);
            answer(4711, 0, 0);
            answer(0, -libc::ENOTTY, 0);
            let last = answer(0, 0, 1);
            let content = wait(pid) == 0;
            err!(libc::ioctl(listener.as_raw_fd(), ID_VALID, &raw const last), libc::ENOENT);
            let response = Response { id: last, ..Response::default() };
            err!(libc::ioctl(listener.as_raw_fd(), SEND, &raw const response), libc::ENOENT);
            let wrong = Response { id: last, value: 1, flags: 1, ..Response::default() };
            err!(libc::ioctl(listener.as_raw_fd(), SEND, &raw const wrong), libc::EINVAL);
            let mut dirty = Request { id: 1, ..Request::default() };
            err!(libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut dirty), libc::EINVAL);
            content
        });
    }

    fn a_closed_listener_answers_nothing() {
        apart(|| {
            let listener = listener();
            let twice = try_install(&only(libc::SYS_getuid, NOTIFY), NEW_LISTENER) == -1 && failed(libc::EBUSY);
            let pid = child(|| {
                ok!(libc::close(listener.as_raw_fd()));
                i32::from(!(getppid() == -1 && failed(libc::ENOSYS)))
            });
            receive(&listener);
            drop(listener);
            twice && wait(pid) == 0 && getppid() == -1 && failed(libc::ENOSYS)
        });
    }

    fn a_listener_learns_that_nobody_is_left() {
        // The filter is in the child alone, which passes the listener on.
        let mut pair = [0; 2];
        ok!(libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, pair.as_mut_ptr()));
        let pid = child(|| {
            let listener = listener();
            // Found by its number in /proc, since the child waits.
            let number = listener.as_raw_fd().to_ne_bytes();
            ok!(libc::write(pair[1], number.as_ptr().cast(), 4));
            let mut byte = [0u8];
            ok!(libc::read(pair[1], byte.as_mut_ptr().cast(), 1));
            0
        });
        let mut number = [0u8; 4];
        ok!(libc::read(pair[0], number.as_mut_ptr().cast(), 4));
        let pidfd = ok!(libc::syscall(libc::SYS_pidfd_open, pid, 0)) as RawFd;
        let fd = ok!(libc::syscall(libc::SYS_pidfd_getfd, pidfd, i32::from_ne_bytes(number), 0)) as RawFd;
        let listener = unsafe { OwnedFd::from_raw_fd(fd) };
        ok!(libc::write(pair[0], [0u8].as_ptr().cast(), 1));
        assert_eq!(wait(pid), 0);
        assert_eq!(events(&listener), libc::POLLHUP);
    }

    fn a_supervisor_gives_descriptors() {
        apart(|| {
            let listener = listener();
            let mut pipe = [0; 2];
            ok!(libc::pipe(pipe.as_mut_ptr()));
            ok!(libc::write(pipe[1], b"hello".as_ptr().cast(), 5));
            let pid = child(|| {
                let fd = getppid();
                let mut text = [0; 5];
                let mut file = unsafe { std::fs::File::from_raw_fd(fd as RawFd) };
                let same = file.read_exact(&mut text).is_ok() && &text == b"hello";
                i32::from(!(same && fd == 77))
            });
            let request = receive(&listener);
            let add = |flags, target, target_flags, source| {
                let wanted = AddFd { id: request.id, flags, source, target, target_flags };
                unsafe { libc::ioctl(listener.as_raw_fd(), ADD_FD, &raw const wanted) }
            };
            let source = pipe[0] as u32;
            let wrong = add(4, 0, 0, source) == -1 && failed(libc::EINVAL);
            let no_flag = add(0, 7, 0, source) == -1 && failed(libc::EINVAL);
            let closed = add(0, 0, 0, 999) == -1 && failed(libc::EBADF);
            let other = add(0, 0, libc::O_CLOEXEC as u32, source);
            let answered = add(3, 77, 0, source) == 77;
            wrong && no_flag && closed && other >= 0 && answered && wait(pid) == 0
        });
    }

    fn a_signal_ends_the_wait_for_a_supervisor() {
        apart(|| {
            let listener = listener();
            extern "C" fn nothing(_: i32) {}
            let pid = child(|| {
                unsafe { libc::signal(libc::SIGUSR1, nothing as *const () as usize) };
                // Is asked again after the signal.
                i32::from(getppid() != 42)
            });
            let first = receive(&listener);
            ok!(libc::kill(pid, libc::SIGUSR1));
            let second = receive(&listener);
            let response = Response { id: second.id, value: 42, ..Response::default() };
            let stale = Response { id: first.id, value: 41, ..Response::default() };
            err!(libc::ioctl(listener.as_raw_fd(), SEND, &raw const stale), libc::ENOENT);
            ok!(libc::ioctl(listener.as_raw_fd(), SEND, &raw const response));
            first.id != second.id && wait(pid) == 0
        });
    }

    fn calls_come_back_to_user_mode() {
        err!(libc::prctl(59, 2, 0, 0, 0), libc::EINVAL);
        err!(libc::prctl(59, 0, 1, 0, 0), libc::EINVAL);
        err!(libc::prctl(59, 1, 1, -1isize as usize, 0), libc::EINVAL);
        err!(libc::prctl(59, 1, 0, 0, -1isize as usize), libc::EFAULT);
        apart(|| {
            catch_sigsys();
            let at = SELECTOR.as_ptr();
            ok!(libc::prctl(59, 1, 0, 0, at));
            let before = getppid() > 0;
            SELECTOR.store(1, Ordering::SeqCst);
            // The handler turns it off again.
            let result = getppid();
            let number = libc::SYS_getppid;
            let told = seen() == [i64::from(libc::SIGSYS), 0, 2, number, number];
            before && result == 4711 && told && getppid() > 0
        });
        dies_by(libc::SIGSYS, || {
            ok!(libc::prctl(59, 1, 0, 0, SELECTOR.as_ptr()));
            SELECTOR.store(3, Ordering::SeqCst);
            getppid();
        });
    }
}
