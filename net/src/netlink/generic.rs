//! Generic netlink (linux/genetlink.h): the controller, which tells of the families there are, and `tcp_metrics`, what TCP remembers of other machines.

use base::{Errno, Result};

use super::message::{Reply, Request, text_of};
use super::{ip_of, octets};
use crate::netlink::Authority;
use crate::tcp::fast_open;

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

/// The family of what TCP remembers, its requests and attributes.
const METRICS: u16 = 17;
const METRICS_NAME: &str = "tcp_metrics";
const GET: u8 = 1;
const DELETE: u8 = 2;
mod metric {
    pub(super) const ADDRESS_V4: u16 = 1;
    pub(super) const ADDRESS_V6: u16 = 2;
    pub(super) const FAST_OPEN_MSS: u16 = 7;
    pub(super) const FAST_OPEN_COOKIE: u16 = 10;
    pub(super) const SOURCE_V4: u16 = 11;
    pub(super) const SOURCE_V6: u16 = 12;
}

fn family_of_metrics(reply: &mut Reply) {
    reply.message(CONTROLLER, &[NEWFAMILY, 2, 0, 0], |put| {
        put.text(FAMILY_NAME, METRICS_NAME);
        put.half(FAMILY_ID, METRICS);
        put.word(VERSION, 1);
        put.word(HDRSIZE, 0);
        put.word(MAXATTR, 12);
        put.nest(OPS, |put| {
            for (number, (request, flags)) in [(GET, 0xe), (DELETE, 0xb)].into_iter().enumerate() {
                put.nest(number as u16 + 1, |put| {
                    put.word(1, request.into());
                    put.word(2, flags);
                });
            }
        });
    });
}

/// What TCP remembers of other machines: shown, or forgotten. `EPERM`, `EOPNOTSUPP`, `ESRCH`, `EINVAL`.
fn metrics(caller: &Authority, request: &Request, reply: &mut Reply) -> Result<()> {
    request.check_len(HEADER)?;
    let named = request.attribute(HEADER, metric::ADDRESS_V4).or_else(|| request.attribute(HEADER, metric::ADDRESS_V6));
    let named = named.map(ip_of).transpose()?;
    match request.byte(0) {
        GET => {
            for ((local, server), known) in fast_open::all_known() {
                if named.is_some_and(|named| named != server) {
                    continue;
                }
                reply.message(METRICS, &[GET, 1, 0, 0], |put| {
                    let v4 = server.is_ipv4();
                    put.put(if v4 { metric::ADDRESS_V4 } else { metric::ADDRESS_V6 }, &octets(server));
                    put.put(if v4 { metric::SOURCE_V4 } else { metric::SOURCE_V6 }, &octets(local));
                    put.half(metric::FAST_OPEN_MSS, known.mss);
                    put.put(metric::FAST_OPEN_COOKIE, &known.option.cookie);
                });
            }
            Ok(())
        }
        DELETE if !caller.admin => Err(Errno::EPERM),
        DELETE => {
            fast_open::forget(named);
            Ok(())
        }
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// Answers a request. `ENOENT` for families that are not here, `EOPNOTSUPP`, `EINVAL`.
pub(super) fn answer(caller: &Authority, request: &Request, reply: &mut Reply) -> Result<()> {
    if request.header.kind == METRICS {
        return metrics(caller, request, reply);
    }
    if request.header.kind != CONTROLLER {
        return Err(Errno::ENOENT);
    }
    request.check_len(HEADER)?;
    if request.byte(0) != GETFAMILY {
        return Err(Errno::EOPNOTSUPP);
    }
    let mut shown = [true, true];
    if !request.is_dump() {
        let by_name = request.attribute(HEADER, FAMILY_NAME).map(text_of).transpose()?;
        let by_number = request.attribute(HEADER, FAMILY_ID).and_then(|raw| raw.first_chunk::<2>());
        let number = by_number.map(|raw| u16::from_ne_bytes(*raw));
        shown = match (by_name, number) {
            (Some("nlctrl"), _) | (None, Some(CONTROLLER)) => [true, false],
            (Some(METRICS_NAME), _) | (None, Some(METRICS)) => [false, true],
            (None, None) => return Err(Errno::EINVAL),
            _ => return Err(Errno::ENOENT),
        };
    }
    if shown[1] {
        family_of_metrics(reply);
    }
    if !shown[0] {
        return Ok(());
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
