//! Sockets between a machine and its host (vsock(7)), by loopback.

use crate::sys::*;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, OwnedFd};

const AF_VSOCK: i32 = libc::AF_VSOCK;
const LOCAL: u32 = 1;
const ANY: u32 = u32::MAX;

fn socket(kind: i32) -> OwnedFd {
    own(ok!(libc::socket(AF_VSOCK, kind | libc::SOCK_CLOEXEC, 0)))
}

fn address(cid: u32, port: u32) -> libc::sockaddr_vm {
    let mut raw: libc::sockaddr_vm = unsafe { zeroed() };
    (raw.svm_family, raw.svm_cid, raw.svm_port) = (AF_VSOCK as u16, cid, port);
    raw
}

const GET_LOCAL_CID: u64 = 0x7b9;

/// A Linux without this family, or one that has a host to talk to, need not have the loopback: nothing is learnt there.
fn has_loopback() -> bool {
    let mut cid = 0u32;
    std::fs::File::open("/dev/vsock")
        .is_ok_and(|device| ok!(libc::ioctl(device.as_raw_fd(), GET_LOCAL_CID, &mut cid)) == 0 && cid == ANY)
}

const SIZE: u32 = size_of::<libc::sockaddr_vm>() as u32;

fn bind(fd: &OwnedFd, cid: u32, port: u32) -> i32 {
    unsafe { libc::bind(fd.as_raw_fd(), (&address(cid, port) as *const libc::sockaddr_vm).cast(), SIZE) }
}

fn connect(fd: &OwnedFd, cid: u32, port: u32) -> i32 {
    unsafe { libc::connect(fd.as_raw_fd(), (&address(cid, port) as *const libc::sockaddr_vm).cast(), SIZE) }
}

type Name = unsafe extern "C" fn(i32, *mut libc::sockaddr, *mut u32) -> i32;

fn name(fd: &OwnedFd, call: Name) -> (u32, u32) {
    let mut raw = address(0, 0);
    let mut len = SIZE;
    ok!(call(fd.as_raw_fd(), (&raw mut raw).cast(), &mut len));
    assert_eq!((len, raw.svm_family), (SIZE, AF_VSOCK as u16));
    (raw.svm_cid, raw.svm_port)
}

fn listener(kind: i32) -> (OwnedFd, u32) {
    let fd = socket(kind);
    ok!(bind(&fd, ANY, ANY));
    ok!(libc::listen(fd.as_raw_fd(), 2));
    let port = name(&fd, libc::getsockname).1;
    (fd, port)
}

fn accept(fd: &OwnedFd) -> OwnedFd {
    own(ok!(libc::accept4(fd.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC)))
}

/// Client and server of a connection.
fn pair(kind: i32) -> (OwnedFd, OwnedFd) {
    let (listener, port) = listener(kind);
    let client = socket(kind);
    ok!(connect(&client, LOCAL, port));
    let server = accept(&listener);
    (client, server)
}

fn send(fd: &OwnedFd, bytes: &[u8], flags: i32) -> isize {
    unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags | libc::MSG_NOSIGNAL) }
}

fn receive(fd: &OwnedFd, len: usize, flags: i32) -> Vec<u8> {
    let mut bytes = vec![0u8; len];
    let n = ok!(libc::recv(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), len, flags));
    bytes.truncate(n as usize);
    bytes
}

fn poll(fd: &OwnedFd, wait: i32) -> i16 {
    let events = libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP;
    let mut one = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    ok!(libc::poll(&mut one, 1, wait));
    one.revents
}

fn get(fd: &OwnedFd, option: i32) -> u64 {
    let (mut value, mut len) = (0u64, 8);
    ok!(libc::getsockopt(fd.as_raw_fd(), AF_VSOCK, option, (&raw mut value).cast(), &mut len));
    value
}

fn set(fd: &OwnedFd, option: i32, value: u64) -> i32 {
    unsafe { libc::setsockopt(fd.as_raw_fd(), AF_VSOCK, option, (&raw const value).cast(), 8) }
}

