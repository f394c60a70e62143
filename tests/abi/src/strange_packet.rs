//! Packets that are malformed in every layer, written to a tap interface: the machine has to survive them.

use crate::packet_socket::{checksum, datagram};
use crate::sys::*;
use std::mem::zeroed;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

cases! {
    fn strange_packets_do_no_harm() {
        let (tap, name) = tap_interface(8);
        let _listeners = (TcpListener::bind("0.0.0.0:4321").unwrap(), UdpSocket::bind("0.0.0.0:4321").unwrap());
        let seed = std::env::var("QUINTET_PACKET_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
        let seconds: u64 = std::env::var("QUINTET_PACKET_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(3);
        let mut random = Random(seed);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
        while std::time::Instant::now() < end {
            for _ in 0..100 {
                let frame = strange_frame(&mut random);
                // What is malformed may be refused.
                let _ = unsafe { libc::write(tap.as_raw_fd(), frame.as_ptr().cast(), frame.len()) };
            }
            let mut answer = [0u8; 2048];
            while unsafe { libc::read(tap.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len()) } > 0 {}
        }
        // The machine still works.
        let (one, other) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        one.send_to(b"alive", other.local_addr().unwrap()).unwrap();
        assert_eq!(other.recv(&mut [0; 9]).unwrap(), 5);
        assert!(std::fs::read_to_string("/proc/net/dev").unwrap().contains(&name));
    }
}

/// A tap interface with the address 10.214.N.1/24 that is up, and its name. Cases that run side by side take different numbers.
pub(crate) fn tap_interface(network: u8) -> (OwnedFd, String) {
    let tap = open("/dev/net/tun", libc::O_RDWR | libc::O_NONBLOCK);
    let mut request: libc::ifreq = unsafe { zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"qtap%d") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = 0x1002;
    ok!(libc::ioctl(tap.as_raw_fd(), 0x4004_54ca, &mut request));
    let name: String = request.ifr_name.iter().take_while(|c| **c != 0).map(|c| *c as u8 as char).collect();
    let control = own(ok!(libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)));
    let mut set = |ip: [u8; 4], what: libc::c_ulong| {
        let mut address: libc::sockaddr_in = unsafe { zeroed() };
        address.sin_family = 2;
        address.sin_addr.s_addr = u32::from_ne_bytes(ip);
        request.ifr_ifru.ifru_addr = unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(address) };
        ok!(libc::ioctl(control.as_raw_fd(), what as _, &mut request));
    };
    set([10, 214, network, 1], libc::SIOCSIFADDR as _);
    set([255, 255, 255, 0], libc::SIOCSIFNETMASK as _);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    ok!(libc::ioctl(control.as_raw_fd(), libc::SIOCSIFFLAGS as _, &mut request));
    (tap, name)
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn byte(&mut self) -> u8 {
        self.next() as u8
    }
}

/// A frame that is right in most of its fields and wrong in some.
fn strange_frame(random: &mut Random) -> Vec<u8> {
    let group = random.below(4) == 0;
    let mut frame = if group { vec![0xff; 6] } else { vec![0x33, 0x33, 0, 0, 0, 1] };
    frame.extend([2, 0, 0, 0, 0, random.byte()]);
    if random.below(8) == 0 {
        frame.extend([0x81, 0, 0, random.byte()]);
    }
    match random.below(8) {
        0 => {
            frame.extend([
                8,
                6,
                0,
                1,
                8,
                0,
                6,
                4,
                0,
                1 + random.byte() % 2,
                2,
                0,
                0,
                0,
                0,
                9,
                10,
                214,
                8,
                random.byte(),
            ]);
            frame.extend([0, 0, 0, 0, 0, 0, 10, 214, 8, 1]);
        }
        1..=4 => ipv4(random, &mut frame),
        _ => ipv6(random, &mut frame),
    }
    for _ in 0..random.below(3) {
        let at = random.below(frame.len() as u64) as usize;
        frame[at] = random.byte();
    }
    if random.below(6) == 0 {
        frame.truncate(random.below(frame.len() as u64 + 1) as usize);
    }
    frame
}

