//! SYN cookies (RFC 4987, 3.6): where too many connections are half open, the answer's sequence number carries what has to be remembered, so nothing
//! is. Timestamps carry the options that do not fit.

use base::{NANOS_PER_SEC, Nanos};

use super::connection::Agreed;
use super::seq::Seq;
use super::table::End;
use crate::hash::{Keyed, of_pair};

/// Segment sizes that a cookie can name.
const SIZES: [u16; 8] = [64, 512, 536, 1024, 1300, 1440, 1460, 8960];
/// A cookie counts for so many periods of 64 seconds.
const PERIODS: u32 = 2;
const PERIOD: Nanos = 64 * NANOS_PER_SEC;

fn mac(local: End, remote: End, irs: Seq, period: u32) -> u32 {
    let mut hash = Keyed::new();
    hash.word(of_pair(local, remote, 3));
    hash.word(u64::from(irs.0) << 32 | u64::from(period));
    // The lower three bits are the size's.
    hash.value() as u32 & !7
}

/// The sequence number for the answer to a SYN. 24 bits of it prove that it is ours.
pub(super) fn make(now: Nanos, local: End, remote: End, irs: Seq, mss: u16) -> Seq {
    let period = (now / PERIOD) as u32;
    let size = SIZES.iter().rposition(|&size| size <= mss).unwrap_or(0) as u32;
    // The period's last bits go along so that only one has to be tried.
    let tag = (period % 4) << 3;
    Seq(mac(local, remote, irs, period) & !0x1f | tag | size)
}

/// The segment size of the SYN that this acknowledgement belongs to; `None` if it is no cookie of ours.
pub(super) fn check(now: Nanos, local: End, remote: End, irs: Seq, iss: Seq) -> Option<u16> {
    let current = (now / PERIOD) as u32;
    let period = (0..PERIODS).map(|back| current.wrapping_sub(back)).find(|p| p % 4 == iss.0 >> 3 & 3)?;
    let right = mac(local, remote, irs, period) & !0x1f == iss.0 & !0x1f;
    right.then(|| SIZES[(iss.0 & 7) as usize])
}

/// Packs the options that the SYN had into the lower bits of a timestamp.
pub(super) fn stamp(base: u32, agreed: &Agreed) -> u32 {
    let scale = u32::from(agreed.scale.map_or(15, |scale| scale.min(14)));
    // A little in the past, so that later ones are not before it.
    base.wrapping_sub(64) & !0x3f | u32::from(agreed.sack) << 4 | scale
}

/// Reads them back.
pub(super) fn options(stamp: u32, mss: u16, timestamp: u32) -> Agreed {
    let scale = (stamp & 0xf) as u8;
    Agreed {
        mss: Some(mss),
        scale: (scale != 15).then_some(scale),
        sack: stamp & 0x10 != 0,
        timestamp: Some(timestamp),
        ecn: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    #[test]
    fn cookies_are_recognised_for_a_while_and_only_ours() {
        let end = |port| (Ipv4Addr::LOCALHOST.into(), port);
        let (a, b, irs) = (end(80), end(5000), Seq(77));
        for start in [0, 63 * NANOS_PER_SEC, 1000 * NANOS_PER_SEC] {
            let cookie = make(start, a, b, irs, 1460);
            assert_eq!(check(start, a, b, irs, cookie), Some(1460));
            assert_eq!(check(start + 60 * NANOS_PER_SEC, a, b, irs, cookie), Some(1460));
            assert_eq!(check(start + 200 * NANOS_PER_SEC, a, b, irs, cookie), None);
            assert_eq!(check(start, a, end(5001), irs, cookie), None);
            assert_eq!(check(start, a, b, Seq(78), cookie), None);
        }
        let agreed = Agreed { mss: Some(1000), scale: Some(7), sack: true, timestamp: Some(9), ecn: false };
        let back = options(stamp(0xffff_ffff, &agreed), 536, 9);
        assert_eq!((back.scale, back.sack), (Some(7), true));
        let none = options(stamp(0, &Agreed { scale: None, sack: false, ..agreed }), 536, 9);
        assert_eq!((none.scale, none.sack), (None, false));
    }
}
