//! A submission on its way, and what wakes it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use base::{Cred, Errno, Events, Nanos, Result};
use fs::{OpenFile, PollTable};
use hal::sync::SpinLock;
use hal::user::UserBuf;
use ipc::io_uring::abi::{Sqe, SqeFlags};
use ipc::io_uring::buffers::Taken;
use ipc::io_uring::resources::Resource;
use process::Task;
use sched::timer::Timer;
use sched::{Mutex, Notify};

use super::ring::Ring;
use super::workers::Workers;

/// Where a request is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Stage {
    /// Not issued yet, or being issued.
    Issuing = 0,
    /// It waits to be woken.
    Waiting = 1,
    /// A worker has it, or will take it.
    Worker = 2,
    /// It has completed.
    Done = 3,
}

/// The file a request is about.
pub(super) enum FileRef {
    /// From the descriptor table.
    Open(Arc<OpenFile>),
    /// Registered.
    Registered(Arc<Resource<Arc<OpenFile>>>),
}

impl FileRef {
    pub(super) fn open(&self) -> &Arc<OpenFile> {
        match self {
            FileRef::Open(open) => open,
            FileRef::Registered(resource) => &resource.value,
        }
    }
}

/// What was read of the program's memory when the request was submitted: the program may reuse that at once.
pub(super) enum Prepared {
    Nothing,
    /// Buffers, read or filled in turn.
    Buffers(Vec<UserBuf>),
    /// An address to connect to.
    Address(Vec<u8>),
    /// A time on the monotonic clock, the interval it came from, and how many completions end the wait early.
    Timeout(super::timeout::Setting),
}

/// What issuing a request needs to keep between its steps. Whoever carries the request on holds it.
pub(super) struct Body {
    pub(super) prepared: Prepared,
    /// Why it can't be issued, found out when it was prepared: told when it is its turn.
    pub(super) failed: Option<Errno>,
    /// Where a datagram goes.
    pub(super) address: Option<Vec<u8>>,
    pub(super) file: Option<FileRef>,
    /// The registered buffer that it uses.
    pub(super) buffer: Option<Arc<Resource<UserBuf>>>,
    /// Its place in wait queues, and what for.
    pub(super) table: Option<(PollTable, Events)>,
    pub(super) timer: Option<Arc<Timer>>,
    /// Bytes that were moved in earlier steps.
    pub(super) moved: usize,
    /// The provided buffer that it has taken, and how long that is as a whole.
    pub(super) taken: Option<(Taken, UserBuf)>,
    /// It was issued before.
    pub(super) again: bool,
    /// Something woke it since, or it is issued for the first time.
    pub(super) news: bool,
    /// A poll's events; IORING_OP_POLL_REMOVE may change them.
    pub(super) events: Events,
}

impl Body {
    /// Keeps what was read, or the error for when it is issued.
    pub(super) fn keep(&mut self, read: Result<Prepared>) {
        match read {
            Ok(prepared) => self.prepared = prepared,
            Err(error) => self.failed = Some(error),
        }
    }
}

/// A submission on its way.
pub(super) struct Request {
    pub(super) ring: Arc<Ring>,
    pub(super) workers: Arc<Workers>,
    /// Its place in the ring's list of requests under way.
    pub(super) number: u64,
    /// The thread that submitted it, by the address of its task: it is cancelled when that exits.
    pub(super) owner: usize,
    pub(super) cred: Arc<Cred>,
    pub(super) sqe: Sqe,
    pub(super) flags: SqeFlags,
    /// A poll's user_data can be changed.
    pub(super) user_data: AtomicU64,
    /// What follows it in its chain.
    pub(super) next: SpinLock<Option<Arc<Request>>>,
    /// The request before it in its chain, for a link timeout.
    pub(super) limits: SpinLock<Option<Arc<Request>>>,
    stage: AtomicU8,
    pub(super) cancelled: AtomicBool,
    /// Something woke it since it last looked.
    pub(super) woken: AtomicBool,
    /// The events that it was woken for, where those are known.
    pub(super) told: AtomicU32,
    /// Its timer ran out.
    pub(super) expired: AtomicBool,
    pub(super) hook: Arc<Hook>,
    /// The worker that runs it, to be interrupted.
    pub(super) worker: SpinLock<Option<Arc<Task>>>,
    /// Not even a failure is told.
    pub(super) silent: AtomicBool,
    /// IORING_CQE_F_* that a step found out.
    pub(super) cqe_flags: AtomicU32,
    pub(super) body: Mutex<Body>,
}

