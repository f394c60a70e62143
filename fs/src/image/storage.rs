//! The image's bytes: any range of them, though storage reads blocks.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};

use crate::block::BlockIo;

/// The most bytes that are read at a time.
const READ_MAX: usize = 4 << 20;

/// Storage that is read byte by byte.
pub(crate) struct Storage(Arc<dyn BlockIo>);

impl Storage {
    pub(crate) fn new(disk: Arc<dyn BlockIo>) -> Storage {
        Storage(disk)
    }

    /// How many bytes there are.
    pub(crate) fn size(&self) -> u64 {
        self.0.size()
    }

    /// `len` bytes from `offset` on. `EIO` where they are not on the storage, `ENOMEM`.
    pub(crate) fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let end = offset.checked_add(len as u64).filter(|&end| end <= self.0.size()).ok_or(Errno::EIO)?;
        if len > READ_MAX {
            return Err(Errno::EIO);
        }
        let block = u64::from(self.0.logical_block());
        let start = offset / block * block;
        let whole = (end.next_multiple_of(block).min(self.0.size()) - start) as usize;
        let mut bytes = buffer(whole)?;
        self.0.read(start, &mut bytes)?;
        bytes.drain(..(offset - start) as usize);
        bytes.truncate(len);
        Ok(bytes)
    }
}

/// Zeros. `ENOMEM`.
pub(crate) fn buffer(len: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
    bytes.resize(len, 0);
    Ok(bytes)
}
