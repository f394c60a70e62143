//! Small steps that many cases take.

use libc::{c_int, pid_t};
use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// A C string for a path or name.
pub(crate) fn c(text: &str) -> CString {
    CString::new(text).expect("no NUL in the text")
}

/// fork(2).
pub(crate) fn fork() -> pid_t {
    ok!(libc::fork())
}

/// A child that runs `body` and ends with the status it returns. A panic in it ends it with 99.
pub(crate) fn child(body: impl FnOnce() -> c_int) -> pid_t {
    let pid = fork();
    if pid == 0 {
        let inherited = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            inherited(panic);
            unsafe { libc::_exit(99) }
        }));
        let status = body();
        unsafe { libc::_exit(status) }
    }
    pid
}

/// Waits for a child and returns its wait status.
pub(crate) fn wait(pid: pid_t) -> c_int {
    let mut status = 0;
    loop {
        let result = unsafe { libc::waitpid(pid, &mut status, 0) };
        if result == pid {
            return status;
        }
        assert_eq!(errno(), libc::EINTR, "waitpid({pid})");
    }
}

/// Waits for a child, which has to exit with this status.
#[track_caller]
pub(crate) fn expect_exit(pid: pid_t, code: c_int) {
    let status = wait(pid);
    assert!(libc::WIFEXITED(status), "wait status {status:#x} instead of exit {code}");
    assert_eq!(libc::WEXITSTATUS(status), code, "exit status of the child");
}

/// Waits for a child, which has to be killed by this signal.
#[track_caller]
pub(crate) fn expect_signal(pid: pid_t, signal: c_int) {
    let status = wait(pid);
    assert!(libc::WIFSIGNALED(status), "wait status {status:#x} instead of signal {signal}");
    assert_eq!(libc::WTERMSIG(status), signal, "signal that killed the child");
}

/// Runs a body in a child, where it has to return.
#[track_caller]
pub(crate) fn in_child(body: impl FnOnce()) {
    let pid = child(|| {
        body();
        0
    });
    expect_exit(pid, 0);
}

/// A child of any process that ended, without waiting.
pub(crate) fn reap_any() -> Option<(pid_t, c_int)> {
    let mut status = 0;
    let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
    (pid > 0).then_some((pid, status))
}

/// Lets processes whose parents end become children of this one.
pub(crate) fn adopt_orphans() {
    ok!(libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
}

/// Kills every child of this thread, and theirs, once those are orphans.
pub(crate) fn kill_children() {
    let list = format!("/proc/self/task/{}/children", std::process::id());
    loop {
        let children = std::fs::read_to_string(&list).unwrap_or_default();
        for pid in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        if children.is_empty() || unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } < 0 {
            return;
        }
    }
}

/// Kills a child and all that it started in its process group.
pub(crate) fn kill_session(pid: pid_t) {
    unsafe {
        libc::kill(-pid, libc::SIGKILL);
        libc::kill(pid, libc::SIGKILL);
    }
}

/// The error number of the last failed call.
pub(crate) fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// pipe2(2) with O_CLOEXEC: reader, writer.
pub(crate) fn pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(libc::O_CLOEXEC)
}

/// pipe2(2): reader, writer.
pub(crate) fn pipe_with(flags: c_int) -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    ok!(libc::pipe2(fds.as_mut_ptr(), flags));
    (own(fds[0]), own(fds[1]))
}

/// Takes ownership of a descriptor.
pub(crate) fn own(fd: RawFd) -> OwnedFd {
    assert!(fd >= 0, "a descriptor: {}", std::io::Error::last_os_error());
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// open(2) with mode 0644, which has to succeed.
pub(crate) fn open(path: &str, flags: c_int) -> OwnedFd {
    own(ok!(libc::open(c(path).as_ptr(), flags | libc::O_CLOEXEC, 0o644)))
}

/// read(2) of at most `length` bytes.
pub(crate) fn read(fd: &OwnedFd, length: usize) -> Vec<u8> {
    let mut buffer = vec![0; length];
    let got = ok!(libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), length));
    buffer.truncate(got as usize);
    buffer
}

