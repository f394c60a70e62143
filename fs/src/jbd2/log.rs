//! The log: an area of the disk used in a circle, and its superblock.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use base::{Errno, Result};

use super::format::{self, CRC32C, Format, Tag, feature, field, kind};
use super::store::Commit;
use crate::block::BlockIo;
use crate::bytes::{be32, put_be32};
use crate::crc32c::crc32c;

/// Where the log's blocks are on the disk: runs of (first block in the log, first block on the disk, how many).
#[derive(Clone, Debug, Default)]
pub(crate) struct Area(pub(crate) Vec<(u32, u64, u32)>);

impl Area {
    /// The disk's block behind block `n` of the log. `EUCLEAN` where there is none.
    pub(super) fn locate(&self, n: u32) -> Result<u64> {
        let run = self.0.iter().find(|(first, _, len)| n >= *first && n - first < *len);
        run.map(|(first, block, _)| block + u64::from(n - first)).ok_or(Errno::EUCLEAN)
    }

    fn len(&self) -> u32 {
        self.0.iter().map(|(first, _, len)| first.saturating_add(*len)).max().unwrap_or(0)
    }
}

/// A journal that is in use.
pub(crate) struct Log {
    pub(super) area: Area,
    pub(super) format: Format,
    superblock: Vec<u8>,
    /// The circle: blocks `first..end`.
    pub(super) first: u32,
    pub(super) end: u32,
    /// Where the next transaction goes, and where the oldest that is still needed begins.
    head: u32,
    tail: u32,
    /// The transaction at the tail.
    tail_sequence: u32,
    used: u32,
    /// The number of the next transaction.
    pub(crate) sequence: u32,
}

impl Log {
    /// Reads the superblock. `EUCLEAN`, `EBADMSG` (checksum), `EINVAL` (features that are not known), `EIO`.
    pub(crate) fn open(io: &dyn BlockIo, area: Area, block_size: usize) -> Result<Log> {
        let mut superblock = vec![0; block_size];
        io.read(area.locate(0)? * block_size as u64, &mut superblock)?;
        let version = match format::header(&superblock) {
            Some((kind::SUPERBLOCK_V1, _)) => 1,
            Some((kind::SUPERBLOCK_V2, _)) => 2,
            _ => return Err(Errno::EUCLEAN),
        };
        let features = if version == 2 { be32(&superblock, field::INCOMPAT) } else { 0 };
        if features & !feature::KNOWN != 0 {
            log::error!("the journal has features that are not known: {features:#x}");
            return Err(Errno::EINVAL);
        }
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&superblock[field::UUID..field::UUID + 16]);
        let format = Format { block_size, features, seed: crc32c(!0, &uuid), uuid };
        if format.has_checksums() && format::superblock_checksum(&superblock) != be32(&superblock, field::CHECKSUM) {
            return Err(Errno::EBADMSG);
        }
        let (first, end) = (be32(&superblock, field::FIRST), be32(&superblock, field::MAX_LEN));
        let start = be32(&superblock, field::START);
        let sane = be32(&superblock, field::BLOCK_SIZE) as usize == block_size
            && first >= 1
            && end <= area.len()
            && end.checked_sub(first).is_some_and(|len| len >= 64)
            && (start == 0 || (first..end).contains(&start));
        if !sane {
            return Err(Errno::EUCLEAN);
        }
        let sequence = be32(&superblock, field::SEQUENCE);
        let tail = if start == 0 { first } else { start };
        Ok(Log { area, format, superblock, first, end, head: tail, tail, tail_sequence: sequence, used: 0, sequence })
    }

    /// Does it hold transactions that have to be recovered?
    pub(crate) fn needs_recovery(&self) -> bool {
        be32(&self.superblock, field::START) != 0
    }

    /// Where the transactions to recover begin: block of the log and number.
    pub(super) fn start(&self) -> (u32, u32) {
        (self.tail, self.tail_sequence)
    }

    /// The block after `n` in the circle.
    pub(super) fn next(&self, n: u32) -> u32 {
        if n + 1 >= self.end { self.first } else { n + 1 }
    }

    /// Blocks that a transaction may take at most.
    pub(crate) fn max_transaction(&self) -> usize {
        (self.end - self.first) as usize / 4
    }

    /// Blocks of the log that are free.
    pub(super) fn free(&self) -> usize {
        // The head must never reach the tail, which would say that the log is empty.
        ((self.end - self.first - self.used) as usize).saturating_sub(2)
    }

    /// Begins to use it, empty: with the given features on top of those that it has. `EIO`.
    pub(crate) fn activate(&mut self, io: &dyn BlockIo, sequence: u32, checksums: bool, wide: bool) -> Result<()> {
        self.sequence = sequence.max(1);
        (self.head, self.tail, self.used) = (self.first, self.first, 0);
        if be32(&self.superblock, 4) == kind::SUPERBLOCK_V2 {
            let mut features = self.format.features & !feature::ASYNC_COMMIT | feature::REVOKE;
            features |= if wide { feature::WIDE } else { 0 };
            if checksums {
                features = features & !feature::CHECKSUM_V2 | feature::CHECKSUM_V3;
                self.superblock[field::CHECKSUM_TYPE] = CRC32C;
            }
            self.format.features = features;
            put_be32(&mut self.superblock, field::INCOMPAT, features);
        }
        self.write_superblock(io, 0)?;
        io.flush()
    }

    /// Has it room to say which blocks of older transactions don't count any more?
    pub(super) fn can_revoke(&self) -> bool {
        self.format.features & feature::REVOKE != 0
    }

    fn write_superblock(&mut self, io: &dyn BlockIo, start: u32) -> Result<()> {
        let sequence = if start == 0 { self.sequence } else { self.tail_sequence };
        put_be32(&mut self.superblock, field::SEQUENCE, sequence);
        put_be32(&mut self.superblock, field::START, start);
        if self.format.has_checksums() {
            let sum = format::superblock_checksum(&self.superblock);
            put_be32(&mut self.superblock, field::CHECKSUM, sum);
        }
        io.write(self.area.locate(0)? * self.format.block_size as u64, &self.superblock)
    }

    /// Blocks of the log that a transaction with so many changed and revoked blocks takes.
    pub(super) fn room_for(&self, blocks: usize, revokes: usize) -> usize {
        let descriptors = blocks.div_ceil(self.format.tags_per_descriptor());
        blocks + descriptors + revokes.div_ceil(self.format.revokes_per_block()) + 1
    }

    /// Takes room for a commit, to be written by [`LogWrite::write`]; the caller has made sure that there is. `EIO`.
    pub(super) fn begin(&mut self, io: &dyn BlockIo, commit: &Commit) -> Result<LogWrite> {
        let room = self.room_for(commit.blocks.len(), commit.revoked.len());
        if self.used == 0 {
            // The first since the log was empty: from now on a crash means recovery from here.
            self.tail = self.head;
            self.tail_sequence = commit.sequence;
            let tail = self.tail;
            self.write_superblock(io, tail)?;
        }
        let mut places = Vec::with_capacity(room);
        for _ in 0..room {
            places.push(self.area.locate(self.head)?);
            self.head = self.next(self.head);
        }
        self.used += room as u32;
        Ok(LogWrite { places, format: self.format })
    }

    /// All that was committed is in its place and flushed: the log is empty. `EIO`.
    pub(super) fn empty(&mut self, io: &dyn BlockIo) -> Result<()> {
        if self.used == 0 && !self.needs_recovery() {
            return Ok(());
        }
        self.used = 0;
        self.tail = self.head;
        self.write_superblock(io, 0)
    }

    /// Notes an error for e2fsck, like Linux does when it gives a journal up.
    pub(crate) fn note_error(&mut self, io: &dyn BlockIo, errno: u32) -> Result<()> {
        put_be32(&mut self.superblock, field::ERRNO, errno.wrapping_neg());
        let start = be32(&self.superblock, field::START);
        self.write_superblock(io, start)
    }
}

