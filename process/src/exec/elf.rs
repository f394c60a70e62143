//! Reading an ELF file's headers: pure, on bytes that anybody may have made.

use alloc::vec::Vec;

use abi::PAGE_SIZE;
use base::{Errno, Result};
use mm::Prot;

/// Bytes in the file header.
pub const HEADER_SIZE: usize = 64;
/// Bytes in a program header.
const ENTRY_SIZE: usize = 56;
/// Linux reads no more program headers than fit in this.
const MAX_TABLE: usize = 65536;
/// The longest interpreter path with its NUL.
const PATH_MAX: u64 = 4096;

const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_PHDR: u32 = 6;
const PT_GNU_STACK: u32 = 0x6474_e551;
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const PF_R: u32 = 4;

/// What the file header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// It may be loaded anywhere (ET_DYN).
    pub relocatable: bool,
    /// Where it starts, before relocation.
    pub entry: usize,
    /// Where the program headers are in the file.
    pub table: u64,
    /// How many they are.
    pub count: usize,
}

/// A part of the file to load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Where, before relocation.
    pub address: usize,
    /// Bytes in the file.
    pub file_size: usize,
    /// Bytes in memory: the rest is zeros.
    pub memory_size: usize,
    /// Where in the file.
    pub offset: u64,
    /// Protection.
    pub prot: Prot,
}

/// What the program headers say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Layout {
    /// What to load, in the order of the file.
    pub segments: Vec<Segment>,
    /// The interpreter's path in the file: offset and length with the NUL.
    pub interpreter: Option<(u64, usize)>,
    /// Where the program headers will be in memory, before relocation.
    pub table_address: Option<usize>,
    /// The stack must be executable, or must not; `None` for old programs that don't say.
    pub executable_stack: Option<bool>,
    /// The largest alignment of a segment.
    pub alignment: usize,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

impl Header {
    /// Reads it from the file's first bytes. `ENOEXEC`.
    pub fn parse(bytes: &[u8]) -> Result<Header> {
        const CLASS_64: u8 = 2;
        const LITTLE_ENDIAN: u8 = 1;
        if bytes.len() < HEADER_SIZE || !bytes.starts_with(b"\x7fELF") {
            return Err(Errno::ENOEXEC);
        }
        if bytes[4] != CLASS_64 || bytes[5] != LITTLE_ENDIAN || u16_at(bytes, 18) != EM_X86_64 {
            return Err(Errno::ENOEXEC);
        }
        let kind = u16_at(bytes, 16);
        let count = usize::from(u16_at(bytes, 56));
        if !matches!(kind, ET_EXEC | ET_DYN) || usize::from(u16_at(bytes, 54)) != ENTRY_SIZE {
            return Err(Errno::ENOEXEC);
        }
        if count == 0 || count * ENTRY_SIZE > MAX_TABLE {
            return Err(Errno::ENOEXEC);
        }
        let table = u64_at(bytes, 32);
        table.checked_add((count * ENTRY_SIZE) as u64).ok_or(Errno::ENOEXEC)?;
        Ok(Header { relocatable: kind == ET_DYN, entry: u64_at(bytes, 24) as usize, table, count })
    }

    /// Bytes in the table of program headers.
    pub fn table_size(&self) -> usize {
        self.count * ENTRY_SIZE
    }
}

impl Layout {
    /// Reads the program headers from the bytes of their table. `ENOEXEC` (malformed), `EINVAL` (can't be mapped), `ENOMEM`.
    pub fn parse(header: &Header, table: &[u8]) -> Result<Layout> {
        let mut layout = Layout { alignment: PAGE_SIZE, ..Layout::default() };
        for entry in table.chunks_exact(ENTRY_SIZE).take(header.count) {
            layout.add(header, entry)?;
        }
        if layout.segments.is_empty() {
            return Err(Errno::ENOEXEC);
        }
        Ok(layout)
    }

    fn add(&mut self, header: &Header, entry: &[u8]) -> Result<()> {
        let (kind, flags, offset) = (u32_at(entry, 0), u32_at(entry, 4), u64_at(entry, 8));
        let (address, file_size, memory_size) =
            (u64_at(entry, 16) as usize, u64_at(entry, 32) as usize, u64_at(entry, 40) as usize);
        match kind {
            PT_LOAD => {
                let segment = Segment { address, file_size, memory_size, offset, prot: protection(flags) };
                segment.check()?;
                let alignment = u64_at(entry, 48) as usize;
                if alignment.is_power_of_two() && alignment <= 1 << 30 {
                    self.alignment = self.alignment.max(alignment);
                }
                let table_offset = header.table.wrapping_sub(offset);
                if self.table_address.is_none() && header.table >= offset && table_offset < file_size as u64 {
                    self.table_address = address.checked_add(table_offset as usize);
                }
                self.segments.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
                self.segments.push(segment);
            }
            PT_INTERP if self.interpreter.is_none() => {
                if !(2..=PATH_MAX).contains(&(file_size as u64)) {
                    return Err(Errno::ENOEXEC);
                }
                self.interpreter = Some((offset, file_size));
            }
            PT_PHDR => self.table_address = Some(address),
            PT_GNU_STACK => self.executable_stack = Some(flags & PF_X != 0),
            _ => {}
        }
        Ok(())
    }

    /// First and one past the last address, page-aligned, before relocation.
    pub fn span(&self) -> (usize, usize) {
        let low = self.segments.iter().map(|s| s.address & !(PAGE_SIZE - 1)).min().unwrap_or(0);
        let high = self.segments.iter().map(|s| page_up(s.address + s.memory_size)).max().unwrap_or(0);
        (low, high)
    }
}

