//! The loopback interface, which is down when Linux starts.

use rustix::io::Result;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, sendto, socket_with};

/// rtnetlink(7): change a link.
const RTM_NEWLINK: u16 = 16;
const NLM_F_REQUEST: u16 = 1;
const IFF_UP: u32 = 1;
/// Linux's loopback interface is always the first.
const LOOPBACK: i32 = 1;

/// Switches the interface on. A kernel that has no network, or where it is on, needs nothing.
pub(crate) fn set_up() {
    let _ = switch_on();
}

fn switch_on() -> Result<()> {
    // Protocol 0 is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let kernel = SocketAddrNetlink::new(0, 0);
    sendto(socket, &request(), SendFlags::empty(), &kernel).map(drop)
}

/// A netlink header and a `struct ifinfomsg`.
fn request() -> Vec<u8> {
    let mut message = Vec::with_capacity(32);
    message.extend(32u32.to_ne_bytes());
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence number and port: nobody reads an answer. Then family, padding and type: any.
    message.extend([0; 12]);
    message.extend(LOOPBACK.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_as_long_as_it_says() {
        let message = request();
        assert_eq!(message.len(), 32);
        assert_eq!(message[20..24], 1i32.to_ne_bytes());
    }
}
