//! Netlink messages and their attributes (RFC 3549).

use alloc::vec::Vec;

use base::{Errno, Result};

/// Bytes of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_MULTI: u16 = 2;
const NLM_F_ACK: u16 = 4;
/// The request is not quoted whole.
const NLM_F_CAPPED: u16 = 0x100;
/// What a request for something new says of what there is.
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;
/// NLM_F_ROOT and NLM_F_MATCH.
const NLM_F_DUMP: u16 = 0x300;
/// The most bytes of answers that travel together.
const LUMP: usize = 3500;

/// `struct nlmsghdr`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) len: usize,
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) seq: u32,
}

/// A request.
pub(crate) struct Request<'a> {
    pub(crate) header: Header,
    raw: &'a [u8],
    /// What follows the header.
    pub(crate) body: &'a [u8],
}

impl<'a> Request<'a> {
    /// The first message, and what follows it. `None` where there is no whole one.
    pub(crate) fn parse(data: &'a [u8]) -> Option<(Request<'a>, &'a [u8])> {
        let raw: &[u8; HEADER] = data.first_chunk()?;
        let half = |at: usize| u16::from_ne_bytes([raw[at], raw[at + 1]]);
        let word = |at: usize| u32::from_ne_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let header = Header { len: word(0) as usize, kind: half(4), flags: half(6), seq: word(8) };
        let body = data.get(HEADER..header.len)?;
        let next = data.get(header.len.next_multiple_of(4)..).unwrap_or_default();
        Some((Request { header, raw: &data[..header.len], body }, next))
    }

    pub(crate) fn is_request(&self) -> bool {
        self.header.flags & NLM_F_REQUEST != 0 && self.header.kind >= 16
    }

    pub(crate) fn is_dump(&self) -> bool {
        self.header.flags & NLM_F_DUMP == NLM_F_DUMP
    }

    /// A byte of the fixed part; 0 where it is shorter.
    pub(crate) fn byte(&self, at: usize) -> u8 {
        self.body.get(at).copied().unwrap_or(0)
    }

    /// A word of the fixed part; 0 where it is shorter.
    pub(crate) fn word(&self, at: usize) -> u32 {
        self.body.get(at..at + 4).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// Has it this flag (or all of these)?
    pub(crate) fn has(&self, flags: u16) -> bool {
        self.header.flags & flags == flags
    }

    /// The attributes after a fixed part of `fixed` bytes.
    pub(crate) fn attributes(&self, fixed: usize) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        attributes_of(self.body.get(fixed..).unwrap_or_default())
    }

    /// The attribute of that type, after a fixed part of `fixed` bytes.
    pub(crate) fn attribute(&self, fixed: usize, kind: u16) -> Option<&'a [u8]> {
        // The last one counts, as in Linux's tables of attributes.
        self.attributes(fixed).filter(|(k, _)| *k == kind).last().map(|(_, data)| data)
    }

    /// Are there at least as many bytes of the fixed part? `EINVAL`.
    pub(crate) fn check_len(&self, fixed: usize) -> Result<()> {
        if self.body.len() < fixed { Err(Errno::EINVAL) } else { Ok(()) }
    }

    /// An attribute that is a word.
    pub(crate) fn attribute_word(&self, fixed: usize, kind: u16) -> Option<u32> {
        self.attribute(fixed, kind)?.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b))
    }
}

/// The attributes in a part of a message: type (without flags) and data.
pub(crate) fn attributes_of(data: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const TYPE_MASK: u16 = 0x3fff;
    let mut rest = data;
    core::iter::from_fn(move || {
        let &[a, b, c, d] = rest.first_chunk::<4>()?;
        let len = usize::from(u16::from_ne_bytes([a, b]));
        let data = rest.get(4..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & TYPE_MASK, data))
    })
}

/// The attribute of that type in a part of a message.
pub(crate) fn attribute_in(data: &[u8], kind: u16) -> Option<&[u8]> {
    attributes_of(data).find(|(k, _)| *k == kind).map(|(_, data)| data)
}

/// A number of four bytes. `EINVAL`.
pub(crate) fn word_of(data: &[u8]) -> Result<u32> {
    data.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b)).ok_or(Errno::EINVAL)
}

/// A text up to its NUL. `EINVAL` where it is no UTF-8.
pub(crate) fn text_of(data: &[u8]) -> Result<&str> {
    core::str::from_utf8(data.split(|&b| b == 0).next().unwrap_or_default()).map_err(|_| Errno::EINVAL)
}

/// A message that nobody asked for.
pub(crate) fn notification(kind: u16, fixed: &[u8], fill: impl FnOnce(&mut Attributes)) -> Vec<u8> {
    let mut attributes = Attributes(fixed.to_vec());
    fill(&mut attributes);
    build(kind, 0, 0, 0, &attributes.0)
}

