//! Asking a supervisor: calls that a filter answers with SECCOMP_RET_USER_NOTIF wait until whoever holds the listener's descriptor has
//! decided (seccomp_unotify(2)).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base::{Errno, Events, Result};
use fs::vfs::pseudo::open_anonymous;
use fs::{Fd, File, IoctlContext, OpenFile, OpenFlags, PollTable};
use hal::sync::SpinLock;
use hal::user::{UserPtr, copy_in};
use sched::{Sleep, WaitQueue};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::filter::CallData;
use crate::rlimit::Resource;
use crate::{Pid, Task};

/// `struct seccomp_notif`.
#[derive(FromBytes, IntoBytes, Immutable, Clone, Copy)]
#[repr(C)]
struct Request {
    id: u64,
    pid: u32,
    flags: u32,
    data: CallData,
}

/// `struct seccomp_notif_resp`.
#[derive(FromBytes, IntoBytes, Immutable, Clone, Copy)]
#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// `struct seccomp_notif_addfd`.
#[derive(FromBytes, IntoBytes, Immutable, Clone, Copy)]
#[repr(C)]
struct AddFd {
    id: u64,
    flags: u32,
    source: u32,
    target: u32,
    target_flags: u32,
}

/// Bytes of `struct seccomp_notif`, `seccomp_notif_resp` and `seccomp_data`, for SECCOMP_GET_NOTIF_SIZES.
pub const SIZES: [u16; 3] = [size_of::<Request>() as u16, size_of::<Response>() as u16, size_of::<CallData>() as u16];

/// SECCOMP_USER_NOTIF_FLAG_CONTINUE: the call is made after all.
const CONTINUE: u32 = 1;

const IOCTL_RECEIVE: u32 = 0xc050_2100;
const IOCTL_SEND: u32 = 0xc018_2101;
const IOCTL_ID_VALID: u32 = 0x4008_2102;
/// With the direction that it had by mistake.
const IOCTL_ID_VALID_OLD: u32 = 0x8008_2102;
/// Without direction and size: the structure may grow.
const IOCTL_ADD_FD: u16 = 0x2103;
const IOCTL_SIZE_MASK: u32 = 0x3fff_0000;

/// What the supervisor decided.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict {
    /// The call is made.
    Continue,
    /// It is not, and gives this.
    Result(i64),
    /// It is not, and fails with this, a negative error number as the supervisor gave it.
    Error(i32),
}

/// How far a question has got.
#[derive(Clone, Copy, Debug)]
enum Progress {
    /// Nobody has received it.
    Asked,
    /// Somebody has.
    Received,
    Decided(Verdict),
}

/// A descriptor that the supervisor wants the asking thread to have.
struct Gift {
    ticket: u64,
    open: Arc<OpenFile>,
    /// The number that it must get.
    at: Option<Fd>,
    close_on_exec: bool,
    /// Its number is the answer, too.
    answers: bool,
}

/// A call that waits.
struct Question {
    id: u64,
    tid: Pid,
    data: CallData,
    progress: Progress,
    gifts: Vec<Gift>,
}

#[derive(Default)]
struct State {
    questions: Vec<Question>,
    /// What became of gifts, by ticket, for the supervisor that waits to hear it.
    given: Vec<(u64, Result<Fd>)>,
    /// The descriptor is closed: nobody will answer any more.
    closed: bool,
    /// No thread has the filter any more: nobody will ask.
    orphaned: bool,
}

impl State {
    fn question(&mut self, id: u64) -> Option<&mut Question> {
        self.questions.iter_mut().find(|question| question.id == id)
    }
}

/// What stands between the threads that ask and the supervisor.
pub(super) struct Listener {
    /// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: once received, only a fatal signal ends the wait.
    patient: bool,
    next_id: AtomicU64,
    next_ticket: AtomicU64,
    state: SpinLock<State>,
    /// Copy of `State::closed`, for who holds a lock that interrupts take.
    closed: AtomicBool,
    /// Woken at every change: askers, supervisors and pollers wait here.
    changed: Arc<WaitQueue>,
}

