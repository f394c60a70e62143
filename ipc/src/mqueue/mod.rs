//! POSIX message queues (mq_overview(7)): named queues in a file system of their own, which can be mounted to see them.

mod queue;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use base::{Capability, Errno, Result};
use fs::procfs::{dir, file_rw, register_sysctl};
use fs::vfs::permission;
use fs::vfs::superblock::NoSuperOps;
use fs::{
    Access, Dentry, DeviceNumber, DirEntry, File, FileKind, FileSystem, Found, FsContext, Hold, Inode, InodeOps, Mount,
    NewInode, OpenFile, OpenFlags, Path, SuperBlock,
};
use hal::sync::{Once, SpinLock};

use queue::QueueFile;
pub use queue::{Attributes, News, Notification, Patience, Queue, Sender};

/// `f_type`.
const MAGIC: u32 = 0x1980_0202;
/// The longest name.
const NAME_MAX: usize = 255;
/// What even the privileged can't exceed: messages of a queue, and bytes of one.
const HARD_MESSAGES: usize = 65_536;
const HARD_SIZE: usize = 16 << 20;
/// What a message costs beside its text, as Linux counts it for RLIMIT_MSGQUEUE.
const MESSAGE_COST: u64 = 48 + 48;

/// `/proc/sys/fs/mqueue`.
struct Limits {
    queues: AtomicI32,
    messages: AtomicI32,
    size: AtomicI32,
    default_messages: AtomicI32,
    default_size: AtomicI32,
}

static LIMITS: Limits = Limits {
    queues: AtomicI32::new(256),
    messages: AtomicI32::new(10),
    size: AtomicI32::new(8192),
    default_messages: AtomicI32::new(10),
    default_size: AtomicI32::new(8192),
};

/// Bytes that users' queues take, by user (RLIMIT_MSGQUEUE).
static TAKEN: SpinLock<BTreeMap<u32, u64>> = SpinLock::new(BTreeMap::new());
static NEXT_INODE: AtomicU64 = AtomicU64::new(2);

/// A queue's inode.
struct Node {
    queue: Arc<Queue>,
    owner: u32,
    cost: u64,
}

impl Drop for Node {
    fn drop(&mut self) {
        let mut taken = TAKEN.lock();
        if let Some(bytes) = taken.get_mut(&self.owner) {
            *bytes = bytes.saturating_sub(self.cost);
            if *bytes == 0 {
                taken.remove(&self.owner);
            }
        }
    }
}

impl InodeOps for Node {
    fn open(&self, _inode: &Arc<Inode>, _flags: OpenFlags, _cx: &FsContext) -> Result<Option<Arc<dyn File>>> {
        Ok(Some(Arc::new(QueueFile(self.queue.clone()))))
    }

    fn size(&self) -> u64 {
        80
    }
}

/// The directory of all queues.
struct Root(SpinLock<BTreeMap<Vec<u8>, Arc<Inode>>>);

impl Root {
    fn find(&self, name: &[u8]) -> Option<Arc<Inode>> {
        self.0.lock().get(name).cloned()
    }

    /// `ENOSPC` where there are as many queues as there may be.
    fn check_room(&self, exempt: bool) -> Result<()> {
        let most = LIMITS.queues.load(Ordering::Relaxed).max(0) as usize;
        if self.0.lock().len() >= most && !exempt { Err(Errno::ENOSPC) } else { Ok(()) }
    }

    /// Adds a queue. `EEXIST`.
    fn add(&self, name: &[u8], inode: &Arc<Inode>) -> Result<()> {
        let mut queues = self.0.lock();
        if queues.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        queues.insert(name.to_vec(), inode.clone());
        Ok(())
    }
}

impl InodeOps for Root {
    fn lookup(&self, _dir: &Arc<Inode>, name: &[u8]) -> Result<Found> {
        Ok(Found { inode: self.find(name), cacheable: false })
    }

    fn create(&self, dir: &Arc<Inode>, name: &[u8], new: &NewInode) -> Result<Arc<Inode>> {
        if new.kind != FileKind::Regular {
            return Err(Errno::EPERM);
        }
        self.check_room(false)?;
        let inode = new_queue(dir.superblock(), new, defaults())?;
        self.add(name, &inode)?;
        Ok(inode)
    }

    fn unlink(&self, _dir: &Arc<Inode>, name: &[u8], victim: &Arc<Inode>) -> Result<()> {
        let removed = self.0.lock().remove(name);
        victim.drop_link();
        removed.map(drop).ok_or(Errno::ENOENT)
    }

