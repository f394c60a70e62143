//! System V message queues.

use crate::sys::*;
use libc::{c_int, c_long};

/// A queue that goes with its owner.
struct Queue(c_int);

impl Drop for Queue {
    fn drop(&mut self) {
        unsafe { libc::msgctl(self.0, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}

#[repr(C)]
struct Message {
    kind: c_long,
    text: [u8; 64],
}

fn queue() -> Queue {
    Queue(ok!(libc::msgget(libc::IPC_PRIVATE, 0o600)))
}

/// msgsnd(2)'s result: an error number, or 0.
fn send(queue: &Queue, kind: c_long, text: &[u8], flags: c_int) -> c_int {
    let mut message = Message { kind, text: [0; 64] };
    message.text[..text.len()].copy_from_slice(text);
    let sent = unsafe { libc::msgsnd(queue.0, (&raw const message).cast(), text.len(), flags) };
    if sent == 0 { 0 } else { errno() }
}

/// msgrcv(2)'s: type and text, or an error number.
fn receive(queue: &Queue, room: usize, kind: c_long, flags: c_int) -> Result<(c_long, Vec<u8>), c_int> {
    let mut message = Message { kind: 0, text: [0; 64] };
    let got = unsafe { libc::msgrcv(queue.0, (&raw mut message).cast(), room, kind, flags) };
    if got < 0 { Err(errno()) } else { Ok((message.kind, message.text[..got as usize].to_vec())) }
}

fn status(queue: &Queue) -> libc::msqid_ds {
    let mut ds = unsafe { std::mem::zeroed() };
    ok!(libc::msgctl(queue.0, libc::IPC_STAT, &mut ds));
    ds
}

const NOW: c_int = libc::IPC_NOWAIT;

cases! {
    fn messages_come_in_order_and_by_type() {
        let queue = queue();
        for (kind, text) in [(5, "a"), (3, "b"), (4, "c"), (3, "d")] {
            assert_eq!(send(&queue, kind, text.as_bytes(), 0), 0);
        }
        assert_eq!(receive(&queue, 64, 4, NOW), Ok((4, b"c".to_vec())));
        assert_eq!(receive(&queue, 64, -4, NOW), Ok((3, b"b".to_vec())));
        assert_eq!(receive(&queue, 64, 5, NOW | libc::MSG_EXCEPT), Ok((3, b"d".to_vec())));
        assert_eq!(receive(&queue, 64, 0, NOW), Ok((5, b"a".to_vec())));
        assert_eq!(receive(&queue, 64, 0, NOW), Err(libc::ENOMSG));
    }

    fn arguments_are_checked() {
        let queue = queue();
        assert_eq!(send(&queue, 0, b"x", 0), libc::EINVAL);
        assert_eq!(send(&queue, -1, b"x", 0), libc::EINVAL);
        err!(libc::msgsnd(queue.0, 8 as *const _, 1, 0), libc::EFAULT);
        err!(libc::msgsnd(queue.0, [1i64; 2000].as_ptr().cast(), 8193, 0), libc::EINVAL);
        err!(libc::msgsnd(-1, [1i64; 2].as_ptr().cast(), 1, 0), libc::EINVAL);
        err!(libc::msgctl(queue.0, 77, std::ptr::null_mut()), libc::EINVAL);
        assert_eq!(receive(&queue, usize::MAX, 0, NOW), Err(libc::EINVAL));
    }

    fn a_message_that_is_too_long_stays_or_is_cut() {
        let queue = queue();
        send(&queue, 1, b"abcdef", 0);
        assert_eq!(receive(&queue, 3, 0, 0), Err(libc::E2BIG));
        assert_eq!(status(&queue).msg_qnum, 1);
        assert_eq!(receive(&queue, 3, 0, libc::MSG_NOERROR), Ok((1, b"abc".to_vec())));
        assert_eq!(status(&queue).msg_qnum, 0);
    }

    fn a_receiver_waits_for_its_type() {
        let queue = queue();
        let waiter = child(|| receive(&queue, 64, 7, 0).map_or_else(|error| error, |(_, text)| c_int::from(text[0])));
        until_asleep(waiter);
        send(&queue, 6, b"no", 0);
        nap(20);
        assert_eq!(state(waiter), 'S');
        send(&queue, 7, b"!", 0);
        expect_exit(waiter, c_int::from(b'!'));
        assert_eq!(status(&queue).msg_lrpid, waiter);
    }

    fn a_sender_waits_for_room() {
        let queue = queue();
        let mut ds = status(&queue);
        assert!(ds.msg_qbytes >= 64);
        ds.msg_qbytes = 10;
        ok!(libc::msgctl(queue.0, libc::IPC_SET, &mut ds));
        assert_eq!(send(&queue, 1, b"12345678", 0), 0);
        assert_eq!(send(&queue, 1, b"123", NOW), libc::EAGAIN);
        let waiter = child(|| send(&queue, 1, b"123", 0));
        until_asleep(waiter);
        assert!(receive(&queue, 64, 0, 0).is_ok());
        expect_exit(waiter, 0);
        assert_eq!(receive(&queue, 64, 0, 0), Ok((1, b"123".to_vec())));
    }

    fn removal_wakes_those_who_wait() {
        let queue = queue();
        let waiter = child(|| receive(&queue, 64, 0, 0).err().unwrap_or(0));
        until_asleep(waiter);
        ok!(libc::msgctl(queue.0, libc::IPC_RMID, std::ptr::null_mut()));
        expect_exit(waiter, libc::EIDRM);
        assert_eq!(send(&queue, 1, b"x", 0), libc::EINVAL);
    }

    fn a_signal_interrupts() {
        extern "C" fn nothing(_: c_int) {}
        let queue = queue();
        handle(libc::SIGUSR1, nothing, libc::SA_RESTART);
        let waiter = child(|| receive(&queue, 64, 0, 0).err().unwrap_or(0));
        until_asleep(waiter);
        ok!(libc::kill(waiter, libc::SIGUSR1));
        expect_exit(waiter, libc::EINTR);
    }

    fn status_counts() {
        let queue = queue();
        send(&queue, 1, b"abc", 0);
        send(&queue, 1, b"de", 0);
        let ds = status(&queue);
        assert_eq!((ds.msg_qnum, ds.__msg_cbytes), (2, 5));
        assert_eq!((ds.msg_lspid, ds.msg_lrpid), (std::process::id() as c_int, 0));
        assert!(ds.msg_stime > 0 && ds.msg_rtime == 0);
    }

    fn others_need_permission() {
        let queue = queue();
        in_child(|| {
            become_nobody();
            assert_eq!(send(&queue, 1, b"x", 0), libc::EACCES);
            assert_eq!(receive(&queue, 64, 0, NOW), Err(libc::EACCES));
            err!(libc::msgctl(queue.0, libc::IPC_RMID, std::ptr::null_mut()), libc::EPERM);
        });
    }

    fn the_next_identifier_can_be_chosen() {
        let path = "/proc/sys/kernel/msg_next_id";
        let wanted = (7 << 15) + 21;
        std::fs::write(path, wanted.to_string()).unwrap();
        let id = ok!(libc::msgget(libc::IPC_PRIVATE, 0o600));
        assert_eq!(std::fs::read_to_string(path).unwrap().trim(), "-1");
        ok!(libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()));
        assert_eq!(id, wanted);
        assert!(std::fs::write(path, "-2").is_err());
    }
}
