//! FUSE: a file system of a few files, spoken by hand over `/dev/fuse`.

use crate::sys::*;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

const ROOT: u64 = 1;
const FILE: u64 = 2;
const TEXT: &[u8] = b"from the program\n";

fn attr(node: u64) -> Vec<u8> {
    let (mode, size) =
        if node == ROOT { (libc::S_IFDIR | 0o755, 0) } else { (libc::S_IFREG | 0o644, TEXT.len() as u64) };
    let mut bytes = Vec::new();
    for field in [node, size, 1, 100, 200, 300] {
        bytes.extend(field.to_le_bytes());
    }
    for field in [0u32, 0, 0, mode, 1, 7, 8, 0, 4096, 0] {
        bytes.extend(field.to_le_bytes());
    }
    bytes
}

fn entry() -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in [FILE, 0, 10, 10] {
        bytes.extend(u64::to_le_bytes(field));
    }
    bytes.extend([0u8; 8]);
    bytes.extend(attr(FILE));
    bytes
}

/// The answer to a request; `None` where there is none.
fn answer(opcode: u32, node: u64, body: &[u8]) -> Option<Result<Vec<u8>, i32>> {
    Some(match opcode {
        1 if body == b"file\0" => Ok(entry()),
        1 => Err(libc::ENOENT),
        2 => return None,
        3 => Ok([&10u64.to_le_bytes()[..], &[0; 8], &attr(node)].concat()),
        14 | 27 => Ok([&77u64.to_le_bytes()[..], &[0; 8]].concat()),
        15 => {
            let offset = u64::from_le_bytes(body[8..16].try_into().unwrap()) as usize;
            let size = u32::from_le_bytes(body[16..20].try_into().unwrap()) as usize;
            let rest = &TEXT[offset.min(TEXT.len())..];
            Ok(rest[..rest.len().min(size)].to_vec())
        }
        18 | 25 | 29 => Ok(Vec::new()),
        26 => {
            let mut bytes = Vec::new();
            for field in [7u32, 31, 0, 0, 0, 65536, 1, 0] {
                bytes.extend(field.to_le_bytes());
            }
            bytes.extend([0u8; 32]);
            Ok(bytes)
        }
        28 if body[8..16] == [0; 8] => {
            let mut bytes = Vec::new();
            for field in [FILE, 5] {
                bytes.extend(field.to_le_bytes());
            }
            for field in [4u32, 8] {
                bytes.extend(field.to_le_bytes());
            }
            bytes.extend(b"file\0\0\0\0");
            Ok(bytes)
        }
        28 => Ok(Vec::new()),
        _ => Err(libc::ENOSYS),
    })
}

