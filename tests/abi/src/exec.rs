//! execve: arguments, scripts, what survives, and bad files.

use crate::sys::*;
use std::os::fd::AsRawFd;
use std::process::ExitCode;

/// What this program does when a case executes it.
pub(crate) fn play_role(arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["exit", code, ..] => ExitCode::from(code.parse::<u8>().unwrap_or(255)),
        ["count", ..] => ExitCode::from(words.len() as u8 - 1),
        ["env", name, value] => is(std::env::var(name).as_deref() == Ok(value)),
        ["closed", fd] => is(unsafe { libc::fcntl(fd.parse().unwrap_or(-1), libc::F_GETFD) } == -1),
        ["ignored", signal] => {
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            let signal = signal.parse().unwrap_or(0);
            ok!(libc::sigaction(signal, std::ptr::null(), &mut action));
            is(action.sa_sigaction == libc::SIG_IGN)
        }
        ["blocked", signal] => {
            let mut set = signals(&[]);
            ok!(libc::sigprocmask(libc::SIG_BLOCK, std::ptr::null(), &mut set));
            is(ok!(libc::sigismember(&set, signal.parse().unwrap_or(0))) == 1)
        }
        ["pending", signal] => {
            let mut set = signals(&[]);
            ok!(libc::sigpending(&mut set));
            is(ok!(libc::sigismember(&set, signal.parse().unwrap_or(0))) == 1)
        }
        ["uid", uid] => is(unsafe { libc::geteuid() }.to_string() == *uid),
        ["name", name] => is(std::fs::read_to_string("/proc/self/comm").is_ok_and(|got| got.trim() == *name)),
        ["sleep"] => loop {
            nap(1000)
        },
        _ => ExitCode::from(254),
    }
}

