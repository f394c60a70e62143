//! User and group ids, capabilities, names, prctl, uname.

use crate::sys::*;

fn uids() -> (u32, u32, u32) {
    let (mut real, mut effective, mut saved) = (0, 0, 0);
    ok!(libc::getresuid(&mut real, &mut effective, &mut saved));
    (real, effective, saved)
}

fn gids() -> (u32, u32, u32) {
    let (mut real, mut effective, mut saved) = (0, 0, 0);
    ok!(libc::getresgid(&mut real, &mut effective, &mut saved));
    (real, effective, saved)
}

fn status(field: &str) -> String {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
}

cases! {
    fn root_may_become_anyone() {
        in_child(|| {
            ok!(libc::setresuid(1, 2, 3));
            assert_eq!(uids(), (1, 2, 3));
        });
        in_child(|| {
            ok!(libc::setuid(7));
            assert_eq!(uids(), (7, 7, 7));
            err!(libc::setuid(0), libc::EPERM);
        });
        in_child(|| {
            ok!(libc::setgid(8));
            assert_eq!(gids(), (8, 8, 8));
        });
    }

    fn others_move_between_their_ids() {
        in_child(|| {
            ok!(libc::setresuid(1, 2, 3));
            ok!(libc::setresuid(u32::MAX, 3, u32::MAX));
            assert_eq!(uids(), (1, 3, 3));
            ok!(libc::seteuid(1));
            err!(libc::setresuid(4, u32::MAX, u32::MAX), libc::EPERM);
            ok!(libc::setuid(3));
            assert_eq!(uids(), (1, 3, 3));
        });
    }

    fn setreuid_keeps_the_saved_id_in_step() {
        in_child(|| {
            ok!(libc::setreuid(5, 6));
            assert_eq!(uids(), (5, 6, 6));
            ok!(libc::setreuid(6, 5));
            assert_eq!(uids(), (6, 5, 5));
            err!(libc::setreuid(9, u32::MAX), libc::EPERM);
        });
    }

    fn root_can_step_down_and_back() {
        in_child(|| {
            ok!(libc::seteuid(1000));
            err!(libc::setgroups(0, std::ptr::null()), libc::EPERM);
            ok!(libc::seteuid(0));
            ok!(libc::setgroups(0, std::ptr::null()));
        });
    }

    fn groups_are_kept() {
        in_child(|| {
            ok!(libc::setgroups(3, [30u32, 10, 20].as_ptr()));
            let mut groups = [0u32; 3];
            assert_eq!(ok!(libc::getgroups(0, std::ptr::null_mut())), 3);
            assert_eq!(ok!(libc::getgroups(3, groups.as_mut_ptr())), 3);
            groups.sort();
            assert_eq!(groups, [10, 20, 30]);
            err!(libc::getgroups(2, groups.as_mut_ptr()), libc::EINVAL);
            err!(libc::syscall(libc::SYS_setgroups, 70_000, groups.as_ptr()), libc::EINVAL);
        });
    }

    fn capabilities_go_with_root() {
        in_child(|| {
            let before = status("CapEff");
            assert_ne!(before, "0000000000000000");
            ok!(libc::seteuid(1000));
            assert_eq!(status("CapEff"), "0000000000000000");
            ok!(libc::seteuid(0));
            assert_eq!(status("CapEff"), before);
            become_nobody();
            assert_eq!((status("CapEff"), status("CapPrm")), ("0000000000000000".into(), "0000000000000000".into()));
        });
    }

    fn capabilities_may_be_kept() {
        in_child(|| {
            ok!(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0));
            become_nobody();
            assert_eq!(status("CapEff"), "0000000000000000");
            assert_ne!(status("CapPrm"), "0000000000000000");
        });
    }

    fn capget_and_capset() {
        let mut header = [0x2008_0522u32, 0];
        let mut data = [0u32; 6];
        ok!(libc::syscall(libc::SYS_capget, header.as_mut_ptr(), data.as_mut_ptr()));
        assert_ne!(data[0], 0);
        in_child(|| {
            let mut fewer = data;
            fewer[0] &= !(1 << 6); // CAP_SETGID
            ok!(libc::syscall(libc::SYS_capset, header.as_ptr(), fewer.as_ptr()));
            err!(libc::setgroups(0, std::ptr::null()), libc::EPERM);
        });
        let mut wrong = [0x1234u32, 0];
        err!(libc::syscall(libc::SYS_capget, wrong.as_mut_ptr(), data.as_mut_ptr()), libc::EINVAL);
        assert_eq!(wrong[0], 0x2008_0522, "the version we should have used");
    }

    fn process_names() {
        ok!(libc::prctl(libc::PR_SET_NAME, c"a-name-that-is-too-long".as_ptr()));
        let mut name = [0u8; 16];
        ok!(libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()));
        assert_eq!(&name, b"a-name-that-is-\0");
        assert_eq!(std::fs::read_to_string("/proc/self/comm").unwrap(), "a-name-that-is-\n");
    }

    fn prctl_settings() {
        assert_eq!(ok!(libc::prctl(libc::PR_GET_DUMPABLE)), 1);
        ok!(libc::prctl(libc::PR_SET_DUMPABLE, 0));
        assert_eq!(ok!(libc::prctl(libc::PR_GET_DUMPABLE)), 0);
        err!(libc::prctl(libc::PR_SET_DUMPABLE, 7), libc::EINVAL);
        assert_eq!(ok!(libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)), 0);
        err!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), libc::EINVAL);
        ok!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        assert_eq!(ok!(libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)), 1);
        err!(libc::prctl(libc::PR_SET_PDEATHSIG, 100), libc::EINVAL);
        err!(libc::prctl(99999), libc::EINVAL);
        let mut signal = -1;
        ok!(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGHUP));
        ok!(libc::prctl(libc::PR_GET_PDEATHSIG, &mut signal));
        assert_eq!(signal, libc::SIGHUP);
    }

    fn arch_prctl_moves_segments() {
        const ARCH_SET_GS: i32 = 0x1001;
        const ARCH_GET_FS: i32 = 0x1003;
        const ARCH_GET_GS: i32 = 0x1004;
        let (mut fs, mut gs) = (0u64, 0u64);
        ok!(libc::syscall(libc::SYS_arch_prctl, ARCH_GET_FS, &mut fs));
        let mut own: u64;
        unsafe { std::arch::asm!("mov {}, fs:[0]", out(reg) own) };
        assert_eq!(fs, own, "glibc keeps the base at offset 0");
        let word = 0x1122_3344_5566_7788u64;
        ok!(libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, &word));
        unsafe { std::arch::asm!("mov {}, gs:[0]", out(reg) own) };
        assert_eq!(own, word);
        nap(2);
        ok!(libc::syscall(libc::SYS_arch_prctl, ARCH_GET_GS, &mut gs));
        assert_eq!(gs, &raw const word as u64);
        err!(libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, u64::MAX), libc::EPERM);
        err!(libc::syscall(libc::SYS_arch_prctl, 0x9999, 0), libc::EINVAL);
    }

    fn uname_and_hostname() {
        let mut names: libc::utsname = unsafe { std::mem::zeroed() };
        ok!(libc::uname(&mut names));
        let text = |field: &[libc::c_char]| unsafe { std::ffi::CStr::from_ptr(field.as_ptr()) }.to_str().unwrap().to_owned();
        assert_eq!((text(&names.sysname), text(&names.machine)), ("Linux".into(), "x86_64".into()));
        let release = text(&names.release);
        let major: u32 = release.split('.').next().unwrap().parse().unwrap();
        assert!(major >= 5, "release {release}");
        assert_eq!(std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim(), text(&names.nodename));
        in_child(|| { become_nobody(); err!(libc::sethostname(c"x".as_ptr(), 1), libc::EPERM); });
        err!(libc::sethostname(c"x".as_ptr(), 65), libc::EINVAL);
    }
}
