//! Loop devices: binding, sizes, offsets, flags, clearing.

use crate::sys::*;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

const SET_FD: u64 = 0x4c00;
const CLR_FD: u64 = 0x4c01;
const SET_STATUS64: u64 = 0x4c04;
const GET_STATUS64: u64 = 0x4c05;
const SET_CAPACITY: u64 = 0x4c07;
const SET_BLOCK_SIZE: u64 = 0x4c09;
const CONFIGURE: u64 = 0x4c0a;
const CTL_GET_FREE: u64 = 0x4c82;
const READ_ONLY: u32 = 1;
const AUTOCLEAR: u32 = 4;
const BLKGETSIZE64: u64 = 0x8008_1272;
const BLKSSZGET: u64 = 0x1268;
const BLKROGET: u64 = 0x125e;

#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

fn info(offset: u64, size_limit: u64, flags: u32) -> Info {
    Info { offset, size_limit, flags, ..unsafe { std::mem::zeroed() } }
}

fn ioctl(fd: &OwnedFd, request: u64, arg: usize) -> i32 {
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request as _, arg) };
    if result < 0 { -errno() } else { result }
}

/// The devices are the machine's: one case at a time uses them.
fn alone() -> OwnedFd {
    let control = open("/dev/loop-control", libc::O_RDWR);
    ok!(libc::flock(control.as_raw_fd(), libc::LOCK_EX));
    control
}

/// A file of `size` bytes, each page of which begins with its number.
fn image(name: &str, size: u64) -> OwnedFd {
    let f = open(name, libc::O_RDWR | libc::O_CREAT);
    ok!(libc::ftruncate(f.as_raw_fd(), size as i64));
    for page in 0..size / 4096 {
        ok!(libc::pwrite(f.as_raw_fd(), [page as u8 + 1; 8].as_ptr().cast(), 8, (page * 4096) as i64));
    }
    f
}

/// A free device bound by LOOP_CONFIGURE.
fn configured(file: &OwnedFd, block_size: u32, info: Info, flags: i32) -> (String, OwnedFd) {
    let control = open("/dev/loop-control", libc::O_RDWR);
    let name = format!("/dev/loop{}", ioctl(&control, CTL_GET_FREE, 0));
    let device = open(&name, flags);
    let config = Config { fd: file.as_raw_fd() as u32, block_size, info, reserved: [0; 8] };
    assert_eq!(ioctl(&device, CONFIGURE, &raw const config as usize), 0, "LOOP_CONFIGURE");
    (name, device)
}

fn status(device: &OwnedFd) -> Result<Info, i32> {
    let mut info = info(0, 0, 0);
    match ioctl(device, GET_STATUS64, &raw mut info as usize) {
        0 => Ok(info),
        error => Err(-error),
    }
}

fn size(device: &OwnedFd) -> u64 {
    let mut size = 0u64;
    assert_eq!(ioctl(device, BLKGETSIZE64, &raw mut size as usize), 0);
    size
}

fn int(device: &OwnedFd, request: u64) -> i32 {
    let mut value = 0i32;
    assert_eq!(ioctl(device, request, &raw mut value as usize), 0);
    value
}

fn byte_at(fd: &OwnedFd, offset: i64) -> u8 {
    let mut byte = [0u8; 1];
    assert_eq!(ok!(libc::pread(fd.as_raw_fd(), byte.as_mut_ptr().cast(), 1, offset)), 1);
    byte[0]
}

