//! Requests on their way to the program, and answers on their way back.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use base::{Errno, Result};
use hal::sync::SpinLock;
use sched::{Sleep, WaitQueue};

use super::wire::{Answer, Fields, IN_HEADER, OUT_HEADER, opcode};
use crate::callers::caller;

/// The version of the protocol that is spoken.
const MAJOR: u32 = 7;
const MINOR: u32 = 31;
/// The oldest version of a program that is understood.
const OLDEST: u32 = 12;
/// What is offered: reads in any order, writes of more than a page, messages of more than 32 pages.
const FLAGS: u32 = 1 | 1 << 5 | 1 << 22;
/// The most bytes of data in one message, and the least that every program takes.
const DATA_MAX: u32 = 128 << 10;
const DATA_MIN: u32 = 4096;
/// No answer has more fields, or a longer link.
const FIELDS_MAX: usize = 4096;
/// Requests that may wait without anybody waiting for their answers.
const UNATTENDED_MAX: usize = 1 << 16;

/// A request.
pub(super) struct Request {
    unique: u64,
    message: Vec<u8>,
    answer: SpinLock<Option<Result<Vec<u8>>>>,
    waiters: WaitQueue,
    /// There is an answer to wait for.
    answered: bool,
}

impl Request {
    /// The header and the fields.
    pub(super) fn message(&self) -> &[u8] {
        &self.message
    }

    /// Is it to be answered?
    pub(super) fn is_answered(&self) -> bool {
        self.answered
    }

    /// Is that its number, as an answer has it?
    pub(super) fn is_unique(&self, number: &[u8]) -> bool {
        number == self.unique.to_le_bytes()
    }

    /// The most bytes that the answer can have.
    pub(super) fn reply_room(&self) -> usize {
        let number = |at: usize| {
            let bytes = self.message.get(IN_HEADER + at..IN_HEADER + at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u32::from_le_bytes).min(DATA_MAX) as usize
        };
        if !self.answered {
            return 0;
        }
        // Data has as much room as was asked for and no more: servers fill what there is.
        let data = if self.is(opcode::READ) || self.is(opcode::READDIR) {
            number(16)
        } else if (self.is(opcode::GETXATTR) || self.is(opcode::LISTXATTR)) && number(0) > 0 {
            number(0)
        } else {
            FIELDS_MAX
        };
        OUT_HEADER + data
    }

    fn is(&self, opcode: u32) -> bool {
        self.message.get(4..8) == Some(&opcode.to_le_bytes()[..])
    }
}

#[derive(Default)]
struct State {
    pending: VecDeque<Arc<Request>>,
    processing: BTreeMap<u64, Arc<Request>>,
    initialized: bool,
    gone: bool,
}

/// What a mounted file system and its program share.
pub(super) struct Connection {
    state: SpinLock<State>,
    /// Who reads the device, or polls it.
    pub(super) readers: Arc<WaitQueue>,
    /// Who waits for the program to be ready.
    ready: WaitQueue,
    next: AtomicU64,
    write_max: AtomicU32,
    /// Open devices of it.
    pub(super) devices: AtomicUsize,
}

impl Connection {
    /// A connection whose first request is under way.
    pub(super) fn new() -> Result<Arc<Connection>> {
        let connection = Arc::new(Connection {
            state: SpinLock::new(State::default()),
            readers: Arc::new(WaitQueue::new()),
            ready: WaitQueue::new(),
            next: AtomicU64::new(1),
            write_max: AtomicU32::new(DATA_MIN),
            devices: AtomicUsize::new(0),
        });
        let hello = Fields::new().u32(MAJOR).u32(MINOR).u32(DATA_MAX).u32(FLAGS);
        connection.queue(opcode::INIT, 0, &hello, true)?;
        Ok(connection)
    }

    fn queue(&self, opcode: u32, node: u64, fields: &Fields, answered: bool) -> Result<Arc<Request>> {
        let unique = 2 * self.next.fetch_add(1, Ordering::Relaxed);
        let len = IN_HEADER + fields.as_bytes().len();
        // Zeros for the kernel's own threads.
        let (uid, gid, pid) = caller().map_or((0, 0, 0), |who| (who.cred.fsuid, who.cred.fsgid, who.pid));
        let header = Fields::new().u32(len as u32).u32(opcode).u64(unique).u64(node).u32(uid).u32(gid);
        let message = header.u32(pid).u32(0).bytes(fields.as_bytes())?.as_bytes().to_vec();
        let request =
            Arc::new(Request { unique, message, answer: SpinLock::new(None), waiters: WaitQueue::new(), answered });
        {
            let mut state = self.state.lock();
            if state.gone {
                return Err(Errno::ENOTCONN);
            }
            if !answered && state.pending.len() > UNATTENDED_MAX {
                return Err(Errno::ENOMEM);
            }
            state.pending.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            state.pending.push_back(request.clone());
        }
        self.readers.wake_all();
        Ok(request)
    }

