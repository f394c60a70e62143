//! overlayfs: layers, whiteouts, copying up, renaming, listing, inode numbers, mount options.

use crate::sys::*;
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;

/// mount(2): 0, or the error number.
fn mount(source: &str, place: &str, kind: &str, flags: libc::c_ulong, data: &str) -> i32 {
    let data = CString::new(data).unwrap();
    let result =
        unsafe { libc::mount(c(source).as_ptr(), c(place).as_ptr(), c(kind).as_ptr(), flags, data.as_ptr().cast()) };
    if result == 0 { 0 } else { errno() }
}

/// Mounts of the case are its own where there are name spaces.
fn own_mounts() {
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0 {
        mount("none", "/", "", libc::MS_REC | libc::MS_PRIVATE, "");
    }
}

/// A tmpfs in the case's folder with the directories `l`, `l2`, `u`, `w` and `m`; it becomes the working directory.
fn layers() {
    own_mounts();
    fs::create_dir("base").unwrap();
    assert_eq!(mount("base", "base", "tmpfs", 0, "mode=755"), 0);
    std::env::set_current_dir("base").unwrap();
    for name in ["l", "l2", "u", "w", "m"] {
        fs::create_dir(name).unwrap();
    }
}

const OPTIONS: &str = "lowerdir=l,upperdir=u,workdir=w";

fn overlay(options: &str) -> i32 {
    mount("overlay", "m", "overlay", 0, options)
}

fn umount(place: &str) {
    ok!(libc::umount2(c(place).as_ptr(), 0));
}

fn names(path: &str) -> Vec<String> {
    let all: Vec<String> = fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    let set: BTreeSet<String> = all.iter().cloned().collect();
    assert_eq!(set.len(), all.len(), "{all:?}");
    set.into_iter().collect()
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| format!("{path}: {error}"))
}

fn exists(path: &str) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn is_whiteout(path: &str) -> bool {
    let stat = lstat(path);
    stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == 0
}

fn lstat(path: &str) -> libc::stat {
    let mut stat = unsafe { std::mem::zeroed() };
    ok!(libc::lstat(c(path).as_ptr(), &mut stat));
    stat
}

fn xattr(path: &str, name: &str) -> Option<Vec<u8>> {
    let mut value = [0u8; 256];
    let n = unsafe { libc::lgetxattr(c(path).as_ptr(), c(name).as_ptr(), value.as_mut_ptr().cast(), 256) };
    (n >= 0).then(|| value[..n as usize].to_vec())
}

fn rename(from: &str, to: &str) -> i32 {
    let result = unsafe { libc::rename(c(from).as_ptr(), c(to).as_ptr()) };
    if result == 0 { 0 } else { errno() }
}

fn rename2(from: &str, to: &str, flags: u32) -> i32 {
    let result = unsafe { libc::renameat2(libc::AT_FDCWD, c(from).as_ptr(), libc::AT_FDCWD, c(to).as_ptr(), flags) };
    if result == 0 { 0 } else { errno() }
}

