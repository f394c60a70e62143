//! Packet sockets, classic BPF filters, tun interfaces, and tables of sockets by netlink.

use crate::strange_packet::tap_interface;
use crate::sys::*;
use std::mem::{size_of, zeroed};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

const ALL: u16 = 3;
const SOL_PACKET: i32 = 263;

fn packet(kind: i32, protocol: u16) -> OwnedFd {
    own(ok!(libc::socket(libc::AF_PACKET, kind, protocol.to_be().into())))
}

fn loopback(protocol: u16) -> libc::sockaddr_ll {
    let mut raw: libc::sockaddr_ll = unsafe { zeroed() };
    raw.sll_family = libc::AF_PACKET as u16;
    raw.sll_protocol = protocol.to_be();
    raw.sll_ifindex = 1;
    raw
}

fn bind(fd: &OwnedFd, address: &libc::sockaddr_ll, len: usize) -> i32 {
    unsafe { libc::bind(fd.as_raw_fd(), (&raw const *address).cast(), len as u32) }
}

/// Bound to the loopback interface, with a filter for UDP to one port.
fn watching(kind: i32, port: u16) -> OwnedFd {
    let fd = packet(kind, 0);
    let start = if kind == libc::SOCK_RAW { 14 } else { 0 };
    attach(&fd, &udp_to(port, start));
    ok!(bind(&fd, &loopback(ALL), size_of::<libc::sockaddr_ll>()));
    fd
}

fn step(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

fn udp_to(port: u16, start: u32) -> Vec<libc::sock_filter> {
    vec![
        step(0x30, 0, 0, start + 9),
        step(0x15, 0, 4, 17),
        step(0xb1, 0, 0, start),
        step(0x48, 0, 0, start + 2),
        step(0x15, 0, 1, port.into()),
        step(0x06, 0, 0, 0xffff),
        step(0x06, 0, 0, 0),
    ]
}

fn try_attach(fd: &impl AsRawFd, steps: &[libc::sock_filter]) -> i32 {
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_ptr().cast_mut() };
    unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as u32,
        )
    }
}

fn attach(fd: &impl AsRawFd, steps: &[libc::sock_filter]) {
    ok!(try_attach(fd, steps));
}

fn set(fd: &impl AsRawFd, level: i32, option: i32, value: i32) -> i32 {
    unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), 4) }
}

fn receive(fd: &OwnedFd) -> (Vec<u8>, libc::sockaddr_ll) {
    let mut one = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    assert_eq!(ok!(libc::poll(&mut one, 1, 3000)), 1, "nothing came");
    let mut from: libc::sockaddr_ll = unsafe { zeroed() };
    let mut len = size_of::<libc::sockaddr_ll>() as u32;
    let mut bytes = vec![0; 2048];
    let buffer = bytes.as_mut_ptr().cast();
    let n = ok!(libc::recvfrom(fd.as_raw_fd(), buffer, 2048, 0, (&raw mut from).cast(), &mut len));
    bytes.truncate(n as usize);
    (bytes, from)
}

pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// An IPv4 packet with a UDP datagram without checksum.
pub(crate) fn datagram(from: [u8; 4], to: [u8; 4], ports: (u16, u16), data: &[u8]) -> Vec<u8> {
    let total = 28 + data.len() as u16;
    let mut ip = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0];
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip.extend(from);
    ip.extend(to);
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip.extend(ports.0.to_be_bytes());
    ip.extend(ports.1.to_be_bytes());
    ip.extend((total - 20).to_be_bytes());
    ip.extend([0, 0]);
    ip.extend(data);
    ip
}

fn netlink(protocol: i32, kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let fd = own(ok!(libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol)));
    let mut request = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
    request.extend(kind.to_ne_bytes());
    request.extend((flags | 1).to_ne_bytes());
    request.extend([7, 0, 0, 0, 0, 0, 0, 0]);
    request.extend(body);
    ok!(libc::send(fd.as_raw_fd(), request.as_ptr().cast(), request.len(), 0));
    let mut all = Vec::new();
    loop {
        let mut part = vec![0u8; 65536];
        let n = ok!(libc::recv(fd.as_raw_fd(), part.as_mut_ptr().cast(), part.len(), 0)) as usize;
        all.extend_from_slice(&part[..n]);
        // An error or acknowledgement, the end of a dump, or a single answer.
        let mut at = 0;
        while at + 16 <= n {
            let kind = u16::from_ne_bytes([part[at + 4], part[at + 5]]);
            if matches!(kind, 2 | 3) || flags & 0x304 == 0 {
                return all;
            }
            at += u32::from_ne_bytes([part[at], part[at + 1], part[at + 2], part[at + 3]]).next_multiple_of(4) as usize;
        }
    }
}

