//! Segments: what a TCP header says (RFC 9293, 3.1; options of RFC 7323, 2018, 7413).

use arrayvec::ArrayVec;
use bitflags::bitflags;

use super::seq::Seq;
use crate::packet::Rope;

bitflags! {
    /// The flags of a segment.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Flags: u8 {
        /// No more data from the sender.
        const FIN = 1;
        /// Synchronise sequence numbers.
        const SYN = 2;
        /// Reset the connection.
        const RST = 4;
        /// Push.
        const PSH = 8;
        /// The acknowledgement field counts.
        const ACK = 0x10;
        /// The urgent field counts.
        const URG = 0x20;
        /// Congestion was experienced.
        const ECE = 0x40;
        /// The congestion window was reduced.
        const CWR = 0x80;
    }
}

/// A range of sequence numbers that was received.
pub type Block = (Seq, Seq);

/// A cookie for fast opening (RFC 7413).
pub type Cookie = ArrayVec<u8, 16>;

/// The option for fast opening: a cookie, or with an empty one the wish for one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FastOpen {
    /// The cookie.
    pub cookie: Cookie,
    /// By the experimental number that was used before the option had its own.
    pub experimental: bool,
}

/// The options of a segment.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The maximum segment size.
    pub mss: Option<u16>,
    /// The window scale.
    pub scale: Option<u8>,
    /// SACK is permitted.
    pub sack_permitted: bool,
    /// Timestamps: the sender's, and the one it echoes.
    pub timestamps: Option<(u32, u32)>,
    /// What was received out of order.
    pub blocks: ArrayVec<Block, 4>,
    /// Fast opening.
    pub fast_open: Option<FastOpen>,
}

/// A segment without its addresses.
#[derive(Clone, Debug, Default)]
pub struct Segment {
    /// The first sequence number it takes.
    pub seq: Seq,
    /// The next one expected.
    pub ack: Seq,
    /// Its flags.
    pub flags: Flags,
    /// The window as in the header, unscaled.
    pub window: u16,
    /// The urgent pointer.
    pub urgent: u16,
    /// The code point for congestion notification in its network header (RFC 3168, 5).
    pub codepoint: u8,
    /// Its options.
    pub options: Options,
    /// Its data.
    pub payload: Rope,
}

const NOP: u8 = 1;
const MSS: u8 = 2;
const SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;
const FAST_OPEN: u8 = 34;
const EXPERIMENT: u8 = 254;
/// What an experimental option for fast opening begins with.
const FAST_OPEN_MAGIC: [u8; 2] = [0xf9, 0x89];

/// Bytes of a header without options.
pub const HEADER: usize = 20;
/// Bytes that timestamps take, with padding.
pub const TIMESTAMPS_LEN: usize = 12;

fn be16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

/// The ports of a header: source, destination.
pub fn ports(header: &[u8]) -> (u16, u16) {
    (be16(header, 0), be16(header, 2))
}

/// Bytes of the whole header, from its first 20. `None` where it lies.
pub fn header_len(header: &[u8]) -> Option<usize> {
    let len = usize::from(*header.get(12)? >> 4) * 4;
    (len >= HEADER).then_some(len)
}

/// The option, if its cookie has a length that one can have.
fn fast_open(data: &[u8], len: usize, experimental: bool) -> Option<FastOpen> {
    const LEAST: usize = 4;
    let good = len == 0 || (LEAST..=16).contains(&len) && len.is_multiple_of(2);
    good.then(|| FastOpen { cookie: data.iter().copied().take(16).collect(), experimental })
}

impl FastOpen {
    /// Bytes that the option takes, padded.
    fn len(&self) -> usize {
        (2 + if self.experimental { 2 } else { 0 } + self.cookie.len()).next_multiple_of(4)
    }
}

