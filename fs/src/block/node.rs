//! `/dev/vda` and the like: a device as a file, through its page cache or (O_DIRECT) past it.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use base::{Capability, Errno, Events, Result};
use dev::SECTOR;
use hal::user::UserPtr;
use mm::{Sink, Source};

use super::loop_device::control;
use super::{BlockDev, BlockIo, device};
use crate::direct;
use crate::poll::ALWAYS_READY;
use crate::vfs::regular::seek_within;
use crate::{Access, DeviceNumber, File, Io, IoctlContext, Mapping, OpenFlags, PollTable, SeekFrom, writeback};

/// Requests of ioctl(2) (linux/fs.h, linux/hdreg.h).
mod request {
    pub(super) const HDIO_GETGEO: u32 = 0x0301;
    pub(super) const BLKROSET: u32 = 0x125d;
    pub(super) const BLKROGET: u32 = 0x125e;
    pub(super) const BLKRRPART: u32 = 0x125f;
    pub(super) const BLKGETSIZE: u32 = 0x1260;
    pub(super) const BLKFLSBUF: u32 = 0x1261;
    pub(super) const BLKRASET: u32 = 0x1262;
    pub(super) const BLKRAGET: u32 = 0x1263;
    pub(super) const BLKSECTGET: u32 = 0x1267;
    pub(super) const BLKSSZGET: u32 = 0x1268;
    pub(super) const BLKDISCARD: u32 = 0x1277;
    pub(super) const BLKIOMIN: u32 = 0x1278;
    pub(super) const BLKIOOPT: u32 = 0x1279;
    pub(super) const BLKALIGNOFF: u32 = 0x127a;
    pub(super) const BLKPBSZGET: u32 = 0x127b;
    pub(super) const BLKDISCARDZEROES: u32 = 0x127c;
    pub(super) const BLKROTATIONAL: u32 = 0x127e;
    pub(super) const BLKZEROOUT: u32 = 0x127f;
    pub(super) const BLKBSZGET: u32 = 0x8008_1270;
    pub(super) const BLKBSZSET: u32 = 0x4008_1271;
    pub(super) const BLKGETSIZE64: u32 = 0x8008_1272;
    pub(super) const BLKGETDISKSEQ: u32 = 0x8008_1280;
}

/// An open device.
struct DeviceFile {
    device: Arc<BlockDev>,
    /// It was opened with O_EXCL.
    exclusive: bool,
    errors_seen: AtomicU64,
}

/// Opens the device with that number. `ENXIO`, `EBUSY` (O_EXCL, and a file system uses it).
pub fn open(number: DeviceNumber, flags: OpenFlags) -> Result<Arc<dyn File>> {
    let device = device::by_number(number)?;
    let exclusive = flags.contains(OpenFlags::EXCL);
    if exclusive {
        device.claim()?;
    }
    device.opened();
    let errors_seen = AtomicU64::new(device.cache().error_number());
    Ok(Arc::new(DeviceFile { device, exclusive, errors_seen }))
}

impl File for DeviceFile {
    fn read(&self, sink: &mut Sink, io: &mut Io) -> Result<usize> {
        if io.flags.contains(OpenFlags::DIRECT) {
            return direct::read(&*self.device, self.device.cache(), sink, io.offset);
        }
        self.device.cache().read(io.offset, sink)
    }

    fn write(&self, source: &mut Source, io: &mut Io) -> Result<usize> {
        let size = self.device.size();
        if io.flags.contains(OpenFlags::APPEND) {
            io.offset = size;
        }
        if source.remaining() == 0 {
            return Ok(0);
        }
        if self.device.is_read_only() {
            return Err(Errno::EPERM);
        }
        let left = size.checked_sub(io.offset).filter(|&left| left > 0).ok_or(Errno::ENOSPC)?;
        source.limit(usize::try_from(left).unwrap_or(usize::MAX));
        if io.flags.contains(OpenFlags::DIRECT) {
            return direct::write(&*self.device, self.device.cache(), source, io.offset);
        }
        let n = self.device.cache().write(io.offset, source)?;
        if io.flags.intersects(OpenFlags::SYNC | OpenFlags::DSYNC) {
            self.sync()?;
        } else {
            writeback::balance(self.device.cache());
        }
        Ok(n)
    }

    fn poll(&self, _table: &mut PollTable) -> Events {
        ALWAYS_READY
    }

    fn pollable(&self) -> bool {
        false
    }

    fn positioned(&self) -> bool {
        true
    }

    fn seek(&self, to: SeekFrom, position: u64) -> Result<u64> {
        seek_within(to, position, self.device.size())
    }

    fn mapping(&self) -> Result<Mapping> {
        Ok(Mapping::Pages(self.device.cache().clone()))
    }

