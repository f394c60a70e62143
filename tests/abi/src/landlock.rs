//! Landlock: rights to files that a thread takes away from itself.

use crate::sys::*;
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REMOVE_DIR: u64 = 1 << 4;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_DIR: u64 = 1 << 7;
const MAKE_REG: u64 = 1 << 8;
const MAKE_FIFO: u64 = 1 << 10;
const MAKE_SYM: u64 = 1 << 12;
const REFER: u64 = 1 << 13;
const ALL: u64 = (1 << 14) - 1;

#[repr(C, packed)]
struct PathBeneath {
    granted: u64,
    parent: i32,
}

fn create(handled: u64) -> OwnedFd {
    let fd = ok!(libc::syscall(libc::SYS_landlock_create_ruleset, &raw const handled, 8, 0));
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

fn try_grant(ruleset: i32, kind: u32, granted: u64, parent: i32, flags: u32) -> Result<(), i32> {
    let rule = PathBeneath { granted, parent };
    let result = unsafe { libc::syscall(libc::SYS_landlock_add_rule, ruleset, kind, &raw const rule, flags) };
    if result == 0 { Ok(()) } else { Err(errno()) }
}

fn place(path: &str) -> OwnedFd {
    let path = CString::new(path).unwrap();
    unsafe { OwnedFd::from_raw_fd(ok!(libc::open(path.as_ptr(), libc::O_PATH | libc::O_CLOEXEC))) }
}

fn grant(ruleset: &OwnedFd, path: &str, granted: u64) {
    try_grant(ruleset.as_raw_fd(), 1, granted, place(path).as_raw_fd(), 0).unwrap();
}

fn restrict(ruleset: &OwnedFd) {
    ok!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    ok!(libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0));
}

/// In a child: `body`, which must give true.
fn apart(body: impl FnOnce() -> bool) {
    assert_eq!(wait(child(|| i32::from(!body()))), 0, "the child said no");
}

/// The error of it, 0 for none.
fn code<T>(result: std::io::Result<T>) -> i32 {
    result.err().map_or(0, |error| error.raw_os_error().unwrap_or(-1))
}

/// `open/` and `shut/` with a file and a folder each.
fn folders() {
    for folder in ["open", "shut"] {
        fs::create_dir_all(format!("{folder}/folder")).unwrap();
        fs::write(format!("{folder}/file"), "x").unwrap();
    }
}

fn read(path: &str) -> i32 {
    code(fs::read(path))
}

fn write(path: &str) -> i32 {
    code(fs::OpenOptions::new().write(true).open(path))
}

fn rename(from: &str, to: &str) -> i32 {
    code(fs::rename(from, to))
}

