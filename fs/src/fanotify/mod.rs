//! fanotify(7): telling one process what happens to inodes, to all of a mount, or to all of a file system, and asking it for permission.
//!
//! [`mark`] is what a group listens to, [`record`] how events look to the reader, [`question`] what it has to answer.

mod mark;
mod question;
mod record;

use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use base::{Capability, Cred, Errno, Events, Result};
use bitflags::bitflags;
use hal::sync::SpinLock;
use hal::user::UserPtr;
use mm::Sink;
use sched::{Sleep, WaitQueue};

use crate::notify::{self, Happening, Watcher};
use crate::vfs::{handle, open, pseudo};
use crate::{File, FileKind, FsContext, IoctlContext, OpenFile, OpenFlags, Path, PollTable};

use mark::Marks;
pub use mark::{MarkFlags, Target};
use question::{Asked, Question};
use record::{About, Event};

/// Events that wait to be read at most (`fs.fanotify.max_queued_events`).
const QUEUE_MAX: usize = 16384;
/// How far back an event looks for one like it.
const MERGE_DEPTH: usize = 128;

/// The bits of events, beside those of [`notify::event`].
pub mod mask {
    /// FAN_Q_OVERFLOW.
    pub const Q_OVERFLOW: u32 = 0x4000;
    /// FAN_EVENT_ON_CHILD: files in a marked directory count.
    pub const EVENT_ON_CHILD: u32 = 0x0800_0000;
    /// FAN_RENAME.
    pub const RENAME: u32 = 0x1000_0000;
    /// FAN_ONDIR: directories count.
    pub const ONDIR: u32 = 0x4000_0000;
    /// What happens to an open file.
    pub const OF_FILES: u32 = 0x103b;
    /// What happens to a directory's entries.
    pub const OF_ENTRIES: u32 = 0x3c0 | RENAME;
    /// What happens to an inode without its being open.
    pub const OF_INODES: u32 = 0xc04;
    /// What somebody waits for an answer to.
    pub const QUESTIONS: u32 = 0x7_0000;
    /// All events.
    pub const EVENTS: u32 = OF_FILES | OF_ENTRIES | OF_INODES | QUESTIONS;
}

bitflags! {
    /// The flags of fanotify_init(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct GroupFlags: u32 {
        /// FAN_CLOEXEC.
        const CLOEXEC = 1;
        /// FAN_NONBLOCK.
        const NONBLOCK = 2;
        /// FAN_CLASS_CONTENT.
        const CLASS_CONTENT = 4;
        /// FAN_CLASS_PRE_CONTENT.
        const CLASS_PRE_CONTENT = 8;
        /// FAN_UNLIMITED_QUEUE.
        const UNLIMITED_QUEUE = 0x10;
        /// FAN_UNLIMITED_MARKS.
        const UNLIMITED_MARKS = 0x20;
        /// FAN_ENABLE_AUDIT.
        const ENABLE_AUDIT = 0x40;
        /// FAN_REPORT_PIDFD.
        const REPORT_PIDFD = 0x80;
        /// FAN_REPORT_TID.
        const REPORT_TID = 0x100;
        /// FAN_REPORT_FID.
        const REPORT_FID = 0x200;
        /// FAN_REPORT_DIR_FID.
        const REPORT_DIR_FID = 0x400;
        /// FAN_REPORT_NAME.
        const REPORT_NAME = 0x800;
        /// FAN_REPORT_TARGET_FID.
        const REPORT_TARGET_FID = 0x1000;
    }
}

impl GroupFlags {
    /// Events tell handles, not descriptors.
    const REPORT_ANY_FID: GroupFlags = GroupFlags::REPORT_FID.union(GroupFlags::REPORT_DIR_FID);
    /// What needs CAP_SYS_ADMIN.
    const PRIVILEGED: GroupFlags = GroupFlags::CLASS_CONTENT
        .union(GroupFlags::CLASS_PRE_CONTENT)
        .union(GroupFlags::UNLIMITED_QUEUE)
        .union(GroupFlags::UNLIMITED_MARKS)
        .union(GroupFlags::ENABLE_AUDIT)
        .union(GroupFlags::REPORT_PIDFD)
        .union(GroupFlags::REPORT_TID);
}

/// A group: what fanotify_init(2) makes.
pub struct Group {
    me: Weak<Group>,
    flags: GroupFlags,
    /// How descriptors of events are opened.
    event_flags: OpenFlags,
    /// Who made it, to open files as.
    cred: Arc<Cred>,
    privileged: bool,
    marks: SpinLock<Marks>,
    queue: SpinLock<Queue>,
    readers: Arc<WaitQueue>,
    asked: Asked,
}

