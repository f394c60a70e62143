//! `/proc/PID/status`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use base::Result;

use super::Subject;
use super::stat::usage;
use crate::rlimit::Resource;

fn state_name(letter: char) -> &'static str {
    match letter {
        'R' => "R (running)",
        'D' => "D (disk sleep)",
        'T' => "T (stopped)",
        't' => "t (tracing stop)",
        'Z' => "Z (zombie)",
        'X' => "X (dead)",
        'I' => "I (idle)",
        _ => "S (sleeping)",
    }
}

pub(super) fn status(subject: &Subject) -> Result<Vec<u8>> {
    let name = escape(&subject.task.comm_bytes());
    let mut text = identity(subject);
    text += &memory(subject);
    text += &signals(subject);
    text += &privileges(subject);
    text += &scheduling(subject);
    let head = format!("Name:\t{name}\n");
    Ok([head.as_bytes(), text.as_bytes()].concat())
}

/// A name in one line: backslashes and newlines are escaped, as Linux does.
fn escape(name: &[u8]) -> String {
    let mut out = String::new();
    for &byte in name {
        match byte {
            b'\n' => out += "\\n",
            b'\\' => out += "\\\\",
            0x20..0x7f => out.push(byte as char),
            byte => out += &format!("\\{byte:03o}"),
        }
    }
    out
}

fn identity(subject: &Subject) -> String {
    let (task, process) = (&subject.task, subject.process());
    let cred = task.cred();
    let tid = task.tid();
    let groups: String = cred.groups.iter().map(|group| format!("{group} ")).collect();
    let size = task.files_if_alive().map_or(0, |files| files.capacity());
    let mut text = format!(
        "Umask:\t{:04o}\nState:\t{}\n",
        task.fs_if_alive().map_or(0, |place| place.umask()),
        state_name(task.state_letter())
    );
    text += &format!(
        "Tgid:\t{}\nNgid:\t0\nPid:\t{tid}\nPPid:\t{}\nTracerPid:\t{}\n",
        process.pid(),
        process.ppid(),
        crate::ptrace::tracer_of(task)
    );
    text += &format!("Uid:\t{}\t{}\t{}\t{}\n", cred.uid, cred.euid, cred.suid, cred.fsuid);
    text += &format!("Gid:\t{}\t{}\t{}\t{}\n", cred.gid, cred.egid, cred.sgid, cred.fsgid);
    text += &format!("FDSize:\t{size}\nGroups:\t{groups}\n");
    text + &format!(
        "NStgid:\t{}\nNSpid:\t{tid}\nNSpgid:\t{}\nNSsid:\t{}\n",
        process.pid(),
        process.pgid(),
        process.sid()
    )
}

fn memory(subject: &Subject) -> String {
    // A zombie has no memory, and Linux then leaves the lines out.
    if subject.process().address_space().is_none() {
        return String::new();
    }
    let usage = usage(subject);
    let resident = usage.rss_anon + usage.rss_file + usage.rss_shmem;
    let executable = usage.text;
    let lines = [
        ("VmPeak", usage.peak_total),
        ("VmSize", usage.total),
        ("VmLck", usage.locked),
        ("VmPin", 0),
        ("VmHWM", usage.peak_rss.max(resident)),
        ("VmRSS", resident),
        ("RssAnon", usage.rss_anon),
        ("RssFile", usage.rss_file),
        ("RssShmem", usage.rss_shmem),
        ("VmData", usage.data),
        ("VmStk", usage.stack),
        ("VmExe", executable),
        ("VmLib", 0),
        ("VmPTE", usage.page_tables),
        ("VmSwap", 0),
        ("HugetlbPages", 0),
    ];
    let text: String = lines.iter().map(|(name, pages)| format!("{name}:\t{:>8} kB\n", pages * 4)).collect();
    text + "CoreDumping:\t0\nTHP_enabled:\t0\n"
}

fn signals(subject: &Subject) -> String {
    let (task, process) = (&subject.task, subject.process());
    let (ignored, caught) = process.actions().ignored_and_caught();
    let queued = process.queued_signals.load(Ordering::Relaxed);
    let limit = process.limit(Resource::Sigpending).soft;
    let mut text = format!("Threads:\t{}\nSigQ:\t{queued}/{limit}\n", process.thread_count());
    let sets = [
        ("SigPnd", task.own_pending()),
        ("ShdPnd", process.pending()),
        ("SigBlk", task.blocked()),
        ("SigIgn", ignored),
        ("SigCgt", caught),
    ];
    for (name, set) in sets {
        text += &format!("{name}:\t{:016x}\n", set.0);
    }
    text
}

fn privileges(subject: &Subject) -> String {
    let cred = subject.task.cred();
    let sets = [
        ("CapInh", cred.inheritable),
        ("CapPrm", cred.permitted),
        ("CapEff", cred.effective),
        ("CapBnd", cred.bounding),
        ("CapAmb", cred.ambient),
    ];
    let mut text: String = sets.iter().map(|(name, set)| format!("{name}:\t{:016x}\n", set.bits())).collect();
    let (mode, filters) = (subject.task.seccomp().number(), crate::seccomp::count(&subject.task));
    text += &format!("NoNewPrivs:\t{}\nSeccomp:\t{mode}\nSeccomp_filters:\t{filters}\n", u8::from(cred.no_new_privs));
    text
}

fn scheduling(subject: &Subject) -> String {
    let thread = subject.task.thread();
    let count = hal::cpu::count();
    let online = if count >= 64 { u64::MAX } else { (1 << count) - 1 };
    let mask = thread.as_ref().map_or(online, |thread| thread.affinity()) & online;
    let times = thread.map(|thread| thread.times()).unwrap_or_default();
    let digits = count.div_ceil(4).max(1);
    let mut text = format!("Cpus_allowed:\t{mask:0digits$x}\nCpus_allowed_list:\t{}\n", ranges(mask));
    text += "Mems_allowed:\t1\nMems_allowed_list:\t0\n";
    text + &format!(
        "voluntary_ctxt_switches:\t{}\nnonvoluntary_ctxt_switches:\t{}\n",
        times.voluntary, times.involuntary
    )
}

/// A set of processors as `0-2,5`.
fn ranges(mask: u64) -> String {
    let mut text = String::new();
    let mut cpu = 0;
    while cpu < 64 {
        if mask >> cpu & 1 == 0 {
            cpu += 1;
            continue;
        }
        let run = (!(mask >> cpu)).trailing_zeros().max(1);
        if !text.is_empty() {
            text.push(',');
        }
        text += &if run == 1 { format!("{cpu}") } else { format!("{cpu}-{}", cpu + run - 1) };
        cpu += run;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_sets_are_shown_as_ranges() {
        assert_eq!(ranges(0b1), "0");
        assert_eq!(ranges(0b100111), "0-2,5");
        assert_eq!(ranges(u64::MAX), "0-63");
        assert_eq!(ranges(0), "");
    }

    #[test]
    fn names_stay_on_one_line() {
        assert_eq!(escape(b"a b\n\\"), "a b\\n\\\\");
    }
}
