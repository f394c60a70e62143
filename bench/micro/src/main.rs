//! What single kernel operations cost, by the methods that lmbench published.
//!
//! `bench-micro [FILTER]` prints `# ` and the kernel's release, then a line a row,
//! `name<TAB>value<TAB>unit`: nanoseconds (`ns`, lower is
//! better) or megabytes a second (`MB/s`, higher is better). A row that fails or takes too long has
//! `-` for its value and the reason for its unit. `bench-micro nothing` ends at once: it is the
//! program that some rows execute. `bench-micro start` and `bench-micro counter NAME` give what there is to
//! say about the guest's start instead (see [`start`]).
//!
//! Each row runs in a process of its own, so one that hangs or is killed does not take the others
//! with it. See [`timing`] for how a value comes about.

#[macro_use]
mod sys;
mod calls;
mod files;
mod ipc;
mod memory;
mod poll;
mod process;
mod start;
mod switching;
mod timing;
mod uring;

use libc::c_int;
use std::io::Write;
use std::process::ExitCode;

/// What a row's value counts.
#[derive(Clone, Copy)]
enum Unit {
    /// Time of one operation.
    Nanoseconds,
    /// 10^6 bytes in a second.
    Megabytes,
}

/// One thing to measure. It panics if the kernel does not do it.
struct Row {
    name: &'static str,
    unit: Unit,
    measure: fn() -> f64,
}

const fn ns(name: &'static str, measure: fn() -> f64) -> Row {
    Row { name, unit: Unit::Nanoseconds, measure }
}

const fn mb(name: &'static str, measure: fn() -> f64) -> Row {
    Row { name, unit: Unit::Megabytes, measure }
}

const ROWS: &[Row] = &[
    ns("null call", calls::null),
    ns("read 1 byte", calls::read),
    ns("write 1 byte", calls::write),
    ns("fstat", calls::fstat),
    ns("stat", calls::stat),
    ns("stat 8 deep", calls::stat_deep),
    ns("open+close", calls::open_close),
    ns("clock_gettime", calls::clock_gettime),
    ns("signal install", calls::signal_install),
    ns("signal deliver", calls::signal_deliver),
    ns("protection fault", calls::protection_fault),
    ns("select 10", || poll::select(10)),
    ns("select 100", || poll::select(100)),
    ns("select 500", || poll::select(500)),
    ns("epoll 10", || poll::epoll(10)),
    ns("epoll 100", || poll::epoll(100)),
    ns("epoll 500", || poll::epoll(500)),
    ns("epoll 100 of 10,100", poll::epoll_of_many),
    ns("fault anonymous", memory::fault_anonymous),
    ns("fault file", memory::fault_file),
    ns("fault copy-on-write", memory::fault_copy_on_write),
    ns("mmap+munmap 64K", || memory::mmap_munmap(64 << 10)),
    ns("mmap+munmap 1M", || memory::mmap_munmap(1 << 20)),
    ns("mmap+munmap 16M", || memory::mmap_munmap(16 << 20)),
    ns("fork+exit", process::fork_exit),
    ns("fork+exec", process::fork_exec),
    ns("sh -c", process::shell),
    ns("thread create+join", process::thread),
    ns("switch 2 p/0K", || switching::ring(2, 0)),
    ns("switch 2 p/16K", || switching::ring(2, 16 << 10)),
    ns("switch 2 p/64K", || switching::ring(2, 64 << 10)),
    ns("switch 8 p/0K", || switching::ring(8, 0)),
    ns("switch 8 p/16K", || switching::ring(8, 16 << 10)),
    ns("switch 8 p/64K", || switching::ring(8, 64 << 10)),
    ns("switch 16 p/0K", || switching::ring(16, 0)),
    ns("switch 16 p/16K", || switching::ring(16, 16 << 10)),
    ns("switch 16 p/64K", || switching::ring(16, 64 << 10)),
    ns("pipe round trip", ipc::pipe_round_trip),
    ns("eventfd round trip", ipc::eventfd_round_trip),
    ns("unix round trip", ipc::unix_round_trip),
    ns("TCP round trip", ipc::tcp_round_trip),
    ns("UDP round trip", ipc::udp_round_trip),
    ns("TCP connect", ipc::tcp_connect),
    ns("futex wake none", switching::futex_wake_none),
    ns("futex round trip", switching::futex_round_trip),
    ns("semaphore alone", switching::semaphore_alone),
    ns("semaphore round trip", switching::semaphore_round_trip),
    ns("file read 4K", files::read_page),
    ns("file write 4K", files::write_page),
    ns("io_uring nop", uring::nop),
    ns("io_uring read 4K", uring::read_page),
    ns("fcntl lock+unlock", files::fcntl_lock),
    ns("create 0K", || files::create(0)),
    ns("delete 0K", || files::delete(0)),
    ns("create 10K", || files::create(10 << 10)),
    ns("delete 10K", || files::delete(10 << 10)),
    mb("pipe bandwidth", ipc::pipe_bandwidth),
    mb("unix bandwidth", ipc::unix_bandwidth),
    mb("TCP bandwidth", ipc::tcp_bandwidth),
    mb("file reread", files::reread),
    mb("mmap reread", memory::mmap_reread),
    mb("memory read", memory::read_bandwidth),
    mb("memory write", memory::write_bandwidth),
    mb("memory copy", memory::copy_bandwidth),
];

/// Seconds that a row may take.
const LIMIT: u32 = 60;

fn main() -> ExitCode {
    let filter = std::env::args().nth(1);
    if filter.as_deref() == Some("nothing") {
        return ExitCode::SUCCESS;
    }
    if filter.as_deref() == Some("start") {
        start::report();
        return ExitCode::SUCCESS;
    }
    if let (Some("counter"), Some(name)) = (filter.as_deref(), std::env::args().nth(2)) {
        start::counter(&name);
        return ExitCode::SUCCESS;
    }
    // Tells who started this that a program runs now, and on what.
    say(&format!("# {}", sys::kernel_release()));
    let folder = sys::enter_work_folder();
    for row in ROWS.iter().filter(|row| filter.as_ref().is_none_or(|text| row.name.contains(text.as_str()))) {
        run(row);
    }
    // Whoever runs this outside of a guest wants nothing left; if it fails, a few files stay.
    let _ = std::fs::remove_dir_all(folder);
    ExitCode::SUCCESS
}

/// Measures a row in a child, and says so here if the child could not.
fn run(row: &Row) {
    let pid = sys::child(|| {
        sys::lead_group();
        sys::end_after(LIMIT);
        let value = (row.measure)();
        let unit = match row.unit {
            Unit::Nanoseconds => "ns",
            Unit::Megabytes => "MB/s",
        };
        say(&format!("{}\t{value:.1}\t{unit}", row.name));
    });
    let status = sys::wait(pid);
    sys::kill_group(pid);
    if status != 0 {
        say(&format!("{}\t-\t{}", row.name, reason(status)));
    }
}

fn reason(status: c_int) -> String {
    match libc::WTERMSIG(status) {
        0 => format!("status {}", libc::WEXITSTATUS(status)),
        libc::SIGALRM => format!("took more than {LIMIT} s"),
        signal => format!("signal {signal}"),
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    // Nobody to tell if standard output is gone.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