/// The answers to a request.
pub(crate) struct Reply {
    seq: u32,
    port: u32,
    messages: Vec<Vec<u8>>,
    /// Acknowledgements don't quote the request (NETLINK_CAP_ACK).
    pub(crate) capped: bool,
    /// NETLINK_GET_STRICT_CHK.
    pub(crate) strict: bool,
    /// The answers are a dump even though the flags don't say so.
    pub(crate) many: bool,
}

impl Reply {
    pub(crate) fn new(seq: u32, port: u32) -> Reply {
        Reply { seq, port, messages: Vec::new(), capped: false, strict: false, many: false }
    }

    /// Adds a message: its type, the fixed part, and attributes that `fill` puts.
    pub(crate) fn message(&mut self, kind: u16, fixed: &[u8], fill: impl FnOnce(&mut Attributes)) {
        let mut attributes = Attributes(fixed.to_vec());
        fill(&mut attributes);
        self.messages.push(build(kind, 0, self.seq, self.port, &attributes.0));
    }

    /// All datagrams to queue, with the end of a dump or the acknowledgement that was asked for.
    pub(crate) fn finish(mut self, request: &Request, result: Result<()>) -> Vec<Vec<u8>> {
        let dump = (request.is_dump() || self.many) && result.is_ok();
        if dump {
            for message in &mut self.messages {
                message[6] |= NLM_F_MULTI as u8;
            }
            let mut done = build(NLMSG_DONE, NLM_F_MULTI, self.seq, self.port, &0i32.to_ne_bytes());
            done.resize(done.len().next_multiple_of(4), 0);
            self.messages.push(done);
        } else if result.is_err() || request.header.flags & NLM_F_ACK != 0 {
            let code = result.err().map_or(0, |error: Errno| -error.code());
            let mut body = code.to_ne_bytes().to_vec();
            // An error quotes the whole request, an acknowledgement its header.
            let short = code == 0 || self.capped;
            body.extend_from_slice(if short { &request.raw[..HEADER] } else { request.raw });
            let flags = if short { NLM_F_CAPPED } else { 0 };
            self.messages.push(build(NLMSG_ERROR, flags, self.seq, self.port, &body));
        }
        let mut lumps: Vec<Vec<u8>> = Vec::new();
        for message in self.messages {
            match lumps.last_mut() {
                Some(lump)
                    if dump && lump.len() + message.len() <= LUMP && message[4..6] != NLMSG_DONE.to_ne_bytes() =>
                {
                    lump.extend_from_slice(&message);
                }
                _ => lumps.push(message),
            }
        }
        lumps
    }
}

fn build(kind: u16, flags: u16, seq: u32, port: u32, body: &[u8]) -> Vec<u8> {
    let len = HEADER + body.len();
    let mut out = Vec::with_capacity(len.next_multiple_of(4));
    out.extend_from_slice(&(len as u32).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&flags.to_ne_bytes());
    out.extend_from_slice(&seq.to_ne_bytes());
    out.extend_from_slice(&port.to_ne_bytes());
    out.extend_from_slice(body);
    out.resize(len.next_multiple_of(4), 0);
    out
}

/// Attributes in the making, after the fixed part.
#[derive(Default)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    /// Adds one.
    pub(crate) fn put(&mut self, kind: u16, data: &[u8]) {
        let start = self.0.len().next_multiple_of(4);
        self.0.resize(start, 0);
        self.0.extend_from_slice(&((4 + data.len()) as u16).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// What there is of them.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Adds one that contains others.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes)) {
        let mut inside = Attributes::default();
        fill(&mut inside);
        self.put(kind, &inside.0);
    }

    /// Adds a half-word.
    pub(crate) fn half(&mut self, kind: u16, value: u16) {
        self.put(kind, &value.to_ne_bytes());
    }

    /// Adds a word.
    pub(crate) fn word(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_ne_bytes());
    }

    /// Adds a byte.
    pub(crate) fn byte(&mut self, kind: u16, value: u8) {
        self.put(kind, &[value]);
    }

    /// Adds a text with its NUL.
    pub(crate) fn text(&mut self, kind: u16, text: &str) {
        self.put(kind, &[text.as_bytes(), b"\0"].concat());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_their_attributes() {
        let mut body = Attributes(vec![7; 4]);
        body.word(3, 99);
        body.text(4, "lo");
        let raw = build(20, NLM_F_REQUEST | NLM_F_ACK, 5, 0, &body.0);
        let two = [&raw[..], &raw[..]].concat();
        let (request, rest) = Request::parse(&two).unwrap();
        assert_eq!(
            (rest.len(), request.attribute_word(4, 3), request.attribute(4, 4)),
            (raw.len(), Some(99), Some(&b"lo\0"[..]))
        );
        assert!(request.is_request() && !request.is_dump() && request.attribute(4, 9).is_none());
        for cut in 0..raw.len() {
            assert!(Request::parse(&raw[..cut]).is_none_or(|(r, _)| r.body.len() <= cut));
        }
        let answers = Reply::new(5, 1).finish(&request, Err(Errno::ENODEV));
        assert_eq!(answers[0][16..20], (-19i32).to_ne_bytes());
    }
}
