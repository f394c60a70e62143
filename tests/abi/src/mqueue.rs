//! POSIX message queues.

use crate::sys::*;
use libc::{c_char, c_int, c_long, mqd_t};
use std::ffi::CString;
use std::mem::zeroed;
use std::os::fd::AsRawFd;
use std::ptr::null_mut;

/// A queue that goes, name and all, with its owner.
struct Queue(mqd_t, CString);

impl Drop for Queue {
    fn drop(&mut self) {
        unsafe { libc::mq_close(self.0) };
        unsafe { libc::mq_unlink(self.1.as_ptr()) };
    }
}

fn name() -> CString {
    c(&format!("/abi-{}", std::process::id()))
}

fn attributes(messages: c_long, size: c_long) -> libc::mq_attr {
    let mut attributes: libc::mq_attr = unsafe { zeroed() };
    (attributes.mq_maxmsg, attributes.mq_msgsize) = (messages, size);
    attributes
}

fn queue(messages: c_long, flags: c_int) -> Queue {
    let (name, mut attributes) = (name(), attributes(messages, 16));
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | flags;
    Queue(ok!(libc::mq_open(name.as_ptr(), flags, 0o600, &mut attributes)), name)
}

/// mq_send(3)'s result: an error number, or 0.
fn send(queue: &Queue, text: &[u8], priority: u32) -> c_int {
    let sent = unsafe { libc::mq_send(queue.0, text.as_ptr() as *const c_char, text.len(), priority) };
    if sent == 0 { 0 } else { errno() }
}

/// mq_receive(3)'s: text and priority, or an error number.
fn receive(queue: &Queue) -> Result<(Vec<u8>, u32), c_int> {
    let (mut text, mut priority) = ([0u8; 16], 0);
    let got = unsafe { libc::mq_receive(queue.0, text.as_mut_ptr() as *mut c_char, text.len(), &mut priority) };
    if got < 0 { Err(errno()) } else { Ok((text[..got as usize].to_vec(), priority)) }
}

fn event(notify: c_int, signal: c_int) -> libc::sigevent {
    let mut event: libc::sigevent = unsafe { zeroed() };
    (event.sigev_notify, event.sigev_signo) = (notify, signal);
    event.sigev_value.sival_ptr = 77 as *mut _;
    event
}

