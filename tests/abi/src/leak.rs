//! What processes leave behind: nothing. `abi-tests leaks [PASSES]` runs the cases about talking to each other over and over, and looks into
//! `/proc/slabinfo` and `/proc/meminfo` whether the kernel holds more each time.

use crate::case::Case;
use crate::sys::*;
use crate::{futex_pi, harness, io_uring, unix_socket};
use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::process::ExitCode;

/// The themes whose cases are run.
const THEMES: [&str; 12] = [
    "epoll",
    "fifo",
    "futex",
    "io_uring",
    "leak",
    "mqueue",
    "pipe",
    "sysv",
    "signal",
    "timer",
    "unix_socket",
    "userfaultfd",
];
/// The passes before the first that counts: what is kept once (names, stacks, tables) is kept then.
const WARM_UP: u32 = 2;
/// Objects of a size, and KiB of another kind of memory, that a pass may add: buffers fill and empty at their own pace.
const SLACK: i64 = 40;

cases! {
    fn a_process_killed_while_it_holds_everything_is_gone() {
        for _ in 0..10 {
            let (ready, told) = pipe();
            let pid = child(|| {
                hold_everything();
                write(&told, b"x");
                loop {
                    unsafe { libc::pause() };
                }
            });
            assert_eq!(read(&ready, 1), b"x");
            ok!(libc::kill(pid, libc::SIGKILL));
            expect_signal(pid, libc::SIGKILL);
        }
    }
}

/// Takes whatever a process can hold of what other processes see.
fn hold_everything() {
    // A socket on its way to itself, by way of another that is in it.
    let (one, other) = unix_socket::pair(libc::SOCK_DGRAM);
    unix_socket::send_fd(&one, b"a", other.as_raw_fd());
    unix_socket::send_fd(&other, b"b", one.as_raw_fd());
    // A full pipe, a full queue.
    let (reader, writer) = pipe();
    set_nonblocking(&writer);
    while unsafe { libc::write(writer.as_raw_fd(), [0u8; 4096].as_ptr().cast(), 4096) } > 0 {}
    let queue = ok!(libc::msgget(libc::IPC_PRIVATE, 0o600));
    let message = [1u64; 101];
    while unsafe { libc::msgsnd(queue, message.as_ptr().cast(), 800, libc::IPC_NOWAIT) } == 0 {}
    ok!(libc::msgctl(queue, libc::IPC_RMID, std::ptr::null_mut()));
    // Shared memory that has no name any more.
    let segment = ok!(libc::shmget(libc::IPC_PRIVATE, 1 << 16, 0o600));
    let at = unsafe { libc::shmat(segment, std::ptr::null(), 0) }.cast::<u8>();
    unsafe { at.write(1) };
    ok!(libc::shmctl(segment, libc::IPC_RMID, std::ptr::null_mut()));
    // Signals that wait, a timer, instances of epoll in one another.
    block(&[libc::SIGRTMIN()]);
    let value = libc::sigval { sival_ptr: std::ptr::null_mut() };
    for _ in 0..50 {
        ok!(libc::sigqueue(std::process::id() as i32, libc::SIGRTMIN(), value));
    }
    let mut timer: libc::timer_t = std::ptr::null_mut();
    ok!(libc::timer_create(libc::CLOCK_MONOTONIC, std::ptr::null_mut(), &mut timer));
    let [inner, outer] = [0; 2].map(|flags| own(ok!(libc::epoll_create1(flags))));
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
    ok!(libc::epoll_ctl(inner.as_raw_fd(), libc::EPOLL_CTL_ADD, reader.as_raw_fd(), &mut event));
    ok!(libc::epoll_ctl(outer.as_raw_fd(), libc::EPOLL_CTL_ADD, inner.as_raw_fd(), &mut event));
    futex_pi::leave_owner_and_waiter();
    io_uring::leave_requests();
    for held in [one, other, reader, writer, inner, outer] {
        std::mem::forget(held);
    }
}

/// Runs the cases so many times and compares what the kernel holds after each.
pub(crate) fn run(all: &[&[Case]], arguments: &[String]) -> ExitCode {
    let passes = arguments.first().and_then(|passes| passes.parse().ok()).unwrap_or(3);
    let about_talking = |case: &&Case| THEMES.iter().any(|theme| case.theme.contains(theme));
    let selected: Vec<&Case> = all.iter().flat_map(|cases| cases.iter()).filter(about_talking).collect();
    let mut before = BTreeMap::new();
    let mut growth: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for pass in 0..WARM_UP + passes {
        if harness::run_all(&selected, 4, 3) > 0 {
            return ExitCode::FAILURE;
        }
        // What ends late: workers, timers.
        nap(1000);
        let now = held();
        for (name, count) in now.iter().filter(|_| pass >= WARM_UP) {
            growth.entry(name.clone()).or_default().push(count - before.get(name).unwrap_or(&0));
        }
        before = now;
    }
    let leaks: Vec<_> = growth.iter().filter(|(_, growth)| growth.iter().all(|more| *more > SLACK)).collect();
    leaks.iter().for_each(|(name, growth)| println!("not ok leaks: {name} grows by {growth:?} a pass"));
    println!("ok {} cases {passes} times, {} leaks", selected.len(), leaks.len());
    if leaks.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Objects of each size, and KiB of other kinds of memory.
fn held() -> BTreeMap<String, i64> {
    let number = |text: Option<&str>| text.and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut held = BTreeMap::new();
    for line in std::fs::read_to_string("/proc/slabinfo").expect("to be root").lines().skip(2) {
        let mut words = line.split_whitespace();
        held.insert(words.next().unwrap_or_default().to_owned(), number(words.next()));
    }
    for line in std::fs::read_to_string("/proc/meminfo").expect("/proc").lines() {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        if ["AnonPages:", "Shmem:", "PageTables:", "KernelStack:"].contains(&name) {
            held.insert(name.to_owned(), number(words.next()));
        }
    }
    held
}
