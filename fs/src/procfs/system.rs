//! The files of `/proc` that are about the system as a whole: what free, top, vmstat and uptime read.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use base::{Errno, NANOS_PER_SEC, Nanos, Result};
use hal::sync::Once;
use sched::statistics::{self, DEFERRED};

use crate::procfs::{Node, file, link, register_root};
use crate::{LinkTarget, chardev, vfs};

/// Numbers and names that layers above know.
pub trait SystemNumbers: Send + Sync {
    /// Processes and threads made since boot.
    fn forks(&self) -> u64;
    /// Threads that there are.
    fn threads(&self) -> usize;
    /// The number given last.
    fn last_pid(&self) -> i32;
    /// One more than the highest number.
    fn pid_max(&self) -> i32;
    /// The host's name.
    fn host_name(&self) -> Vec<u8>;
    /// Changes the host's name. `EINVAL`.
    fn set_host_name(&self, name: &[u8]) -> Result<()>;
    /// The release of uname(2).
    fn release(&self) -> &'static str;
    /// The version of uname(2).
    fn version(&self) -> &'static str;
}

static NUMBERS: Once<Arc<dyn SystemNumbers>> = Once::new();

/// Sets who knows the numbers. Once, at boot.
pub fn set_numbers(numbers: Arc<dyn SystemNumbers>) {
    assert!(NUMBERS.set(numbers).is_ok(), "the system's numbers are set twice");
}

pub(super) fn numbers() -> Result<&'static Arc<dyn SystemNumbers>> {
    NUMBERS.get().ok_or(Errno::EIO)
}

/// Nanoseconds as ticks of USER_HZ (100 a second).
fn ticks(nanos: Nanos) -> u64 {
    nanos / (NANOS_PER_SEC / 100)
}

