//! Recovery: writes what committed transactions in the log changed to its place, after a crash.
//!
//! Three passes over the log: to find where it ends, to collect what was revoked, and to write.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use base::{Errno, Result};

use super::format::{Format, Tag, header, kind};
use super::log::Log;
use crate::block::BlockIo;

/// What the passes meet in the log.
enum Item {
    /// A block that was changed, and where in the log it is.
    Changed(Tag, u32),
    /// Blocks whose older copies don't count.
    Revoked(Vec<u64>),
}

/// Reads one transaction: what it has, and where the next begins. `None` where it was not committed.
fn transaction(io: &dyn BlockIo, log: &Log, start: u32, sequence: u32) -> Result<Option<(Vec<Item>, u32)>> {
    let mut items = Vec::new();
    let mut at = start;
    let mut block = vec![0; log.format.block_size];
    // A transaction is never larger than the log.
    let mut left = log.end - log.first;
    loop {
        let Some(after) = left.checked_sub(1) else { return Ok(None) };
        left = after;
        read(io, log, at, &mut block)?;
        let Some((kind, found)) = header(&block) else { return Ok(None) };
        if found != sequence {
            return Ok(None);
        }
        at = log.next(at);
        match kind {
            kind::DESCRIPTOR => {
                let Some(tags) = log.format.tags(&block) else { return Ok(None) };
                for tag in tags {
                    let Some(after) = left.checked_sub(1) else { return Ok(None) };
                    left = after;
                    items.push(Item::Changed(tag, at));
                    at = log.next(at);
                }
            }
            kind::REVOKE => match log.format.revoked(&block) {
                Some(blocks) => items.push(Item::Revoked(blocks)),
                None => return Ok(None),
            },
            kind::COMMIT => {
                let right = log.format.commit_is_right(&block);
                return Ok(right.then_some((items, at)));
            }
            _ => return Ok(None),
        }
    }
}

fn read(io: &dyn BlockIo, log: &Log, n: u32, block: &mut [u8]) -> Result<()> {
    io.read(log.area.locate(n)? * log.format.block_size as u64, block)
}

impl Log {
    /// Writes everything that was committed to its place, and flushes: the number of the next transaction. `EIO`; `EUCLEAN` where a block
    /// that counts is damaged (the others are written).
    pub(crate) fn recover(&self, io: &dyn BlockIo) -> Result<u32> {
        let (start, first) = self.start();
        let mut sequence = first;
        let mut at = start;
        let mut found: Vec<(u32, Vec<Item>)> = Vec::new();
        // The log is a circle: more transactions than blocks there can't be.
        for _ in self.first..self.end {
            let Some((items, next)) = transaction(io, self, at, sequence)? else { break };
            found.push((sequence, items));
            at = next;
            sequence = sequence.wrapping_add(1);
        }
        let mut revoked: BTreeMap<u64, u32> = BTreeMap::new();
        for (sequence, items) in &found {
            for block in items.iter().flat_map(|item| if let Item::Revoked(b) = item { &b[..] } else { &[] }) {
                revoked.insert(*block, *sequence);
            }
        }
        let mut damaged = false;
        for (sequence, items) in &found {
            for item in items {
                let Item::Changed(tag, place) = item else { continue };
                // Transaction numbers wrap around.
                let counts = revoked.get(&tag.block).is_none_or(|r| (r.wrapping_sub(*sequence) as i32) < 0);
                if counts {
                    damaged |= !self.replay(io, *sequence, tag, *place)?;
                }
            }
        }
        io.flush()?;
        log::info!("journal: {} transactions recovered", found.len());
        // One more, so that what is left of an unfinished transaction in the log is never taken for a new one's.
        if damaged { Err(Errno::EUCLEAN) } else { Ok(sequence.wrapping_add(1)) }
    }

    /// Writes one block to its place; false where it is damaged.
    fn replay(&self, io: &dyn BlockIo, sequence: u32, tag: &Tag, place: u32) -> Result<bool> {
        let mut data = vec![0; self.format.block_size];
        read(io, self, place, &mut data)?;
        if self.format.has_checksums() && self.format.data_checksum(sequence, &data) != tag.checksum {
            log::error!("journal: the copy of block {} is damaged", tag.block);
            return Ok(false);
        }
        if tag.escaped {
            Format::unescape(&mut data);
        }
        let offset = tag.block.checked_mul(self.format.block_size as u64).ok_or(Errno::EUCLEAN)?;
        io.write(offset, &data)?;
        Ok(true)
    }
}
