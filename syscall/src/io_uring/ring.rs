//! A ring: its parts, and it as a file.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use base::{Cred, Errno, Events, Result};
use fs::{File, Mapping, OpenFile, OpenFlags, PollTable};
use hal::sync::SpinLock;
use ipc::io_uring::abi::{Cqe, Setup};
use ipc::io_uring::buffers::Groups;
use ipc::io_uring::completion::Completions;
use ipc::io_uring::resources::{Buffers, Files, Resource, Untag};
use ipc::io_uring::rings::{Rings, sq_flag};
use sched::{Mutex, WaitQueue};

use super::cancel;
use super::request::Request;
use super::sq_thread::SqThread;
use super::workers::{ReadyList, Workers};

/// What is registered with a ring.
#[derive(Default)]
pub(super) struct Resources {
    pub(super) files: Option<Files>,
    pub(super) buffers: Option<Buffers>,
    pub(super) groups: Groups,
    pub(super) personalities: BTreeMap<u16, Arc<Cred>>,
    pub(super) next_personality: u16,
    pub(super) restrictions: Option<Restrictions>,
}

/// What a restricted ring may do (IORING_REGISTER_RESTRICTIONS), a bit for each opcode.
#[derive(Clone, Copy, Default)]
pub(super) struct Restrictions {
    pub(super) register: u64,
    pub(super) operations: u64,
    pub(super) flags_allowed: u8,
    pub(super) flags_required: u8,
}

/// A ring.
pub(super) struct Ring {
    pub(super) me: Weak<Ring>,
    pub(super) rings: Rings,
    pub(super) completions: Completions,
    pub(super) flags: Setup,
    /// Held while submissions are taken.
    pub(super) submission: Mutex<()>,
    /// How many were taken.
    pub(super) head: AtomicU32,
    pub(super) resources: Mutex<Resources>,
    pub(super) restricted: AtomicBool,
    pub(super) disabled: AtomicBool,
    /// The address of the task that may submit (SINGLE_ISSUER); 0 for any.
    pub(super) issuer: AtomicUsize,
    /// Requests under way, by what the program calls them and number.
    pub(super) live: SpinLock<BTreeMap<(u64, u64), Arc<Request>>>,
    pub(super) next_number: AtomicU64,
    /// Requests that have been begun and not completed: what a drain waits for.
    pub(super) begun: AtomicUsize,
    /// How many requests have completed, silent ones too, and how many calls wait for that (IORING_REGISTER_SYNC_CANCEL).
    pub(super) ended: AtomicU64,
    pub(super) syncs: AtomicUsize,
    /// Heads of chains that wait for others to drain.
    pub(super) drained: SpinLock<VecDeque<Arc<Request>>>,
    /// The next to be submitted waits for the chain before it.
    pub(super) drains_next: AtomicBool,
    /// A request asked for no completion: draining is refused from then on.
    pub(super) skips: AtomicBool,
    /// Timeouts that also end after a number of completions.
    pub(super) counted: SpinLock<Vec<Arc<Request>>>,
    /// How many timeouts have completed: completions that timeouts don't count.
    pub(super) timeouts: AtomicU32,
    /// What is ready to be carried on in io_uring_enter(2) (DEFER_TASKRUN, or because its process has ended), and who waits there.
    pub(super) deferred: ReadyList,
    pub(super) deferred_wait: WaitQueue,
    /// The program's eventfd is to be told of that.
    pub(super) owes_event: AtomicBool,
    pub(super) sq_thread: SpinLock<Option<Arc<SqThread>>>,
    /// The program's last descriptor and mapping are gone.
    pub(super) closed: AtomicBool,
    /// IORING_REGISTER_IOWQ_MAX_WORKERS.
    pub(super) max_workers: [AtomicI32; 2],
}

static ALL: SpinLock<Vec<Weak<Ring>>> = SpinLock::new(Vec::new());

/// All rings there are.
pub(super) fn all() -> Vec<Arc<Ring>> {
    ALL.lock().iter().filter_map(Weak::upgrade).collect()
}

