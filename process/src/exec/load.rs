//! Putting a program's segments into memory.

use alloc::sync::Arc;

use abi::PAGE_SIZE;
use base::{Errno, Result};
use fs::OpenFile;
use mm::{AddressSpace, Backing, MapRequest, MappingName, Prot, Sink};

use super::elf::{Header, Layout, Segment, page_up};

/// A program or interpreter whose headers have been read.
pub(crate) struct Program {
    pub(crate) file: Arc<OpenFile>,
    pub(crate) header: Header,
    pub(crate) layout: Layout,
}

/// Where it ended up.
pub(crate) struct Loaded {
    /// What was added to its addresses.
    pub(crate) bias: usize,
    pub(crate) entry: usize,
    /// One past its highest address.
    pub(crate) end: usize,
}

/// Reads exactly `dst.len()` bytes at `offset`; `error` where the file is shorter.
pub(crate) fn read_exact(file: &OpenFile, offset: u64, dst: &mut [u8], error: Errno) -> Result<()> {
    let len = dst.len();
    let mut sink = Sink::kernel(dst);
    while sink.done() < len {
        let at = offset.checked_add(sink.done() as u64).ok_or(error)?;
        if file.read_at(at, &mut sink)? == 0 {
            return Err(error);
        }
    }
    Ok(())
}

impl Program {
    /// Reads the headers of `file`, whose first bytes are `start`. `ENOEXEC`, `EINVAL`, `EIO`, `ENOMEM`.
    pub(crate) fn read(file: Arc<OpenFile>, start: &[u8]) -> Result<Program> {
        let header = Header::parse(start)?;
        let mut table = alloc::vec::Vec::new();
        table.try_reserve_exact(header.table_size()).map_err(|_| Errno::ENOMEM)?;
        table.resize(header.table_size(), 0);
        read_exact(&file, header.table, &mut table, Errno::ENOEXEC)?;
        let layout = Layout::parse(&header, &table)?;
        Ok(Program { file, header, layout })
    }

    /// Maps it. A relocatable program goes to `wanted` if that is given and free, else anywhere. `ENOMEM`, `EINVAL`, ...
    pub(crate) fn load(&self, space: &AddressSpace, wanted: Option<usize>) -> Result<Loaded> {
        let (low, high) = self.layout.span();
        let bias = if self.header.relocatable { self.reserve(space, low, high, wanted)?.wrapping_sub(low) } else { 0 };
        for segment in &self.layout.segments {
            self.map_segment(space, segment, bias)?;
        }
        Ok(Loaded { bias, entry: self.header.entry.wrapping_add(bias), end: high.wrapping_add(bias) })
    }

    /// Finds room for all segments together, aligned as they ask, and holds it by an inaccessible mapping.
    fn reserve(&self, space: &AddressSpace, low: usize, high: usize, wanted: Option<usize>) -> Result<usize> {
        let len = high - low;
        let alignment = self.layout.alignment;
        let slack = alignment - PAGE_SIZE;
        let aligned = |addr: usize| (addr.wrapping_add(alignment - 1)) & !(alignment - 1);
        let request = |addr: usize, len: usize| MapRequest {
            addr,
            no_reserve: true,
            ..MapRequest::anonymous(len, Prot::empty())
        };
        let addr = wanted.map_or(0, aligned);
        let found = space.map(request(addr, len + slack))?;
        let base = aligned(found);
        if base > found {
            space.unmap(found, base - found)?;
        }
        let rest = found + len + slack - (base + len);
        if rest > 0 {
            space.unmap(base + len, rest)?;
        }
        Ok(base)
    }

    fn map_segment(&self, space: &AddressSpace, segment: &Segment, bias: usize) -> Result<()> {
        let start = segment.address.wrapping_add(bias);
        let first_page = start & !(PAGE_SIZE - 1);
        let file_end = start + segment.file_size;
        let memory_end = page_up(start + segment.memory_size);
        let mut mapped_end = first_page;
        if segment.file_size > 0 {
            mapped_end = page_up(file_end);
            let offset = segment.offset - (start - first_page) as u64;
            let backing = self.file.mmap((offset, mapped_end - first_page), false, segment.prot)?;
            map_fixed(space, first_page, mapped_end - first_page, segment.prot, backing)?;
            if segment.memory_size > segment.file_size && mapped_end > file_end {
                zero(space, file_end, mapped_end - file_end, segment.prot);
            }
        }
        if memory_end > mapped_end {
            map_fixed(space, mapped_end, memory_end - mapped_end, segment.prot, Backing::Anonymous)?;
        }
        Ok(())
    }
}

fn map_fixed(space: &AddressSpace, addr: usize, len: usize, prot: Prot, backing: Backing) -> Result<()> {
    let request =
        MapRequest { addr, fixed: true, backing, name: MappingName::None, ..MapRequest::anonymous(len, prot) };
    space.map(request).map(|_| ())
}

/// Clears the tail of the last file page. As Linux, a page that may not be written is left alone.
fn zero(space: &AddressSpace, addr: usize, len: usize, prot: Prot) {
    const ZEROS: [u8; PAGE_SIZE] = [0; PAGE_SIZE];
    if prot.contains(Prot::WRITE) {
        space.write_remote(addr, &ZEROS[..len.min(PAGE_SIZE)], false);
    }
}