/// write(2), which has to take everything.
pub(crate) fn write(fd: &OwnedFd, bytes: &[u8]) {
    let wrote = ok!(libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()));
    assert_eq!(wrote as usize, bytes.len(), "bytes written");
}

/// Makes a descriptor non-blocking.
pub(crate) fn set_nonblocking(fd: &impl AsRawFd) {
    let flags = ok!(libc::fcntl(fd.as_raw_fd(), libc::F_GETFL));
    ok!(libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK));
}

/// chmod(2).
pub(crate) fn set_mode(path: &Path, mode: libc::mode_t) {
    ok!(libc::chmod(c(path.to_str().expect("a plain path")).as_ptr(), mode));
}

/// Makes a file with these contents.
pub(crate) fn file(path: &str, contents: &[u8]) {
    std::fs::write(path, contents).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// stat(2).
pub(crate) fn stat(path: &str) -> libc::stat {
    let mut stat = unsafe { std::mem::zeroed() };
    ok!(libc::stat(c(path).as_ptr(), &mut stat));
    stat
}

/// fstat(2).
pub(crate) fn fstat(fd: &OwnedFd) -> libc::stat {
    let mut stat = unsafe { std::mem::zeroed() };
    ok!(libc::fstat(fd.as_raw_fd(), &mut stat));
    stat
}

/// Sleeps.
pub(crate) fn nap(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// Waits until something is true; a case that waits in vain runs into its time limit.
pub(crate) fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        nap(1);
    }
}

/// How long a body takes.
pub(crate) fn timed(body: impl FnOnce()) -> Duration {
    let started = Instant::now();
    body();
    started.elapsed()
}

/// An installed handler for a signal.
pub(crate) fn handle(signal: c_int, handler: extern "C" fn(c_int), flags: c_int) {
    act(signal, handler as *const () as usize, flags);
}

/// sigaction(2) with SIG_IGN, SIG_DFL or a handler's address.
pub(crate) fn act(signal: c_int, handler: usize, flags: c_int) {
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    ok!(libc::sigaction(signal, &action, std::ptr::null_mut()));
}

/// A set of signals.
pub(crate) fn signals(members: &[c_int]) -> libc::sigset_t {
    let mut set = unsafe { std::mem::zeroed() };
    ok!(libc::sigemptyset(&mut set));
    for signal in members {
        ok!(libc::sigaddset(&mut set, *signal));
    }
    set
}

/// Blocks signals in this thread.
pub(crate) fn block(members: &[c_int]) {
    ok!(libc::sigprocmask(libc::SIG_BLOCK, &signals(members), std::ptr::null_mut()));
}

/// Unblocks signals in this thread.
pub(crate) fn unblock(members: &[c_int]) {
    ok!(libc::sigprocmask(libc::SIG_UNBLOCK, &signals(members), std::ptr::null_mut()));
}

/// The state letter of a process in `/proc/PID/stat`.
pub(crate) fn state(pid: pid_t) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    rest.chars().next().unwrap_or('?')
}

/// Waits until a process sleeps.
pub(crate) fn until_asleep(pid: pid_t) {
    until(|| state(pid) == 'S');
}

/// Gives up root's rights for good.
pub(crate) fn become_nobody() {
    ok!(libc::setgroups(0, std::ptr::null()));
    ok!(libc::setresgid(65534, 65534, 65534));
    ok!(libc::setresuid(65534, 65534, 65534));
}

/// An anonymous private mapping of `length` bytes.
pub(crate) fn map(length: usize, protection: c_int) -> *mut u8 {
    map_with(length, protection, libc::MAP_PRIVATE)
}

/// An anonymous mapping with these flags.
pub(crate) fn map_with(length: usize, protection: c_int, flags: c_int) -> *mut u8 {
    let flags = flags | libc::MAP_ANONYMOUS;
    ok!(libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0)).cast()
}

/// A page that children share.
pub(crate) fn shared_page() -> *mut u32 {
    map_with(4096, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED).cast()
}
