//! Open file descriptions: what several descriptors may share - position, status flags, access mode.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use base::{Errno, Events, Result};
use hal::sync::{Once, SpinLock};
use mm::{Backing, FramePart, Mappable, PageCache, Sink, Source};

use crate::async_notify::{self, AsyncOwner, Notifier, OwnerCell};
use crate::directory_notify::DirectoryWatch;
use crate::notify::{self, event};
use crate::{
    Access, DirEntry, Fd, File, Inode, Io, LockOwner, Mapping, Metadata, MountFlags, OpenFlags, Path, PollTable,
    SeekFrom,
};

/// An open file description.
pub struct OpenFile {
    file: Arc<dyn File>,
    path: Path,
    inode: Arc<Inode>,
    id: u64,
    flags: AtomicU32,
    access: Access,
    /// Changed with `moving` held, by who moves it on; read without, as its own content may tell of it (fdinfo).
    position: AtomicU64,
    moving: sched::Mutex<()>,
    /// Where SIGIO goes; made when it is first asked for.
    owner: Once<OwnerCell>,
    /// What O_ASYNC has registered.
    asynchronous: SpinLock<Option<PollTable>>,
    directory_watch: SpinLock<Option<Arc<DirectoryWatch>>>,
    hold: Hold,
}

/// What an open file holds of its inode while it lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hold {
    /// Nothing.
    None,
    /// That it counts as a reader (taken with [`Inode::add_reader`]).
    Read,
    /// The right to write (taken with [`Inode::get_write`] and [`crate::Mount::get_write`]).
    Write,
    /// That nobody may write (taken with [`Inode::deny_write`]): it runs.
    DenyWrite,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl OpenFile {
    /// An open file on `file`, found at `path`. O_CREAT and the like are dropped from `flags`. What `hold` says was taken by the caller.
    pub fn new(file: Arc<dyn File>, path: Path, inode: Arc<Inode>, flags: OpenFlags, hold: Hold) -> Arc<OpenFile> {
        let noatime = path.mount.flags().contains(MountFlags::NOATIME);
        let kept = flags.difference(OpenFlags::CREATION);
        Arc::new(OpenFile {
            file,
            path,
            inode,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            flags: AtomicU32::new((if noatime { kept | OpenFlags::NOATIME } else { kept }).bits()),
            access: flags.access(),
            position: AtomicU64::new(0),
            moving: sched::Mutex::new(()),
            owner: Once::new(),
            asynchronous: SpinLock::new(None),
            directory_watch: SpinLock::new(None),
            hold,
        })
    }

    /// The object.
    #[inline]
    pub fn file(&self) -> &Arc<dyn File> {
        &self.file
    }

    /// Where it was found.
    #[inline]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its inode.
    #[inline]
    pub fn inode(&self) -> &Arc<Inode> {
        &self.inode
    }

    /// A number that no other open file has or will have.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The status flags and access mode.
    #[inline]
    pub fn flags(&self) -> OpenFlags {
        OpenFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }

    /// What it was opened for.
    #[inline]
    pub fn access(&self) -> Access {
        self.access
    }

    /// Was it opened with O_PATH? Then it only names a file.
    #[inline]
    pub fn is_path(&self) -> bool {
        self.flags().contains(OpenFlags::PATH)
    }

    /// Changes the flags that F_SETFL may change; others in `new` are ignored. `EINVAL`; `EPERM` for O_NOATIME on another's file
    /// is the caller's check.
    pub fn set_flags(&self, new: OpenFlags) -> Result<()> {
        self.file.flags_change(self, new)?;
        let keep = self.flags().difference(OpenFlags::SETTABLE);
        self.flags.store((keep | new.intersection(OpenFlags::SETTABLE)).bits(), Ordering::Relaxed);
        Ok(())
    }

    /// Where SIGIO goes.
    pub fn owner(&self) -> AsyncOwner {
        self.owner.get().map_or_else(AsyncOwner::default, |owner| *owner.lock_irq())
    }

    /// Sets where SIGIO goes, and SIGURG.
    pub fn set_owner(&self, owner: AsyncOwner) {
        // Without room for news the owner hears of none.
        let _ = async_notify::prepare();
        *self.owner_cell().lock_irq() = owner;
        self.file.owned_by(self.owner_cell());
    }

    /// What F_NOTIFY asked for.
    pub(crate) fn directory_watch(&self) -> Option<Arc<DirectoryWatch>> {
        self.directory_watch.lock().clone()
    }

    /// Puts another in the place of what F_NOTIFY asked for.
    pub(crate) fn set_directory_watch(&self, watch: Option<Arc<DirectoryWatch>>) {
        let old = core::mem::replace(&mut *self.directory_watch.lock(), watch);
        if let Some(old) = old {
            old.end();
        }
    }

    pub(crate) fn owner_cell(&self) -> &OwnerCell {
        self.owner.get_or_init(Default::default)
    }

    /// Starts or stops signal-driven I/O, as O_ASYNC says; `fd` is what F_SETSIG's signals tell. `ENOMEM`.
    pub fn set_asynchronous(&self, on: bool, fd: Fd) -> Result<()> {
        let mut table = None;
        if on {
            let mut registered = PollTable::new(Notifier::new(self.owner_cell().clone(), fd)?, false);
            self.poll(&mut registered);
            table = Some(registered);
        }
        let old = core::mem::replace(&mut *self.asynchronous.lock(), table);
        drop(old);
        Ok(())
    }

    fn readable(&self) -> Result<()> {
        if self.access.contains(Access::READ) { Ok(()) } else { Err(Errno::EBADF) }
    }

    fn writable(&self) -> Result<()> {
        if self.access.contains(Access::WRITE) { Ok(()) } else { Err(Errno::EBADF) }
    }

    /// read(2): at the position, which it advances. `EBADF` if not open for reading, `EISDIR`, and what the file gives.
    #[inline]
    pub fn read(&self, sink: &mut Sink) -> Result<usize> {
        self.read_with(sink, self.flags())
    }

    /// As [`OpenFile::read`] with other flags (RWF_NOWAIT).
    pub fn read_with(&self, sink: &mut Sink, flags: OpenFlags) -> Result<usize> {
        self.readable()?;
        notify::ask(&self.path, flags, event::ACCESS_PERM)?;
        let n = if self.file.positioned() {
            let _moving = self.moving.lock();
            let position = self.position();
            let n = self.file.read(sink, &mut Io { offset: position, flags })?;
            self.set_position(position + n as u64);
            n
        } else {
            self.file.read(sink, &mut Io { offset: 0, flags })?
        };
        if n > 0 {
            notify::open_file_event(self, event::ACCESS);
        }
        Ok(n)
    }

    /// pread(2). `ESPIPE` for streams.
    pub fn read_at(&self, offset: u64, sink: &mut Sink) -> Result<usize> {
        self.read_at_with(offset, sink, self.flags())
    }

    /// As [`OpenFile::read_at`] with other flags.
    pub fn read_at_with(&self, offset: u64, sink: &mut Sink, flags: OpenFlags) -> Result<usize> {
        self.readable()?;
        if !self.file.positioned() {
            return Err(Errno::ESPIPE);
        }
        notify::ask(&self.path, flags, event::ACCESS_PERM)?;
        let n = self.file.read(sink, &mut Io { offset, flags })?;
        if n > 0 {
            notify::open_file_event(self, event::ACCESS);
        }
        Ok(n)
    }

    /// As [`OpenFile::read_at`], but puts references to pages of the cache into `parts`, as many as there is room for; how many bytes. `None`
    /// where only reading helps: the file has no such pages, or a hole there.
    pub fn parts_at(&self, offset: u64, len: usize, parts: &mut Vec<FramePart>) -> Result<Option<usize>> {
        self.readable()?;
        let flags = self.flags();
        let Ok(Mapping::Pages(pages)) = self.file.mapping() else { return Ok(None) };
        if flags.contains(OpenFlags::DIRECT) {
            return Ok(None);
        }
        notify::ask(&self.path, flags, event::ACCESS_PERM)?;
        let mut total = 0;
        while parts.len() < parts.capacity() {
            match pages.part(offset + total as u64, len - total) {
                Ok(Some(part)) => {
                    total += part.len;
                    parts.push(part);
                }
                Err(error) if total == 0 => return Err(error),
                _ => break,
            }
        }
        if total == 0 {
            let ends = len == 0 || offset >= pages.size();
            return Ok(ends.then_some(0));
        }
        if !flags.contains(OpenFlags::NOATIME) {
            self.inode.accessed();
        }
        notify::open_file_event(self, event::ACCESS);
        Ok(Some(total))
    }

    /// write(2): at the position, or at the end with O_APPEND. `EBADF` if not open for writing, and what the file gives.
    #[inline]
    pub fn write(&self, source: &mut Source) -> Result<usize> {
        self.write_with(source, self.flags())
    }

    /// As [`OpenFile::write`] with other flags.
    pub fn write_with(&self, source: &mut Source, flags: OpenFlags) -> Result<usize> {
        self.writable()?;
        let n = if self.file.positioned() {
            let _moving = self.moving.lock();
            let mut io = Io { offset: self.position(), flags };
            let n = self.file.write(source, &mut io)?;
            self.set_position(io.offset.saturating_add(n as u64));
            n
        } else {
            self.file.write(source, &mut Io { offset: 0, flags })?
        };
        if n > 0 {
            notify::open_file_event(self, event::MODIFY);
        }
        Ok(n)
    }

    /// pwrite(2). `ESPIPE` for streams. With O_APPEND it appends, as Linux does.
    pub fn write_at(&self, offset: u64, source: &mut Source) -> Result<usize> {
        self.write_at_with(offset, source, self.flags())
    }

    /// As [`OpenFile::write_at`] with other flags.
    pub fn write_at_with(&self, offset: u64, source: &mut Source, flags: OpenFlags) -> Result<usize> {
        self.writable()?;
        if !self.file.positioned() {
            return Err(Errno::ESPIPE);
        }
        let n = self.file.write(source, &mut Io { offset, flags })?;
        if n > 0 {
            notify::open_file_event(self, event::MODIFY);
        }
        Ok(n)
    }

    /// lseek(2). `ESPIPE`, `EINVAL`, `ENXIO`, `EOVERFLOW`.
    pub fn seek(&self, to: SeekFrom) -> Result<u64> {
        let _moving = self.moving.lock();
        let new = self.file.seek(to, self.position())?;
        self.set_position(new);
        Ok(new)
    }

    /// The position.
    pub fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    fn set_position(&self, position: u64) {
        self.position.store(position, Ordering::Relaxed);
    }

    /// getdents64(2): lists from the position on. `EBADF`, `ENOTDIR`, `ENOENT` for a directory that was removed.
    pub fn list(&self, emit: &mut dyn FnMut(&DirEntry) -> bool) -> Result<()> {
        self.readable()?;
        notify::ask(&self.path, self.flags(), event::ACCESS_PERM)?;
        let moving = self.moving.lock();
        let mut position = self.position();
        let listed = self.file.list(&mut position, emit);
        self.set_position(position);
        drop(moving);
        notify::open_file_event(self, event::ACCESS);
        listed
    }

    /// What it is ready for.
    #[inline]
    pub fn poll(&self, table: &mut PollTable) -> Events {
        table.set_nonblocking(self.flags().contains(OpenFlags::NONBLOCK));
        self.file.poll(table)
    }

    /// fstat(2).
    pub fn stat(&self) -> Metadata {
        self.inode.metadata()
    }

    /// The path as seen from `root`, with ` (deleted)` where its name is gone.
    pub fn path_name(&self, root: &Path) -> Vec<u8> {
        self.path.name_for_display(root)
    }

    /// ftruncate(2). `EINVAL` unless open for writing, `EPERM`, `EFBIG`.
    pub fn truncate(&self, size: u64) -> Result<()> {
        if !self.access.contains(Access::WRITE) {
            return Err(Errno::EINVAL);
        }
        self.file.truncate(size)?;
        notify::open_file_event(self, event::MODIFY);
        Ok(())
    }

    /// What mmap(2) maps of `len` bytes from `offset`. `EACCES` if not open for what the mapping needs, `EPERM` (noexec, sealed), `ENODEV`.
    pub fn mmap(self: &Arc<Self>, (offset, len): (u64, usize), shared: bool, prot: mm::Prot) -> Result<Backing> {
        let write = shared && prot.contains(mm::Prot::WRITE);
        if self.is_path() {
            return Err(Errno::EBADF);
        }
        if !self.access.contains(Access::READ) || write && !self.access.contains(Access::WRITE) {
            return Err(Errno::EACCES);
        }
        if prot.contains(mm::Prot::EXEC) && self.path.mount.flags().contains(MountFlags::NOEXEC) {
            return Err(Errno::EPERM);
        }
        let pages = match self.file.mapping_of(offset, len)? {
            Mapping::Zeros if shared => return Ok(Backing::Anonymous),
            Mapping::Zeros => None,
            Mapping::Pages(pages) => Some(pages),
        };
        let mut may_write = shared && self.access.contains(Access::WRITE);
        if shared && let Some(memfd) = self.inode.ops_as::<crate::tmpfs::Regular>() {
            may_write = memfd.may_map_shared(may_write, write)?;
        }
        if !self.flags().contains(OpenFlags::NOATIME) {
            self.inode.accessed();
        }
        if may_write {
            self.inode.writable_mappings.fetch_add(1, Ordering::AcqRel);
        }
        Ok(Backing::File { file: Arc::new(MappedFile { open: self.clone(), pages, may_write }), offset })
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let flags = self.flags();
        if !flags.contains(OpenFlags::PATH) {
            let closed = if self.access.contains(Access::WRITE) { event::CLOSE_WRITE } else { event::CLOSE_NOWRITE };
            notify::open_file_event(self, closed);
            self.file.release(flags);
        }
        self.set_directory_watch(None);
        if let Some(leases) = self.inode.leases() {
            leases.release(self.id);
        }
        if let Some(locks) = self.inode.locks() {
            locks.release(LockOwner::OpenFile(self.id));
            locks.unlock_whole(self.id);
        }
        match self.hold {
            Hold::None => {}
            Hold::Read => self.inode.drop_reader(),
            Hold::Write => {
                self.inode.put_write();
                self.path.mount.put_write();
            }
            Hold::DenyWrite => self.inode.allow_write(),
        }
    }
}

/// An open file as a mapping keeps it.
pub struct MappedFile {
    open: Arc<OpenFile>,
    pages: Option<Arc<PageCache>>,
    may_write: bool,
}

impl MappedFile {
    /// The open file.
    pub fn open_file(&self) -> &Arc<OpenFile> {
        &self.open
    }
}

impl Mappable for MappedFile {
    fn page_cache(&self) -> Option<Arc<PageCache>> {
        self.pages.clone()
    }

    fn describe(&self) -> (u32, u32, u64, Vec<u8>) {
        let device = self.open.inode.superblock().device;
        let name = crate::vfs::mount::root().map_or_else(Vec::new, |root| self.open.path_name(&root));
        (device.major, device.minor, self.open.inode.number(), name)
    }

    fn may_write(&self) -> bool {
        self.may_write
    }

    fn sync(&self, from: u64, to: u64) -> Result<()> {
        self.open.file().sync_range(from, to)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        if self.may_write {
            self.open.inode.writable_mappings.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