fn transport(random: &mut Random, v6: bool) -> (u8, Vec<u8>) {
    let mut data = Vec::new();
    let port = 4321u16.to_be_bytes();
    let kind = match random.below(5) {
        0 | 1 => {
            data.extend([0x10, random.byte(), port[0], port[1]]);
            data.extend((0..8).map(|_| random.byte()));
            let words = 5 + random.below(11) as u8;
            data.extend([words << 4, random.byte() & 0x3f, 0xff, 0xff, 0, 0, 0, 0]);
            // Options: kinds and lengths that often make sense.
            data.extend((5..words).flat_map(|_| [random.byte() % 9, random.byte() % 12, random.byte(), random.byte()]));
            6
        }
        2 => {
            data.extend([0x10, 1, port[0], port[1], 0, random.byte() % 64, 0, 0]);
            17
        }
        3 if v6 => {
            let kinds = [128, 129, 1, 2, 3, 4, 133, 134, 135, 136, 137, 143];
            data.extend([kinds[random.below(12) as usize], 0, 0, 0, 0, 0, random.byte(), random.byte()]);
            58
        }
        3 => {
            let kinds = [0, 8, 3, 5, 11, 12, 13];
            data.extend([kinds[random.below(7) as usize], random.byte() % 6, 0, 0, 0, 0, random.byte(), random.byte()]);
            1
        }
        _ => random.byte(),
    };
    data.extend((0..random.below(100)).map(|_| random.byte()));
    (kind, data)
}

fn ipv4(random: &mut Random, frame: &mut Vec<u8>) {
    let (kind, mut data) = transport(random, false);
    if kind == 1 && data.len() >= 8 && data[0] != 8 {
        // Errors quote a packet that could have been ours.
        data.truncate(8);
        data.extend(datagram([10, 214, 8, 1], [10, 214, 8, 7], (4321, 9), b"quoted"));
    }
    if kind == 1 && data.len() >= 4 && random.below(3) > 0 {
        data[2..4].fill(0);
        let sum = checksum(&data);
        data[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    let words = if random.below(4) == 0 { 5 + random.below(11) as usize } else { 5 };
    let total = words * 4 + data.len();
    let mut ip =
        vec![0x40 | words as u8, random.byte(), (total >> 8) as u8, total as u8, 0, random.byte() % 4, 0, 0, 64, kind];
    if random.below(3) == 0 {
        // A piece of something.
        ip[6] = random.byte() & 0x3f;
        ip[7] = random.byte();
    }
    ip.extend([0, 0, 10, 214, 8, 2 + random.byte() % 8, 10, 214, 8, if random.below(8) == 0 { 255 } else { 1 }]);
    ip.extend((20..words * 4).map(|_| random.byte()));
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend([8, 0]);
    frame.extend(ip);
    frame.extend(data);
}

fn ipv6(random: &mut Random, frame: &mut Vec<u8>) {
    let (mut kind, data) = transport(random, true);
    let mut extensions = Vec::new();
    for _ in 0..random.below(4) {
        let next = [0, 43, 44, 60][random.below(4) as usize];
        let header = match next {
            44 => vec![kind, 0, random.byte(), random.byte(), 0, 0, 0, random.byte() % 4],
            _ => {
                let units = random.below(3) as u8;
                let mut header = vec![kind, units];
                header.extend((2..8 + 8 * usize::from(units)).map(|_| random.byte() % 8));
                header
            }
        };
        extensions.splice(0..0, header);
        kind = next;
    }
    let len = extensions.len() + data.len();
    frame.extend([
        0x86,
        0xdd,
        0x60,
        0,
        0,
        0,
        (len >> 8) as u8,
        len as u8,
        kind,
        if random.below(2) == 0 { 255 } else { 1 },
    ]);
    frame.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, random.byte()]);
    frame.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    frame.extend(extensions);
    frame.extend(data);
}
