//! Internet sockets over the loopback interface: TCP, UDP, ICMP, raw IP, netlink.

use crate::sys::*;
use std::io::{ErrorKind, Read, Write};
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

fn socket(family: i32, kind: i32, protocol: i32) -> OwnedFd {
    own(ok!(libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol)))
}

fn v4(address: Ipv4Addr, port: u16) -> libc::sockaddr_in {
    let mut raw: libc::sockaddr_in = unsafe { zeroed() };
    raw.sin_family = libc::AF_INET as u16;
    raw.sin_port = port.to_be();
    raw.sin_addr.s_addr = u32::from_ne_bytes(address.octets());
    raw
}

fn bind(fd: &OwnedFd, address: &libc::sockaddr_in) -> i32 {
    unsafe { libc::bind(fd.as_raw_fd(), (&raw const *address).cast(), size_of::<libc::sockaddr_in>() as u32) }
}

fn connect(fd: &OwnedFd, address: &libc::sockaddr_in) -> i32 {
    unsafe { libc::connect(fd.as_raw_fd(), (&raw const *address).cast(), size_of::<libc::sockaddr_in>() as u32) }
}

fn name(fd: &impl AsRawFd) -> libc::sockaddr_in {
    let mut raw: libc::sockaddr_in = unsafe { zeroed() };
    let mut len = size_of::<libc::sockaddr_in>() as u32;
    ok!(libc::getsockname(fd.as_raw_fd(), (&raw mut raw).cast(), &mut len));
    raw
}

fn set(fd: &impl AsRawFd, level: i32, option: i32, value: i32) -> i32 {
    unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), 4) }
}

fn get(fd: &impl AsRawFd, level: i32, option: i32) -> i32 {
    let (mut value, mut len) = (0i32, 4u32);
    ok!(libc::getsockopt(fd.as_raw_fd(), level, option, (&raw mut value).cast(), &mut len));
    value
}

fn poll(fd: &impl AsRawFd, events: i16, timeout: i32) -> i16 {
    let mut one = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    ok!(libc::poll(&mut one, 1, timeout));
    one.revents
}

/// Two ends of a connection, and the listener.
fn connection() -> (TcpStream, TcpStream, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, peer) = listener.accept().unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
    (client, server, listener)
}

fn set_linger(stream: &TcpStream, seconds: i32) {
    let linger = libc::linger { l_onoff: 1, l_linger: seconds };
    ok!(libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), 8));
}

fn state(stream: &impl AsRawFd) -> u8 {
    let mut info = [0u8; 104];
    let mut len = 104u32;
    ok!(libc::getsockopt(stream.as_raw_fd(), 6, libc::TCP_INFO, info.as_mut_ptr().cast(), &mut len));
    info[0]
}

/// Waits until a connection has that state: the other end's segments take their time.
fn until_state(stream: &impl AsRawFd, wanted: u8) {
    let end = Instant::now() + Duration::from_secs(5);
    while state(stream) != wanted {
        assert!(Instant::now() < end, "state {} instead of {wanted}", state(stream));
        std::thread::sleep(Duration::from_millis(1));
    }
}

