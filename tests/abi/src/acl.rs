//! POSIX access control lists as extended attributes: checks, inheritance, chmod's mask.

use crate::sys::*;
use std::fs;

const OWNER: u16 = 1;
const USER: u16 = 2;
const OWNING_GROUP: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 16;
const OTHER: u16 = 32;
const NONE: u32 = u32::MAX;
const ACCESS: &std::ffi::CStr = c"system.posix_acl_access";
const DEFAULT: &std::ffi::CStr = c"system.posix_acl_default";

fn value(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, bits, id) in entries {
        value.extend([tag.to_le_bytes(), bits.to_le_bytes()].concat());
        value.extend(id.to_le_bytes());
    }
    value
}

fn set(path: &str, name: &std::ffi::CStr, value: &[u8]) -> i32 {
    let result = unsafe { libc::setxattr(c(path).as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if result == 0 { 0 } else { errno() }
}

fn get(path: &str, name: &std::ffi::CStr) -> Result<Vec<u8>, i32> {
    let mut value = [0u8; 512];
    let n = unsafe { libc::getxattr(c(path).as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), 512) };
    if n < 0 { Err(errno()) } else { Ok(value[..n as usize].to_vec()) }
}

fn mode(path: &str) -> u32 {
    stat(path).st_mode & 0o7777
}

/// Can this user open the file so?
fn may(uid: u32, groups: &[u32], path: &str, flags: i32) -> bool {
    let pid = child(|| {
        ok!(libc::setgroups(groups.len(), groups.as_ptr()));
        ok!(libc::setresgid(9999, 9999, 9999));
        ok!(libc::setresuid(uid, uid, uid));
        let fd = unsafe { libc::open(c(path).as_ptr(), flags) };
        i32::from(fd < 0)
    });
    libc::WEXITSTATUS(wait(pid)) == 0
}

/// Others can reach the files that a case makes in its folder.
fn reachable() -> String {
    let folder = std::env::current_dir().unwrap();
    for part in folder.ancestors().take_while(|part| part.to_str().is_some_and(|text| text.contains("abi-tests"))) {
        set_mode(part, 0o755);
    }
    folder.to_str().unwrap().to_owned()
}

fn listed() -> Vec<u8> {
    value(&[
        (OWNER, 6, NONE),
        (USER, 6, 1000),
        (OWNING_GROUP, 4, NONE),
        (GROUP, 2, 2000),
        (MASK, 6, NONE),
        (OTHER, 0, NONE),
    ])
}

cases! {
    fn a_list_is_kept_and_shows_as_the_mode() {
        file("f", b"x");
        set_mode("f".as_ref(), 0o644);
        assert_eq!(get("f", ACCESS), Err(libc::ENODATA));
        assert_eq!(set("f", ACCESS, &listed()), 0);
        assert_eq!((get("f", ACCESS), mode("f")), (Ok(listed()), 0o660));
        ok!(libc::removexattr(c"f".as_ptr(), ACCESS.as_ptr()));
        assert_eq!((get("f", ACCESS), mode("f")), (Err(libc::ENODATA), 0o660));
    }

    fn a_list_that_is_a_mode_becomes_one() {
        file("f", b"x");
        let plain = value(&[(OWNER, 7, NONE), (OWNING_GROUP, 5, NONE), (OTHER, 1, NONE)]);
        assert_eq!(set("f", ACCESS, &plain), 0);
        assert_eq!((get("f", ACCESS), mode("f")), (Err(libc::ENODATA), 0o751));
    }

    fn lists_decide_who_may_what() {
        let folder = reachable();
        file("f", b"x");
        assert_eq!(set("f", ACCESS, &listed()), 0);
        let f = format!("{folder}/f");
        assert!(may(1000, &[], &f, libc::O_RDWR) && !may(1001, &[], &f, libc::O_RDONLY));
        assert!(may(1001, &[2000], &f, libc::O_WRONLY) && !may(1001, &[2000], &f, libc::O_RDONLY));
        assert!(!may(1001, &[0], &f, libc::O_WRONLY) && may(1001, &[0], &f, libc::O_RDONLY));
        // The mask limits all but the owner and others.
        set_mode("f".as_ref(), 0o640);
        assert!(may(1000, &[], &f, libc::O_RDONLY) && !may(1000, &[], &f, libc::O_RDWR));
        assert!(!may(1001, &[2000], &f, libc::O_WRONLY));
    }

    fn chmod_changes_owner_mask_and_others() {
        file("f", b"x");
        assert_eq!(set("f", ACCESS, &listed()), 0);
        set_mode("f".as_ref(), 0o715);
        let wanted = value(&[(OWNER, 7, NONE), (USER, 6, 1000), (OWNING_GROUP, 4, NONE), (GROUP, 2, 2000), (MASK, 1, NONE), (OTHER, 5, NONE)]);
        assert_eq!((get("f", ACCESS), mode("f")), (Ok(wanted), 0o715));
    }

    fn new_files_inherit_the_default_list() {
        fs::create_dir("d").unwrap();
        let default = value(&[(OWNER, 7, NONE), (USER, 7, 1000), (OWNING_GROUP, 5, NONE), (MASK, 7, NONE), (OTHER, 1, NONE)]);
        assert_eq!(set("d", DEFAULT, &default), 0);
        // The umask has no say.
        unsafe { libc::umask(0o077) };
        drop(open("d/f", libc::O_CREAT | libc::O_WRONLY));
        let got = value(&[(OWNER, 6, NONE), (USER, 7, 1000), (OWNING_GROUP, 5, NONE), (MASK, 4, NONE), (OTHER, 0, NONE)]);
        assert_eq!((get("d/f", ACCESS), mode("d/f"), get("d/f", DEFAULT)), (Ok(got), 0o640, Err(libc::ENODATA)));
        ok!(libc::mkdir(c"d/e".as_ptr(), 0o777));
        assert_eq!((get("d/e", DEFAULT), get("d/e", ACCESS)), (Ok(default.clone()), Ok(value(&[(OWNER, 7, NONE), (USER, 7, 1000), (OWNING_GROUP, 5, NONE), (MASK, 7, NONE), (OTHER, 1, NONE)]))));
        assert_eq!(mode("d/e"), 0o771);
        std::os::unix::fs::symlink("f", "d/link").unwrap();
        ok!(libc::mkfifo(c"d/fifo".as_ptr(), 0o666));
        assert_eq!(mode("d/fifo"), 0o660);
        assert_eq!(set("d", DEFAULT, &2u32.to_le_bytes()), 0);
        assert_eq!(get("d", DEFAULT), Err(libc::ENODATA));
        drop(open("d/g", libc::O_CREAT | libc::O_WRONLY));
        assert_eq!((get("d/g", ACCESS), mode("d/g")), (Err(libc::ENODATA), 0o600));
    }

    fn lists_that_are_wrong() {
        file("f", b"x");
        let wrong: [&[(u16, u16, u32)]; 5] = [
            &[(OWNER, 7, NONE), (OTHER, 1, NONE)],
            &[(OWNER, 7, NONE), (USER, 7, 1000), (OWNING_GROUP, 5, NONE), (OTHER, 1, NONE)],
            &[(OWNING_GROUP, 5, NONE), (OWNER, 7, NONE), (OTHER, 1, NONE)],
            &[(OWNER, 15, NONE), (OWNING_GROUP, 5, NONE), (OTHER, 1, NONE)],
            &[(OWNER, 7, NONE), (64, 1, NONE), (OWNING_GROUP, 5, NONE), (OTHER, 1, NONE)],
        ];
        for entries in wrong { assert_eq!(set("f", ACCESS, &value(entries)), libc::EINVAL, "{entries:?}"); }
        assert_eq!(set("f", ACCESS, b"xx"), libc::EINVAL);
        assert_eq!(set("f", ACCESS, &[1, 0, 0, 0]), libc::EOPNOTSUPP);
        assert_eq!(set("f", DEFAULT, &listed()), libc::EACCES);
        in_child(|| {
            become_nobody();
            assert_eq!(set("f", ACCESS, &listed()), libc::EPERM);
        });
    }
}
