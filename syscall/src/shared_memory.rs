//! Shared anonymous memory: pages that only their mappings know.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicU64, Ordering};

use base::Result;
use mm::{Backing, Mappable, PageCache};

struct SharedMemory {
    pages: Arc<PageCache>,
    number: u64,
}

impl Mappable for SharedMemory {
    fn page_cache(&self) -> Option<Arc<PageCache>> {
        Some(self.pages.clone())
    }

    fn describe(&self) -> (u32, u32, u64, Vec<u8>) {
        (0, 1, self.number, b"/dev/zero (deleted)".to_vec())
    }

    fn may_write(&self) -> bool {
        true
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Fresh zeros of `len` bytes to share.
pub(crate) fn backing(len: usize) -> Result<Backing> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let pages = PageCache::new();
    pages.resize(len as u64)?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Ok(Backing::File { file: Arc::new(SharedMemory { pages, number }), offset: 0 })
}
