//! posix_fadvise(2) and readahead(2).

use base::Result;
use mm::Pattern;

use crate::{Mapping, OpenFile};

const PAGE: u64 = abi::PAGE_SIZE as u64;

const NORMAL: u32 = 0;
const RANDOM: u32 = 1;
const SEQUENTIAL: u32 = 2;
const WILL_NEED: u32 = 3;
const DONT_NEED: u32 = 4;

/// How `from..to` of the file is going to be used. Files without storage behind their pages take it without effect.
pub fn advise(open: &OpenFile, from: u64, to: u64, advice: u32) -> Result<()> {
    let Ok(Mapping::Pages(pages)) = open.file().mapping() else { return Ok(()) };
    match advice {
        NORMAL => pages.set_pattern(Pattern::Normal),
        RANDOM => pages.set_pattern(Pattern::Random),
        SEQUENTIAL => pages.set_pattern(Pattern::Sequential),
        WILL_NEED => return read_ahead(open, from, to),
        DONT_NEED if pages.is_paged() => {
            // Only whole pages go; those that are dirty are written first.
            let (first, last) = (from.div_ceil(PAGE), to / PAGE);
            if first < last {
                open.file().write_back(first * PAGE, last.saturating_mul(PAGE))?;
                pages.drop_clean(first, last - 1);
            }
        }
        _ => {}
    }
    Ok(())
}

/// Reads `from..to` into the page cache. `EIO` is left for the read that needs it.
pub fn read_ahead(open: &OpenFile, from: u64, to: u64) -> Result<()> {
    if let Ok(Mapping::Pages(pages)) = open.file().mapping()
        && to > from
    {
        let _ = pages.read_in(from / PAGE, (to - 1) / PAGE);
    }
    Ok(())
}
