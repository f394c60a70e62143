//! Switching between processes and threads.

use crate::sys::{helper, pipe};
use crate::timing::each;
use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Write};
use std::ptr::null;
use std::sync::atomic::{AtomicU32, Ordering};

/// A token goes round a ring of processes through pipes, each of which reads all of its own memory
/// when it has it. The value is one hand-over, without what pipe and memory cost by themselves.
pub(crate) fn ring(processes: usize, bytes: usize) -> f64 {
    let (mut reader, mut first_writer) = files();
    let memory = vec![1u64; bytes / size_of::<u64>()];
    let alone = each(|| {
        send(&mut first_writer);
        receive(&mut reader);
        look_at(&memory);
    });
    for _ in 1..processes {
        let (next_reader, mut writer) = files();
        helper(|| {
            // Written to, so that it is not its parent's.
            let memory = vec![2u64; bytes / size_of::<u64>()];
            loop {
                receive(&mut reader);
                look_at(&memory);
                send(&mut writer);
            }
        });
        reader = next_reader;
    }
    // This process closes the ring: it writes to the first helper, and reads from the last.
    let round = each(|| {
        send(&mut first_writer);
        receive(&mut reader);
        look_at(&memory);
    });
    let switch = round / processes as f64 - alone;
    assert!(switch > 0.0, "a switch takes no time beside the pipe's own: {round} {alone}");
    switch
}

fn look_at(memory: &[u64]) {
    black_box(black_box(memory).iter().fold(0u64, |sum, word| sum.wrapping_add(*word)));
}

fn files() -> (File, File) {
    let (reader, writer) = pipe();
    (File::from(reader), File::from(writer))
}

fn send(writer: &mut File) {
    writer.write_all(b"x").expect("pass the token on");
}

fn receive(reader: &mut File) {
    reader.read_exact(&mut [0]).expect("get the token");
}

/// FUTEX_WAKE of a word that nobody waits for.
pub(crate) fn futex_wake_none() -> f64 {
    let word = AtomicU32::new(0);
    each(|| wake(&word))
}

/// Two threads that wake each other in turn.
pub(crate) fn futex_round_trip() -> f64 {
    static TURN: AtomicU32 = AtomicU32::new(0);
    // Ends with the process.
    std::thread::spawn(|| {
        loop {
            take_turn(&TURN, 1);
        }
    });
    each(|| {
        TURN.store(1, Ordering::Release);
        wake(&TURN);
        while TURN.load(Ordering::Acquire) != 0 {
            wait(&TURN, 1);
        }
    })
}

/// Waits until it is our turn, and gives it back.
fn take_turn(turn: &AtomicU32, ours: u32) {
    while turn.load(Ordering::Acquire) != ours {
        wait(turn, 0);
    }
    turn.store(0, Ordering::Release);
    wake(turn);
}

fn wake(word: &AtomicU32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    ok!(libc::syscall(libc::SYS_futex, word.as_ptr(), operation, 1));
}

fn wait(word: &AtomicU32, while_it_is: u32) {
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // It fails if the word has changed already, which the caller looks at.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, while_it_is, null::<libc::timespec>()) };
}

/// Two processes that hand System V semaphores to each other.
pub(crate) fn semaphore_round_trip() -> f64 {
    let set = ok!(libc::semget(libc::IPC_PRIVATE, 2, 0o600));
    let set = SemaphoreSet(set);
    helper(|| {
        loop {
            set.add(0, -1);
            set.add(1, 1);
        }
    });
    each(|| {
        set.add(0, 1);
        set.add(1, -1);
    })
}

/// Removed when it goes: it would outlive the processes.
struct SemaphoreSet(libc::c_int);

impl SemaphoreSet {
    fn add(&self, number: u16, value: i16) {
        let mut operation = libc::sembuf { sem_num: number, sem_op: value, sem_flg: 0 };
        ok!(libc::semop(self.0, &mut operation, 1));
    }
}

impl Drop for SemaphoreSet {
    fn drop(&mut self) {
        unsafe { libc::semctl(self.0, 0, libc::IPC_RMID) };
    }
}

/// A POSIX semaphore that is taken and given back by the only process that has it.
pub(crate) fn semaphore_alone() -> f64 {
    let mut semaphore: libc::sem_t = unsafe { std::mem::zeroed() };
    ok!(libc::sem_init(&mut semaphore, 1, 1));
    each(|| {
        ok!(libc::sem_wait(&mut semaphore));
        ok!(libc::sem_post(&mut semaphore));
    })
}
