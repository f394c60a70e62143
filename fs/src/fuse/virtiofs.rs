//! virtiofs: the program is outside the machine, behind a device (virtio 1.2, section 5.11). A thread carries what the connection asks to
//! the device, and its answers back.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use abi::PAGE_SIZE;
use base::{Errno, Result};
use dev::{Exchange, ExchangeDevice, Segment};
use hal::frame::Frame;
use hal::sync::SpinLock;
use sched::{Mutex, Sleep};

use super::connection::{Connection, Request};
use super::mount;
use super::wire::OUT_HEADER;
use crate::{FileSystem, Inode};

/// No request is longer: its data, header and fields.
const REQUEST_MAX: usize = 1 << 20;
/// The answer has not come yet.
const NOT_YET: usize = usize::MAX;

static SERVERS: SpinLock<Vec<Arc<dyn ExchangeDevice>>> = SpinLock::new(Vec::new());

/// Makes a server known to mount(2), which calls it by its tag.
pub fn add_server(server: Arc<dyn ExchangeDevice>) {
    log::info!("virtiofs: the server {:?}", server.tag().escape_ascii());
    SERVERS.lock().push(server);
}

/// A request under way, and the memory that the device uses meanwhile.
struct UnderWay {
    request: Arc<Request>,
    _message: Vec<Frame>,
    reply: Vec<Frame>,
    written: AtomicUsize,
}

/// What the thread is to do.
enum Task {
    Carry(Arc<Request>),
    Finish(Arc<UnderWay>),
    End,
}

struct Carrier {
    device: Arc<dyn ExchangeDevice>,
    connection: Arc<Connection>,
    under_way: Vec<Arc<UnderWay>>,
}

fn frames(len: usize) -> Result<Vec<Frame>> {
    (0..len.div_ceil(PAGE_SIZE)).map(|_| Frame::alloc().ok_or(Errno::ENOMEM)).collect()
}

fn segments(frames: &[Frame], len: usize) -> Vec<Segment> {
    let part = |(i, frame): (usize, &Frame)| Segment {
        physical: frame.physical() as u64,
        len: (len - i * PAGE_SIZE).min(PAGE_SIZE) as u32,
    };
    frames.iter().enumerate().map(part).collect()
}

impl Carrier {
    fn run(mut self) {
        // Requests are left with the connection while the device has no room.
        let mut has_room = true;
        loop {
            match self.next(has_room) {
                Task::Carry(request) => has_room = self.carry(request),
                Task::Finish(done) => {
                    self.finish(&done);
                    has_room = true;
                }
                // What is under way keeps its memory until the device is done with it.
                Task::End => return,
            }
        }
    }

    fn next(&self, has_room: bool) -> Task {
        let next = || {
            let done = self.under_way.iter().find(|one| one.written.load(Ordering::Acquire) != NOT_YET);
            if let Some(done) = done {
                return Some(Task::Finish(done.clone()));
            }
            if !has_room {
                return self.connection.is_readable().err().map(|_| Task::End);
            }
            match self.connection.next_request(REQUEST_MAX) {
                Ok(request) => Some(Task::Carry(request)),
                Err(Errno::EAGAIN) => None,
                Err(_) => Some(Task::End),
            }
        };
        self.connection.readers.wait_until(Sleep::Uninterruptible, None, next).unwrap_or(Task::End)
    }

    /// Gives a request to the device; false where that has no room, and the connection keeps it.
    fn carry(&mut self, request: Arc<Request>) -> bool {
        let (message, room) = (request.message(), request.reply_room());
        let (Ok(frames), Ok(reply)) = (frames(message.len()), frames(room)) else {
            self.connection.lost(&request);
            return true;
        };
        for (frame, chunk) in frames.iter().zip(message.chunks(PAGE_SIZE)) {
            frame.write(0, chunk);
        }
        let (out, into) = (segments(&frames, message.len()), segments(&reply, room));
        let one = Arc::new(UnderWay { request, _message: frames, reply, written: AtomicUsize::new(NOT_YET) });
        let (theirs, readers) = (one.clone(), self.connection.readers.clone());
        let done = move |written| {
            theirs.written.store(written, Ordering::Release);
            readers.wake_all();
        };
        if self.device.submit(Exchange { request: out, reply: into, done: Box::new(done) }).is_err() {
            self.connection.give_back(one.request.clone());
            return false;
        }
        self.under_way.push(one);
        true
    }

    fn finish(&mut self, done: &Arc<UnderWay>) {
        self.under_way.retain(|one| !Arc::ptr_eq(one, done));
        if !done.request.is_answered() {
            return;
        }
        let written = done.written.load(Ordering::Acquire).min(done.reply.len() * PAGE_SIZE);
        // Servers say that they filled what was there; the header has the truth.
        let said = done.reply.first().map_or(0, |frame| {
            let mut len = [0; 4];
            frame.read(0, &mut len);
            u32::from_le_bytes(len) as usize
        });
        let mut answer = Vec::new();
        if answer.try_reserve_exact(written.min(said)).is_err() {
            self.connection.lost(&done.request);
            return;
        }
        answer.resize(written.min(said), 0);
        for (frame, chunk) in done.reply.iter().zip(answer.chunks_mut(PAGE_SIZE)) {
            frame.read(0, chunk);
        }
        // An answer to something else, or to nothing: who asked would wait for ever.
        let right = answer.get(8..OUT_HEADER).is_some_and(|unique| done.request.is_unique(unique));
        if !right || self.connection.answer(&answer).is_err() {
            self.connection.lost(&done.request);
        }
    }
}

/// A server's instance.
struct Mounted {
    tag: Vec<u8>,
    connection: Weak<Connection>,
    root: Weak<Inode>,
}

/// A server has one instance, however often it is mounted: a second greeting would end what the first began.
static MOUNTED: Mutex<Vec<Mounted>> = Mutex::new(Vec::new());

/// The kind "virtiofs" for mount(2), whose source is a server's tag.
pub(crate) struct Kind;

impl FileSystem for Kind {
    fn name(&self) -> &'static str {
        "virtiofs"
    }

    fn mount(&self, source: &[u8], options: &[u8]) -> Result<Arc<Inode>> {
        if options.split(|&b| b == b',').any(|option| !option.is_empty() && option != b"dax=never") {
            return Err(Errno::EINVAL);
        }
        let named = |server: &&Arc<dyn ExchangeDevice>| server.tag() == source;
        let device = SERVERS.lock().iter().find(named).cloned().ok_or(Errno::EINVAL)?;
        let mut mounted = MOUNTED.lock();
        mounted.retain(|one| one.connection.upgrade().is_some_and(|connection| connection.is_readable().is_ok()));
        if let Some(root) = mounted.iter().find(|one| one.tag == source).and_then(|one| one.root.upgrade()) {
            return Ok(root);
        }
        let connection = Connection::new()?;
        let carrier = Carrier { device, connection: connection.clone(), under_way: Vec::new() };
        sched::thread::spawn_kernel(&(String::from("virtiofs-") + &String::from_utf8_lossy(source)), || carrier.run());
        let root = mount::mount_server(&connection).inspect_err(|_| connection.abort())?;
        let tag = source.to_vec();
        mounted.push(Mounted { tag, connection: Arc::downgrade(&connection), root: Arc::downgrade(&root) });
        Ok(root)
    }
}
