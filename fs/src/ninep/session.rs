//! The exchange of messages with one server.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use abi::PAGE_SIZE;
use base::{Errno, Nanos, Result};
use dev::{Exchange, ExchangeDevice, Segment};
use hal::frame::Frame;
use hal::sync::SpinLock;
use sched::{Sleep, WaitError, WaitQueue};

use super::wire::{HEADER, Reader, Stat, Writer, kind};

/// The tag of messages that are not part of the numbering.
const NO_TAG: u16 = 0xffff;
/// The handle that is none.
const NO_FID: u32 = u32::MAX;
/// How long a server may take.
const PATIENCE: Nanos = 60_000_000_000;
/// The most bytes of data in one message.
const DATA_MAX: usize = 32 * PAGE_SIZE;
/// The largest header in front of data.
const DATA_HEADER: usize = 32;
/// The smallest message size that is of use.
const MESSAGE_MIN: u32 = 4096;
/// Bytes in front of the data of an answer to Tread and Treaddir.
const COUNTED: usize = HEADER + 4;
/// All attributes that stat(2) tells (P9_GETATTR_BASIC).
const BASIC: u64 = 0x7ff;

/// A part of a frame that data goes to or comes from.
#[derive(Clone)]
pub(super) struct Span {
    pub(super) frame: Frame,
    pub(super) len: usize,
}

impl Span {
    fn segment(&self) -> Segment {
        Segment { physical: self.frame.physical() as u64, len: self.len as u32 }
    }

    /// Frames for `len` bytes. `ENOMEM`.
    pub(super) fn allocate(len: usize) -> Result<Vec<Span>> {
        let mut spans = Vec::new();
        let mut left = len;
        while left > 0 {
            let n = left.min(PAGE_SIZE);
            spans.push(Span { frame: Frame::alloc().ok_or(Errno::ENOMEM)?, len: n });
            left -= n;
        }
        Ok(spans)
    }

    fn copy_from(spans: &[Span], bytes: &[u8]) {
        for (span, chunk) in spans.iter().zip(bytes.chunks(PAGE_SIZE)) {
            span.frame.write(0, chunk);
        }
    }

    fn copy_to(spans: &[Span], len: usize) -> Vec<u8> {
        let mut bytes = alloc::vec![0; len.min(spans.iter().map(|span| span.len).sum())];
        for (span, chunk) in spans.iter().zip(bytes.chunks_mut(PAGE_SIZE)) {
            span.frame.read(0, chunk);
        }
        bytes
    }
}

/// An exchange under way, and the memory that the device uses meanwhile, which stays even if nobody waits any more.
struct UnderWay {
    written: SpinLock<Option<usize>>,
    waiters: WaitQueue,
    _memory: Vec<Frame>,
}

/// A connection to a server.
pub(super) struct Session {
    device: Arc<dyn ExchangeDevice>,
    message_max: AtomicU32,
    next_fid: AtomicU32,
    /// The tags in use, a bit each.
    tags: AtomicU64,
    /// Who waits for a tag or for room in the device.
    room: WaitQueue,
}

/// A server's handle of a file. It is given back when it is dropped.
pub(super) struct Fid {
    session: Arc<Session>,
    number: u32,
}

impl Drop for Fid {
    fn drop(&mut self) {
        self.session.start_clunk(self.number);
    }
}

/// What is sent besides a message's fields, and where data of the answer goes.
#[derive(Clone, Copy)]
struct Payload<'a> {
    out: &'a [Span],
    /// Bytes that the answer's fields may take.
    reply: usize,
    into: &'a [Span],
}

const SHORT: Payload<'static> = Payload { out: &[], reply: PAGE_SIZE, into: &[] };

