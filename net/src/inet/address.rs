//! Addresses of Internet sockets: `struct sockaddr_in` and `struct sockaddr_in6`.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base::{Errno, Result};

/// AF_UNSPEC.
pub const AF_UNSPEC: u16 = 0;
/// AF_INET.
pub const AF_INET: u16 = 2;
/// AF_INET6.
pub const AF_INET6: u16 = 10;

/// The family of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// AF_INET.
    V4,
    /// AF_INET6.
    V6,
}

/// An address and a port. IPv4 addresses of IPv6 sockets are plain IPv4 here; only [`Endpoint::encode`] shows them mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Endpoint {
    /// The address.
    pub ip: IpAddr,
    /// The port (or protocol, for raw sockets).
    pub port: u16,
    /// The interface of a link-local address; 0 for none.
    pub scope: u32,
}

impl Family {
    /// Its number.
    pub fn number(self) -> i32 {
        i32::from(match self {
            Family::V4 => AF_INET,
            Family::V6 => AF_INET6,
        })
    }

    /// The address that stands for any.
    pub fn any(self) -> IpAddr {
        match self {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}

/// The family that an address names. `EINVAL` if it is too short.
pub fn family_of(raw: &[u8]) -> Result<u16> {
    raw.first_chunk::<2>().map(|b| u16::from_ne_bytes(*b)).ok_or(Errno::EINVAL)
}

/// An IPv4 address inside an IPv6 one as itself.
pub fn unmap(v6: Ipv6Addr) -> IpAddr {
    v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
}

impl Endpoint {
    /// Any address of a family, no port.
    pub fn any(family: Family) -> Endpoint {
        Endpoint { ip: family.any(), port: 0, scope: 0 }
    }

    /// An address and a port.
    pub fn new(ip: IpAddr, port: u16) -> Endpoint {
        Endpoint { ip, port, scope: 0 }
    }

    /// Reads a socket address for a socket of that family. `EINVAL`, `EAFNOSUPPORT`.
    pub fn parse(raw: &[u8], family: Family) -> Result<Endpoint> {
        let named = family_of(raw)?;
        let port = raw.get(2..4).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
        match (named, family) {
            (AF_INET, _) => {
                if raw.len() < 16 {
                    return Err(Errno::EINVAL);
                }
                Ok(Endpoint::new(Ipv4Addr::new(raw[4], raw[5], raw[6], raw[7]).into(), port))
            }
            (AF_INET6, Family::V6) => {
                // The scope came later: 24 bytes will do.
                let octets: [u8; 16] = raw.get(8..24).and_then(|b| b.try_into().ok()).ok_or(Errno::EINVAL)?;
                let scope = raw.get(24..28).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
                Ok(Endpoint { ip: unmap(octets.into()), port, scope })
            }
            _ if raw.len() < 16 => Err(Errno::EINVAL),
            _ => Err(Errno::EAFNOSUPPORT),
        }
    }

    /// As a socket address for a socket of that family.
    pub fn encode(&self, family: Family) -> Vec<u8> {
        let mut out = Vec::with_capacity(28);
        out.extend_from_slice(&(family.number() as u16).to_ne_bytes());
        out.extend_from_slice(&self.port.to_be_bytes());
        match (family, self.ip) {
            (Family::V4, IpAddr::V4(v4)) => {
                out.extend_from_slice(&v4.octets());
                out.extend_from_slice(&[0; 8]);
            }
            (Family::V4, IpAddr::V6(_)) => out.extend_from_slice(&[0; 12]),
            (Family::V6, ip) => {
                let v6 = match ip {
                    IpAddr::V6(v6) => v6,
                    IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                };
                out.extend_from_slice(&[0; 4]);
                out.extend_from_slice(&v6.octets());
                out.extend_from_slice(&self.scope.to_ne_bytes());
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back() {
        let v4 = Endpoint::new(Ipv4Addr::LOCALHOST.into(), 80);
        let v6 = Endpoint { ip: Ipv6Addr::LOCALHOST.into(), port: 443, scope: 3 };
        assert_eq!(v4.encode(Family::V4), [2, 0, 0, 80, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Endpoint::parse(&v4.encode(Family::V4), Family::V4), Ok(v4));
        assert_eq!(Endpoint::parse(&v4.encode(Family::V6), Family::V6), Ok(v4), "mapped");
        assert_eq!(Endpoint::parse(&v6.encode(Family::V6), Family::V6), Ok(v6));
        assert_eq!(Endpoint::parse(&v6.encode(Family::V6), Family::V4), Err(Errno::EAFNOSUPPORT));
        assert_eq!(Endpoint::parse(&[2, 0, 0, 80], Family::V4), Err(Errno::EINVAL));
        assert_eq!(Endpoint::parse(&[], Family::V4), Err(Errno::EINVAL));
    }
}
