//! The index of a compressed file: which bytes were compressed together, and where they are.
//!
//! A file is cut into *extents*, each of which is compressed by itself into a *physical cluster*, blocks in a row. The index has an
//! entry for each *logical cluster*, a power of two of bytes of the file. An entry is the head of the extent that begins in its cluster, or
//! says that none does; extents end where the next begins. The entry behind a head can say how many blocks the physical cluster has.
//!
//! The full form has 8 bytes for an entry. The compact form has packs of entries, of 4 bytes each, or 2 in the middle of a large file, with
//! the first block's number at their end; the blocks of the others follow from those before them. What both say of the distances to
//! the nearest heads is not used: heads are found by going there, and no extent is long.

use base::{Errno, Result};

use super::compression::{Algorithm, CLUSTER_MAX};
use super::{BIG_CLUSTERS, Erofs, u16_at, u32_at};

/// The longest extent, and the longest that is a fragment.
const EXTENT_MAX: u64 = 12 << 20;
const FRAGMENT_MAX: u64 = 1 << 30;
/// Bytes of the header, and of the full form's entries, which are as many bytes further behind it.
const HEADER: u64 = 8;
const ENTRY: u64 = 8;
/// In an entry that is no head: it has the number of blocks.
const HAS_BLOCKS: u32 = 1 << 11;
/// In a full entry: the physical cluster has more than is used here.
const PARTIAL: u16 = 1 << 15;

/// What a header says of the index and of its extents.
mod advice {
    /// Compact entries of 2 bytes are used.
    pub(super) const SHORT_ENTRIES: u16 = 1;
    /// Physical clusters of the first and of the second algorithm can have more than a block.
    pub(super) const BIG: [u16; 2] = [2, 4];
    /// The last physical cluster is behind the index.
    pub(super) const INLINE: u16 = 8;
    /// What is not compressed is in its block where it is in the file's.
    pub(super) const INTERLACED: u16 = 0x10;
    /// The last extent is a part of the packed file.
    pub(super) const FRAGMENT: u16 = 0x20;
}

/// An extent: `len` bytes from `start` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) start: u64,
    pub(super) len: u64,
    pub(super) source: Source,
}

/// Where an extent comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The packed file, from this byte on.
    Fragment(u64),
    /// A physical cluster: so many bytes there on the storage.
    Cluster { at: u64, len: u64, form: Form },
}

/// What is in a physical cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The extent as it is, `turned` to the right by so many bytes.
    Plain { turned: u64 },
    /// The extent, or, if it is partial, the extent and more.
    Compressed { algorithm: Algorithm, partial: bool },
}

/// What begins in a logical cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Head(Head),
    /// Nothing. Has it the number of the blocks of the extent that began before?
    Inner(Option<u32>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    /// Which of the file's algorithms; `None`: it is not compressed.
    algorithm: Option<usize>,
    /// The byte of the logical cluster at which it begins.
    offset: u64,
    /// Where the physical cluster is.
    block: u32,
    partial: bool,
}

/// An index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Index {
    /// Where it is on the storage, header first.
    at: u64,
    compact: bool,
    size: u64,
    block_bits: u32,
    /// A logical cluster's.
    bits: u32,
    advice: u16,
    algorithms: u8,
    /// The first 4 bytes, which mean where the fragment is, or how long what is inline.
    detail: u32,
    /// The file is a part of the packed file as a whole, from here on.
    whole: Option<u64>,
}

/// Where an entry of the compact form is: the entry in a pack of so many, of so many bytes each, that begins there.
struct Pack {
    at: u64,
    entry: usize,
    entries: usize,
    width: u64,
}

impl Pack {
    fn len(&self) -> usize {
        self.entries * self.width as usize
    }
}

impl Index {
    /// Has the file parts in the packed file?
    pub(super) fn is_fragmented(&self) -> bool {
        self.whole.is_some() || self.has(advice::FRAGMENT)
    }

    fn has(&self, advice: u16) -> bool {
        self.advice & advice != 0
    }

    /// Where full entry `n` is. `EIO`.
    fn full(&self, n: u64) -> Result<u64> {
        n.checked_mul(ENTRY).and_then(|at| at.checked_add(self.at + HEADER + ENTRY)).ok_or(Errno::EIO)
    }