impl Segment {
    fn check(&self) -> Result<()> {
        let end = self.address.checked_add(self.memory_size).ok_or(Errno::EINVAL)?;
        let page = PAGE_SIZE as u64;
        let congruent = self.offset % page == self.address as u64 % page;
        let fits = end <= hal::user::USER_END && self.file_size <= self.memory_size;
        if !fits || !congruent && self.file_size > 0 {
            return Err(Errno::EINVAL);
        }
        self.offset
            .checked_add(self.file_size as u64 + page)
            .filter(|&end| end <= i64::MAX as u64)
            .ok_or(Errno::EINVAL)?;
        Ok(())
    }
}

/// Rounds up to a page. The value is a checked user address.
pub(crate) fn page_up(address: usize) -> usize {
    address.wrapping_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1)
}

fn protection(flags: u32) -> Prot {
    let mut prot = Prot::empty();
    prot.set(Prot::READ, flags & PF_R != 0);
    prot.set(Prot::WRITE, flags & PF_W != 0);
    prot.set(Prot::EXEC, flags & PF_X != 0);
    prot
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: u16, count: u16) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_SIZE];
        bytes[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
        bytes[16..18].copy_from_slice(&kind.to_le_bytes());
        bytes[18..20].copy_from_slice(&EM_X86_64.to_le_bytes());
        bytes[24..32].copy_from_slice(&0x1040u64.to_le_bytes());
        bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&count.to_le_bytes());
        bytes
    }

    fn entry(kind: u32, flags: u32, offset: u64, address: u64, file: u64, memory: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(kind.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        for word in [offset, address, address, file, memory, 4096] {
            bytes.extend(word.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn a_normal_program_is_understood() {
        let header = Header::parse(&header(ET_DYN, 3)).unwrap();
        let mut table = entry(PT_LOAD, PF_R | PF_X, 0, 0, 0x1234, 0x1234);
        table.extend(entry(PT_LOAD, PF_R | PF_W, 0x2e00, 0x3e00, 0x200, 0x900));
        table.extend(entry(PT_GNU_STACK, PF_R | PF_W, 0, 0, 0, 0));
        let layout = Layout::parse(&header, &table).unwrap();
        assert_eq!(layout.segments.len(), 2);
        assert_eq!(layout.span(), (0, 0x5000));
        assert_eq!(layout.table_address, Some(64));
        assert_eq!(layout.executable_stack, Some(false));
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let good = header(ET_EXEC, 1);
        assert!(Header::parse(&good).is_ok());
        assert_eq!(Header::parse(&good[..63]), Err(Errno::ENOEXEC));
        for (at, value) in [(0, 0), (4, 1), (5, 2), (16, 4), (18, 3), (54, 32)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(Header::parse(&bad), Err(Errno::ENOEXEC), "byte {at}");
        }
        assert_eq!(Header::parse(&header(ET_EXEC, 0)), Err(Errno::ENOEXEC));
        assert_eq!(Header::parse(&header(ET_EXEC, 2000)), Err(Errno::ENOEXEC));
        let header = Header::parse(&good).unwrap();
        assert_eq!(Layout::parse(&header, &entry(7, 0, 0, 0, 0, 0)), Err(Errno::ENOEXEC));
    }

    #[test]
    fn segments_that_cannot_be_mapped_are_refused() {
        let header = Header::parse(&header(ET_EXEC, 1)).unwrap();
        let bad = [
            entry(PT_LOAD, 7, 0, 0x40_0000, 0x2000, 0x1000),
            entry(PT_LOAD, 7, 1, 0x40_0000, 0x1000, 0x1000),
            entry(PT_LOAD, 7, 0, u64::MAX - 0xfff, 0x1000, 0x2000),
            entry(PT_LOAD, 7, 0, 0x7fff_ffff_f000, 0x1000, 0x1000),
            entry(PT_LOAD, 7, !0xfff, 0x40_0000, 0x1000, 0x1000),
        ];
        for table in bad {
            assert_eq!(Layout::parse(&header, &table), Err(Errno::EINVAL));
        }
        for length in [1, 5000] {
            assert_eq!(Layout::parse(&header, &entry(PT_INTERP, 4, 0, 0, length, length)), Err(Errno::ENOEXEC));
        }
    }

    /// Whatever the bytes are, the answer is a layout inside the user half or an error.
    #[test]
    fn random_headers_do_no_harm() {
        let mut state = 0x2545_f491_4f6c_dd1du64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..20_000 {
            let mut bytes = header(if random() & 1 == 0 { ET_DYN } else { ET_EXEC }, (random() % 6) as u16);
            for _ in 0..random() % 3 {
                let at = random() as usize % bytes.len();
                bytes[at] = random() as u8;
            }
            let Ok(header) = Header::parse(&bytes) else { continue };
            let kinds = [PT_LOAD, PT_LOAD, PT_INTERP, PT_PHDR, PT_GNU_STACK];
            let mut table = Vec::new();
            for _ in 0..header.count.min(8) {
                let shift = random() % 64;
                let kind = kinds[random() as usize % kinds.len()];
                table.extend(entry(
                    kind,
                    7,
                    random() >> shift & !0xfff,
                    random() >> shift & !0xfff,
                    random() >> 40,
                    random() >> 38,
                ));
            }
            let Ok(layout) = Layout::parse(&header, &table) else { continue };
            let (low, high) = layout.span();
            assert!(low <= high && high <= hal::user::USER_END);
        }
    }
}
