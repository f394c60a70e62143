//! The network layer: groups, and who is a member on which interface and from which sources (ip(7), RFC 3678); options of headers; the settings of
//! interfaces.

use crate::packet_socket::checksum;
use crate::strange_packet::tap_interface;
use crate::sys::*;
use std::mem::size_of;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;

const ADD: i32 = 35;
const DROP: i32 = 36;
const UNBLOCK_SOURCE: i32 = 37;
const BLOCK_SOURCE: i32 = 38;
const ADD_SOURCE: i32 = 39;
const DROP_SOURCE: i32 = 40;
const MULTICAST_ALL: i32 = 49;
const GROUP: [u8; 4] = [239, 7, 7, 7];
const LO: [u8; 4] = [127, 0, 0, 1];

fn set<T>(socket: &UdpSocket, level: i32, name: i32, value: &T) -> i32 {
    unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), size_of::<T>() as u32)
    }
}

/// IFA_F_*.
const DAD_FAILED: u32 = 8;
const TENTATIVE: u32 = 0x40;
const PERMANENT: u32 = 0x80;

/// The IPv6 address of an interface and its flags, as /proc/net/if_inet6 shows them.
fn v6_address(interface: &str) -> (String, u32) {
    let table = std::fs::read_to_string("/proc/net/if_inet6").unwrap();
    let line = table.lines().find(|line| line.ends_with(&format!(" {interface}"))).unwrap_or_else(|| panic!("{table}"));
    let fields: Vec<&str> = line.split_whitespace().collect();
    (fields[0].to_owned(), u32::from_str_radix(fields[4], 16).unwrap())
}

/// The address that somebody without an address asks for, in the frames that come out of a tap interface.
fn wanted_address(tap: &impl AsRawFd) -> [u8; 16] {
    loop {
        let mut frame = [0u8; 2048];
        let n = unsafe { libc::read(tap.as_raw_fd(), frame.as_mut_ptr().cast(), frame.len()) };
        let asks = n >= 78 && frame[12..14] == [0x86, 0xdd] && frame[20] == 58 && frame[54] == 135;
        if asks && frame[22..38] == [0; 16] {
            assert_eq!(frame[21], 255);
            assert_eq!(frame[38..51], [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff]);
            // Among its options is no hardware address, which would be remembered.
            assert_ne!(frame.get(78), Some(&1));
            return frame[62..78].try_into().unwrap();
        }
        nap(1);
    }
}

/// Another machine says that it has an address.
fn advertisement(target: [u8; 16]) -> Vec<u8> {
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
    let mut message = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    message.extend(target);
    message.extend([2, 1]);
    message.extend(MAC);
    let everyone = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let pseudo = [&target[..], &everyone, &[0, 0, 0, message.len() as u8, 0, 0, 0, 58], &message].concat();
    let sum = checksum(&pseudo).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    let head = [0x60, 0, 0, 0, 0, message.len() as u8, 58, 255];
    [&[0x33, 0x33, 0, 0, 0, 1][..], &MAC, &[0x86, 0xdd], &head, &target, &everyone, &message].concat()
}

/// A socket that sends to groups by the loopback interface.
fn sender() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    ok!(set(&socket, 0, libc::IP_MULTICAST_IF, &LO));
    socket
}

fn receiver() -> (UdpSocket, u16) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

/// Does what is sent to the group arrive?
fn arrives(from: &UdpSocket, to: &UdpSocket, port: u16) -> bool {
    from.send_to(b"group", (Ipv4Addr::from(GROUP), port)).unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_millis(100);
    while std::time::Instant::now() < end {
        if to.recv(&mut [0; 9]).is_ok() {
            return true;
        }
        nap(1);
    }
    false
}