impl Session {
    /// Agrees on the protocol with a server. `EIO`, `EPROTONOSUPPORT`, `ENOMEM`.
    pub(super) fn new(device: Arc<dyn ExchangeDevice>, wanted: u32) -> Result<Arc<Session>> {
        let by_segments = device.max_segments().saturating_sub(4).min(DATA_MAX / PAGE_SIZE) * PAGE_SIZE + DATA_HEADER;
        let most = wanted.clamp(MESSAGE_MIN, by_segments.max(MESSAGE_MIN as usize) as u32);
        let session = Arc::new(Session {
            device,
            message_max: AtomicU32::new(most),
            next_fid: AtomicU32::new(0),
            tags: AtomicU64::new(0),
            room: WaitQueue::new(),
        });
        let message = Writer::new().u32(most).string(b"9P2000.L");
        let reply = session.exchange(kind::VERSION, NO_TAG, &message, SHORT)?;
        let mut reader = Reader::new(&reply);
        let (agreed, version) = (reader.u32()?, reader.string()?);
        if version != b"9P2000.L" {
            return Err(Errno::EPROTONOSUPPORT);
        }
        if !(MESSAGE_MIN..=most).contains(&agreed) {
            return Err(Errno::EIO);
        }
        session.message_max.store(agreed, Ordering::Relaxed);
        Ok(session)
    }

    /// Bytes of data that one message can have.
    pub(super) fn data_max(&self) -> usize {
        let most = self.message_max.load(Ordering::Relaxed) as usize - DATA_HEADER;
        (most / PAGE_SIZE * PAGE_SIZE).clamp(1024, DATA_MAX)
    }

    fn take_tag(&self) -> Option<u16> {
        let tags = self.tags.load(Ordering::Acquire);
        let free = (!tags).trailing_zeros();
        if free >= u64::BITS {
            return None;
        }
        let taken = tags | 1 << free;
        self.tags.compare_exchange(tags, taken, Ordering::AcqRel, Ordering::Relaxed).ok().map(|_| free as u16)
    }

    fn free_tag(&self, tag: u16) {
        if tag != NO_TAG {
            self.tags.fetch_and(!(1 << tag), Ordering::AcqRel);
        }
        self.room.wake_all();
    }

    fn wait_error(error: WaitError) -> Errno {
        match error {
            WaitError::TimedOut => Errno::EIO,
            WaitError::Interrupted => Errno::EINTR,
        }
    }

    /// Sends a message and waits for its answer's fields. The server's error, `EIO`, `EINTR` (a fatal signal), `ENOMEM`.
    fn call(self: &Arc<Session>, kind: u8, message: &Writer, payload: Payload) -> Result<Vec<u8>> {
        let deadline = Some(sched::time::now() + PATIENCE);
        let tag = loop {
            let busy = || self.tags.load(Ordering::Acquire) == u64::MAX;
            if let Some(tag) = self.take_tag() {
                break tag;
            }
            let waited = self.room.wait_until(Sleep::Killable, deadline, || (!busy()).then_some(()));
            waited.map_err(Session::wait_error)?;
        };
        self.exchange(kind, tag, message, payload)
    }

