//! inotify(7).

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use base::{Errno, Events, Result};
use hal::sync::SpinLock;
use hal::user::UserPtr;
use mm::Sink;
use sched::{Sleep, WaitQueue};

use crate::notify::{self, Happening, Watcher, event};
use crate::vfs::{permission, pseudo};
use crate::{Access, File, FsContext, Inode, Io, IoctlContext, OpenFile, OpenFlags, Path, PollTable};

/// Events that wait to be read at most (`fs.inotify.max_queued_events`).
const QUEUE_MAX: usize = 16384;
/// Watches of one instance at most (`fs.inotify.max_user_watches`).
const WATCHES_MAX: usize = 65536;
/// Bytes of `struct inotify_event` before the name.
const HEADER: usize = 16;

const Q_OVERFLOW: u32 = 0x4000;
const IGNORED: u32 = 0x8000;
const EXCL_UNLINK: u32 = 0x0400_0000;
const MASK_CREATE: u32 = 0x1000_0000;
const MASK_ADD: u32 = 0x2000_0000;
const ONESHOT: u32 = 0x8000_0000;
/// IN_ALL_EVENTS.
const ALL_EVENTS: u32 = 0xfff;
/// The flags that are no events: IN_ONLYDIR and IN_DONT_FOLLOW are the caller's.
const FLAGS: u32 = EXCL_UNLINK | MASK_CREATE | MASK_ADD | ONESHOT | 0x0300_0000;

struct Watch {
    inode: Arc<Inode>,
    mask: u32,
}

#[derive(PartialEq, Eq)]
struct Event {
    watch: i32,
    mask: u32,
    cookie: u32,
    /// With the NULs that fill it up; empty for none.
    name: Vec<u8>,
}

impl Event {
    fn new(watch: i32, mask: u32, cookie: u32, name: Option<&[u8]>) -> Event {
        let mut padded = name.unwrap_or_default().to_vec();
        if name.is_some() {
            padded.resize((padded.len() + 1).next_multiple_of(HEADER), 0);
        }
        Event { watch, mask, cookie, name: padded }
    }

    fn len(&self) -> usize {
        HEADER + self.name.len()
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.watch.to_ne_bytes().to_vec();
        for field in [self.mask, self.cookie, self.name.len() as u32] {
            bytes.extend_from_slice(&field.to_ne_bytes());
        }
        bytes.extend_from_slice(&self.name);
        bytes
    }
}

/// An inotify instance.
pub struct Inotify {
    me: Weak<Inotify>,
    watches: SpinLock<(BTreeMap<i32, Watch>, i32)>,
    queue: SpinLock<VecDeque<Event>>,
    readers: Arc<WaitQueue>,
}

/// inotify_init1(2).
pub fn create(nonblocking: bool) -> Arc<OpenFile> {
    let instance = Arc::new_cyclic(|me| Inotify {
        me: me.clone(),
        watches: SpinLock::new((BTreeMap::new(), 1)),
        queue: SpinLock::new(VecDeque::new()),
        readers: Arc::new(WaitQueue::new()),
    });
    let flags = if nonblocking { OpenFlags::NONBLOCK } else { OpenFlags::empty() };
    pseudo::open_anonymous(instance, "inotify", flags)
}

impl Inotify {
    /// The instance behind an open file. `EINVAL`.
    pub fn of(open: &OpenFile) -> Result<&Inotify> {
        open.file().downcast().ok_or(Errno::EINVAL)
    }

    fn as_watcher(&self) -> Result<Arc<dyn Watcher>> {
        let me: Arc<dyn Watcher> = self.me.upgrade().ok_or(Errno::EBADF)?;
        Ok(me)
    }

    /// inotify_add_watch(2): the watch's number. `EINVAL`, `EACCES`, `EEXIST` (IN_MASK_CREATE), `ENOSPC`.
    pub fn add(&self, cx: &FsContext, path: &Path, mask: u32) -> Result<i32> {
        if mask & ALL_EVENTS == 0 || mask & (MASK_ADD | MASK_CREATE) == MASK_ADD | MASK_CREATE {
            return Err(Errno::EINVAL);
        }
        let inode = path.inode()?;
        permission::check(&cx.cred, inode, Access::READ)?;
        let watcher = self.as_watcher()?;
        let mut watches = self.watches.lock();
        let (map, next) = &mut *watches;
        if let Some((number, watch)) = map.iter_mut().find(|(_, watch)| Arc::ptr_eq(&watch.inode, inode)) {
            if mask & MASK_CREATE != 0 {
                return Err(Errno::EEXIST);
            }
            watch.mask = if mask & MASK_ADD != 0 { watch.mask | mask } else { mask };
            return Ok(*number);
        }
        if map.len() >= WATCHES_MAX {
            return Err(Errno::ENOSPC);
        }
        let number = *next;
        *next = next.checked_add(1).ok_or(Errno::ENOSPC)?;
        map.insert(number, Watch { inode: inode.clone(), mask: mask & (ALL_EVENTS | FLAGS) });
        drop(watches);
        notify::watch(&**inode, &watcher);
        Ok(number)
    }