    /// Where compact entry `n` is: entries of 4 bytes up to a multiple of 32, packs of 16 of 2 bytes, and entries of 4 bytes again.
    /// `EOPNOTSUPP`, `EUCLEAN`.
    fn pack(&self, n: u64) -> Result<Pack> {
        let start = self.at + HEADER;
        let all = self.size.div_ceil(1 << self.block_bits);
        if n >= all {
            return Err(Errno::EUCLEAN);
        }
        let before = (start.next_multiple_of(32) - start) / 4;
        let short = if self.has(advice::SHORT_ENTRIES) { all.saturating_sub(before) / 16 * 16 } else { 0 };
        let (at, width, entries) = if n < before {
            (start + n * 4, 4, 2)
        } else if n - before < short {
            (start + before * 4 + (n - before) * 2, 2, 16)
        } else {
            (start + before * 4 + short * 2 + (n - before - short) * 4, 4, 2)
        };
        if self.bits > if width == 2 { 12 } else { 14 } {
            return Err(Errno::EOPNOTSUPP);
        }
        let first = at - at % (width * entries);
        Ok(Pack { at: first, entry: ((at - first) / width) as usize, entries: entries as usize, width })
    }

    /// An entry by its type, and by what it has else. `EUCLEAN`.
    fn entry(&self, kind: u32, offset: u32, value: u32) -> Result<Entry> {
        let algorithm = match kind & 3 {
            2 if value & HAS_BLOCKS == 0 => return Ok(Entry::Inner(None)),
            2 if self.has(advice::BIG[0] | advice::BIG[1]) => return Ok(Entry::Inner(Some(value & !HAS_BLOCKS))),
            2 => return Err(Errno::EUCLEAN),
            0 => None,
            1 => Some(0),
            _ => Some(1),
        };
        if offset >> self.bits != 0 {
            return Err(Errno::EUCLEAN);
        }
        Ok(Entry::Head(Head { algorithm, offset: offset.into(), block: value, partial: false }))
    }

    /// Entry `n` of a pack. `EIO`, `EUCLEAN`.
    fn packed(&self, pack: &[u8], entries: usize, n: usize) -> Result<Entry> {
        let bit = (pack.len() - 4) * 8 / entries * n;
        let value = u32_at(pack, bit / 8)? >> (bit % 8);
        // The number of blocks needs so many bits.
        let bits = self.bits.max(HAS_BLOCKS.ilog2() + 1);
        let low = value & ((1 << bits) - 1);
        self.entry(value >> bits, low, low)
    }

    /// The block of the extent whose head is entry `n` of a pack: the pack's first block, and those of the extents before it. `EIO`, `EUCLEAN`.
    fn packed_block(&self, pack: &[u8], entries: usize, n: usize) -> Result<u32> {
        let big = self.has(advice::BIG[0]);
        let mut block = u32_at(pack, pack.len() - 4)?.wrapping_add(u32::from(!big));
        for before in 0..n {
            let more = match self.packed(pack, entries, before)? {
                Entry::Inner(blocks) => blocks.unwrap_or(0),
                Entry::Head(_) => match self.packed(pack, entries, before + 1)? {
                    Entry::Inner(Some(_)) => 0,
                    _ => 1,
                },
            };
            block = block.wrapping_add(more);
        }
        Ok(block)
    }
}

impl Erofs {
    /// Reads the header of an index. `EOPNOTSUPP`, `EUCLEAN`, `EIO`.
    pub(super) fn index(&self, at: u64, compact: bool, size: u64) -> Result<Index> {
        let header = self.fetch::<8>(at)?;
        let mut index = Index {
            at,
            compact,
            size,
            block_bits: self.block_bits,
            bits: self.block_bits + u32::from(header[7] & 7),
            advice: u16_at(&header, 4)?,
            algorithms: header[6],
            detail: u32_at(&header, 0)?,
            whole: None,
        };
        if header[7] & 0x80 != 0 {
            index.whole = Some(u64::from_le_bytes(header) & !(1 << 63));
            return Ok(index);
        }
        Algorithm::from_id(index.algorithms & 15)?;
        Algorithm::from_id(index.algorithms >> 4)?;
        let big = advice::BIG.map(|bit| index.has(bit));
        if big != [false; 2] && !self.has(BIG_CLUSTERS) || compact && big[0] != big[1] {
            return Err(Errno::EUCLEAN);
        }
        Ok(index)
    }

