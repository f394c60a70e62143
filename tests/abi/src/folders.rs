//! Names: folders, links, renaming, walking paths, the at-calls.

use crate::sys::*;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;

fn mkdir(path: &str) {
    ok!(libc::mkdir(c(path).as_ptr(), 0o755));
}

fn rename(from: &str, to: &str) -> i32 {
    unsafe { libc::rename(c(from).as_ptr(), c(to).as_ptr()) }
}

fn exists(path: &str) -> bool {
    fs::symlink_metadata(path).is_ok()
}

cases! {
    fn making_and_removing_folders() {
        mkdir("d");
        assert_eq!(stat("d").st_mode, libc::S_IFDIR | 0o755);
        err!(libc::mkdir(c"d".as_ptr(), 0o755), libc::EEXIST);
        err!(libc::mkdir(c"x/y".as_ptr(), 0o755), libc::ENOENT);
        file("d/f", b"");
        err!(libc::rmdir(c"d".as_ptr()), libc::ENOTEMPTY);
        err!(libc::rmdir(c"d/f".as_ptr()), libc::ENOTDIR);
        err!(libc::unlink(c"d".as_ptr()), libc::EISDIR);
        fs::remove_file("d/f").unwrap();
        err!(libc::rmdir(c"d/.".as_ptr()), libc::EINVAL);
        err!(libc::rmdir(c"d/..".as_ptr()), libc::ENOTEMPTY);
        ok!(libc::rmdir(c"d/".as_ptr()));
        err!(libc::rmdir(c"d".as_ptr()), libc::ENOENT);
    }

    fn folders_count_their_links() {
        mkdir("d");
        let before = stat("d").st_nlink;
        mkdir("d/e");
        mkdir("d/f");
        let after = stat("d").st_nlink;
        assert!((before, after) == (2, 4) || (before, after) == (1, 1));
    }

    fn listing_shows_everything_once() {
        for number in 0..300 { file(&format!("file-{number}"), b""); }
        let mut names: Vec<String> = fs::read_dir(".").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        let mut expected: Vec<String> = (0..300).map(|number| format!("file-{number}")).collect();
        expected.sort();
        assert_eq!(names, expected);
    }

    fn listing_while_removing() {
        for number in 0..200 { file(&format!("f{number}"), b""); }
        for entry in fs::read_dir(".").unwrap() { fs::remove_file(entry.unwrap().path()).unwrap(); }
        assert_eq!(fs::read_dir(".").unwrap().count(), 0);
    }

    fn raw_listing_has_dots_and_types() {
        mkdir("d");
        symlink("d", "l").unwrap();
        let fd = open(".", libc::O_RDONLY | libc::O_DIRECTORY);
        let mut buffer = [0u8; 4096];
        let got = ok!(libc::syscall(libc::SYS_getdents64, fd.as_raw_fd(), buffer.as_mut_ptr(), 4096)) as usize;
        let (mut at, mut entries) = (0, Vec::new());
        while at < got {
            let length = u16::from_ne_bytes([buffer[at + 16], buffer[at + 17]]) as usize;
            let name = buffer[at + 19..at + length].split(|byte| *byte == 0).next().unwrap();
            entries.push((String::from_utf8(name.to_vec()).unwrap(), buffer[at + 18]));
            at += length;
        }
        entries.sort();
        let expected = [(".", libc::DT_DIR), ("..", libc::DT_DIR), ("d", libc::DT_DIR), ("l", libc::DT_LNK)];
        assert_eq!(entries, expected.map(|(name, kind)| (name.to_owned(), kind)));
        assert_eq!(ok!(libc::syscall(libc::SYS_getdents64, fd.as_raw_fd(), buffer.as_mut_ptr(), 4096)), 0);
        ok!(libc::lseek(fd.as_raw_fd(), 0, libc::SEEK_SET));
        err!(libc::syscall(libc::SYS_getdents64, fd.as_raw_fd(), buffer.as_mut_ptr(), 10), libc::EINVAL);
        err!(libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), 10), libc::EISDIR);
    }

    fn hard_links_are_one_file() {
        file("a", b"x");
        ok!(libc::link(c"a".as_ptr(), c"b".as_ptr()));
        assert_eq!(stat("a").st_ino, stat("b").st_ino);
        assert_eq!(stat("a").st_nlink, 2);
        file("b", b"changed");
        fs::remove_file("a").unwrap();
        assert_eq!((fs::read("b").unwrap().as_slice(), stat("b").st_nlink), (&b"changed"[..], 1));
        mkdir("d");
        err!(libc::link(c"d".as_ptr(), c"e".as_ptr()), libc::EPERM);
        err!(libc::link(c"b".as_ptr(), c"d".as_ptr()), libc::EEXIST);
    }

    fn symbolic_links() {
        file("f", b"x");
        symlink("f", "l").unwrap();
        assert_eq!(fs::read("l").unwrap(), b"x");
        assert_eq!(fs::read_link("l").unwrap().to_str(), Some("f"));
        symlink("missing", "dangling").unwrap();
        err!(libc::open(c"dangling".as_ptr(), libc::O_RDONLY), libc::ENOENT);
        ok!(libc::open(c"dangling".as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o644));
        assert!(exists("missing"));
        symlink("loop", "loop").unwrap();
        err!(libc::open(c"loop".as_ptr(), libc::O_RDONLY), libc::ELOOP);
        let mut small = [0u8; 3];
        symlink("abcdef", "long").unwrap();
        assert_eq!(ok!(libc::readlink(c"long".as_ptr(), small.as_mut_ptr().cast(), 3)), 3);
        err!(libc::readlink(c"f".as_ptr(), small.as_mut_ptr().cast(), 3), libc::EINVAL);
        err!(libc::symlink(c"".as_ptr(), c"x".as_ptr()), libc::ENOENT);
        let info = fs::symlink_metadata("long").unwrap();
        assert_eq!(info.len(), 6);
    }

    fn forty_links_are_the_limit() {
        file("l0", b"x");
        for number in 1..=42 { symlink(format!("l{}", number - 1), format!("l{number}")).unwrap(); }
        assert!(fs::read("l40").is_ok());
        assert_eq!(fs::read("l41").unwrap_err().raw_os_error(), Some(libc::ELOOP));
    }

    fn renaming_replaces() {
        file("a", b"a");
        file("b", b"b");
        ok!(rename("a", "b"));
        assert!(!exists("a") && fs::read("b").unwrap() == b"a");
        ok!(rename("b", "b"));
        err!(rename("missing", "x"), libc::ENOENT);
        mkdir("d");
        err!(rename("b", "d"), libc::EISDIR);
        err!(rename("d", "b"), libc::ENOTDIR);
        err!(rename("d", "d/e"), libc::EINVAL);
        mkdir("full");
        file("full/f", b"");
        err!(rename("d", "full"), libc::ENOTEMPTY);
        mkdir("empty");
        ok!(rename("full", "empty"));
        assert!(exists("empty/f") && !exists("full"));
    }

    fn renaming_hard_links_to_each_other_does_nothing() {
        file("a", b"x");
        ok!(libc::link(c"a".as_ptr(), c"b".as_ptr()));
        ok!(rename("a", "b"));
        assert!(exists("a") && exists("b"));
    }

    fn renameat2_flags() {
        file("a", b"a");
        file("b", b"b");
        let call = |from: &str, to: &str, flags: u32| unsafe {
            libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, c(from).as_ptr(), libc::AT_FDCWD, c(to).as_ptr(), flags)
        };
        err!(call("a", "b", libc::RENAME_NOREPLACE), libc::EEXIST);
        ok!(call("a", "b", libc::RENAME_EXCHANGE));
        assert_eq!((fs::read("a").unwrap(), fs::read("b").unwrap()), (b"b".to_vec(), b"a".to_vec()));
        err!(call("a", "b", libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE), libc::EINVAL);
        ok!(call("a", "c", libc::RENAME_NOREPLACE));
    }

    fn paths_are_walked() {
        mkdir("d");
        mkdir("d/e");
        file("d/f", b"x");
        assert!(exists("d//e/.././e/../f"));
        err!(libc::chdir(c"d/f".as_ptr()), libc::ENOTDIR);
        err!(libc::access(c"d/f/x".as_ptr(), libc::F_OK), libc::ENOTDIR);
        ok!(libc::chdir(c"d/e".as_ptr()));
        assert!(exists("../f"));
        assert!(std::env::current_dir().unwrap().ends_with("d/e"));
        assert_eq!(stat("/..").st_ino, stat("/").st_ino);
    }

    fn getcwd_of_a_removed_folder() {
        mkdir("d");
        ok!(libc::chdir(c"d".as_ptr()));
        ok!(libc::rmdir(c"../d".as_ptr()));
        let mut buffer = [0u8; 4096];
        err!(libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), 4096), libc::ENOENT);
        err!(libc::open(c"x".as_ptr(), libc::O_CREAT | libc::O_RDWR, 0o644), libc::ENOENT);
        ok!(libc::chdir(c"/".as_ptr()));
        err!(libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), 1), libc::ERANGE);
        assert_eq!(ok!(libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), 4096)), 2);
    }

    fn calls_relative_to_a_folder() {
        mkdir("d");
        let folder = open("d", libc::O_RDONLY | libc::O_DIRECTORY);
        let at = folder.as_raw_fd();
        drop(own(ok!(libc::openat(at, c"f".as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o644))));
        assert!(exists("d/f"));
        ok!(libc::mkdirat(at, c"e".as_ptr(), 0o700));
        ok!(libc::symlinkat(c"f".as_ptr(), at, c"l".as_ptr()));
        ok!(libc::linkat(at, c"f".as_ptr(), libc::AT_FDCWD, c"outside".as_ptr(), 0));
        ok!(libc::faccessat(at, c"f".as_ptr(), libc::R_OK, 0));
        let mut got: libc::stat = unsafe { std::mem::zeroed() };
        ok!(libc::fstatat(at, c"l".as_ptr(), &mut got, libc::AT_SYMLINK_NOFOLLOW));
        assert_eq!(got.st_mode & libc::S_IFMT, libc::S_IFLNK);
        ok!(libc::fstatat(at, c"".as_ptr(), &mut got, libc::AT_EMPTY_PATH));
        assert_eq!(got.st_mode & libc::S_IFMT, libc::S_IFDIR);
        ok!(libc::unlinkat(at, c"e".as_ptr(), libc::AT_REMOVEDIR));
        err!(libc::unlinkat(at, c"f".as_ptr(), 0x1234), libc::EINVAL);
        let plain = open("d/f", libc::O_RDONLY);
        err!(libc::openat(plain.as_raw_fd(), c"x".as_ptr(), libc::O_RDONLY), libc::ENOTDIR);
        err!(libc::openat(9999, c"x".as_ptr(), libc::O_RDONLY), libc::EBADF);
        ok!(libc::fchdir(at));
        assert!(exists("f"));
    }

    fn statx_agrees_with_stat() {
        file("f", b"abc");
        let mut got: libc::statx = unsafe { std::mem::zeroed() };
        ok!(libc::statx(libc::AT_FDCWD, c"f".as_ptr(), 0, libc::STATX_BASIC_STATS, &mut got));
        let plain = stat("f");
        assert_eq!((got.stx_size, u64::from(got.stx_nlink), got.stx_ino), (3, plain.st_nlink, plain.st_ino));
        assert_eq!(u32::from(got.stx_mode), plain.st_mode);
        assert_eq!((got.stx_mask & libc::STATX_BASIC_STATS), libc::STATX_BASIC_STATS);
        err!(libc::statx(libc::AT_FDCWD, c"f".as_ptr(), 0x4000_0000, libc::STATX_BASIC_STATS, &mut got), libc::EINVAL);
    }

    fn nodes_can_be_made() {
        ok!(libc::mknod(c"n".as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(1, 3)));
        assert_eq!(stat("n").st_rdev, libc::makedev(1, 3));
        ok!(libc::mknod(c"f".as_ptr(), libc::S_IFREG | 0o600, 0));
        assert_eq!(stat("f").st_mode, libc::S_IFREG | 0o600);
        err!(libc::mknod(c"d".as_ptr(), libc::S_IFDIR | 0o600, 0), libc::EPERM);
        in_child(|| { become_nobody(); err!(libc::mknod(c"x".as_ptr(), libc::S_IFCHR | 0o600, libc::makedev(1, 3)), libc::EPERM); });
    }

    fn chroot_moves_the_root() {
        mkdir("d");
        file("d/inside", b"");
        in_child(|| {
            ok!(libc::chroot(c"d".as_ptr()));
            ok!(libc::chdir(c"/".as_ptr()));
            assert!(exists("/inside") && exists("/../../inside"));
        });
        in_child(|| { become_nobody(); err!(libc::chroot(c"d".as_ptr()), libc::EPERM); });
    }

    fn a_rename_can_leave_a_mark() {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        const WHITEOUT: u32 = 4;
        let call = |from: &std::ffi::CStr, to: &std::ffi::CStr, flags: u32| {
            let at = libc::AT_FDCWD;
            let result = unsafe { libc::syscall(libc::SYS_renameat2, at, from.as_ptr(), at, to.as_ptr(), flags) };
            if result == 0 { 0 } else { errno() }
        };
        std::fs::write("old", "x").unwrap();
        std::fs::write("taken", "y").unwrap();
        assert_eq!(call(c"old", c"new", WHITEOUT | 2), libc::EINVAL);
        assert_eq!(call(c"old", c"taken", WHITEOUT | 1), libc::EEXIST);
        let mut system: libc::statfs = unsafe { std::mem::zeroed() };
        ok!(libc::statfs(c".".as_ptr(), &raw mut system));
        if system.f_type as u64 == libc::OVERLAYFS_SUPER_MAGIC as u64 {
            // Its own marks are nothing that others make.
            assert_eq!(call(c"old", c"taken", WHITEOUT), libc::EINVAL);
            return;
        }
        assert_eq!(call(c"old", c"taken", WHITEOUT), 0);
        assert_eq!(std::fs::read("taken").unwrap(), b"x");
        let mark = std::fs::metadata("old").unwrap();
        assert!(mark.file_type().is_char_device() && mark.rdev() == 0 && mark.mode() & 0o777 == 0);
        assert_eq!(call(c"taken", c"new", WHITEOUT | 1), 0);
        std::fs::remove_file("old").unwrap();
        std::fs::remove_file("taken").unwrap();
    }
}
