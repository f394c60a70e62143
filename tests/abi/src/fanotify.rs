//! fanotify, and file handles, by which it can tell of files.

use crate::sys::*;
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

const HEADER: usize = 24;

/// An event as the group tells it: its mask, its process, the file's descriptor, and the records behind.
struct Event {
    mask: u64,
    pid: i32,
    fd: Option<OwnedFd>,
    records: Vec<u8>,
}

fn init(flags: u32) -> OwnedFd {
    let fd = ok!(libc::fanotify_init(libc::FAN_CLOEXEC | libc::FAN_NONBLOCK | flags, libc::O_RDONLY as u32));
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn mark(group: &OwnedFd, flags: u32, mask: u64, path: &str) -> i32 {
    let path = CString::new(path).unwrap();
    let fd = group.as_raw_fd();
    if unsafe { libc::fanotify_mark(fd, flags, mask, libc::AT_FDCWD, path.as_ptr()) } == 0 { 0 } else { errno() }
}

fn add(group: &OwnedFd, flags: u32, mask: u64, path: &str) {
    assert_eq!(mark(group, libc::FAN_MARK_ADD | flags, mask, path), 0, "marking {path}");
}

/// All events that wait.
fn events(group: &OwnedFd) -> Vec<Event> {
    let mut bytes = [0u8; 4096];
    let len = unsafe { libc::read(group.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) };
    if len < 0 {
        assert_eq!(errno(), libc::EAGAIN);
        return Vec::new();
    }
    let mut rest = &bytes[..len as usize];
    let mut found = Vec::new();
    while !rest.is_empty() {
        let word = |at: usize| i32::from_ne_bytes(rest[at..at + 4].try_into().unwrap());
        let (len, fd) = (word(0) as usize, word(16));
        assert_eq!((rest[4], rest[6], rest[7]), (3, HEADER as u8, 0));
        found.push(Event {
            mask: u64::from_ne_bytes(rest[8..16].try_into().unwrap()),
            pid: word(20),
            fd: (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) }),
            records: rest[HEADER..len].to_vec(),
        });
        rest = &rest[len..];
    }
    found
}

fn masks(group: &OwnedFd) -> Vec<u64> {
    events(group).iter().map(|event| event.mask).collect()
}

fn name_of(fd: RawFd) -> String {
    let link = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
    link.file_name().unwrap().to_str().unwrap().to_owned()
}

/// The handle of a file, as `struct file_handle`, and its mount's number.
fn handle(path: &str, room: u32, flags: i32) -> Result<(Vec<u8>, i32), i32> {
    let path = CString::new(path).unwrap();
    let mut bytes = vec![0u8; 8 + 128];
    bytes[..4].copy_from_slice(&room.to_ne_bytes());
    let mut mount = 0;
    let (at, out) = (path.as_ptr(), bytes.as_mut_ptr());
    let result = unsafe { libc::syscall(libc::SYS_name_to_handle_at, libc::AT_FDCWD, at, out, &raw mut mount, flags) };
    if result < 0 {
        return Err(errno());
    }
    let len = u32::from_ne_bytes(bytes[..4].try_into().unwrap()) as usize;
    bytes.truncate(8 + len);
    Ok((bytes, mount))
}

fn open_handle(bytes: &[u8], flags: i32) -> Result<OwnedFd, i32> {
    let here = open(".", libc::O_RDONLY | libc::O_DIRECTORY);
    let result = unsafe { libc::syscall(libc::SYS_open_by_handle_at, here.as_raw_fd(), bytes.as_ptr(), flags) };
    if result < 0 { Err(errno()) } else { Ok(unsafe { OwnedFd::from_raw_fd(result as i32) }) }
}