impl Listener {
    pub(super) fn new(patient: bool) -> Arc<Listener> {
        let mut first = [0; 8];
        hal::random::fill(&mut first);
        Arc::new(Listener {
            patient,
            next_id: AtomicU64::new(u64::from_ne_bytes(first)),
            next_ticket: AtomicU64::new(0),
            state: SpinLock::new(State::default()),
            closed: AtomicBool::new(false),
            changed: Arc::new(WaitQueue::new()),
        })
    }

    /// The last thread with the filter is gone.
    pub(super) fn hang_up(&self) {
        self.state.lock().orphaned = true;
        self.changed.wake_all();
    }

    /// Is there somebody who may answer?
    pub(super) fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Acquire)
    }

    /// Asks about a call of the calling thread and waits for the answer. `ENOSYS` if nobody listens, `ERESTARTSYS`, `ENOMEM`.
    pub(super) fn ask(&self, task: &Task, data: CallData) -> Result<Verdict> {
        let id = {
            let mut state = self.state.lock();
            if state.closed {
                return Err(Errno::ENOSYS);
            }
            state.questions.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            // Numbered in the order in which they are received.
            let id = self.next_id.fetch_add(1, Ordering::Relaxed);
            state.questions.push(Question { id, tid: task.tid(), data, progress: Progress::Asked, gifts: Vec::new() });
            id
        };
        self.changed.wake_all();
        let verdict = self.wait_for_answer(task, id);
        let mut state = self.state.lock();
        if let Some(at) = state.questions.iter().position(|question| question.id == id) {
            let question = state.questions.remove(at);
            for gift in &question.gifts {
                state.given.push((gift.ticket, Err(Errno::ESRCH)));
            }
            drop(state);
            drop(question);
        }
        self.changed.wake_all();
        verdict
    }

    fn wait_for_answer(&self, task: &Task, id: u64) -> Result<Verdict> {
        enum Seen {
            Verdict(Verdict),
            Gift(Gift),
            BecamePatient,
        }
        let mut patient = false;
        loop {
            let how = if patient { Sleep::Killable } else { Sleep::Interruptible };
            let seen = self.changed.wait_until(how, None, || {
                let mut state = self.state.lock();
                let question = state.question(id)?;
                if !question.gifts.is_empty() {
                    return Some(Seen::Gift(question.gifts.remove(0)));
                }
                match question.progress {
                    Progress::Decided(verdict) => Some(Seen::Verdict(verdict)),
                    Progress::Received if self.patient && !patient => Some(Seen::BecamePatient),
                    _ => None,
                }
            });
            match seen? {
                Seen::Verdict(verdict) => return Ok(verdict),
                Seen::Gift(gift) => self.take_gift(task, id, gift),
                Seen::BecamePatient => patient = true,
            }
        }
    }

    /// Takes a descriptor that the supervisor gave.
    fn take_gift(&self, task: &Task, id: u64, gift: Gift) {
        let files = task.files();
        let limit = task.rlimit(Resource::NoFile).0;
        let got = match gift.at {
            Some(fd) => files.replace(fd, gift.open, gift.close_on_exec, limit).map(|()| fd),
            None => files.install(gift.open, gift.close_on_exec, limit),
        };
        let mut state = self.state.lock();
        if let Some(question) = state.question(id)
            && gift.answers
        {
            question.progress = match got {
                Ok(fd) => Progress::Decided(Verdict::Result(i64::from(fd))),
                // The supervisor may try something else.
                Err(_) => Progress::Received,
            };
        }
        state.given.push((gift.ticket, got));
        drop(state);
        self.changed.wake_all();
    }

    /// SECCOMP_IOCTL_NOTIF_RECV. `EINVAL` unless the buffer is all zeros, `ENOENT` (the thread was faster to end), `EFAULT`.
    fn receive(&self, at: usize) -> Result<()> {
        let mut room = [0; size_of::<Request>()];
        copy_in(&mut room, at)?;
        if room.iter().any(|&byte| byte != 0) {
            return Err(Errno::EINVAL);
        }
        let request = self.changed.wait_until(Sleep::Interruptible, None, || {
            let mut state = self.state.lock();
            let question = state.questions.iter_mut().find(|question| matches!(question.progress, Progress::Asked))?;
            question.progress = Progress::Received;
            Some(Request { id: question.id, pid: question.tid as u32, flags: 0, data: question.data })
        })?;
        if let Err(error) = UserPtr::new(at).write(&request) {
            // Somebody else may receive it.
            if let Some(question) = self.state.lock().question(request.id)
                && matches!(question.progress, Progress::Received)
            {
                question.progress = Progress::Asked;
            }
            self.changed.wake_all();
            return Err(error);
        }
        self.changed.wake_all();
        Ok(())
    }

    /// SECCOMP_IOCTL_NOTIF_SEND. `EINVAL`, `ENOENT`, `EINPROGRESS` (not received, or answered already).
    fn send(&self, response: &Response) -> Result<()> {
        let goes_on = response.flags & CONTINUE != 0;
        if response.flags & !CONTINUE != 0 || goes_on && (response.error != 0 || response.value != 0) {
            return Err(Errno::EINVAL);
        }
        let verdict = match response.error {
            _ if goes_on => Verdict::Continue,
            0 => Verdict::Result(response.value),
            error => Verdict::Error(error),
        };
        let mut state = self.state.lock();
        let question = state.question(response.id).ok_or(Errno::ENOENT)?;
        if !matches!(question.progress, Progress::Received) {
            return Err(Errno::EINPROGRESS);
        }
        question.progress = Progress::Decided(verdict);
        drop(state);
        self.changed.wake_all();
        Ok(())
    }

    /// SECCOMP_IOCTL_NOTIF_ID_VALID. `ENOENT`.
    fn check_id(&self, id: u64) -> Result<()> {
        let mut state = self.state.lock();
        let waits = state.question(id).is_some_and(|question| matches!(question.progress, Progress::Received));
        if waits { Ok(()) } else { Err(Errno::ENOENT) }
    }

    /// SECCOMP_IOCTL_NOTIF_ADDFD: the number in the asking thread. `EINVAL`, `EBADF`, `ENOENT`, `EINPROGRESS`, `EBUSY`, `ESRCH`,
    /// `EMFILE`, `ENOMEM`.
    fn add_fd(&self, cx: &IoctlContext, wanted: &AddFd) -> Result<Fd> {
        const AT: u32 = 1;
        const ANSWERS: u32 = 2;
        let close_on_exec = OpenFlags::CLOEXEC.bits();
        if wanted.target_flags & !close_on_exec != 0
            || wanted.flags & !(AT | ANSWERS) != 0
            || wanted.target != 0 && wanted.flags & AT == 0
        {
            return Err(Errno::EINVAL);
        }
        let open = (cx.lookup)(wanted.source as Fd)?;
        let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed);
        let answers = wanted.flags & ANSWERS != 0;
        {
            let mut state = self.state.lock();
            state.given.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            let question = state.question(wanted.id).ok_or(Errno::ENOENT)?;
            if !matches!(question.progress, Progress::Received) {
                return Err(Errno::EINPROGRESS);
            }
            // What answers has to be the last thing that is given.
            if answers && !question.gifts.is_empty() {
                return Err(Errno::EBUSY);
            }
            question.gifts.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            question.gifts.push(Gift {
                ticket,
                open,
                at: (wanted.flags & AT != 0).then_some(wanted.target as Fd),
                close_on_exec: wanted.target_flags & close_on_exec != 0,
                answers,
            });
        }
        self.changed.wake_all();
        let given = self.changed.wait_until(Sleep::Interruptible, None, || self.take_given(ticket));
        match given {
            Ok(result) => result,
            Err(error) => self.withdraw(wanted.id, ticket).unwrap_or(Err(error.into())),
        }
    }

    fn take_given(&self, ticket: u64) -> Option<Result<Fd>> {
        let mut state = self.state.lock();
        let at = state.given.iter().position(|(other, _)| *other == ticket)?;
        Some(state.given.swap_remove(at).1)
    }

    /// The supervisor was interrupted: takes the gift back, unless it was taken, which then says how that went.
    fn withdraw(&self, id: u64, ticket: u64) -> Option<Result<Fd>> {
        let mut state = self.state.lock();
        let gifts = state.question(id).map(|question| &mut question.gifts);
        let taken_back = gifts.and_then(|gifts| {
            let at = gifts.iter().position(|gift| gift.ticket == ticket)?;
            Some(gifts.remove(at))
        });
        drop(state);
        match taken_back {
            Some(gift) => {
                drop(gift);
                None
            }
            // The asking thread has it in its hands: it is a matter of moments.
            None => self.changed.wait_until(Sleep::Uninterruptible, None, || self.take_given(ticket)).ok(),
        }
    }
}