fn meminfo() -> Result<Vec<u8>> {
    let m = mm::frames::stats();
    let page = abi::PAGE_SIZE as u64;
    let dirty = mm::dirty_figures();
    let buffers: u64 = crate::block::list().iter().map(|device| device.cache().pages() as u64 * page).sum();
    // What could be had without swapping: nothing in a page cache without a device behind it can be dropped.
    let available = m.free;
    let lines: [(&str, u64); 29] = [
        ("MemTotal", m.total),
        ("MemFree", m.free),
        ("MemAvailable", available),
        ("Buffers", buffers),
        ("Cached", m.cached.saturating_sub(buffers)),
        ("SwapCached", 0),
        ("Active", m.anonymous),
        ("Inactive", m.cached),
        ("Active(anon)", m.anonymous),
        ("Inactive(anon)", m.shmem),
        ("Active(file)", 0),
        ("Inactive(file)", m.cached.saturating_sub(m.shmem)),
        ("Unevictable", 0),
        ("Mlocked", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", dirty.dirty as u64 * page),
        ("Writeback", dirty.writing as u64 * page),
        ("AnonPages", m.anonymous),
        ("Mapped", 0),
        ("Shmem", m.shmem),
        ("KReclaimable", 0),
        ("Slab", m.slab),
        ("SReclaimable", 0),
        ("SUnreclaim", m.slab),
        ("KernelStack", m.kernel_stacks),
        ("PageTables", m.page_tables),
        ("CommitLimit", mm::overcommit::limit()),
        ("Committed_AS", mm::overcommit::promised()),
    ];
    let mut out = String::new();
    for (name, bytes) in lines {
        out.push_str(&format!("{:<15} {:>8} kB\n", format!("{name}:"), bytes / 1024));
    }
    Ok(out.into_bytes())
}

fn stat() -> Result<Vec<u8>> {
    let line = |name: &str, t: statistics::CpuTimes| {
        format!("{name} {} {} {} {} 0 0 0 0 0 0\n", ticks(t.user), ticks(t.nice), ticks(t.system), ticks(t.idle))
    };
    let mut sum = statistics::CpuTimes::default();
    let mut each = String::new();
    for cpu in 0..hal::cpu::count() {
        let t = statistics::cpu_times(cpu);
        sum.user += t.user;
        sum.nice += t.nice;
        sum.system += t.system;
        sum.idle += t.idle;
        each.push_str(&line(&format!("cpu{cpu}"), t));
    }
    let kinds = deferred_of_all();
    let mut deferred = format!("{}", kinds.iter().sum::<u64>());
    kinds.iter().for_each(|count| deferred.push_str(&format!(" {count}")));
    let mut interrupts = 0;
    hal::irq::for_each_count(|_, _, _, count| interrupts += count);
    let mut out = line("cpu ", sum);
    out.push_str(&each);
    let booted = sched::time::realtime().saturating_sub(sched::time::now()) / NANOS_PER_SEC;
    let forks = numbers().map_or(0, |n| n.forks());
    out.push_str(&format!(
        "intr {interrupts}\nctxt {}\nbtime {booted}\nprocesses {forks}\nprocs_running {}\nprocs_blocked 0\nsoftirq {deferred}\n",
        statistics::switches(),
        statistics::runnable().max(1),
    ));
    Ok(out.into_bytes())
}

/// Work that interrupts have deferred, by kind, on all processors.
fn deferred_of_all() -> [u64; DEFERRED.len()] {
    let mut sum = [0; DEFERRED.len()];
    for cpu in 0..hal::cpu::count() {
        sum.iter_mut().zip(statistics::deferred(cpu)).for_each(|(sum, count)| *sum += count);
    }
    sum
}

fn softirqs() -> Result<Vec<u8>> {
    let cpus = hal::cpu::count();
    let mut out = String::from("                    ");
    (0..cpus).for_each(|cpu| out.push_str(&format!("CPU{cpu:<8}")));
    for (kind, name) in DEFERRED.iter().enumerate() {
        out.push_str(&format!("\n{name:>12}:"));
        (0..cpus).for_each(|cpu| out.push_str(&format!(" {:10}", statistics::deferred(cpu)[kind])));
    }
    out.push('\n');
    Ok(out.into_bytes())
}

fn uptime() -> Result<Vec<u8>> {
    let hundredths = |nanos: Nanos| format!("{}.{:02}", nanos / NANOS_PER_SEC, nanos / 10_000_000 % 100);
    let idle = (0..hal::cpu::count()).map(|cpu| statistics::cpu_times(cpu).idle).sum();
    Ok(format!("{} {}\n", hundredths(sched::time::now()), hundredths(idle)).into_bytes())
}

fn loadavg() -> Result<Vec<u8>> {
    let [one, five, fifteen] = statistics::load_averages().map(|n| format!("{}.{:02}", n / 100, n % 100));
    let n = numbers()?;
    Ok(format!("{one} {five} {fifteen} {}/{} {}\n", statistics::runnable().max(1), n.threads(), n.last_pid())
        .into_bytes())
}

fn version() -> Result<Vec<u8>> {
    let n = numbers()?;
    Ok(format!("Linux version {} (quintet) (rustc) {}\n", n.release(), n.version()).into_bytes())
}

fn filesystems() -> Result<Vec<u8>> {
    let mut out = String::new();
    for kind in vfs::superblock::kinds() {
        out.push_str(&format!("{}\t{}\n", if kind.needs_device() { "" } else { "nodev" }, kind.name()));
    }
    Ok(out.into_bytes())
}

fn devices() -> Result<Vec<u8>> {
    let mut out = String::from("Character devices:\n");
    for (major, name) in chardev::list() {
        out.push_str(&format!("{major:3} {name}\n"));
    }
    out.push_str("\nBlock devices:\n");
    let mut last = None;
    for device in crate::block::list() {
        let major = device.number().major;
        if last.replace(major) != Some(major) {
            let name = device.name().trim_end_matches(|c: char| c.is_ascii_digit());
            out.push_str(&format!("{major:3} {}\n", if name.starts_with("vd") { "virtblk" } else { name }));
        }
    }
    Ok(out.into_bytes())
}

fn interrupts() -> Result<Vec<u8>> {
    let cpus = hal::cpu::count();
    let mut rows: Vec<(u8, &'static str, Vec<u64>)> = Vec::new();
    hal::irq::for_each_count(|vector, name, cpu, count| {
        let at = rows.iter().position(|row| row.0 == vector).unwrap_or_else(|| {
            rows.push((vector, name, vec![0; cpus]));
            rows.len() - 1
        });
        if let Some(slot) = rows[at].2.get_mut(cpu) {
            *slot += count;
        }
    });
    let mut out = String::from("    ");
    for cpu in 0..cpus {
        out.push_str(&format!("{:>11}", format!("CPU{cpu}")));
    }
    out.push('\n');
    for (vector, name, counts) in rows {
        out.push_str(&format!("{vector:3}:"));
        for count in counts {
            out.push_str(&format!(" {count:10}"));
        }
        out.push_str(&format!("  {name}\n"));
    }
    Ok(out.into_bytes())
}

fn buddyinfo() -> Result<Vec<u8>> {
    let mut out = String::from("Node 0, zone   Normal");
    for count in mm::frames::free_blocks() {
        out.push_str(&format!(" {count:6}"));
    }
    out.push('\n');
    Ok(out.into_bytes())
}

fn vmstat() -> Result<Vec<u8>> {
    let m = mm::frames::stats();
    let page = abi::PAGE_SIZE as u64;
    let dirty = mm::dirty_figures();
    let (paged_in, paged_out) = crate::block::report::kibibytes();
    let lines = [
        ("nr_free_pages", m.free / page),
        ("nr_anon_pages", m.anonymous / page),
        ("nr_file_pages", m.cached / page),
        ("nr_shmem", m.shmem / page),
        ("nr_slab_unreclaimable", m.slab / page),
        ("nr_page_table_pages", m.page_tables / page),
        ("nr_dirty", dirty.dirty as u64),
        ("nr_writeback", dirty.writing as u64),
        ("nr_dirtied", dirty.dirtied),
        ("nr_written", dirty.written),
        ("pgpgin", paged_in),
        ("pgpgout", paged_out),
        ("pswpin", 0),
        ("pswpout", 0),
    ];
    let mut out = String::new();
    for (name, value) in lines {
        out.push_str(&format!("{name} {value}\n"));
    }
    Ok(out.into_bytes())
}

/// A file whose content does not change.
pub(super) fn fixed(text: &'static str) -> Node {
    file(move || Ok(text.as_bytes().to_vec()))
}

fn to_self(target: &'static str) -> Node {
    link(move |_| Ok(LinkTarget::Path(target.as_bytes().to_vec())))
}

fn command_line() -> Result<Vec<u8>> {
    Ok(format!("{}\n", hal::boot::command_line()).into_bytes())
}

/// Adds them. Once, at boot.
pub fn register() {
    register_root("buddyinfo", file(buddyinfo));
    register_root("cgroups", fixed("#subsys_name\thierarchy\tnum_cgroups\tenabled\n"));
    register_root("cmdline", file(command_line));
    register_root("consoles", fixed("ttyS0                -W- (EC p a)    4:64\n"));
    register_root("cpuinfo", file(super::cpuinfo::read));
    register_root("devices", file(devices));
    register_root("diskstats", file(crate::block::report::diskstats));
    register_root("filesystems", file(filesystems));
    register_root("interrupts", file(interrupts));
    register_root("loadavg", file(loadavg));
    register_root("locks", file(|| Ok(crate::lock::all())));
    register_root("meminfo", file(meminfo));
    register_root("modules", fixed(""));
    register_root("mounts", to_self("self/mounts"));
    register_root("net", to_self("self/net"));
    register_root("partitions", file(crate::block::report::partitions));
    register_root("softirqs", file(softirqs));
    register_root("stat", file(stat));
    register_root("swaps", fixed("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"));
    register_root("sys", super::sysctl::tree());
    register_root("uptime", file(uptime));
    register_root("version", file(version));
    register_root("vmstat", file(vmstat));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_hundredths_of_a_second() {
        assert_eq!(ticks(NANOS_PER_SEC * 3 / 2), 150);
    }
}