    fn sync(&self) -> Result<()> {
        let written = self.device.cache().sync_range(0, u64::MAX);
        let flushed = self.device.flush();
        self.device.cache().check_error(&self.errors_seen)?;
        written.and(flushed)
    }

    fn ioctl(&self, cx: &IoctlContext, request: u32, arg: usize) -> Result<usize> {
        use request::*;
        let device = &self.device;
        let geometry = device.geometry();
        let int = |value: u32| UserPtr::<u32>::new(arg).write(&value).map(|()| 0);
        let short = |value: u16| UserPtr::<u16>::new(arg).write(&value).map(|()| 0);
        let long = |value: u64| UserPtr::<u64>::new(arg).write(&value).map(|()| 0);
        let admin = || if cx.cred.capable(Capability::SysAdmin) { Ok(()) } else { Err(Errno::EACCES) };
        match request {
            BLKGETSIZE => long(device.sectors()),
            BLKGETSIZE64 => long(device.size()),
            BLKSSZGET | BLKIOMIN if request == BLKSSZGET => int(device.logical_block()),
            BLKIOMIN | BLKPBSZGET => int(geometry.physical_block.max(512)),
            BLKIOOPT | BLKALIGNOFF | BLKDISCARDZEROES => int(0),
            BLKSECTGET => short(2048),
            BLKROTATIONAL => short(0),
            BLKBSZGET => int(device.block_size.load(Ordering::Relaxed)),
            BLKBSZSET => {
                admin()?;
                let size = UserPtr::<u32>::new(arg).read()?;
                if !size.is_power_of_two() || !(device.logical_block()..=4096).contains(&size) {
                    return Err(Errno::EINVAL);
                }
                device.block_size.store(size, Ordering::Relaxed);
                Ok(0)
            }
            BLKROGET => int(u32::from(device.is_read_only())),
            BLKROSET => {
                admin()?;
                device.set_read_only(UserPtr::<u32>::new(arg).read()? != 0).map(|()| 0)
            }
            BLKRAGET => long(256),
            BLKRASET => admin().map(|()| 0),
            BLKGETDISKSEQ => long(u64::from(device.number().minor / 256) + 1),
            BLKRRPART => {
                admin()?;
                device.cache().sync_range(0, u64::MAX)?;
                device::rescan(device).map(|()| 0)
            }
            BLKFLSBUF => {
                admin()?;
                device.settle().map(|()| 0)
            }
            BLKDISCARD | BLKZEROOUT => {
                if !cx.open.access().contains(Access::WRITE) {
                    return Err(Errno::EBADF);
                }
                let [start, len] = UserPtr::<[u64; 2]>::new(arg).read()?;
                self.clear(start, len, request == BLKDISCARD).map(|()| 0)
            }
            HDIO_GETGEO => UserPtr::<[u8; 16]>::new(arg).write(&disk_geometry(device)).map(|()| 0),
            _ => match device.loop_disk() {
                Some(disk) => control::ioctl(device, disk, cx, request, arg),
                None => Err(Errno::ENOTTY),
            },
        }
    }

    fn flags_change(&self, _open: &crate::OpenFile, _new: OpenFlags) -> Result<()> {
        Ok(())
    }

    fn release(&self, flags: OpenFlags) {
        if flags.access().contains(Access::WRITE) {
            // As on Linux, what was written is written back at the last close.
            let _ = self.device.cache().sync_range(0, u64::MAX);
        }
        if self.exclusive {
            self.device.unclaim();
        }
        self.device.closed(true);
    }
}

/// `struct hd_geometry`: heads, sectors, cylinders and start, as Linux makes them up for disks that have none of these.
fn disk_geometry(device: &BlockDev) -> [u8; 16] {
    let cylinders = u16::try_from(device.sectors() / (255 * 63)).unwrap_or(u16::MAX);
    let [low, high] = cylinders.to_le_bytes();
    let mut bytes = [0u8; 16];
    bytes[..4].copy_from_slice(&[255, 63, low, high]);
    bytes[8..].copy_from_slice(&device.start().to_le_bytes());
    bytes
}

impl DeviceFile {
    /// BLKDISCARD and BLKZEROOUT. `EINVAL` where the range is not made of sectors of the device.
    fn clear(&self, start: u64, len: u64, discard: bool) -> Result<()> {
        let end = start.checked_add(len).ok_or(Errno::EINVAL)?;
        if !start.is_multiple_of(SECTOR) || !len.is_multiple_of(SECTOR) || end > self.device.size() {
            return Err(Errno::EINVAL);
        }
        if len == 0 {
            return Ok(());
        }
        let page = abi::PAGE_SIZE as u64;
        let (first, last) = (start / page, (end - 1) / page);
        self.device.cache().sync_range(first, last)?;
        self.device.cache().drop_clean(first, last);
        if discard { self.device.discard(start, len) } else { self.device.zero(start, len) }
    }
}