/// Serves until the file system is unmounted.
fn serve(device: &OwnedFd) {
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        let n = unsafe { libc::read(device.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        if n < 0 {
            match errno() {
                libc::ENODEV => return,
                libc::ENOENT | libc::EINTR => continue,
                error => panic!("read of /dev/fuse: {error}"),
            }
        }
        let request = &buffer[..n as usize];
        assert_eq!(u32::from_le_bytes(request[..4].try_into().unwrap()) as usize, request.len());
        let opcode = u32::from_le_bytes(request[4..8].try_into().unwrap());
        let node = u64::from_le_bytes(request[16..24].try_into().unwrap());
        let Some(result) = answer(opcode, node, &request[40..]) else { continue };
        let (error, body) = match result {
            Ok(body) => (0, body),
            Err(error) => (-error, Vec::new()),
        };
        let mut message = (16 + body.len() as u32).to_le_bytes().to_vec();
        message.extend(i32::to_le_bytes(error));
        message.extend_from_slice(&request[8..16]);
        message.extend(body);
        unsafe { libc::write(device.as_raw_fd(), message.as_ptr().cast(), message.len()) };
    }
}

fn mount(options: &str) -> i32 {
    let data = c(options);
    let result = unsafe { libc::mount(c"prog".as_ptr(), c"m".as_ptr(), c"fuse".as_ptr(), 0, data.as_ptr().cast()) };
    if result == 0 { 0 } else { errno() }
}

/// A mounted file system and the process that serves it.
fn mounted() -> (OwnedFd, libc::pid_t) {
    fs::create_dir("m").unwrap();
    let device = open("/dev/fuse", libc::O_RDWR);
    assert_eq!(mount(&format!("fd={},rootmode=40755,user_id=0,group_id=0", device.as_raw_fd())), 0);
    let server = child(|| {
        serve(&device);
        0
    });
    (device, server)
}

cases! {
    fn names_attributes_and_content_come_from_the_program() {
        let (device, server) = mounted();
        drop(device);
        let names: Vec<_> = fs::read_dir("m").unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["file"]);
        let file = stat("m/file");
        assert_eq!((file.st_size as usize, file.st_uid, file.st_gid, file.st_mtime), (TEXT.len(), 7, 8, 200));
        assert_eq!(fs::read("m/file").unwrap(), TEXT);
        err!(libc::open(c"m/none".as_ptr(), libc::O_RDONLY), libc::ENOENT);
        err!(libc::mkdir(c"m/new".as_ptr(), 0o755), libc::ENOSYS);
        let f = open("m/file", libc::O_RDONLY);
        let p = ok!(libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_PRIVATE, f.as_raw_fd(), 0));
        assert_eq!(unsafe { std::slice::from_raw_parts(p.cast::<u8>(), TEXT.len()) }, TEXT);
        ok!(libc::munmap(p, 4096));
        drop(f);
        ok!(libc::umount2(c"m".as_ptr(), libc::MNT_DETACH));
        expect_exit(server, 0);
    }

    fn a_program_that_ends_leaves_enotconn() {
        let (device, server) = mounted();
        drop(device);
        assert_eq!(fs::read("m/file").unwrap(), TEXT);
        ok!(libc::kill(server, libc::SIGKILL));
        expect_signal(server, libc::SIGKILL);
        err!(libc::open(c"m/other".as_ptr(), libc::O_RDONLY), libc::ENOTCONN);
        ok!(libc::umount2(c"m".as_ptr(), libc::MNT_DETACH));
    }

    fn what_is_wrong_with_a_mount_or_an_answer() {
        fs::create_dir("m").unwrap();
        let device = open("/dev/fuse", libc::O_RDWR | libc::O_NONBLOCK);
        let mut buffer = vec![0u8; 1 << 16];
        err!(libc::read(device.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()), libc::EPERM);
        let fd = device.as_raw_fd();
        let plain = open("/dev/null", libc::O_RDWR);
        for wrong in [
            format!("fd={fd},rootmode=40755,user_id=0"),
            format!("fd={fd},user_id=0,group_id=0"),
            format!("fd={fd},rootmode=40755,user_id=0,group_id=0,nonsense"),
            format!("fd={},rootmode=40755,user_id=0,group_id=0", plain.as_raw_fd()),
            "rootmode=40755,user_id=0,group_id=0".to_owned(),
        ] {
            assert_eq!(mount(&wrong), libc::EINVAL, "{wrong}");
        }
        assert_eq!(mount(&format!("fd={fd},rootmode=40755,user_id=0,group_id=0")), 0);
        err!(libc::read(fd, buffer.as_mut_ptr().cast(), 100), libc::EINVAL);
        assert!(ok!(libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len())) >= 56);
        assert_eq!(u32::from_le_bytes(buffer[4..8].try_into().unwrap()), 26);
        err!(libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()), libc::EAGAIN);
        let mut bad = [0u8; 16];
        bad[0] = 17;
        err!(libc::write(fd, bad.as_ptr().cast(), 16), libc::EINVAL);
        bad[0] = 16;
        bad[8] = 99;
        err!(libc::write(fd, bad.as_ptr().cast(), 16), libc::ENOENT);
        ok!(libc::umount2(c"m".as_ptr(), libc::MNT_DETACH));
    }
}
