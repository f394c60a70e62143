//! Who has to go when memory is exhausted.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use crate::signal::{SIGKILL, SigInfo, send};
use crate::{Process, tree};

/// `oom_score_adj` that spares a process.
const NEVER: i64 = -1000;

/// How much a process weighs: 0 (spared) to 2000, its share of memory in thousandths and its adjustment.
pub fn score(process: &Process) -> i64 {
    let adjust = i64::from(process.oom_score_adj.load(Ordering::Relaxed));
    if process.is_init() || adjust == NEVER {
        return 0;
    }
    let Some(space) = process.address_space() else { return 0 };
    let usage = space.usage();
    let pages = usage.rss_anon + usage.rss_shmem + usage.rss_file + usage.page_tables;
    let total = (mm::frames::stats().total / abi::PAGE_SIZE as u64).max(1);
    let share = (pages as u64 * 1000 / total) as i64;
    (share + adjust).clamp(i64::from(adjust > NEVER), 2000)
}

/// Before a system call while memory is critical: gives up processes until it is better. The kernel itself must not run out, since not
/// all that it allocates can be refused.
#[cold]
pub fn relieve(task: &crate::Task) {
    const ROUNDS: usize = 100;
    const PAUSE: base::Nanos = 5_000_000;
    for _ in 0..ROUNDS {
        if mm::frames::pressure() < mm::frames::Pressure::Critical || task.is_dying() || !kill_one() {
            return;
        }
        sched::thread::sleep_until(sched::Sleep::Killable, sched::time::now() + PAUSE);
    }
}

/// Kills the process that weighs most; false if there is none to kill. May sleep.
pub fn kill_one() -> bool {
    let weigh = |process: Arc<Process>| (score(&process), process);
    let victim =
        tree::processes().into_iter().map(weigh).filter(|(score, _)| *score > 0).max_by_key(|(score, _)| *score);
    let Some((score, victim)) = victim else { return false };
    // One that was chosen before may need a while to go.
    if victim.exit_status().is_some() {
        return true;
    }
    log::warn!("out of memory: process {} (score {score}) is killed", victim.pid());
    send::to_process(&victim, SigInfo::kernel(SIGKILL)).is_ok()
}
