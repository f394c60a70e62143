//! TCP beyond the usual: fast opening, zero-copy notifications, timestamps of sending, what waits in the queue, half-open connections.

use crate::sys::*;
use std::io::{Read, Write};
use std::mem::{size_of, zeroed};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

const TCP: i32 = 6;
const FASTOPEN: i32 = 23;
const FASTOPEN_CONNECT: i32 = 30;
const INQ: i32 = 36;
const ZEROCOPY: i32 = 60;
const MSG_ZEROCOPY: i32 = 0x400_0000;

fn set(fd: &impl AsRawFd, level: i32, option: i32, value: i32) -> i32 {
    unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), 4) }
}

fn get(fd: &impl AsRawFd, level: i32, option: i32) -> i32 {
    let (mut value, mut len) = (0i32, 4u32);
    ok!(libc::getsockopt(fd.as_raw_fd(), level, option, (&raw mut value).cast(), &mut len));
    value
}

fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

fn address(port: u16) -> libc::sockaddr_in {
    let mut raw: libc::sockaddr_in = unsafe { zeroed() };
    raw.sin_family = libc::AF_INET as u16;
    raw.sin_port = port.to_be();
    raw.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
    raw
}

/// The bytes of a message, and the level, type and data of its control message.
type Message = (Vec<u8>, (i32, i32), Vec<u8>);

/// The level, type and data of the only control message that comes with one of recvmsg(2), and its bytes.
fn message(fd: &impl AsRawFd, flags: i32) -> Result<Message, i32> {
    let (mut bytes, mut control) = (vec![0u8; 100], [0u64; 32]);
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut header: libc::msghdr = unsafe { zeroed() };
    (header.msg_iov, header.msg_iovlen) = (&mut part, 1);
    (header.msg_control, header.msg_controllen) = (control.as_mut_ptr().cast(), 256);
    let n = unsafe { libc::recvmsg(fd.as_raw_fd(), &mut header, flags) };
    if n < 0 {
        return Err(errno());
    }
    bytes.truncate(n as usize);
    let raw: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let word = |at: usize| i32::from_ne_bytes(raw[at..at + 4].try_into().unwrap());
    let len = word(0) as usize;
    Ok((bytes, (word(8), word(12)), raw[16..len.max(16)].to_vec()))
}

/// Sends with the SYN, to a server on this machine.
fn send_fast(port: u16, data: &[u8], flags: i32) -> (OwnedFd, isize) {
    let fd = own(ok!(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0)));
    let to = address(port);
    let n = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            data.as_ptr().cast(),
            data.len(),
            libc::MSG_FASTOPEN | flags,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_in>() as u32,
        )
    };
    (fd, n)
}