/// A namespace and a tmpfs of its own.
fn alone() {
    ok!(libc::unshare(libc::CLONE_NEWNS));
    ok!(libc::mount(
        std::ptr::null(),
        c"/".as_ptr(),
        std::ptr::null(),
        libc::MS_REC | libc::MS_PRIVATE,
        std::ptr::null()
    ));
    ok!(libc::mount(c"t".as_ptr(), c".".as_ptr(), c"tmpfs".as_ptr(), 0, std::ptr::null()));
    let here = std::env::current_dir().unwrap();
    std::env::set_current_dir(here).unwrap();
}

/// Waits for the next event, which is one that somebody waits for the answer to.
fn question(group: &OwnedFd) -> Event {
    let mut poll = libc::pollfd { fd: group.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    assert_eq!(ok!(libc::poll(&mut poll, 1, 20_000)), 1);
    events(group).remove(0)
}

fn answer(group: &OwnedFd, fd: RawFd, answer: u32) -> i32 {
    let bytes = [fd.to_ne_bytes(), answer.to_ne_bytes()].concat();
    if unsafe { libc::write(group.as_raw_fd(), bytes.as_ptr().cast(), 8) } == 8 { 0 } else { errno() }
}

cases! {
    fn who_opens_waits_for_the_answer() {
        alone();
        fs::write("f", "text").unwrap();
        assert_eq!(mark(&init(0), libc::FAN_MARK_ADD, libc::FAN_OPEN_PERM, "f"), libc::EINVAL);
        let group = init(libc::FAN_CLASS_CONTENT);
        add(&group, 0, libc::FAN_OPEN_PERM, "f");
        let opener = |read: bool| child(|| {
            unsafe { libc::close(group.as_raw_fd()) };
            let fd = unsafe { libc::open(c"f".as_ptr(), libc::O_RDONLY) };
            let done = fd >= 0 && (!read || unsafe { libc::read(fd, [0u8; 4].as_mut_ptr().cast(), 4) } == 4);
            if done { 0 } else { errno() }
        });
        for (verdict, status) in [(libc::FAN_ALLOW, 0), (libc::FAN_DENY, libc::EPERM)] {
            let asks = opener(false);
            let asked = question(&group);
            assert_eq!((asked.mask, asked.pid), (libc::FAN_OPEN_PERM, asks));
            let fd = asked.fd.as_ref().unwrap().as_raw_fd();
            assert_eq!(name_of(fd), "f");
            assert_eq!((answer(&group, fd, 7), answer(&group, -1, verdict)), (libc::EINVAL, libc::EINVAL));
            assert_eq!(answer(&group, fd + 100, verdict), libc::ENOENT);
            assert_eq!(answer(&group, fd, verdict), 0);
            assert_eq!(answer(&group, fd, verdict), libc::ENOENT);
            expect_exit(asks, status);
        }
        assert_eq!(mark(&group, libc::FAN_MARK_REMOVE, libc::FAN_OPEN_PERM, "f"), 0);
        add(&group, 0, libc::FAN_ACCESS_PERM, "f");
        let asks = opener(true);
        let asked = question(&group);
        assert_eq!(asked.mask, libc::FAN_ACCESS_PERM);
        assert_eq!(answer(&group, asked.fd.as_ref().unwrap().as_raw_fd(), libc::FAN_DENY), 0);
        expect_exit(asks, libc::EPERM);
        let asks = opener(true);
        // Who is not answered any more is not forbidden anything.
        drop((question(&group), group));
        expect_exit(asks, 0);
    }

    fn a_marked_file_tells_what_is_done_with_it() {
        fs::write("file", "abc").unwrap();
        let group = init(0);
        let wanted = libc::FAN_OPEN | libc::FAN_ACCESS | libc::FAN_MODIFY | libc::FAN_CLOSE;
        add(&group, 0, wanted, "file");
        assert!(events(&group).is_empty());
        let helper = child(|| { fs::read("file").unwrap(); 0 });
        expect_exit(helper, 0);
        let told = events(&group);
        let all = told.iter().fold(0, |all, event| all | event.mask);
        assert_eq!(all, libc::FAN_OPEN | libc::FAN_ACCESS | libc::FAN_CLOSE_NOWRITE);
        assert!(told.iter().all(|event| event.pid == helper));
        let fd = told[0].fd.as_ref().expect("a descriptor");
        assert_eq!((name_of(fd.as_raw_fd()).as_str(), read(fd, 10).as_slice()), ("file", &b"abc"[..]));
    }

    fn reading_an_event_tells_nothing_itself() {
        fs::write("file", "abc").unwrap();
        let group = init(0);
        add(&group, 0, libc::FAN_OPEN | libc::FAN_CLOSE, "file");
        drop(fs::File::open("file").unwrap());
        assert_eq!(events(&group).len(), 1, "alike events are one");
        assert!(events(&group).is_empty());
    }

    fn folders_tell_of_their_files_on_request() {
        fs::create_dir("folder").unwrap();
        fs::write("folder/file", "").unwrap();
        let group = init(0);
        add(&group, 0, libc::FAN_OPEN, "folder");
        fs::read("folder/file").unwrap();
        fs::read_dir("folder").unwrap();
        assert!(masks(&group).is_empty());
        add(&group, 0, libc::FAN_OPEN | libc::FAN_EVENT_ON_CHILD, "folder");
        fs::read("folder/file").unwrap();
        assert_eq!(masks(&group), [libc::FAN_OPEN]);
        fs::read_dir("folder").unwrap();
        assert!(masks(&group).is_empty());
        add(&group, 0, libc::FAN_ONDIR, "folder");
        fs::read_dir("folder").unwrap();
        assert_eq!(masks(&group), [libc::FAN_OPEN]);
    }

    fn a_marked_mount_tells_of_all_its_files() {
        alone();
        fs::create_dir("folder").unwrap();
        fs::write("folder/file", "").unwrap();
        let group = init(0);
        add(&group, libc::FAN_MARK_MOUNT, libc::FAN_CLOSE_WRITE, ".");
        fs::write("folder/file", "x").unwrap();
        fs::read("folder/file").unwrap();
        let told = events(&group);
        assert_eq!(told.iter().map(|event| event.mask).collect::<Vec<_>>(), [libc::FAN_CLOSE_WRITE]);
        drop(told);
        ok!(libc::umount2(c"/proc".as_ptr(), libc::MNT_DETACH));
        assert!(masks(&group).is_empty());
    }

    fn what_is_ignored_is_not_told() {
        alone();
        fs::write("file", "").unwrap();
        fs::write("other", "").unwrap();
        let group = init(0);
        add(&group, libc::FAN_MARK_MOUNT, libc::FAN_OPEN, ".");
        add(&group, libc::FAN_MARK_IGNORED_MASK, libc::FAN_OPEN, "file");
        fs::read("file").unwrap();
        assert!(masks(&group).is_empty());
        fs::read("other").unwrap();
        assert_eq!(masks(&group).len(), 1);
        fs::write("file", "now it is another file").unwrap();
        masks(&group);
        fs::read("file").unwrap();
        assert_eq!(masks(&group), [libc::FAN_OPEN], "until it is modified");
        let kept = libc::FAN_MARK_IGNORED_MASK | libc::FAN_MARK_IGNORED_SURV_MODIFY;
        add(&group, kept, libc::FAN_OPEN, "file");
        fs::write("file", "and another").unwrap();
        fs::read("file").unwrap();
        assert!(masks(&group).is_empty());
    }

    fn marks_are_taken_away() {
        fs::write("file", "").unwrap();
        let group = init(0);
        assert_eq!(mark(&group, libc::FAN_MARK_REMOVE, libc::FAN_OPEN, "file"), libc::ENOENT);
        add(&group, 0, libc::FAN_OPEN | libc::FAN_CLOSE_NOWRITE, "file");
        assert_eq!(mark(&group, libc::FAN_MARK_REMOVE, libc::FAN_CLOSE_NOWRITE, "file"), 0);
        fs::read("file").unwrap();
        assert_eq!(masks(&group), [libc::FAN_OPEN]);
        assert_eq!(mark(&group, libc::FAN_MARK_FLUSH, 0, "file"), 0);
        fs::read("file").unwrap();
        assert!(masks(&group).is_empty());
    }

    fn executing_is_told_apart() {
        fs::copy("/proc/self/exe", "program").unwrap();
        let group = init(0);
        add(&group, 0, libc::FAN_OPEN_EXEC, "program");
        fs::read("program").unwrap();
        assert!(masks(&group).is_empty());
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions("program", mode).unwrap();
        assert!(std::process::Command::new("./program").args(["role", "exit", "0"]).status().unwrap().success());
        assert_eq!(masks(&group), [libc::FAN_OPEN_EXEC]);
    }

    fn bad_arguments_are_refused() {
        fs::write("file", "").unwrap();
        err!(libc::fanotify_init(0x4000_0000, 0), libc::EINVAL);
        err!(libc::fanotify_init(0, 3), libc::EINVAL);
        err!(libc::fanotify_init(libc::FAN_REPORT_NAME, 0), libc::EINVAL);
        err!(libc::fanotify_init(libc::FAN_CLASS_CONTENT | libc::FAN_REPORT_FID, 0), libc::EINVAL);
        let group = init(0);
        assert_eq!(mark(&group, 0, libc::FAN_OPEN, "file"), libc::EINVAL, "neither add nor remove");
        assert_eq!(mark(&group, libc::FAN_MARK_ADD, 0, "file"), libc::EINVAL);
        assert_eq!(mark(&group, libc::FAN_MARK_ADD, 1 << 40, "file"), libc::EINVAL);
        assert_eq!(mark(&group, libc::FAN_MARK_ADD, libc::FAN_CREATE, "file"), libc::EINVAL, "that needs handles");
        assert_eq!(mark(&group, libc::FAN_MARK_ADD | libc::FAN_MARK_ONLYDIR, libc::FAN_OPEN, "file"), libc::ENOTDIR);
        assert_eq!(mark(&group, libc::FAN_MARK_ADD, libc::FAN_OPEN, "nothing"), libc::ENOENT);
        let null = open("/dev/null", libc::O_RDONLY);
        assert_eq!(mark(&null, libc::FAN_MARK_ADD, libc::FAN_OPEN, "file"), libc::EINVAL);
        add(&group, 0, libc::FAN_OPEN, "file");
        fs::read("file").unwrap();
        err!(libc::read(group.as_raw_fd(), [0u8; 8].as_mut_ptr().cast(), 8), libc::EINVAL);
        assert_eq!(masks(&group).len(), 1, "what did not fit is kept");
    }

    fn the_unprivileged_are_told_handles_only() {
        let helper = child(|| {
            ok!(libc::setuid(65534));
            err!(libc::fanotify_init(0, 0), libc::EPERM);
            let group = init(libc::FAN_REPORT_FID);
            let all = libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM;
            assert_eq!(mark(&group, all, libc::FAN_OPEN, "/tmp"), libc::EPERM);
            0
        });
        expect_exit(helper, 0);
    }

    fn names_and_handles_are_told() {
        alone();
        fs::create_dir("folder").unwrap();
        let group = init(libc::FAN_REPORT_DIR_FID | libc::FAN_REPORT_NAME);
        let wanted = libc::FAN_CREATE | libc::FAN_DELETE | libc::FAN_MOVED_TO;
        add(&group, 0, wanted | libc::FAN_ONDIR, "folder");
        fs::write("folder/new", "").unwrap();
        let told = events(&group);
        assert_eq!(told.len(), 1);
        assert!(told[0].fd.is_none() && told[0].mask == libc::FAN_CREATE);
        let records = &told[0].records;
        let (expected, _) = handle("folder", 128, 0).unwrap();
        assert_eq!(records[0], 2, "directory and name");
        assert_eq!(usize::from(records[2]), records.len());
        assert_eq!(&records[12..12 + expected.len()], &expected[..]);
        assert!(records[12 + expected.len()..].starts_with(b"new\0"));
        fs::rename("folder/new", "folder/newer").unwrap();
        fs::remove_file("folder/newer").unwrap();
        fs::create_dir("folder/sub").unwrap();
        let told = masks(&group);
        let expected = [libc::FAN_MOVED_TO | libc::FAN_DELETE, libc::FAN_CREATE | libc::FAN_ONDIR];
        assert_eq!(told, expected, "alike but for what happened");
    }

    fn the_file_of_a_changed_name_is_told_on_request() {
        alone();
        fs::create_dir("folder").unwrap();
        let all = libc::FAN_REPORT_FID | libc::FAN_REPORT_DIR_FID | libc::FAN_REPORT_NAME;
        for without in [libc::FAN_REPORT_FID, libc::FAN_REPORT_NAME] {
            err!(libc::fanotify_init(libc::FAN_REPORT_TARGET_FID | all & !without, 0), libc::EINVAL);
        }
        let group = init(libc::FAN_REPORT_TARGET_FID | all);
        let wanted = libc::FAN_CREATE | libc::FAN_DELETE | libc::FAN_MOVED_FROM | libc::FAN_MOVED_TO;
        add(&group, 0, wanted | libc::FAN_ONDIR, "folder");
        fs::write("folder/new", "").unwrap();
        fs::create_dir("folder/sub").unwrap();
        fs::rename("folder/new", "folder/newer").unwrap();
        let told = events(&group);
        let masks: Vec<u64> = told.iter().map(|event| event.mask).collect();
        let both = libc::FAN_CREATE | libc::FAN_MOVED_FROM;
        assert_eq!(masks, [both, libc::FAN_CREATE | libc::FAN_ONDIR, libc::FAN_MOVED_TO], "one name of one file is one event");
        for (event, name) in told.iter().zip(["newer", "sub", "newer"]) {
            let first = usize::from(event.records[2]);
            assert_eq!((event.records[0], event.records[first]), (2, 1), "directory and name, then the file");
            let (file, _) = handle(&format!("folder/{name}"), 128, 0).unwrap();
            assert_eq!(&event.records[first + 12..], &file[..]);
        }
    }

    fn a_rename_is_told_with_the_names_that_are_watched() {
        const OLD: u8 = 10;
        const NEW: u8 = 12;
        alone();
        for folder in ["one", "two"] {
            fs::create_dir(folder).unwrap();
        }
        let unnamed = init(libc::FAN_REPORT_DIR_FID);
        assert_eq!(mark(&unnamed, libc::FAN_MARK_ADD, libc::FAN_RENAME, "one"), libc::EINVAL);
        let all = libc::FAN_REPORT_FID | libc::FAN_REPORT_DIR_FID | libc::FAN_REPORT_NAME;
        let records = |group: &OwnedFd| -> Vec<Vec<(u8, String)>> {
            let told = events(group).into_iter().map(|event| {
                assert_eq!(event.mask & !libc::FAN_ONDIR, libc::FAN_RENAME);
                let (mut rest, mut found) = (&event.records[..], Vec::new());
                while !rest.is_empty() {
                    let len = usize::from(u16::from_ne_bytes([rest[2], rest[3]]));
                    let handle = u32::from_ne_bytes(rest[12..16].try_into().unwrap()) as usize;
                    let name = rest[20 + handle..len].split(|&b| b == 0).next().unwrap();
                    found.push((rest[0], String::from_utf8(name.to_vec()).unwrap()));
                    rest = &rest[len..];
                }
                found
            });
            told.collect()
        };
        let groups = [init(all), init(all), init(all)];
        add(&groups[0], 0, libc::FAN_RENAME, "one");
        add(&groups[1], 0, libc::FAN_RENAME, "two");
        add(&groups[2], libc::FAN_MARK_FILESYSTEM, libc::FAN_RENAME | libc::FAN_ONDIR, ".");
        fs::write("one/a", "").unwrap();
        fs::create_dir("one/sub").unwrap();
        fs::rename("one/a", "one/b").unwrap();
        fs::rename("one/b", "two/c").unwrap();
        fs::rename("one/sub", "two/sub").unwrap();
        let (old, new) = (|name: &str| (OLD, name.to_owned()), |name: &str| (NEW, name.to_owned()));
        assert_eq!(records(&groups[0]), [vec![old("a"), new("b")], vec![old("b")]]);
        assert_eq!(records(&groups[1]), [vec![new("c")]]);
        let expected = [vec![old("a"), new("b")], vec![old("b"), new("c")], vec![old("sub"), new("sub")]];
        assert_eq!(records(&groups[2]), expected);
    }

    fn a_marked_file_system_tells_of_changes_anywhere() {
        alone();
        fs::create_dir_all("a/b").unwrap();
        let group = init(libc::FAN_REPORT_FID);
        add(&group, libc::FAN_MARK_FILESYSTEM, libc::FAN_CREATE | libc::FAN_ATTRIB, ".");
        fs::write("a/b/file", "").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions("a/b/file", mode).unwrap();
        let told = events(&group);
        assert_eq!(told.iter().map(|event| event.mask).collect::<Vec<_>>(), [libc::FAN_CREATE, libc::FAN_ATTRIB]);
        let (dir, _) = handle("a/b", 128, 0).unwrap();
        let (file, _) = handle("a/b/file", 128, 0).unwrap();
        assert_eq!((told[0].records[0], &told[0].records[12..12 + dir.len()]), (1, &dir[..]));
        assert_eq!(&told[1].records[12..12 + file.len()], &file[..]);
    }

    fn handles_lead_back_to_files() {
        alone();
        fs::create_dir("folder").unwrap();
        fs::write("folder/file", "abc").unwrap();
        let (bytes, mount) = handle("folder/file", 128, 0).unwrap();
        assert_eq!(handle("folder", 128, 0).unwrap().1, mount);
        let file = open_handle(&bytes, libc::O_RDONLY).unwrap();
        assert_eq!((read(&file, 5), name_of(file.as_raw_fd())), (b"abc".to_vec(), "file".to_owned()));
        fs::rename("folder/file", "moved").unwrap();
        assert_eq!(handle("moved", 128, 0).unwrap().0, bytes);
        assert!(open_handle(&bytes, libc::O_RDWR).is_ok());
        drop(file);
        fs::remove_file("moved").unwrap();
        assert_eq!(open_handle(&bytes, libc::O_RDONLY).err(), Some(libc::ESTALE));
    }

    fn handles_say_how_long_they_are() {
        alone();
        fs::write("file", "").unwrap();
        assert_eq!(handle("file", 0, 0), Err(libc::EOVERFLOW));
        assert_eq!(handle("file", 129, 0), Err(libc::EINVAL));
        assert_eq!(handle("file", 128, 0x8000_0000u32 as i32), Err(libc::EINVAL));
        assert_eq!(handle("nothing", 128, 0), Err(libc::ENOENT));
        assert_eq!(handle("/proc/self/status", 128, 0), Err(libc::EOPNOTSUPP));
        let (mut bytes, _) = handle("file", 128, 0).unwrap();
        bytes[..4].copy_from_slice(&0u32.to_ne_bytes());
        assert_eq!(open_handle(&bytes, 0).err(), Some(libc::EINVAL));
        let (good, _) = handle("file", 128, 0).unwrap();
        let helper = child(move || {
            ok!(libc::setuid(65534));
            assert_eq!(open_handle(&good, 0).err(), Some(libc::EPERM));
            0
        });
        expect_exit(helper, 0);
    }
}