    fn exchange(self: &Arc<Session>, kind: u8, tag: u16, message: &Writer, payload: Payload) -> Result<Vec<u8>> {
        let prepared = self.prepare(kind, tag, message, payload);
        let (under_way, exchange, answer) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                self.free_tag(tag);
                return Err(error);
            }
        };
        let deadline = Some(sched::time::now() + PATIENCE);
        let mut slot = Some(exchange);
        let sent = self.room.wait_until(Sleep::Killable, deadline, || match self.device.submit(slot.take()?) {
            Ok(()) => Some(()),
            Err(back) => {
                slot = Some(back);
                None
            }
        });
        if let Err(error) = sent {
            self.free_tag(tag);
            return Err(Session::wait_error(error));
        }
        let arrived = || *under_way.written.lock_irq();
        let written = under_way.waiters.wait_until(Sleep::Killable, deadline, arrived).map_err(Session::wait_error)?;
        Session::check(kind, tag, &Span::copy_to(&answer, written), payload.into)
    }

    /// Puts the message into memory for the device: what is under way, the exchange, and where the answer's fields will be.
    fn prepare(
        self: &Arc<Session>,
        kind: u8,
        tag: u16,
        message: &Writer,
        payload: Payload,
    ) -> Result<(Arc<UnderWay>, Exchange, Vec<Span>)> {
        let out: usize = payload.out.iter().map(|span| span.len).sum();
        let size = HEADER + message.bytes().len();
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(size).map_err(|_| Errno::ENOMEM)?;
        bytes.extend_from_slice(&u32::try_from(size + out).map_err(|_| Errno::EMSGSIZE)?.to_le_bytes());
        bytes.push(kind);
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(message.bytes());
        let fields = Span::allocate(size)?;
        Span::copy_from(&fields, &bytes);
        let answer = Span::allocate(payload.reply)?;
        let all = fields.iter().chain(payload.out).chain(&answer).chain(payload.into);
        let memory: Vec<Frame> = all.map(|span| span.frame.clone()).collect();
        let under_way = Arc::new(UnderWay { written: SpinLock::new(None), waiters: WaitQueue::new(), _memory: memory });
        let (theirs, session) = (under_way.clone(), self.clone());
        let done = move |written| {
            *theirs.written.lock_irq() = Some(written);
            theirs.waiters.wake_all();
            session.free_tag(tag);
        };
        let request = fields.iter().chain(payload.out).map(Span::segment).collect();
        let reply = answer.iter().chain(payload.into).map(Span::segment).collect();
        Ok((under_way, Exchange { request, reply, done: Box::new(done) }, answer))
    }

    /// Checks an answer's header: the fields behind it.
    fn check(kind: u8, tag: u16, answer: &[u8], into: &[Span]) -> Result<Vec<u8>> {
        let mut reader = Reader::new(answer);
        let (size, its_kind, its_tag) = (reader.u32()? as usize, reader.u8()?, reader.u16()?);
        let data: usize = into.iter().map(|span| span.len).sum();
        if its_tag != tag || size < HEADER || size > answer.len() + data {
            return Err(Errno::EIO);
        }
        if its_kind == kind::ERROR_REPLY {
            let code = i32::try_from(reader.u32()?).map_err(|_| Errno::EIO)?;
            return Err(Errno::from_code(code).unwrap_or(Errno::EIO));
        }
        if its_kind != kind + 1 {
            return Err(Errno::EIO);
        }
        Ok(answer[HEADER..size.min(answer.len())].to_vec())
    }

    /// Gives a handle back without waiting for the answer. Where there is no room for that, the server keeps it.
    fn start_clunk(self: &Arc<Session>, fid: u32) {
        let Some(tag) = self.take_tag() else { return };
        let message = Writer::new().u32(fid);
        let sent = self.prepare(kind::CLUNK, tag, &message, SHORT).map(|(_, exchange, _)| self.device.submit(exchange));
        if !matches!(sent, Ok(Ok(()))) {
            self.free_tag(tag);
        }
    }

    fn new_fid(self: &Arc<Session>) -> u32 {
        loop {
            let number = self.next_fid.fetch_add(1, Ordering::Relaxed);
            if number != NO_FID {
                return number;
            }
        }
    }

    fn fid(self: &Arc<Session>, number: u32) -> Arc<Fid> {
        Arc::new(Fid { session: self.clone(), number })
    }

    /// The handle of the tree that the server shows.
    pub(super) fn attach(self: &Arc<Session>, user: &[u8], name: &[u8], uid: u32) -> Result<Arc<Fid>> {
        let number = self.new_fid();
        let message = Writer::new().u32(number).u32(NO_FID).string(user).string(name).u32(uid);
        self.call(kind::ATTACH, &message, SHORT)?;
        Ok(self.fid(number))
    }
}