/// The error that a request is answered with.
fn netlink_error(protocol: i32, kind: u16, flags: u16, body: &[u8]) -> i32 {
    let answer = netlink(protocol, kind, flags | 4, body);
    assert_eq!(u16::from_ne_bytes([answer[4], answer[5]]), 2, "no error message");
    -i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]])
}

cases! {
    fn a_frame_is_seen_going_and_coming() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let fd = watching(libc::SOCK_RAW, port);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"hello", ("127.0.0.1", port)).unwrap();
        for kind in [libc::PACKET_OUTGOING, libc::PACKET_HOST] {
            let (bytes, from) = receive(&fd);
            assert_eq!((bytes.len(), &bytes[12..15], &bytes[42..]), (47, &[8, 0, 0x45][..], &b"hello"[..]));
            assert_eq!((from.sll_pkttype, from.sll_hatype, from.sll_halen, from.sll_ifindex), (kind, 772, 6, 1));
            assert_eq!(u16::from_be(from.sll_protocol), 0x800);
        }
    }

    fn a_datagram_socket_gets_no_link_header() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let fd = watching(libc::SOCK_DGRAM, port);
        ok!(set(&fd, SOL_PACKET, 23, 1));
        server.send_to(b"hi", ("127.0.0.1", port)).unwrap();
        let (bytes, from) = receive(&fd);
        assert_eq!((bytes.len(), bytes[0], from.sll_pkttype), (30, 0x45, libc::PACKET_HOST));
    }

    fn a_frame_that_is_sent_is_seen() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let ip = datagram([127, 0, 0, 1], [127, 0, 0, 1], (9, port), b"made by hand");
        let watcher = watching(libc::SOCK_RAW, port);
        let fd = packet(libc::SOCK_RAW, 0);
        let mut frame = vec![0; 12];
        frame.extend([8, 0]);
        frame.extend(&ip);
        let mut to = loopback(0x800);
        let size = size_of::<libc::sockaddr_ll>() as u32;
        let send = |bytes: &[u8], to: &libc::sockaddr_ll| unsafe {
            libc::sendto(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0, (&raw const *to).cast(), size)
        };
        assert_eq!(ok!(send(&frame, &to)), frame.len() as isize);
        // The receiver drops it: it cannot know that it is from this machine.
        for kind in [libc::PACKET_OUTGOING, libc::PACKET_HOST] {
            let (bytes, from) = receive(&watcher);
            assert_eq!((&bytes[14..], from.sll_pkttype), (&ip[..], kind));
        }
        err!(send(&frame[..10], &to), libc::EINVAL);
        to.sll_ifindex = 0;
        err!(send(&frame, &to), libc::ENXIO);
        let cooked = packet(libc::SOCK_DGRAM, 0);
        let to = loopback(0x800);
        let sent = unsafe {
            libc::sendto(cooked.as_raw_fd(), ip.as_ptr().cast(), ip.len(), 0, (&raw const to).cast(), size)
        };
        assert_eq!(sent, ip.len() as isize);
        assert_eq!(receive(&watcher).0[14..], ip);
    }

    fn what_a_packet_socket_cannot_do() {
        let fd = packet(libc::SOCK_RAW, ALL);
        let size = size_of::<libc::sockaddr_ll>();
        let mut to = loopback(ALL);
        err!(bind(&fd, &to, size - 1), libc::EINVAL);
        to.sll_ifindex = 99999;
        err!(bind(&fd, &to, size), libc::ENODEV);
        to.sll_family = libc::AF_INET as u16;
        err!(bind(&fd, &to, size), libc::EINVAL);
        let to = loopback(ALL);
        err!(libc::connect(fd.as_raw_fd(), (&raw const to).cast(), size as u32), libc::EOPNOTSUPP);
        err!(libc::listen(fd.as_raw_fd(), 1), libc::EOPNOTSUPP);
        err!(libc::shutdown(fd.as_raw_fd(), 2), libc::EOPNOTSUPP);
        err!(libc::socket(libc::AF_PACKET, libc::SOCK_STREAM, 0), libc::ESOCKTNOSUPPORT);
        ok!(bind(&fd, &to, size));
        let mut own: libc::sockaddr_ll = unsafe { zeroed() };
        let mut len = size as u32;
        ok!(libc::getsockname(fd.as_raw_fd(), (&raw mut own).cast(), &mut len));
        assert_eq!((len, own.sll_ifindex, own.sll_halen, own.sll_hatype), (18, 1, 6, 772));
        become_nobody();
        err!(libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0), libc::EPERM);
    }

    fn filters_are_checked_and_locked() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let fd = &socket;
        let none: i32 = 0;
        let detach = || unsafe {
            libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_DETACH_FILTER, (&raw const none).cast(), 4)
        };
        err!(detach(), libc::ENOENT);
        err!(try_attach(fd, &[]), libc::EINVAL);
        err!(try_attach(fd, &[step(0, 0, 0, 1)]), libc::EINVAL);
        err!(try_attach(fd, &[step(0x34, 0, 0, 0), step(6, 0, 0, 0)]), libc::EINVAL);
        err!(try_attach(fd, &[step(0x05, 0, 0, 7), step(6, 0, 0, 0)]), libc::EINVAL);
        err!(try_attach(fd, &[step(0x60, 0, 0, 0), step(6, 0, 0, 0)]), libc::EINVAL);
        // The first byte of the data has to be a 7: it comes after the UDP header.
        attach(fd, &[step(0x30, 0, 0, 8), step(0x15, 0, 1, 7), step(6, 0, 0, u32::MAX), step(6, 0, 0, 0)]);
        let to = socket.local_addr().unwrap();
        socket.send_to(&[1, 2], to).unwrap();
        socket.send_to(&[7, 8], to).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(socket.recv(&mut buffer).unwrap(), 2);
        assert_eq!(buffer[0], 7);
        let mut len = 0u32;
        ok!(libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, 26, std::ptr::null_mut(), &mut len));
        assert_eq!(len, 4);
        ok!(set(fd, libc::SOL_SOCKET, libc::SO_LOCK_FILTER, 1));
        err!(detach(), libc::EPERM);
        err!(set(fd, libc::SOL_SOCKET, libc::SO_LOCK_FILTER, 0), libc::EPERM);
        err!(try_attach(fd, &[step(6, 0, 0, 0)]), libc::EPERM);
    }

    fn a_ring_shares_packets() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let fd = packet(libc::SOCK_RAW, 0);
        attach(&fd, &udp_to(port, 14));
        ok!(set(&fd, SOL_PACKET, 10, 1));
        let ring = |words: [u32; 4]| unsafe {
            libc::setsockopt(fd.as_raw_fd(), SOL_PACKET, 5, words.as_ptr().cast(), 16)
        };
        err!(ring([4097, 1, 2048, 2]), libc::EINVAL);
        err!(ring([4096, 1, 2048, 3]), libc::EINVAL);
        err!(ring([4096, 1, 16, 256]), libc::EINVAL);
        ok!(ring([4096, 2, 2048, 4]));
        err!(ring([4096, 2, 2048, 4]), libc::EBUSY);
        err!(set(&fd, SOL_PACKET, 10, 0), libc::EBUSY);
        let memory = unsafe { libc::mmap(std::ptr::null_mut(), 8192, 3, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        assert_ne!(memory, libc::MAP_FAILED);
        ok!(bind(&fd, &loopback(ALL), size_of::<libc::sockaddr_ll>()));
        server.send_to(b"ring", ("127.0.0.1", port)).unwrap();
        let mut one = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        assert_eq!(ok!(libc::poll(&mut one, 1, 3000)), 1);
        let word = |at: usize| unsafe { memory.cast::<u8>().add(at).cast::<u32>().read_volatile() };
        assert_eq!((word(0) & 1, word(4), word(8)), (1, 46, 46));
        let start = (word(12) & 0xffff) as usize;
        let bytes = unsafe { std::slice::from_raw_parts(memory.cast::<u8>().add(start), 46) };
        assert_eq!((&bytes[12..15], &bytes[42..]), (&[8, 0, 0x45][..], &b"ring"[..]));
        until(|| word(2048) & 1 == 1);
        for _ in 0..3 {
            server.send_to(b"more", ("127.0.0.1", port)).unwrap();
        }
        let mut counts = [0u32; 2];
        let mut len = 8u32;
        until(|| {
            let mut now = [0u32; 2];
            ok!(libc::getsockopt(fd.as_raw_fd(), SOL_PACKET, 6, now.as_mut_ptr().cast(), &mut len));
            counts = [counts[0] + now[0], counts[1] + now[1]];
            counts[0] == 8
        });
        assert_eq!(counts[1], 4, "four found no frame");
        ok!(libc::munmap(memory, 8192));
    }

    fn diag_shows_a_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut request = vec![2u8, 6, 0, 0];
        request.extend((1u32 << 10).to_ne_bytes());
        request.extend([0; 48]);
        // Bytecode: a source port of at least and at most this.
        let (low, high) = (port.to_ne_bytes(), port.to_ne_bytes());
        let code = [2, 8, 20, 0, 0, 4, low[0], low[1], 3, 8, 12, 0, 0, 4, high[0], high[1]];
        request.extend([20, 0, 1, 0]);
        request.extend(code);
        let answer = netlink(4, 20, 0x300, &request);
        assert_eq!((answer[16], answer[17]), (2, 10), "state LISTEN");
        assert_eq!(&answer[20..22], &port.to_be_bytes());
        let first = u32::from_ne_bytes([answer[0], answer[1], answer[2], answer[3]]) as usize;
        assert_eq!(u16::from_ne_bytes([answer[first + 4], answer[first + 5]]), 3, "the only one");
    }

    fn headers_of_rings_have_the_size_of_their_version() {
        const HDRLEN: i32 = 11;
        let fd = packet(libc::SOCK_RAW, 0);
        let size = |version: i32| {
            let (mut value, mut len) = (version, 4u32);
            let result =
                unsafe { libc::getsockopt(fd.as_raw_fd(), SOL_PACKET, HDRLEN, (&raw mut value).cast(), &mut len) };
            if result == 0 { value } else { -errno() }
        };
        assert_eq!([size(0), size(1), size(2), size(3)], [32, 32, 48, -libc::EINVAL]);
    }

    fn requests_for_links_that_are_wrong() {
        let link = |index: u32| {
            let mut body = vec![0; 4];
            body.extend(index.to_ne_bytes());
            body.extend([0; 8]);
            body
        };
        assert_eq!(netlink_error(0, 16, 0, &link(0)), libc::ENODEV);
        assert_eq!(netlink_error(0, 18, 0, &link(99999)), libc::ENODEV);
        assert_eq!(netlink_error(0, 17, 0, &link(1)), libc::EOPNOTSUPP);
        assert_eq!(netlink_error(0, 16, 0x600, &link(1)), libc::EEXIST);
        let mut unknown = link(0);
        // IFLA_LINKINFO with IFLA_INFO_KIND "nothing".
        unknown.extend([16, 0, 18, 0, 12, 0, 1, 0]);
        unknown.extend(b"nothing\0");
        assert_eq!(netlink_error(0, 16, 0x600, &unknown), libc::EOPNOTSUPP);
        become_nobody();
        assert_eq!(netlink_error(0, 16, 0, &link(1)), libc::EPERM);
    }

    fn the_local_table_has_the_loopback_network() {
        let mut body = vec![2u8, 0, 0, 0, 255, 0, 0, 0, 0, 0, 0, 0];
        body.resize(12, 0);
        let answer = netlink(0, 26, 0x300, &body);
        let mut found = false;
        let mut at = 0;
        while at + 28 <= answer.len() {
            let len = u32::from_ne_bytes(answer[at..at + 4].try_into().unwrap()) as usize;
            let message = &answer[at..at + len];
            // A local route of 8 bits by the kernel in table 255, to 127.0.0.0.
            let net = message.windows(8).any(|w| w == [8, 0, 1, 0, 127, 0, 0, 0]);
            found |= message[4] == 24 && message[17] == 8 && message[20] == 255 && message[23] == 2 && net;
            at += len.next_multiple_of(4);
        }
        assert!(found);
    }

    fn a_tun_interface_carries_packets() {
        let tun = open("/dev/net/tun", libc::O_RDWR | libc::O_NONBLOCK);
        let mut byte = [0u8; 1];
        err!(libc::read(tun.as_raw_fd(), byte.as_mut_ptr().cast(), 1), libc::EBADFD);
        let mut request: libc::ifreq = unsafe { zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(b"qtun%d") {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = 0x1001;
        ok!(libc::ioctl(tun.as_raw_fd(), 0x4004_54ca, &mut request));
        err!(libc::ioctl(tun.as_raw_fd(), 0x4004_54ca, &mut request), libc::EEXIST);
        let packet = datagram([10, 213, 7, 2], [10, 213, 7, 1], (5000, 6000), b"through");
        err!(libc::write(tun.as_raw_fd(), packet.as_ptr().cast(), packet.len()), libc::EIO);
        let control = own(ok!(libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)));
        let mut address: libc::sockaddr_in = unsafe { zeroed() };
        address.sin_family = 2;
        address.sin_addr.s_addr = u32::from_ne_bytes([10, 213, 7, 1]);
        request.ifr_ifru.ifru_addr = unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(address) };
        ok!(libc::ioctl(control.as_raw_fd(), libc::SIOCSIFADDR, &mut request));
        // A point-to-point link has one address, unless a mask is set.
        address.sin_addr.s_addr = u32::from_ne_bytes([255, 255, 255, 0]);
        request.ifr_ifru.ifru_addr = unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(address) };
        ok!(libc::ioctl(control.as_raw_fd(), libc::SIOCSIFNETMASK, &mut request));
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
        ok!(libc::ioctl(control.as_raw_fd(), libc::SIOCSIFFLAGS, &mut request));
        let socket = UdpSocket::bind("10.213.7.1:6000").unwrap();
        assert_eq!(ok!(libc::write(tun.as_raw_fd(), packet.as_ptr().cast(), packet.len())), packet.len() as isize);
        let mut buffer = [0; 64];
        let (n, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..n], from.to_string()), (&b"through"[..], "10.213.7.2:5000".into()));
        socket.send_to(b"back", from).unwrap();
        let mut seen = Vec::new();
        until(|| {
            let mut packet = [0u8; 2048];
            let n = unsafe { libc::read(tun.as_raw_fd(), packet.as_mut_ptr().cast(), packet.len()) };
            seen = packet[..n.max(0) as usize].to_vec();
            seen.len() == 32 && seen[0] == 0x45
        });
        assert_eq!((&seen[12..20], &seen[28..]), (&[10, 213, 7, 1, 10, 213, 7, 2][..], &b"back"[..]));
        assert_eq!(checksum(&seen[..20]), 0);
        let bad = [0u8; 40];
        err!(libc::write(tun.as_raw_fd(), bad.as_ptr().cast(), bad.len()), libc::EINVAL);
    }

    fn errors_queue_with_what_caused_them() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        ok!(set(&socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1));
        assert_eq!(failure(&socket), Err(libc::EAGAIN));
        socket.send_to(b"nobody", closed).unwrap();
        let mut one = libc::pollfd { fd: socket.as_raw_fd(), events: 0, revents: 0 };
        assert_eq!(ok!(libc::poll(&mut one, 1, 3000)), 1);
        assert_eq!(one.revents, libc::POLLERR);
        let (payload, to, kind, data) = failure(&socket).unwrap();
        assert_eq!((&payload[..], to, kind), (&b"nobody"[..], closed.port(), (0, libc::IP_RECVERR)));
        // ECONNREFUSED by ICMP 3/3, and who said so.
        assert_eq!(data[..8], [111, 0, 0, 0, 2, 3, 3, 0]);
        assert_eq!((data[16], &data[20..24], data.len()), (2, &[127, 0, 0, 1][..], 32));
        // The pending error went with the message.
        one.revents = 0;
        assert_eq!(ok!(libc::poll(&mut one, 1, 0)), 0);
        socket.send_to(b"again", closed).unwrap();
        let mut buffer = [0; 8];
        let error = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), 8, 0) };
        assert_eq!((error, errno()), (-1, libc::ECONNREFUSED));
        assert_eq!(failure(&socket).unwrap().0, b"again");
        // Too large to be sent whole.
        ok!(set(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO));
        let large = vec![0; 65_507];
        let to = "127.0.0.1:9".parse::<std::net::SocketAddr>().unwrap();
        assert!(socket.send_to(&large, to).is_ok());
    }

    fn times_of_sending_and_receiving() {
        const RX: i32 = 8;
        const TX: i32 = 2;
        const SOFTWARE: i32 = 0x10;
        const OPT_ID: i32 = 0x80;
        const TSONLY: i32 = 0x800;
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = socket.local_addr().unwrap();
        err!(set(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, 1 << 30), libc::EINVAL);
        ok!(set(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, RX | TX | SOFTWARE | OPT_ID | TSONLY));
        let mut number = 0u32;
        // Linux begins to stamp what is received a moment after it was asked to.
        until(|| {
            socket.send_to(b"now", to).unwrap();
            let (payload, _, kind, data) = failure(&socket).unwrap();
            assert_eq!((payload.len(), kind), (0, (0, libc::IP_RECVERR)));
            // ENOMSG, SO_EE_ORIGIN_TIMESTAMPING, and the message's number.
            assert_eq!((data[0], data[4], &data[12..16]), (42, 4, &number.to_ne_bytes()[..]));
            number += 1;
            let (bytes, _, kind, data) = message(&socket, 0).unwrap();
            assert_eq!(bytes, b"now");
            number > 1 && kind == (libc::SOL_SOCKET, libc::SO_TIMESTAMPING) && data[..8] != [0; 8]
        });
    }

    fn a_datagram_socket_reads_behind_ethernet() {
        let (tap, name) = tap_interface(9);
        let index = ok!(libc::if_nametoindex(c(&name).as_ptr()) as i32);
        let fd = packet(libc::SOCK_DGRAM, 0);
        let mut address = loopback(0x800);
        address.sll_ifindex = index;
        ok!(bind(&fd, &address, size_of::<libc::sockaddr_ll>()));
        let ip = datagram([10, 214, 9, 9], [10, 214, 9, 1], (7, 9), &[5; 300]);
        let mut frame = vec![0xff; 6];
        frame.extend([2, 0, 0, 0, 0, 9, 8, 0]);
        frame.extend(&ip);
        assert_eq!(ok!(libc::write(tap.as_raw_fd(), frame.as_ptr().cast(), frame.len())), frame.len() as isize);
        let (bytes, from) = receive(&fd);
        assert_eq!(bytes, ip);
        assert_eq!((from.sll_pkttype, &from.sll_addr[..6]), (libc::PACKET_BROADCAST, &[2, 0, 0, 0, 0, 9][..]));
    }

    fn netlink_takes_requests_by_write() {
        let fd = own(ok!(libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, 0)));
        let mut request = [0u8; 32];
        (request[0], request[4], request[6], request[20]) = (32, 18, 1, 1);
        assert_eq!(ok!(libc::write(fd.as_raw_fd(), request.as_ptr().cast(), 32)), 32);
        let answer = read(&fd, 8192);
        assert_eq!((answer[4], answer[20]), (16, 1));
    }
}

