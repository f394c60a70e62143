//! Mounts: binding, moving, propagation, namespaces, and mounting by descriptors.

use crate::sys::*;
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::ptr::null;

const OPEN_TREE_CLONE: u32 = 1;
const AT_RECURSIVE: u32 = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSCONFIG_CMD_RECONFIGURE: u32 = 7;

/// A mount namespace of its own, from which nothing gets out; the case's folder is a tmpfs now.
fn alone() {
    ok!(libc::unshare(libc::CLONE_NEWNS));
    ok!(libc::mount(null(), c"/".as_ptr(), null(), libc::MS_REC | libc::MS_PRIVATE, null()));
    let here = std::env::current_dir().unwrap();
    tmpfs(here.to_str().unwrap());
    std::env::set_current_dir(here).unwrap();
}

fn c(text: &str) -> CString {
    CString::new(text).unwrap()
}

fn tmpfs(at: &str) {
    fs::create_dir_all(at).unwrap();
    ok!(libc::mount(c"test".as_ptr(), c(at).as_ptr(), c"tmpfs".as_ptr(), 0, null()));
}

fn mount(from: &str, at: &str, flags: libc::c_ulong) -> i32 {
    let result = unsafe { libc::mount(c(from).as_ptr(), c(at).as_ptr(), null(), flags, null()) };
    if result == 0 { 0 } else { errno() }
}

fn bind(from: &str, at: &str) {
    fs::create_dir_all(at).unwrap();
    assert_eq!(mount(from, at, libc::MS_BIND), 0, "binding {from} to {at}");
}

fn umount(at: &str) -> i32 {
    if unsafe { libc::umount2(c(at).as_ptr(), 0) } == 0 { 0 } else { errno() }
}

fn touch(path: &str) {
    fs::write(path, "x").unwrap();
}

fn there(path: &str) -> bool {
    fs::exists(path).unwrap()
}

/// The line of mountinfo for what is mounted at `path` of the case's folder: its fields before and after the dash.
fn info(path: &str) -> (Vec<String>, Vec<String>) {
    let full = std::env::current_dir().unwrap().join(path);
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = text.lines().rfind(|line| line.split(' ').nth(4) == full.to_str()).expect("a line for it");
    let (left, right) = line.split_once(" - ").unwrap();
    let words = |text: &str| text.split(' ').map(str::to_owned).collect();
    (words(left), words(right))
}

fn tags(path: &str) -> Vec<String> {
    info(path).0[6..].iter().map(|tag| tag.split(':').next().unwrap().to_owned()).collect()
}

fn call(number: libc::c_long, args: [usize; 5]) -> Result<usize, i32> {
    let result = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4]) };
    if result < 0 { Err(errno()) } else { Ok(result as usize) }
}

fn fd_of(result: Result<usize, i32>) -> OwnedFd {
    unsafe { OwnedFd::from_raw_fd(result.expect("a descriptor") as i32) }
}

fn fsopen(kind: &str) -> Result<usize, i32> {
    let kind = c(kind);
    call(libc::SYS_fsopen, [kind.as_ptr() as usize, 1, 0, 0, 0])
}

fn fsconfig(fd: &OwnedFd, command: u32, key: Option<&str>, value: Option<&str>) -> Result<usize, i32> {
    let (key, value) = (key.map(c), value.map(c));
    let at = |text: &Option<CString>| text.as_ref().map_or(0, |text| text.as_ptr() as usize);
    call(libc::SYS_fsconfig, [fd.as_raw_fd() as usize, command as usize, at(&key), at(&value), 0])
}

fn fsmount(fd: &OwnedFd, attributes: usize) -> Result<usize, i32> {
    call(libc::SYS_fsmount, [fd.as_raw_fd() as usize, 1, attributes, 0, 0])
}

fn move_mount(fd: &OwnedFd, to: &str) -> Result<usize, i32> {
    let to = c(to);
    let (from, here) = (fd.as_raw_fd() as usize, libc::AT_FDCWD as usize);
    let flags = MOVE_MOUNT_F_EMPTY_PATH as usize;
    call(libc::SYS_move_mount, [from, c"".as_ptr() as usize, here, to.as_ptr() as usize, flags])
}

