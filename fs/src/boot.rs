//! Setting the file systems up at boot: what `kernel/` calls, in this order - [`init`], then unpack the initramfs into [`root`],
//! then [`mount_early`].

use alloc::sync::Arc;

use base::{Cred, Errno, Result};

use crate::tmpfs::Options;
use crate::vfs::mount::change::Changer;
use crate::vfs::mount::{MountNamespace, SuperFlags};
use crate::vfs::{create, mount, superblock, walk};
use crate::{
    FsContext, Inode, Mount, MountFlags, Path, block, devices, erofs, ext4, fuse, ninep, overlayfs, procfs, squashfs,
    sysfs, tmpfs, tty,
};

/// Registers file systems and devices and makes the root: an empty tmpfs without a limit. `EBUSY` the second time, `ENOMEM`.
pub fn init() -> Result<()> {
    superblock::register(&tmpfs::Kind);
    superblock::register(&tmpfs::RamfsKind);
    superblock::register(&devices::Kind);
    superblock::register(&tty::devpts::Kind);
    superblock::register(&procfs::Kind);
    superblock::register(&sysfs::Kind);
    superblock::register(&ext4::mount::Kind("ext4"));
    superblock::register(&ext4::mount::Kind("ext3"));
    superblock::register(&ext4::mount::Kind("ext2"));
    superblock::register(&overlayfs::Kind);
    superblock::register(&squashfs::Kind);
    superblock::register(&erofs::Kind);
    superblock::register(&fuse::Kind);
    superblock::register(&fuse::VirtiofsKind);
    superblock::register(&ninep::Kind);
    devices::register()?;
    block::loop_device::register()?;
    fuse::register()?;
    tty::register()?;
    procfs::system::register();
    let instance = || tmpfs::instance("rootfs", &Options::unlimited());
    // What the system sees as its root is mounted on another that nobody sees, so that pivot_root(2) can take it away.
    let (base, root) = (instance()?, instance()?);
    let mount = |root| Mount::new(root, b"rootfs", MountFlags::empty());
    if mount::set_root(&mount(base), mount(root)) { Ok(()) } else { Err(Errno::EBUSY) }
}

/// The root directory's inode, to unpack into.
pub fn root() -> Option<Arc<Inode>> {
    mount::root()?.inode().ok().cloned()
}

/// The kernel's own context: root's rights, at the root.
pub fn context() -> Option<FsContext> {
    let root = mount::root()?;
    Some(FsContext { cred: Arc::new(Cred::root()), cwd: root.clone(), root, umask: 0o022 })
}

/// Mounts what every system has: `/dev`, `/dev/pts`, `/dev/shm`, `/proc`, `/sys`, `/run`, `/tmp`, making the directories that are missing.
/// Where `tmp` is false, `/run` and `/tmp` are left as they are.
pub fn mount_early(tmp: bool) -> Result<()> {
    let cx = context().ok_or(Errno::EINVAL)?;
    let hard = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RELATIME;
    let soft = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RELATIME;
    let quiet = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::RELATIME;
    limit_root()?;
    put(&cx, b"/dev", b"devtmpfs", b"devtmpfs", MountFlags::NOSUID | MountFlags::RELATIME, b"")?;
    put(&cx, b"/dev/pts", b"devpts", b"devpts", quiet, b"gid=5,mode=620,ptmxmode=666")?;
    put(&cx, b"/dev/shm", b"tmpfs", b"tmpfs", soft, b"")?;
    put(&cx, b"/proc", b"proc", b"proc", hard, b"")?;
    put(&cx, b"/sys", b"sysfs", b"sysfs", hard, b"")?;
    if tmp {
        put(&cx, b"/run", b"tmpfs", b"tmpfs", soft, b"mode=755")?;
        put(&cx, b"/tmp", b"tmpfs", b"tmpfs", soft, b"")?;
    }
    Ok(())
}

/// Now that the root is unpacked: it may grow by three quarters of what is free, so that filling it is `ENOSPC` and not the end of memory.
fn limit_root() -> Result<()> {
    let Some(root) = root() else { return Ok(()) };
    let page = abi::PAGE_SIZE as u64;
    let stats = root.superblock().ops.stats();
    let pages = (stats.blocks - stats.free) + mm::frames::stats().free / page * 3 / 4;
    root.superblock().ops.reconfigure(false, alloc::format!("nr_blocks={pages}").as_bytes())
}

fn put(cx: &FsContext, path: &[u8], kind: &[u8], source: &[u8], flags: MountFlags, options: &[u8]) -> Result<()> {
    match create::mkdir(cx, None, path, 0o755) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(error) => return Err(error),
    }
    let place: Path = walk::lookup(cx, None, path, true)?;
    let changer = Changer { cx, namespace: MountNamespace::initial() };
    changer.mount_new(&place, kind, source, (flags, SuperFlags::empty()), options)
}
