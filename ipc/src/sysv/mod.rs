//! System V message queues, semaphores and shared memory (sysvipc(7)).
//!
//! The three have one kind of name, a key, and one kind of handle, an identifier: [`registry`] has what they share. An object that is
//! removed lives on for those who are using it, and tells them.

pub mod message_queue;
pub mod registry;
mod report;
pub mod semaphore;
pub mod shared_memory;
pub mod undo;

use core::sync::atomic::{AtomicI32, AtomicU64};

use base::Cred;
use hal::sync::Once;

use message_queue::MessageQueue;
use registry::Registry;
use semaphore::SemaphoreSet;
use shared_memory::Segment;

/// Who makes a call.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// With which rights.
    pub cred: &'a Cred,
    /// The number of its process.
    pub pid: i32,
}

/// What an administrator sets in `/proc/sys/kernel`.
pub struct Limits {
    /// shmmax: bytes of a segment.
    pub shm_max: AtomicU64,
    /// shmall: pages of all segments.
    pub shm_all: AtomicU64,
    /// shmmni: segments.
    pub shm_count: AtomicI32,
    /// msgmax: bytes of a message.
    pub msg_max: AtomicI32,
    /// msgmnb: bytes in a queue.
    pub msg_bytes: AtomicI32,
    /// msgmni: queues.
    pub msg_count: AtomicI32,
    /// sem: semaphores of a set, semaphores of all, operations of a call, sets.
    pub sem: [AtomicI32; 4],
}

/// The objects that a group of processes sees (an IPC namespace, ipc_namespaces(7)).
pub struct Namespace {
    /// Message queues.
    pub queues: Registry<MessageQueue>,
    /// Semaphore sets.
    pub semaphores: Registry<SemaphoreSet>,
    /// Shared memory segments.
    pub segments: Registry<Segment>,
    /// The limits.
    pub limits: Limits,
}

impl Namespace {
    fn new() -> Namespace {
        Namespace {
            queues: Registry::new(),
            semaphores: Registry::new(),
            segments: Registry::new(),
            limits: Limits {
                shm_max: AtomicU64::new(shared_memory::MAX_DEFAULT),
                shm_all: AtomicU64::new(shared_memory::MAX_DEFAULT),
                shm_count: AtomicI32::new(4096),
                msg_max: AtomicI32::new(8192),
                msg_bytes: AtomicI32::new(16384),
                msg_count: AtomicI32::new(32000),
                sem: [32000, 1_024_000_000, 500, 32000].map(AtomicI32::new),
            },
        }
    }
}

/// The namespace of the first process.
pub fn initial() -> &'static Namespace {
    static INITIAL: Once<Namespace> = Once::new();
    INITIAL.get_or_init(Namespace::new)
}

/// Shows the objects in `/proc/sysvipc` and the limits in `/proc/sys/kernel`. Once, at boot.
pub(crate) fn register() {
    report::register();
}