cases! {
    fn ipv6_has_counts_of_its_own() {
        let counts = || {
            let text = std::fs::read_to_string("/proc/net/snmp6").unwrap();
            let names = ["Ip6InReceives", "Ip6InOctets", "Ip6OutRequests", "Udp6InDatagrams", "Udp6NoPorts", "Icmp6OutDestUnreachs"];
            names.map(|name| {
                let line = text.lines().find(|line| line.split_whitespace().next() == Some(name)).expect(name);
                line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
            })
        };
        let before = counts();
        let socket = UdpSocket::bind("[::1]:0").unwrap();
        for _ in 0..20 {
            socket.send_to(&[0; 100], socket.local_addr().unwrap()).unwrap();
            socket.recv(&mut [0; 100]).unwrap();
        }
        let nobody = UdpSocket::bind("[::1]:0").unwrap().local_addr().unwrap();
        socket.connect(nobody).unwrap();
        socket.send(b"?").unwrap();
        assert!(socket.recv(&mut [0; 1]).is_err());
        let after = counts();
        let grown: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        let least = [22, 20 * 148, 22, 20, 1, 1];
        assert!(grown.iter().zip(least).all(|(grown, least)| *grown >= least), "{grown:?}");
        let text = std::fs::read_to_string("/proc/net/netstat").unwrap();
        assert!(text.lines().any(|line| line.starts_with("IpExt:") && line.contains(" InOctets ")));
    }

    fn the_filter_of_a_group_can_be_read() {
        const IP_MSFILTER: i32 = 41;
        const MCAST_MSFILTER: i32 = 48;
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let get = |name: i32, raw: &mut [u8]| {
            let mut len = raw.len() as u32;
            let at = raw.as_mut_ptr().cast();
            let result = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, name, at, &mut len) };
            (result, len)
        };
        let (group, own) = ([232, 1, 2, 77], [127, 0, 0, 1]);
        let source = |last: u8| [group, own, [10, 9, 8, last]].concat();
        for last in [1, 2, 3] {
            let raw = source(last);
            let (at, len) = (raw.as_ptr().cast(), raw.len() as u32);
            ok!(libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_ADD_SOURCE_MEMBERSHIP, at, len));
        }
        // Group, interface, mode, and how many sources there is room for.
        let mut raw = [[0; 4]; 6].concat();
        raw[..8].copy_from_slice(&[group, own].concat());
        raw[12] = 2;
        assert_eq!(get(IP_MSFILTER, &mut raw), (0, 24));
        assert_eq!(raw[8..16], [1, 0, 0, 0, 3, 0, 0, 0]);
        assert!(raw[16..].chunks(4).all(|source| source[..3] == [10, 9, 8] && (1..4).contains(&source[3])));
        err!(get(IP_MSFILTER, &mut raw[..15]).0, libc::EINVAL);
        raw[3] = 78;
        err!(get(IP_MSFILTER, &mut raw).0, libc::EADDRNOTAVAIL);
        raw[0] = 10;
        err!(get(IP_MSFILTER, &mut raw).0, libc::EINVAL);

        let mut raw = [0u8; 144 + 128];
        raw[0] = 1;
        raw[12..16].copy_from_slice(&group);
        raw[8] = libc::AF_INET as u8;
        raw[140] = 1;
        assert_eq!(get(MCAST_MSFILTER, &mut raw), (0, 144 + 128));
        assert_eq!(raw[136..144], [1, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!((raw[144], &raw[148..151]), (libc::AF_INET as u8, &[10, 9, 8][..]));
        raw[8] = libc::AF_INET6 as u8;
        err!(get(MCAST_MSFILTER, &mut raw).0, libc::EINVAL);
    }

    fn members_get_what_is_sent_to_their_group() {
        let (member, port) = receiver();
        let from = sender();
        ok!(set(&member, 0, MULTICAST_ALL, &0));
        assert!(!arrives(&from, &member, port));
        ok!(set(&member, 0, ADD, &[GROUP, LO]));
        err!(set(&member, 0, ADD, &[GROUP, LO]), libc::EADDRINUSE);
        assert!(arrives(&from, &member, port));
        ok!(set(&member, 0, DROP, &[GROUP, LO]));
        err!(set(&member, 0, DROP, &[GROUP, LO]), libc::EADDRNOTAVAIL);
        assert!(!arrives(&from, &member, port));
    }

    fn others_get_what_a_member_of_the_machine_gets() {
        let (member, _) = receiver();
        let (other, port) = receiver();
        ok!(set(&member, 0, ADD, &[GROUP, LO]));
        let from = sender();
        assert!(arrives(&from, &other, port), "IP_MULTICAST_ALL is on at first");
        ok!(set(&other, 0, MULTICAST_ALL, &0));
        assert!(!arrives(&from, &other, port));
    }

    fn sources_are_chosen_and_blocked() {
        let (member, port) = receiver();
        let from = sender();
        ok!(set(&member, 0, MULTICAST_ALL, &0));
        let elsewhere = [127, 0, 0, 9];
        ok!(set(&member, 0, ADD_SOURCE, &[GROUP, LO, elsewhere]));
        assert!(!arrives(&from, &member, port));
        ok!(set(&member, 0, ADD_SOURCE, &[GROUP, LO, LO]));
        err!(set(&member, 0, ADD_SOURCE, &[GROUP, LO, LO]), libc::EADDRNOTAVAIL);
        assert!(arrives(&from, &member, port));
        err!(set(&member, 0, BLOCK_SOURCE, &[GROUP, LO, LO]), libc::EINVAL);
        ok!(set(&member, 0, DROP_SOURCE, &[GROUP, LO, LO]));
        assert!(!arrives(&from, &member, port));
        // With its last source the membership ends.
        ok!(set(&member, 0, DROP_SOURCE, &[GROUP, LO, elsewhere]));
        err!(set(&member, 0, DROP_SOURCE, &[GROUP, LO, elsewhere]), libc::EINVAL);
        ok!(set(&member, 0, ADD, &[GROUP, LO]));
        ok!(set(&member, 0, BLOCK_SOURCE, &[GROUP, LO, LO]));
        assert!(!arrives(&from, &member, port));
        ok!(set(&member, 0, UNBLOCK_SOURCE, &[GROUP, LO, LO]));
        err!(set(&member, 0, UNBLOCK_SOURCE, &[GROUP, LO, LO]), libc::EADDRNOTAVAIL);
        assert!(arrives(&from, &member, port));
    }

    fn what_is_no_membership_is_refused() {
        let (member, _) = receiver();
        err!(set(&member, 0, ADD, &[[10, 0, 0, 1], LO]), libc::EINVAL);
        err!(set(&member, 0, ADD, &GROUP), libc::EINVAL);
        err!(set(&member, 0, ADD, &[GROUP, [10, 99, 98, 97]]), libc::ENODEV);
        err!(set(&member, 0, BLOCK_SOURCE, &[GROUP, LO, LO]), libc::EINVAL);
        for n in 0..20 {
            ok!(set(&member, 0, ADD, &[[239, 7, 8, n], LO]));
        }
        err!(set(&member, 0, ADD, &[[239, 7, 8, 99], LO]), libc::ENOBUFS);
        let stream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let result = unsafe {
            libc::setsockopt(stream.as_raw_fd(), 0, ADD, [GROUP, LO].as_ptr().cast(), 8)
        };
        err!(result, libc::EPROTO);
    }

    fn a_new_address_is_asked_for_first() {
        let (tap, name) = tap_interface(10);
        let (address, flags) = v6_address(&name);
        assert_eq!(flags, PERMANENT | TENTATIVE);
        let wanted = wanted_address(&tap);
        let hex: String = wanted.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, address);
        // It is nobody's yet.
        let scope = unsafe { libc::if_nametoindex(std::ffi::CString::new(name.as_str()).unwrap().as_ptr()) };
        let own = std::net::SocketAddrV6::new(wanted.into(), 0, 0, scope);
        assert_eq!(UdpSocket::bind(own).unwrap_err().raw_os_error(), Some(libc::EADDRNOTAVAIL));
        until(|| v6_address(&name).1 == PERMANENT);
        UdpSocket::bind(own).unwrap();
    }

    fn an_address_of_another_machine_is_not_used() {
        let (tap, name) = tap_interface(11);
        let frame = advertisement(wanted_address(&tap));
        assert_eq!(unsafe { libc::write(tap.as_raw_fd(), frame.as_ptr().cast(), frame.len()) }, frame.len() as isize);
        until(|| v6_address(&name).1 & DAD_FAILED != 0);
        nap(1500);
        assert_eq!(v6_address(&name).1, PERMANENT | TENTATIVE | DAD_FAILED);
    }

    fn groups_of_ipv6() {
        let receiver = UdpSocket::bind("[::]:0").unwrap();
        let group: std::net::Ipv6Addr = "ff02::7777".parse().unwrap();
        receiver.join_multicast_v6(&group, 1).unwrap();
        assert_eq!(receiver.join_multicast_v6(&group, 1).unwrap_err().raw_os_error(), Some(libc::EADDRINUSE));
        assert_eq!(receiver.join_multicast_v6(&group, 9999).unwrap_err().raw_os_error(), Some(libc::ENODEV));
        receiver.leave_multicast_v6(&group, 1).unwrap();
        assert_eq!(receiver.leave_multicast_v6(&group, 1).unwrap_err().raw_os_error(), Some(libc::EADDRNOTAVAIL));
    }

    fn routers_are_told_of_groups() {
        let (tap, _) = tap_interface(12);
        let (member, _) = receiver();
        ok!(set(&member, 0, ADD, &[GROUP, [10, 214, 12, 1]]));
        let report = |kind: u8| {
            let mut found = false;
            until(|| {
                let mut frame = [0u8; 2048];
                let n = unsafe { libc::read(tap.as_raw_fd(), frame.as_mut_ptr().cast(), frame.len()) };
                // IPv4, IGMP, to 224.0.0.22, with the option that routers look at.
                let ours = n >= 54 && frame[12..14] == [8, 0] && frame[23] == 2 && frame[30..34] == [224, 0, 0, 22];
                found |= ours && frame[34..36] == [0x94, 4] && frame[38] == 0x22 && frame[46] == kind && frame[50..54] == GROUP;
                found
            });
        };
        const TO_EXCLUDE: u8 = 4;
        const TO_INCLUDE: u8 = 3;
        report(TO_EXCLUDE);
        ok!(set(&member, 0, DROP, &[GROUP, [10, 214, 12, 1]]));
        report(TO_INCLUDE);
    }

    fn a_route_is_recorded() {
        const OPTIONS: i32 = 4;
        const RECEIVE_OPTIONS: i32 = 6;
        let (to, port) = receiver();
        let from = UdpSocket::bind("127.0.0.1:0").unwrap();
        ok!(set(&to, 0, RECEIVE_OPTIONS, &1i32));
        err!(set(&from, 0, OPTIONS, &[7u8, 11, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0]), libc::EINVAL);
        ok!(set(&from, 0, OPTIONS, &[7u8, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
        from.send_to(b"where", ("127.0.0.1", port)).unwrap();
        let (mut bytes, mut control) = ([0u8; 16], [0u64; 16]);
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: 16 };
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        (header.msg_iov, header.msg_iovlen) = (&mut part, 1);
        (header.msg_control, header.msg_controllen) = (control.as_mut_ptr().cast(), 128);
        to.set_nonblocking(false).unwrap();
        assert_eq!(ok!(libc::recvmsg(to.as_raw_fd(), &mut header, 0)), 5);
        let raw: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(raw[12..16], RECEIVE_OPTIONS.to_ne_bytes());
        assert_eq!((raw[16], &raw[19..23]), (7, &LO[..]), "{raw:?}");
        let mut none = [0u8; 40];
        let mut len = 40u32;
        ok!(libc::getsockopt(from.as_raw_fd(), 0, OPTIONS, none.as_mut_ptr().cast(), &mut len));
        assert_eq!((len, none[0]), (12, 7));
    }

    fn interfaces_have_settings() {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap().trim().to_owned();
        assert_eq!(read("ipv4/conf/all/forwarding"), read("ipv4/ip_forward"));
        for name in ["ipv4/conf/lo/rp_filter", "ipv4/conf/default/accept_redirects", "ipv6/conf/lo/disable_ipv6"] {
            assert!(["0", "1", "2"].contains(&&read(name)[..]), "{name}");
        }
    }

    fn interfaces_are_in_sysfs() {
        let read = |name: &str| std::fs::read_to_string(format!("/sys/class/net/lo/{name}")).unwrap();
        assert_eq!((&read("address")[..], &read("ifindex")[..], &read("mtu")[..]), ("00:00:00:00:00:00\n", "1\n", "65536\n"));
        assert_eq!((&read("operstate")[..], &read("type")[..], &read("carrier")[..]), ("unknown\n", "772\n", "1\n"));
        let before: u64 = read("statistics/rx_packets").trim().parse().unwrap();
        let (one, other) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        one.send_to(b"x", other.local_addr().unwrap()).unwrap();
        assert!(read("statistics/rx_packets").trim().parse::<u64>().unwrap() > before);
        assert!(std::fs::read_link("/sys/class/net/lo").unwrap().to_str().unwrap().ends_with("net/lo"));
    }
}
