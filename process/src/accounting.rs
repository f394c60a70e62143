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

/// What all processes of a user have together.
pub struct User {
    uid: u32,
    tasks: AtomicUsize,
    signals: AtomicUsize,
}

static USERS: SpinLock<BTreeMap<u32, Arc<User>>> = SpinLock::new(BTreeMap::new());

impl User {
    /// The user with number `uid`.
    pub fn of(uid: u32) -> Arc<User> {
        let mut users = USERS.lock();
        users.retain(|_, user| Arc::strong_count(user) > 1 || user.uid == uid);
        let new = || Arc::new(User { uid, tasks: AtomicUsize::new(0), signals: AtomicUsize::new(0) });
        users.entry(uid).or_insert_with(new).clone()
    }

    /// The tasks now, for RLIMIT_NPROC.
    pub fn tasks(&self) -> usize {
        self.tasks.load(Ordering::Relaxed)
    }

    /// The signals that are queued for it, and the timers that will queue one, for RLIMIT_SIGPENDING.
    pub fn signals(&self) -> usize {
        self.signals.load(Ordering::Relaxed)
    }
}

/// One task of a user; counts down when dropped.
pub struct UserTask(Arc<User>);

impl UserTask {
    /// Counts one more.
    pub fn new(user: Arc<User>) -> UserTask {
        user.tasks.fetch_add(1, Ordering::Relaxed);
        UserTask(user)
    }

    /// The user.
    pub fn user(&self) -> &Arc<User> {
        &self.0
    }
}

impl Drop for UserTask {
    fn drop(&mut self) {
        self.0.tasks.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Room for one queued signal of a user; counts down when dropped.
pub struct QueuedSignal(Arc<User>);

impl QueuedSignal {
    /// Counts one more; nothing if the user has `limit` already. Callable with interrupts off.
    pub fn new(user: &Arc<User>, limit: u64) -> Option<QueuedSignal> {
        let more = |queued: usize| ((queued as u64) < limit).then_some(queued + 1);
        user.signals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(QueuedSignal(user.clone()))
    }
}

impl Drop for QueuedSignal {
    fn drop(&mut self) {
        self.0.signals.fetch_sub(1, Ordering::Relaxed);
    }
}