    /// Entry `n`. `EOPNOTSUPP`, `EUCLEAN`, `EIO`.
    fn entry(&self, index: &Index, n: u64) -> Result<Entry> {
        if index.compact {
            let place = index.pack(n)?;
            let mut bytes = [0; 32];
            let bytes = &mut bytes[..place.len()];
            self.fetch_into(place.at, bytes)?;
            return match index.packed(bytes, place.entries, place.entry)? {
                Entry::Head(head) => {
                    let block = index.packed_block(bytes, place.entries, place.entry)?;
                    Ok(Entry::Head(Head { block, ..head }))
                }
                inner => Ok(inner),
            };
        }
        let bytes = self.fetch::<8>(index.full(n)?)?;
        let (kind, offset, value) = (u16_at(&bytes, 0)?, u16_at(&bytes, 2)?, u32_at(&bytes, 4)?);
        // Where nothing begins, what counts is a short number.
        let value = if kind & 3 == 2 { value & 0xffff } else { value };
        match index.entry(kind.into(), offset.into(), value)? {
            Entry::Head(head) => Ok(Entry::Head(Head { partial: kind & PARTIAL != 0, ..head })),
            inner => Ok(inner),
        }
    }

    /// The extent with a byte of the file, which is not behind its end. `EOPNOTSUPP`, `EUCLEAN`, `EIO`.
    pub(super) fn extent(&self, index: &Index, offset: u64) -> Result<Extent> {
        if let Some(from) = index.whole {
            return Ok(Extent { start: 0, len: index.size, source: Source::Fragment(from) });
        }
        let longest = if index.has(advice::FRAGMENT) { FRAGMENT_MAX } else { EXTENT_MAX };
        let furthest = (longest >> index.bits) + 1;
        let mut n = offset >> index.bits;
        let head = loop {
            match self.entry(index, n)? {
                Entry::Head(head) if (n << index.bits) + head.offset <= offset => break head,
                _ if n == 0 || (offset >> index.bits) - n > furthest => return Err(Errno::EUCLEAN),
                _ => n -= 1,
            }
            sched::preempt_point();
        };
        let start = (n << index.bits) + head.offset;
        let (mut next, mut blocks) = (n + 1, None);
        let end = loop {
            if next - n > furthest + 1 {
                return Err(Errno::EUCLEAN);
            }
            if next << index.bits >= index.size {
                break index.size;
            }
            match self.entry(index, next)? {
                Entry::Head(head) => break ((next << index.bits) + head.offset).min(index.size),
                Entry::Inner(said) if next == n + 1 => blocks = Some(said),
                Entry::Inner(_) => {}
            }
            next += 1;
            sched::preempt_point();
        };
        let extent = Extent { start, len: end - start, source: Source::Fragment(0) };
        Ok(Extent { source: self.source(index, &extent, &head, blocks)?, ..extent })
    }

    /// Where an extent comes from. `blocks`: what the entry behind its head says, if that is no head. `EOPNOTSUPP`, `EUCLEAN`, `EIO`.
    fn source(&self, index: &Index, extent: &Extent, head: &Head, blocks: Option<Option<u32>>) -> Result<Source> {
        let last = extent.start + extent.len == index.size;
        if last && index.has(advice::FRAGMENT) {
            let high = if index.compact { 0 } else { u64::from(head.block) << 32 };
            return Ok(Source::Fragment(high | u64::from(index.detail)));
        }
        let inline = last && index.has(advice::INLINE);
        let (at, len) = if inline {
            self.inline(index)?
        } else {
            let big = head.algorithm.is_some_and(|number| index.has(advice::BIG[number]));
            let len = match blocks {
                Some(blocks) if big => u64::from(blocks.ok_or(Errno::EUCLEAN)?) << self.block_bits,
                _ => 1 << index.bits,
            };
            (u64::from(head.block) << self.block_bits, len)
        };
        let form = match head.algorithm {
            Some(number) => {
                let algorithm = Algorithm::from_id(index.algorithms >> (4 * number) & 15)?;
                Form::Compressed { algorithm, partial: head.partial }
            }
            None if extent.len > len => return Err(Errno::EUCLEAN),
            None if index.has(advice::INTERLACED) && !inline => {
                Form::Plain { turned: extent.start & (self.block() - 1) }
            }
            None => Form::Plain { turned: 0 },
        };
        if len == 0 || len > CLUSTER_MAX || extent.len > EXTENT_MAX {
            return Err(Errno::EUCLEAN);
        }
        Ok(Source::Cluster { at, len, form })
    }

    /// The physical cluster behind the index, which is in one block. `EUCLEAN`.
    fn inline(&self, index: &Index) -> Result<(u64, u64)> {
        let last = (index.size - 1) >> index.bits;
        let at = if index.compact {
            let pack = index.pack(last)?;
            pack.at + pack.len() as u64
        } else {
            index.full(last + 1)?
        };
        let len = u64::from(index.detail >> 16);
        if (at & (self.block() - 1)) + len > self.block() { Err(Errno::EUCLEAN) } else { Ok((at, len)) }
    }
}
