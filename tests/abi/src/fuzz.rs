//! Random system calls: every number, with random and boundary arguments. Only the kernel's
//! survival counts, so nothing is checked but that this program gets to its end.
//!
//! `abi-tests fuzz SECONDS [SEED]`: workers run as root and as nobody, each in a process that may
//! well kill itself; the seed of each is printed before it starts, and the same seed makes the
//! same calls.

use crate::sys::*;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const NUMBERS: u64 = 470;
const CALLS_PER_WORKER: u32 = 2000;
const WORKER_LIMIT: Duration = Duration::from_secs(5);

/// Calls that end the machine, or take the terminal of the user who watches.
const SKIPPED: &[i64] = &[
    libc::SYS_reboot,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_vhangup,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    // The workers' lives are the parent's business.
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_pidfd_send_signal,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_ptrace,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_writev,
    libc::SYS_prlimit64,
    // They would make the rest of the run meaningless.
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_exit_group,
    libc::SYS_exit,
    libc::SYS_pause,
];

/// A generator of numbers: xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Runs workers for a time.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let number = |index: usize| arguments.get(index).and_then(|text| text.parse::<u64>().ok());
    let Some(seconds) = number(0) else {
        eprintln!("usage: abi-tests fuzz SECONDS [SEED]");
        return ExitCode::from(2);
    };
    let seed = number(1).unwrap_or(1).max(1);
    let folder = std::env::temp_dir().join("abi-fuzz");
    let _ = std::fs::create_dir_all(&folder);
    set_mode(&folder, 0o777);
    let ends = Instant::now() + Duration::from_secs(seconds);
    let parallel = std::thread::available_parallelism().map_or(1, usize::from).max(2) as u64;
    let mut round = 0;
    while Instant::now() < ends {
        let pids: Vec<i32> = (0..parallel)
            .map(|index| {
                let own = seed.wrapping_add(round * parallel + index);
                println!("seed {own}");
                child(|| worker(own, own % 2 == 1, &folder))
            })
            .collect();
        reap(&pids);
        round += 1;
    }
    println!("survived {round} rounds of {parallel} workers from seed {seed}");
    ExitCode::SUCCESS
}

fn reap(pids: &[i32]) {
    let started = Instant::now();
    let mut left = pids.to_vec();
    while !left.is_empty() {
        match reap_any() {
            Some((pid, _)) => left.retain(|each| *each != pid),
            None if started.elapsed() > WORKER_LIMIT => left.iter().for_each(|pid| kill_session(*pid)),
            None => nap(2),
        }
    }
}

fn worker(seed: u64, as_nobody: bool, folder: &std::path::Path) -> i32 {
    unsafe { libc::setsid() };
    // A sandbox: what is made here stays here, and descriptors lead nowhere that matters.
    let _ = std::env::set_current_dir(folder);
    let null = open("/dev/null", libc::O_RDWR);
    use std::os::fd::AsRawFd;
    for fd in 0..3 {
        ok!(libc::dup2(null.as_raw_fd(), fd));
    }
    for (resource, limit) in [(libc::RLIMIT_NPROC, 50), (libc::RLIMIT_FSIZE, 16 << 20), (libc::RLIMIT_AS, 512 << 20)] {
        ok!(libc::setrlimit(resource, &libc::rlimit { rlim_cur: limit, rlim_max: limit }));
    }
    let (_reader, _writer) = pipe();
    let memory = map(64 << 10, libc::PROT_READ | libc::PROT_WRITE) as u64;
    if as_nobody {
        become_nobody();
    }
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    ok!(libc::alarm(4) as i32);
    for _ in 0..CALLS_PER_WORKER {
        call(&mut random, memory);
    }
    0
}

fn call(random: &mut Random, memory: u64) {
    let number = random.below(NUMBERS) as i64;
    if SKIPPED.contains(&number) {
        return;
    }
    // Fill a part of the buffer, so that structures in it are sometimes nearly right.
    for word in 0..16 {
        let value = argument(random, memory);
        unsafe { ((memory + word * 8) as *mut u64).write_volatile(value) };
    }
    let words: [u64; 6] = std::array::from_fn(|_| argument(random, memory));
    unsafe { libc::syscall(number, words[0], words[1], words[2], words[3], words[4], words[5]) };
}

fn argument(random: &mut Random, memory: u64) -> u64 {
    const BOUNDARIES: [u64; 20] = [
        0,
        1,
        2,
        3,
        4095,
        4096,
        4097,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        0x1_0000_0000,
        0x7fff_ffff_efff,
        0x7fff_ffff_f000,
        0x8000_0000_0000,
        0xffff_8000_0000_0000,
        0xffff_ffff_8000_0000,
        0x7fff_ffff_ffff_ffff,
        0x8000_0000_0000_0000,
        u64::MAX - 4095,
        u64::MAX,
    ];
    match random.below(8) {
        0 => BOUNDARIES[random.below(20) as usize],
        1 => random.below(16),
        2 => memory + random.below(64 << 10),
        3 => memory,
        4 => memory + (64 << 10) - random.below(16),
        5 => 1 << random.below(64),
        6 => random.below(8),
        _ => random.next(),
    }
}
