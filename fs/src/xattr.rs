//! Extended attributes kept in memory, for tmpfs.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use base::{Errno, Result};
use hal::sync::SpinLock;

/// The longest name (XATTR_NAME_MAX).
pub const NAME_MAX: usize = 255;
/// The longest value (XATTR_SIZE_MAX).
pub const SIZE_MAX: usize = 65536;
/// The most that names and values of one file take together, so that attributes can't fill the memory that the size limit of
/// the file system is to keep free.
const TOTAL_MAX: usize = 256 * 1024;

/// When setxattr(2) may set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetMode {
    /// Always.
    Any,
    /// XATTR_CREATE: only what is not there.
    Create,
    /// XATTR_REPLACE: only what is there.
    Replace,
}

impl SetMode {
    /// As setxattr(2)'s flags have it.
    pub(crate) fn flags(self) -> u32 {
        match self {
            SetMode::Any => 0,
            SetMode::Create => 1,
            SetMode::Replace => 2,
        }
    }
}

/// What has extended attributes. Names are whole, with their prefix; who may use which was checked.
pub trait XattrStore {
    /// The value of `name`. `ENODATA`, `EIO`.
    fn get(&self, name: &[u8]) -> Result<Vec<u8>>;
    /// Sets `name`. `EEXIST`, `ENODATA` by `mode`; `ENOSPC`, `ENOMEM`, `EIO`.
    fn set(&self, name: &[u8], value: &[u8], mode: SetMode) -> Result<()>;
    /// Removes `name`. `ENODATA`, `EIO`.
    fn remove(&self, name: &[u8]) -> Result<()>;
    /// The names that `keep` wants, each ended by NUL. `EIO`.
    fn list(&self, keep: &dyn Fn(&[u8]) -> bool) -> Result<Vec<u8>>;
}

/// The attributes of one file, in memory.
#[derive(Default)]
pub struct Xattrs(SpinLock<BTreeMap<Box<[u8]>, Box<[u8]>>>);

fn boxed(bytes: &[u8]) -> Result<Box<[u8]>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len()).map_err(|_| Errno::ENOMEM)?;
    copy.extend_from_slice(bytes);
    Ok(copy.into_boxed_slice())
}

impl XattrStore for Xattrs {
    fn get(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.0.lock().get(name).map(|v| v.to_vec()).ok_or(Errno::ENODATA)
    }

    fn set(&self, name: &[u8], value: &[u8], mode: SetMode) -> Result<()> {
        let (name, value) = (boxed(name)?, boxed(value)?);
        let mut map = self.0.lock();
        match (mode, map.contains_key(&name)) {
            (SetMode::Create, true) => return Err(Errno::EEXIST),
            (SetMode::Replace, false) => return Err(Errno::ENODATA),
            _ => {}
        }
        let others: usize = map.iter().filter(|(n, _)| **n != name).map(|(n, v)| n.len() + v.len()).sum();
        if others + name.len() + value.len() > TOTAL_MAX {
            return Err(Errno::ENOSPC);
        }
        let old = map.insert(name, value);
        drop(map);
        drop(old);
        Ok(())
    }

    fn remove(&self, name: &[u8]) -> Result<()> {
        self.0.lock().remove(name).map(drop).ok_or(Errno::ENODATA)
    }

    fn list(&self, keep: &dyn Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
        let mut names = Vec::new();
        for name in self.0.lock().keys().filter(|n| keep(n)) {
            names.extend_from_slice(name);
            names.push(0);
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_obeys_its_mode_and_the_limit() {
        let attrs = Xattrs::default();
        assert_eq!(attrs.set(b"user.a", b"1", SetMode::Replace), Err(Errno::ENODATA));
        assert_eq!(attrs.set(b"user.a", b"1", SetMode::Create), Ok(()));
        assert_eq!(attrs.set(b"user.a", b"2", SetMode::Create), Err(Errno::EEXIST));
        assert_eq!(attrs.set(b"user.a", b"22", SetMode::Any), Ok(()));
        assert_eq!(attrs.get(b"user.a"), Ok(b"22".to_vec()));
        assert_eq!(attrs.list(&|_| true), Ok(b"user.a\0".to_vec()));
        assert_eq!(attrs.remove(b"user.a"), Ok(()));
        assert_eq!(attrs.get(b"user.a"), Err(Errno::ENODATA));
        let big = alloc::vec![0; SIZE_MAX];
        for n in 0..3 {
            assert_eq!(attrs.set(&[b'a' + n], &big, SetMode::Any), Ok(()));
        }
        assert_eq!(attrs.set(b"last", &big, SetMode::Any), Err(Errno::ENOSPC));
    }
}
