//! Decompression of physical clusters, and what the superblock says of it.

use alloc::vec::Vec;

use base::{Errno, Result};
use lzma_rust2::{LzmaReader, Read};

use super::{COMPRESSION_CONFIGURED, SUPERBLOCK, SUPERBLOCK_AT, ZERO_PADDED, u16_at, u32_at};
use crate::image::{Storage, buffer};

/// Bytes of what is configured of an algorithm.
const CONFIGURATION: usize = 14;
/// The largest physical cluster, and the largest dictionary of LZMA.
pub(super) const CLUSTER_MAX: u64 = 1 << 20;
const DICTIONARY_MAX: u32 = 8 << 20;

/// How a cluster is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Lz4,
    MicroLzma,
}

impl Algorithm {
    /// By the format's number. `EOPNOTSUPP` for those that came after Linux 6.1.
    pub(super) fn from_id(id: u8) -> Result<Algorithm> {
        match id {
            0 => Ok(Algorithm::Lz4),
            1 => Ok(Algorithm::MicroLzma),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }
}

/// How an image is compressed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compression {
    /// Is what is shorter than its cluster at its end, with zeros in front? If not, it is at its beginning, and nothing says how long it is.
    padded: bool,
    /// The bytes of a block, the most that there can be of those zeros.
    block: usize,
    /// The largest dictionary that LZMA needs; `None` where the image does not use it.
    dictionary: Option<u32>,
}

impl Compression {
    /// Reads it from the superblock, and from what follows that where an image has more than LZ4. `EINVAL`.
    pub(super) fn read(storage: &Storage, superblock: &[u8], incompatible: u32) -> Result<Compression> {
        let block = 1 << superblock[12];
        let mut read = Compression { padded: incompatible & ZERO_PADDED != 0, block, dictionary: None };
        if incompatible & COMPRESSION_CONFIGURED == 0 {
            return Ok(read);
        }
        let mut at = SUPERBLOCK_AT + SUPERBLOCK as u64 + u64::from(superblock[13]) * 16;
        let algorithms = u16_at(superblock, 84)?;
        for id in (0..16).filter(|id| algorithms & 1 << id != 0) {
            at = at.next_multiple_of(4);
            let len = usize::from(u16_at(&storage.read(at, 2)?, 0)?);
            if (1..CONFIGURATION).contains(&len) {
                return Err(Errno::EINVAL);
            }
            let configured = storage.read(at + 2, CONFIGURATION)?;
            match Algorithm::from_id(id).map_err(|_| Errno::EINVAL)? {
                Algorithm::Lz4 if u64::from(u16_at(&configured, 2)?) << superblock[12] > CLUSTER_MAX => {
                    return Err(Errno::EINVAL);
                }
                Algorithm::Lz4 => {}
                Algorithm::MicroLzma => {
                    let (dictionary, format) = (u32_at(&configured, 0)?, u16_at(&configured, 4)?);
                    if format != 0 || !(4096..=DICTIONARY_MAX).contains(&dictionary) {
                        return Err(Errno::EINVAL);
                    }
                    read.dictionary = Some(dictionary);
                }
            }
            // No length is the longest.
            at += 2 + if len == 0 { 1 << 16 } else { len as u64 };
        }
        Ok(read)
    }

    /// The first `len` bytes of what a cluster has, which are all of them unless it is `partial`. `EIO`, `EUCLEAN`, `ENOMEM`.
    pub(super) fn expand(&self, algorithm: Algorithm, cluster: &[u8], len: usize, partial: bool) -> Result<Vec<u8>> {
        let cluster = if self.padded || algorithm == Algorithm::MicroLzma {
            let zeros = cluster.iter().take(self.block).position(|&byte| byte != 0).ok_or(Errno::EUCLEAN)?;
            &cluster[zeros..]
        } else {
            cluster
        };
        let mut out = buffer(len)?;
        match algorithm {
            Algorithm::Lz4 if partial || !self.padded => unlz4_prefix(cluster, &mut out)?,
            Algorithm::Lz4 => {
                let done = lz4_flex::block::decompress_into(cluster, &mut out).map_err(|_| Errno::EIO)?;
                if done != len {
                    return Err(Errno::EIO);
                }
            }
            Algorithm::MicroLzma => {
                let dictionary = self.dictionary.ok_or(Errno::EOPNOTSUPP)?.min(len.max(4096) as u32);
                unlzma(cluster, &mut out, dictionary, partial)?;
            }
        }
        Ok(out)
    }
}

/// Decompresses the beginning of an LZ4 block (LZ4 Block Format Description) until `out` is full; what else there is does not matter.
fn unlz4_prefix(input: &[u8], out: &mut [u8]) -> Result<()> {
    let (mut at, mut done) = (0, 0);
    while done < out.len() {
        let token = *input.get(at).ok_or(Errno::EIO)?;
        at += 1;
        let literals = lz4_length(input, &mut at, token >> 4)?;
        let n = literals.min(out.len() - done);
        out[done..done + n].copy_from_slice(input.get(at..at + n).ok_or(Errno::EIO)?);
        (at, done) = (at + literals, done + n);
        if done == out.len() {
            break;
        }
        let distance = usize::from(u16_at(input, at)?);
        at += 2;
        let n = (lz4_length(input, &mut at, token & 15)? + 4).min(out.len() - done);
        if distance == 0 || distance > done {
            return Err(Errno::EIO);
        }
        // A copy may be of what it makes.
        for to in done..done + n {
            out[to] = out[to - distance];
        }
        done += n;
    }
    Ok(())
}

/// A length of which the token has `short`; 15 means that more bytes follow.
fn lz4_length(input: &[u8], at: &mut usize, short: u8) -> Result<usize> {
    let mut length = usize::from(short);
    let mut more = short == 15;
    while more {
        let byte = *input.get(*at).ok_or(Errno::EIO)?;
        *at += 1;
        length += usize::from(byte);
        more = byte == 255;
    }
    Ok(length)
}

/// Decompresses MicroLZMA: LZMA whose first byte, which is always 0 there, is the properties' complement.
fn unlzma(input: &[u8], out: &mut [u8], dictionary: u32, partial: bool) -> Result<()> {
    let (first, rest) = input.split_first().ok_or(Errno::EIO)?;
    let properties = !first;
    let (literal_context, literal_position) = (properties % 9, properties / 9 % 5);
    if properties >= 9 * 5 * 5 || literal_context + literal_position > 4 {
        return Err(Errno::EIO);
    }
    let mut stream = buffer(input.len())?;
    stream[1..].copy_from_slice(rest);
    let size = if partial { u64::MAX } else { out.len() as u64 };
    let mut reader =
        LzmaReader::new_with_props(&*stream, size, properties, dictionary, None).map_err(|_| Errno::EIO)?;
    let mut done = 0;
    while done < out.len() {
        match reader.read(&mut out[done..]).map_err(|_| Errno::EIO)? {
            0 => return Err(Errno::EIO),
            n => done += n,
        }
    }
    Ok(())
}
