//! Tests of the Linux ABI. The same static program runs on Linux and on Quintet.
//!
//! `abi-tests [--list] [--jobs N] [--scale N] [FILTER]` runs the cases, each in a process of its
//! own with a folder of its own, and prints `ok NAME` or `not ok NAME: why` for each.
//! `abi-tests fuzz SECONDS [SEED]` makes random system calls (see [`fuzz`]), `abi-tests leaks [PASSES]` looks what cases leave behind (see
//! [`leak`]), `abi-tests clock` sets the clock (see [`clock`]).
//!
//! To add a case, add a function to a `cases!` block. It passes if it returns and fails if it
//! panics or takes too long; `ok!` and `err!` check a system call's result.

#[macro_use]
mod case;
mod fuzz;
mod harness;
mod sys;
mod sysv_message;
mod sysv_semaphore;
mod sysv_shared_memory;

mod acl;
mod aio;
mod clock;
mod cred;
mod epoll;
mod exec;
mod fanotify;
mod fifo;
mod files;
mod folders;
mod fuse;
mod futex;
mod futex_pi;
mod identity;
mod io_uring;
mod io_uring_process;
mod landlock;
mod leak;
mod lease;
mod loop_device;
mod memory;
mod memory_lock;
mod mmap_file;
mod model;
mod mount;
mod mqueue;
mod network_layer;
mod overlay;
mod packet_socket;
mod pipe;
mod poll;
mod port_sharing;
mod proc_memory;
mod process;
mod procfs;
mod ptrace;
mod pty;
mod resource;
mod sched;
mod seccomp;
mod session;
mod signal;
mod signal_info;
mod socket_inet;
mod socket_tcp;
mod strange_packet;
mod thread;
mod timer;
mod unix_socket;
mod userfaultfd;
mod vsock;
mod wait;

use case::Case;
use std::process::ExitCode;

/// Every case, theme by theme.
const THEMES: &[&[Case]] = &[
    acl::CASES,
    aio::CASES,
    cred::CASES,
    epoll::CASES,
    exec::CASES,
    fanotify::CASES,
    fifo::CASES,
    files::CASES,
    folders::CASES,
    fuse::CASES,
    futex::CASES,
    futex_pi::CASES,
    identity::CASES,
    loop_device::CASES,
    io_uring::CASES,
    io_uring_process::CASES,
    landlock::CASES,
    leak::CASES,
    lease::CASES,
    memory::CASES,
    memory_lock::CASES,
    mmap_file::CASES,
    model::CASES,
    mount::CASES,
    mqueue::CASES,
    overlay::CASES,
    network_layer::CASES,
    packet_socket::CASES,
    socket_tcp::CASES,
    strange_packet::CASES,
    pipe::CASES,
    poll::CASES,
    port_sharing::CASES,
    proc_memory::CASES,
    process::CASES,
    ptrace::CASES,
    procfs::CASES,
    pty::CASES,
    resource::CASES,
    sched::CASES,
    seccomp::CASES,
    session::CASES,
    signal::CASES,
    signal_info::CASES,
    sysv_message::CASES,
    sysv_semaphore::CASES,
    sysv_shared_memory::CASES,
    socket_inet::CASES,
    thread::CASES,
    timer::CASES,
    unix_socket::CASES,
    userfaultfd::CASES,
    vsock::CASES,
    wait::CASES,
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        // What some cases execute: this program under another role.
        Some("role") => exec::play_role(&arguments[1..]),
        Some("fuzz") => fuzz::run(&arguments[1..]),
        Some("clock") => clock::run(),
        Some("leaks") => leak::run(THEMES, &arguments[1..]),
        _ => harness::run(THEMES, &arguments),
    }
}