fn open_tree(path: &str, flags: u32) -> Result<usize, i32> {
    let path = c(path);
    let flags = (flags | libc::O_CLOEXEC as u32) as usize;
    call(libc::SYS_open_tree, [libc::AT_FDCWD as usize, path.as_ptr() as usize, flags, 0, 0])
}

fn setattr(path: &str, flags: u32, attributes: [u64; 4]) -> Result<usize, i32> {
    let (path, here) = (c(path), libc::AT_FDCWD as usize);
    call(libc::SYS_mount_setattr, [here, path.as_ptr() as usize, flags as usize, attributes.as_ptr() as usize, 32])
}

cases! {
    fn a_bound_folder_shows_twice() {
        alone();
        fs::create_dir_all("a/b").unwrap();
        bind("a", "other");
        touch("a/b/file");
        assert!(there("other/b/file"));
        assert_eq!(info("other").0[3], "/a");
        assert_eq!(umount("other"), 0);
        assert!(!there("other/b"));
        assert_eq!(umount("other"), libc::EINVAL, "it is no mount's root now");
        assert_eq!(umount("nothing"), libc::ENOENT);
    }

    fn binding_recursively_takes_what_is_mounted_below() {
        alone();
        tmpfs("a/b");
        touch("a/b/file");
        bind("a", "flat");
        assert!(!there("flat/b/file"));
        fs::create_dir("deep").unwrap();
        assert_eq!(mount("a", "deep", libc::MS_BIND | libc::MS_REC), 0);
        assert!(there("deep/b/file"));
        assert_eq!(umount("deep"), libc::EBUSY);
        ok!(libc::umount2(c"deep".as_ptr(), libc::MNT_DETACH));
        assert!(!there("deep/b"));
    }

    fn files_are_bound_to_files() {
        alone();
        touch("from");
        fs::write("to", "").unwrap();
        fs::create_dir("folder").unwrap();
        assert_eq!(mount("from", "folder", libc::MS_BIND), libc::ENOTDIR);
        assert_eq!(mount("folder", "to", libc::MS_BIND), libc::ENOTDIR);
        assert_eq!(mount("from", "to", libc::MS_BIND), 0);
        assert_eq!(fs::read("to").unwrap(), b"x");
        assert_eq!(fs::remove_file("to").unwrap_err().raw_os_error(), Some(libc::EBUSY));
    }

    fn what_is_in_use_is_busy_unless_detached() {
        alone();
        tmpfs("a");
        touch("a/file");
        let file = open("a/file", libc::O_RDONLY);
        assert_eq!(umount("a"), libc::EBUSY);
        ok!(libc::umount2(c"a".as_ptr(), libc::MNT_DETACH));
        assert!(!there("a/file"));
        assert_eq!(read(&file, 5), b"x");
    }

    fn expiry_takes_two_calls() {
        alone();
        tmpfs("a");
        err!(libc::umount2(c"a".as_ptr(), libc::MNT_EXPIRE | libc::MNT_DETACH), libc::EINVAL);
        err!(libc::umount2(c"a".as_ptr(), libc::MNT_EXPIRE), libc::EAGAIN);
        ok!(libc::umount2(c"a".as_ptr(), libc::MNT_EXPIRE));
        err!(libc::umount2(c"a".as_ptr(), 0x100), libc::EINVAL);
    }

    fn flags_of_a_mount_are_its_own() {
        alone();
        bind(".", "other");
        assert_eq!(mount("", "other", libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | libc::MS_NOSUID), 0);
        assert_eq!(fs::write("other/file", "").unwrap_err().raw_os_error(), Some(libc::EROFS));
        touch("file");
        assert_eq!(info("other").0[5], "ro,nosuid,relatime");
        assert!(info("other").1[2].starts_with("rw"), "the file system stays as it is");
        assert_eq!(mount("", "other/file", libc::MS_REMOUNT), libc::EINVAL);
    }

    fn a_file_system_is_made_read_only() {
        alone();
        tmpfs("a");
        bind("a", "other");
        assert_eq!(mount("", "a", libc::MS_REMOUNT | libc::MS_RDONLY), 0);
        assert_eq!(fs::write("other/file", "").unwrap_err().raw_os_error(), Some(libc::EROFS));
        assert_eq!(info("other").0[5], "rw,relatime");
        assert!(info("other").1[2].starts_with("ro"));
        assert_eq!(mount("", "a", libc::MS_REMOUNT), 0);
        touch("other/file");
    }

    fn links_are_not_followed_on_request() {
        alone();
        const MS_NOSYMFOLLOW: libc::c_ulong = 256;
        touch("file");
        symlink("file", "link").unwrap();
        assert_eq!(fs::read("link").unwrap(), b"x");
        assert_eq!(mount("", ".", libc::MS_REMOUNT | libc::MS_BIND | MS_NOSYMFOLLOW), 0);
        assert_eq!(fs::read("link").unwrap_err().raw_os_error(), Some(libc::ELOOP));
        assert_eq!(fs::read_link("link").unwrap().to_str(), Some("file"));
    }

    fn mounts_are_moved() {
        alone();
        tmpfs("a");
        touch("a/file");
        tmpfs("a/below");
        fs::create_dir("b").unwrap();
        assert_eq!(mount("a", "a/below", libc::MS_MOVE), libc::ELOOP);
        assert_eq!(mount("b", "a", libc::MS_MOVE), libc::EINVAL, "no mount's root");
        assert_eq!(mount("a", "b", libc::MS_MOVE), 0);
        assert!(there("b/file") && !there("a/file"));
        assert_eq!(tags("b/below").len(), 0);
    }

    fn peers_get_what_is_mounted_below_them() {
        alone();
        tmpfs("a");
        fs::create_dir_all("a/x").unwrap();
        assert_eq!(mount("", "a", libc::MS_SHARED), 0);
        bind("a", "peer");
        assert_eq!(tags("a"), ["shared"]);
        assert_eq!(info("a").0[6], info("peer").0[6]);
        tmpfs("peer/x");
        touch("peer/x/file");
        assert!(there("a/x/file"));
        assert_eq!(info("a/x").0[6], info("peer/x").0[6], "which are peers, too");
        assert_eq!(umount("a/x"), 0);
        assert!(!there("peer/x/file"), "and go together");
        assert_eq!(umount("peer/x"), libc::EINVAL);
    }

    fn slaves_take_and_do_not_give() {
        alone();
        tmpfs("a");
        fs::create_dir_all("a/x").unwrap();
        fs::create_dir_all("a/y").unwrap();
        assert_eq!(mount("", "a", libc::MS_SHARED), 0);
        bind("a", "slave");
        assert_eq!(mount("", "slave", libc::MS_SLAVE), 0);
        assert_eq!(tags("slave"), ["master"]);
        tmpfs("a/x");
        touch("a/x/file");
        assert!(there("slave/x/file"));
        assert_eq!(tags("slave/x"), ["master"]);
        tmpfs("slave/y");
        touch("slave/y/file");
        assert!(!there("a/y/file"));
        assert_eq!(mount("", "slave", libc::MS_SHARED), 0);
        assert_eq!(tags("slave"), ["shared", "master"]);
        assert_eq!(mount("", "slave", libc::MS_PRIVATE), 0);
        assert_eq!(tags("slave").len(), 0);
    }

    fn propagation_passes_through_shared_slaves() {
        alone();
        tmpfs("a");
        fs::create_dir_all("a/x").unwrap();
        assert_eq!(mount("", "a", libc::MS_SHARED), 0);
        bind("a", "b");
        assert_eq!(mount("", "b", libc::MS_SLAVE), 0);
        assert_eq!(mount("", "b", libc::MS_SHARED), 0);
        bind("b", "c");
        bind("b", "d");
        assert_eq!(mount("", "d", libc::MS_SLAVE), 0);
        tmpfs("a/x");
        touch("a/x/file");
        for place in ["b", "c", "d"] {
            assert!(there(&format!("{place}/x/file")), "{place}");
        }
        assert_eq!(tags("c/x"), ["shared", "master"]);
        assert_eq!(info("b/x").0[6], info("c/x").0[6]);
        assert_eq!(tags("d/x"), ["master"]);
        assert_eq!(umount("b"), libc::EBUSY);
        assert_eq!(umount("a/x"), 0);
        assert!(!there("d/x/file"));
        // Without its group, d follows what that followed.
        assert_eq!((umount("b"), umount("c")), (0, 0));
        assert_eq!(tags("d"), ["master"]);
        tmpfs("a/x");
        touch("a/x/file");
        assert!(there("d/x/file"));
    }

    fn the_kind_of_propagation_is_one() {
        alone();
        tmpfs("a");
        fs::create_dir("a/b").unwrap();
        assert_eq!(mount("", "a", libc::MS_SHARED | libc::MS_PRIVATE), libc::EINVAL);
        assert_eq!(mount("", "a", libc::MS_SHARED | libc::MS_NOSUID), libc::EINVAL);
        assert_eq!(mount("", "a/b", libc::MS_SHARED), libc::EINVAL, "no mount's root");
        assert_eq!(mount("", "a", libc::MS_UNBINDABLE), 0);
        assert_eq!(tags("a"), ["unbindable"]);
        fs::create_dir("other").unwrap();
        assert_eq!(mount("a", "other", libc::MS_BIND), libc::EINVAL);
    }

    fn mounts_held_by_propagation_do_not_move() {
        alone();
        tmpfs("a");
        assert_eq!(mount("", "a", libc::MS_SHARED), 0);
        tmpfs("a/x");
        fs::create_dir("b").unwrap();
        assert_eq!(mount("a/x", "b", libc::MS_MOVE), libc::EINVAL);
    }

    fn namespaces_are_apart_unless_shared() {
        alone();
        tmpfs("apart");
        fs::create_dir("apart/x").unwrap();
        tmpfs("shared");
        fs::create_dir("shared/x").unwrap();
        assert_eq!(mount("", "shared", libc::MS_SHARED), 0);
        let ours = fs::read_link("/proc/self/ns/mnt").unwrap();
        let helper = child(move || {
            ok!(libc::unshare(libc::CLONE_NEWNS));
            assert_ne!(fs::read_link("/proc/self/ns/mnt").unwrap(), ours);
            for place in ["apart/x", "shared/x"] {
                tmpfs(place);
                touch(&format!("{place}/file"));
            }
            0
        });
        expect_exit(helper, 0);
        assert!(!there("apart/x/file"));
        assert!(there("shared/x/file"));
    }

    fn setns_enters_at_the_root() {
        alone();
        let before = open("/proc/self/ns/mnt", libc::O_RDONLY);
        let helper = child(move || {
            ok!(libc::unshare(libc::CLONE_NEWNS));
            tmpfs("x");
            touch("x/file");
            let here = std::env::current_dir().unwrap();
            ok!(libc::setns(before.as_raw_fd(), libc::CLONE_NEWNS));
            assert_eq!(std::env::current_dir().unwrap().to_str(), Some("/"));
            assert!(!here.join("x/file").exists());
            let null = open("/dev/null", libc::O_RDONLY);
            err!(libc::setns(null.as_raw_fd(), 0), libc::EINVAL);
            err!(libc::setns(before.as_raw_fd(), libc::CLONE_NEWUTS), libc::EINVAL);
            0
        });
        expect_exit(helper, 0);
    }

    fn unprivileged_processes_change_nothing() {
        alone();
        tmpfs("a");
        fs::create_dir("b").unwrap();
        let helper = child(|| {
            ok!(libc::setuid(65534));
            assert_eq!(mount("a", "b", libc::MS_BIND), libc::EPERM);
            assert_eq!(umount("a"), libc::EPERM);
            assert_eq!(fsopen("tmpfs"), Err(libc::EPERM));
            assert_eq!(open_tree("a", OPEN_TREE_CLONE), Err(libc::EPERM));
            assert!(open_tree("a", 0).is_ok());
            err!(libc::unshare(libc::CLONE_NEWNS), libc::EPERM);
            0
        });
        expect_exit(helper, 0);
    }

    fn the_root_is_exchanged() {
        alone();
        tmpfs("new");
        fs::create_dir_all("new/old").unwrap();
        touch("new/mark");
        let pivot = |new: &str, old: &str| {
            call(libc::SYS_pivot_root, [c(new).as_ptr() as usize, c(old).as_ptr() as usize, 0, 0, 0])
        };
        fs::create_dir("plain").unwrap();
        assert_eq!(pivot("plain", "plain"), Err(libc::EINVAL), "no mount's root");
        assert_eq!(pivot("/", "/"), Err(libc::EBUSY));
        let helper = child(move || {
            ok!(libc::unshare(libc::CLONE_NEWNS));
            assert_eq!(pivot("new", "new/old"), Ok(0));
            std::env::set_current_dir("/").unwrap();
            assert!(there("/mark") && there("/old/proc"));
            ok!(libc::umount2(c"/old".as_ptr(), libc::MNT_DETACH));
            assert!(!there("/old/proc"));
            0
        });
        expect_exit(helper, 0);
        assert!(there("/proc/self"), "other namespaces keep their root");
    }

    fn a_file_system_is_set_up_option_by_option() {
        alone();
        assert_eq!(fsopen("no-such-kind"), Err(libc::ENODEV));
        let fd = fd_of(fsopen("tmpfs"));
        assert_eq!(fsmount(&fd, 0), Err(libc::EINVAL), "not made yet");
        assert_eq!(fsconfig(&fd, FSCONFIG_SET_STRING, Some("source"), Some("here")), Ok(0));
        assert_eq!(fsconfig(&fd, FSCONFIG_SET_STRING, Some("source"), Some("there")), Err(libc::EINVAL));
        assert_eq!(fsconfig(&fd, FSCONFIG_SET_STRING, Some("size"), Some("64k")), Ok(0));
        assert_eq!(fsconfig(&fd, FSCONFIG_SET_STRING, Some("nonsense"), Some("1")), Err(libc::EINVAL));
        assert_eq!(fsconfig(&fd, FSCONFIG_SET_FLAG, Some("ro"), None), Ok(0));
        assert_eq!(fsconfig(&fd, FSCONFIG_SET_FLAG, None, None), Err(libc::EINVAL));
        assert_eq!(fsconfig(&fd, 99, None, None), Err(libc::EOPNOTSUPP));
        assert_eq!(fsconfig(&fd, FSCONFIG_CMD_RECONFIGURE, None, None), Err(libc::EBUSY));
        assert_eq!(fsconfig(&fd, FSCONFIG_CMD_CREATE, None, None), Ok(0));
        assert_eq!(fsconfig(&fd, FSCONFIG_CMD_CREATE, None, None), Err(libc::EBUSY));
        let tree = fd_of(fsmount(&fd, 2 | 4));
        fs::create_dir("a").unwrap();
        assert_eq!(move_mount(&tree, "a"), Ok(0));
        assert_eq!(info("a").0[5], "rw,nosuid,nodev,relatime");
        let (_, of_super) = info("a");
        assert_eq!(of_super[1], "here");
        assert!(of_super[2].starts_with("ro,size=64k"), "{of_super:?}");
        assert_eq!(fs::write("a/file", "").unwrap_err().raw_os_error(), Some(libc::EROFS));
    }

    fn complaints_are_read_from_the_descriptor() {
        alone();
        let fd = fd_of(fsopen("tmpfs"));
        let mut text = [0u8; 200];
        err!(libc::read(fd.as_raw_fd(), text.as_mut_ptr().cast(), 200), libc::ENODATA);
        assert_eq!(fsconfig(&fd, FSCONFIG_SET_STRING, Some("nonsense"), Some("1")), Err(libc::EINVAL));
        let len = ok!(libc::read(fd.as_raw_fd(), text.as_mut_ptr().cast(), 200)) as usize;
        let text = String::from_utf8_lossy(&text[..len]);
        assert!(text.starts_with("e ") && text.contains("Unknown parameter 'nonsense'"), "{text}");
    }

    fn a_mounted_file_system_is_picked_and_changed() {
        alone();
        tmpfs("a");
        let pick = |path: &str| {
            call(libc::SYS_fspick, [libc::AT_FDCWD as usize, c(path).as_ptr() as usize, 1, 0, 0])
        };
        fs::create_dir("a/b").unwrap();
        assert_eq!(pick("a/b"), Err(libc::EINVAL));
        let fd = fd_of(pick("a"));
        assert_eq!(fsconfig(&fd, FSCONFIG_CMD_CREATE, None, None), Err(libc::EBUSY));
        assert_eq!(fsconfig(&fd, FSCONFIG_SET_FLAG, Some("ro"), None), Ok(0));
        assert_eq!(fsconfig(&fd, FSCONFIG_CMD_RECONFIGURE, None, None), Ok(0));
        assert_eq!(fs::write("a/file", "").unwrap_err().raw_os_error(), Some(libc::EROFS));
    }

    fn trees_are_held_by_descriptors() {
        alone();
        tmpfs("a/b");
        touch("a/b/file");
        assert_eq!(open_tree("a", AT_RECURSIVE), Err(libc::EINVAL));
        let tree = fd_of(open_tree("a", OPEN_TREE_CLONE | AT_RECURSIVE));
        assert_eq!(ok!(libc::faccessat(tree.as_raw_fd(), c"b/file".as_ptr(), libc::F_OK, 0)), 0);
        fs::create_dir("c").unwrap();
        assert_eq!(move_mount(&tree, "c"), Ok(0));
        assert!(there("c/b/file"));
        assert_eq!(umount("c/b"), 0);
        drop(tree);
        assert!(there("c"), "attached, it stays");
        let plain = fd_of(open_tree("a", 0));
        assert_eq!(move_mount(&plain, "c"), Err(libc::EINVAL), "no mount's root");
        drop(fd_of(open_tree("a/b", OPEN_TREE_CLONE)));
        assert_eq!(umount("a/b"), 0, "what was held is let go of");
    }

    fn attributes_are_set_and_cleared() {
        alone();
        tmpfs("a/b");
        bind("a", "top");
        assert_eq!(setattr("top", 0, [1 | 8, 0, 0, 0]), Ok(0));
        assert_eq!(info("top").0[5], "ro,noexec,relatime");
        assert_eq!(setattr("top", 0, [0x10, 0, 0, 0]), Err(libc::EINVAL), "times without clearing");
        assert_eq!(setattr("top", 0, [0x10, 0x70 | 1, 0, 0]), Ok(0));
        assert_eq!(info("top").0[5], "rw,noexec,noatime");
        assert_eq!(setattr("top", 0, [0, 0, 1 << 20, 0]), Ok(0));
        assert_eq!(tags("top"), ["shared"]);
        assert_eq!(setattr("top", 0, [0, 0, 3 << 18, 0]), Err(libc::EINVAL));
        assert_eq!(setattr("top", 0, [1 << 40, 0, 0, 0]), Err(libc::EINVAL));
        assert_eq!(setattr("a", AT_RECURSIVE, [2, 0, 0, 0]), Err(libc::EINVAL), "no mount's root");
        assert_eq!(setattr(".", AT_RECURSIVE, [2, 0, 0, 0]), Ok(0));
        assert_eq!(info("a/b").0[5], "rw,nosuid,relatime");
        let short = [0u64; 4];
        let here = libc::AT_FDCWD as usize;
        let with_size = |size: usize| {
            call(libc::SYS_mount_setattr, [here, c".".as_ptr() as usize, 0, short.as_ptr() as usize, size])
        };
        assert_eq!((with_size(31), with_size(5000)), (Err(libc::EINVAL), Err(libc::E2BIG)));
    }

    fn changes_are_told_to_who_polls() {
        alone();
        let table = open("/proc/self/mountinfo", libc::O_RDONLY);
        let poll = |events: i16| {
            let mut entry = libc::pollfd { fd: table.as_raw_fd(), events, revents: 0 };
            ok!(libc::poll(&mut entry, 1, 0));
            entry.revents
        };
        assert_eq!(poll(libc::POLLPRI), 0);
        tmpfs("a");
        assert_eq!(poll(libc::POLLPRI), libc::POLLERR | libc::POLLPRI);
        assert_eq!(poll(libc::POLLPRI), 0);
    }

    fn a_folder_moved_out_of_a_bind_mount_has_no_parent() {
        alone();
        fs::create_dir_all("whole/part/deep").unwrap();
        fs::create_dir_all("whole/else").unwrap();
        bind("whole/part", "shown");
        let held = fs::File::open("shown/deep").unwrap();
        let up = || {
            let fd = unsafe { libc::openat(held.as_raw_fd(), c"..".as_ptr(), libc::O_RDONLY) };
            if fd >= 0 { ok!(libc::close(fd)) } else { errno() }
        };
        assert_eq!(up(), 0);
        fs::rename("whole/part/deep", "whole/else/deep").unwrap();
        assert_eq!(up(), libc::ENOENT);
        fs::rename("whole/else/deep", "whole/part/deep").unwrap();
        assert_eq!(up(), 0);
    }
}
