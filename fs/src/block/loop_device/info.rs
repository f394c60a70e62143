//! What LOOP_SET_STATUS and its kin exchange (linux/loop.h).

use base::{Errno, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Bound, LoopDisk, flag};

/// Bytes of `lo_file_name`.
pub(super) const NAME: usize = 64;

/// What of a binding can be set.
#[derive(Clone)]
pub(super) struct Info {
    pub(super) offset: u64,
    /// 0: as far as the file goes.
    pub(super) size_limit: u64,
    pub(super) flags: u32,
    pub(super) name: [u8; NAME],
}

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
pub(super) struct Info64 {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) rdevice: u64,
    pub(super) offset: u64,
    pub(super) size_limit: u64,
    pub(super) number: u32,
    pub(super) encrypt_type: u32,
    pub(super) encrypt_key_size: u32,
    pub(super) flags: u32,
    pub(super) name: [u8; NAME],
    pub(super) crypt_name: [u8; NAME],
    pub(super) encrypt_key: [u8; 32],
    pub(super) init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
pub(super) struct Config {
    pub(super) fd: u32,
    pub(super) block_size: u32,
    pub(super) info: Info64,
    pub(super) reserved: [u64; 8],
}

/// `struct loop_info`, the older form.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
pub(super) struct OldInfo {
    number: u32,
    _pad: u32,
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    name: [u8; NAME],
    encrypt_key: [u8; 32],
    init: [u64; 2],
    reserved: [u8; 4],
    _end: u32,
}

impl Info64 {
    /// What LOOP_GET_STATUS64 tells.
    pub(super) fn of(disk: &LoopDisk, bound: &Bound) -> Info64 {
        let stat = bound.open.stat();
        Info64 {
            device: stat.device.encode(),
            inode: stat.inode,
            rdevice: stat.rdev.encode(),
            offset: bound.info.offset,
            size_limit: bound.info.size_limit,
            number: disk.index,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: bound.info.flags,
            name: bound.info.name,
            crypt_name: [0; NAME],
            encrypt_key: [0; 32],
            init: [0; 2],
        }
    }

    /// Checks what is to be set: nothing is encrypted any more. `EINVAL`, `EOVERFLOW`.
    pub(super) fn check(&self) -> Result<Info> {
        if self.encrypt_type != 0 {
            return Err(Errno::EINVAL);
        }
        if i64::try_from(self.offset).is_err() || i64::try_from(self.size_limit).is_err() {
            return Err(Errno::EOVERFLOW);
        }
        let mut name = self.name;
        name[NAME - 1] = 0;
        Ok(Info { offset: self.offset, size_limit: self.size_limit, flags: self.flags, name })
    }
}

impl OldInfo {
    pub(super) fn widen(&self) -> Info64 {
        Info64 {
            device: 0,
            inode: 0,
            rdevice: 0,
            // As Linux does, from a number with a sign.
            offset: self.offset as i32 as u64,
            size_limit: 0,
            number: self.number,
            encrypt_type: self.encrypt_type,
            encrypt_key_size: self.encrypt_key_size,
            flags: self.flags,
            name: self.name,
            crypt_name: [0; NAME],
            encrypt_key: self.encrypt_key,
            init: [0; 2],
        }
    }

    /// `EOVERFLOW` where a number does not fit.
    pub(super) fn narrow(info: &Info64) -> Result<OldInfo> {
        Ok(OldInfo {
            number: info.number,
            _pad: 0,
            device: info.device,
            inode: info.inode,
            rdevice: info.rdevice,
            offset: i32::try_from(info.offset).map_err(|_| Errno::EOVERFLOW)? as u32,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: info.flags,
            name: info.name,
            encrypt_key: [0; 32],
            init: [0; 2],
            reserved: [0; 4],
            _end: 0,
        })
    }
}

impl Info {
    /// A binding that nothing was said about.
    pub(super) fn plain(flags: u32) -> Info {
        Info { offset: 0, size_limit: 0, flags, name: [0; NAME] }
    }

    /// The flags that LOOP_SET_STATUS may change: sets those that it may set, and clears what it may clear.
    pub(super) fn merge_flags(&self, old: u32) -> u32 {
        const SETTABLE: u32 = flag::AUTOCLEAR | flag::PARTSCAN;
        const CLEARABLE: u32 = flag::AUTOCLEAR;
        let kept = old & !CLEARABLE;
        kept | self.flags & SETTABLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_linux_sizes() {
        assert_eq!((size_of::<Info64>(), size_of::<Config>(), size_of::<OldInfo>()), (232, 304, 168));
    }

    #[test]
    fn only_some_flags_can_be_changed_later() {
        let merged = |flags, old| Info::plain(flags).merge_flags(old);
        assert_eq!(merged(flag::AUTOCLEAR | flag::READ_ONLY, 0), flag::AUTOCLEAR);
        assert_eq!(merged(0, flag::AUTOCLEAR | flag::PARTSCAN | flag::READ_ONLY), flag::PARTSCAN | flag::READ_ONLY);
    }
}
