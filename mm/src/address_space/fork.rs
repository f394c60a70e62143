//! fork(2)'s copy of an address space.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use base::Result;
use hal::paging::Batch;

use super::userfault::forking;
use super::{AddressSpace, no_memory};
use crate::{Lock, overcommit};

impl AddressSpace {
    /// A copy for fork: private pages shared copy-on-write, MADV_DONTFORK left out, MADV_WIPEONFORK empty, locks not inherited. `ENOMEM`.
    pub fn fork(&self) -> Result<Arc<AddressSpace>> {
        // For writing: no fault may make a page writable between sharing and flushing.
        let layout = self.layout.write();
        overcommit::check(layout.promised.bytes(), layout.total)?;
        let mut copy = layout.clone();
        copy.future = Lock::No;
        let child = AddressSpace::with(copy)?;
        {
            let mut theirs = child.page_table.lock();
            self.page_table.lock().share_with(&mut theirs).map_err(no_memory)?;
        }
        let mut batch = Batch::new();
        batch.touch(0, hal::user::USER_END);
        self.page_table.flush(&mut batch);
        child.count_anonymous(self.rss_anon.load(Ordering::Relaxed));
        child.rss_file.store(self.rss_file.load(Ordering::Relaxed), Ordering::Relaxed);
        child.rss_shmem.store(self.rss_shmem.load(Ordering::Relaxed), Ordering::Relaxed);
        let mut inherited = child.layout.write();
        for (&start, mapping) in &layout.mappings {
            if let Some((cache, _)) = &mapping.cache {
                cache.add_mapper(&child.this);
            }
            if mapping.not_inherited || mapping.wiped_on_fork {
                child.zap(start, mapping.end)?;
            }
            if mapping.not_inherited {
                drop(inherited.remove(start, mapping.end));
            }
        }
        if layout.locked > 0 {
            inherited.change(0, hal::user::USER_END, |m| m.lock = Lock::No);
        }
        // What the child has not is no news of the parent.
        inherited.changes.forget();
        let forks = forking(&child, &mut inherited);
        drop(inherited);
        drop(layout);
        forks.tell();
        Ok(child)
    }
}