impl Options {
    fn parse(mut bytes: &[u8]) -> Options {
        let mut options = Options::default();
        while let Some((&kind, rest)) = bytes.split_first() {
            match kind {
                0 => break,
                NOP => {
                    bytes = rest;
                    continue;
                }
                _ => {}
            }
            let Some(len) = rest.first().map(|&len| usize::from(len)).filter(|&len| len >= 2 && len <= bytes.len())
            else {
                break;
            };
            let data = &bytes[2..len];
            match (kind, data.len()) {
                (MSS, 2) => options.mss = Some(be16(data, 0)),
                (SCALE, 1) => options.scale = Some(data[0].min(14)),
                (SACK_PERMITTED, 0) => options.sack_permitted = true,
                (TIMESTAMPS, 8) => options.timestamps = Some((be32(data, 0), be32(data, 4))),
                (SACK, n) if n % 8 == 0 => {
                    for block in data.chunks_exact(8).take(4) {
                        options.blocks.push((Seq(be32(block, 0)), Seq(be32(block, 4))));
                    }
                }
                (FAST_OPEN, n) => options.fast_open = fast_open(data, n, false).or(options.fast_open),
                (EXPERIMENT, 2..) if data[..2] == FAST_OPEN_MAGIC => {
                    options.fast_open = fast_open(&data[2..], data.len() - 2, true).or(options.fast_open);
                }
                _ => {}
            }
            bytes = &bytes[len..];
        }
        options
    }

    /// Bytes they take, padded.
    pub fn len(&self) -> usize {
        let mut len = 0;
        len += if self.mss.is_some() { 4 } else { 0 };
        len += match (self.timestamps.is_some(), self.sack_permitted) {
            (true, _) => TIMESTAMPS_LEN,
            (false, true) => 4,
            (false, false) => 0,
        };
        len += if self.scale.is_some() { 4 } else { 0 };
        len += self.fast_open.as_ref().map_or(0, FastOpen::len);
        len + if self.blocks.is_empty() { 0 } else { 4 + 8 * self.blocks.len() }
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes them, each aligned to four bytes in the order that Linux uses.
    fn emit(&self, out: &mut [u8]) {
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            if let Some(space) = out.get_mut(at..at + bytes.len()) {
                space.copy_from_slice(bytes);
            }
            at += bytes.len();
        };
        if let Some(mss) = self.mss {
            put(&[MSS, 4]);
            put(&mss.to_be_bytes());
        }
        if let Some((value, echo)) = self.timestamps {
            put(if self.sack_permitted { &[SACK_PERMITTED, 2] } else { &[NOP, NOP] });
            put(&[TIMESTAMPS, 10]);
            put(&value.to_be_bytes());
            put(&echo.to_be_bytes());
        } else if self.sack_permitted {
            put(&[NOP, NOP, SACK_PERMITTED, 2]);
        }
        if let Some(scale) = self.scale {
            put(&[NOP, SCALE, 3, scale]);
        }
        if !self.blocks.is_empty() {
            put(&[NOP, NOP, SACK, 2 + 8 * self.blocks.len() as u8]);
            for (from, to) in &self.blocks {
                put(&from.0.to_be_bytes());
                put(&to.0.to_be_bytes());
            }
        }
        if let Some(fast) = &self.fast_open {
            let own = if fast.experimental { 4 } else { 2 };
            put(&[if fast.experimental { EXPERIMENT } else { FAST_OPEN }, (own + fast.cookie.len()) as u8]);
            if fast.experimental {
                put(&FAST_OPEN_MAGIC);
            }
            put(&fast.cookie);
            put(&[NOP; 3][..fast.len() - own - fast.cookie.len()]);
        }
    }
}

impl Segment {
    /// Reads a header; the payload is left empty. `None` where the header lies about its length.
    pub fn parse(header: &[u8]) -> Option<Segment> {
        let len = header_len(header)?;
        let options = header.get(HEADER..len)?;
        Some(Segment {
            seq: Seq(be32(header, 4)),
            ack: Seq(be32(header, 8)),
            flags: Flags::from_bits_retain(header[13]),
            window: be16(header, 14),
            urgent: be16(header, 18),
            codepoint: 0,
            options: Options::parse(options),
            payload: Rope::new(),
        })
    }

    /// Bytes of the header.
    pub fn header_len(&self) -> usize {
        HEADER + self.options.len()
    }

