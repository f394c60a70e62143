//! Sessions and process groups.

use crate::sys::*;

cases! {
    fn setsid_makes_a_leader() {
        in_child(|| {
            let pid = std::process::id() as i32;
            assert_eq!(ok!(libc::setsid()), pid);
            assert_eq!(ok!(libc::getsid(0)), pid);
            assert_eq!(ok!(libc::getpgrp()), pid);
            err!(libc::setsid(), libc::EPERM);
        });
    }

    fn children_inherit_group_and_session() {
        let (group, session) = (ok!(libc::getpgrp()), ok!(libc::getsid(0)));
        in_child(|| {
            assert_eq!(ok!(libc::getpgrp()), group);
            assert_eq!(ok!(libc::getsid(0)), session);
        });
    }

    fn setpgid_moves_a_child() {
        let pid = child(|| loop { nap(1000) });
        ok!(libc::setpgid(pid, pid));
        assert_eq!(ok!(libc::getpgid(pid)), pid);
        ok!(libc::setpgid(pid, libc::getpgrp()));
        assert_eq!(ok!(libc::getpgid(pid)), ok!(libc::getpgrp()));
        ok!(libc::kill(pid, libc::SIGKILL));
        wait(pid);
    }

    fn setpgid_refuses() {
        err!(libc::setpgid(0, -1), libc::EINVAL);
        // We lead a session.
        err!(libc::setpgid(0, 0), libc::EPERM);
        err!(libc::setpgid(1, 0), libc::ESRCH);
        let pid = child(|| loop { nap(1000) });
        err!(libc::setpgid(pid, 999_999), libc::EPERM);
        ok!(libc::kill(pid, libc::SIGKILL));
        wait(pid);
    }

    fn setpgid_after_exec_is_refused() {
        let pid = child(|| {
            let arguments = [c"sleep".as_ptr(), c"100".as_ptr(), std::ptr::null()];
            ok!(libc::execv(c"/bin/sleep".as_ptr(), arguments.as_ptr()))
        });
        until(|| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default().starts_with(b"sleep"));
        err!(libc::setpgid(pid, pid), libc::EACCES);
        ok!(libc::kill(pid, libc::SIGKILL));
        wait(pid);
    }

    fn getpgid_and_getsid_of_nobody() {
        err!(libc::getpgid(999_999), libc::ESRCH);
        err!(libc::getsid(999_999), libc::ESRCH);
        err!(libc::getpgid(-1), libc::ESRCH);
    }

    fn kill_reaches_a_whole_group() {
        let leader = child(|| loop { nap(1000) });
        ok!(libc::setpgid(leader, leader));
        let member = child(|| loop { nap(1000) });
        ok!(libc::setpgid(member, leader));
        ok!(libc::kill(-leader, libc::SIGTERM));
        expect_signal(leader, libc::SIGTERM);
        expect_signal(member, libc::SIGTERM);
        err!(libc::kill(-leader, 0), libc::ESRCH);
    }

    fn a_group_lives_without_its_leader() {
        let leader = child(|| { nap(1000); 0 });
        ok!(libc::setpgid(leader, leader));
        let member = child(|| loop { nap(1000) });
        ok!(libc::setpgid(member, leader));
        ok!(libc::kill(leader, libc::SIGKILL));
        expect_signal(leader, libc::SIGKILL);
        assert_eq!(ok!(libc::getpgid(member)), leader);
        ok!(libc::kill(-leader, libc::SIGKILL));
        expect_signal(member, libc::SIGKILL);
    }

    fn an_orphaned_stopped_group_gets_hangup() {
        expect_signal(stopped_grandchild(true), libc::SIGHUP);
    }

    fn a_group_with_a_parent_in_its_session_is_no_orphan() {
        let pid = stopped_grandchild(false);
        assert_eq!(state(pid), 'T');
        ok!(libc::kill(pid, libc::SIGKILL));
        expect_signal(pid, libc::SIGKILL);
    }
}

/// A stopped process in a group of its own, whose parent has ended; that parent was in another
/// session than we, who adopt it, or in ours.
fn stopped_grandchild(other_session: bool) -> i32 {
    ok!(libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
    let (reader, writer) = pipe();
    let middle = child(|| {
        if other_session {
            ok!(libc::setsid());
        }
        let pid = child(|| {
            loop {
                nap(1000);
            }
        });
        ok!(libc::setpgid(pid, pid));
        ok!(libc::kill(pid, libc::SIGSTOP));
        until(|| state(pid) == 'T');
        write(&writer, &pid.to_ne_bytes());
        0
    });
    expect_exit(middle, 0);
    i32::from_ne_bytes(read(&reader, 4).try_into().expect("a pid"))
}
