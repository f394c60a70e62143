//! The requests of ethtool(8) that have an answer here: driver, link, features, counts.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use base::{Cred, Errno, Result};
use hal::user::{UserPtr, copy_in, copy_out};

use super::Interface;
use super::interface::Medium;
use crate::netlink::link::kind_of;

const GSET: u32 = 0x01;
const GDRVINFO: u32 = 0x03;
const GLINK: u32 = 0x0a;
const GRXCSUM: u32 = 0x14;
const GTXCSUM: u32 = 0x16;
const GSG: u32 = 0x18;
const GSTRINGS: u32 = 0x1b;
const GSTATS: u32 = 0x1d;
const GTSO: u32 = 0x1e;
const GUFO: u32 = 0x21;
const GGSO: u32 = 0x23;
const GFLAGS: u32 = 0x25;
const GGRO: u32 = 0x2b;
const GSSET_INFO: u32 = 0x37;
const GFEATURES: u32 = 0x3a;
const GTSINFO: u32 = 0x41;
const GLINKSETTINGS: u32 = 0x4c;

const SET_STATS: u32 = 1;
const SET_FEATURES: u32 = 4;
const NAME: usize = 32;

/// The features that `ethtool -k` asks for, in the order of their bits here; which are on depends on the device, and none can be changed.
const FEATURES: [&str; 6] = [
    "tx-scatter-gather",
    "tx-checksum-ip-generic",
    "rx-checksum",
    "tx-tcp-segmentation",
    "tx-tcp6-segmentation",
    "tx-generic-segmentation",
];

fn features(interface: &Interface) -> u32 {
    match &interface.medium {
        Medium::Device(device) => {
            let has = device.features();
            let bits = [true, has.checksum, true, has.tso4, has.tso6, true];
            bits.iter().enumerate().map(|(i, on)| u32::from(*on) << i).sum()
        }
        _ => 0x3f,
    }
}

fn counts(interface: &Interface) -> Vec<(&'static str, u64)> {
    let c = &interface.counts;
    let n = |count: &core::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    if !matches!(interface.medium, Medium::Device(_)) {
        return Vec::new();
    }
    alloc::vec![
        ("rx_queue_0_packets", n(&c.rx_packets)),
        ("rx_queue_0_bytes", n(&c.rx_bytes)),
        ("rx_queue_0_drops", n(&c.rx_dropped)),
        ("tx_queue_0_packets", n(&c.tx_packets)),
        ("tx_queue_0_bytes", n(&c.tx_bytes)),
        ("tx_queue_0_tx_timeouts", 0),
    ]
}

fn padded(names: &[&str]) -> Vec<u8> {
    let mut out = alloc::vec![0; names.len() * NAME];
    for (slot, name) in out.chunks_mut(NAME).zip(names) {
        slot[..name.len()].copy_from_slice(name.as_bytes());
    }
    out
}

