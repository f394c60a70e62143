//! What limits the pages of files that live in memory.

use base::Result;

use super::PageCache;

/// Room for pages, which several caches share.
pub trait Room: Send + Sync {
    /// Takes room for a page. `ENOSPC`.
    fn take(&self) -> Result<()>;

    /// Gives back the room of so many pages.
    fn give(&self, pages: usize);
}

impl PageCache {
    pub(super) fn take_room(&self) -> Result<()> {
        self.room.as_ref().map_or(Ok(()), |room| room.take())
    }

    pub(super) fn give_room(&self, pages: usize) {
        if let Some(room) = self.room.as_ref().filter(|_| pages > 0) {
            room.give(pages);
        }
    }
}