/// A commit on its way to the log.
pub(super) struct LogWrite {
    places: Vec<u64>,
    format: Format,
}

impl LogWrite {
    /// Writes the transaction: everything but the commit block, a flush, the commit block, a flush. `EIO`.
    pub(super) fn write(&self, io: &dyn BlockIo, commit: &Commit) -> Result<()> {
        let format = &self.format;
        let mut images: Vec<Arc<[u8]>> = Vec::with_capacity(self.places.len());
        for chunk in commit.blocks.chunks(format.tags_per_descriptor()) {
            let mut tags = Vec::with_capacity(chunk.len());
            let mut data = Vec::with_capacity(chunk.len());
            for (block, bytes) in chunk {
                let escaped = Format::escape(bytes);
                let is_escaped = escaped.is_some();
                let image: Arc<[u8]> = escaped.map_or_else(|| bytes.clone(), Arc::from);
                let checksum = if format.has_checksums() { format.data_checksum(commit.sequence, &image) } else { 0 };
                tags.push(Tag { block: *block, escaped: is_escaped, checksum });
                data.push(image);
            }
            images.push(format.descriptor(commit.sequence, &tags).into());
            images.append(&mut data);
        }
        for chunk in commit.revoked.chunks(format.revokes_per_block()) {
            images.push(format.revoke(commit.sequence, chunk).into());
        }
        let size = format.block_size as u64;
        let writes: Vec<(u64, &[u8])> =
            self.places.iter().zip(&images).map(|(place, image)| (place * size, &**image)).collect();
        io.write_many(&writes)?;
        io.flush()?;
        let last = self.places.last().ok_or(Errno::EIO)?;
        io.write(last * size, &format.commit(commit.sequence, commit.time))?;
        io.flush()
    }
}