cases! {
    fn data_goes_with_the_syn_once_there_is_a_cookie() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        ok!(set(&listener, TCP, FASTOPEN, 5));
        assert_eq!(get(&listener, TCP, FASTOPEN), 5);
        for _ in 0..3 {
            let (client, n) = send_fast(port, b"early", 0);
            assert_eq!(n, 5);
            let (mut server, _) = listener.accept().unwrap();
            let mut data = [0; 5];
            server.read_exact(&mut data).unwrap();
            assert_eq!(&data, b"early");
            server.write_all(b"answer").unwrap();
            assert_eq!(read(&client, 6), b"answer");
        }
        let mut empty = [0u8; 4];
        err!(libc::sendto(
            own(ok!(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0))).as_raw_fd(),
            empty.as_mut_ptr().cast(), 4, libc::MSG_FASTOPEN, std::ptr::null(), 0
        ), libc::EINVAL);
    }

    fn a_connect_waits_for_the_first_data() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        ok!(set(&listener, TCP, FASTOPEN, 5));
        for _ in 0..3 {
            let fd = own(ok!(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0)));
            ok!(set(&fd, TCP, FASTOPEN_CONNECT, 1));
            assert_eq!(get(&fd, TCP, FASTOPEN_CONNECT), 1);
            let to = address(port);
            ok!(libc::connect(fd.as_raw_fd(), (&raw const to).cast(), size_of::<libc::sockaddr_in>() as u32));
            write(&fd, b"first");
            let (mut server, _) = listener.accept().unwrap();
            let mut data = [0; 5];
            server.read_exact(&mut data).unwrap();
            err!(set(&fd, TCP, FASTOPEN_CONNECT, 2), libc::EINVAL);
        }
    }

    fn a_fast_opening_to_nobody_is_refused() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (_client, n) = send_fast(port, b"early", 0);
        assert_eq!((n, errno()), (-1, libc::ECONNREFUSED));
    }

    fn zero_copy_tells_when_memory_is_free() {
        let (client, mut server) = connection();
        err!(set(&client, libc::SOL_SOCKET, ZEROCOPY, 2), libc::EINVAL);
        ok!(set(&client, libc::SOL_SOCKET, ZEROCOPY, 1));
        for _ in 0..2 {
            let sent = unsafe { libc::send(client.as_raw_fd(), b"zero".as_ptr().cast(), 4, MSG_ZEROCOPY) };
            assert_eq!(sent, 4);
        }
        let mut data = [0; 8];
        server.read_exact(&mut data).unwrap();
        let mut poll = libc::pollfd { fd: client.as_raw_fd(), events: 0, revents: 0 };
        ok!(libc::poll(&mut poll, 1, 5000));
        assert_eq!(poll.revents, libc::POLLERR);
        let mut seen = Vec::new();
        until(|| {
            while let Ok((_, kind, told)) = message(&client, libc::MSG_ERRQUEUE) {
                let word = |at: usize| u32::from_ne_bytes(told[at..at + 4].try_into().unwrap());
                assert_eq!((kind, word(0), told[4]), ((0, 11), 0, 5));
                seen.extend(word(8)..=word(12));
            }
            seen.len() >= 2
        });
        assert_eq!(seen, [0, 1]);
        let unix = std::os::unix::net::UnixStream::pair().unwrap().0;
        assert_eq!(set(&unix, libc::SOL_SOCKET, ZEROCOPY, 1), -1);
    }

    fn times_of_sending_and_of_acknowledgement() {
        // SOF_TIMESTAMPING: TX_SOFTWARE, SOFTWARE, OPT_ID, TX_ACK, OPT_TSONLY.
        let (client, mut server) = connection();
        ok!(set(&client, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, 2 | 0x10 | 0x80 | 0x200 | 0x800));
        (&client).write_all(b"stamped").unwrap();
        server.read_exact(&mut [0; 7]).unwrap();
        let mut kinds = Vec::new();
        until(|| {
            while let Ok((data, kind, _)) = message(&client, libc::MSG_ERRQUEUE) {
                assert_eq!((data.len(), kind), (0, (libc::SOL_SOCKET, libc::SO_TIMESTAMPING)));
                kinds.push(kind);
            }
            kinds.len() >= 2
        });
    }

    fn what_waits_is_told_with_what_is_received() {
        let (client, server) = connection();
        ok!(set(&server, TCP, INQ, 1));
        err!(set(&server, TCP, INQ, 2), libc::EINVAL);
        (&client).write_all(&[7; 150]).unwrap();
        let (data, kind, left) = message(&server, 0).unwrap();
        assert_eq!((data.len(), kind, left), (100, (TCP, INQ), 50i32.to_ne_bytes().to_vec()));
    }

    fn an_accept_that_waits_for_data() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        ok!(set(&listener, TCP, libc::TCP_DEFER_ACCEPT, 5));
        assert_eq!(get(&listener, TCP, libc::TCP_DEFER_ACCEPT), 7);
        listener.set_nonblocking(true).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        nap(50);
        assert!(listener.accept().is_err());
        (&client).write_all(b"now").unwrap();
        until(|| listener.accept().is_ok());
    }

    fn a_pace_is_kept() {
        let (client, _server) = connection();
        ok!(set(&client, libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, 1_000_000));
        assert_eq!(get(&client, libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE), 1_000_000);
        ok!(set(&client, libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, -1));
        assert_eq!(get(&client, libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE), -1);
    }

    fn options_that_are_set_late_leave_the_rest_alone() {
        let (client, mut server) = connection();
        ok!(set(&client, TCP, libc::TCP_NODELAY, 1));
        client.set_write_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        (&client).write_all(&[1; 100]).unwrap();
        let mut poll = libc::pollfd { fd: client.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        assert_eq!(ok!(libc::poll(&mut poll, 1, 0)), 1);
        server.read_exact(&mut [0; 100]).unwrap();
        ok!(set(&client, TCP, libc::TCP_NOTSENT_LOWAT, 1000));
        assert_eq!(get(&client, TCP, libc::TCP_NOTSENT_LOWAT), 1000);
        (&client).write_all(&[1; 5000]).unwrap();
        server.read_exact(&mut [0; 5000]).unwrap();
    }

    fn options_are_for_some_sockets_and_callers() {
        let (client, _server) = connection();
        err!(set(&client, 0, libc::IP_MULTICAST_TTL, 3), libc::EINVAL);
        err!(set(&client, 0, 3, 1), libc::ENOPROTOOPT);
        ok!(set(&client, 0, libc::IP_MINTTL, 5));
        assert_eq!(get(&client, 0, libc::IP_MINTTL), 5);
        err!(set(&client, 0, libc::IP_MINTTL, 256), libc::EINVAL);
        in_child(move || {
            become_nobody();
            err!(set(&client, 0, libc::IP_TRANSPARENT, 1), libc::EPERM);
            ok!(set(&client, 0, libc::IP_TRANSPARENT, 0));
        });
    }

    fn lumps_of_datagrams_are_cut_unless_the_receiver_takes_them() {
        const SEGMENT: i32 = 103;
        const GRO: i32 = 104;
        let udp = || std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let (from, to) = (udp(), udp());
        ok!(set(&from, libc::IPPROTO_UDP, SEGMENT, 100));
        from.send_to(&[1; 250], to.local_addr().unwrap()).unwrap();
        let mut data = [0; 500];
        assert_eq!([0, 1, 2].map(|_| to.recv(&mut data).unwrap()), [100, 100, 50]);
        ok!(set(&to, libc::IPPROTO_UDP, GRO, 1));
        from.send_to(&[1; 90], to.local_addr().unwrap()).unwrap();
        assert_eq!(to.recv(&mut data).unwrap(), 90);
    }

    fn settings_of_tcp_are_there() {
        for name in ["ecn", "fastopen", "slow_start_after_idle", "notsent_lowat", "early_retrans", "abort_on_overflow"] {
            let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/tcp_{name}")).unwrap();
            assert!(text.trim().parse::<u32>().is_ok(), "{name}: {text}");
        }
    }
}