cases! {
    fn a_stream_carries_bytes_both_ways() {
        if !has_loopback() {
            return;
        }
        let (listener, port) = listener(libc::SOCK_STREAM);
        assert_eq!(name(&listener, libc::getsockname).0, ANY);
        assert!(port > 1023);
        let client = socket(libc::SOCK_STREAM);
        assert_eq!(name(&client, libc::getsockname), (ANY, ANY));
        err!(libc::getpeername(client.as_raw_fd(), (&mut address(0, 0) as *mut libc::sockaddr_vm).cast(), &mut { SIZE }), libc::ENOTCONN);
        ok!(connect(&client, LOCAL, port));
        assert_eq!(name(&client, libc::getpeername), (LOCAL, port));
        let server = accept(&listener);
        assert_eq!(name(&server, libc::getsockname), (LOCAL, port));
        assert_eq!(name(&server, libc::getpeername), (LOCAL, name(&client, libc::getsockname).1));
        err!(connect(&client, LOCAL, port), libc::EISCONN);

        assert_eq!(ok!(send(&client, b"hello ", 0)), 6);
        assert_eq!(ok!(send(&client, b"world", 0)), 5);
        assert_eq!(receive(&server, 11, libc::MSG_WAITALL), b"hello world");
        assert_eq!(ok!(send(&server, b"back", 0)), 4);
        assert_eq!(receive(&client, 2, libc::MSG_PEEK), b"ba");
        assert_eq!(receive(&client, 2, 0), b"ba");
        assert_eq!(receive(&client, 20, 0), b"ck");
        err!(libc::recv(client.as_raw_fd(), [0u8; 4].as_mut_ptr().cast(), 4, libc::MSG_DONTWAIT), libc::EAGAIN);
        err!(send(&client, b"!", libc::MSG_OOB), libc::EOPNOTSUPP);
    }

    fn a_sender_waits_for_room() {
        if !has_loopback() {
            return;
        }
        let (client, server) = pair(libc::SOCK_STREAM);
        let mut sent = 0;
        loop {
            match send(&client, &[7; 10_000], libc::MSG_DONTWAIT) {
                -1 => break,
                n => sent += n as usize,
            }
        }
        assert_eq!(errno(), libc::EAGAIN);
        assert_eq!(sent, 256 << 10);
        assert_eq!(poll(&client, 0), 0);
        let reader = std::thread::spawn(move || {
            let mut all = 0;
            loop {
                match receive(&server, 50_000, 0) {
                    bytes if bytes.is_empty() => return all,
                    bytes => all += bytes.iter().filter(|&&byte| byte == 7).count(),
                }
            }
        });
        assert_eq!(poll(&client, 3000) & libc::POLLOUT, libc::POLLOUT);
        for _ in 0..100 {
            assert_eq!(ok!(send(&client, &[7; 30_000], 0)), 30_000);
        }
        drop(client);
        assert_eq!(reader.join().unwrap(), sent + 3_000_000);
    }

    fn messages_stay_whole() {
        if !has_loopback() {
            return;
        }
        let (client, server) = pair(libc::SOCK_SEQPACKET);
        for len in [1, 5, 40_000] {
            assert_eq!(ok!(send(&client, &vec![len as u8; len], 0)), len as isize);
        }
        assert_eq!(receive(&server, 100, 0), [1]);
        assert_eq!(receive(&server, 3, 0), [5; 3]);
        assert_eq!(receive(&server, 100_000, 0).len(), 40_000);
        assert_eq!(ok!(send(&client, b"long", libc::MSG_EOR)), 4);
        let mut bytes = [0u8; 2];
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: 2 };
        let mut header: libc::msghdr = unsafe { zeroed() };
        (header.msg_iov, header.msg_iovlen) = (&mut part, 1);
        assert_eq!(ok!(libc::recvmsg(server.as_raw_fd(), &mut header, libc::MSG_TRUNC)), 4);
        assert_eq!(header.msg_flags & (libc::MSG_TRUNC | libc::MSG_EOR), libc::MSG_TRUNC | libc::MSG_EOR);
        err!(send(&client, &vec![0; 300_000], 0), libc::EMSGSIZE);
    }

    fn what_bind_and_connect_refuse() {
        if !has_loopback() {
            return;
        }
        err!(libc::socket(AF_VSOCK, libc::SOCK_RAW, 0), libc::ESOCKTNOSUPPORT);
        err!(libc::socket(AF_VSOCK, libc::SOCK_STREAM, 1), libc::EPROTONOSUPPORT);
        let (_listener, port) = listener(libc::SOCK_STREAM);
        let other = socket(libc::SOCK_STREAM);
        err!(bind(&other, ANY, port), libc::EADDRINUSE);
        err!(bind(&other, LOCAL, port), libc::EADDRINUSE);
        err!(bind(&other, 77, ANY), libc::EADDRNOTAVAIL);
        err!(libc::listen(other.as_raw_fd(), 1), libc::EINVAL);
        err!(libc::bind(other.as_raw_fd(), (&address(LOCAL, 7) as *const libc::sockaddr_vm).cast(), 15), libc::EINVAL);
        err!(connect(&other, 77, port), libc::ENODEV);
        ok!(bind(&other, LOCAL, ANY));
        err!(bind(&other, LOCAL, ANY), libc::EINVAL);
        // Nobody listens there, or for messages.
        err!(connect(&other, LOCAL, port.wrapping_add(5000)), libc::ECONNRESET);
        let messages = socket(libc::SOCK_SEQPACKET);
        err!(connect(&messages, LOCAL, port), libc::ECONNRESET);
        ok!(connect(&other, LOCAL, port));
        in_child(move || {
            become_nobody();
            let fd = socket(libc::SOCK_STREAM);
            err!(bind(&fd, ANY, 1023), libc::EACCES);
            err!(send(&fd, b"x", 0), libc::ENOTCONN);
            err!(libc::recv(fd.as_raw_fd(), [0u8].as_mut_ptr().cast(), 1, 0), libc::ENOTCONN);
            err!(libc::shutdown(fd.as_raw_fd(), libc::SHUT_WR), libc::ENOTCONN);
            err!(libc::accept(fd.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut()), libc::EINVAL);
        });
    }

    fn the_end_of_a_connection_is_seen() {
        if !has_loopback() {
            return;
        }
        let (client, server) = pair(libc::SOCK_STREAM);
        assert_eq!(poll(&client, 0), libc::POLLOUT);
        assert_eq!(ok!(send(&client, b"last", 0)), 4);
        ok!(libc::shutdown(client.as_raw_fd(), libc::SHUT_WR));
        err!(send(&client, b"x", 0), libc::EPIPE);
        until(|| poll(&server, 0) & libc::POLLRDHUP != 0);
        assert_eq!(poll(&server, 0), libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP);
        assert_eq!(receive(&server, 10, 0), b"last");
        assert_eq!(receive(&server, 10, 0), b"");
        assert_eq!(ok!(send(&server, b"still", 0)), 5);
        assert_eq!(receive(&client, 10, 0), b"still");
        drop(server);
        assert_eq!(receive(&client, 10, 0), b"");

        let (client, server) = pair(libc::SOCK_STREAM);
        drop(client);
        until(|| send(&server, b"x", 0) == -1);
        assert_eq!(errno(), libc::EPIPE);
        assert_eq!(receive(&server, 10, 0), b"");
    }

    fn a_backlog_is_finite() {
        if !has_loopback() {
            return;
        }
        let (listener, port) = listener(libc::SOCK_STREAM);
        let open = || {
            let fd = socket(libc::SOCK_STREAM);
            (connect(&fd, LOCAL, port), fd)
        };
        let clients: Vec<_> = (0..3).map(|_| open()).collect();
        assert!(clients.iter().all(|client| client.0 == 0));
        let (result, _refused) = open();
        err!(result, libc::ECONNRESET);
        drop(accept(&listener));
        ok!(open().0);
        // Those who were never accepted hear of the listener's end.
        drop(listener);
        assert_eq!(receive(&clients[1].1, 1, 0), b"");
    }

    fn buffers_have_bounds() {
        if !has_loopback() {
            return;
        }
        const SIZE: i32 = 0;
        const LEAST: i32 = 1;
        const MOST: i32 = 2;
        let fd = socket(libc::SOCK_STREAM);
        assert_eq!([SIZE, LEAST, MOST].map(|option| get(&fd, option)), [262_144, 128, 262_144]);
        ok!(set(&fd, SIZE, 1 << 20));
        assert_eq!(get(&fd, SIZE), 262_144);
        ok!(set(&fd, MOST, 1 << 20));
        ok!(set(&fd, SIZE, 1 << 19));
        assert_eq!(get(&fd, SIZE), 1 << 19);
        ok!(set(&fd, LEAST, 1 << 20));
        assert_eq!(get(&fd, SIZE), 1 << 20);
        ok!(set(&fd, LEAST, 128));
        ok!(set(&fd, MOST, 1000));
        assert_eq!(get(&fd, SIZE), 1000);
        err!(set(&fd, 99, 1), libc::ENOPROTOOPT);
        err!(libc::setsockopt(fd.as_raw_fd(), AF_VSOCK, SIZE, (&SIZE as *const i32).cast(), 4), libc::EINVAL);
        err!(libc::setsockopt(fd.as_raw_fd(), libc::IPPROTO_TCP, 1, (&MOST as *const i32).cast(), 4), libc::ENOPROTOOPT);

        let time = [1i64, 500_000];
        ok!(libc::setsockopt(fd.as_raw_fd(), AF_VSOCK, 6, time.as_ptr().cast(), 16));
        let (mut shown, mut len) = ([0i64; 2], 16);
        ok!(libc::getsockopt(fd.as_raw_fd(), AF_VSOCK, 6, shown.as_mut_ptr().cast(), &mut len));
        assert_eq!((shown, len), (time, 16));
        let wrong = [1i64, 1_000_000];
        err!(libc::setsockopt(fd.as_raw_fd(), AF_VSOCK, 6, wrong.as_ptr().cast(), 16), libc::ERANGE);

        // A connection has the listener's, and the sender keeps to it.
        let (listener, port) = listener(libc::SOCK_STREAM);
        ok!(set(&listener, SIZE, 1000));
        ok!(connect(&fd, LOCAL, port));
        let server = accept(&listener);
        assert_eq!(get(&server, SIZE), 1000);
        assert_eq!(ok!(send(&fd, &[1; 5000], libc::MSG_DONTWAIT)), 1000);
    }

    fn the_device_tells_the_machines_number() {
        if !has_loopback() {
            return;
        }
        let device = open("/dev/vsock", libc::O_RDONLY);
        err!(libc::ioctl(device.as_raw_fd(), 0x7ba, 0), libc::ENOTTY);
        err!(libc::ioctl(device.as_raw_fd(), GET_LOCAL_CID, 0), libc::EFAULT);
    }
}
