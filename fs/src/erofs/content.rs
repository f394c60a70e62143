//! The content of compressed files.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};

use super::index::{Extent, Form, Index, Source};
use super::{Erofs, Place};
use crate::image::buffer;

/// The most bytes of physical clusters that are read at a time.
const RUN_MAX: u64 = 1 << 20;

/// Physical clusters in a row, as they were read together.
#[derive(Default)]
struct Run {
    start: u64,
    bytes: Vec<u8>,
}

impl Run {
    /// What is at `at` on the storage, if it is here.
    fn get(&self, at: u64, len: u64) -> Option<&[u8]> {
        let from = usize::try_from(at.checked_sub(self.start)?).ok()?;
        self.bytes.get(from..from.checked_add(len as usize)?)
    }
}

impl Erofs {
    /// Fills the buffer from `offset` on, none of which is behind the file's end. `EIO`, `EUCLEAN`, `EOPNOTSUPP`, `ENOMEM`.
    pub(super) fn read_compressed(&self, index: &Index, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset + buffer.len() as u64;
        let mut extents = Vec::new();
        let mut at = offset;
        while at < end {
            let extent = self.extent(index, at)?;
            extents.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            extents.push(extent);
            at = extent.start + extent.len;
        }
        let mut run = Run::default();
        let mut rest = buffer;
        let mut at = offset;
        for (n, extent) in extents.iter().enumerate() {
            let len = (extent.start + extent.len).min(end) - at;
            let (part, behind) = rest.split_at_mut(len as usize);
            let from = at - extent.start;
            match extent.source {
                Source::Fragment(start) => self.read_packed(start.checked_add(from).ok_or(Errno::EUCLEAN)?, part)?,
                Source::Cluster { .. } => {
                    let content = self.extent_content(&extents[n..], &mut run)?;
                    part.copy_from_slice(&content[from as usize..][..part.len()]);
                }
            }
            (rest, at) = (behind, at + len);
            sched::preempt_point();
        }
        Ok(())
    }

    /// What the first of some extents has, which is made once for all that read it. With it are read the clusters of those that follow, as
    /// far as they are in a row. `EIO`, `EUCLEAN`, `EOPNOTSUPP`, `ENOMEM`.
    fn extent_content(&self, extents: &[Extent], run: &mut Run) -> Result<Arc<Vec<u8>>> {
        let Extent { len: extent_len, source: Source::Cluster { at, len, form }, .. } = extents[0] else {
            return Err(Errno::EIO);
        };
        self.extents.get((at, extent_len), || {
            if run.get(at, len).is_none() {
                let mut until = at + len;
                for extent in &extents[1..] {
                    match extent.source {
                        Source::Cluster { at: next, len, .. } if next == until && until + len - at <= RUN_MAX => {
                            until += len
                        }
                        _ => break,
                    }
                }
                *run = Run { start: at, bytes: self.storage.read(at, (until - at) as usize)? };
            }
            let cluster = run.get(at, len).ok_or(Errno::EIO)?;
            match form {
                Form::Plain { turned } => {
                    turn_back(cluster, extent_len as usize, turned as usize, self.block() as usize)
                }
                Form::Compressed { algorithm, partial } => {
                    self.compression.expand(algorithm, cluster, extent_len as usize, partial)
                }
            }
        })
    }

    /// Reads the packed file, which has the ends of others. `EUCLEAN` where that has its own in itself, and behind its end.
    fn read_packed(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let packed = self.read_inode(self.packed.ok_or(Errno::EUCLEAN)?)?;
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > packed.stat.size) {
            return Err(Errno::EUCLEAN);
        }
        match packed.place {
            Place::Compressed { index, compact } => {
                let index = self.index(index, compact, packed.stat.size)?;
                if index.is_fragmented() {
                    return Err(Errno::EUCLEAN);
                }
                self.read_compressed(&index, offset, buffer)
            }
            _ => self.read_plain(&packed, offset, buffer),
        }
    }
}

/// The first bytes of what is in the cluster, though the block in which they begin is at its end from where it is `turned` to. `ENOMEM`.
fn turn_back(cluster: &[u8], len: usize, turned: usize, block: usize) -> Result<Vec<u8>> {
    let mut bytes = buffer(len)?;
    let first = if turned == 0 { 0 } else { len.min(block - turned) };
    let (head, tail) = bytes.split_at_mut(first);
    if first > 0 {
        head.copy_from_slice(
            cluster.get(cluster.len() - (block - turned)..).and_then(|end| end.get(..first)).ok_or(Errno::EUCLEAN)?,
        );
    }
    tail.copy_from_slice(cluster.get(..len - first).ok_or(Errno::EUCLEAN)?);
    Ok(bytes)
}
