//! The files that are one line of numbers: `stat`, `statm`, `schedstat`, and `io`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use abi::PAGE_SIZE;
use base::Result;
use mm::Usage;
use sched::thread::{Params, Policy};

use super::Subject;
use crate::accounting::to_ticks;
use crate::rlimit::Resource;
use crate::{inspect, job_control};

/// Memory figures; all zero for a zombie.
pub(super) fn usage(subject: &Subject) -> Usage {
    subject.process().address_space().map_or_else(Usage::default, |space| space.usage())
}

fn resident(usage: &Usage) -> usize {
    usage.rss_anon + usage.rss_file + usage.rss_shmem
}

/// Priority as stat shows it: 0 to 39 for nice values, negative for real-time ones.
fn priority(params: &Params) -> i32 {
    match params.policy {
        Policy::Fifo | Policy::RoundRobin => -1 - i32::from(params.rt_priority),
        Policy::Other | Policy::Batch | Policy::Idle => 20 + i32::from(params.nice),
    }
}

const NORMAL: Params = Params { policy: Policy::Other, nice: 0, rt_priority: 0, reset_on_fork: false };

/// `syscall`: the number and arguments of the call that the thread is in (-1 if in none), its stack pointer and place; `running` for
/// one that no call holds.
pub(super) fn syscall(subject: &Subject) -> Result<Vec<u8>> {
    let own = crate::try_current().is_some_and(|task| alloc::sync::Arc::ptr_eq(&task, &subject.task));
    let thread = subject.task.thread().filter(|_| own || subject.task.state_letter() != 'R');
    let Some(regs) = thread.and_then(|thread| thread.task().user_regs()) else { return Ok(b"running\n".to_vec()) };
    let (call, place) = (regs.orig_rax.cast_signed(), format!("0x{:x} 0x{:x}\n", regs.rsp, regs.rip));
    if call == -1 {
        return Ok(format!("-1 {place}").into_bytes());
    }
    let arguments = [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9].map(|value| format!("0x{value:x}"));
    Ok(format!("{call} {} {place}", arguments.join(" ")).into_bytes())
}

pub(super) fn stat(subject: &Subject) -> Result<Vec<u8>> {
    let (task, process) = (&subject.task, subject.process());
    let used = if subject.thread { task.used() } else { process.used() };
    let children = process.children_used();
    let thread = task.thread();
    let params = thread.as_ref().map_or(NORMAL, |thread| thread.params());
    let cpu = thread.as_ref().map_or(0, |thread| thread.cpu());
    let usage = usage(subject);
    let (tty, foreground) = job_control::terminal_of(process.sid());
    let comm = task.comm_bytes();
    let head = format!("{} (", if subject.thread { task.tid() } else { process.pid() });
    let flags = 0x0040_0000;
    let threads = process.thread_count();
    let started = to_ticks(task.started);
    let limit = process.limit(Resource::Rss).soft;
    let mut tail = format!(
        ") {} {} {} {} {tty} {foreground} {flags} {} {} {} {} {} {} {} {} {} {} {threads} 0 {started} {} {} {limit}",
        task.state_letter(),
        process.ppid(),
        process.pgid(),
        process.sid(),
        used.minor_faults,
        children.minor_faults,
        used.major_faults,
        children.major_faults,
        to_ticks(used.user),
        to_ticks(used.system),
        to_ticks(children.user),
        to_ticks(children.system),
        priority(&params),
        params.nice,
        usage.total * PAGE_SIZE,
        resident(&usage),
    );
    tail += &addresses(subject, &params, cpu);
    Ok([head.as_bytes(), &comm, tail.as_bytes()].concat())
}

/// The second half of `stat`: addresses, signals and the processor.
fn addresses(subject: &Subject, params: &Params, cpu: usize) -> String {
    let (task, process) = (&subject.task, subject.process());
    let (ignored, caught) = process.actions().ignored_and_caught();
    // Addresses are for those who may look inside.
    let open = inspect::check_current(task).is_ok();
    let image = process.image();
    let show = |address: usize| if open { address } else { 0 };
    format!(
        " {} {} {} 0 0 {} {} {} {} 0 0 0 {} {cpu} {} {} 0 0 0 {} {} {} {} {} {} {} {}\n",
        if open { image.start_code } else { 1 },
        if open { image.end_code } else { 1 },
        show(image.start_stack),
        task.own_pending().0 & 0x7fff_ffff,
        task.blocked().0 & 0x7fff_ffff,
        ignored.0 & 0x7fff_ffff,
        caught.0 & 0x7fff_ffff,
        process.exit_signal.load(core::sync::atomic::Ordering::Relaxed),
        params.rt_priority,
        params.policy as u32,
        show(image.start_data),
        show(image.end_data),
        show(image.start_brk),
        show(image.arg_start),
        show(image.arg_end),
        show(image.env_start),
        show(image.env_end),
        if open { process.exit_status().unwrap_or(0) } else { 0 },
    )
}

pub(super) fn statm(subject: &Subject) -> Result<Vec<u8>> {
    let usage = usage(subject);
    let shared = usage.rss_file + usage.rss_shmem;
    let data = usage.data + usage.stack;
    Ok(format!("{} {} {shared} {} 0 {data} 0\n", usage.total, resident(&usage), usage.text).into_bytes())
}

pub(super) fn schedstat(subject: &Subject) -> Result<Vec<u8>> {
    let times = subject.task.thread().map(|thread| thread.times()).unwrap_or_default();
    let slices = times.voluntary + times.involuntary;
    Ok(format!("{} {} {slices}\n", times.user + times.system, times.waited).into_bytes())
}

pub(super) fn io(subject: &Subject) -> Result<Vec<u8>> {
    subject.check_alive()?;
    let moved = if subject.thread { subject.task.used() } else { subject.process().used() }.transfers;
    let lines = [
        ("rchar", moved.chars_read),
        ("wchar", moved.chars_written),
        ("syscr", moved.reads),
        ("syscw", moved.writes),
        ("read_bytes", moved.from_storage),
        ("write_bytes", moved.to_storage),
        ("cancelled_write_bytes", moved.cancelled),
    ];
    Ok(lines.iter().map(|(name, value)| format!("{name}: {value}\n")).collect::<String>().into_bytes())
}
