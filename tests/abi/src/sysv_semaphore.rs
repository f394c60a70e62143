//! System V semaphores.

use crate::sys::*;
use libc::{c_int, c_short, c_ushort, sembuf};
use std::time::Duration;

/// A set that goes with its owner.
struct Set(c_int);

impl Drop for Set {
    fn drop(&mut self) {
        unsafe { libc::semctl(self.0, 0, libc::IPC_RMID) };
    }
}

fn set(count: c_int) -> Set {
    Set(ok!(libc::semget(libc::IPC_PRIVATE, count, 0o600)))
}

fn op(number: c_ushort, change: c_short, flags: c_int) -> sembuf {
    sembuf { sem_num: number, sem_op: change, sem_flg: flags as c_short }
}

/// semop(2)'s result: an error number, or 0.
fn operate(set: &Set, operations: &mut [sembuf]) -> c_int {
    if unsafe { libc::semop(set.0, operations.as_mut_ptr(), operations.len()) } == 0 { 0 } else { errno() }
}

fn value(set: &Set, number: c_int) -> c_int {
    ok!(libc::semctl(set.0, number, libc::GETVAL))
}

cases! {
    fn operations_happen_together() {
        let set = set(2);
        assert_eq!(operate(&set, &mut [op(0, 3, 0), op(1, 1, 0)]), 0);
        assert_eq!((value(&set, 0), value(&set, 1)), (3, 1));
        assert_eq!(operate(&set, &mut [op(0, -1, 0), op(1, -2, libc::IPC_NOWAIT)]), libc::EAGAIN);
        assert_eq!((value(&set, 0), value(&set, 1)), (3, 1));
        assert_eq!(ok!(libc::semctl(set.0, 0, libc::GETPID)), std::process::id() as c_int);
    }

    fn arguments_are_checked() {
        let set = set(2);
        err!(libc::semget(libc::IPC_PRIVATE, 0, 0o600), libc::EINVAL);
        err!(libc::semget(libc::IPC_PRIVATE, -1, 0o600), libc::EINVAL);
        assert_eq!(operate(&set, &mut [op(2, 1, 0)]), libc::EFBIG);
        assert_eq!(operate(&set, &mut []), libc::EINVAL);
        assert_eq!(operate(&set, &mut [op(0, 1, 0); 501]), libc::E2BIG);
        assert_eq!(operate(&set, &mut [op(0, 32767, 0), op(0, 1, 0)]), libc::ERANGE);
        err!(libc::semctl(set.0, 2, libc::GETVAL), libc::EINVAL);
        err!(libc::semctl(set.0, 0, libc::SETVAL, 32768), libc::ERANGE);
        err!(libc::semctl(set.0, 0, 99), libc::EINVAL);
        err!(libc::semctl(-1, 0, libc::GETVAL), libc::EINVAL);
        err!(libc::semop(set.0, 8 as *mut sembuf, 1), libc::EFAULT);
    }

    fn a_key_leads_to_one_set() {
        let key = 0x5157_0000 | std::process::id() as c_int & 0xffff;
        err!(libc::semget(key, 1, 0o600), libc::ENOENT);
        let set = Set(ok!(libc::semget(key, 3, 0o640 | libc::IPC_CREAT | libc::IPC_EXCL)));
        err!(libc::semget(key, 3, 0o600 | libc::IPC_CREAT | libc::IPC_EXCL), libc::EEXIST);
        assert_eq!(ok!(libc::semget(key, 2, 0o600)), set.0);
        err!(libc::semget(key, 4, 0o600), libc::EINVAL);
        let mut ds: libc::semid_ds = unsafe { std::mem::zeroed() };
        ok!(libc::semctl(set.0, 0, libc::IPC_STAT, &mut ds));
        assert_eq!((ds.sem_nsems, ds.sem_perm.__key, ds.sem_perm.mode & 0o777), (3, key, 0o640));
        assert_eq!(ds.sem_otime, 0);
        assert!(ds.sem_ctime > 0);
    }

    fn waiting_ends_when_the_value_allows() {
        let set = set(1);
        let waiter = child(|| operate(&set, &mut [op(0, -2, 0)]));
        until_asleep(waiter);
        assert_eq!(ok!(libc::semctl(set.0, 0, libc::GETNCNT)), 1);
        assert_eq!(ok!(libc::semctl(set.0, 0, libc::GETZCNT)), 0);
        assert_eq!(operate(&set, &mut [op(0, 1, 0)]), 0);
        nap(20);
        assert_eq!(state(waiter), 'S');
        assert_eq!(operate(&set, &mut [op(0, 1, 0)]), 0);
        expect_exit(waiter, 0);
        assert_eq!(value(&set, 0), 0);
    }

    fn waiting_for_zero() {
        let set = set(1);
        ok!(libc::semctl(set.0, 0, libc::SETVAL, 1));
        let waiter = child(|| operate(&set, &mut [op(0, 0, 0)]));
        until_asleep(waiter);
        assert_eq!(ok!(libc::semctl(set.0, 0, libc::GETZCNT)), 1);
        assert_eq!(operate(&set, &mut [op(0, -1, 0)]), 0);
        expect_exit(waiter, 0);
    }

    fn removal_wakes_those_who_wait() {
        let set = set(1);
        let waiter = child(|| operate(&set, &mut [op(0, -1, 0)]));
        until_asleep(waiter);
        ok!(libc::semctl(set.0, 0, libc::IPC_RMID));
        expect_exit(waiter, libc::EIDRM);
        assert_eq!(operate(&set, &mut [op(0, 1, 0)]), libc::EINVAL);
    }

    fn a_signal_interrupts_even_with_restart() {
        extern "C" fn nothing(_: c_int) {}
        let set = set(1);
        handle(libc::SIGUSR1, nothing, libc::SA_RESTART);
        let waiter = child(|| operate(&set, &mut [op(0, -1, 0)]));
        until_asleep(waiter);
        ok!(libc::kill(waiter, libc::SIGUSR1));
        expect_exit(waiter, libc::EINTR);
        assert_eq!(ok!(libc::semctl(set.0, 0, libc::GETNCNT)), 0);
    }

    fn a_timeout_ends_waiting() {
        let set = set(1);
        let limit = libc::timespec { tv_sec: 0, tv_nsec: 30_000_000 };
        let took = timed(|| {
            let mut operation = op(0, -1, 0);
            err!(libc::syscall(libc::SYS_semtimedop, set.0, &mut operation, 1, &limit), libc::EAGAIN);
        });
        assert!(took >= Duration::from_millis(30));
        let wrong = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000_000 };
        err!(libc::syscall(libc::SYS_semtimedop, set.0, &mut op(0, 1, 0), 1, &wrong), libc::EINVAL);
    }

    fn exit_undoes_what_was_asked_to() {
        let set = set(2);
        ok!(libc::semctl(set.0, 0, libc::SETVAL, 5));
        in_child(|| {
            assert_eq!(operate(&set, &mut [op(0, -3, libc::SEM_UNDO), op(1, 2, 0)]), 0);
            assert_eq!(value(&set, 0), 2);
        });
        assert_eq!((value(&set, 0), value(&set, 1)), (5, 2));
    }

    fn setting_forgets_what_was_to_be_undone() {
        let set = set(1);
        in_child(|| {
            assert_eq!(operate(&set, &mut [op(0, 4, libc::SEM_UNDO)]), 0);
            ok!(libc::semctl(set.0, 0, libc::SETVAL, 9));
        });
        assert_eq!(value(&set, 0), 9);
    }

    fn threads_undo_together() {
        let set = set(1);
        in_child(|| {
            std::thread::scope(|scope| {
                scope.spawn(|| assert_eq!(operate(&set, &mut [op(0, 1, libc::SEM_UNDO)]), 0));
            });
            assert_eq!(value(&set, 0), 1, "the process lives");
        });
        assert_eq!(value(&set, 0), 0);
    }

    fn all_values_at_once() {
        let set = set(3);
        ok!(libc::semctl(set.0, 0, libc::SETALL, [1u16, 2, 3].as_ptr()));
        let mut values = [0u16; 3];
        ok!(libc::semctl(set.0, 0, libc::GETALL, values.as_mut_ptr()));
        assert_eq!(values, [1, 2, 3]);
        err!(libc::semctl(set.0, 0, libc::SETALL, [1u16, 40000, 3].as_ptr()), libc::ERANGE);
    }

    fn others_need_permission() {
        let set = set(1);
        in_child(|| {
            become_nobody();
            assert_eq!(operate(&set, &mut [op(0, 1, 0)]), libc::EACCES);
            err!(libc::semctl(set.0, 0, libc::GETVAL), libc::EACCES);
            err!(libc::semctl(set.0, 0, libc::IPC_RMID), libc::EPERM);
        });
    }

    fn procfs_lists_sets() {
        let set = set(4);
        let text = std::fs::read_to_string("/proc/sysvipc/sem").unwrap();
        assert!(text.starts_with("       key      semid perms      nsems"));
        let line = text.lines().find(|line| line.split_whitespace().nth(1) == Some(&set.0.to_string())).unwrap();
        let fields: Vec<_> = line.split_whitespace().collect();
        assert_eq!((fields[0], fields[2], fields[3]), ("0", "600", "4"));
    }
}
