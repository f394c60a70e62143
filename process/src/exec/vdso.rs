//! Maps the vDSO, hal's page of clock calls, into a new program.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

use abi::PAGE_SIZE;
use base::Result;
use hal::sync::Once;
use mm::{AddressSpace, Backing, MapRequest, Mappable, MappingName, PageCache, Prot};

/// The data page and the image, as a file that every program maps.
struct Vdso(Arc<PageCache>);

impl Mappable for Vdso {
    fn page_cache(&self) -> Option<Arc<PageCache>> {
        Some(self.0.clone())
    }

    fn describe(&self) -> (u32, u32, u64, Vec<u8>) {
        (0, 0, 0, Vec::new())
    }

    fn may_write(&self) -> bool {
        false
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

static VDSO: Once<Option<Arc<Vdso>>> = Once::new();

fn vdso() -> Option<Arc<Vdso>> {
    let make = || {
        let (data, image) = hal::vdso::pages()?;
        let cache = PageCache::new();
        cache.insert(0, data);
        cache.insert(1, image);
        cache.resize(2 * PAGE_SIZE as u64).ok()?;
        Some(Arc::new(Vdso(cache)))
    };
    VDSO.get_or_init(make).clone()
}

/// Maps both pages and gives the image's address, for AT_SYSINFO_EHDR; `None` where there is no vDSO. `ENOMEM`.
pub(super) fn map(space: &AddressSpace) -> Result<Option<usize>> {
    let Some(vdso) = vdso() else { return Ok(None) };
    let request = |addr, offset, prot, name| MapRequest {
        addr,
        no_replace: addr != 0,
        backing: Backing::File { file: vdso.clone(), offset },
        name,
        ..MapRequest::anonymous(PAGE_SIZE, prot)
    };
    // Room for both is found by mapping two pages; the second is then the image's.
    let room = MapRequest { name: MappingName::Vvar, ..MapRequest::anonymous(2 * PAGE_SIZE, Prot::READ) };
    let data = space.map(room)?;
    space.unmap(data, 2 * PAGE_SIZE)?;
    space.map(request(data, 0, Prot::READ, MappingName::Vvar))?;
    space.map(request(data + PAGE_SIZE, PAGE_SIZE as u64, Prot::READ | Prot::EXEC, MappingName::Vdso)).map(Some)
}
