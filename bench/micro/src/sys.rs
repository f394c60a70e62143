//! Small steps that the rows take. A failing call panics, which ends the row.

use libc::{c_int, pid_t};
use std::ffi::{CStr, CString};
use std::os::fd::{FromRawFd, OwnedFd};

/// A system call that has to succeed; its result.
macro_rules! ok {
    ($call:expr) => {{
        let result = unsafe { $call };
        assert!(result >= 0, "{}: {}", stringify!($call), std::io::Error::last_os_error());
        result
    }};
}

/// A C string for a path or name.
pub(crate) fn c(text: &str) -> CString {
    CString::new(text).expect("no NUL in the text")
}

/// A child that runs `body` and exits with status 0; 101 if it panics.
pub(crate) fn child(body: impl FnOnce()) -> pid_t {
    let pid = ok!(libc::fork());
    if pid == 0 {
        std::panic::set_hook(Box::new(|panic| {
            eprintln!("{panic}");
            unsafe { libc::_exit(101) }
        }));
        body();
        unsafe { libc::_exit(0) }
    }
    pid
}

/// A helper process that ends with this one at the latest.
pub(crate) fn helper(body: impl FnOnce()) -> pid_t {
    child(|| {
        end_after(crate::LIMIT);
        body();
    })
}

/// Waits for a child and returns its wait status.
pub(crate) fn wait(pid: pid_t) -> c_int {
    let mut status = 0;
    ok!(libc::waitpid(pid, &mut status, 0));
    status
}

/// Makes this process the leader of a process group, for [`kill_group`].
pub(crate) fn lead_group() {
    ok!(libc::setpgid(0, 0));
}

/// Ends what is left of a row.
pub(crate) fn kill_group(pid: pid_t) {
    // Mostly there is nothing left.
    unsafe { libc::kill(-pid, libc::SIGKILL) };
}

/// Has the kernel end this process after some seconds.
pub(crate) fn end_after(seconds: u32) {
    unsafe { libc::alarm(seconds) };
}

/// The release that uname(2) names.
pub(crate) fn kernel_release() -> String {
    let mut names: libc::utsname = unsafe { std::mem::zeroed() };
    ok!(libc::uname(&mut names));
    let release = unsafe { CStr::from_ptr(names.release.as_ptr()) };
    release.to_string_lossy().into_owned()
}

/// Goes to a new folder, where rows make their files.
pub(crate) fn enter_work_folder() -> String {
    let name = format!("/tmp/bench-micro.{}", std::process::id());
    std::fs::create_dir_all(&name).expect("a folder in /tmp");
    std::env::set_current_dir(&name).expect("our own folder");
    name
}

/// Takes ownership of a descriptor.
pub(crate) fn own(fd: c_int) -> OwnedFd {
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// pipe(2): reader, writer.
pub(crate) fn pipe() -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    ok!(libc::pipe(fds.as_mut_ptr()));
    (own(fds[0]), own(fds[1]))
}

/// eventfd(2).
pub(crate) fn eventfd(count: u32) -> OwnedFd {
    own(ok!(libc::eventfd(count, 0)))
}

/// socketpair(2) of two connected unix stream sockets.
pub(crate) fn socket_pair() -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    ok!(libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, fds.as_mut_ptr()));
    (own(fds[0]), own(fds[1]))
}

/// open(2) with mode 0644.
pub(crate) fn open(path: &str, flags: c_int) -> OwnedFd {
    own(ok!(libc::open(c(path).as_ptr(), flags, 0o644)))
}