impl Fid {
    pub(super) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    fn call(&self, kind: u8, fields: impl FnOnce(Writer) -> Writer) -> Result<Vec<u8>> {
        self.session.call(kind, &fields(Writer::new().u32(self.number)), SHORT)
    }

    /// The handle of what is under `name`, or another of this file. `ENOENT`, `ENOTDIR`.
    pub(super) fn walk(&self, name: Option<&[u8]>) -> Result<Arc<Fid>> {
        let number = self.session.new_fid();
        let reply = self.call(kind::WALK, |w| {
            let w = w.u32(number).u16(u16::from(name.is_some()));
            name.into_iter().fold(w, |w, name| w.string(name))
        })?;
        // With fewer steps than asked for, there is no new handle.
        let steps = Reader::new(&reply).u16()?;
        if steps != u16::from(name.is_some()) { Err(Errno::ENOENT) } else { Ok(self.session.fid(number)) }
    }

    pub(super) fn stat(&self) -> Result<Stat> {
        let reply = self.call(kind::GETATTR, |w| w.u64(BASIC))?;
        Stat::read(&mut Reader::new(&reply))
    }

    /// Tsetattr: `valid` says which of the others count.
    pub(super) fn set_attributes(
        &self,
        valid: u32,
        (mode, uid, gid): (u32, u32, u32),
        size: u64,
        times: [i64; 2],
    ) -> Result<()> {
        self.call(kind::SETATTR, |w| {
            let w = w.u32(valid).u32(mode).u32(uid).u32(gid).u64(size);
            times.iter().fold(w, |w, time| {
                w.u64(time.div_euclid(1_000_000_000) as u64).u64(time.rem_euclid(1_000_000_000) as u64)
            })
        })
        .map(drop)
    }

    /// Opens the file of the handle itself, with open(2)'s flags.
    pub(super) fn open(&self, flags: u32) -> Result<()> {
        self.call(kind::LOPEN, |w| w.u32(flags)).map(drop)
    }

    /// Makes a file in the directory and opens it: the handle is the file's from then on.
    pub(super) fn create(&self, name: &[u8], flags: u32, mode: u32, gid: u32) -> Result<()> {
        self.call(kind::LCREATE, |w| w.string(name).u32(flags).u32(mode).u32(gid)).map(drop)
    }

    pub(super) fn mkdir(&self, name: &[u8], mode: u32, gid: u32) -> Result<()> {
        self.call(kind::MKDIR, |w| w.string(name).u32(mode).u32(gid)).map(drop)
    }

    pub(super) fn symlink(&self, name: &[u8], target: &[u8], gid: u32) -> Result<()> {
        self.call(kind::SYMLINK, |w| w.string(name).string(target).u32(gid)).map(drop)
    }

    pub(super) fn mknod(&self, name: &[u8], mode: u32, device: (u32, u32), gid: u32) -> Result<()> {
        self.call(kind::MKNOD, |w| w.string(name).u32(mode).u32(device.0).u32(device.1).u32(gid)).map(drop)
    }

    pub(super) fn link(&self, name: &[u8], file: &Fid) -> Result<()> {
        self.call(kind::LINK, |w| w.u32(file.number).string(name)).map(drop)
    }

    pub(super) fn rename(&self, name: &[u8], to: &Fid, new_name: &[u8]) -> Result<()> {
        self.call(kind::RENAMEAT, |w| w.string(name).u32(to.number).string(new_name)).map(drop)
    }

    pub(super) fn unlink(&self, name: &[u8], is_dir: bool) -> Result<()> {
        const REMOVEDIR: u32 = 0x200;
        self.call(kind::UNLINKAT, |w| w.string(name).u32(if is_dir { REMOVEDIR } else { 0 })).map(drop)
    }

