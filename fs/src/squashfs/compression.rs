//! Decompression of single blocks.

use alloc::vec::Vec;

use base::{Errno, Result};
use lzma_rust2::Read;

use crate::image::buffer;

/// How an image's blocks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Xz,
    Lz4,
    Zstd,
}

impl Compression {
    /// By the superblock's number; `None` for LZMA and LZO, which nobody uses any more.
    pub(super) fn from_id(id: u16) -> Option<Compression> {
        match id {
            1 => Some(Compression::Gzip),
            4 => Some(Compression::Xz),
            5 => Some(Compression::Lz4),
            6 => Some(Compression::Zstd),
            _ => None,
        }
    }

    /// The block's content, at most `limit` bytes. `EIO`, `ENOMEM`.
    pub(super) fn decompress(self, input: &[u8], limit: usize) -> Result<Vec<u8>> {
        let mut out = buffer(limit)?;
        let len = match self {
            Compression::Gzip => inflate(input, &mut out)?,
            Compression::Lz4 => lz4_flex::block::decompress_into(input, &mut out).map_err(|_| Errno::EIO)?,
            Compression::Zstd => {
                ruzstd::decoding::FrameDecoder::new().decode_all(input, &mut out).map_err(|_| Errno::EIO)?
            }
            Compression::Xz => unxz(input, &mut out)?,
        };
        out.truncate(len);
        Ok(out)
    }
}

fn inflate(input: &[u8], out: &mut [u8]) -> Result<usize> {
    use miniz_oxide::inflate::decompress_slice_iter_to_slice;
    decompress_slice_iter_to_slice(out, core::iter::once(input), true, true).map_err(|_| Errno::EIO)
}

/// A variable-length number of the xz format.
fn number(input: &[u8], at: &mut usize) -> Result<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let byte = *input.get(*at).ok_or(Errno::EIO)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Errno::EIO)
}

/// An xz stream with one block (The .xz File Format, section 3), whose filters have to be LZMA2 alone.
fn unxz(input: &[u8], out: &mut [u8]) -> Result<usize> {
    const STREAM_HEADER: usize = 12;
    const LZMA2: u64 = 0x21;
    if input.get(..6) != Some(b"\xfd7zXZ\0") {
        return Err(Errno::EIO);
    }
    let header = (usize::from(*input.get(STREAM_HEADER).ok_or(Errno::EIO)?) + 1) * 4;
    let flags = *input.get(STREAM_HEADER + 1).ok_or(Errno::EIO)?;
    let mut at = STREAM_HEADER + 2;
    for present in [flags & 0x40, flags & 0x80] {
        if present != 0 {
            number(input, &mut at)?;
        }
    }
    let (filter, size) = (number(input, &mut at)?, number(input, &mut at)?);
    if flags & 3 != 0 || filter != LZMA2 || size != 1 {
        return Err(Errno::EIO);
    }
    let body = input.get(STREAM_HEADER + header..).ok_or(Errno::EIO)?;
    // The dictionary need not be larger than what comes out.
    let dictionary = u32::try_from(out.len().max(4096)).map_err(|_| Errno::EIO)?;
    let mut reader = lzma_rust2::Lzma2Reader::new(body, dictionary, None);
    let mut done = 0;
    while done < out.len() {
        match reader.read(&mut out[done..]).map_err(|_| Errno::EIO)? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}
