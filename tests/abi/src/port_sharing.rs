//! Programs and groups that choose among sockets: SO_ATTACH_REUSEPORT_CBPF, and PACKET_FANOUT with what is rolled over.

use crate::sys::*;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, OwnedFd};

const SO_ATTACH_REUSEPORT_CBPF: i32 = 51;
const SO_DETACH_REUSEPORT_BPF: i32 = 68;

fn option(fd: &OwnedFd, name: i32, value: i32) -> i32 {
    unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, name, (&raw const value).cast(), 4) }
}

fn program(fd: &OwnedFd, steps: &[(u16, u32)]) -> i32 {
    let steps: Vec<_> = steps.iter().map(|&(code, k)| libc::sock_filter { code, jt: 0, jf: 0, k }).collect();
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_ptr().cast_mut() };
    let (raw, len) = ((&raw const program).cast(), size_of::<libc::sock_fprog>() as u32);
    unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, raw, len) }
}

/// A socket that shares its port.
fn sharing(kind: i32) -> OwnedFd {
    let fd = own(ok!(libc::socket(libc::AF_INET, kind, 0)));
    ok!(option(&fd, libc::SO_REUSEPORT, 1));
    fd
}

fn bind(fd: &OwnedFd, port: u16) -> i32 {
    let mut at: libc::sockaddr_in = unsafe { zeroed() };
    (at.sin_family, at.sin_port, at.sin_addr.s_addr) = (libc::AF_INET as u16, port.to_be(), 0x0100_007f);
    unsafe { libc::bind(fd.as_raw_fd(), (&raw const at).cast(), size_of::<libc::sockaddr_in>() as u32) }
}

fn port(fd: &OwnedFd) -> u16 {
    let mut at: libc::sockaddr_in = unsafe { zeroed() };
    let mut len = size_of::<libc::sockaddr_in>() as u32;
    ok!(libc::getsockname(fd.as_raw_fd(), (&raw mut at).cast(), &mut len));
    u16::from_be(at.sin_port)
}

/// Sockets at one port of the system's choice.
fn group(kind: i32, count: usize) -> (Vec<OwnedFd>, u16) {
    let first = sharing(kind);
    ok!(bind(&first, 0));
    let port = port(&first);
    let mut all = vec![first];
    for _ in 1..count {
        let fd = sharing(kind);
        ok!(bind(&fd, port));
        all.push(fd);
    }
    (all, port)
}

/// Which of the sockets has something to read.
fn ready(all: &[OwnedFd]) -> usize {
    let mut polled: Vec<_> =
        all.iter().map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }).collect();
    assert_eq!(ok!(libc::poll(polled.as_mut_ptr(), polled.len() as u64, 3000)), 1);
    polled.iter().position(|one| one.revents != 0).unwrap()
}

/// Which of the sockets gets a datagram with this number.
fn taker(all: &[OwnedFd], port: u16, number: u32) -> usize {
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.send_to(&number.to_be_bytes(), ("127.0.0.1", port)).unwrap();
    let at = ready(all);
    read(&all[at], 16);
    at
}

/// `A = word 0; A %= k; return A`.
fn modulo(k: u32) -> [(u16, u32); 3] {
    [(0x20, 0), (0x94, k), (0x16, 0)]
}

/// `return k`.
fn always(k: u32) -> [(u16, u32); 1] {
    [(0x06, k)]
}

