//! Descriptor tables.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use base::{Errno, Result};
use hal::sync::SpinLock;

use crate::{Access, LockOwner, OpenFile};

/// A file descriptor, as programs number it.
pub type Fd = i32;

/// One descriptor: the open file and the flag that belongs to the descriptor alone.
#[derive(Clone)]
pub struct Descriptor {
    /// The open file.
    pub open: Arc<OpenFile>,
    /// FD_CLOEXEC.
    pub close_on_exec: bool,
}

#[derive(Default)]
struct Slots {
    files: Vec<Option<Descriptor>>,
    /// No number below it is free.
    lowest: usize,
}

impl Slots {
    fn get(&self, fd: Fd) -> Option<&Descriptor> {
        self.files.get(usize::try_from(fd).ok()?)?.as_ref()
    }

    /// The lowest free number from `from` on, the table being long enough for it. `EMFILE` at `limit`, `ENOMEM`.
    fn free_from(&mut self, from: usize, limit: usize) -> Result<usize> {
        let start = from.max(self.lowest);
        let taken = self.files.get(start..).unwrap_or_default();
        let fd = start + taken.iter().position(Option::is_none).unwrap_or(taken.len());
        if fd >= limit {
            return Err(Errno::EMFILE);
        }
        self.grow(fd + 1)?;
        if from <= self.lowest {
            self.lowest = fd + 1;
        }
        Ok(fd)
    }

    fn grow(&mut self, len: usize) -> Result<()> {
        if len > self.files.len() {
            self.files.try_reserve(len - self.files.len()).map_err(|_| Errno::ENOMEM)?;
            self.files.resize_with(len, || None);
        }
        Ok(())
    }

    fn take(&mut self, fd: Fd) -> Option<Descriptor> {
        let index = usize::try_from(fd).ok()?;
        let taken = self.files.get_mut(index)?.take();
        if taken.is_some() {
            self.lowest = self.lowest.min(index);
        }
        taken
    }
}

/// A table of descriptors, of one process or shared by several (CLONE_FILES). Limits are the caller's RLIMIT_NOFILE.
///
/// Files are never dropped under the table's lock, since the last close of a file may sleep.
pub struct FdTable {
    id: u64,
    slots: SpinLock<Slots>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

fn limit_as_len(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX).min(Fd::MAX as usize)
}

impl FdTable {
    /// An empty table.
    pub fn new() -> Arc<FdTable> {
        FdTable::with(Slots::default())
    }

