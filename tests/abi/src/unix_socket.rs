//! Unix sockets: pairs, streams with names, passing descriptors and credentials.

use crate::sys::*;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

pub(crate) fn pair(kind: i32) -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    ok!(libc::socketpair(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr()));
    (own(fds[0]), own(fds[1]))
}

/// Sends bytes and a descriptor.
pub(crate) fn send_fd(to: &OwnedFd, bytes: &[u8], fd: i32) -> isize {
    let mut part = libc::iovec { iov_base: bytes.as_ptr() as *mut _, iov_len: bytes.len() };
    let mut space = [0u64; 4];
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = space.as_mut_ptr().cast();
    unsafe {
        message.msg_controllen = libc::CMSG_SPACE(4) as usize;
        let header = libc::CMSG_FIRSTHDR(&message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
        libc::CMSG_DATA(header).cast::<i32>().write_unaligned(fd);
        libc::sendmsg(to.as_raw_fd(), &message, 0)
    }
}

/// Receives bytes and perhaps a descriptor; also the message's flags.
fn receive_fd(from: &OwnedFd, flags: i32, room: usize) -> (Vec<u8>, Option<OwnedFd>, i32) {
    let mut bytes = vec![0u8; 64];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: 64 };
    let mut space = [0u64; 8];
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = space.as_mut_ptr().cast();
    message.msg_controllen = room;
    let got = ok!(libc::recvmsg(from.as_raw_fd(), &mut message, flags));
    bytes.truncate(got as usize);
    let header = unsafe { libc::CMSG_FIRSTHDR(&message) };
    let fd = (!header.is_null() && unsafe { (*header).cmsg_type } == libc::SCM_RIGHTS)
        .then(|| own(unsafe { libc::CMSG_DATA(header).cast::<i32>().read_unaligned() }));
    (bytes, fd, message.msg_flags)
}