    /// Writes the header, its checksum zero, into `out`, which has just the room.
    pub fn emit(&self, source: u16, destination: u16, out: &mut [u8]) {
        if out.len() < HEADER {
            return;
        }
        out[..2].copy_from_slice(&source.to_be_bytes());
        out[2..4].copy_from_slice(&destination.to_be_bytes());
        out[4..8].copy_from_slice(&self.seq.0.to_be_bytes());
        out[8..12].copy_from_slice(&self.ack.0.to_be_bytes());
        out[12] = ((out.len() / 4) as u8) << 4;
        out[13] = self.flags.bits();
        out[14..16].copy_from_slice(&self.window.to_be_bytes());
        out[16..18].fill(0);
        out[18..20].copy_from_slice(&self.urgent.to_be_bytes());
        self.options.emit(&mut out[HEADER..]);
    }

    /// Sequence numbers it takes: data, SYN and FIN.
    pub fn span(&self) -> usize {
        let marks = self.flags & (Flags::SYN | Flags::FIN);
        self.payload.len() + marks.bits().count_ones() as usize
    }

    /// The sequence number after it.
    pub fn end(&self) -> Seq {
        self.seq + self.span()
    }

    /// Does it have this flag?
    pub fn has(&self, flag: Flags) -> bool {
        self.flags.contains(flag)
    }

    /// The reset that answers a segment to nowhere (RFC 9293, 3.10.7.1); none to a reset.
    pub fn reset(&self) -> Option<Segment> {
        if self.has(Flags::RST) {
            return None;
        }
        let mut reset = Segment { flags: Flags::RST, ..Segment::default() };
        if self.has(Flags::ACK) {
            reset.seq = self.ack;
        } else {
            reset.ack = self.end();
            reset.flags |= Flags::ACK;
        }
        Some(reset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_opening_by_both_numbers() {
        for (experimental, len) in [(false, 0usize), (false, 8), (false, 16), (true, 0), (true, 8)] {
            let wanted = FastOpen { cookie: (0..len as u8).collect(), experimental };
            let segment = Segment {
                options: Options { fast_open: Some(wanted.clone()), ..Options::default() },
                ..Segment::default()
            };
            let mut bytes = vec![0; segment.header_len()];
            segment.emit(1, 2, &mut bytes);
            assert_eq!(Segment::parse(&bytes).unwrap().options.fast_open, Some(wanted));
        }
    }

    #[test]
    fn headers_come_back_as_they_were_written() {
        let mut options = Options {
            mss: Some(1460),
            scale: Some(7),
            sack_permitted: true,
            timestamps: Some((1, 2)),
            blocks: ArrayVec::new(),
            fast_open: Some(FastOpen { cookie: (0..8).collect(), experimental: false }),
        };
        for with_blocks in [false, true] {
            if with_blocks {
                options = Options { timestamps: Some((7, 8)), ..Options::default() };
                options.blocks.push((Seq(10), Seq(20)));
            }
            let segment = Segment {
                seq: Seq(5),
                ack: Seq(u32::MAX),
                flags: Flags::SYN | Flags::ACK,
                window: 9,
                options: options.clone(),
                ..Segment::default()
            };
            let mut bytes = vec![0; segment.header_len()];
            segment.emit(1, 2, &mut bytes);
            assert_eq!((ports(&bytes), header_len(&bytes)), ((1, 2), Some(bytes.len())));
            let back = Segment::parse(&bytes).unwrap();
            assert_eq!(alloc::format!("{back:?}"), alloc::format!("{segment:?}"));
        }
    }

    #[test]
    fn malformed_options_end_the_parse() {
        for bad in [&[MSS][..], &[MSS, 0], &[MSS, 1, 0], &[TIMESTAMPS, 10, 0], &[99, 200, 1], &[SACK, 11, 0, 0, 0]] {
            let mut header = vec![0; HEADER];
            header.extend_from_slice(bad);
            header.resize(header.len().next_multiple_of(4), 0);
            header[12] = ((header.len() / 4) as u8) << 4;
            assert!(Segment::parse(&header).unwrap().options.is_empty());
        }
        assert!(Segment::parse(&[0; 20]).is_none());
        assert!(Segment::parse(&[0xff; 20]).is_none());
    }
}