    /// Asks the program, and waits for what it answers. Its error; `ENOTCONN` where it is gone, `EINTR` for a fatal signal, `ENOMEM`.
    pub(super) fn call(&self, opcode: u32, node: u64, fields: &Fields) -> Result<Vec<u8>> {
        let is_ready = || {
            let state = self.state.lock();
            (state.initialized || state.gone).then_some(())
        };
        self.ready.wait_until(Sleep::Killable, None, is_ready).map_err(|_| Errno::EINTR)?;
        let request = self.queue(opcode, node, fields, true)?;
        let answer = || request.answer.lock().take();
        match request.waiters.wait_until(Sleep::Killable, None, answer) {
            Ok(answer) => answer,
            Err(_) => {
                // What the program has not read yet it need not read.
                self.state.lock().pending.retain(|other| other.unique != request.unique);
                Err(Errno::EINTR)
            }
        }
    }

    /// Tells the program something that it does not answer.
    pub(super) fn tell(&self, opcode: u32, node: u64, fields: &Fields) {
        // A program that is gone need not be told, and one that does not listen can't be.
        let _ = self.queue(opcode, node, fields, false);
    }

    /// Asks for something whose answer nobody waits for.
    pub(super) fn ask_later(&self, opcode: u32, node: u64, fields: &Fields) {
        // As above; the answer is thrown away when it comes.
        let _ = self.queue(opcode, node, fields, true);
    }

    /// Is there something to read? `ENODEV` at the end.
    pub(super) fn is_readable(&self) -> Result<bool> {
        let state = self.state.lock();
        if state.gone { Err(Errno::ENODEV) } else { Ok(!state.pending.is_empty()) }
    }

    /// The next request that fits into `room` bytes; who waits for one that does not hears of it. `EAGAIN` where there is none,
    /// `ENODEV` at the end.
    pub(super) fn next_request(&self, room: usize) -> Result<Arc<Request>> {
        loop {
            let mut state = self.state.lock();
            if state.gone {
                return Err(Errno::ENODEV);
            }
            let request = state.pending.pop_front().ok_or(Errno::EAGAIN)?;
            if request.message.len() <= room {
                if request.answered {
                    state.processing.insert(request.unique, request.clone());
                }
                return Ok(request);
            }
            drop(state);
            let error = if request.is(opcode::SETXATTR) { Errno::E2BIG } else { Errno::EIO };
            Connection::finish(&request, Err(error));
        }
    }

    /// A request that could not be passed on after all: it is the next again.
    pub(super) fn give_back(&self, request: Arc<Request>) {
        let mut state = self.state.lock();
        state.processing.remove(&request.unique);
        state.pending.push_front(request);
    }

    /// The program could not take a request: nobody waits for it any longer.
    pub(super) fn lost(&self, request: &Request) {
        let waiting = self.state.lock().processing.remove(&request.unique);
        if waiting.is_some() {
            Connection::finish(request, Err(Errno::EIO));
        }
    }

    fn finish(request: &Request, answer: Result<Vec<u8>>) {
        *request.answer.lock() = Some(answer);
        request.waiters.wake_all();
    }

    /// Takes an answer. `EINVAL` for a malformed one, `ENOENT` for one to nothing that was asked.
    pub(super) fn answer(&self, message: &[u8]) -> Result<()> {
        let mut header = Answer::new(message.get(..OUT_HEADER).ok_or(Errno::EINVAL)?);
        let (len, error, unique) = (header.u32()? as usize, header.u32()?.cast_signed(), header.u64()?);
        if len != message.len() || error > 0 || error <= -512 {
            return Err(Errno::EINVAL);
        }
        if unique == 0 {
            // Notices that something changed: nothing is kept for long here.
            return Ok(());
        }
        let request = self.state.lock().processing.remove(&unique).ok_or(Errno::ENOENT)?;
        let body = message[OUT_HEADER..].to_vec();
        if request.is(opcode::INIT) {
            return self.initialize(error, &body);
        }
        let answer = if error == 0 { Ok(body) } else { Err(Errno::from_code(-error).unwrap_or(Errno::EIO)) };
        Connection::finish(&request, answer);
        Ok(())
    }

    /// The program has said what it can.
    fn initialize(&self, error: i32, body: &[u8]) -> Result<()> {
        let mut answer = Answer::new(body);
        let version = answer.u32().and_then(|major| Ok((major, answer.u32()?)));
        if error != 0 || !version.is_ok_and(|(major, minor)| major == MAJOR && minor >= OLDEST) {
            self.abort();
            return Ok(());
        }
        // Read-ahead, flags and limits on the number of requests, then the size of a write.
        if answer.take(12).is_ok()
            && let Ok(max) = answer.u32()
        {
            self.write_max.store(max.clamp(DATA_MIN, DATA_MAX), Ordering::Relaxed);
        }
        self.state.lock().initialized = true;
        self.ready.wake_all();
        Ok(())
    }

    /// Bytes of data that a write can have.
    pub(super) fn write_max(&self) -> usize {
        self.write_max.load(Ordering::Relaxed) as usize
    }

    /// Bytes of data that a read asks for at a time.
    pub(super) fn read_max(&self) -> usize {
        DATA_MAX as usize
    }

    /// The program is gone: nobody waits any longer.
    pub(super) fn abort(&self) {
        let (pending, processing) = {
            let mut state = self.state.lock();
            state.gone = true;
            (core::mem::take(&mut state.pending), core::mem::take(&mut state.processing))
        };
        for request in pending.into_iter().chain(processing.into_values()) {
            Connection::finish(&request, Err(Errno::ENOTCONN));
        }
        self.ready.wake_all();
        self.readers.wake_all();
    }
}