cases! {
    fn peers_without_names_and_peers_that_have_gone() {
        let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
        let at = (&raw mut address).cast::<libc::sockaddr>();
        let (one, two) = pair(libc::SOCK_DGRAM);
        write(&one, b"x");
        let mut len = 100;
        let mut byte = [0u8];
        let room = byte.as_mut_ptr().cast();
        assert_eq!(ok!(libc::recvfrom(two.as_raw_fd(), room, 1, 0, at, &mut len)), 1);
        assert_eq!(len, 0, "a sender without a name has none");

        let listener = own(ok!(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)));
        address.sun_family = libc::AF_UNIX as u16;
        address.sun_path[0] = b'l' as libc::c_char;
        ok!(libc::bind(listener.as_raw_fd(), at, 4));
        ok!(libc::listen(listener.as_raw_fd(), 5));
        let client = own(ok!(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)));
        ok!(libc::connect(client.as_raw_fd(), at, 4));
        drop(client);
        let mut len = 100;
        let accepted = own(ok!(libc::accept(listener.as_raw_fd(), at, &mut len)));
        assert_eq!((len, i32::from(address.sun_family)), (2, libc::AF_UNIX));
        let mut len = 100;
        ok!(libc::getpeername(accepted.as_raw_fd(), at, &mut len));
        assert_eq!(len, 2);
    }

    fn streams_go_both_ways() {
        let (one, two) = pair(libc::SOCK_STREAM);
        write(&one, b"abc");
        write(&two, b"de");
        assert_eq!((read(&two, 2), read(&two, 9), read(&one, 9)), (b"ab".to_vec(), b"c".to_vec(), b"de".to_vec()));
        drop(one);
        assert_eq!(read(&two, 1), b"");
        act(libc::SIGPIPE, libc::SIG_IGN, 0);
        err!(libc::write(two.as_raw_fd(), b"x".as_ptr().cast(), 1), libc::EPIPE);
        err!(libc::send(two.as_raw_fd(), b"x".as_ptr().cast(), 1, libc::MSG_NOSIGNAL), libc::EPIPE);
    }

    fn datagrams_keep_their_bounds() {
        for kind in [libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
            let (one, two) = pair(kind);
            write(&one, b"first");
            write(&one, b"second");
            assert_eq!((read(&two, 3), read(&two, 99)), (b"fir".to_vec(), b"second".to_vec()));
        }
    }

    fn shutdown_closes_one_way() {
        let (one, two) = pair(libc::SOCK_STREAM);
        ok!(libc::shutdown(one.as_raw_fd(), libc::SHUT_WR));
        assert_eq!(read(&two, 1), b"");
        write(&two, b"back");
        assert_eq!(read(&one, 9), b"back");
        err!(libc::send(one.as_raw_fd(), b"x".as_ptr().cast(), 1, libc::MSG_NOSIGNAL), libc::EPIPE);
        err!(libc::shutdown(one.as_raw_fd(), 9), libc::EINVAL);
    }

    fn peeking_leaves_the_data() {
        let (one, two) = pair(libc::SOCK_STREAM);
        write(&one, b"abc");
        let mut bytes = [0u8; 3];
        assert_eq!(ok!(libc::recv(two.as_raw_fd(), bytes.as_mut_ptr().cast(), 3, libc::MSG_PEEK)), 3);
        assert_eq!(read(&two, 9), b"abc");
        err!(libc::recv(two.as_raw_fd(), bytes.as_mut_ptr().cast(), 3, libc::MSG_DONTWAIT), libc::EAGAIN);
    }

    fn a_full_socket_blocks_its_writer() {
        let (one, two) = pair(libc::SOCK_STREAM);
        set_nonblocking(&one);
        let chunk = [1u8; 4096];
        let mut total = 0;
        while let sent @ 1.. = unsafe { libc::write(one.as_raw_fd(), chunk.as_ptr().cast(), 4096) } { total += sent as usize; }
        assert_eq!(errno(), libc::EAGAIN);
        assert!(total > 50_000, "only {total} bytes fit");
        let mut left = total;
        while left > 0 { left -= read(&two, 65536).len(); }
        write(&one, b"x");
    }

    fn named_sockets_connect() {
        let listener = UnixListener::bind("s").unwrap();
        assert_eq!(stat("s").st_mode & libc::S_IFMT, libc::S_IFSOCK);
        let helper = child(|| {
            let mut stream = UnixStream::connect("s").unwrap();
            stream.write_all(b"ping").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            i32::from(answer != "pong")
        });
        let (mut stream, _) = listener.accept().unwrap();
        let mut question = [0; 4];
        stream.read_exact(&mut question).unwrap();
        stream.write_all(b"pong").unwrap();
        drop(stream);
        assert_eq!(&question, b"ping");
        expect_exit(helper, 0);
    }

    fn names_are_taken_and_refused() {
        let _listener = UnixListener::bind("s").unwrap();
        assert_eq!(UnixListener::bind("s").unwrap_err().raw_os_error(), Some(libc::EADDRINUSE));
        assert_eq!(UnixStream::connect("missing").unwrap_err().raw_os_error(), Some(libc::ENOENT));
        drop(_listener);
        assert_eq!(UnixStream::connect("s").unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
        file("plain", b"");
        assert_eq!(UnixStream::connect("plain").unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
    }

    fn abstract_names_leave_no_file() {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::SocketAddr;
        let name = SocketAddr::from_abstract_name(format!("abi-{}", std::process::id())).unwrap();
        let listener = UnixListener::bind_addr(&name).unwrap();
        let mut client = UnixStream::connect_addr(&name).unwrap();
        client.write_all(b"x").unwrap();
        let mut byte = [0];
        listener.accept().unwrap().0.read_exact(&mut byte).unwrap();
        assert_eq!(UnixListener::bind_addr(&name).unwrap_err().raw_os_error(), Some(libc::EADDRINUSE));
        drop(listener);
        assert_eq!(UnixStream::connect_addr(&name).unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
    }

    fn named_datagrams_know_their_sender() {
        let receiver = UnixDatagram::bind("r").unwrap();
        let sender = UnixDatagram::bind("s").unwrap();
        sender.send_to(b"hi", "r").unwrap();
        let mut bytes = [0; 9];
        let (length, from) = receiver.recv_from(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"hi");
        assert_eq!(from.as_pathname(), Some(std::path::Path::new("s")));
    }

    fn accept_and_connect_can_be_polled() {
        let listener = UnixListener::bind("s").unwrap();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().raw_os_error(), Some(libc::EAGAIN));
        let _client = UnixStream::connect("s").unwrap();
        let mut entry = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        assert_eq!(ok!(libc::poll(&mut entry, 1, 5000)), 1);
        listener.accept().unwrap();
    }

    fn descriptors_travel() {
        let (one, two) = pair(libc::SOCK_STREAM);
        file("f", b"contents");
        let helper = child(|| {
            let fd = open("f", libc::O_RDONLY);
            assert_eq!(read(&fd, 3), b"con");
            ok!(send_fd(&one, b"take", fd.as_raw_fd()));
            0
        });
        let (bytes, fd, flags) = receive_fd(&two, libc::MSG_CMSG_CLOEXEC, 64);
        let fd = fd.expect("a descriptor");
        assert_eq!((bytes.as_slice(), flags & libc::MSG_CTRUNC), (&b"take"[..], 0));
        assert_eq!(read(&fd, 99), b"tents");
        assert_eq!(ok!(libc::fcntl(fd.as_raw_fd(), libc::F_GETFD)), libc::FD_CLOEXEC);
        expect_exit(helper, 0);
    }

    fn descriptors_separate_messages_of_a_stream() {
        let (one, two) = pair(libc::SOCK_STREAM);
        let fd = open("/dev/null", libc::O_RDONLY);
        write(&one, b"a");
        ok!(send_fd(&one, b"b", fd.as_raw_fd()));
        write(&one, b"c");
        let (bytes, none, _) = receive_fd(&two, 0, 64);
        assert!(none.is_none() || bytes == b"ab");
        let mut all = bytes;
        let mut found = none.is_some();
        while all.len() < 3 {
            let (bytes, fd, _) = receive_fd(&two, 0, 64);
            all.extend(bytes);
            found |= fd.is_some();
        }
        assert!(found && all == b"abc");
    }

    fn descriptors_without_room_are_dropped() {
        let (one, two) = pair(libc::SOCK_STREAM);
        let (reader, writer) = pipe();
        ok!(send_fd(&one, b"x", writer.as_raw_fd()));
        drop(writer);
        let (_, fd, flags) = receive_fd(&two, 0, 0);
        assert!(fd.is_none() && flags & libc::MSG_CTRUNC != 0);
        assert_eq!(read(&reader, 1), b"", "the passed writer was closed");
    }

    fn closing_a_socket_drops_descriptors_under_way() {
        let (one, two) = pair(libc::SOCK_STREAM);
        let (reader, writer) = pipe();
        ok!(send_fd(&one, b"x", writer.as_raw_fd()));
        drop(writer);
        set_nonblocking(&reader);
        err!(libc::read(reader.as_raw_fd(), [0u8].as_mut_ptr().cast(), 1), libc::EAGAIN);
        drop((one, two));
        assert_eq!(read(&reader, 1), b"");
    }

    fn sockets_sent_over_each_other_and_closed_are_given_back() {
        let (reader, writer) = pipe();
        set_nonblocking(&reader);
        let ((a, b), (c, d)) = (pair(libc::SOCK_DGRAM), pair(libc::SOCK_DGRAM));
        // What comes into each pair's inbox holds the other; one of them holds the pipe as well.
        assert_eq!(send_fd(&a, b"x", d.as_raw_fd()), 1);
        assert_eq!(send_fd(&c, b"y", b.as_raw_fd()), 1);
        assert_eq!(send_fd(&c, b"z", writer.as_raw_fd()), 1);
        drop((a, b, c, d, writer));
        let mut byte = 0u8;
        until(|| {
            // Closing any unix socket has the lost ones looked for.
            drop(pair(libc::SOCK_STREAM));
            unsafe { libc::read(reader.as_raw_fd(), (&raw mut byte).cast(), 1) == 0 }
        });
    }

    fn a_socket_under_way_that_can_still_be_received_is_kept() {
        let ((a, b), (c, d)) = (pair(libc::SOCK_STREAM), pair(libc::SOCK_STREAM));
        assert_eq!(send_fd(&c, b"in", b.as_raw_fd()), 2);
        assert_eq!(send_fd(&a, b"x", d.as_raw_fd()), 1);
        drop((b, c));
        for _ in 0..3 {
            drop(pair(libc::SOCK_STREAM));
        }
        let (bytes, inner, _) = receive_fd(&d, 0, 64);
        assert_eq!(bytes, b"in");
        let (bytes, _, _) = receive_fd(&inner.expect("the socket"), 0, 64);
        assert_eq!(bytes, b"x");
    }

    fn bad_descriptors_cannot_be_sent() {
        let (one, _two) = pair(libc::SOCK_STREAM);
        err!(send_fd(&one, b"x", 9999), libc::EBADF);
    }

    fn peers_are_known() {
        let (one, _two) = pair(libc::SOCK_STREAM);
        let mut peer: libc::ucred = unsafe { std::mem::zeroed() };
        let mut length = std::mem::size_of::<libc::ucred>() as u32;
        ok!(libc::getsockopt(one.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut peer).cast(), &mut length));
        assert_eq!((peer.pid as u32, peer.uid), (std::process::id(), unsafe { libc::getuid() }));
    }

    fn sockets_say_what_they_are() {
        let (one, _two) = pair(libc::SOCK_SEQPACKET);
        let option = |name| {
            let (mut value, mut length) = (0i32, 4u32);
            ok!(libc::getsockopt(one.as_raw_fd(), libc::SOL_SOCKET, name, (&raw mut value).cast(), &mut length));
            value
        };
        assert_eq!(option(libc::SO_TYPE), libc::SOCK_SEQPACKET);
        assert_eq!(option(libc::SO_DOMAIN), libc::AF_UNIX);
        assert_eq!(option(libc::SO_ERROR), 0);
        let (reader, _writer) = pipe();
        err!(libc::listen(reader.as_raw_fd(), 1), libc::ENOTSOCK);
        err!(libc::socket(9999, libc::SOCK_STREAM, 0), libc::EAFNOSUPPORT);
        err!(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 99), libc::EPROTONOSUPPORT);
        let lone = own(ok!(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)));
        err!(libc::send(lone.as_raw_fd(), b"x".as_ptr().cast(), 1, libc::MSG_NOSIGNAL), libc::ENOTCONN);
    }

    fn urgent_bytes_overtake_a_stream() {
        static URGENT: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
        extern "C" fn note(_: i32) {
            URGENT.store(true, std::sync::atomic::Ordering::SeqCst);
        }
        let (one, other) = pair(libc::SOCK_STREAM);
        let send = |bytes: &[u8], flags: i32| unsafe { libc::send(one.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
        let receive = |flags: i32| {
            let mut room = [0u8; 16];
            let n = ok!(libc::recv(other.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), flags));
            room[..n as usize].to_vec()
        };
        let at_mark = || {
            let mut answer = 7;
            ok!(libc::ioctl(other.as_raw_fd(), 0x8905, &mut answer));
            answer
        };
        err!(libc::recv(other.as_raw_fd(), [0u8].as_mut_ptr().cast(), 1, libc::MSG_OOB), libc::EINVAL);
        handle(libc::SIGURG, note, 0);
        ok!(libc::fcntl(other.as_raw_fd(), libc::F_SETOWN, libc::getpid()));
        assert_eq!(send(b"hello!", libc::MSG_OOB), 6);
        until(|| URGENT.load(std::sync::atomic::Ordering::SeqCst));
        let mut poll = libc::pollfd { fd: other.as_raw_fd(), events: libc::POLLIN | libc::POLLPRI, revents: 0 };
        ok!(libc::poll(&mut poll, 1, 0));
        assert_eq!(poll.revents, libc::POLLIN | libc::POLLPRI);
        assert_eq!(send(b"world", 0), 5);
        assert_eq!(at_mark(), 0);
        // Reading stops before the urgent byte.
        assert_eq!(receive(0), b"hello");
        assert_eq!(at_mark(), 1);
        assert_eq!(receive(libc::MSG_OOB | libc::MSG_PEEK), b"!");
        assert_eq!(receive(libc::MSG_OOB), b"!");
        err!(libc::recv(other.as_raw_fd(), [0u8].as_mut_ptr().cast(), 1, libc::MSG_OOB), libc::EINVAL);
        assert_eq!(receive(0), b"world");
        // What nobody asked for by MSG_OOB is left out, or stays in line.
        assert_eq!(send(b"ab", libc::MSG_OOB), 2);
        assert_eq!(send(b"c", 0), 1);
        assert_eq!(receive(0), b"a");
        assert_eq!(receive(0), b"c");
        let on = 1;
        ok!(libc::setsockopt(other.as_raw_fd(), libc::SOL_SOCKET, libc::SO_OOBINLINE, std::ptr::from_ref(&on).cast(), 4));
        assert_eq!(send(b"xy", libc::MSG_OOB), 2);
        assert_eq!(receive(0), b"x");
        err!(libc::recv(other.as_raw_fd(), [0u8].as_mut_ptr().cast(), 1, libc::MSG_OOB), libc::EINVAL);
        assert_eq!(receive(0), b"y");
        // A later one takes the place of an earlier one.
        let off = 0;
        ok!(libc::setsockopt(other.as_raw_fd(), libc::SOL_SOCKET, libc::SO_OOBINLINE, std::ptr::from_ref(&off).cast(), 4));
        assert_eq!(send(b"z", libc::MSG_OOB), 1);
        err!(libc::recv(other.as_raw_fd(), [0u8].as_mut_ptr().cast(), 1, libc::MSG_DONTWAIT), libc::EAGAIN);
        assert_eq!((send(b"1", libc::MSG_OOB), send(b"2", libc::MSG_OOB)), (1, 1));
        assert_eq!(receive(libc::MSG_OOB), b"2");
    }

    fn only_streams_have_urgent_bytes() {
        for kind in [libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
            let (one, _other) = pair(kind);
            err!(libc::send(one.as_raw_fd(), b"x".as_ptr().cast(), 1, libc::MSG_OOB), libc::EOPNOTSUPP);
            err!(libc::recv(one.as_raw_fd(), [0u8].as_mut_ptr().cast(), 1, libc::MSG_OOB), libc::EOPNOTSUPP);
        }
        let (one, _other) = pair(libc::SOCK_STREAM);
        err!(libc::send(one.as_raw_fd(), b"".as_ptr().cast(), 0, libc::MSG_OOB), libc::EOPNOTSUPP);
    }
}