    pub(super) fn read_link(&self) -> Result<Vec<u8>> {
        let payload = Payload { reply: 2 * PAGE_SIZE, ..SHORT };
        let reply = self.session.call(kind::READLINK, &Writer::new().u32(self.number), payload)?;
        Ok(Reader::new(&reply).string()?.to_vec())
    }

    pub(super) fn sync(&self, data_only: bool) -> Result<()> {
        self.call(kind::FSYNC, |w| w.u32(u32::from(data_only))).map(drop)
    }

    /// The fields of Rstatfs from the block size on.
    pub(super) fn statfs(&self) -> Result<Vec<u8>> {
        self.call(kind::STATFS, |w| w)
    }

    /// Entries of an open directory from `position` on, as they are in the message.
    pub(super) fn read_dir(&self, position: u64) -> Result<Vec<u8>> {
        let room = self.session.data_max().min(8 * PAGE_SIZE);
        let message = Writer::new().u32(self.number).u64(position).u32((room - COUNTED) as u32);
        let reply = self.session.call(kind::READDIR, &message, Payload { reply: room, ..SHORT })?;
        let mut reader = Reader::new(&reply);
        let count = reader.u32()?;
        Ok(reader.take(count as usize)?.to_vec())
    }

    /// Reads into whole frames, of which there are as many as a message can have: how many bytes.
    pub(super) fn read(&self, offset: u64, into: &[Span]) -> Result<usize> {
        let wanted: usize = into.iter().map(|span| span.len).sum();
        let message = Writer::new().u32(self.number).u64(offset).u32(wanted as u32);
        let reply = self.session.call(kind::READ, &message, Payload { out: &[], reply: COUNTED, into })?;
        let count = Reader::new(&reply).u32()? as usize;
        if count > wanted { Err(Errno::EIO) } else { Ok(count) }
    }

    /// Writes: how many bytes.
    pub(super) fn write(&self, offset: u64, from: &[Span]) -> Result<usize> {
        let wanted: usize = from.iter().map(|span| span.len).sum();
        let message = Writer::new().u32(self.number).u64(offset).u32(wanted as u32);
        let reply = self.session.call(kind::WRITE, &message, Payload { out: from, ..SHORT })?;
        let count = Reader::new(&reply).u32()? as usize;
        if count > wanted || count == 0 && wanted > 0 { Err(Errno::EIO) } else { Ok(count) }
    }

    /// Reads an extended attribute, or with an empty name the list of all names. `ENODATA`, `EOPNOTSUPP`.
    pub(super) fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        let number = self.session.new_fid();
        let reply = self.call(kind::XATTRWALK, |w| w.u32(number).string(name))?;
        let value = self.session.fid(number);
        let size = Reader::new(&reply).u64()?;
        let size = usize::try_from(size).ok().filter(|&n| n <= crate::xattr::SIZE_MAX).ok_or(Errno::E2BIG)?;
        let mut bytes = Vec::new();
        while bytes.len() < size {
            let spans = Span::allocate((size - bytes.len()).min(self.session.data_max()))?;
            let n = value.read(bytes.len() as u64, &spans)?;
            if n == 0 {
                return Err(Errno::EIO);
            }
            bytes.extend(Span::copy_to(&spans, n));
        }
        Ok(bytes)
    }

    /// Sets an extended attribute, with setxattr(2)'s flags; one without a value is removed.
    pub(super) fn set_xattr(&self, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        let handle = self.walk(None)?;
        handle.call(kind::XATTRCREATE, |w| w.string(name).u64(value.len() as u64).u32(flags))?;
        let mut at = 0;
        while at < value.len() {
            let chunk = &value[at..value.len().min(at + self.session.data_max())];
            let spans = Span::allocate(chunk.len())?;
            Span::copy_from(&spans, chunk);
            at += handle.write(at as u64, &spans)?;
        }
        // Giving the handle back is what sets it, and tells of errors.
        handle.call(kind::CLUNK, |w| w).map(drop)
    }
}