/// What the descriptor of a listener refers to.
struct ListenerFile {
    listener: Arc<Listener>,
}

impl File for ListenerFile {
    fn poll(&self, table: &mut PollTable) -> Events {
        table.register(&self.listener.changed);
        let state = self.listener.state.lock();
        let mut events = Events::empty();
        for question in &state.questions {
            match question.progress {
                Progress::Asked => events |= Events::READABLE,
                Progress::Received => events |= Events::WRITABLE,
                Progress::Decided(_) => {}
            }
        }
        if state.orphaned {
            events |= Events::HUP;
        }
        events
    }

    fn ioctl(&self, cx: &IoctlContext, request: u32, arg: usize) -> Result<usize> {
        match request {
            IOCTL_RECEIVE => self.listener.receive(arg).map(|()| 0),
            IOCTL_SEND => self.listener.send(&UserPtr::<Response>::new(arg).read()?).map(|()| 0),
            IOCTL_ID_VALID | IOCTL_ID_VALID_OLD => self.listener.check_id(UserPtr::<u64>::new(arg).read()?).map(|()| 0),
            _ if request as u16 == IOCTL_ADD_FD => {
                let size = ((request & IOCTL_SIZE_MASK) >> 16) as usize;
                let wanted = read_add_fd(arg, size)?;
                self.listener.add_fd(cx, &wanted).map(|fd| fd as usize)
            }
            _ => Err(Errno::EINVAL),
        }
    }
}