cases! {
    fn messages_come_by_priority_then_age() {
        let queue = queue(4, 0);
        for (text, priority) in [("a", 1), ("b", 5), ("c", 1), ("", 5)] {
            assert_eq!(send(&queue, text.as_bytes(), priority), 0);
        }
        for expected in [("b", 5), ("", 5), ("a", 1), ("c", 1)] {
            assert_eq!(receive(&queue), Ok((expected.0.as_bytes().to_vec(), expected.1)));
        }
    }

    fn opening_checks_names_and_flags() {
        let queue = queue(4, 0);
        let name = name();
        err!(libc::mq_open(name.as_ptr(), libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, 0o600, null_mut::<libc::mq_attr>()), libc::EEXIST);
        err!(libc::mq_open(c"/abi-no-such-queue".as_ptr(), libc::O_RDWR), libc::ENOENT);
        err!(libc::mq_open(c"/a/b".as_ptr(), libc::O_RDWR), libc::EACCES);
        err!(libc::mq_open(c("/".repeat(2).as_str()).as_ptr(), libc::O_RDWR), libc::EACCES);
        err!(libc::mq_open(c(&format!("/{}", "x".repeat(256))).as_ptr(), libc::O_RDWR), libc::ENAMETOOLONG);
        err!(libc::mq_unlink(c"/abi-no-such-queue".as_ptr()), libc::ENOENT);
        let mut wrong = attributes(0, 16);
        err!(libc::mq_open(c"/abi-wrong".as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o600, &mut wrong), libc::EINVAL);
        drop(queue);
        err!(libc::mq_open(name.as_ptr(), libc::O_RDWR), libc::ENOENT);
    }

    fn sizes_and_priorities_are_limited() {
        let queue = queue(2, 0);
        assert_eq!(send(&queue, &[0; 17], 0), libc::EMSGSIZE);
        assert_eq!(send(&queue, b"x", 32768), libc::EINVAL);
        assert_eq!(send(&queue, b"x", 32767), 0);
        let mut small = [0u8; 15];
        err!(libc::mq_receive(queue.0, small.as_mut_ptr() as *mut c_char, 15, null_mut()), libc::EMSGSIZE);
    }

    fn full_and_empty_queues_block_or_not() {
        let queue = queue(1, libc::O_NONBLOCK);
        assert_eq!(receive(&queue), Err(libc::EAGAIN));
        assert_eq!(send(&queue, b"a", 0), 0);
        assert_eq!(send(&queue, b"b", 0), libc::EAGAIN);
        let mut blocking = attributes(0, 0);
        ok!(libc::mq_setattr(queue.0, &blocking, null_mut()));
        let sender = child(|| send(&queue, b"b", 0));
        until_asleep(sender);
        assert_eq!(receive(&queue), Ok((b"a".to_vec(), 0)));
        expect_exit(sender, 0);
        let receiver = child(|| { receive(&queue).unwrap(); receive(&queue).map_or(1, |(text, _)| c_int::from(text[0])) });
        until_asleep(receiver);
        assert_eq!(send(&queue, b"z", 0), 0);
        expect_exit(receiver, c_int::from(b'z'));
        ok!(libc::mq_getattr(queue.0, &mut blocking));
        assert_eq!((blocking.mq_flags, blocking.mq_maxmsg, blocking.mq_msgsize, blocking.mq_curmsgs), (0, 1, 16, 0));
    }

    fn waiting_ends_at_a_time() {
        let queue = queue(1, 0);
        let mut until: libc::timespec = unsafe { zeroed() };
        ok!(libc::clock_gettime(libc::CLOCK_REALTIME, &mut until));
        until.tv_nsec += 30_000_000;
        if until.tv_nsec >= 1_000_000_000 {
            (until.tv_sec, until.tv_nsec) = (until.tv_sec + 1, until.tv_nsec - 1_000_000_000);
        }
        let mut text = [0 as c_char; 16];
        let took = timed(|| err!(libc::mq_timedreceive(queue.0, text.as_mut_ptr(), 16, null_mut(), &until), libc::ETIMEDOUT));
        assert!(took.as_millis() < 5000);
        until.tv_nsec = -1;
        err!(libc::mq_timedreceive(queue.0, text.as_mut_ptr(), 16, null_mut(), &until), libc::EINVAL);
    }

    fn the_access_mode_counts() {
        let queue = queue(2, 0);
        let reader = Queue(ok!(libc::mq_open(queue.1.as_ptr(), libc::O_RDONLY)), c("/none"));
        assert_eq!(send(&reader, b"x", 0), libc::EBADF);
        let writer = Queue(ok!(libc::mq_open(queue.1.as_ptr(), libc::O_WRONLY)), c("/none"));
        assert_eq!(receive(&writer), Err(libc::EBADF));
        in_child(|| {
            become_nobody();
            err!(libc::mq_open(queue.1.as_ptr(), libc::O_RDONLY), libc::EACCES);
            err!(libc::mq_unlink(queue.1.as_ptr()), libc::EACCES);
        });
    }

    fn a_signal_tells_of_the_first_message() {
        let queue = queue(4, 0);
        block(&[libc::SIGUSR1]);
        let mut wanted = event(libc::SIGEV_SIGNAL, libc::SIGUSR1);
        ok!(libc::mq_notify(queue.0, &wanted));
        in_child(|| err!(libc::mq_notify(queue.0, &event(libc::SIGEV_NONE, 0)), libc::EBUSY));
        assert_eq!(send(&queue, b"x", 0), 0);
        assert_eq!(send(&queue, b"y", 0), 0);
        let mut info: libc::siginfo_t = unsafe { zeroed() };
        assert_eq!(ok!(libc::sigwaitinfo(&signals(&[libc::SIGUSR1]), &mut info)), libc::SIGUSR1);
        assert_eq!((info.si_code, unsafe { info.si_value() }.sival_ptr as usize), (libc::SI_MESGQ, 77));
        // Once only, and only when the queue was empty.
        ok!(libc::mq_notify(queue.0, &wanted));
        assert_eq!(send(&queue, b"z", 0), 0);
        let none = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        err!(libc::sigtimedwait(&signals(&[libc::SIGUSR1]), null_mut(), &none), libc::EAGAIN);
        ok!(libc::mq_notify(queue.0, std::ptr::null()));
        wanted.sigev_notify = 99;
        err!(libc::mq_notify(queue.0, &wanted), libc::EINVAL);
    }

    fn a_request_goes_with_its_process() {
        let queue = queue(4, 0);
        in_child(|| { ok!(libc::mq_notify(queue.0, &event(libc::SIGEV_NONE, 0))); });
        ok!(libc::mq_notify(queue.0, &event(libc::SIGEV_NONE, 0)));
    }

    fn descriptors_can_be_polled_and_read() {
        let queue = queue(1, 0);
        let ready = || {
            let mut entry = libc::pollfd { fd: queue.0, events: libc::POLLIN | libc::POLLOUT, revents: 0 };
            ok!(libc::poll(&mut entry, 1, 0));
            entry.revents
        };
        assert_eq!(ready(), libc::POLLOUT);
        assert_eq!(send(&queue, b"abc", 0), 0);
        assert_eq!(ready(), libc::POLLIN);
        let mut text = [0u8; 100];
        let got = ok!(libc::read(queue.0, text.as_mut_ptr().cast(), 100)) as usize;
        assert!(text[..got].starts_with(b"QSIZE:3 "), "{:?}", String::from_utf8_lossy(&text[..got]));
    }

    fn a_netlink_socket_tells_of_messages_and_of_the_end() {
        let queue = queue(2, 0);
        let socket = own(ok!(libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, 0)));
        let mut cookie: Vec<u8> = (0..32).collect();
        let mut event = event(libc::SIGEV_THREAD, socket.as_raw_fd());
        event.sigev_value.sival_ptr = cookie.as_mut_ptr().cast();
        let ask = |event: &libc::sigevent| unsafe { libc::syscall(libc::SYS_mq_notify, queue.0, event) };
        let told = || {
            let mut bytes = [0u8; 64];
            let n = ok!(libc::recv(socket.as_raw_fd(), bytes.as_mut_ptr().cast(), 64, 0));
            assert_eq!((n, &bytes[..31]), (32, &cookie[..31]));
            bytes[31]
        };
        ok!(ask(&event));
        err!(ask(&event), libc::EBUSY);
        assert_eq!(send(&queue, b"x", 0), 0);
        assert_eq!(told(), 1);
        receive(&queue).unwrap();
        ok!(ask(&event));
        ok!(libc::syscall(libc::SYS_mq_notify, queue.0, std::ptr::null::<libc::sigevent>()));
        assert_eq!(told(), 2);
        event.sigev_value.sival_ptr = 8 as *mut _;
        err!(ask(&event), libc::EFAULT);
        event.sigev_value.sival_ptr = cookie.as_ptr() as *mut _;
        event.sigev_signo = 99;
        err!(ask(&event), libc::EBADF);
        let other = own(ok!(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)));
        event.sigev_signo = other.as_raw_fd();
        err!(ask(&event), libc::EINVAL);
        let (reader, _writer) = pipe();
        event.sigev_signo = reader.as_raw_fd();
        err!(ask(&event), libc::ENOTSOCK);
    }
}
