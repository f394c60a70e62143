//! The ioctls of loop(4).

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use base::{Capability, Errno, Result};
use hal::user::UserPtr;

use super::info::{Config, Info, Info64, OldInfo};
use super::{BINDING, Bound, DEPTH_MAX, DEVICES_MAX, LoopDisk, MAJOR, add, flag};
use crate::block::{BlockDev, device};
use crate::{Access, DeviceNumber, Fd, File, FileKind, IoctlContext, OpenFile};

/// `/dev/loop-control`.
pub(super) const NUMBER: DeviceNumber = DeviceNumber::new(10, 237);

/// The requests (linux/loop.h).
mod request {
    pub(super) const SET_FD: u32 = 0x4c00;
    pub(super) const CLR_FD: u32 = 0x4c01;
    pub(super) const SET_STATUS: u32 = 0x4c02;
    pub(super) const GET_STATUS: u32 = 0x4c03;
    pub(super) const SET_STATUS64: u32 = 0x4c04;
    pub(super) const GET_STATUS64: u32 = 0x4c05;
    pub(super) const CHANGE_FD: u32 = 0x4c06;
    pub(super) const SET_CAPACITY: u32 = 0x4c07;
    pub(super) const SET_DIRECT_IO: u32 = 0x4c08;
    pub(super) const SET_BLOCK_SIZE: u32 = 0x4c09;
    pub(super) const CONFIGURE: u32 = 0x4c0a;
    pub(super) const CTL_ADD: u32 = 0x4c80;
    pub(super) const CTL_REMOVE: u32 = 0x4c81;
    pub(super) const CTL_GET_FREE: u32 = 0x4c82;
}

/// A block size that a device may have; 0 for the usual. `EINVAL`.
fn block_size(wanted: u32) -> Result<u32> {
    match wanted {
        0 => Ok(512),
        512..=4096 if wanted.is_power_of_two() => Ok(wanted),
        _ => Err(Errno::EINVAL),
    }
}

/// One device's requests.
struct Target<'a> {
    device: &'a Arc<BlockDev>,
    disk: &'a LoopDisk,
    cx: &'a IoctlContext<'a>,
}

/// ioctl(2) of `/dev/loopN`. `ENOTTY` for requests that are none of ours.
pub(in crate::block) fn ioctl(
    device: &Arc<BlockDev>,
    disk: &LoopDisk,
    cx: &IoctlContext,
    request: u32,
    arg: usize,
) -> Result<usize> {
    let target = Target { device, disk, cx };
    match request {
        request::SET_FD => target.bind(target.fd(arg)?, 0, Info::plain(0)),
        request::CONFIGURE => target.configure(UserPtr::new(arg).read()?),
        request::CLR_FD => target.clear(),
        request::SET_STATUS64 => target.set_status(UserPtr::<Info64>::new(arg).read()?),
        request::SET_STATUS => target.set_status(UserPtr::<OldInfo>::new(arg).read()?.widen()),
        request::GET_STATUS64 => UserPtr::new(arg).write(&target.status()?),
        request::GET_STATUS => UserPtr::new(arg).write(&OldInfo::narrow(&target.status()?)?),
        request::CHANGE_FD => target.change(target.fd(arg)?),
        request::SET_CAPACITY => target.update(|_| Ok(())),
        request::SET_DIRECT_IO => target.update(|bound| {
            bound.info.flags &= !flag::DIRECT_IO;
            bound.info.flags |= if arg != 0 { flag::DIRECT_IO } else { 0 };
            Ok(())
        }),
        request::SET_BLOCK_SIZE => target.update(|bound| {
            bound.block_size = block_size(u32::try_from(arg).map_err(|_| Errno::EINVAL)?)?;
            Ok(())
        }),
        _ => return Err(Errno::ENOTTY),
    }
    .map(|()| 0)
}