/// A structure that may be longer than the one known here if the rest is zeros. `EINVAL`, `E2BIG`, `EFAULT`.
fn read_add_fd(at: usize, size: usize) -> Result<AddFd> {
    const KNOWN: usize = size_of::<AddFd>();
    if !(KNOWN..abi::PAGE_SIZE).contains(&size) {
        return Err(Errno::EINVAL);
    }
    let mut rest = KNOWN;
    while rest < size {
        let mut byte = [0];
        copy_in(&mut byte, at.wrapping_add(rest))?;
        if byte[0] != 0 {
            return Err(Errno::E2BIG);
        }
        rest += 1;
    }
    UserPtr::new(at).read()
}

impl Drop for ListenerFile {
    fn drop(&mut self) {
        let mut state = self.listener.state.lock();
        state.closed = true;
        self.listener.closed.store(true, Ordering::Release);
        for question in &mut state.questions {
            if !matches!(question.progress, Progress::Decided(_)) {
                question.progress = Progress::Decided(Verdict::Error(-Errno::ENOSYS.code()));
            }
        }
        drop(state);
        self.listener.changed.wake_all();
    }
}

/// A descriptor for the listener in the caller's table, close-on-exec. `EMFILE`, `ENOMEM`.
pub(super) fn install(task: &Task, listener: &Arc<Listener>) -> Result<Fd> {
    let file = Arc::new(ListenerFile { listener: listener.clone() });
    let open = open_anonymous(file, "seccomp notify", OpenFlags::RDWR);
    task.files().install(open, true, task.rlimit(Resource::NoFile).0)
}