cases! {
    fn arguments_are_checked() {
        let call = |at: usize, size: usize, flags: u32| unsafe {
            let result = libc::syscall(libc::SYS_landlock_create_ruleset, at, size, flags);
            if result == -1 { Err(errno()) } else { Ok(result) }
        };
        assert!(call(0, 0, 1).unwrap() >= 2);
        assert_eq!(call(0, 8, 1), Err(libc::EINVAL));
        assert_eq!(call(0, 0, 1 << 30), Err(libc::EINVAL));
        assert_eq!(call(0, 8, 0), Err(libc::EFAULT));
        let long = [READ_FILE, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let at = (&raw const long).addr();
        assert_eq!(call(at, 7, 0), Err(libc::EINVAL));
        assert_eq!(call(at, 80, 0), Err(libc::E2BIG));
        assert_eq!(call(at, 5000, 0), Err(libc::E2BIG));
        let none = 0u64;
        assert_eq!(call((&raw const none).addr(), 8, 0), Err(libc::ENOMSG));
        let unknown = 1u64 << 60;
        assert_eq!(call((&raw const unknown).addr(), 8, 0), Err(libc::EINVAL));
    }

    fn rules_are_checked() {
        folders();
        let ruleset = create(READ_FILE | READ_DIR);
        let (fd, folder, file) = (ruleset.as_raw_fd(), place("open"), place("open/file"));
        assert_eq!(try_grant(fd, 1, READ_FILE, folder.as_raw_fd(), 1), Err(libc::EINVAL));
        assert_eq!(try_grant(-1, 1, READ_FILE, folder.as_raw_fd(), 0), Err(libc::EBADF));
        let other = fs::File::open("open/file").unwrap();
        assert_eq!(try_grant(other.as_raw_fd(), 1, READ_FILE, folder.as_raw_fd(), 0), Err(libc::EBADFD));
        assert_eq!(try_grant(fd, 99, READ_FILE, folder.as_raw_fd(), 0), Err(libc::EINVAL));
        assert_eq!(try_grant(fd, 1, 0, folder.as_raw_fd(), 0), Err(libc::ENOMSG));
        assert_eq!(try_grant(fd, 1, WRITE_FILE, folder.as_raw_fd(), 0), Err(libc::EINVAL));
        assert_eq!(try_grant(fd, 1, READ_FILE, -1, 0), Err(libc::EBADF));
        assert_eq!(try_grant(fd, 1, READ_FILE, fd, 0), Err(libc::EBADFD));
        assert_eq!(try_grant(fd, 1, READ_DIR, file.as_raw_fd(), 0), Err(libc::EINVAL));
        assert_eq!(try_grant(fd, 1, READ_FILE, file.as_raw_fd(), 0), Ok(()));
        let mut pipe = [0; 2];
        ok!(libc::pipe(pipe.as_mut_ptr()));
        assert_eq!(try_grant(fd, 1, READ_FILE, pipe[0], 0), Err(libc::EBADFD));
    }

    fn restricting_needs_a_promise() {
        apart(|| {
            ok!(libc::setresuid(65534, 65534, 65534));
            let ruleset = create(READ_FILE);
            let call = |fd: i32, flags: u32| {
                if unsafe { libc::syscall(libc::SYS_landlock_restrict_self, fd, flags) } == 0 { 0 } else { errno() }
            };
            let refused = call(ruleset.as_raw_fd(), 0) == libc::EPERM && call(-1, 1 << 30) == libc::EPERM;
            ok!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
            refused
                && call(-1, 1 << 30) == libc::EINVAL
                && call(-1, 0) == libc::EBADF
                && call(0, 0) == libc::EBADFD
                && call(ruleset.as_raw_fd(), 0) == 0
        });
    }

    fn what_is_not_granted_is_denied() {
        folders();
        apart(|| {
            let ruleset = create(READ_FILE | WRITE_FILE | READ_DIR);
            grant(&ruleset, "open", READ_FILE | READ_DIR);
            grant(&ruleset, "shut/file", WRITE_FILE);
            let held = fs::File::open("shut/folder").unwrap();
            restrict(&ruleset);
            let denied = libc::EACCES;
            let open = [read("open/file"), write("open/file"), code(fs::read_dir("open/folder"))] == [0, denied, 0];
            let shut = [read("shut/file"), write("shut/file"), code(fs::read_dir("shut"))] == [denied, 0, denied];
            // What the ruleset is not about is allowed, as are attributes and what is open already.
            let others = code(fs::create_dir("shut/new")) == 0 && code(fs::metadata("shut/file")) == 0;
            let unheld = code(held.metadata()) == 0 && code(fs::remove_dir("shut/folder")) == 0;
            // O_PATH opens nothing.
            let path = CString::new("shut").unwrap();
            let named = unsafe { libc::open(path.as_ptr(), libc::O_PATH) } >= 0;
            open && shut && others && unheld && named
        });
    }

    fn each_layer_has_to_grant() {
        folders();
        apart(|| {
            let first = create(READ_FILE);
            grant(&first, ".", READ_FILE);
            restrict(&first);
            let before = [read("open/file"), read("shut/file")] == [0, 0];
            let second = create(READ_FILE | WRITE_FILE);
            grant(&second, "open", READ_FILE);
            restrict(&second);
            let after = [read("open/file"), read("shut/file"), write("open/file")] == [0, libc::EACCES, libc::EACCES];
            // Children and threads have it, too.
            let status = wait(child(|| i32::from(read("shut/file") != libc::EACCES)));
            before && after && status == 0
        });
        apart(|| {
            let ruleset = create(READ_FILE);
            (0..16).for_each(|_| restrict(&ruleset));
            let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) };
            result == -1 && errno() == libc::E2BIG
        });
    }

    fn making_and_removing() {
        folders();
        apart(|| {
            let ruleset = create(ALL & !EXECUTE);
            grant(&ruleset, "open", MAKE_REG | MAKE_SYM | REMOVE_FILE | WRITE_FILE);
            restrict(&ruleset);
            let node = |path: &str, mode: u32| {
                let path = CString::new(path).unwrap();
                if unsafe { libc::mknod(path.as_ptr(), mode, 0) } == 0 { 0 } else { errno() }
            };
            let denied = libc::EACCES;
            let made = [
                code(fs::write("open/new", "x")),
                code(std::os::unix::fs::symlink("x", "open/link")),
                code(fs::create_dir("open/dir")),
                node("open/fifo", libc::S_IFIFO | 0o600),
                code(std::os::unix::net::UnixListener::bind("open/socket")),
                code(fs::write("shut/new", "x")),
            ];
            let removed = [
                code(fs::remove_file("open/new")),
                code(fs::remove_dir("open/folder")),
                code(fs::remove_file("shut/file")),
                code(fs::remove_dir("shut/folder")),
            ];
            made == [0, 0, denied, denied, denied, denied] && removed == [0, denied, denied, denied]
        });
        let _ = (MAKE_DIR, MAKE_FIFO, REMOVE_DIR);
    }

    fn running_needs_the_right_to() {
        apart(|| {
            let ruleset = create(EXECUTE);
            restrict(&ruleset);
            let program = CString::new("/proc/self/exe").unwrap();
            let arguments = [program.as_ptr(), std::ptr::null()];
            unsafe { libc::execv(program.as_ptr(), arguments.as_ptr()) };
            errno() == libc::EACCES
        });
    }

    fn moving_gains_nothing() {
        folders();
        fs::create_dir("more").unwrap();
        apart(|| {
            let ruleset = create(ALL & !EXECUTE);
            let all = ALL & !EXECUTE;
            grant(&ruleset, "open", all);
            grant(&ruleset, "more", all);
            grant(&ruleset, "shut", MAKE_REG | REMOVE_FILE | REFER);
            restrict(&ruleset);
            // Within a folder, between equals, from more to less; not from less to more.
            let within = rename("shut/file", "shut/other") == 0;
            let equal = rename("open/file", "more/file") == 0;
            let less = rename("more/file", "shut/file") == 0;
            let gain = rename("shut/file", "open/file") == libc::EXDEV;
            let link = code(fs::hard_link("shut/file", "open/file")) == libc::EXDEV;
            let folder = rename("open/folder", "shut/moved") == libc::EACCES;
            within && equal && less && gain && link && folder
        });
    }

    fn moving_is_denied_unless_granted() {
        folders();
        apart(|| {
            // Not about REFER at all: denied all the same.
            let ruleset = create(READ_FILE);
            grant(&ruleset, ".", READ_FILE);
            restrict(&ruleset);
            rename("open/file", "shut/new") == libc::EXDEV && rename("open/file", "open/new") == 0
        });
    }

    fn mounts_stay_as_they_are() {
        apart(|| {
            ok!(libc::unshare(libc::CLONE_NEWNS));
            let ruleset = create(READ_FILE);
            restrict(&ruleset);
            let none = std::ptr::null();
            let result = unsafe { libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast()) };
            let mounted = result == -1 && errno() == libc::EPERM;
            mounted && unsafe { libc::umount2(c"/proc".as_ptr(), 0) } == -1 && errno() == libc::EPERM
        });
    }

    fn tracing_stays_inside() {
        apart(|| {
            let outside = child(|| {
                unsafe { libc::pause() };
                0
            });
            let ruleset = create(READ_FILE);
            restrict(&ruleset);
            let inside = child(|| {
                unsafe { libc::pause() };
                0
            });
            let seize = |pid: i32| unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) };
            let refused = seize(outside) == -1 && errno() == libc::EPERM;
            let allowed = seize(inside) == 0;
            for pid in [outside, inside] {
                ok!(libc::kill(pid, libc::SIGKILL));
                wait(pid);
            }
            refused && allowed
        });
    }
}