impl Target<'_> {
    fn fd(&self, arg: usize) -> Result<Arc<OpenFile>> {
        (self.cx.lookup)(arg as Fd)
    }

    /// What changes a device needs it open for writing, or CAP_SYS_ADMIN. `EPERM`.
    fn may_change(&self) -> Result<()> {
        let writes = self.cx.open.access().contains(Access::WRITE);
        if writes || self.cx.cred.capable(Capability::SysAdmin) { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// May `file` be its storage? `EINVAL` for what is no regular file or block device, or lies on too many devices already; `EBADF`
    /// where the device itself is below it. The caller holds [`BINDING`].
    fn check_file(&self, file: &Arc<OpenFile>) -> Result<()> {
        let mut at = file.clone();
        for _ in 0..DEPTH_MAX {
            let inode = at.inode();
            let below = match inode.kind() {
                FileKind::Regular if at.is_path() => return Err(Errno::EBADF),
                FileKind::Regular => device::by_number(inode.superblock().device),
                FileKind::BlockDevice => Ok(device::by_number(inode.rdev())?),
                _ => return Err(Errno::EINVAL),
            };
            let below = below.ok().map(|device| device.partition().map_or(device.clone(), |(disk, _)| disk.clone()));
            let Some(disk) = below.as_ref().and_then(|device| device.loop_disk()) else { return Ok(()) };
            if disk.index == self.disk.index {
                return Err(Errno::EBADF);
            }
            let bound = disk.bound().ok_or(Errno::EINVAL)?;
            at = bound.open.clone();
        }
        Err(Errno::EINVAL)
    }

    fn configure(&self, config: Config) -> Result<()> {
        const SETTABLE: u32 = flag::READ_ONLY | flag::AUTOCLEAR | flag::PARTSCAN | flag::DIRECT_IO;
        let file = (self.cx.lookup)(config.fd as Fd)?;
        if config.info.flags & !SETTABLE != 0 {
            return Err(Errno::EINVAL);
        }
        self.bind(file, config.block_size, config.info.check()?)
    }

    fn bind(&self, file: Arc<OpenFile>, block: u32, mut info: Info) -> Result<()> {
        let block = block_size(block)?;
        let _binding = BINDING.lock();
        let _changing = self.disk.changing.lock();
        if device::is_claimed(self.device) || self.disk.bound().is_some() {
            return Err(Errno::EBUSY);
        }
        self.check_file(&file)?;
        let writes = |open: &OpenFile| open.access().contains(Access::WRITE);
        if !writes(&file) || !writes(self.cx.open) {
            info.flags |= flag::READ_ONLY;
        }
        let scans = info.flags & flag::PARTSCAN != 0;
        let mut bound = Bound { open: file, info, block_size: block, sectors: 0 };
        bound.measure();
        *self.disk.bound.lock() = Some(Arc::new(bound));
        self.device.refresh();
        if scans {
            self.scan();
        }
        Ok(())
    }

    fn scan(&self) {
        if let Err(error) = device::rescan(self.device) {
            log::warn!("{}: {error} while looking for partitions", self.device.name());
        }
    }

    fn status(&self) -> Result<Info64> {
        let bound = self.disk.bound().ok_or(Errno::ENXIO)?;
        Ok(Info64::of(self.disk, &bound))
    }

    /// Changes the binding. `ENXIO` where there is none, `EPERM`.
    fn update(&self, change: impl FnOnce(&mut Bound) -> Result<()>) -> Result<()> {
        self.may_change()?;
        let _changing = self.disk.changing.lock();
        let mut bound = Bound::clone(&*self.disk.bound().ok_or(Errno::ENXIO)?);
        // What is kept of the device is of the old place.
        self.device.settle()?;
        change(&mut bound)?;
        bound.measure();
        let old = self.disk.bound.lock().replace(Arc::new(bound));
        drop(old);
        self.device.refresh();
        Ok(())
    }

    fn set_status(&self, wanted: Info64) -> Result<()> {
        let mut scans = false;
        self.update(|bound| {
            let info = wanted.check()?;
            let flags = info.merge_flags(bound.info.flags);
            scans = flags & flag::PARTSCAN & !bound.info.flags != 0;
            bound.info = Info { flags, ..info };
            Ok(())
        })?;
        if scans {
            self.scan();
        }
        Ok(())
    }

    /// LOOP_CHANGE_FD: other media of the same size. `EINVAL` for what can be written.
    fn change(&self, file: Arc<OpenFile>) -> Result<()> {
        let _binding = BINDING.lock();
        self.check_file(&file)?;
        self.update(|bound| {
            if bound.info.flags & flag::READ_ONLY == 0 {
                return Err(Errno::EINVAL);
            }
            let size = bound.file_size();
            bound.open = file;
            if bound.file_size() == size { Ok(()) } else { Err(Errno::EINVAL) }
        })
    }

    /// LOOP_CLR_FD: now, or when the last other user is gone.
    fn clear(&self) -> Result<()> {
        let _changing = self.disk.changing.lock();
        let bound = self.disk.bound().ok_or(Errno::ENXIO)?;
        if self.disk.openers.load(Ordering::Acquire) > 1 || device::is_claimed(self.device) {
            let mut later = Bound::clone(&*bound);
            later.info.flags |= flag::AUTOCLEAR;
            let old = self.disk.bound.lock().replace(Arc::new(later));
            drop(old);
            return Ok(());
        }
        drop(bound);
        self.disk.let_go(self.device);
        Ok(())
    }
}

/// `/dev/loop-control`.
pub(super) struct Control;

fn find(index: u32) -> Option<Arc<BlockDev>> {
    device::by_number(DeviceNumber::new(MAJOR, index)).ok()
}

impl File for Control {
    fn ioctl(&self, _cx: &IoctlContext, request: u32, arg: usize) -> Result<usize> {
        // Two at once must not find or make the same.
        static CHANGING: sched::Mutex<()> = sched::Mutex::new(());
        let _changing = CHANGING.lock();
        let free = || (0..DEVICES_MAX).find(|&index| find(index).is_none()).ok_or(Errno::ENOSPC);
        let number = arg as u32 as i32;
        match request {
            request::CTL_GET_FREE => {
                let unbound =
                    |index: &u32| find(*index).is_some_and(|d| d.loop_disk().is_some_and(|l| l.bound().is_none()));
                let index = match (0..DEVICES_MAX).take_while(|&i| find(i).is_some()).find(unbound) {
                    Some(index) => index,
                    None => {
                        let index = free()?;
                        add(index)?;
                        index
                    }
                };
                Ok(index as usize)
            }
            request::CTL_ADD => {
                let index = if number < 0 { free()? } else { number as u32 };
                if index >= DEVICES_MAX {
                    return Err(Errno::EINVAL);
                }
                if find(index).is_some() {
                    return Err(Errno::EEXIST);
                }
                add(index)?;
                Ok(index as usize)
            }
            request::CTL_REMOVE => {
                let index = u32::try_from(number).map_err(|_| Errno::EINVAL)?;
                let device = find(index).ok_or(Errno::ENODEV)?;
                let disk = device.loop_disk().ok_or(Errno::ENODEV)?;
                let _held = disk.changing.lock();
                if disk.bound().is_some() || disk.openers.load(Ordering::Acquire) > 0 {
                    return Err(Errno::EBUSY);
                }
                device::remove_disk(&device);
                Ok(index as usize)
            }
            _ => Err(Errno::ENOSYS),
        }
    }
}