cases! {
    fn overlays_lie_on_each_other_twice_at_most() {
        layers();
        for name in ["n", "o"] {
            fs::create_dir(name).unwrap();
        }
        assert_eq!(overlay("lowerdir=l:l2"), 0);
        assert_eq!(mount("overlay", "n", "overlay", 0, "lowerdir=m:u"), 0);
        assert_eq!(mount("overlay", "o", "overlay", 0, "lowerdir=n:u"), libc::EINVAL);
    }

    fn layers_are_merged_and_the_upper_one_wins() {
        layers();
        fs::create_dir_all("l/d").unwrap();
        fs::create_dir_all("u/d").unwrap();
        file("l/d/low", b"low");
        file("l/d/both", b"from below");
        file("u/d/both", b"from above");
        file("u/d/up", b"up");
        file("l/file-under-dir", b"");
        fs::create_dir("u/file-under-dir").unwrap();
        assert_eq!(overlay(OPTIONS), 0);
        assert_eq!(names("m/d"), ["both", "low", "up"]);
        assert_eq!(names("m"), ["d", "file-under-dir"]);
        assert_eq!((text("m/d/both"), text("m/d/low")), ("from above".into(), "low".into()));
        assert!(stat("m/file-under-dir").st_mode & libc::S_IFMT == libc::S_IFDIR);
        assert_eq!(names("m/file-under-dir").len(), 0);
    }

    fn what_is_removed_is_covered_by_a_whiteout() {
        layers();
        fs::create_dir_all("l/d/e").unwrap();
        file("l/f", b"1");
        file("l/d/g", b"2");
        file("u/only-up", b"3");
        assert_eq!(overlay(OPTIONS), 0);
        fs::remove_file("m/f").unwrap();
        fs::remove_file("m/only-up").unwrap();
        fs::remove_file("m/d/g").unwrap();
        fs::remove_dir("m/d/e").unwrap();
        assert!(is_whiteout("u/f") && is_whiteout("u/d/g") && is_whiteout("u/d/e") && !exists("u/only-up"));
        assert!(!exists("m/f") && !exists("m/d/g"));
        assert_eq!(names("m/d").len(), 0);
        err!(libc::open(c"m/f".as_ptr(), libc::O_RDONLY), libc::ENOENT);
        fs::remove_dir("m/d").unwrap();
        assert!(is_whiteout("u/d"));
        assert!(exists("l/f") && exists("l/d/g") && exists("l/d/e"));
        umount("m");
        assert_eq!(overlay(OPTIONS), 0);
        assert_eq!(names("m").len(), 0);
    }

    fn a_directory_made_anew_hides_the_old_one() {
        layers();
        fs::create_dir("l/d").unwrap();
        file("l/d/old", b"");
        assert_eq!(overlay(OPTIONS), 0);
        err!(libc::rmdir(c"m/d".as_ptr()), libc::ENOTEMPTY);
        fs::remove_file("m/d/old").unwrap();
        fs::remove_dir("m/d").unwrap();
        fs::create_dir("m/d").unwrap();
        assert_eq!(names("m/d").len(), 0);
        assert_eq!(xattr("u/d", "trusted.overlay.opaque"), Some(b"y".to_vec()));
        assert_eq!(xattr("m/d", "trusted.overlay.opaque"), None);
        file("m/d/new", b"");
        umount("m");
        assert_eq!(overlay(OPTIONS), 0);
        assert_eq!(names("m/d"), ["new"]);
    }

    fn a_file_made_anew_has_nothing_of_the_old_one() {
        layers();
        file("l/f", b"a long text");
        fs::create_dir("l/d").unwrap();
        assert_eq!(overlay(OPTIONS), 0);
        fs::remove_file("m/f").unwrap();
        file("m/f", b"new");
        assert_eq!((text("m/f"), text("u/f"), text("l/f")), ("new".into(), "new".into(), "a long text".into()));
        fs::remove_dir("m/d").unwrap();
        file("m/d", b"now a file");
        assert_eq!(text("m/d"), "now a file");
        fs::remove_file("m/d").unwrap();
        symlink("target", "m/d").unwrap();
        assert_eq!(fs::read_link("m/d").unwrap().to_str(), Some("target"));
    }

    fn writing_copies_up_and_leaves_the_lower_layer_alone() {
        layers();
        fs::create_dir_all("l/a/b").unwrap();
        set_mode("l/a".as_ref(), 0o750);
        ok!(libc::chown(c"l/a/b".as_ptr(), 7, 8));
        file("l/a/b/f", b"hello world");
        set_mode("l/a/b/f".as_ref(), 0o640);
        ok!(libc::chown(c"l/a/b/f".as_ptr(), 5, 6));
        assert_eq!(overlay(OPTIONS), 0);
        let before = stat("m/a/b/f");
        let f = open("m/a/b/f", libc::O_RDWR);
        write(&f, b"HELLO");
        assert_eq!((text("m/a/b/f"), text("l/a/b/f")), ("HELLO world".into(), "hello world".into()));
        assert_eq!(text("u/a/b/f"), "HELLO world");
        let copy = stat("u/a/b/f");
        assert_eq!((copy.st_uid, copy.st_gid, copy.st_mode & 0o7777), (5, 6, 0o640));
        assert_eq!((stat("u/a").st_mode & 0o777, stat("u/a/b").st_uid, stat("u/a/b").st_gid), (0o750, 7, 8));
        let after = stat("m/a/b/f");
        assert_eq!((before.st_dev, before.st_ino), (after.st_dev, after.st_ino));
        assert_eq!(fstat(&f).st_ino, after.st_ino);
    }

    fn an_earlier_reader_sees_what_is_written_later() {
        layers();
        file("l/f", b"old text");
        assert_eq!(overlay(OPTIONS), 0);
        let reader = open("m/f", libc::O_RDONLY);
        assert_eq!(read(&reader, 3), b"old");
        let writer = open("m/f", libc::O_WRONLY);
        write(&writer, b"new");
        ok!(libc::lseek(reader.as_raw_fd(), 0, libc::SEEK_SET));
        assert_eq!(read(&reader, 100), b"new text");
        assert_eq!(fstat(&reader).st_ino, fstat(&writer).st_ino);
    }

    fn changing_attributes_copies_up() {
        layers();
        for name in ["a", "b", "c", "d", "e"] { file(&format!("l/{name}"), b"data"); }
        assert_eq!(overlay(OPTIONS), 0);
        set_mode("m/a".as_ref(), 0o4711);
        ok!(libc::chown(c"m/b".as_ptr(), 3, 4));
        let times = [libc::timespec { tv_sec: 5, tv_nsec: 6 }, libc::timespec { tv_sec: 7, tv_nsec: 8 }];
        ok!(libc::utimensat(libc::AT_FDCWD, c"m/c".as_ptr(), times.as_ptr(), 0));
        ok!(libc::truncate(c"m/d".as_ptr(), 2));
        ok!(libc::setxattr(c"m/e".as_ptr(), c"trusted.mine".as_ptr(), b"v".as_ptr().cast(), 1, 0));
        assert_eq!((stat("m/a").st_mode & 0o7777, stat("u/a").st_mode & 0o7777), (0o4711, 0o4711));
        assert_eq!((stat("m/b").st_uid, stat("u/b").st_gid, stat("l/b").st_uid), (3, 4, 0));
        let c = stat("m/c");
        assert_eq!((c.st_atime, c.st_atime_nsec, c.st_mtime, c.st_mtime_nsec), (5, 6, 7, 8));
        assert_eq!((text("m/d"), text("u/d"), text("l/d")), ("da".into(), "da".into(), "data".into()));
        assert_eq!((xattr("m/e", "trusted.mine"), xattr("l/e", "trusted.mine")), (Some(b"v".to_vec()), None));
        assert_eq!(text("u/e"), "data");
        for name in ["a", "b", "c"] { assert_eq!(text(&format!("m/{name}")), "data"); }
    }

    fn copying_up_keeps_attributes_times_and_links() {
        layers();
        file("l/f", b"x");
        symlink("nowhere", "l/s").unwrap();
        ok!(libc::mkfifo(c"l/p".as_ptr(), 0o600));
        ok!(libc::setxattr(c"l/f".as_ptr(), c"trusted.keep".as_ptr(), b"me".as_ptr().cast(), 2, 0));
        let times = [libc::timespec { tv_sec: 100, tv_nsec: 1 }, libc::timespec { tv_sec: 200, tv_nsec: 2 }];
        ok!(libc::utimensat(libc::AT_FDCWD, c"l/f".as_ptr(), times.as_ptr(), 0));
        assert_eq!(overlay(OPTIONS), 0);
        set_mode("m/f".as_ref(), 0o600);
        ok!(libc::lchown(c"m/s".as_ptr(), 1, 1));
        set_mode("m/p".as_ref(), 0o644);
        assert_eq!((stat("m/f").st_mtime, stat("m/f").st_mtime_nsec), (200, 2));
        assert_eq!(xattr("u/f", "trusted.keep"), Some(b"me".to_vec()));
        assert_eq!(fs::read_link("u/s").unwrap().to_str(), Some("nowhere"));
        assert_eq!(lstat("u/s").st_uid, 1);
        assert_eq!(lstat("u/p").st_mode, libc::S_IFIFO | 0o644);
    }

    fn opening_with_truncation_copies_nothing() {
        layers();
        file("l/f", &[7; 100_000]);
        assert_eq!(overlay(OPTIONS), 0);
        let f = open("m/f", libc::O_WRONLY | libc::O_TRUNC);
        assert_eq!(fstat(&f).st_size, 0);
        write(&f, b"z");
        assert_eq!((text("m/f"), stat("u/f").st_size, stat("l/f").st_size), ("z".into(), 1, 100_000));
    }

    fn a_big_file_with_holes_is_copied_whole() {
        layers();
        let low = open("l/f", libc::O_RDWR | libc::O_CREAT);
        ok!(libc::pwrite(low.as_raw_fd(), [1u8; 5000].as_ptr().cast(), 5000, 300_000));
        ok!(libc::ftruncate(low.as_raw_fd(), 1_000_000));
        assert_eq!(overlay(OPTIONS), 0);
        let f = open("m/f", libc::O_RDWR);
        ok!(libc::pwrite(f.as_raw_fd(), b"Q".as_ptr().cast(), 1, 0));
        let data = fs::read("u/f").unwrap();
        assert_eq!(data.len(), 1_000_000);
        assert!(data[0] == b'Q' && data[1..300_000].iter().all(|&b| b == 0));
        assert!(data[300_000..305_000].iter().all(|&b| b == 1) && data[305_000..].iter().all(|&b| b == 0));
    }

    fn files_are_renamed_and_leave_whiteouts() {
        layers();
        fs::create_dir("l/d").unwrap();
        file("l/f", b"f");
        file("l/g", b"g");
        file("u/h", b"h");
        assert_eq!(overlay(OPTIONS), 0);
        assert_eq!(rename("m/f", "m/d/f2"), 0);
        assert!(is_whiteout("u/f") && !exists("m/f"));
        assert_eq!(text("m/d/f2"), "f");
        assert_eq!(rename("m/h", "m/g"), 0);
        assert_eq!(text("m/g"), "h");
        assert!(!exists("u/h") && !exists("m/h"));
        assert_eq!(rename2("m/g", "m/d/f2", libc::RENAME_NOREPLACE), libc::EEXIST);
        assert_eq!(rename2("m/g", "m/d/f2", libc::RENAME_EXCHANGE), 0);
        assert_eq!((text("m/g"), text("m/d/f2")), ("f".into(), "h".into()));
        umount("m");
        assert_eq!(overlay(OPTIONS), 0);
        assert_eq!((names("m"), names("m/d")), (vec!["d".to_owned(), "g".to_owned()], vec!["f2".to_owned()]));
    }

    fn directories_of_lower_layers_are_not_renamed() {
        layers();
        fs::create_dir_all("l/d/sub").unwrap();
        fs::create_dir("u/up").unwrap();
        file("u/up/f", b"1");
        assert_eq!(overlay(OPTIONS), 0);
        assert_eq!(rename("m/d", "m/e"), libc::EXDEV);
        assert_eq!(rename("m/up", "m/moved"), 0);
        assert_eq!(names("m/moved"), ["f"]);
        assert!(exists("u/moved/f") && !exists("u/up"));
        assert_eq!(rename2("m/d", "m/moved", libc::RENAME_EXCHANGE), libc::EXDEV);
        // Over an empty one of a lower layer, which it hides from then on.
        assert_eq!(rename("m/moved", "m/d"), libc::ENOTEMPTY);
        fs::remove_dir("m/d/sub").unwrap();
        assert_eq!(rename("m/moved", "m/d"), 0);
        assert_eq!(names("m/d"), ["f"]);
        umount("m");
        assert_eq!(overlay(OPTIONS), 0);
        assert_eq!((names("m"), names("m/d")), (vec!["d".to_owned()], vec!["f".to_owned()]));
    }

    fn redirected_directories_keep_what_they_merge() {
        layers();
        fs::create_dir_all("l/a/b/c").unwrap();
        file("l/a/b/f", b"low");
        let options = "lowerdir=l,upperdir=u,workdir=w,redirect_dir=on";
        assert_eq!(overlay(options), 0);
        assert_eq!(rename("m/a/b", "m/a/b2"), 0);
        assert_eq!(xattr("u/a/b2", "trusted.overlay.redirect"), Some(b"b".to_vec()));
        assert_eq!(rename("m/a/b2", "m/moved"), 0);
        assert_eq!(xattr("u/moved", "trusted.overlay.redirect"), Some(b"/a/b".to_vec()));
        assert_eq!((names("m/moved"), text("m/moved/f")), (vec!["c".to_owned(), "f".to_owned()], "low".into()));
        assert_eq!(names("m/a").len(), 0);
        umount("m");
        assert_eq!(overlay(OPTIONS), 0);
        assert_eq!((names("m/moved"), text("m/moved/f")), (vec!["c".to_owned(), "f".to_owned()], "low".into()));
        umount("m");
        assert_eq!(overlay("lowerdir=l,upperdir=u,workdir=w,redirect_dir=nofollow"), 0);
        err!(libc::open(c"m/moved".as_ptr(), libc::O_RDONLY), libc::EPERM);
    }

    fn many_lower_layers_without_an_upper_one() {
        layers();
        fs::create_dir("l/d").unwrap();
        fs::create_dir("l2/d").unwrap();
        file("l/d/one", b"1");
        file("l2/d/two", b"2");
        file("l2/d/hidden", b"3");
        ok!(libc::mknod(c"l/d/hidden".as_ptr(), libc::S_IFCHR, 0));
        fs::create_dir("l2/o").unwrap();
        file("l2/o/covered", b"");
        fs::create_dir("l/o").unwrap();
        ok!(libc::setxattr(c"l/o".as_ptr(), c"trusted.overlay.opaque".as_ptr(), b"y".as_ptr().cast(), 1, 0));
        assert_eq!(overlay("lowerdir=l"), libc::EINVAL);
        assert_eq!(overlay("lowerdir=l:l2"), 0);
        assert_eq!((names("m/d"), names("m/o").len()), (vec!["one".to_owned(), "two".to_owned()], 0));
        err!(libc::open(c"m/d/one".as_ptr(), libc::O_RDWR), libc::EROFS);
        err!(libc::open(c"m/new".as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o644), libc::EROFS);
        err!(libc::unlink(c"m/d/one".as_ptr()), libc::EROFS);
        err!(libc::chmod(c"m/d/one".as_ptr(), 0o600), libc::EROFS);
        err!(libc::mkdir(c"m/x".as_ptr(), 0o700), libc::EROFS);
    }

    fn hard_links_within_the_upper_layer() {
        layers();
        file("l/f", b"data");
        assert_eq!(overlay(OPTIONS), 0);
        ok!(libc::link(c"m/f".as_ptr(), c"m/g".as_ptr()));
        let (f, g) = (stat("m/f"), stat("m/g"));
        assert_eq!((f.st_ino, f.st_nlink), (g.st_ino, 2));
        file("m/g", b"other");
        assert_eq!((text("m/f"), text("l/f")), ("other".into(), "data".into()));
        fs::remove_file("m/f").unwrap();
        assert!(is_whiteout("u/f"));
        assert_eq!((stat("m/g").st_nlink, text("m/g")), (1, "other".into()));
        ok!(libc::link(c"m/g".as_ptr(), c"m/f".as_ptr()));
        assert_eq!(text("m/f"), "other");
    }

    fn numbers_of_directories_and_files_stay() {
        layers();
        fs::create_dir("l/d").unwrap();
        file("l/d/f", b"");
        assert_eq!(overlay(OPTIONS), 0);
        let number = |path: &str| { let s = stat(path); (s.st_dev, s.st_ino) };
        let before = (number("m/d"), number("m/d/f"));
        let listed = |name: &str| {
            fs::read_dir("m/d").unwrap().map(Result::unwrap).find(|e| e.file_name() == name).map(|e| std::os::unix::fs::DirEntryExt::ino(&e))
        };
        assert_eq!(listed("f"), Some(before.1.1));
        set_mode("m/d/f".as_ref(), 0o600);
        assert_eq!((number("m/d"), number("m/d/f")), before);
        assert_eq!(listed("f"), Some(before.1.1));
        file("m/d/g", b"");
        assert_eq!(listed("g"), Some(number("m/d/g").1));
        // All layers are on one file system: all files show the overlay's own device.
        assert_eq!(number("m/d").0, number("m/d/f").0);
        assert_ne!(number("m/d").0, number("l").0);
        umount("m");
        assert_eq!(overlay(OPTIONS), 0);
        assert_eq!(number("m/d/f").1, before.1.1);
    }

    fn layers_on_different_file_systems() {
        layers();
        assert_eq!(mount("other", "l", "tmpfs", 0, ""), 0);
        fs::create_dir("l/d").unwrap();
        file("l/d/f", b"low");
        assert_eq!(overlay(OPTIONS), 0);
        file("m/d/new", b"");
        let (f, new, dir) = (stat("m/d/f"), stat("m/d/new"), stat("m/d"));
        assert!(f.st_dev != new.st_dev && dir.st_dev != f.st_dev && dir.st_dev == stat("m").st_dev);
        set_mode("m/d/f".as_ref(), 0o600);
        assert_eq!((stat("m/d/f").st_dev, stat("m/d/f").st_ino), (f.st_dev, f.st_ino));
        umount("m");
        assert_eq!(overlay("lowerdir=l,upperdir=u,workdir=w,xino=on"), 0);
        assert_eq!(stat("m/d/f").st_dev, stat("m/d").st_dev);
        assert_ne!(stat("m/d/f").st_ino, stat("m/d/new").st_ino);
    }

    fn listing_while_removing_what_is_merged() {
        layers();
        for n in 0..150 { file(&format!("l/low{n}"), b""); }
        for n in 0..150 { file(&format!("u/up{n}"), b""); }
        assert_eq!(overlay(OPTIONS), 0);
        assert_eq!(names("m").len(), 300);
        for entry in fs::read_dir("m").unwrap() { fs::remove_file(entry.unwrap().path()).unwrap(); }
        assert_eq!(names("m").len(), 0);
        for n in 0..150 { file(&format!("m/low{n}"), b"again"); }
        assert_eq!(names("m").len(), 150);
    }

    fn mapped_files_show_the_layers_pages() {
        layers();
        file("l/f", b"mapped text");
        assert_eq!(overlay(OPTIONS), 0);
        let f = open("m/f", libc::O_RDONLY);
        let p = ok!(libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, f.as_raw_fd(), 0));
        assert_eq!(unsafe { std::slice::from_raw_parts(p.cast::<u8>(), 11) }, b"mapped text");
        let w = open("m/f", libc::O_RDWR);
        let q: *mut u8 =
            ok!(libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, w.as_raw_fd(), 0))
            .cast();
        unsafe { q.write(b'M') };
        assert_eq!((text("m/f"), text("l/f")), ("Mapped text".into(), "mapped text".into()));
    }

    fn a_removed_file_can_still_be_used() {
        layers();
        file("l/f", b"still there");
        assert_eq!(overlay(OPTIONS), 0);
        let (reader, writer) = (open("m/f", libc::O_RDONLY), open("m/f", libc::O_RDWR));
        fs::remove_file("m/f").unwrap();
        assert_eq!(read(&reader, 5), b"still");
        write(&writer, b"STILL");
        ok!(libc::lseek(writer.as_raw_fd(), 0, libc::SEEK_SET));
        assert_eq!(read(&writer, 100), b"STILL there");
        assert!(is_whiteout("u/f"));
    }

    fn whiteouts_cannot_be_made_by_hand() {
        layers();
        assert_eq!(overlay(OPTIONS), 0);
        err!(libc::mknod(c"m/x".as_ptr(), libc::S_IFCHR, 0), libc::EPERM);
        ok!(libc::mknod(c"m/null".as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(1, 3)));
        assert_eq!(stat("m/null").st_rdev, libc::makedev(1, 3));
    }

    fn wrong_mount_options() {
        layers();
        fs::create_dir("u/in").unwrap();
        fs::create_dir("w/in").unwrap();
        fs::create_dir("l/in").unwrap();
        file("plain", b"");
        let wrong = [
            ("upperdir=u,workdir=w", libc::EINVAL),
            ("lowerdir=l,upperdir=u", libc::EINVAL),
            ("lowerdir=l,upperdir=u,workdir=u", libc::EINVAL),
            ("lowerdir=l,upperdir=u,workdir=u/in", libc::EINVAL),
            ("lowerdir=l,upperdir=w/in,workdir=w", libc::EINVAL),
            ("lowerdir=l,upperdir=u,workdir=w,nonsense", libc::EINVAL),
            ("lowerdir=nowhere,upperdir=u,workdir=w", libc::ENOENT),
            ("lowerdir=l:nowhere", libc::ENOENT),
            ("lowerdir=l,upperdir=nowhere,workdir=w", libc::ENOENT),
            ("lowerdir=l,upperdir=u,workdir=nowhere", libc::ENOENT),
            ("lowerdir=plain,upperdir=u,workdir=w", libc::EINVAL),
            ("lowerdir=l:l", libc::ELOOP),
            ("lowerdir=l:l/in", libc::ELOOP),
            ("lowerdir=u,upperdir=u,workdir=w", libc::ELOOP),
            ("lowerdir=u/in,upperdir=u,workdir=w", libc::ELOOP),
        ];
        for (options, error) in wrong { assert_eq!(overlay(options), error, "{options}"); }
        assert_eq!(overlay(OPTIONS), 0);
    }

    fn colons_in_names_are_escaped() {
        layers();
        fs::create_dir("a:b").unwrap();
        file("a:b/f", b"colon");
        assert_eq!(overlay("lowerdir=a\\:b:l,upperdir=u,workdir=w"), 0);
        assert_eq!(text("m/f"), "colon");
    }

    fn statfs_tells_of_the_upper_layer() {
        layers();
        assert_eq!(overlay(OPTIONS), 0);
        let mut both: [libc::statfs; 2] = unsafe { std::mem::zeroed() };
        ok!(libc::statfs(c"m".as_ptr(), &mut both[0]));
        ok!(libc::statfs(c"u".as_ptr(), &mut both[1]));
        assert_eq!(both[0].f_type, 0x794c_7630);
        assert_eq!((both[0].f_blocks, both[0].f_bsize, both[0].f_namelen), (both[1].f_blocks, both[1].f_bsize, 255));
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let line = mounts.lines().find(|line| line.starts_with("overlay ") && line.contains("/m ")).expect("a line");
        assert!(line.contains("lowerdir=") && line.contains("upperdir=u") && line.contains("workdir=w"), "{line}");
    }

    fn nameless_files_get_names_in_the_upper_layer() {
        layers();
        fs::create_dir("l/d").unwrap();
        assert_eq!(overlay(OPTIONS), 0);
        let f = open("m/d", libc::O_TMPFILE | libc::O_RDWR);
        write(&f, b"nameless");
        let from = format!("/proc/self/fd/{}", f.as_raw_fd());
        ok!(libc::linkat(libc::AT_FDCWD, c(&from).as_ptr(), libc::AT_FDCWD, c"m/d/named".as_ptr(), libc::AT_SYMLINK_FOLLOW));
        assert_eq!((text("m/d/named"), text("u/d/named")), ("nameless".into(), "nameless".into()));
    }

    fn an_overlay_on_an_overlay() {
        layers();
        file("l/f", b"deep");
        assert_eq!(overlay(OPTIONS), 0);
        for name in ["u2", "w2", "m2", "u3", "w3", "m3"] { fs::create_dir(name).unwrap(); }
        assert_eq!(mount("overlay", "m2", "overlay", 0, "lowerdir=m,upperdir=u2,workdir=w2"), 0);
        file("m2/f", b"changed");
        assert_eq!((text("m2/f"), text("m/f"), text("u2/f")), ("changed".into(), "deep".into(), "changed".into()));
        assert_eq!(mount("overlay", "m3", "overlay", 0, "lowerdir=m2,upperdir=u3,workdir=w3"), libc::EINVAL);
    }

    fn layers_are_kept_by_the_overlay_alone() {
        layers();
        assert_eq!(mount("other", "l", "tmpfs", 0, ""), 0);
        file("l/f", b"kept");
        assert_eq!(overlay(OPTIONS), 0);
        umount("l");
        assert!(!exists("l/f"));
        assert_eq!(text("m/f"), "kept");
    }

    fn programs_run_from_lower_layers() {
        layers();
        fs::copy("/proc/self/exe", "l/program").unwrap();
        set_mode("l/program".as_ref(), 0o755);
        assert_eq!(overlay(OPTIONS), 0);
        let listed = std::process::Command::new("m/program").arg("--list").output().unwrap();
        assert!(listed.status.success() && listed.stdout.len() > 1000);
        assert!(!exists("u/program"));
    }
}
