//! fork, vfork, clone, clone3, exit, pidfd.

use crate::sys::*;
use std::os::fd::AsRawFd;

const CLONE_ARGS_SIZE: usize = std::mem::size_of::<libc::clone_args>();

fn clone3(arguments: &mut libc::clone_args) -> libc::c_long {
    unsafe { libc::syscall(libc::SYS_clone3, arguments as *mut _, CLONE_ARGS_SIZE) }
}

fn no_arguments() -> libc::clone_args {
    unsafe { std::mem::zeroed() }
}

cases! {
    fn fork_gives_a_new_pid_and_the_right_parent() {
        let parent = unsafe { libc::getpid() };
        let pid = child(|| i32::from(unsafe { libc::getppid() } != parent));
        assert!(pid > 0 && pid != parent);
        expect_exit(pid, 0);
    }

    fn fork_copies_memory() {
        let mut value = 1;
        let pid = child(|| { value = 2; value });
        expect_exit(pid, 2);
        assert_eq!(value, 1);
    }

    fn fork_copies_many_pages_on_write() {
        let length = 4 << 20;
        let memory = map(length, libc::PROT_READ | libc::PROT_WRITE);
        let pages = unsafe { std::slice::from_raw_parts_mut(memory, length) };
        for page in (0..length).step_by(4096) { pages[page] = (page >> 12) as u8; }
        in_child(|| {
            for page in (0..length).step_by(4096) {
                assert_eq!(pages[page], (page >> 12) as u8);
                pages[page] = 0xff;
            }
        });
        for page in (0..length).step_by(4096) { assert_eq!(pages[page], (page >> 12) as u8); }
    }

    fn fork_shares_open_file_descriptions() {
        file("f", b"abcdef");
        let fd = open("f", libc::O_RDONLY);
        in_child(|| { assert_eq!(read(&fd, 2), b"ab"); });
        assert_eq!(read(&fd, 2), b"cd");
    }

    fn fork_chain_of_generations() {
        fn descend(depth: i32) -> i32 {
            if depth == 0 { return 7; }
            let pid = child(|| descend(depth - 1));
            libc::WEXITSTATUS(wait(pid))
        }
        assert_eq!(descend(20), 7);
    }

    fn exit_status_is_cut_to_a_byte() {
        expect_exit(child(|| 256 + 5), 5);
        expect_exit(child(|| -1), 255);
    }

    fn vfork_stops_the_parent_until_the_child_ends() {
        let page = shared_page();
        let pid = unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_VFORK | libc::SIGCHLD, 0, 0, 0, 0) };
        if pid == 0 {
            nap(50);
            unsafe { page.write_volatile(1); libc::_exit(3) }
        }
        assert_eq!(unsafe { page.read_volatile() }, 1, "the parent went on before the child ended");
        expect_exit(pid as i32, 3);
    }

    fn clone_with_another_exit_signal() {
        block(&[libc::SIGUSR1]);
        let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGUSR1, 0, 0, 0, 0) };
        if pid == 0 { unsafe { libc::_exit(0) } }
        let mut signal = 0;
        ok!(libc::sigwait(&signals(&[libc::SIGUSR1]), &mut signal));
        assert_eq!(signal, libc::SIGUSR1);
        let mut status = 0;
        err!(libc::waitpid(-1, &mut status, 0), libc::ECHILD);
        assert_eq!(ok!(libc::waitpid(pid as i32, &mut status, libc::__WCLONE)), pid as i32);
    }

    fn clone_thread_without_vm_is_refused() {
        let flags = libc::CLONE_THREAD | libc::SIGCHLD;
        err!(libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0), libc::EINVAL);
        let flags = libc::CLONE_SIGHAND | libc::SIGCHLD;
        err!(libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0), libc::EINVAL);
    }

    fn clone_files_shares_the_descriptor_table() {
        let flags = libc::CLONE_FILES | libc::SIGCHLD;
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
        if pid == 0 {
            let fd = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY) };
            unsafe { libc::_exit(fd) }
        }
        let status = wait(pid as i32);
        ok!(libc::fcntl(libc::WEXITSTATUS(status), libc::F_GETFD));
    }

    fn clone_fs_shares_the_working_directory() {
        std::fs::create_dir("d").unwrap();
        let flags = libc::CLONE_FS | libc::SIGCHLD;
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
        if pid == 0 { unsafe { libc::_exit(libc::chdir(c"d".as_ptr())) } }
        expect_exit(pid as i32, 0);
        assert!(std::env::current_dir().unwrap().ends_with("d"));
    }

    fn clone_parent_settid_and_child_cleartid() {
        let page = shared_page();
        let flags = libc::CLONE_PARENT_SETTID | libc::CLONE_CHILD_SETTID | libc::SIGCHLD;
        let mut parent_tid: libc::pid_t = 0;
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, &mut parent_tid, page, 0) };
        if pid == 0 {
            let same = unsafe { page.read_volatile() } == std::process::id();
            unsafe { libc::_exit(i32::from(!same)) }
        }
        assert_eq!(i64::from(parent_tid), pid);
        expect_exit(pid as i32, 0);
    }

    fn clone3_makes_a_child() {
        let mut arguments = no_arguments();
        arguments.exit_signal = libc::SIGCHLD as u64;
        let pid = clone3(&mut arguments);
        if pid == 0 { unsafe { libc::_exit(9) } }
        expect_exit(pid as i32, 9);
    }

    fn clone3_checks_its_arguments() {
        let mut arguments = no_arguments();
        arguments.exit_signal = 1000;
        err!(clone3(&mut arguments), libc::EINVAL);
        let mut arguments = no_arguments();
        arguments.flags = (libc::CLONE_THREAD | libc::CLONE_SIGHAND) as u64;
        err!(clone3(&mut arguments), libc::EINVAL);
        err!(libc::syscall(libc::SYS_clone3, &arguments, 8), libc::EINVAL);
        err!(libc::syscall(libc::SYS_clone3, 1, CLONE_ARGS_SIZE), libc::EFAULT);
    }

    fn clone3_with_a_pidfd() {
        let mut fd: i32 = -1;
        let mut arguments = no_arguments();
        arguments.flags = libc::CLONE_PIDFD as u64;
        arguments.pidfd = &mut fd as *mut i32 as u64;
        arguments.exit_signal = libc::SIGCHLD as u64;
        let pid = clone3(&mut arguments);
        if pid == 0 { unsafe { libc::pause(); libc::_exit(0) } }
        let fd = own(fd);
        ok!(libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), libc::SIGTERM, 0, 0));
        let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        assert_eq!(ok!(libc::poll(&mut poll, 1, 5000)), 1);
        expect_signal(pid as i32, libc::SIGTERM);
    }

    fn pidfd_open_and_waitid() {
        let pid = child(|| 4);
        let fd = own(ok!(libc::syscall(libc::SYS_pidfd_open, pid, 0)) as i32);
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        ok!(libc::waitid(libc::P_PIDFD, fd.as_raw_fd() as u32, &mut info, libc::WEXITED));
        assert_eq!(unsafe { (info.si_pid(), info.si_status()) }, (pid, 4));
        err!(libc::syscall(libc::SYS_pidfd_open, pid, 0), libc::ESRCH);
        err!(libc::syscall(libc::SYS_pidfd_open, 0, 0), libc::EINVAL);
    }

    fn orphans_go_to_the_subreaper() {
        ok!(libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
        let (reader, writer) = pipe();
        let middle = child(|| {
            let pid = child(|| { nap(50); 6 });
            write(&writer, &pid.to_ne_bytes());
            0
        });
        expect_exit(middle, 0);
        let pid = i32::from_ne_bytes(read(&reader, 4).try_into().unwrap());
        expect_exit(pid, 6);
    }

    fn parent_death_signal() {
        ok!(libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
        let (reader, writer) = pipe();
        let middle = child(|| {
            let pid = child(|| {
                ok!(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGUSR1, 0, 0, 0));
                write(&writer, b"x");
                loop { ok!({ libc::pause(); 0 }); }
            });
            until_asleep(pid);
            read(&reader, 1);
            write(&writer, &pid.to_ne_bytes());
            0
        });
        expect_exit(middle, 0);
        let pid = i32::from_ne_bytes(read(&reader, 4).try_into().unwrap());
        expect_signal(pid, libc::SIGUSR1);
    }

    fn gettid_of_a_single_thread_is_its_pid() {
        assert_eq!(ok!(libc::syscall(libc::SYS_gettid)) as u32, std::process::id());
    }

    fn unknown_system_calls_are_enosys() {
        err!(libc::syscall(5000), libc::ENOSYS);
        err!(libc::syscall(-1), libc::ENOSYS);
    }
}