cases! {
    fn devices_do_not_become_each_others_storage() {
        let _alone = alone();
        let file = image("f", 1 << 20);
        let (first_name, first) = configured(&file, 0, info(0, 0, 0), libc::O_RDWR);
        let (second_name, second) = configured(&open(&first_name, libc::O_RDWR), 0, info(0, 0, 0), libc::O_RDWR);
        assert_eq!(ioctl(&first, CLR_FD, 0), 0);
        drop((first, second));
        let (first, second) = (open(&first_name, libc::O_RDWR), open(&second_name, libc::O_RDWR));
        assert_eq!(ioctl(&second, CLR_FD, 0), 0);
        drop((first, second));
        let first = open(&first_name, libc::O_RDWR);
        assert_eq!(ioctl(&first, SET_FD, first.as_raw_fd() as usize), -libc::EBADF);
    }

    fn a_device_shows_its_files_bytes_and_writes_them() {
        let _alone = alone();
        let file = image("f", 1 << 20);
        let (name, device) = configured(&file, 0, info(0, 0, AUTOCLEAR), libc::O_RDWR);
        assert_eq!((size(&device), int(&device, BLKSSZGET), int(&device, BLKROGET)), (1 << 20, 512, 0));
        assert_eq!((byte_at(&device, 0), byte_at(&device, 4096 * 7)), (1, 8));
        ok!(libc::pwrite(device.as_raw_fd(), b"written".as_ptr().cast(), 7, 8192));
        ok!(libc::fsync(device.as_raw_fd()));
        assert_eq!(&fs::read("f").unwrap()[8192..8199], b"written");
        err!(libc::pwrite(device.as_raw_fd(), b"x".as_ptr().cast(), 1, 1 << 20), libc::ENOSPC);
        let about = status(&device).unwrap();
        assert_eq!(about.inode, fstat(&file).st_ino);
        assert_eq!(format!("/dev/loop{}", about.number), name);
    }

    fn offset_and_limit_choose_a_part() {
        let _alone = alone();
        let file = image("f", 1 << 20);
        let (_, device) = configured(&file, 0, info(8192, 16384, AUTOCLEAR), libc::O_RDWR);
        assert_eq!((size(&device), byte_at(&device, 0), byte_at(&device, 4096)), (16384, 3, 4));
        let other = info(4096, 0, AUTOCLEAR);
        assert_eq!(ioctl(&device, SET_STATUS64, &raw const other as usize), 0);
        assert_eq!((size(&device), byte_at(&device, 0)), ((1 << 20) - 4096, 2));
        ok!(libc::ftruncate(file.as_raw_fd(), 65536));
        assert_eq!(ioctl(&device, SET_CAPACITY, 0), 0);
        assert_eq!(size(&device), 61440);
    }

    fn what_is_opened_for_reading_is_read_only() {
        let _alone = alone();
        drop(image("f", 65536));
        let file = open("f", libc::O_RDONLY);
        let (name, device) = configured(&file, 0, info(0, 0, AUTOCLEAR), libc::O_RDWR);
        assert_eq!((status(&device).unwrap().flags & READ_ONLY, int(&device, BLKROGET)), (READ_ONLY, 1));
        let writer = open(&name, libc::O_RDWR);
        err!(libc::pwrite(writer.as_raw_fd(), b"x".as_ptr().cast(), 1, 0), libc::EPERM);
    }

    fn a_cleared_device_is_free_again() {
        let _alone = alone();
        let file = image("f", 65536);
        let (name, device) = configured(&file, 0, info(0, 0, 0), libc::O_RDWR);
        assert_eq!(ioctl(&device, SET_FD, file.as_raw_fd() as usize), -libc::EBUSY);
        // With another user, it is cleared when that is gone.
        let other = open(&name, libc::O_RDONLY);
        assert_eq!(ioctl(&device, CLR_FD, 0), 0);
        assert_eq!(status(&device).map(|s| s.flags & AUTOCLEAR), Ok(AUTOCLEAR));
        drop((other, device));
        let again = open(&name, libc::O_RDONLY);
        assert_eq!(status(&again).err(), Some(libc::ENXIO));
    }

    fn clearing_ends_the_binding() {
        let _alone = alone();
        let file = image("f", 65536);
        let (_, device) = configured(&file, 0, info(0, 0, 0), libc::O_RDWR);
        assert_eq!(ioctl(&device, CLR_FD, 0), 0);
        // Newer kernels clear at the last close only.
        drop(device);
        let control = open("/dev/loop-control", libc::O_RDWR);
        assert!(ioctl(&control, CTL_GET_FREE, 0) >= 0);
    }

    fn autoclear_ends_the_binding_with_the_last_close() {
        let _alone = alone();
        let file = image("f", 65536);
        let (name, device) = configured(&file, 0, info(0, 0, AUTOCLEAR), libc::O_RDWR);
        let other = open(&name, libc::O_RDONLY);
        drop(device);
        assert!(status(&other).is_ok());
        drop(other);
        let again = open(&name, libc::O_RDONLY);
        assert_eq!(status(&again).err(), Some(libc::ENXIO));
    }

    fn block_sizes() {
        let _alone = alone();
        let file = image("f", 65536);
        let (_, device) = configured(&file, 4096, info(0, 0, AUTOCLEAR), libc::O_RDWR);
        assert_eq!(int(&device, BLKSSZGET), 4096);
        assert_eq!(ioctl(&device, SET_BLOCK_SIZE, 1024), 0);
        assert_eq!(int(&device, BLKSSZGET), 1024);
        for wrong in [511, 256, 768, 1 << 20] { assert_eq!(ioctl(&device, SET_BLOCK_SIZE, wrong), -libc::EINVAL); }
    }

    fn what_cannot_be_bound() {
        let _alone = alone();
        let control = open("/dev/loop-control", libc::O_RDWR);
        let device = open(&format!("/dev/loop{}", ioctl(&control, CTL_GET_FREE, 0)), libc::O_RDWR);
        let folder = open(".", libc::O_RDONLY);
        let (reader, _writer) = pipe();
        assert_eq!(ioctl(&device, SET_FD, 9999), -libc::EBADF);
        assert_eq!(ioctl(&device, SET_FD, folder.as_raw_fd() as usize), -libc::EINVAL);
        assert_eq!(ioctl(&device, SET_FD, reader.as_raw_fd() as usize), -libc::EINVAL);
        assert_eq!(ioctl(&device, SET_FD, device.as_raw_fd() as usize), -libc::EBADF);
        let file = image("f", 65536);
        let wrong = [(info(0, 0, 0x80), 0), (info(0, 0, 0), 300), (Info { encrypt_type: 1, ..info(0, 0, 0) }, 0)];
        for (info, block_size) in wrong {
            let config = Config { fd: file.as_raw_fd() as u32, block_size, info, reserved: [0; 8] };
            assert_eq!(ioctl(&device, CONFIGURE, &raw const config as usize), -libc::EINVAL);
        }
        assert_eq!(ioctl(&device, CLR_FD, 0), -libc::ENXIO);
        assert_eq!(status(&device).err(), Some(libc::ENXIO));
        assert_eq!(ioctl(&control, 0x4c55, 0), -libc::ENOSYS);
    }
}
