//! Generic netlink (RFC-less; linux/genetlink.h): the controller, which tells of the families there are. There is only its own.

use base::{Errno, Result};

use super::message::{Reply, Request, text_of};
use crate::netlink::Authority;

const CONTROLLER: u16 = 16;
const NEWFAMILY: u8 = 1;
const GETFAMILY: u8 = 3;
/// Bytes of `struct genlmsghdr`.
const HEADER: usize = 4;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const VERSION: u16 = 3;
const HDRSIZE: u16 = 4;
const MAXATTR: u16 = 5;
const OPS: u16 = 6;
const MCAST_GROUPS: u16 = 7;

/// Answers a request. `ENOENT` for families that are not here, `EOPNOTSUPP`, `EINVAL`.
pub(super) fn answer(_caller: &Authority, request: &Request, reply: &mut Reply) -> Result<()> {
    if request.header.kind != CONTROLLER {
        return Err(Errno::ENOENT);
    }
    request.check_len(HEADER)?;
    if request.byte(0) != GETFAMILY {
        return Err(Errno::EOPNOTSUPP);
    }
    if !request.is_dump() {
        let by_name = request.attribute(HEADER, FAMILY_NAME).map(text_of).transpose()?;
        let by_number = request.attribute(HEADER, FAMILY_ID).and_then(|raw| raw.first_chunk::<2>());
        match (by_name, by_number) {
            (Some("nlctrl"), _) => {}
            (None, Some(number)) if *number == CONTROLLER.to_ne_bytes() => {}
            (None, None) => return Err(Errno::EINVAL),
            _ => return Err(Errno::ENOENT),
        }
    }
    reply.message(CONTROLLER, &[NEWFAMILY, 2, 0, 0], |put| {
        put.text(FAMILY_NAME, "nlctrl");
        put.half(FAMILY_ID, CONTROLLER);
        put.word(VERSION, 2);
        put.word(HDRSIZE, 0);
        put.word(MAXATTR, 10);
        put.nest(OPS, |put| {
            put.nest(1, |put| {
                put.word(1, GETFAMILY.into());
                // It can be asked for one and for all.
                put.word(2, 0xe);
            });
        });
        put.nest(MCAST_GROUPS, |put| {
            put.nest(1, |put| {
                put.word(2, 16);
                put.text(1, "notify");
            });
        });
    });
    Ok(())
}
