//! `struct sockaddr_un`.

use alloc::vec::Vec;

use base::{Errno, Result};

use crate::AF_UNIX;

/// Bytes of `sun_path`.
const PATH_LEN: usize = 108;

/// An address as a program gives it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Address {
    /// The family alone: bind(2) chooses an abstract name.
    Unnamed,
    /// A path, without its NUL.
    Path(Vec<u8>),
    /// A name that is not in the file system, without its leading NUL.
    Abstract(Vec<u8>),
}

impl Address {
    /// Reads a `struct sockaddr_un`. `EINVAL` for wrong lengths, or a wrong family where `bind` is set (else `EAFNOSUPPORT` is for
    /// the caller to tell).
    pub(super) fn parse(raw: &[u8]) -> Result<Address> {
        let (family, path) = raw.split_first_chunk::<2>().ok_or(Errno::EINVAL)?;
        if i32::from(u16::from_ne_bytes(*family)) != AF_UNIX || path.len() > PATH_LEN {
            return Err(Errno::EINVAL);
        }
        Ok(match path {
            [] => Address::Unnamed,
            [0, name @ ..] => Address::Abstract(name.to_vec()),
            path => {
                let end = path.iter().position(|&b| b == 0).unwrap_or(path.len());
                Address::Path(path[..end].to_vec())
            }
        })
    }

    /// As `struct sockaddr_un`; a path with its NUL.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut raw = (AF_UNIX as u16).to_ne_bytes().to_vec();
        match self {
            Address::Unnamed => {}
            Address::Path(path) => {
                raw.extend_from_slice(path);
                raw.push(0);
            }
            Address::Abstract(name) => {
                raw.push(0);
                raw.extend_from_slice(name);
            }
        }
        raw
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_survive_a_round_trip() {
        assert_eq!(Address::parse(b"\x01\0"), Ok(Address::Unnamed));
        assert_eq!(Address::parse(b"\x01\0/run/x\0rest"), Ok(Address::Path(b"/run/x".to_vec())));
        assert_eq!(Address::parse(b"\x01\0\0a\0b"), Ok(Address::Abstract(b"a\0b".to_vec())));
        assert_eq!(Address::Path(b"/x".to_vec()).encode(), b"\x01\0/x\0");
        assert_eq!(Address::Abstract(b"a\0b".to_vec()).encode(), b"\x01\0\0a\0b");
    }

    #[test]
    fn wrong_lengths_and_families_are_refused() {
        assert_eq!(Address::parse(b"\x01"), Err(Errno::EINVAL));
        assert_eq!(Address::parse(b"\x02\0abc"), Err(Errno::EINVAL));
        let mut long = b"\x01\0".to_vec();
        long.resize(111, b'x');
        assert_eq!(Address::parse(&long), Err(Errno::EINVAL));
    }
}
