//! Addresses (`struct sockaddr_vm`): a context, which is a machine, and a port.

use alloc::vec::Vec;

use base::{Errno, Result};

use super::AF_VSOCK;

/// VMADDR_CID_ANY and VMADDR_PORT_ANY.
pub(super) const ANY: u32 = u32::MAX;
/// VMADDR_CID_LOCAL.
pub(super) const LOCAL: u32 = 1;
/// VMADDR_CID_HOST.
pub(super) const HOST: u32 = 2;

const SIZE: usize = 16;

/// A port of a context; in order of the ports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Address {
    pub(crate) port: u32,
    pub(crate) cid: u32,
}

impl Address {
    /// No address, or any.
    pub(crate) const UNSPECIFIED: Address = Address { cid: ANY, port: ANY };

    /// From `struct sockaddr_vm`. `EINVAL`.
    pub(super) fn parse(raw: &[u8]) -> Result<Address> {
        const TO_HOST: u8 = 1;
        let raw: &[u8; SIZE] = raw.first_chunk().ok_or(Errno::EINVAL)?;
        let family = u16::from_ne_bytes([raw[0], raw[1]]);
        if i32::from(family) != AF_VSOCK || raw[12] & !TO_HOST != 0 || raw[13..] != [0; 3] {
            return Err(Errno::EINVAL);
        }
        let word = |at: usize| u32::from_ne_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        Ok(Address { cid: word(8), port: word(4) })
    }

    /// As `struct sockaddr_vm`.
    pub(super) fn encode(self) -> Vec<u8> {
        let mut raw = Vec::with_capacity(SIZE);
        raw.extend((AF_VSOCK as u16).to_ne_bytes());
        raw.extend([0; 2]);
        raw.extend(self.port.to_ne_bytes());
        raw.extend(self.cid.to_ne_bytes());
        raw.extend([0; 4]);
        raw
    }

    /// May what is meant for the other address go to who is bound to this one?
    pub(super) fn covers(self, other: Address) -> bool {
        self.port == other.port && (self.cid == other.cid || self.cid == ANY || other.cid == ANY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_their_form() {
        let address = Address { cid: 3, port: 1024 };
        let mut raw = address.encode();
        assert_eq!(Address::parse(&raw), Ok(address));
        assert_eq!(Address::parse(&raw[..15]), Err(Errno::EINVAL));
        raw[12] = 1;
        assert_eq!(Address::parse(&raw), Ok(address));
        raw[15] = 1;
        assert_eq!(Address::parse(&raw), Err(Errno::EINVAL));
        assert!(Address { cid: ANY, port: 7 }.covers(Address { cid: 1, port: 7 }));
        assert!(!Address { cid: 1, port: 7 }.covers(Address { cid: 2, port: 7 }));
    }
}