impl Request {
    pub(super) fn new(
        (ring, workers): (Arc<Ring>, Arc<Workers>),
        number: u64,
        task: &Task,
        cred: Arc<Cred>,
        sqe: Sqe,
        flags: SqeFlags,
    ) -> Arc<Request> {
        let request = Arc::new(Request {
            ring,
            workers,
            number,
            owner: core::ptr::from_ref(task).addr(),
            cred,
            user_data: AtomicU64::new(sqe.user_data),
            sqe,
            flags,
            // Several are held from the first of a chain on.
            next: SpinLock::ranked(0, None),
            limits: SpinLock::new(None),
            stage: AtomicU8::new(Stage::Issuing as u8),
            cancelled: AtomicBool::new(false),
            woken: AtomicBool::new(false),
            told: AtomicU32::new(0),
            expired: AtomicBool::new(false),
            hook: Arc::new(Hook { request: SpinLock::new(None), queued: AtomicBool::new(false) }),
            worker: SpinLock::new(None),
            silent: AtomicBool::new(false),
            cqe_flags: AtomicU32::new(0),
            body: Mutex::new(Body {
                prepared: Prepared::Nothing,
                failed: None,
                address: None,
                file: None,
                buffer: None,
                table: None,
                timer: None,
                moved: 0,
                taken: None,
                again: false,
                news: false,
                events: Events::empty(),
            }),
        });
        *request.hook.request.lock_irq() = Some(request.clone());
        request
    }

    pub(super) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::SeqCst) {
            0 => Stage::Issuing,
            1 => Stage::Waiting,
            2 => Stage::Worker,
            _ => Stage::Done,
        }
    }

    pub(super) fn set_stage(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::SeqCst);
    }

    pub(super) fn user_data(&self) -> u64 {
        self.user_data.load(Ordering::Relaxed)
    }

    pub(super) fn has(&self, flag: SqeFlags) -> bool {
        self.flags.contains(flag)
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// Gives it another name. It must be one that waits.
    pub(super) fn rename(self: &Arc<Request>, user_data: u64) {
        let mut live = self.ring.live.lock();
        let old = self.user_data.swap(user_data, Ordering::Relaxed);
        if let Some(request) = live.remove(&(old, self.number)) {
            live.insert((user_data, self.number), request);
        }
    }

    /// Has it carried on, soon, by whoever does that for its process.
    pub(super) fn wake(&self) {
        self.hook.wake();
    }

    /// Sets its timer.
    pub(super) fn arm_timer(&self, body: &mut Body, deadline: Nanos) {
        let hook = self.hook.clone();
        let timer = body.timer.get_or_insert_with(|| {
            Timer::new(Box::new(move |_| {
                hook.expire();
                None
            }))
        });
        timer.arm(deadline);
    }
}

/// What is left in wait queues and timers: finds the request as long as that is under way. The request is never let go of here, since this
/// runs under the locks of wait queues: its reference moves to the list of those to carry on, or stays.
pub(super) struct Hook {
    request: SpinLock<Option<Arc<Request>>>,
    /// It is on the list.
    queued: AtomicBool,
}

impl Hook {
    fn wake(&self) {
        let slot = self.request.lock_irq();
        if let Some(request) = &*slot {
            request.woken.store(true, Ordering::SeqCst);
            if !self.queued.swap(true, Ordering::SeqCst) {
                request.workers.push(request);
            }
        }
    }

    /// A wait queue woke it for these; all of them where the queue does not know.
    fn notify(&self, events: Events) {
        if events != Events::all()
            && let Some(request) = &*self.request.lock_irq()
        {
            request.told.fetch_or(events.bits(), Ordering::SeqCst);
        }
        self.wake();
    }

    fn expire(&self) {
        if let Some(request) = &*self.request.lock_irq() {
            request.expired.store(true, Ordering::SeqCst);
        }
        self.wake();
    }

    /// It has been taken off the list.
    pub(super) fn unqueued(&self) {
        self.queued.store(false, Ordering::SeqCst);
    }

    /// The request has completed: nothing wakes it any more.
    pub(super) fn disconnect(&self) {
        let request = self.request.lock_irq().take();
        drop(request);
    }
}

/// The hook with the events that are waited for.
pub(super) struct FileHook {
    pub(super) hook: Arc<Hook>,
    pub(super) events: Events,
}

impl Notify for FileHook {
    fn notify(&self, events: Events) -> bool {
        if !events.intersects(self.events | Events::ALWAYS) {
            return false;
        }
        self.hook.notify(events);
        true
    }
}