    fn list(&self, _dir: &Arc<Inode>, position: u64, emit: &mut dyn FnMut(&DirEntry) -> bool) -> Result<u64> {
        let queues = self.0.lock();
        let mut next = position;
        let skipped = usize::try_from(position.saturating_sub(2)).unwrap_or(usize::MAX);
        for (name, inode) in queues.iter().skip(skipped) {
            let entry = DirEntry { name, inode: inode.number(), kind: FileKind::Regular, next: next + 1 };
            if !emit(&entry) {
                break;
            }
            next += 1;
        }
        Ok(next)
    }
}

fn defaults() -> Attributes {
    let value = |limit: &AtomicI32| limit.load(Ordering::Relaxed).max(1) as usize;
    Attributes { messages: value(&LIMITS.default_messages), size: value(&LIMITS.default_size) }
}

/// `EMFILE` beyond the caller's RLIMIT_MSGQUEUE.
fn new_queue(superblock: &Arc<SuperBlock>, new: &NewInode, attributes: Attributes) -> Result<Arc<Inode>> {
    let limit = fs::callers::get()?.message_queue_limit();
    let cost = (attributes.size as u64 + MESSAGE_COST) * attributes.messages as u64;
    {
        let mut taken = TAKEN.lock();
        let bytes = taken.entry(new.uid).or_default();
        if bytes.saturating_add(cost) > limit {
            return Err(Errno::EMFILE);
        }
        *bytes += cost;
    }
    let node = Node { queue: Arc::new(Queue::new(attributes)), owner: new.uid, cost };
    let number = NEXT_INODE.fetch_add(1, Ordering::Relaxed);
    Ok(Inode::new(superblock, number, new, Box::new(node)))
}

static ROOT: Once<Arc<Inode>> = Once::new();
static MOUNT: Once<Arc<Mount>> = Once::new();

fn mount() -> &'static Arc<Mount> {
    MOUNT.get_or_init(|| Mount::internal(root().0.clone()))
}

fn new_inode(kind: FileKind, mode: u32, owner: (u32, u32)) -> NewInode<'static> {
    NewInode { kind, mode, uid: owner.0, gid: owner.1, rdev: DeviceNumber::default(), target: b"" }
}

fn root() -> (&'static Arc<Inode>, &'static Root) {
    let inode = ROOT.get_or_init(|| {
        let superblock = SuperBlock::new("mqueue", MAGIC, Box::new(NoSuperOps));
        let new = new_inode(FileKind::Directory, 0o1777, (0, 0));
        Inode::new(&superblock, 1, &new, Box::new(Root(SpinLock::new(BTreeMap::new()))))
    });
    (inode, inode.ops_as::<Root>().expect("the directory of queues"))
}

/// A name without slashes. `ENOENT`, `EACCES`, `ENAMETOOLONG`.
fn check_name(name: &[u8]) -> Result<()> {
    match name {
        b"" => Err(Errno::ENOENT),
        b"." | b".." => Err(Errno::EACCES),
        _ if name.contains(&b'/') => Err(Errno::EACCES),
        _ if name.len() > NAME_MAX => Err(Errno::ENAMETOOLONG),
        _ => Ok(()),
    }
}

/// `EINVAL` for attributes that the caller may not ask for.
fn check_attributes(cx: &FsContext, asked: (i64, i64)) -> Result<Attributes> {
    let [messages, size] = [asked.0, asked.1].map(|n| usize::try_from(n).ok().filter(|&n| n > 0));
    let (messages, size) = (messages.ok_or(Errno::EINVAL)?, size.ok_or(Errno::EINVAL)?);
    let soft = |limit: &AtomicI32| limit.load(Ordering::Relaxed).max(0) as usize;
    let (most, largest) = if cx.cred.capable(Capability::SysResource) {
        (HARD_MESSAGES, HARD_SIZE)
    } else {
        (soft(&LIMITS.messages), soft(&LIMITS.size))
    };
    if messages > most || size > largest { Err(Errno::EINVAL) } else { Ok(Attributes { messages, size }) }
}

/// What mq_open(3) asks for.
pub struct OpenRequest<'a> {
    /// The name, without the leading slash.
    pub name: &'a [u8],
    /// O_* flags.
    pub flags: OpenFlags,
    /// Permissions of a new queue, before the umask.
    pub mode: u32,
    /// mq_maxmsg and mq_msgsize of a new queue.
    pub attributes: Option<(i64, i64)>,
}

