//! mount(2) of ext2, ext3 and ext4.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use base::{Errno, Result};
use sched::Mutex;

use super::super::inode::ROOT;
use super::super::node::Node;
use super::{Ext4, Ext4Super, MAGIC, Options};
use crate::block::{BlockDev, BlockIo};
use crate::{FileSystem, Inode, SuperBlock, writeback};

/// The kinds "ext4", "ext3" and "ext2" for mount(2): one driver for all, as Debian's kernel has it.
pub struct Kind(pub &'static str);

/// The root directories of what is mounted, by device: a device has one instance, however often it is mounted.
static MOUNTED: Mutex<Vec<(crate::DeviceNumber, Weak<Inode>)>> = Mutex::new(Vec::new());

impl FileSystem for Kind {
    fn name(&self) -> &'static str {
        self.0
    }

    fn needs_device(&self) -> bool {
        true
    }

    fn check_options(&self, options: &[u8]) -> Result<()> {
        Options::default().parse(options).map(drop)
    }

    fn mount_device(&self, device: &Arc<BlockDev>, read_only: bool, options: &[u8]) -> Result<Arc<Inode>> {
        let options = Options::default().parse(options)?;
        let mut mounted = MOUNTED.lock();
        // One that is closed has no mount any more, though somebody may still have an inode of it.
        let in_use = |root: &Arc<Inode>| {
            let fs = root.superblock().ops_as::<Ext4Super>();
            fs.is_some_and(|fs| !fs.0.closed.load(Ordering::Acquire))
        };
        mounted.retain(|(_, root)| root.upgrade().is_some_and(|root| in_use(&root)));
        let known = mounted.iter().find(|(number, _)| *number == device.number()).and_then(|(_, root)| root.upgrade());
        if let Some(root) = known {
            return if root.superblock().ops.is_read_only() == read_only { Ok(root) } else { Err(Errno::EBUSY) };
        }
        device.claim()?;
        let made = device.settle().and_then(|()| {
            let io: Arc<dyn BlockIo> = device.clone();
            let fs = Arc::new(Ext4::open(io, Some(device.clone()), read_only, options)?);
            start(&fs, self.0, device)
        });
        match made {
            Ok(root) => {
                mounted.push((device.number(), Arc::downgrade(&root)));
                Ok(root)
            }
            Err(error) => {
                device.unclaim();
                Err(error)
            }
        }
    }
}

/// Makes the superblock and the root directory, and starts the thread.
fn start(fs: &Arc<Ext4>, kind: &'static str, device: &Arc<BlockDev>) -> Result<Arc<Inode>> {
    let (block_size, fsid) = {
        let volume = fs.volume();
        let half = |at: usize| volume.sb.uuid[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
        (volume.sb.block_size as u32, half(0) ^ half(8))
    };
    let ops = Box::new(Ext4Super(fs.clone()));
    let superblock = SuperBlock::on_device(kind, MAGIC, device.number(), (block_size, fsid), ops);
    let _ = fs.superblock.set(Arc::downgrade(&superblock));
    let root = Node::get(fs, ROOT)?;
    let store: Weak<Ext4> = Arc::downgrade(fs);
    writeback::register(store.clone());
    if !fs.is_read_only() {
        let name = format!("jbd2/{}", device.name());
        sched::thread::spawn_kernel(&name, move || Ext4::run(store));
    }
    log::info!("{}: {kind} mounted{}", device.name(), if fs.is_read_only() { " read-only" } else { "" });
    Ok(root)
}