cases! {
    fn tcp_carries_megabytes_both_ways() {
        let (mut client, mut server, _listener) = connection();
        let data: Vec<u8> = (0..3_000_000u32).map(|i| (i * 7 + i / 251) as u8).collect();
        let copy = data.clone();
        let mut writer = client.try_clone().unwrap();
        let sending = std::thread::spawn(move || {
            writer.write_all(&copy).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let echoing = std::thread::spawn(move || {
            let mut buffer = vec![0; 50_000];
            loop {
                let n = server.read(&mut buffer).unwrap();
                if n == 0 {
                    break;
                }
                server.write_all(&buffer[..n]).unwrap();
            }
        });
        let mut back = Vec::new();
        client.read_to_end(&mut back).unwrap();
        assert!(back == data);
        sending.join().unwrap();
        echoing.join().unwrap();
    }

    fn names_of_both_ends() {
        let (client, server, listener) = connection();
        assert_eq!(client.peer_addr().unwrap(), listener.local_addr().unwrap());
        assert_eq!(server.local_addr().unwrap(), client.peer_addr().unwrap());
        assert!(client.local_addr().unwrap().port() >= 32768);
        let fresh = socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        assert_eq!((name(&fresh).sin_port, name(&fresh).sin_addr.s_addr), (0, 0));
        let (mut raw, mut len): (libc::sockaddr_in, u32) = (unsafe { zeroed() }, 16);
        err!(libc::getpeername(fresh.as_raw_fd(), (&raw mut raw).cast(), &mut len), libc::ENOTCONN);
        assert_eq!(get(&fresh, libc::SOL_SOCKET, libc::SO_PROTOCOL), 6);
        assert_eq!(get(&fresh, libc::SOL_SOCKET, libc::SO_DOMAIN), libc::AF_INET);
        assert_eq!(get(&listener, libc::SOL_SOCKET, libc::SO_ACCEPTCONN), 1);
    }

    fn connecting_to_nobody_is_refused() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(TcpStream::connect(closed).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let fd = socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0);
        let to = v4(Ipv4Addr::LOCALHOST, closed.port());
        err!(connect(&fd, &to), libc::EINPROGRESS);
        let ready = poll(&fd, libc::POLLOUT, 5000);
        assert_eq!(ready, libc::POLLOUT | libc::POLLERR | libc::POLLHUP);
        assert_eq!(get(&fd, libc::SOL_SOCKET, libc::SO_ERROR), libc::ECONNREFUSED);
        assert_eq!(get(&fd, libc::SOL_SOCKET, libc::SO_ERROR), 0);
    }

    fn connecting_without_blocking() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = v4(Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port());
        let fd = socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0);
        assert_eq!(poll(&fd, libc::POLLIN | libc::POLLOUT, 0), libc::POLLOUT | libc::POLLHUP);
        err!(connect(&fd, &to), libc::EINPROGRESS);
        assert_eq!(poll(&fd, libc::POLLIN | libc::POLLOUT, 5000), libc::POLLOUT);
        assert_eq!(get(&fd, libc::SOL_SOCKET, libc::SO_ERROR), 0);
        assert_eq!(poll(&listener, libc::POLLIN, 5000), libc::POLLIN);
        ok!(connect(&fd, &to));
        err!(connect(&fd, &to), libc::EISCONN);
    }

    fn binding_twice_and_what_may_be_shared() {
        let any = v4(Ipv4Addr::LOCALHOST, 0);
        let one = socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        ok!(bind(&one, &any));
        let taken = name(&one);
        err!(bind(&one, &any), libc::EINVAL);
        let two = socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        err!(bind(&two, &taken), libc::EADDRINUSE);
        ok!(set(&one, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1));
        ok!(set(&two, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1));
        let elsewhere = v4(Ipv4Addr::new(127, 0, 0, 9), u16::from_be(taken.sin_port));
        ok!(bind(&two, &elsewhere));
        let three = socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        err!(bind(&three, &v4(Ipv4Addr::new(192, 0, 2, 7), 0)), libc::EADDRNOTAVAIL);
        let [four, five] = [0, 1].map(|_| {
            let fd = socket(libc::AF_INET, libc::SOCK_STREAM, 0);
            ok!(set(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1));
            fd
        });
        ok!(bind(&four, &any));
        ok!(bind(&five, &name(&four)));
        ok!(libc::listen(four.as_raw_fd(), 1));
        ok!(libc::listen(five.as_raw_fd(), 1));
    }

    fn a_server_can_be_restarted_with_reuseaddr() {
        let (client, server, listener) = connection();
        let at = listener.local_addr().unwrap();
        drop(server);
        drop(listener);
        drop(client);
        // std sets SO_REUSEADDR.
        TcpListener::bind(at).unwrap();
    }

    fn shutdown_and_what_is_left() {
        let (mut client, mut server, _listener) = connection();
        client.write_all(b"last words").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        act(libc::SIGPIPE, libc::SIG_IGN, 0);
        assert_eq!(client.write(b"x").unwrap_err().raw_os_error(), Some(libc::EPIPE));
        let mut all = String::new();
        server.read_to_string(&mut all).unwrap();
        assert_eq!(all, "last words");
        assert_eq!(poll(&server, libc::POLLIN | libc::POLLRDHUP, 0), libc::POLLIN | libc::POLLRDHUP);
        server.write_all(b"answer").unwrap();
        let mut buffer = [0; 6];
        client.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"answer");
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(poll(&server, libc::POLLIN, 1000) & libc::POLLHUP, libc::POLLHUP);
    }

    fn states_of_a_closing_connection() {
        const ESTABLISHED: u8 = 1;
        const FIN_WAIT2: u8 = 5;
        const CLOSE_WAIT: u8 = 8;
        let (client, server, listener) = connection();
        assert_eq!((state(&client), state(&server), state(&listener)), (ESTABLISHED, ESTABLISHED, 10));
        client.shutdown(Shutdown::Write).unwrap();
        until_state(&client, FIN_WAIT2);
        until_state(&server, CLOSE_WAIT);
        let port = client.local_addr().unwrap().port();
        drop(client);
        drop(server);
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let line = table.lines().find(|line| line.contains(&format!(":{port:04X} ")) && line.contains(" 06 "));
        assert!(line.is_some(), "nobody is in TIME_WAIT: {table}");
    }

    fn closing_with_unread_data_resets() {
        let (mut client, server, _listener) = connection();
        client.write_all(b"unread").unwrap();
        assert_eq!(poll(&server, libc::POLLIN, 5000), libc::POLLIN);
        drop(server);
        assert_eq!(poll(&client, libc::POLLIN, 5000) & libc::POLLHUP, libc::POLLHUP);
        assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
        let (client, server, _listener) = connection();
        set_linger(&client, 0);
        drop(client);
        let mut server = server;
        assert_eq!(server.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }

    fn data_for_a_closed_end_resets() {
        let (mut one, two, _listener) = connection();
        act(libc::SIGPIPE, libc::SIG_IGN, 0);
        drop(two);
        one.set_nonblocking(true).unwrap();
        let data = vec![0u8; 1 << 20];
        let begun = std::time::Instant::now();
        let mut sent = 0;
        let error = loop {
            match one.write(&data) {
                Ok(n) => sent += n,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => drop(poll(&one, libc::POLLOUT, 2000)),
                Err(error) => break error,
            }
            assert!(sent < 64 << 20, "somebody takes it");
        };
        assert!(matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)), "{error}");
        assert!(begun.elapsed().as_millis() < 1500, "a first piece does not wait for more");
    }

    fn a_full_buffer_blocks_the_sender() {
        let (mut client, mut server, _listener) = connection();
        client.set_nonblocking(true).unwrap();
        let chunk = vec![5u8; 65536];
        let mut sent = 0usize;
        let error = loop {
            match client.write(&chunk) {
                Ok(n) => sent += n,
                Err(error) => break error,
            }
            assert!(sent < 100 << 20);
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert_eq!(poll(&client, libc::POLLOUT, 0), 0);
        let mut buffer = vec![0; 1 << 20];
        let mut received = 0;
        while received < sent {
            let n = server.read(&mut buffer).unwrap();
            assert!(n > 0 && buffer[..n].iter().all(|&b| b == 5));
            received += n;
        }
        assert_eq!(poll(&client, libc::POLLOUT, 5000), libc::POLLOUT);
    }

    fn peek_waitall_and_how_much_there_is() {
        let (mut client, server, _listener) = connection();
        client.write_all(b"abcdef").unwrap();
        assert_eq!(poll(&server, libc::POLLIN, 5000), libc::POLLIN);
        let fd = server.as_raw_fd();
        let mut buffer = [0u8; 16];
        assert_eq!(ok!(libc::recv(fd, buffer.as_mut_ptr().cast(), 4, libc::MSG_PEEK)), 4);
        assert_eq!(&buffer[..4], b"abcd");
        let mut count = 0i32;
        ok!(libc::ioctl(fd, libc::FIONREAD, &mut count));
        assert_eq!(count, 6);
        let mut later = client.try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            later.write_all(b"ghij").unwrap();
        });
        assert_eq!(ok!(libc::recv(fd, buffer.as_mut_ptr().cast(), 10, libc::MSG_WAITALL)), 10);
        assert_eq!(&buffer[..10], b"abcdefghij");
        thread.join().unwrap();
        err!(libc::recv(fd, buffer.as_mut_ptr().cast(), 1, libc::MSG_DONTWAIT), libc::EAGAIN);
    }

    fn urgent_data() {
        let (client, mut server, _listener) = connection();
        let fd = server.as_raw_fd();
        let mut byte = 0u8;
        err!(libc::recv(fd, (&raw mut byte).cast(), 1, libc::MSG_OOB), libc::EINVAL);
        ok!(libc::send(client.as_raw_fd(), b"abX".as_ptr().cast(), 3, libc::MSG_OOB));
        assert_eq!(poll(&server, libc::POLLPRI, 5000), libc::POLLPRI);
        let mut buffer = [0; 8];
        assert_eq!(server.read(&mut buffer).unwrap(), 2);
        let mut mark = 0i32;
        ok!(libc::ioctl(fd, 0x8905, &mut mark));
        assert_eq!(mark, 1);
        assert_eq!(ok!(libc::recv(fd, (&raw mut byte).cast(), 1, libc::MSG_OOB)), 1);
        assert_eq!(byte, b'X');
    }

    fn timeouts_and_options_of_tcp() {
        let (client, mut server, _listener) = connection();
        server.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
        assert_eq!(server.read(&mut [0; 1]).unwrap_err().raw_os_error(), Some(libc::EAGAIN));
        for (option, value) in [
            (libc::TCP_NODELAY, 1),
            (libc::TCP_CORK, 1),
            (libc::TCP_KEEPIDLE, 11),
            (libc::TCP_KEEPINTVL, 12),
            (libc::TCP_KEEPCNT, 3),
            (libc::TCP_SYNCNT, 4),
            (libc::TCP_USER_TIMEOUT, 5000),
        ] {
            ok!(set(&client, libc::IPPROTO_TCP, option, value));
            assert_eq!(get(&client, libc::IPPROTO_TCP, option), value);
        }
        err!(set(&client, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 0), libc::EINVAL);
        err!(set(&client, libc::IPPROTO_TCP, 99, 1), libc::ENOPROTOOPT);
        assert!(get(&client, libc::IPPROTO_TCP, libc::TCP_MAXSEG) > 500);
        let reno = b"reno\0";
        ok!(libc::setsockopt(client.as_raw_fd(), 6, libc::TCP_CONGESTION, reno.as_ptr().cast(), 4));
        let nonsense = b"nonsense";
        err!(libc::setsockopt(client.as_raw_fd(), 6, libc::TCP_CONGESTION, nonsense.as_ptr().cast(), 8), libc::ENOENT);
        ok!(set(&client, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1));
        assert_eq!(get(&client, libc::SOL_SOCKET, libc::SO_KEEPALIVE), 1);
    }

    fn the_backlog_is_bounded_and_closing_it_resets() {
        let fd = socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        ok!(bind(&fd, &v4(Ipv4Addr::LOCALHOST, 0)));
        ok!(libc::listen(fd.as_raw_fd(), 1));
        let to = name(&fd);
        let clients: Vec<OwnedFd> = (0..2)
            .map(|_| {
                let client = socket(libc::AF_INET, libc::SOCK_STREAM, 0);
                ok!(connect(&client, &to));
                client
            })
            .collect();
        let third = socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0);
        err!(connect(&third, &to), libc::EINPROGRESS);
        assert_eq!(poll(&third, libc::POLLOUT, 100), 0, "one too many");
        drop(fd);
        let mut byte = 0u8;
        err!(libc::recv(clients[0].as_raw_fd(), (&raw mut byte).cast(), 1, 0), libc::ECONNRESET);
    }

    fn accept_reports_what_it_should() {
        let fd = socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0);
        err!(libc::accept(fd.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut()), libc::EINVAL);
        ok!(libc::listen(fd.as_raw_fd(), 5));
        assert_ne!(name(&fd).sin_port, 0);
        err!(libc::accept(fd.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut()), libc::EAGAIN);
        let mut byte = 0u8;
        err!(libc::recv(fd.as_raw_fd(), (&raw mut byte).cast(), 1, 0), libc::ENOTCONN);
        err!(libc::send(fd.as_raw_fd(), (&raw const byte).cast(), 1, libc::MSG_NOSIGNAL), libc::EPIPE);
        let datagrams = socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        err!(libc::listen(datagrams.as_raw_fd(), 5), libc::EOPNOTSUPP);
    }

    fn one_ipv6_socket_serves_both() {
        let listener = TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let _four = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let (_, peer) = listener.accept().unwrap();
        assert!(peer.to_string().starts_with("[::ffff:127.0.0.1]"), "{peer}");
        let six = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        assert_eq!(listener.accept().unwrap().1, six.local_addr().unwrap());
        let only = socket(libc::AF_INET6, libc::SOCK_STREAM, 0);
        assert_eq!(get(&only, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY), 0);
        ok!(set(&only, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1));
        let mut raw: libc::sockaddr_in6 = unsafe { zeroed() };
        raw.sin6_family = libc::AF_INET6 as u16;
        ok!(libc::bind(only.as_raw_fd(), (&raw const raw).cast(), 28));
        ok!(libc::listen(only.as_raw_fd(), 1));
        let mut len = 28;
        ok!(libc::getsockname(only.as_raw_fd(), (&raw mut raw).cast(), &mut len));
        let port = u16::from_be(raw.sin6_port);
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
        TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
    }

    fn datagrams_and_who_sent_them() {
        let [one, two] = [0, 1].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
        one.send_to(b"hello", two.local_addr().unwrap()).unwrap();
        one.send_to(b"", two.local_addr().unwrap()).unwrap();
        let mut buffer = [0; 3];
        assert_eq!(two.recv_from(&mut buffer).unwrap(), (3, one.local_addr().unwrap()));
        assert_eq!(two.recv_from(&mut buffer).unwrap(), (0, one.local_addr().unwrap()));
        let large = vec![9; 65507];
        one.send_to(&large, two.local_addr().unwrap()).unwrap();
        let mut all = vec![0; 70000];
        assert_eq!(two.recv(&mut all).unwrap(), 65507);
        assert!(all[..65507] == large[..]);
        let error = one.send_to(&vec![0; 65508], two.local_addr().unwrap()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
        let fd = two.as_raw_fd();
        one.send_to(b"truncated", two.local_addr().unwrap()).unwrap();
        assert_eq!(ok!(libc::recv(fd, buffer.as_mut_ptr().cast(), 3, libc::MSG_TRUNC)), 9);
    }

    fn connected_datagram_sockets() {
        let one = UdpSocket::bind("127.0.0.1:0").unwrap();
        let two = UdpSocket::bind("127.0.0.1:0").unwrap();
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        two.connect(one.local_addr().unwrap()).unwrap();
        stranger.send_to(b"not for you", two.local_addr().unwrap()).unwrap();
        one.send_to(b"for you", two.local_addr().unwrap()).unwrap();
        let mut buffer = [0; 20];
        assert_eq!(two.recv(&mut buffer).unwrap(), 7);
        let gone = one.local_addr().unwrap();
        drop(one);
        two.send(b"anyone?").unwrap();
        assert_eq!(two.recv(&mut buffer).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let fresh = socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        err!(libc::send(fresh.as_raw_fd(), b"x".as_ptr().cast(), 1, 0), libc::EDESTADDRREQ);
        ok!(connect(&fresh, &v4(Ipv4Addr::LOCALHOST, gone.port())));
        assert_eq!(name(&fresh).sin_addr.s_addr, u32::from_ne_bytes([127, 0, 0, 1]));
    }

    fn packet_information() {
        let receiver = UdpSocket::bind("0.0.0.0:0").unwrap();
        ok!(set(&receiver, libc::IPPROTO_IP, libc::IP_PKTINFO, 1));
        ok!(set(&receiver, libc::IPPROTO_IP, libc::IP_RECVTTL, 1));
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.set_ttl(33).unwrap();
        sender.send_to(b"x", (Ipv4Addr::new(127, 0, 0, 5), receiver.local_addr().unwrap().port())).unwrap();
        let mut byte = 0u8;
        let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let mut space = [0u64; 16];
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = space.as_mut_ptr().cast();
        message.msg_controllen = 128;
        assert_eq!(ok!(libc::recvmsg(receiver.as_raw_fd(), &mut message, 0)), 1);
        let (mut destination, mut ttl) = (0, 0);
        let mut header = unsafe { libc::CMSG_FIRSTHDR(&message) };
        while !header.is_null() {
            let (kind, data) = unsafe { ((*header).cmsg_type, libc::CMSG_DATA(header)) };
            match kind {
                libc::IP_PKTINFO => destination = unsafe { data.add(8).cast::<u32>().read_unaligned() },
                libc::IP_TTL => ttl = unsafe { data.cast::<i32>().read_unaligned() },
                other => panic!("control message {other}"),
            }
            header = unsafe { libc::CMSG_NXTHDR(&message, header) };
        }
        assert_eq!((destination.to_ne_bytes(), ttl), ([127, 0, 0, 5], 33));
    }

    fn corked_datagrams_are_one() {
        let [one, two] = [0, 1].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
        one.connect(two.local_addr().unwrap()).unwrap();
        ok!(libc::send(one.as_raw_fd(), b"first ".as_ptr().cast(), 6, libc::MSG_MORE));
        ok!(libc::send(one.as_raw_fd(), b"second".as_ptr().cast(), 6, 0));
        let mut buffer = [0; 20];
        assert_eq!(two.recv(&mut buffer).unwrap(), 12);
        assert_eq!(&buffer[..12], b"first second");
    }

    fn groups_on_the_loopback() {
        let receiver = UdpSocket::bind("0.0.0.0:0").unwrap();
        let group = Ipv4Addr::new(239, 1, 2, 3);
        receiver.join_multicast_v4(&group, &Ipv4Addr::LOCALHOST).unwrap();
        let error = receiver.join_multicast_v4(&group, &Ipv4Addr::LOCALHOST).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let local = u32::from_ne_bytes([127, 0, 0, 1]) as i32;
        ok!(set(&sender, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, local));
        sender.send_to(b"all", (group, receiver.local_addr().unwrap().port())).unwrap();
        let mut buffer = [0; 9];
        receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(receiver.recv(&mut buffer).unwrap(), 3);
        receiver.leave_multicast_v4(&group, &Ipv4Addr::LOCALHOST).unwrap();
        assert!(receiver.leave_multicast_v4(&group, &Ipv4Addr::LOCALHOST).is_err());
    }

    fn broadcasting_needs_leave() {
        let fd = socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        let to = v4(Ipv4Addr::BROADCAST, 9);
        let sent = unsafe { libc::sendto(fd.as_raw_fd(), b"x".as_ptr().cast(), 1, 0, (&raw const to).cast(), 16) };
        assert!(sent < 0);
        let error = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        assert!([libc::EACCES, libc::ENETUNREACH].contains(&error), "{error}");
    }

    fn echoes_through_a_raw_socket() {
        let fd = socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP);
        let mut request = vec![8u8, 0, 0, 0, 0x12, 0x34, 0, 1, b'p', b'i', b'n', b'g'];
        let sum = request.chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], c[1]]))).sum::<u32>();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        request[2..4].copy_from_slice(&sum.to_be_bytes());
        let to = v4(Ipv4Addr::LOCALHOST, 0);
        let at = request.as_ptr().cast();
        ok!(libc::sendto(fd.as_raw_fd(), at, request.len(), 0, (&raw const to).cast(), 16));
        loop {
            let mut packet = [0u8; 100];
            let n = ok!(libc::recv(fd.as_raw_fd(), packet.as_mut_ptr().cast(), 100, 0)) as usize;
            assert_eq!((packet[0], packet[9]), (0x45, 1), "with the header of IP");
            // Our own request passes by first, and what others cause on the loopback.
            if packet[20] == 0 && packet[24..26] == [0x12, 0x34] {
                assert_eq!((n, &packet[28..32]), (32, b"ping".as_slice()));
                break;
            }
        }
    }

    fn sockets_that_do_not_exist() {
        err!(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 17), libc::EPROTONOSUPPORT);
        err!(libc::socket(libc::AF_INET, libc::SOCK_RAW, 0), libc::EPROTONOSUPPORT);
        err!(libc::socket(libc::AF_INET, libc::SOCK_SEQPACKET, 0), libc::ESOCKTNOSUPPORT);
        err!(libc::socket(libc::AF_INET, 0, 0), libc::ESOCKTNOSUPPORT);
        err!(libc::socketpair(libc::AF_INET, libc::SOCK_STREAM, 0, [0; 2].as_mut_ptr()), libc::EOPNOTSUPP);
    }

    fn netlink_tells_of_the_loopback() {
        let fd = socket(libc::AF_NETLINK, libc::SOCK_RAW, 0);
        // RTM_GETLINK, a dump.
        let mut request = [0u8; 32];
        request[0] = 32;
        request[4] = 18;
        request[6..8].copy_from_slice(&0x301u16.to_ne_bytes());
        request[8] = 77;
        ok!(libc::send(fd.as_raw_fd(), request.as_ptr().cast(), 32, 0));
        let mut answer = vec![0u8; 32768];
        let n = ok!(libc::recv(fd.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0)) as usize;
        assert!(n > 48);
        assert_eq!((u16::from_ne_bytes([answer[4], answer[5]]), answer[8]), (16, 77));
        let index = i32::from_ne_bytes([answer[20], answer[21], answer[22], answer[23]]);
        assert_eq!(index, 1);
        assert!(answer[..n].windows(3).any(|w| w == b"lo\0"));
        assert_eq!(ok!(libc::if_nametoindex(c"lo".as_ptr()) as i32), 1);
    }

    fn the_system_shows_its_sockets() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let wanted = format!("0100007F:{port:04X} 00000000:0000 0A");
        assert!(table.lines().any(|line| line.contains(&wanted)), "{table}");
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = udp.local_addr().unwrap().port();
        let table = std::fs::read_to_string("/proc/self/net/udp").unwrap();
        assert!(table.contains(&format!("0100007F:{port:04X} 00000000:0000 07")), "{table}");
        assert!(std::fs::read_to_string("/proc/net/dev").unwrap().contains("lo:"));
        assert!(std::fs::read_to_string("/proc/net/snmp").unwrap().contains("Tcp: "));
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        assert_eq!(range.split_whitespace().count(), 2);
    }

    fn many_connections_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at: SocketAddr = listener.local_addr().unwrap();
        let mut pairs = Vec::new();
        for _ in 0..200 {
            let client = TcpStream::connect(at).unwrap();
            pairs.push((client, listener.accept().unwrap().0));
        }
        for (number, (client, server)) in pairs.iter_mut().enumerate() {
            client.write_all(&[number as u8]).unwrap();
            let mut byte = [0];
            server.read_exact(&mut byte).unwrap();
            assert_eq!(byte[0], number as u8);
        }
    }
}
