//! `/proc/sys`.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicU64, Ordering};

use base::Errno;
use hal::sync::{Once, SpinLock};
use mm::overcommit;

use crate::lease::BREAK_SECONDS;
use crate::procfs::system::{SystemNumbers, fixed, numbers};
use crate::procfs::{FixedDir, Listed, Node, ProcDir, dir, file, file_rw};

fn uuid(bytes: [u8; 16]) -> Vec<u8> {
    let mut bytes = bytes;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut out = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        out.push_str(&format!("{byte:02x}"));
    }
    out.push('\n');
    out.into_bytes()
}

fn random_uuid() -> Vec<u8> {
    let mut bytes = [0; 16];
    hal::random::fill(&mut bytes);
    uuid(bytes)
}

static REGISTERED: SpinLock<Vec<(&'static str, &'static str, Node)>> = SpinLock::new(Vec::new());

/// Adds an entry to a directory of `/proc/sys` that is here: `kernel`, `fs`, `vm` or `net`. At boot.
pub fn register_sysctl(directory: &'static str, name: &'static str, node: Node) {
    REGISTERED.lock().push((directory, name, node));
}

/// A directory of what is said here and what is registered for it.
struct Settings {
    name: &'static str,
    own: Vec<(&'static str, Node)>,
}

impl Settings {
    fn entries(&self) -> FixedDir {
        let mut entries = self.own.clone();
        let registered = REGISTERED.lock();
        let here = registered.iter().filter(|(directory, ..)| *directory == self.name);
        entries.extend(here.map(|(_, name, node)| (*name, node.clone())));
        drop(registered);
        entries.sort_by_key(|(name, _)| *name);
        FixedDir(entries)
    }
}

impl ProcDir for Settings {
    fn lookup(&self, name: &[u8]) -> Option<Node> {
        self.entries().lookup(name)
    }

    fn list(&self, position: u64, emit: &mut dyn FnMut(&Listed) -> bool) -> u64 {
        self.entries().list(position, emit)
    }

    fn is_fixed(&self, name: &[u8]) -> bool {
        self.lookup(name).is_some()
    }
}

fn directory(name: &'static str, own: Vec<(&'static str, Node)>) -> Node {
    Node::dir_of(Settings { name, own })
}

/// `/proc/sys`. What is here says how things are; only what can be changed is writable.
pub(super) fn tree() -> Node {
    dir(vec![("fs", limits()), ("kernel", kernel()), ("net", net()), ("vm", memory())])
}

fn kernel() -> Node {
    let host_name = file_rw(
        || {
            let mut name = numbers()?.host_name();
            name.push(b'\n');
            Ok(name)
        },
        |data| numbers()?.set_host_name(data.split(|&b| b == b'\n').next().unwrap_or_default()),
    );
    static BOOT_ID: Once<Vec<u8>> = Once::new();
    let boot_id = file(|| Ok(BOOT_ID.get_or_init(random_uuid).clone()));
    let random = dir(vec![
        ("boot_id", boot_id),
        ("uuid", file(|| Ok(random_uuid()))),
        ("entropy_avail", fixed("256\n")),
        ("poolsize", fixed("256\n")),
    ]);
    let lines = |text: fn(&dyn SystemNumbers) -> String| file(move || Ok((text(&**numbers()?) + "\n").into_bytes()));
    directory(
        "kernel",
        vec![
            ("cap_last_cap", fixed("40\n")),
            ("core_pattern", fixed("core\n")),
            ("core_uses_pid", fixed("0\n")),
            ("dmesg_restrict", fixed("0\n")),
            ("domainname", fixed("(none)\n")),
            ("hostname", host_name),
            ("kptr_restrict", fixed("0\n")),
            ("ngroups_max", fixed("65536\n")),
            ("osrelease", lines(|n| n.release().into())),
            ("ostype", fixed("Linux\n")),
            ("overflowgid", fixed("65534\n")),
            ("overflowuid", fixed("65534\n")),
            ("perf_event_paranoid", fixed("4\n")),
            ("pid_max", lines(|n| format!("{}", n.pid_max()))),
            ("pty", dir(vec![("max", fixed("4096\n"))])),
            ("random", random),
            ("randomize_va_space", fixed("2\n")),
            (
                "seccomp",
                dir(vec![
                    ("actions_avail", fixed("kill_process kill_thread trap errno user_notif trace log allow\n")),
                    ("actions_logged", fixed("kill_process kill_thread trap errno user_notif trace log\n")),
                ]),
            ),
            ("sched_rr_timeslice_ms", fixed("100\n")),
            ("threads-max", file(|| Ok(format!("{}\n", mm::frames::stats().total / (1 << 17)).into_bytes()))),
            ("version", lines(|n| n.version().into())),
        ],
    )
}