/// A message: its bytes, the port of its address, and the level, type and data of its last control message.
type Message = (Vec<u8>, u16, (i32, i32), Vec<u8>);

fn failure(socket: &impl AsRawFd) -> Result<Message, i32> {
    message(socket, libc::MSG_ERRQUEUE)
}

fn message(socket: &impl AsRawFd, flags: i32) -> Result<Message, i32> {
    let (mut bytes, mut control) = (vec![0u8; 2048], vec![0u64; 64]);
    let mut from: libc::sockaddr_in = unsafe { zeroed() };
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_name = (&raw mut from).cast();
    header.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
    (header.msg_iov, header.msg_iovlen) = (&mut part, 1);
    (header.msg_control, header.msg_controllen) = (control.as_mut_ptr().cast(), 512);
    let n = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, flags) };
    if n < 0 {
        return Err(errno());
    }
    assert_eq!(header.msg_flags & libc::MSG_ERRQUEUE, flags);
    bytes.truncate(n as usize);
    let raw: Vec<u8> =
        control.iter().flat_map(|word| word.to_ne_bytes()).take(header.msg_controllen as usize).collect();
    let mut last = ((0, 0), Vec::new());
    let mut rest = &raw[..];
    while rest.len() >= 16 {
        let len = usize::from_ne_bytes(rest[..8].try_into().unwrap());
        let word = |at: usize| i32::from_ne_bytes(rest[at..at + 4].try_into().unwrap());
        last = ((word(8), word(12)), rest[16..len].to_vec());
        rest = rest.get(len.next_multiple_of(8)..).unwrap_or_default();
    }
    Ok((bytes, u16::from_be(from.sin_port), last.0, last.1))
}
