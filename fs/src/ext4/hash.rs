//! The hashes of names that order an htree: what the directory's root block names, seeded by the superblock.

use base::{Errno, Result};

/// Which hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Legacy,
    HalfMd4,
    Tea,
}

/// A hash of names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NameHash {
    kind: Kind,
    /// Bytes of names count as unsigned.
    unsigned: bool,
    seed: [u32; 4],
}

/// Linux keeps this value for the end of a directory.
const END: u32 = 0xffff_fffe;

impl NameHash {
    /// The hash that number `version` of a root block names. `EUCLEAN`.
    pub(super) fn new(version: u8, unsigned: bool, seed: [u32; 4]) -> Result<NameHash> {
        let kind = match version % 3 {
            _ if version > 5 => return Err(Errno::EUCLEAN),
            0 => Kind::Legacy,
            1 => Kind::HalfMd4,
            _ => Kind::Tea,
        };
        Ok(NameHash { kind, unsigned: unsigned || version > 2, seed })
    }

    /// The hash of a name: even, the lowest bit being used by the tree.
    pub(super) fn of(&self, name: &[u8]) -> u32 {
        let hash = match self.kind {
            Kind::Legacy => self.legacy(name),
            Kind::HalfMd4 => self.in_chunks::<8>(name, half_md4)[1],
            Kind::Tea => self.in_chunks::<4>(name, tea)[0],
        };
        match hash & !1 {
            END => END - 2,
            even => even,
        }
    }

    fn value(&self, byte: u8) -> u32 {
        if self.unsigned { u32::from(byte) } else { i32::from(byte.cast_signed()).cast_unsigned() }
    }

    fn legacy(&self, name: &[u8]) -> u32 {
        let (mut last, mut before) = (0x12a3_fe2du32, 0x37ab_e8f9u32);
        for &byte in name {
            let mut hash = before.wrapping_add(last ^ self.value(byte).wrapping_mul(7_152_373));
            if hash & 0x8000_0000 != 0 {
                hash = hash.wrapping_sub(0x7fff_ffff);
            }
            (before, last) = (last, hash);
        }
        last << 1
    }

    /// Mixes the name in, `N` words at a time.
    fn in_chunks<const N: usize>(&self, name: &[u8], mix: fn(&mut [u32; 4], &[u32; N])) -> [u32; 4] {
        let mut state =
            if self.seed == [0; 4] { [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476] } else { self.seed };
        let mut rest = name;
        while !rest.is_empty() {
            mix(&mut state, &self.words(rest));
            rest = rest.get(4 * N..).unwrap_or(&[]);
        }
        state
    }

    /// The first bytes as words, padded with the length.
    fn words<const N: usize>(&self, name: &[u8]) -> [u32; N] {
        let len = name.len() as u32;
        let pad = len | len << 8;
        let pad = pad | pad << 16;
        let mut words = [pad; N];
        for (word, bytes) in words.iter_mut().zip(name.chunks(4)) {
            *word = bytes.iter().fold(pad, |word, &byte| self.value(byte).wrapping_add(word << 8));
        }
        words
    }
}

/// MD4's compression function, with half of its rounds.
fn half_md4(state: &mut [u32; 4], input: &[u32; 8]) {
    type Mix = fn(u32, u32, u32) -> u32;
    let select: Mix = |x, y, z| z ^ (x & (y ^ z));
    let majority: Mix = |x, y, z| (x & y).wrapping_add((x ^ y) & z);
    let parity: Mix = |x, y, z| x ^ y ^ z;
    let rounds: [(Mix, u32, [usize; 8], [u32; 4]); 3] = [
        (select, 0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]),
        (majority, 0x5a82_7999, [1, 3, 5, 7, 0, 2, 4, 6], [3, 5, 9, 13]),
        (parity, 0x6ed9_eba1, [3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15]),
    ];
    let mut v = *state;
    for (mix, constant, order, shifts) in rounds {
        for (step, word) in order.into_iter().enumerate() {
            // The four words take turns: a, d, c, b.
            let i = (4 - step % 4) % 4;
            let (b, c, d) = (v[(i + 1) % 4], v[(i + 2) % 4], v[(i + 3) % 4]);
            let sum = v[i].wrapping_add(mix(b, c, d)).wrapping_add(input[word]).wrapping_add(constant);
            v[i] = sum.rotate_left(shifts[step % 4]);
        }
    }
    for (to, from) in state.iter_mut().zip(v) {
        *to = to.wrapping_add(from);
    }
}

/// The Tiny Encryption Algorithm as a compression function.
fn tea(state: &mut [u32; 4], key: &[u32; 4]) {
    let (mut x, mut y, mut sum) = (state[0], state[1], 0u32);
    let half =
        |v: u32, sum: u32, a: u32, b: u32| (v << 4).wrapping_add(a) ^ v.wrapping_add(sum) ^ (v >> 5).wrapping_add(b);
    for _ in 0..16 {
        sum = sum.wrapping_add(0x9e37_79b9);
        x = x.wrapping_add(half(y, sum, key[0], key[1]));
        y = y.wrapping_add(half(x, sum, key[2], key[3]));
    }
    state[0] = state[0].wrapping_add(x);
    state[1] = state[1].wrapping_add(y);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hashes_are_those_of_debugfs() {
        let names = ["a", "hello", "a-rather-long-name-that-needs-more-than-one-chunk-of-words", "grüße"];
        let known: [(u8, [u32; 4]); 3] = [
            (0, [0xe74b_53e2, 0x3225_2546, 0x16ab_ff98, 0xcc69_faba]),
            (1, [0xd5fa_7d7a, 0x1746_da32, 0x8ab6_1c30, 0xd75e_0ad8]),
            (2, [0x6d0e_a4c0, 0x6f5b_b1a8, 0x13a0_3668, 0xc271_df04]),
        ];
        for (version, hashes) in known {
            let hash = NameHash::new(version, false, [0; 4]).expect("known");
            assert_eq!(names.map(|name| hash.of(name.as_bytes())), hashes, "version {version}");
        }
        let seed = [0xac7b_24aeu32.swap_bytes(), 0x4a67_4e70u32.swap_bytes(), 0xafa1_4b22u32.swap_bytes()];
        let seed = [seed[0], seed[1], seed[2], 0xd08f_3fb8u32.swap_bytes()];
        assert_eq!(NameHash::new(1, false, seed).map(|h| h.of(b"hello")), Ok(0xc978_2e8a));
        assert!(NameHash::new(6, false, seed).is_err());
    }
}