/// SIOCETHTOOL. `EOPNOTSUPP` for requests without an answer, `EFAULT`.
pub(super) fn request(interface: &Interface, arg: usize, _cred: &Cred) -> Result<usize> {
    let command = UserPtr::<u32>::new(arg).read()?;
    let word = |value: u32| UserPtr::new(arg.wrapping_add(4)).write(&value);
    let has = features(interface);
    match command {
        GDRVINFO => driver(interface, arg)?,
        GLINK => word((interface.is_up() && interface.has_carrier()).into())?,
        GRXCSUM | GGSO | GSG => word(1)?,
        GTXCSUM => word(has >> 1 & 1)?,
        GTSO => word(has >> 3 & 1)?,
        GUFO | GFLAGS | GGRO => word(0)?,
        GSTRINGS => {
            let names: Vec<&str> = match UserPtr::<u32>::new(arg.wrapping_add(4)).read()? {
                SET_STATS => counts(interface).iter().map(|(name, _)| *name).collect(),
                SET_FEATURES => FEATURES.to_vec(),
                _ => return Err(Errno::EOPNOTSUPP),
            };
            UserPtr::new(arg.wrapping_add(8)).write(&(names.len() as u32))?;
            copy_out(arg.wrapping_add(12), &padded(&names))?;
        }
        GSTATS => {
            let counts = counts(interface);
            if counts.is_empty() {
                return Err(Errno::EOPNOTSUPP);
            }
            let values: Vec<u8> = counts.iter().flat_map(|(_, n)| n.to_ne_bytes()).collect();
            word(counts.len() as u32)?;
            copy_out(arg.wrapping_add(8), &values)?;
        }
        GSSET_INFO => sets(interface, arg)?,
        GFEATURES => {
            // One block: available, requested, active, never changed.
            let room = UserPtr::<u32>::new(arg.wrapping_add(4)).read()?;
            word(1)?;
            if room > 0 {
                let block = [0, 0, has, u32::MAX].map(u32::to_ne_bytes).concat();
                copy_out(arg.wrapping_add(8), &block)?;
            }
        }
        GTSINFO => {
            // Software stamps what is received and tells when; there is no clock device.
            let mut out = [0; 40];
            out[..4].copy_from_slice(&(0x08u32 | 0x10).to_ne_bytes());
            out[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
            copy_out(arg.wrapping_add(4), &out)?;
        }
        GSET | GLINKSETTINGS => settings(interface, arg, command)?,
        _ => return Err(Errno::EOPNOTSUPP),
    }
    Ok(0)
}

/// `struct ethtool_drvinfo`.
fn driver(interface: &Interface, arg: usize) -> Result<()> {
    let mut out = [0; 192];
    let mut text = |at: usize, text: &str| out[at..at + text.len()].copy_from_slice(text.as_bytes());
    match &interface.medium {
        Medium::Device(_) => text(0, "virtio_net"),
        Medium::Loopback => return Err(Errno::EOPNOTSUPP),
        _ => text(0, kind_of(interface).unwrap_or_default()),
    }
    text(32, "1.0.0");
    let stats = counts(interface).len() as u32;
    out[176..180].copy_from_slice(&stats.to_ne_bytes());
    copy_out(arg.wrapping_add(4), &out)
}

/// `struct ethtool_sset_info`: how many names each set has that is asked for.
fn sets(interface: &Interface, arg: usize) -> Result<()> {
    let asked = UserPtr::<u64>::new(arg.wrapping_add(8)).read()?;
    let mut there = 0u64;
    let mut sizes = Vec::new();
    for (set, size) in [(SET_STATS, counts(interface).len()), (SET_FEATURES, FEATURES.len())] {
        if asked & 1 << set != 0 && size > 0 {
            there |= 1 << set;
            sizes.extend_from_slice(&(size as u32).to_ne_bytes());
        }
    }
    UserPtr::new(arg.wrapping_add(8)).write(&there)?;
    copy_out(arg.wrapping_add(16), &sizes)
}

/// The link's speed, which no device here knows.
fn settings(interface: &Interface, arg: usize, command: u32) -> Result<()> {
    if matches!(interface.medium, Medium::Loopback) {
        return Err(Errno::EOPNOTSUPP);
    }
    const UNKNOWN: u8 = 0xff;
    const OTHER_PORT: u8 = 0xff;
    if command == GSET {
        let mut out = [0; 40];
        out[8..10].fill(UNKNOWN);
        out[10] = UNKNOWN;
        out[11] = OTHER_PORT;
        out[24..26].fill(UNKNOWN);
        return copy_out(arg.wrapping_add(4), &out);
    }
    // The first question gives no room for masks and is answered with how many words these have.
    const WORDS: i8 = 3;
    let mut head = [0; 48];
    copy_in(&mut head, arg)?;
    let room = head[15] as i8;
    let mut out = [0u8; 44];
    out[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
    out[4] = UNKNOWN;
    out[5] = OTHER_PORT;
    if room != WORDS {
        out[11] = -WORDS as u8;
        return copy_out(arg.wrapping_add(4), &out);
    }
    out[11] = WORDS as u8;
    copy_out(arg.wrapping_add(4), &out)?;
    copy_out(arg.wrapping_add(48), &[0; 3 * WORDS as usize * 4])
}