cases! {
    fn a_program_chooses_who_gets_a_datagram() {
        let (all, port) = group(libc::SOCK_DGRAM, 4);
        ok!(program(&all[2], &modulo(4)));
        for number in 0..8 {
            assert_eq!(taker(&all, port, number), number as usize % 4);
        }
        // The program is the group's, whoever set it.
        ok!(program(&all[0], &modulo(2)));
        assert_eq!([6, 7].map(|number| taker(&all, port, number)), [0, 1]);
        // One that names nobody leaves the choice to the hash.
        ok!(program(&all[0], &always(4)));
        taker(&all, port, 1);
        let mut all = all;
        ok!(program(&all[3], &always(1)));
        drop(all.pop());
        assert_eq!(taker(&all, port, 1), 1);
        ok!(option(&all[1], SO_DETACH_REUSEPORT_BPF, 0));
        err!(option(&all[0], SO_DETACH_REUSEPORT_BPF, 0), libc::ENOENT);
    }

    fn a_program_chooses_a_listener() {
        let (all, port) = group(libc::SOCK_STREAM, 3);
        for fd in &all {
            ok!(libc::listen(fd.as_raw_fd(), 5));
        }
        for chosen in [1, 2, 0, 1] {
            ok!(program(&all[0], &always(chosen)));
            let _client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
            let at = ready(&all);
            assert_eq!(at, chosen as usize);
            drop(own(ok!(libc::accept(all[at].as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut()))));
        }
    }

    fn who_may_have_a_program() {
        let alone = own(ok!(libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)));
        err!(program(&alone, &modulo(2)), libc::EINVAL);
        err!(option(&alone, SO_DETACH_REUSEPORT_BPF, 0), libc::EINVAL);
        ok!(bind(&alone, 0));
        // Its port is not shared any more.
        ok!(option(&alone, libc::SO_REUSEPORT, 1));
        err!(program(&alone, &modulo(2)), libc::EINVAL);
        err!(option(&alone, SO_DETACH_REUSEPORT_BPF, 0), libc::ENOENT);

        let (all, port) = group(libc::SOCK_DGRAM, 1);
        err!(program(&all[0], &[(0x16, 0), (0x20, 0)]), libc::EINVAL);
        let late = sharing(libc::SOCK_DGRAM);
        ok!(program(&late, &modulo(2)));
        err!(bind(&late, port), libc::EADDRINUSE);
        ok!(bind(&late, 0));
        ok!(option(&late, libc::SO_LOCK_FILTER, 1));
        err!(program(&late, &modulo(2)), libc::EPERM);
    }

    fn a_full_packet_socket_rolls_over() {
        const PACKET_FANOUT: i32 = 18;
        const ROLLOVER_STATS: i32 = 21;
        const SOL_PACKET: i32 = 263;
        const ROLLOVER: i32 = 3;
        const FLAG: i32 = 0x1000;
        let id = std::process::id() as i32 & 0xffff;
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let wanted = u32::from(udp.local_addr().unwrap().port());
        // UDP to the port, which lies behind a header of 20 bytes.
        let steps = [(0x28, 0, 0, 22), (0x15, 0, 1, wanted), (0x06, 0, 0, 0xffff), (0x06, 0, 0, 0)];
        let steps = steps.map(|(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k });
        let filter = libc::sock_fprog { len: 4, filter: steps.as_ptr().cast_mut() };
        let open = || {
            let fd = own(ok!(libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM, 8)));
            let (raw, len) = ((&raw const filter).cast(), size_of::<libc::sock_fprog>() as u32);
            ok!(libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, raw, len));
            ok!(option(&fd, libc::SO_RCVBUF, 40_000));
            fd
        };
        let join = |fd: &OwnedFd, kind: i32| {
            let value = kind << 16 | id;
            unsafe { libc::setsockopt(fd.as_raw_fd(), SOL_PACKET, PACKET_FANOUT, (&raw const value).cast(), 4) }
        };
        let statistics = |fd: &OwnedFd| {
            let (mut value, mut len) = ([0u64; 3], 24);
            let raw = value.as_mut_ptr().cast();
            let done = unsafe { libc::getsockopt(fd.as_raw_fd(), SOL_PACKET, ROLLOVER_STATS, raw, &mut len) };
            (done, value)
        };
        let all = [open(), open()];
        err!(statistics(&all[0]).0, libc::EINVAL);
        err!(join(&all[0], ROLLOVER | FLAG), libc::EINVAL);
        ok!(join(&all[0], ROLLOVER));
        err!(join(&all[1], FLAG), libc::EINVAL);
        ok!(join(&all[1], ROLLOVER));
        for _ in 0..100 {
            udp.send_to(&[1; 1000], udp.local_addr().unwrap()).unwrap();
            udp.recv(&mut [0; 1000]).unwrap();
        }
        let count = |fd: &OwnedFd| {
            set_nonblocking(fd);
            let mut bytes = [0u8; 2048];
            let mut next = || unsafe { libc::read(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), 2048) };
            (0..1000).take_while(|_| next() > 0).count()
        };
        let counts = [count(&all[0]), count(&all[1])];
        assert!(counts[0] > 5 && counts[1] > 5, "{counts:?}");
        let (_, [rolled, _, failed]) = statistics(&all[0]);
        assert!(rolled > 5 && failed > 5, "{rolled} {failed}");
    }
}
