//! Netlink messages and their attributes (RFC 3549).

use alloc::vec::Vec;

use base::{Errno, Result};

/// Bytes of `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
pub(super) const NLM_F_REQUEST: u16 = 1;
const NLM_F_MULTI: u16 = 2;
const NLM_F_ACK: u16 = 4;
/// NLM_F_ROOT or NLM_F_MATCH.
const NLM_F_DUMP: u16 = 0x300;
/// The most bytes of answers that travel together.
const LUMP: usize = 3500;

/// `struct nlmsghdr`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) len: usize,
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) seq: u32,
}

/// A request.
pub(super) struct Request<'a> {
    pub(super) header: Header,
    raw: &'a [u8],
    /// What follows the header.
    pub(super) body: &'a [u8],
}

impl<'a> Request<'a> {
    /// The first message, and what follows it. `None` where there is no whole one.
    pub(super) fn parse(data: &'a [u8]) -> Option<(Request<'a>, &'a [u8])> {
        let raw: &[u8; HEADER] = data.first_chunk()?;
        let half = |at: usize| u16::from_ne_bytes([raw[at], raw[at + 1]]);
        let word = |at: usize| u32::from_ne_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let header = Header { len: word(0) as usize, kind: half(4), flags: half(6), seq: word(8) };
        let body = data.get(HEADER..header.len)?;
        let next = data.get(header.len.next_multiple_of(4)..).unwrap_or_default();
        Some((Request { header, raw: &data[..header.len], body }, next))
    }

    pub(super) fn is_request(&self) -> bool {
        self.header.flags & NLM_F_REQUEST != 0 && self.header.kind >= 16
    }

    pub(super) fn is_dump(&self) -> bool {
        self.header.flags & NLM_F_DUMP == NLM_F_DUMP
    }

    /// A byte of the fixed part; 0 where it is shorter.
    pub(super) fn byte(&self, at: usize) -> u8 {
        self.body.get(at).copied().unwrap_or(0)
    }

    /// A word of the fixed part; 0 where it is shorter.
    pub(super) fn word(&self, at: usize) -> u32 {
        self.body.get(at..at + 4).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// The attribute of that type, after a fixed part of `fixed` bytes.
    pub(super) fn attribute(&self, fixed: usize, kind: u16) -> Option<&'a [u8]> {
        const TYPE_MASK: u16 = 0x3fff;
        let mut rest = self.body.get(fixed..)?;
        while let Some(&[a, b, c, d]) = rest.first_chunk::<4>() {
            let len = usize::from(u16::from_ne_bytes([a, b]));
            let data = rest.get(4..len)?;
            if u16::from_ne_bytes([c, d]) & TYPE_MASK == kind {
                return Some(data);
            }
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        None
    }

    /// An attribute that is a word.
    pub(super) fn attribute_word(&self, fixed: usize, kind: u16) -> Option<u32> {
        self.attribute(fixed, kind)?.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b))
    }
}

/// The answers to a request.
pub(super) struct Reply {
    seq: u32,
    port: u32,
    messages: Vec<Vec<u8>>,
}

impl Reply {
    pub(super) fn new(seq: u32, port: u32) -> Reply {
        Reply { seq, port, messages: Vec::new() }
    }

    /// Adds a message: its type, the fixed part, and attributes that `fill` puts.
    pub(super) fn message(&mut self, kind: u16, fixed: &[u8], fill: impl FnOnce(&mut Attributes)) {
        let mut attributes = Attributes(fixed.to_vec());
        fill(&mut attributes);
        self.messages.push(build(kind, 0, self.seq, self.port, &attributes.0));
    }

    /// All datagrams to queue, with the end of a dump or the acknowledgement that was asked for.
    pub(super) fn finish(mut self, request: &Request, result: Result<()>) -> Vec<Vec<u8>> {
        let dump = request.is_dump() && result.is_ok();
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
            body.extend_from_slice(if code == 0 { &request.raw[..HEADER] } else { request.raw });
            self.messages.push(build(NLMSG_ERROR, 0, self.seq, self.port, &body));
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
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    /// Adds one.
    pub(super) fn put(&mut self, kind: u16, data: &[u8]) {
        let start = self.0.len().next_multiple_of(4);
        self.0.resize(start, 0);
        self.0.extend_from_slice(&((4 + data.len()) as u16).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// Adds a word.
    pub(super) fn word(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_ne_bytes());
    }

    /// Adds a byte.
    pub(super) fn byte(&mut self, kind: u16, value: u8) {
        self.put(kind, &[value]);
    }

    /// Adds a text with its NUL.
    pub(super) fn text(&mut self, kind: u16, text: &str) {
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