/// mq_open(3). `ENOENT`, `EEXIST`, `EACCES`, `EINVAL`, `ENAMETOOLONG`, `ENOSPC`, `EMFILE`.
pub fn open(cx: &FsContext, request: &OpenRequest) -> Result<Arc<OpenFile>> {
    check_name(request.name)?;
    let creates = request.flags.contains(OpenFlags::CREAT);
    let (dir, root) = root();
    let inode = loop {
        if let Some(inode) = root.find(request.name) {
            if creates && request.flags.contains(OpenFlags::EXCL) {
                return Err(Errno::EEXIST);
            }
            permission::check(&cx.cred, &inode, wanted(request.flags)?)?;
            break inode;
        }
        if !creates {
            return Err(Errno::ENOENT);
        }
        let inode = create(cx, dir.superblock(), request)?;
        match root.add(request.name, &inode) {
            Ok(()) => break inode,
            Err(_) => continue,
        }
    };
    let node = inode.ops_as::<Node>().ok_or(Errno::EINVAL)?;
    let file = Arc::new(QueueFile(node.queue.clone()));
    let path = Path { mount: mount().clone(), dentry: Dentry::root(inode.clone(), request.name) };
    Ok(OpenFile::new(file, path, inode.clone(), request.flags, Hold::None))
}

fn wanted(flags: OpenFlags) -> Result<Access> {
    if flags.contains(OpenFlags::WRONLY | OpenFlags::RDWR) { Err(Errno::EINVAL) } else { Ok(flags.access()) }
}

fn create(cx: &FsContext, superblock: &Arc<SuperBlock>, request: &OpenRequest) -> Result<Arc<Inode>> {
    wanted(request.flags)?;
    let attributes = request.attributes.map_or_else(|| Ok(defaults()), |asked| check_attributes(cx, asked))?;
    root().1.check_room(cx.cred.capable(Capability::SysResource))?;
    let mode = request.mode & !cx.umask & 0o777;
    let new = new_inode(FileKind::Regular, mode, (cx.cred.fsuid, cx.cred.fsgid));
    new_queue(superblock, &new, attributes)
}

/// mq_unlink(3). `ENOENT`, `EACCES`, `ENAMETOOLONG`.
pub fn unlink(cx: &FsContext, name: &[u8]) -> Result<()> {
    check_name(name)?;
    let (dir, root) = root();
    let victim = root.find(name).ok_or(Errno::ENOENT)?;
    permission::check_sticky(&cx.cred, dir, &victim).map_err(|_| Errno::EACCES)?;
    root.unlink(dir, name, &victim)
}

/// The queue behind an open file. `EBADF`.
pub fn of(open: &OpenFile) -> Result<Arc<Queue>> {
    open.file().downcast::<QueueFile>().map(|file| file.0.clone()).ok_or(Errno::EBADF)
}

struct Kind;

impl FileSystem for Kind {
    fn name(&self) -> &'static str {
        "mqueue"
    }

    fn mount(&self, _source: &[u8], _options: &[u8]) -> Result<Arc<Inode>> {
        Ok(root().0.clone())
    }
}

/// A limit between `least` and `most`.
fn limit(value: &'static AtomicI32, least: i32, most: i32) -> fs::procfs::Node {
    let read = || Ok(format!("{}\n", value.load(Ordering::Relaxed)).into_bytes());
    let write = move |data: &[u8]| {
        let text = core::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
        let new: i32 = text.trim().parse().map_err(|_| Errno::EINVAL)?;
        if !(least..=most).contains(&new) {
            return Err(Errno::EINVAL);
        }
        value.store(new, Ordering::Relaxed);
        Ok(())
    };
    file_rw(read, write)
}

/// Makes the file system known to mount(2), and its limits to administrators. Once, at boot.
pub(crate) fn register() {
    fs::vfs::superblock::register(&Kind);
    let (messages, size) = (HARD_MESSAGES as i32, HARD_SIZE as i32);
    let limits = dir(alloc::vec![
        ("msg_default", limit(&LIMITS.default_messages, 1, messages)),
        ("msg_max", limit(&LIMITS.messages, 1, messages)),
        ("msgsize_default", limit(&LIMITS.default_size, 128, size)),
        ("msgsize_max", limit(&LIMITS.size, 128, size)),
        ("queues_max", limit(&LIMITS.queues, 0, i32::MAX)),
    ]);
    register_sysctl("fs", "mqueue", limits);
}
