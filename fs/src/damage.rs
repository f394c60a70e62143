//! What the tests with damaged images share. `QUINTET_FUZZ_ROUNDS` and `QUINTET_FUZZ_SEED` make them run longer, or otherwise, by hand:
//! `QUINTET_FUZZ_ROUNDS=100000 cargo test -p fs damage`. With `QUINTET_FUZZ_KEEP=FOLDER` the images are left there.

extern crate std;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use crate::bytes::{le32, put_le16, put_le32};

/// How long a round may take before it counts as endless.
const PATIENCE: Duration = Duration::from_secs(60);

/// A pseudo-random sequence.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n.max(1)
    }
}

fn from_environment(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

/// Gives a structure a wrong field, or one that is another's. `likely`: up to which numbers there is something, inodes or blocks; loops and
/// cross-links come of those. `swapped`: fields are big-endian.
pub(crate) fn spoil(bytes: &mut [u8], likely: &[usize], swapped: bool, random: &mut Random) {
    let len = bytes.len();
    // Most of what counts is at the beginning.
    let reach = if random.below(2) == 0 { len.min(64) } else { len };
    let at = random.below(reach / 2) * 2;
    let value = match random.below(7 + likely.len()) {
        0 => le32(bytes, at) ^ 1 << random.below(32),
        1 => 0,
        2 => u32::MAX,
        3 => random.below(1 << 31) as u32,
        4 => le32(bytes, at).wrapping_add(1),
        5 => le32(bytes, at).wrapping_sub(1),
        6 => 1 << random.below(32),
        n => random.below(likely[n - 7]) as u32,
    };
    let value = if swapped { value.swap_bytes() } else { value };
    match random.below(4) {
        0 => bytes[at] = value as u8,
        1 => put_le16(bytes, at, value as u16),
        2 => put_le32(bytes, at & !3, value),
        _ => {
            let from = random.below(len / 4) * 4;
            let n = (4 << random.below(3)).min(len - (at & !3)).min(len - from);
            bytes.copy_within(from..from + n, at & !3);
        }
    }
}

/// Runs `damage` for `rounds` images, unless the environment says how many, and `exercise` with each. Panics where that panics, or takes too long.
pub(crate) fn fuzz(
    what: &str,
    rounds: usize,
    image: &[u8],
    damage: impl Fn(&mut Vec<u8>, usize, &mut Random),
    exercise: fn(Vec<u8>),
) {
    let seed = from_environment("QUINTET_FUZZ_SEED", 1);
    for round in 0..from_environment("QUINTET_FUZZ_ROUNDS", rounds) {
        let mut random = Random((seed as u64) << 32 | round as u64);
        random.below(1);
        let mut damaged = image.to_vec();
        damage(&mut damaged, round, &mut random);
        survive(damaged, &format!("{what} seed {seed} round {round}"), exercise);
    }
}

fn survive(image: Vec<u8>, what: &str, exercise: fn(Vec<u8>)) {
    if let Ok(folder) = std::env::var("QUINTET_FUZZ_KEEP") {
        let name: String = what.chars().filter(|letter| letter.is_alphanumeric()).collect();
        std::fs::write(format!("{folder}/{name}.img"), &image).expect("it can be kept");
    }
    let (done, waiting) = channel();
    let worker = std::thread::spawn(move || {
        exercise(image);
        let _ = done.send(());
    });
    match waiting.recv_timeout(PATIENCE) {
        Err(RecvTimeoutError::Timeout) => panic!("{what}: it does not end"),
        _ => assert!(worker.join().is_ok(), "{what}: it panics"),
    }
}