    fn with(slots: Slots) -> Arc<FdTable> {
        Arc::new(FdTable { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), slots: SpinLock::new(slots) })
    }

    /// A copy for fork: the same open files under the same numbers. `ENOMEM`.
    pub fn fork(&self) -> Result<Arc<FdTable>> {
        let mut files = Vec::new();
        loop {
            let needed = self.slots.lock().files.len();
            files.try_reserve(needed).map_err(|_| Errno::ENOMEM)?;
            let slots = self.slots.lock();
            // It may have grown while we allocated without its lock.
            if slots.files.len() <= files.capacity() {
                files.extend(slots.files.iter().cloned());
                let lowest = slots.lowest;
                drop(slots);
                return Ok(FdTable::with(Slots { files, lowest }));
            }
        }
    }

    /// A number that no other table has or will have: the owner of its POSIX locks and of requests to be notified.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The open file at `fd`. `EBADF`; also for O_PATH files, which only name.
    #[inline]
    pub fn get(&self, fd: Fd) -> Result<Arc<OpenFile>> {
        let open = self.get_any(fd)?;
        if open.is_path() { Err(Errno::EBADF) } else { Ok(open) }
    }

    /// The open file at `fd`, opened with O_PATH or not. `EBADF`.
    #[inline]
    pub fn get_any(&self, fd: Fd) -> Result<Arc<OpenFile>> {
        self.slots.lock().get(fd).map(|d| d.open.clone()).ok_or(Errno::EBADF)
    }

    /// The open file at `fd` if it allows all of `access`. `EBADF`.
    #[inline]
    pub fn get_for(&self, fd: Fd, access: Access) -> Result<Arc<OpenFile>> {
        let open = self.get(fd)?;
        if open.access().contains(access) { Ok(open) } else { Err(Errno::EBADF) }
    }

    /// Calls `each` with each of `fds` and the open file there, `None` where [`FdTable::get`] would fail, under one lock: it must neither
    /// sleep nor drop files.
    #[inline]
    pub fn for_each(&self, fds: impl Iterator<Item = Fd>, mut each: impl FnMut(Fd, Option<&Arc<OpenFile>>)) {
        let slots = self.slots.lock();
        fds.for_each(|fd| each(fd, slots.get(fd).map(|d| &d.open).filter(|open| !open.is_path())));
    }

    /// The descriptor at `fd`, flag and all. `EBADF`.
    pub fn descriptor(&self, fd: Fd) -> Result<Descriptor> {
        self.slots.lock().get(fd).cloned().ok_or(Errno::EBADF)
    }

    /// Gives the open file the lowest free number. `EMFILE`, `ENOMEM`.
    pub fn install(&self, open: Arc<OpenFile>, close_on_exec: bool, limit: u64) -> Result<Fd> {
        self.install_from(0, open, close_on_exec, limit)
    }

    /// Gives the open file the lowest free number from `from` on (F_DUPFD). `EINVAL` if `from` is not below the limit, `EMFILE`, `ENOMEM`.
    pub fn install_from(&self, from: Fd, open: Arc<OpenFile>, close_on_exec: bool, limit: u64) -> Result<Fd> {
        let limit = limit_as_len(limit);
        let from = usize::try_from(from).map_err(|_| Errno::EINVAL)?;
        if from >= limit {
            return Err(if from == 0 { Errno::EMFILE } else { Errno::EINVAL });
        }
        let mut slots = self.slots.lock();
        let fd = slots.free_from(from, limit)?;
        slots.files[fd] = Some(Descriptor { open, close_on_exec });
        Ok(fd as Fd)
    }

    /// Gives two open files numbers, or neither (pipe(2), socketpair(2)). `EMFILE`, `ENOMEM`.
    pub fn install_pair(&self, pair: [Arc<OpenFile>; 2], close_on_exec: bool, limit: u64) -> Result<[Fd; 2]> {
        let [first, second] = pair;
        let one = self.install(first, close_on_exec, limit)?;
        match self.install(second, close_on_exec, limit) {
            Ok(two) => Ok([one, two]),
            Err(error) => {
                let _ = self.close(one);
                Err(error)
            }
        }
    }

    /// Puts the open file at exactly `fd`, in place of what is there (dup2(2)). `EBADF` if `fd` is not below the limit, `ENOMEM`.
    pub fn replace(&self, fd: Fd, open: Arc<OpenFile>, close_on_exec: bool, limit: u64) -> Result<()> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        if index >= limit_as_len(limit) {
            return Err(Errno::EBADF);
        }
        let mut slots = self.slots.lock();
        slots.grow(index + 1)?;
        let old = slots.files[index].replace(Descriptor { open, close_on_exec });
        drop(slots);
        if let Some(old) = old {
            self.closed(old);
        }
        Ok(())
    }

    /// Sets FD_CLOEXEC. `EBADF`.
    pub fn set_close_on_exec(&self, fd: Fd, on: bool) -> Result<()> {
        let mut slots = self.slots.lock();
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        let descriptor = slots.files.get_mut(index).and_then(Option::as_mut).ok_or(Errno::EBADF)?;
        descriptor.close_on_exec = on;
        Ok(())
    }

    /// close(2). `EBADF`.
    pub fn close(&self, fd: Fd) -> Result<()> {
        let taken = self.slots.lock().take(fd).ok_or(Errno::EBADF)?;
        self.closed(taken);
        Ok(())
    }

    /// Closes all descriptors from `first` to `last` that are open (close_range(2)).
    pub fn close_range(&self, first: u32, last: u32) {
        self.close_where(first as usize, last as usize, |_| true);
    }

    /// Sets FD_CLOEXEC on all descriptors from `first` to `last`.
    pub fn set_close_on_exec_range(&self, first: u32, last: u32) {
        let mut slots = self.slots.lock();
        let end = slots.files.len().min((last as usize).saturating_add(1));
        for descriptor in slots.files.get_mut(first as usize..end).unwrap_or_default().iter_mut().flatten() {
            descriptor.close_on_exec = true;
        }
    }

    /// Closes the descriptors with FD_CLOEXEC, for exec.
    pub fn close_on_exec(&self) {
        self.close_where(0, usize::MAX, |d| d.close_on_exec);
    }

    /// Closes everything, when the last process that uses the table exits.
    pub fn close_all(&self) {
        self.close_where(0, usize::MAX, |_| true);
    }

    fn close_where(&self, first: usize, last: usize, which: impl Fn(&Descriptor) -> bool) {
        let mut index = first;
        loop {
            let taken = {
                let mut slots = self.slots.lock();
                let end = slots.files.len().min(last.saturating_add(1));
                let wanted = |slot: &Option<Descriptor>| slot.as_ref().is_some_and(&which);
                let Some(found) = slots.files.get(index..end).and_then(|rest| rest.iter().position(wanted)) else {
                    return;
                };
                index += found;
                slots.take(index as Fd)
            };
            if let Some(descriptor) = taken {
                self.closed(descriptor);
            }
            index += 1;
        }
    }

    /// What every close does: POSIX locks of this table on the file go, whichever descriptor they were taken through.
    fn closed(&self, descriptor: Descriptor) {
        if let Some(locks) = descriptor.open.inode().locks() {
            locks.release(LockOwner::Table(self.id));
        }
        if !descriptor.open.is_path() {
            descriptor.open.file().flush(self.id);
        }
    }

    /// The numbers in use, ascending.
    pub fn numbers(&self) -> Vec<Fd> {
        let mut numbers = Vec::new();
        let slots = self.slots.lock();
        for (fd, slot) in slots.files.iter().enumerate() {
            if slot.is_some() {
                numbers.push(fd as Fd);
            }
        }
        numbers
    }

    /// The length of the table, for FDSize in `/proc/PID/status`.
    pub fn capacity(&self) -> usize {
        self.slots.lock().files.len().next_multiple_of(64)
    }
}

impl Drop for FdTable {
    fn drop(&mut self) {
        self.close_all();
    }
}
