//! The Internet checksum (RFC 1071).

use core::net::IpAddr;

use crate::packet::Rope;

/// A sum in the making.
#[derive(Clone, Copy, Default)]
pub struct Sum {
    total: u64,
    /// The next byte is the second of a pair.
    odd: bool,
}

impl Sum {
    /// Adds bytes, which continue those before.
    pub fn add(&mut self, mut bytes: &[u8]) {
        if self.odd && !bytes.is_empty() {
            self.total += u64::from(bytes[0]);
            self.odd = false;
            bytes = &bytes[1..];
        }
        let mut chunks = bytes.chunks_exact(4);
        for chunk in &mut chunks {
            self.total += u64::from(u32::from_be_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]));
        }
        let mut pairs = chunks.remainder().chunks_exact(2);
        for pair in &mut pairs {
            self.total += u64::from(u16::from_be_bytes([pair[0], pair[1]]));
        }
        if let [last] = pairs.remainder() {
            self.total += u64::from(*last) << 8;
            self.odd = true;
        }
    }

    /// Adds a 16-bit number.
    pub fn add16(&mut self, value: u16) {
        self.total += u64::from(value);
    }

    /// Adds a rope.
    pub fn add_rope(&mut self, rope: &Rope) {
        rope.for_each_chunk(|bytes| self.add(bytes));
    }

    /// The sum folded to 16 bits, not complemented.
    pub fn folded(self) -> u16 {
        let mut sum = self.total;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    /// The checksum.
    pub fn finish(self) -> u16 {
        !self.folded()
    }

    /// The sum of a pseudo-header.
    pub fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> Sum {
        let mut sum = Sum::default();
        for address in [source, destination] {
            match address {
                IpAddr::V4(v4) => sum.add(&v4.octets()),
                IpAddr::V6(v6) => sum.add(&v6.octets()),
            }
        }
        sum.add16(protocol.into());
        sum.total += len as u64;
        sum
    }
}

/// The checksum of bytes.
pub fn of(bytes: &[u8]) -> u16 {
    let mut sum = Sum::default();
    sum.add(bytes);
    sum.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_1071_example_and_odd_joints() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(of(&bytes), !0xddf2);
        for cut in 0..bytes.len() {
            let mut sum = Sum::default();
            sum.add(&bytes[..cut]);
            sum.add(&bytes[cut..]);
            assert_eq!(sum.finish(), !0xddf2, "cut at {cut}");
        }
    }
}
