//! Tables of sockets for `ss` (sock_diag(7)): Internet sockets in [`inet`], all others in [`local`].

mod filter;
pub(crate) mod inet;
mod local;

use base::{Errno, Result};

use super::message::{Reply, Request};
use crate::netlink::Authority;

const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
const TCP_OLD: u16 = 18;
const DCCP_OLD: u16 = 19;
const AF_UNIX: u8 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const AF_NETLINK: u8 = 16;
const AF_PACKET: u8 = 17;
const AF_VSOCK: u8 = 40;

/// Answers a request. `EINVAL`, `ENOENT`, `EOPNOTSUPP`, `EPERM`.
pub(super) fn answer(caller: &Authority, request: &Request, reply: &mut Reply) -> Result<()> {
    match request.header.kind {
        BY_FAMILY | DESTROY => {}
        // How TCP's and DCCP's sockets were asked for before there were families.
        TCP_OLD | DCCP_OLD => return Err(Errno::ENOENT),
        _ => return Err(Errno::EINVAL),
    }
    request.check_len(2)?;
    let destroy = request.header.kind == DESTROY;
    match request.byte(0) {
        AF_INET | AF_INET6 => inet::answer(caller, request, reply, destroy),
        _ if destroy => Err(Errno::EOPNOTSUPP),
        AF_UNIX => local::unix(request, reply),
        AF_NETLINK => local::netlink(request, reply),
        AF_PACKET => local::packet(request, reply),
        AF_VSOCK => local::vsock(request, reply),
        _ => Err(Errno::ENOENT),
    }
}

/// What stands for a socket besides its number: the low and the high half of its inode's, so that it never names another one.
fn cookie(inode: u64) -> [u8; 8] {
    (inode | 1 << 63).to_ne_bytes()
}

/// `struct sk_meminfo`'s numbers: what is received and its limit, what is sent and its limit, the rest zero.
fn memory(received: usize, receive_limit: usize, sent: usize, send_limit: usize) -> alloc::vec::Vec<u8> {
    let words = [received, receive_limit, sent, send_limit, 0, sent, 0, 0, 0];
    words.iter().flat_map(|word| (*word as u32).to_ne_bytes()).collect()
}
