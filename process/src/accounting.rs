//! What processes have used: times, faults, and how many tasks each user has.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};

use base::Nanos;
use hal::sync::SpinLock;
use sched::thread::Times;
use sched::transfers::Transfers;

/// Sums of dead threads or of waited-for children.
#[derive(Clone, Copy, Default, Debug)]
pub struct Used {
    /// Time in user mode.
    pub user: Nanos,
    /// Time in the kernel.
    pub system: Nanos,
    /// Switches because of a sleep.
    pub voluntary: u64,
    /// Switches because of preemption.
    pub involuntary: u64,
    /// Page faults that needed no input.
    pub minor_faults: u64,
    /// Page faults that needed input.
    pub major_faults: u64,
    /// The largest resident set, in KiB.
    pub max_rss: u64,
    /// What it read and wrote.
    pub transfers: Transfers,
}

impl Used {
    /// Nothing.
    pub const NONE: Used = Used {
        user: 0,
        system: 0,
        voluntary: 0,
        involuntary: 0,
        minor_faults: 0,
        major_faults: 0,
        max_rss: 0,
        transfers: Transfers::NONE,
    };

    /// Adds what a thread has used.
    pub fn add_times(&mut self, times: &Times) {
        self.user += times.user;
        self.system += times.system;
        self.voluntary += times.voluntary;
        self.involuntary += times.involuntary;
        self.transfers += times.transfers;
    }

    /// Adds what another has used.
    pub fn add(&mut self, other: &Used) {
        self.user += other.user;
        self.system += other.system;
        self.voluntary += other.voluntary;
        self.involuntary += other.involuntary;
        self.minor_faults += other.minor_faults;
        self.major_faults += other.major_faults;
        self.max_rss = self.max_rss.max(other.max_rss);
        self.transfers += other.transfers;
    }

    /// User and system time together.
    pub fn total(&self) -> Nanos {
        self.user + self.system
    }
}

/// Clock ticks per second, as user space sees them (`USER_HZ`).
pub const TICKS_PER_SEC: u64 = 100;

/// Nanoseconds as clock ticks.
pub const fn to_ticks(nanos: Nanos) -> u64 {
    nanos / (base::NANOS_PER_SEC / TICKS_PER_SEC)
}

/// How many tasks a user has, for RLIMIT_NPROC.
pub struct UserTasks {
    uid: u32,
    tasks: AtomicUsize,
}

static USERS: SpinLock<BTreeMap<u32, Arc<UserTasks>>> = SpinLock::new(BTreeMap::new());

impl UserTasks {
    /// The count of user `uid`.
    pub fn of(uid: u32) -> Arc<UserTasks> {
        let mut users = USERS.lock();
        users.retain(|_, user| Arc::strong_count(user) > 1 || user.uid == uid);
        users.entry(uid).or_insert_with(|| Arc::new(UserTasks { uid, tasks: AtomicUsize::new(0) })).clone()
    }

    /// The tasks now.
    pub fn count(&self) -> usize {
        self.tasks.load(Ordering::Relaxed)
    }
}

/// One task of a user; counts down when dropped.
pub struct UserTask(Arc<UserTasks>);

impl UserTask {
    /// Counts one more.
    pub fn new(user: Arc<UserTasks>) -> UserTask {
        user.tasks.fetch_add(1, Ordering::Relaxed);
        UserTask(user)
    }
}

impl Drop for UserTask {
    fn drop(&mut self) {
        self.0.tasks.fetch_sub(1, Ordering::Relaxed);
    }
}