fn is(truth: bool) -> ExitCode {
    if truth { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

const OWN: &str = "/proc/self/exe";

/// Executes a program in this process; returns only on failure.
pub(crate) fn exec(path: &str, arguments: &[&str], environment: &[&str]) -> i32 {
    let hold = |words: &[&str]| words.iter().map(|word| c(word)).collect::<Vec<_>>();
    let (arguments, environment) = (hold(arguments), hold(environment));
    let pointers = |words: &[std::ffi::CString]| {
        words.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
    };
    unsafe { libc::execve(c(path).as_ptr(), pointers(&arguments).as_ptr(), pointers(&environment).as_ptr()) }
}

/// Executes this program in a role, in a child, which has to end with this status.
#[track_caller]
fn role(words: &[&str], status: i32) {
    let all: Vec<&str> = ["me", "role"].iter().chain(words).copied().collect();
    expect_exit(child(|| exec(OWN, &all, &[])), status);
}

fn own_bytes() -> Vec<u8> {
    std::fs::read(OWN).unwrap()
}

fn executable(path: &str, contents: &[u8]) {
    file(path, contents);
    set_mode(std::path::Path::new(path), 0o755);
}

#[track_caller]
fn refused(path: &str, errno_expected: i32) {
    err!(exec(path, &["x"], &[]), errno_expected);
}

cases! {
    fn exec_passes_arguments() {
        role(&["exit", "42"], 42);
        role(&["count", "a", "", "c d"], 3);
    }

    fn exec_passes_the_environment() {
        let words = ["me", "role", "env", "NAME", "a=b c"];
        expect_exit(child(|| exec(OWN, &words, &["OTHER=1", "NAME=a=b c"])), 0);
    }

    fn exec_with_many_arguments() {
        let mut words = vec!["me", "role", "exit", "5"];
        let long = "x".repeat(1000);
        words.extend(std::iter::repeat_n(long.as_str(), 1000));
        expect_exit(child(|| exec(OWN, &words, &[])), 5);
    }

    fn exec_with_too_long_an_argument() {
        let long = "x".repeat(132 << 10);
        err!(exec(OWN, &["me", &long], &[]), libc::E2BIG);
    }

    fn exec_with_too_many_arguments() {
        let long = "x".repeat(100 << 10);
        let words: Vec<&str> = std::iter::repeat_n(long.as_str(), 100).collect();
        err!(exec(OWN, &words, &[]), libc::E2BIG);
    }

    fn exec_closes_close_on_exec_descriptors() {
        let kept = open("/dev/null", libc::O_RDONLY);
        ok!(libc::fcntl(kept.as_raw_fd(), libc::F_SETFD, 0));
        role(&["closed", &kept.as_raw_fd().to_string()], 1);
        ok!(libc::fcntl(kept.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC));
        role(&["closed", &kept.as_raw_fd().to_string()], 0);
    }

    fn exec_resets_handlers_but_not_ignored_signals() {
        extern "C" fn nothing(_: i32) {}
        handle(libc::SIGUSR1, nothing, 0);
        act(libc::SIGUSR2, libc::SIG_IGN, 0);
        role(&["ignored", &libc::SIGUSR1.to_string()], 1);
        role(&["ignored", &libc::SIGUSR2.to_string()], 0);
    }

    fn exec_keeps_blocked_and_pending_signals() {
        let usr1 = libc::SIGUSR1.to_string();
        block(&[libc::SIGUSR1]);
        role(&["blocked", &usr1], 0);
        let words = ["me", "role", "pending", &usr1];
        expect_exit(child(|| { ok!(libc::raise(libc::SIGUSR1)); exec(OWN, &words, &[]) }), 0);
    }

    fn exec_keeps_the_pid() {
        let pid = child(|| exec(OWN, &["me", "role", "sleep"], &[]));
        until(|| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default().starts_with(b"me\0role"));
        ok!(libc::kill(pid, libc::SIGKILL));
        expect_signal(pid, libc::SIGKILL);
    }

    fn exec_sets_the_command_name() {
        std::fs::copy(OWN, "a-rather-long-name").unwrap();
        let words = ["me", "role", "name", "a-rather-long-n"];
        expect_exit(child(|| exec("./a-rather-long-name", &words, &[])), 0);
    }

    fn exec_of_set_user_id_programs() {
        std::fs::copy(OWN, "setuid").unwrap();
        ok!(libc::chown(c"setuid".as_ptr(), 1234, 0));
        set_mode(std::path::Path::new("setuid"), 0o4755);
        expect_exit(child(|| { become_nobody(); exec("./setuid", &["me", "role", "uid", "1234"], &[]) }), 0);
        let no_new_privileges = child(|| {
            become_nobody();
            ok!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
            exec("./setuid", &["me", "role", "uid", "65534"], &[])
        });
        expect_exit(no_new_privileges, 0);
    }

    fn execveat_by_descriptor() {
        let fd = open(OWN, libc::O_PATH);
        let words = [c"me".as_ptr(), c"role".as_ptr(), c"exit".as_ptr(), c"8".as_ptr(), std::ptr::null()];
        let none = [std::ptr::null::<libc::c_char>()];
        let pid = child(|| {
            let number = fd.as_raw_fd();
            (unsafe { libc::syscall(libc::SYS_execveat, number, c"".as_ptr(), words.as_ptr(), none.as_ptr(), libc::AT_EMPTY_PATH) }) as i32
        });
        expect_exit(pid, 8);
        err!(libc::syscall(libc::SYS_execveat, fd.as_raw_fd(), c"".as_ptr(), words.as_ptr(), none.as_ptr(), 0), libc::ENOENT);
        err!(libc::syscall(libc::SYS_execveat, -1, c"x".as_ptr(), words.as_ptr(), none.as_ptr(), 0), libc::EBADF);
    }

    fn scripts_name_their_interpreter() {
        executable("script", b"#!/bin/sh\nexit 17\n");
        expect_exit(child(|| exec("./script", &["x"], &[])), 17);
        executable("script", b"#! /bin/sh -e\nfalse\nexit 17\n");
        expect_exit(child(|| exec("./script", &["x"], &[])), 1);
    }

    fn scripts_get_one_argument_and_their_path() {
        let own = std::fs::read_link(OWN).unwrap();
        executable("script", format!("#!{} role\n", own.display()).as_bytes());
        // argv: own, "role", "./script", "rest" -> the role is "./script", which is none.
        expect_exit(child(|| exec("./script", &["x", "rest"], &[])), 254);
        executable("script", b"#!/bin/sh\n[ \"$0 $1\" = './script one' ]\n");
        expect_exit(child(|| exec("./script", &["x", "one"], &[])), 0);
    }

    fn scripts_of_scripts() {
        let folder = std::env::current_dir().unwrap();
        executable("inner", b"#!/bin/sh\nexit 21\n");
        executable("outer", format!("#!{}/inner\n", folder.display()).as_bytes());
        expect_exit(child(|| exec("./outer", &["x"], &[])), 21);
        executable("loop", format!("#!{}/loop\n", folder.display()).as_bytes());
        refused("./loop", libc::ELOOP);
    }

    fn scripts_with_a_bad_interpreter() {
        executable("script", b"#!/no/such/interpreter\n");
        refused("./script", libc::ENOENT);
        executable("script", b"#!\n");
        refused("./script", libc::ENOEXEC);
        executable("script", b"#!/etc/passwd\n");
        refused("./script", libc::EACCES);
    }

    fn files_that_cannot_be_executed() {
        refused("./missing", libc::ENOENT);
        refused("", libc::ENOENT);
        file("plain", &own_bytes());
        refused("./plain", libc::EACCES);
        refused("/tmp", libc::EACCES);
        refused("/etc/passwd/x", libc::ENOTDIR);
        executable("empty", b"");
        refused("./empty", libc::ENOEXEC);
        executable("text", b"hello\n");
        refused("./text", libc::ENOEXEC);
    }

    fn truncated_elf_files() {
        let own = own_bytes();
        for length in [4, 16, 63, 64, 100] {
            executable("cut", &own[..length]);
            let result = child(|| { exec("./cut", &["x"], &[]); errno() });
            let status = wait(result);
            let refused = libc::WIFEXITED(status) && [libc::ENOEXEC, libc::EIO].contains(&libc::WEXITSTATUS(status));
            assert!(refused || libc::WIFSIGNALED(status), "cut to {length}: {status:#x}");
        }
    }

    fn elf_files_of_another_kind() {
        let own = own_bytes();
        let patched = |at: usize, bytes: &[u8]| {
            let mut copy = own.clone();
            copy[at..at + bytes.len()].copy_from_slice(bytes);
            executable("patched", &copy);
        };
        patched(0, b"\x7fELG");
        refused("./patched", libc::ENOEXEC);
        patched(16, &1u16.to_le_bytes()); // ET_REL
        refused("./patched", libc::ENOEXEC);
        patched(18, &8u16.to_le_bytes()); // EM_MIPS
        refused("./patched", libc::ENOEXEC);
        patched(54, &7u16.to_le_bytes()); // e_phentsize
        refused("./patched", libc::ENOEXEC);
    }

    fn elf_headers_full_of_noise_kill_nobody_else() {
        let own = own_bytes();
        let mut seed = 12345u64;
        for _ in 0..40 {
            let mut copy = own[..own.len().min(256 << 10)].to_vec();
            for _ in 0..6 {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let at = 24 + (seed >> 33) as usize % 600;
                copy[at] = (seed >> 20) as u8;
            }
            executable("noise", &copy);
            let pid = child(|| {
                ok!(libc::alarm(2) as i32);
                exec("./noise", &["x", "role", "exit", "0"], &[]);
                1
            });
            wait(pid);
        }
    }

    fn exec_of_a_file_open_for_writing() {
        std::fs::copy(OWN, "busy").unwrap();
        let fd = open("busy", libc::O_WRONLY);
        refused("./busy", libc::ETXTBSY);
        drop(fd);
        expect_exit(child(|| exec("./busy", &["me", "role", "exit", "1"], &[])), 1);
    }

    fn a_running_program_cannot_be_written() {
        std::fs::copy(OWN, "running").unwrap();
        let pid = child(|| exec("./running", &["me", "role", "sleep"], &[]));
        until(|| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default().starts_with(b"me\0role"));
        err!(libc::open(c"running".as_ptr(), libc::O_WRONLY), libc::ETXTBSY);
        ok!(libc::kill(pid, libc::SIGKILL));
        wait(pid);
    }

    fn exec_from_a_thread_ends_the_others() {
        let pid = child(|| {
            std::thread::spawn(|| loop { nap(1000) });
            std::thread::spawn(|| exec(OWN, &["me", "role", "exit", "31"], &[]));
            loop { nap(1000) }
        });
        expect_exit(pid, 31);
    }

    fn auxiliary_vector_tells_the_truth() {
        assert_eq!(unsafe { libc::getauxval(libc::AT_PAGESZ) }, 4096);
        assert_eq!(unsafe { libc::getauxval(libc::AT_UID) }, u64::from(unsafe { libc::getuid() }));
        assert_eq!(unsafe { libc::getauxval(libc::AT_SECURE) }, 0);
        let random = unsafe { libc::getauxval(libc::AT_RANDOM) } as *const [u8; 16];
        assert_ne!(unsafe { *random }, [0; 16]);
        let name = unsafe { libc::getauxval(libc::AT_EXECFN) } as *const libc::c_char;
        assert!(!unsafe { std::ffi::CStr::from_ptr(name) }.is_empty());
    }

    fn the_vdso_gives_its_symbols_a_version() {
        let image = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) } as usize;
        assert_ne!(image, 0);
        let word = |at: usize| unsafe { (at as *const u64).read_unaligned() as usize };
        let half = |at: usize| usize::from(unsafe { (at as *const u16).read_unaligned() });
        let name = |at: usize| unsafe { std::ffi::CStr::from_ptr(at as *const libc::c_char) }.to_str().unwrap();
        let headers = (0..half(image + 56)).map(|number| image + word(image + 32) + 56 * number);
        let dynamic = image + word(headers.into_iter().find(|at| half(*at) == 2).expect("a dynamic section") + 16);
        let entry = |tag: usize| {
            let mut at = dynamic;
            while word(at) != tag {
                assert_ne!(word(at), 0, "no entry {tag:#x}");
                at += 16;
            }
            image + word(at + 8)
        };
        let (hash, strings, symbols) = (entry(4), entry(5), entry(6));
        let (versions, definitions) = (entry(0x6fff_fff0), entry(0x6fff_fffc));
        let count = half(hash + 4);
        let symbol = |name_of: &str| (1..count).find(|&n| name(strings + word(symbols + 24 * n) as u32 as usize) == name_of);
        for wanted in ["__vdso_clock_gettime", "__vdso_gettimeofday", "__vdso_time", "__vdso_getcpu"] {
            let version = half(versions + 2 * symbol(wanted).expect(wanted)) & 0x7fff;
            let mut at = definitions;
            while half(at + 4) != version {
                assert_ne!(word(at + 16) as u32, 0, "no version {version}");
                at += word(at + 16) as u32 as usize;
            }
            let first_name = at + word(at + 12) as u32 as usize;
            assert_eq!(name(strings + word(first_name) as u32 as usize), "LINUX_2.6");
        }
    }
}
