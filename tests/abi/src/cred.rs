//! Who may do what with files.

use crate::sys::*;
use std::path::Path;

fn own_file(path: &str, mode: u32, uid: u32, gid: u32) {
    file(path, b"x");
    ok!(libc::chown(c(path).as_ptr(), uid, gid));
    set_mode(Path::new(path), mode);
}

fn access(path: &str, mode: i32) -> i32 {
    unsafe { libc::access(c(path).as_ptr(), mode) }
}

fn open_as_nobody(path: &str, flags: i32) -> i32 {
    let pid = child(|| {
        become_nobody();
        if unsafe { libc::open(c(path).as_ptr(), flags) } >= 0 { 0 } else { errno() }
    });
    libc::WEXITSTATUS(wait(pid))
}

cases! {
    fn permission_bits_by_class() {
        // nobody is 65534:65534.
        for (mode, uid, gid, flags, expected) in [
            (0o600, 0, 0, libc::O_RDONLY, libc::EACCES),
            (0o604, 0, 0, libc::O_RDONLY, 0),
            (0o604, 0, 0, libc::O_RDWR, libc::EACCES),
            (0o640, 0, 65534, libc::O_RDONLY, 0),
            (0o604, 0, 65534, libc::O_RDONLY, libc::EACCES),
            (0o400, 65534, 0, libc::O_RDONLY, 0),
            (0o277, 65534, 0, libc::O_RDONLY, libc::EACCES),
            (0o200, 65534, 0, libc::O_WRONLY, 0),
        ] {
            own_file("f", mode, uid, gid);
            assert_eq!(open_as_nobody("f", flags), expected, "mode {mode:o} of {uid}:{gid}, flags {flags}");
            std::fs::remove_file("f").unwrap();
        }
    }

    fn folders_need_search_permission() {
        std::fs::create_dir("d").unwrap();
        file("d/f", b"");
        set_mode(Path::new("d"), 0o744);
        assert_eq!(open_as_nobody("d/f", libc::O_RDONLY), libc::EACCES);
        assert_eq!(open_as_nobody("d", libc::O_RDONLY), 0);
        set_mode(Path::new("d"), 0o711);
        assert_eq!(open_as_nobody("d/f", libc::O_RDONLY), 0);
        assert_eq!(open_as_nobody("d", libc::O_RDONLY), libc::EACCES);
    }

    fn root_may_read_and_write_everything() {
        own_file("f", 0, 1000, 1000);
        ok!(access("f", libc::R_OK | libc::W_OK));
        err!(access("f", libc::X_OK), libc::EACCES);
        set_mode(Path::new("f"), 0o001);
        ok!(access("f", libc::X_OK));
    }

    fn access_asks_for_the_real_user() {
        own_file("f", 0o600, 0, 0);
        in_child(|| {
            ok!(libc::setresuid(65534, 0, 0));
            err!(access("f", libc::R_OK), libc::EACCES);
            ok!(libc::open(c"f".as_ptr(), libc::O_RDONLY));
            ok!(libc::syscall(libc::SYS_faccessat2, libc::AT_FDCWD, c"f".as_ptr(), libc::R_OK, libc::AT_EACCESS));
        });
        err!(access("f", 0o17), libc::EINVAL);
    }

    fn writing_a_folder_needs_permission() {
        set_mode(Path::new("."), 0o755);
        file("f", b"");
        in_child(|| {
            become_nobody();
            err!(libc::unlink(c"f".as_ptr()), libc::EACCES);
            err!(libc::mkdir(c"d".as_ptr(), 0o755), libc::EACCES);
            err!(libc::rename(c"f".as_ptr(), c"g".as_ptr()), libc::EACCES);
            err!(libc::open(c"new".as_ptr(), libc::O_CREAT | libc::O_RDWR, 0o644), libc::EACCES);
        });
    }

    fn sticky_folders_protect_names() {
        std::fs::create_dir("d").unwrap();
        set_mode(Path::new("d"), 0o1777);
        file("d/roots", b"");
        in_child(|| {
            become_nobody();
            err!(libc::unlink(c"d/roots".as_ptr()), libc::EPERM);
            err!(libc::rename(c"d/roots".as_ptr(), c"d/x".as_ptr()), libc::EPERM);
            file("d/own", b"");
            ok!(libc::unlink(c"d/own".as_ptr()));
        });
    }

    fn chmod_needs_the_owner() {
        own_file("f", 0o644, 0, 0);
        own_file("g", 0o644, 65534, 65534);
        in_child(|| {
            become_nobody();
            err!(libc::chmod(c"f".as_ptr(), 0o666), libc::EPERM);
            ok!(libc::chmod(c"g".as_ptr(), 0o600));
        });
        assert_eq!(stat("g").st_mode & 0o7777, 0o600);
        set_mode(Path::new("f"), 0o7777);
        assert_eq!(stat("f").st_mode & 0o7777, 0o7777);
    }

    fn chown_is_roots() {
        own_file("f", 0o644, 65534, 65534);
        in_child(|| {
            become_nobody();
            err!(libc::chown(c"f".as_ptr(), 1000, u32::MAX), libc::EPERM);
            err!(libc::chown(c"f".as_ptr(), u32::MAX, 1000), libc::EPERM);
            ok!(libc::chown(c"f".as_ptr(), u32::MAX, 65534));
        });
        ok!(libc::chown(c"f".as_ptr(), 5, 6));
        let got = stat("f");
        assert_eq!((got.st_uid, got.st_gid), (5, 6));
    }

    fn chown_drops_set_id_bits() {
        own_file("f", 0o6755, 0, 0);
        ok!(libc::chown(c"f".as_ptr(), 1, 1));
        assert_eq!(stat("f").st_mode & 0o7777, 0o755);
    }

    fn writing_drops_set_id_bits() {
        own_file("f", 0o6777, 0, 0);
        in_child(|| { become_nobody(); write(&open("f", libc::O_WRONLY), b"y"); });
        assert_eq!(stat("f").st_mode & 0o7777, 0o777);
    }

    fn the_umask_takes_bits_away() {
        assert_eq!(unsafe { libc::umask(0o027) }, 0o022);
        drop(own(ok!(libc::open(c"f".as_ptr(), libc::O_CREAT | libc::O_RDWR, 0o666))));
        ok!(libc::mkdir(c"d".as_ptr(), 0o777));
        assert_eq!((stat("f").st_mode & 0o777, stat("d").st_mode & 0o777), (0o640, 0o750));
        assert_eq!(unsafe { libc::umask(0o7777) }, 0o027);
        assert_eq!(unsafe { libc::umask(0) }, 0o777);
    }

    fn new_files_belong_to_their_maker() {
        set_mode(Path::new("."), 0o777);
        in_child(|| { become_nobody(); file("f", b""); });
        assert_eq!((stat("f").st_uid, stat("f").st_gid), (65534, 65534));
    }

    fn set_group_id_folders_pass_on_their_group() {
        std::fs::create_dir("d").unwrap();
        ok!(libc::chown(c"d".as_ptr(), 0, 77));
        set_mode(Path::new("d"), 0o2755);
        file("d/f", b"");
        std::fs::create_dir("d/e").unwrap();
        assert_eq!(stat("d/f").st_gid, 77);
        assert_eq!((stat("d/e").st_gid, stat("d/e").st_mode & 0o2000), (77, 0o2000));
    }

    fn supplementary_groups_count() {
        own_file("f", 0o040, 0, 4321);
        in_child(|| {
            ok!(libc::setgroups(2, [1u32, 4321].as_ptr()));
            ok!(libc::setresgid(65534, 65534, 65534));
            ok!(libc::setresuid(65534, 65534, 65534));
            ok!(libc::open(c"f".as_ptr(), libc::O_RDONLY));
        });
        assert_eq!(open_as_nobody("f", libc::O_RDONLY), libc::EACCES);
    }
}