    /// inotify_rm_watch(2). `EINVAL`.
    pub fn remove(&self, number: i32) -> Result<()> {
        let watch = self.watches.lock().0.remove(&number).ok_or(Errno::EINVAL)?;
        notify::unwatch(&*watch.inode, &self.as_watcher()?);
        self.push(Event::new(number, IGNORED, 0, None));
        Ok(())
    }

    fn push(&self, event: Event) {
        let mut queue = self.queue.lock();
        if queue.back() == Some(&event) || queue.back().is_some_and(|last| last.mask == Q_OVERFLOW) {
            return;
        }
        if queue.len() >= QUEUE_MAX {
            queue.push_back(Event::new(-1, Q_OVERFLOW, 0, None));
        } else {
            queue.push_back(event);
        }
        drop(queue);
        self.readers.wake_for(Events::READABLE, 1);
    }

    /// The first events that fit into `room` bytes. `EINVAL` where not even one does; `None` where there is none.
    fn take(&self, room: usize) -> Option<Result<Vec<u8>>> {
        let mut queue = self.queue.lock();
        if queue.front()?.len() > room {
            return Some(Err(Errno::EINVAL));
        }
        let mut bytes = Vec::new();
        while let Some(event) = queue.front()
            && bytes.len() + event.len() <= room.min(1 << 16)
        {
            bytes.extend_from_slice(&event.encode());
            queue.pop_front();
        }
        Some(Ok(bytes))
    }
}

impl Inotify {
    fn watched_event(&self, inode: &Arc<Inode>, mask: u32, name: Option<&[u8]>, cookie: u32) {
        let mut watches = self.watches.lock();
        let found =
            watches.0.iter().find(|(_, watch)| Arc::ptr_eq(&watch.inode, inode)).map(|(n, watch)| (*n, watch.mask));
        let Some((number, wanted)) = found else { return };
        let gone = name.is_none() && mask & event::DELETE_SELF != 0;
        let wants = wanted & mask & ALL_EVENTS != 0;
        let spent = gone || wants && wanted & ONESHOT != 0;
        let removed = if spent { watches.0.remove(&number) } else { None };
        drop(watches);
        if wants {
            self.push(Event::new(number, mask, cookie, name));
        }
        if let Some(watch) = removed {
            if let Ok(watcher) = self.as_watcher() {
                notify::unwatch(&*watch.inode, &watcher);
            }
            self.push(Event::new(number, IGNORED, 0, None));
        }
    }
}

impl Watcher for Inotify {
    /// A directory hears of its files first, with their names, then the file.
    fn event(&self, what: &Happening) {
        if what.mask & event::RENAME != 0 {
            return;
        }
        if let Some((dir, name)) = what.parent {
            self.watched_event(dir, what.mask, Some(name), what.cookie);
        }
        if let Some(object) = what.object.filter(|_| !what.of_entry) {
            self.watched_event(object, what.mask, None, what.cookie);
        }
    }
}

impl File for Inotify {
    fn read(&self, sink: &mut Sink, io: &mut Io) -> Result<usize> {
        let room = sink.remaining();
        let bytes = match io.nonblocking() {
            true => self.take(room).unwrap_or(Err(Errno::EAGAIN)),
            false => self.readers.wait_until(Sleep::Interruptible, None, || self.take(room))?,
        }?;
        sink.put(&bytes)
    }

    fn poll(&self, table: &mut PollTable) -> Events {
        table.register(&self.readers);
        if self.queue.lock().is_empty() { Events::empty() } else { Events::READABLE }
    }

    fn ioctl(&self, _cx: &IoctlContext, request: u32, arg: usize) -> Result<usize> {
        if request != abi::ioctl::FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let bytes: usize = self.queue.lock().iter().map(Event::len).sum();
        UserPtr::new(arg).write(&i32::try_from(bytes).unwrap_or(i32::MAX))?;
        Ok(0)
    }

    fn release(&self, _flags: OpenFlags) {
        let watches = core::mem::take(&mut self.watches.lock().0);
        if let Ok(watcher) = self.as_watcher() {
            for watch in watches.values() {
                notify::unwatch(&*watch.inode, &watcher);
            }
        }
    }

    fn fdinfo(&self) -> Vec<u8> {
        let mut lines = Vec::new();
        for (number, watch) in &self.watches.lock().0 {
            let (ino, device) = (watch.inode.number(), watch.inode.superblock().device.encode());
            let line = alloc::format!(
                "inotify wd:{number:x} ino:{ino:x} sdev:{device:x} mask:{:x} ignored_mask:0 \n",
                watch.mask
            );
            lines.extend_from_slice(line.as_bytes());
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_up_to_sixteen_bytes() {
        assert_eq!(Event::new(1, 2, 3, None).encode().len(), 16);
        assert_eq!(Event::new(1, 2, 3, Some(b"abc")).encode().len(), 32);
        let event = Event::new(1, 0x100, 0, Some(b"sixteen-bytes-xx")).encode();
        assert_eq!((event.len(), &event[12..16]), (48, &32u32.to_ne_bytes()[..]));
    }
}