/// Events that wait to be read.
#[derive(Default)]
struct Queue {
    events: VecDeque<Event>,
    /// Nobody will read any more.
    ended: bool,
}

/// fanotify_init(2). `EINVAL`; `EPERM` without CAP_SYS_ADMIN for all but a group that tells handles.
pub fn create(cx: &FsContext, flags: u32, event_flags: u32) -> Result<Arc<OpenFile>> {
    const EVENT_FLAGS: OpenFlags = OpenFlags::APPEND
        .union(OpenFlags::NONBLOCK)
        .union(OpenFlags::DSYNC)
        .union(OpenFlags::SYNC)
        .union(OpenFlags::CLOEXEC)
        .union(OpenFlags::LARGEFILE)
        .union(OpenFlags::NOATIME)
        .union(OpenFlags::RDWR)
        .union(OpenFlags::WRONLY);
    let privileged = cx.cred.capable(Capability::SysAdmin);
    let asked = GroupFlags::from_bits_retain(flags);
    let tells_handles = asked.intersects(GroupFlags::REPORT_ANY_FID);
    if !privileged && (asked.intersects(GroupFlags::PRIVILEGED) || !tells_handles) {
        return Err(Errno::EPERM);
    }
    let both = |one, other| asked.contains(one) && asked.contains(other);
    let named = asked.contains(GroupFlags::REPORT_NAME) && !asked.contains(GroupFlags::REPORT_DIR_FID);
    let whole = GroupFlags::REPORT_FID | GroupFlags::REPORT_NAME;
    let targeted = asked.contains(GroupFlags::REPORT_TARGET_FID) && !asked.contains(whole);
    let class = GroupFlags::CLASS_CONTENT | GroupFlags::CLASS_PRE_CONTENT;
    let wrong = GroupFlags::from_bits(flags).is_none()
        || both(GroupFlags::REPORT_PIDFD, GroupFlags::REPORT_TID)
        || event_flags & !EVENT_FLAGS.bits() != 0
        || event_flags & abi::general::O_ACCMODE == abi::general::O_ACCMODE
        || tells_handles && asked.intersects(class)
        || named
        || targeted
        || asked.contains(class)
        || asked.contains(GroupFlags::ENABLE_AUDIT);
    if wrong {
        return Err(Errno::EINVAL);
    }
    let group = Arc::new_cyclic(|me| Group {
        me: me.clone(),
        flags: asked,
        event_flags: OpenFlags::from_bits_retain(event_flags),
        cred: cx.cred.clone(),
        privileged,
        marks: SpinLock::new(Marks::default()),
        queue: SpinLock::new(Queue::default()),
        readers: Arc::new(WaitQueue::new()),
        asked: Asked::default(),
    });
    let nonblocking = if asked.contains(GroupFlags::NONBLOCK) { OpenFlags::NONBLOCK } else { OpenFlags::empty() };
    Ok(pseudo::open_anonymous(group, "[fanotify]", OpenFlags::RDWR | nonblocking))
}

impl Group {
    /// The group behind an open file. `EINVAL`.
    pub fn of(open: &OpenFile) -> Result<&Group> {
        open.file().downcast().ok_or(Errno::EINVAL)
    }

    fn as_watcher(&self) -> Result<Arc<dyn Watcher>> {
        let me: Arc<dyn Watcher> = self.me.upgrade().ok_or(Errno::EBADF)?;
        Ok(me)
    }

    fn tells_handles(&self) -> bool {
        self.flags.intersects(GroupFlags::REPORT_ANY_FID)
    }