/// `drop_caches`: written 1, clean pages of files on disks go, written 2, names and inodes that nobody uses, written 3 both.
fn drop_caches() -> Node {
    let write = |data: &[u8]| {
        let which = data.trim_ascii();
        if !matches!(which, b"1" | b"2" | b"3" | b"4") {
            return Err(Errno::EINVAL);
        }
        if matches!(which, b"1" | b"3") {
            mm::drop_clean();
        }
        if matches!(which, b"2" | b"3") {
            crate::writeback::prune();
        }
        Ok(())
    };
    file_rw(|| Ok(b"0\n".to_vec()), write).mode(0o200)
}

/// A number that can be changed within `range`. `EINVAL` for what is outside, or no number.
pub fn number(value: &'static AtomicU64, range: RangeInclusive<u64>) -> Node {
    let read = || Ok(format!("{}\n", value.load(Ordering::Relaxed)).into_bytes());
    let write = move |data: &[u8]| {
        let text = core::str::from_utf8(data.trim_ascii()).map_err(|_| Errno::EINVAL)?;
        let new = text.parse().ok().filter(|new| range.contains(new)).ok_or(Errno::EINVAL)?;
        value.store(new, Ordering::Relaxed);
        Ok(())
    };
    file_rw(read, write).mode(0o644)
}

/// An `int` of C that is not negative.
const INT: RangeInclusive<u64> = 0..=i32::MAX as u64;
/// An `unsigned long` of C.
const LONG: RangeInclusive<u64> = 0..=u64::MAX;

fn memory() -> Node {
    directory(
        "vm",
        vec![
            ("dirty_background_ratio", fixed("10\n")),
            ("dirty_expire_centisecs", fixed("3000\n")),
            ("dirty_ratio", fixed("20\n")),
            ("dirty_writeback_centisecs", fixed("500\n")),
            ("drop_caches", drop_caches()),
            ("admin_reserve_kbytes", number(&overcommit::ADMIN_RESERVE, LONG)),
            ("max_map_count", number(&overcommit::MAX_MAPPINGS, INT)),
            ("mmap_min_addr", fixed("65536\n")),
            ("overcommit_kbytes", number(&overcommit::KBYTES, LONG)),
            ("overcommit_memory", number(&overcommit::POLICY, overcommit::GUESS..=overcommit::NEVER)),
            ("overcommit_ratio", number(&overcommit::RATIO, INT)),
            ("swappiness", fixed("60\n")),
            ("user_reserve_kbytes", number(&overcommit::USER_RESERVE, LONG)),
        ],
    )
}

fn limits() -> Node {
    directory(
        "fs",
        vec![
            ("aio-max-nr", fixed("65536\n")),
            ("file-max", fixed("9223372036854775807\n")),
            (
                "inotify",
                dir(vec![
                    ("max_queued_events", fixed("16384\n")),
                    ("max_user_instances", fixed("128\n")),
                    ("max_user_watches", fixed("65536\n")),
                ]),
            ),
            ("lease-break-time", number(&BREAK_SECONDS, INT)),
            ("leases-enable", fixed("1\n")),
            ("mount-max", fixed("100000\n")),
            ("nr_open", fixed("1048576\n")),
            ("pipe-max-size", fixed("1048576\n")),
            ("protected_fifos", fixed("0\n")),
            ("protected_hardlinks", fixed("0\n")),
            ("protected_regular", fixed("0\n")),
            ("protected_symlinks", fixed("0\n")),
        ],
    )
}

fn net() -> Node {
    let unix = dir(vec![("max_dgram_qlen", fixed("10\n"))]);
    directory("net", vec![("unix", unix)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_of_version_4() {
        let text = uuid([0xff; 16]);
        assert_eq!(text, b"ffffffff-ffff-4fff-bfff-ffffffffffff\n");
    }
}
