//! Options of sockets of whole messages: those of udp(7), UDP-Lite and raw(7), and what they share with all Internet sockets.

use alloc::vec::Vec;

use base::{Errno, Result};

use super::datagram::{DatagramSocket, Flavour};
use super::options::{IP_MTU, SOL_IP, SOL_IPV6, Setter, word};
use super::{Family, multicast, steering};
use crate::options::level;
use crate::socket::{Caller, Socket};

impl DatagramSocket {
    /// Sets an option of the network layer or the protocol; `None` where it is none of theirs.
    pub(super) fn set_own_option(&self, caller: &Caller, at: i32, name: i32, value: &[u8]) -> Option<Result<()>> {
        const SOL_UDP: i32 = 17;
        const SOL_RAW: i32 = 255;
        const SOL_UDPLITE: i32 = 136;
        const SOL_ICMPV6: i32 = 58;
        const SO_NO_CHECK: i32 = 11;
        const IPV6_CHECKSUM: i32 = 7;
        match (at, self.flavour) {
            (SOL_RAW, Flavour::Raw(_)) if name == IPV6_CHECKSUM && self.family == Family::V6 => {
                return Some(self.settings.lock().set_v6(IPV6_CHECKSUM, value));
            }
            (SOL_UDP, Flavour::Udp | Flavour::UdpLite) => return Some(self.set_udp(name, value)),
            (SOL_UDPLITE, Flavour::UdpLite) => return Some(self.set_coverage(name, value)),
            (SOL_RAW | SOL_ICMPV6, Flavour::Raw(_)) if name == 1 => {
                return Some(word(value).map(|bits| self.settings.lock().filter = bits as u32));
            }
            (level::SOL_SOCKET, _) if name == SO_NO_CHECK => {
                return Some(word(value).map(|on| self.state.lock().no_checksum = on != 0));
            }
            _ => {}
        }
        if multicast::is_one(at, name) {
            if at == SOL_IPV6 && self.family == Family::V4 {
                return Some(Err(Errno::ENOPROTOOPT));
            }
            let result = self.memberships.lock().set(at, name, value);
            crate::backlog::run();
            return Some(result);
        }
        let bound = self.state.lock().binding.is_some();
        if let Some(result) = steering::set_option(&self.options, bound, at, name, value) {
            return Some(result);
        }
        self.settings.lock().set(self.family, at, name, value, Setter::new(caller, self.kind(), bound))
    }

    /// An option of the network layer or the protocol.
    pub(super) fn own_option(&self, at: i32, name: i32) -> Option<Result<Vec<u8>>> {
        const SOL_UDP: i32 = 17;
        const UDP_CORK: i32 = 1;
        const UDP_SEGMENT: i32 = 103;
        const UDP_GRO: i32 = 104;
        const SOL_UDPLITE: i32 = 136;
        const SO_NO_CHECK: i32 = 11;
        let state = self.state.lock();
        let number = |n: i32| Some(Ok(n.to_ne_bytes().to_vec()));
        match (at, name) {
            (SOL_UDP, UDP_CORK) if self.flavour.is_udp() => number(state.corked.into()),
            (SOL_UDP, UDP_SEGMENT) if self.flavour.is_udp() => number(state.segment.into()),
            (SOL_UDP, UDP_GRO) if self.flavour.is_udp() => number(state.lumps.into()),
            (SOL_UDPLITE, 10 | 11) if self.flavour == Flavour::UdpLite => {
                number(state.coverage[(name - 10) as usize].into())
            }
            (level::SOL_SOCKET, SO_NO_CHECK) => number(state.no_checksum.into()),
            (SOL_IP, IP_MTU) | (SOL_IPV6, 24) => match &state.path {
                Some(path) => number(path.mtu() as i32),
                None => Some(Err(Errno::ENOTCONN)),
            },
            _ => {
                drop(state);
                self.settings.lock().get(self.family, at, name)
            }
        }
    }

    /// UDPLITE_SEND_CSCOV (10) and UDPLITE_RECV_CSCOV (11).
    fn set_coverage(&self, name: i32, value: &[u8]) -> Result<()> {
        let bytes = word(value)?;
        let index = match name {
            10 => 0,
            11 => 1,
            _ => return Err(Errno::ENOPROTOOPT),
        };
        // What is less than the header counts as just the header.
        let bytes = if bytes != 0 { bytes.clamp(8, 0xffff) } else { 0 };
        self.state.lock().coverage[index] = bytes as u16;
        Ok(())
    }

    fn set_udp(&self, name: i32, value: &[u8]) -> Result<()> {
        const UDP_CORK: i32 = 1;
        const UDP_SEGMENT: i32 = 103;
        const UDP_GRO: i32 = 104;
        let value = word(value)?;
        match name {
            UDP_CORK => {
                self.state.lock().corked = value != 0;
                if value == 0 { self.uncork() } else { Ok(()) }
            }
            UDP_SEGMENT => {
                self.state.lock().segment = u16::try_from(value).map_err(|_| Errno::EINVAL)?;
                Ok(())
            }
            UDP_GRO => {
                self.state.lock().lumps = value != 0;
                Ok(())
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }
}