impl Ring {
    pub(super) fn new(rings: Rings, flags: Setup) -> Arc<Ring> {
        let ring = Arc::new_cyclic(|me: &Weak<Ring>| Ring {
            me: me.clone(),
            rings,
            completions: Completions::new(),
            flags,
            submission: Mutex::default(),
            head: AtomicU32::new(0),
            resources: Mutex::default(),
            restricted: AtomicBool::new(false),
            disabled: AtomicBool::new(flags.contains(Setup::R_DISABLED)),
            issuer: AtomicUsize::new(0),
            live: SpinLock::new(BTreeMap::new()),
            next_number: AtomicU64::new(1),
            begun: AtomicUsize::new(0),
            ended: AtomicU64::new(0),
            syncs: AtomicUsize::new(0),
            drained: SpinLock::new(VecDeque::new()),
            drains_next: AtomicBool::new(false),
            skips: AtomicBool::new(false),
            counted: SpinLock::new(Vec::new()),
            timeouts: AtomicU32::new(0),
            deferred: ReadyList::default(),
            deferred_wait: WaitQueue::new(),
            owes_event: AtomicBool::new(false),
            sq_thread: SpinLock::new(None),
            closed: AtomicBool::new(false),
            max_workers: [const { AtomicI32::new(0) }; 2],
        });
        let mut all = ALL.lock();
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&ring));
        ring
    }

    /// The ring behind an open file. `EOPNOTSUPP`.
    pub(super) fn of(open: &OpenFile) -> Result<Arc<Ring>> {
        open.file().downcast::<RingFile>().map(|file| file.0.clone()).ok_or(Errno::EOPNOTSUPP)
    }

    /// The registered file in that slot. `EBADF`.
    pub(super) fn registered_file(&self, slot: i32) -> Result<Arc<Resource<Arc<OpenFile>>>> {
        let index = usize::try_from(slot).map_err(|_| Errno::EBADF)?;
        let resources = self.resources.lock();
        resources.files.as_ref().and_then(|files| files.get(index)).ok_or(Errno::EBADF)
    }

    /// Posts a completion.
    pub(super) fn post(&self, cqe: Cqe, from_submitter: bool) {
        self.completions.post(&self.rings, cqe, from_submitter);
        super::timeout::count(self);
    }

    /// IORING_SQ_TASKRUN, where the program wants to be told.
    pub(super) fn taskrun_flag(&self) -> u32 {
        if self.flags.contains(Setup::TASKRUN_FLAG) { sq_flag::TASKRUN } else { 0 }
    }

    /// Ends the thread that submits, if it works for that process.
    pub(super) fn end_sq_thread(&self, workers: &Arc<Workers>) {
        let thread = self.sq_thread.lock().clone();
        if let Some(thread) = thread.filter(|thread| thread.works_for(workers)) {
            thread.end();
        }
    }
}

/// The file that descriptors of a ring refer to.
pub(super) struct RingFile(pub(super) Arc<Ring>);

impl File for RingFile {
    fn poll(&self, table: &mut PollTable) -> Events {
        let ring = &self.0;
        table.register(&ring.completions.waiters);
        let mut ready = Events::empty();
        if ring.rings.submitted(ring.head.load(Ordering::Relaxed)) < ring.rings.sq_entries() {
            ready |= Events::WRITABLE;
        }
        if ring.completions.ready(&ring.rings) > 0 || ring.completions.has_overflow() || !ring.deferred.is_empty() {
            ready |= Events::READABLE;
        }
        ready
    }

    fn mapping_of(&self, offset: u64, len: usize) -> Result<Mapping> {
        self.0.rings.mapping(offset, len).map(Mapping::Pages)
    }

    fn release(&self, _flags: OpenFlags) {
        self.0.closed.store(true, Ordering::SeqCst);
        let thread = self.0.sq_thread.lock().take();
        if let Some(thread) = thread {
            thread.detach(&self.0);
        }
        cancel::close(&self.0);
        let resources = core::mem::take(&mut *self.0.resources.lock());
        drop(resources);
        drop(self.0.completions.set_eventfd(None));
    }

    fn fdinfo(&self) -> Vec<u8> {
        let ring = &self.0;
        let line = alloc::format!(
            "SqMask:\t{:#x}\nSqHead:\t{}\nCqMask:\t{:#x}\nCqTail:\t{}\n",
            ring.rings.sq_entries() - 1,
            ring.head.load(Ordering::Relaxed),
            ring.rings.cq_entries() - 1,
            ring.completions.tail(),
        );
        line.into_bytes()
    }
}

/// Where completions with tags go.
pub(super) struct Tags(pub(super) Weak<Ring>);

impl Untag for Tags {
    fn untag(&self, tag: u64) {
        if let Some(ring) = self.0.upgrade()
            && !ring.closed.load(Ordering::SeqCst)
        {
            ring.post(Cqe { user_data: tag, ..Cqe::default() }, false);
        }
    }
}