    /// fanotify_mark(2)'s checks of what an event mask may have for such a mark, without looking for the file. `EINVAL`, `EPERM`.
    pub fn check_mark(&self, flags: MarkFlags, events: u32) -> Result<()> {
        let wide = flags.intersects(MarkFlags::MOUNT | MarkFlags::FILESYSTEM);
        if !self.privileged && wide {
            return Err(Errno::EPERM);
        }
        let only_handles = events & (mask::OF_ENTRIES | mask::OF_INODES) != 0;
        let asks = self.flags.intersects(GroupFlags::CLASS_CONTENT | GroupFlags::CLASS_PRE_CONTENT);
        if events & mask::QUESTIONS != 0 && !asks {
            return Err(Errno::EINVAL);
        }
        if events & mask::RENAME != 0 && !self.flags.contains(GroupFlags::REPORT_NAME) {
            return Err(Errno::EINVAL);
        }
        if only_handles && (!self.tells_handles() || flags.contains(MarkFlags::MOUNT)) {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    /// Adds events to a mark, which is made if need be. `ENOSPC`, `EOPNOTSUPP` (the file system has no handles), `ENOMEM`.
    pub fn add(&self, target: Target, flags: MarkFlags, events: u32) -> Result<()> {
        if self.tells_handles() {
            handle::encode(&*target.inode()?)?;
        }
        if events & mask::QUESTIONS != 0 {
            notify::begin_asking();
        }
        let unlimited = self.flags.contains(GroupFlags::UNLIMITED_MARKS);
        if self.marks.lock().add(&target, flags, events, unlimited)? {
            target.watch(&self.as_watcher()?);
        }
        Ok(())
    }

    /// Takes events from a mark, which goes if none are left. `ENOENT`.
    pub fn remove(&self, target: &Target, flags: MarkFlags, events: u32) -> Result<()> {
        let gone = self.marks.lock().remove(target, flags, events)?;
        if let Some(gone) = gone {
            gone.unwatch(&self.as_watcher()?);
        }
        Ok(())
    }

    /// Removes all marks of inodes, mounts or file systems (FAN_MARK_FLUSH).
    pub fn flush(&self, flags: MarkFlags) -> Result<()> {
        let gone = self.marks.lock().flush(flags);
        let watcher = self.as_watcher()?;
        gone.iter().for_each(|target| target.unwatch(&watcher));
        Ok(())
    }

    /// Queues an event; false where it is lost.
    fn push(&self, event: Event) -> bool {
        let mut queue = self.queue.lock();
        let Queue { events, ended } = &mut *queue;
        if let Some(like) = events.iter_mut().rev().take(MERGE_DEPTH).find(|like| like.merges(&event)) {
            like.mask |= event.mask;
            return true;
        }
        let full = events.len() >= QUEUE_MAX && !self.flags.contains(GroupFlags::UNLIMITED_QUEUE);
        let told = full && events.back().is_some_and(|last| last.mask == mask::Q_OVERFLOW);
        if *ended || told || events.try_reserve(1).is_err() {
            return false;
        }
        events.push_back(if full { Event::overflow() } else { event });
        drop(queue);
        self.readers.wake_for(Events::READABLE, 1);
        !full
    }

    /// The event that tells of what happened, `wanted` of it. `None` where there is nothing to tell.
    fn event_of(&self, what: &Happening, wanted: u32) -> Option<Event> {
        if wanted == 0 {
            return None;
        }
        let about = if self.tells_handles() {
            let renamed = what.mask & mask::RENAME != 0;
            let ends = if renamed { self.marks.lock().ends_of_rename(what) } else { (false, false) };
            About::Files(record::Files::of(what, self.flags, ends))
        } else {
            // Others than files and directories are not opened again for who listens.
            let opens = |path: &&Path| {
                path.dentry.inode().is_some_and(|inode| matches!(inode.kind(), FileKind::Regular | FileKind::Directory))
            };
            About::Path(what.path.filter(opens)?.clone())
        };
        let (pid, tid) = crate::callers::get().map_or((0, 0), |callers| callers.ids());
        let pid = if self.flags.contains(GroupFlags::REPORT_TID) { tid } else { pid };
        let shown = if self.tells_handles() { wanted | what.mask & mask::ONDIR } else { wanted };
        Some(Event { mask: shown, pid, about, question: None })
    }

    /// Writes one event out. `EINVAL` where it does not fit.
    fn give(&self, event: &Event, sink: &mut Sink) -> Result<usize> {
        let mut details = record::details(event, self.flags)?;
        let pidfd = self.flags.contains(GroupFlags::REPORT_PIDFD);
        let len = record::HEADER + details.len() + if pidfd { record::PIDFD_LEN } else { 0 };
        if sink.remaining() < len {
            return Err(Errno::EINVAL);
        }
        let callers = crate::callers::get()?;
        let fd = match &event.about {
            About::Path(path) => {
                let here = || path.clone();
                let cx = FsContext { cred: self.cred.clone(), cwd: here(), root: here(), umask: 0 };
                let open = open::open_path(&cx, path.clone(), self.event_flags | OpenFlags::UNHEARD)?;
                let fd = callers.install(open, self.event_flags.contains(OpenFlags::CLOEXEC))?;
                if let Some(question) = &event.question {
                    self.asked.add(fd, question)?;
                }
                fd
            }
            _ => record::NO_FD,
        };
        if pidfd {
            // A process that is gone has none: FAN_NOPIDFD.
            let number = if event.pid == 0 { Err(Errno::ESRCH) } else { callers.install_process(event.pid) };
            record::put_pidfd(&mut details, number.unwrap_or(record::NO_FD));
        }
        sink.put(&record::header(event, len, fd))?;
        sink.put(&details)?;
        Ok(len)
    }
}

impl Watcher for Group {
    fn event(&self, what: &Happening) {
        let told = if self.tells_handles() { mask::EVENTS } else { mask::OF_FILES };
        let wanted = self.marks.lock().interest(what, told);
        if let Some(event) = self.event_of(what, wanted) {
            self.push(event);
        }
    }

    fn ask(&self, what: &Happening) -> Result<()> {
        let wanted = self.marks.lock().interest(what, mask::QUESTIONS);
        let Some(event) = self.event_of(what, wanted) else { return Ok(()) };
        let question = Question::new();
        // What is lost nobody forbids.
        if !self.push(Event { question: Some(question.clone()), ..event }) {
            return Ok(());
        }
        let answer = question.wait();
        if answer == Err(Errno::EINTR) {
            let is_it = |event: &Event| event.question.as_ref().is_some_and(|other| Arc::ptr_eq(other, &question));
            self.queue.lock().events.retain(|event| !is_it(event));
            self.asked.forget(&question);
        }
        answer
    }
}

impl File for Group {
    /// Whole events, as many as fit. `EINVAL` where the first doesn't, `EAGAIN`.
    fn read(&self, sink: &mut Sink, io: &mut crate::Io) -> Result<usize> {
        let mut total = 0;
        loop {
            let next = || self.queue.lock().events.pop_front();
            let event = if total > 0 {
                next()
            } else if io.nonblocking() {
                Some(next().ok_or(Errno::EAGAIN)?)
            } else {
                Some(self.readers.wait_until(Sleep::Interruptible, None, next)?)
            };
            let Some(event) = event else { return Ok(total) };
            match self.give(&event, sink) {
                Ok(len) => total += len,
                Err(Errno::EINVAL) => {
                    self.queue.lock().events.push_front(event);
                    return if total > 0 { Ok(total) } else { Err(Errno::EINVAL) };
                }
                // The file cannot be opened: the event is lost, and who has read none hears why.
                Err(error) => {
                    if let Some(question) = &event.question {
                        self.asked.forget(question);
                        question.answer(false);
                    }
                    return if total > 0 { Ok(total) } else { Err(error) };
                }
            }
        }
    }

    /// An answer to a question of permission. `ENOENT` where that was not asked, `EINVAL`.
    fn write(&self, source: &mut mm::Source, _io: &mut crate::Io) -> Result<usize> {
        if source.remaining() < question::ANSWER {
            return Err(Errno::EINVAL);
        }
        let mut bytes = [0; question::ANSWER];
        if source.take(&mut bytes)? < bytes.len() {
            return Err(Errno::EFAULT);
        }
        self.asked.answer(bytes).map(|()| bytes.len())
    }

    fn poll(&self, table: &mut PollTable) -> Events {
        table.register(&self.readers);
        if self.queue.lock().events.is_empty() { Events::empty() } else { Events::READABLE }
    }

    fn ioctl(&self, _cx: &IoctlContext, request: u32, arg: usize) -> Result<usize> {
        if request != abi::ioctl::FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let bytes = self.queue.lock().events.len() * record::HEADER;
        UserPtr::new(arg).write(&i32::try_from(bytes).unwrap_or(i32::MAX))?;
        Ok(0)
    }

    fn release(&self, _flags: OpenFlags) {
        let gone = self.marks.lock().take_all();
        if let Ok(watcher) = self.as_watcher() {
            gone.iter().for_each(|target| target.unwatch(&watcher));
        }
        let unread = {
            let mut queue = self.queue.lock();
            queue.ended = true;
            core::mem::take(&mut queue.events)
        };
        // Nobody forbids what nobody answers.
        unread.iter().filter_map(|event| event.question.as_ref()).for_each(|question| question.answer(true));
        self.asked.end();
    }

    fn fdinfo(&self) -> Vec<u8> {
        let head = alloc::format!("fanotify flags:{:x} event-flags:{:x}\n", self.flags.bits(), self.event_flags.bits());
        [head.into_bytes(), self.marks.lock().describe()].concat()
    }
}
