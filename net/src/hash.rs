//! Keyed hashing (SipHash-1-3): for tables that strangers fill, sequence numbers and cookies. Without the key, which is drawn at boot,
//! nobody can make values collide or guess what comes next.

use core::hash::{BuildHasher, Hasher};
use core::net::IpAddr;

use hal::sync::Once;

static KEY: Once<[u64; 2]> = Once::new();

fn key() -> [u64; 2] {
    *KEY.get_or_init(|| [hal::random::word(), hal::random::word()])
}

/// The hash of words.
#[derive(Clone)]
pub struct Keyed {
    v: [u64; 4],
    words: u64,
}

impl Keyed {
    /// A hash in the making under the machine's key.
    pub fn new() -> Keyed {
        Keyed::with(key())
    }

    fn with(key: [u64; 2]) -> Keyed {
        Keyed {
            v: [
                key[0] ^ 0x736f_6d65_7073_6575,
                key[1] ^ 0x646f_7261_6e64_6f6d,
                key[0] ^ 0x6c79_6765_6e65_7261,
                key[1] ^ 0x7465_6462_7974_6573,
            ],
            words: 0,
        }
    }

    #[inline]
    fn round(&mut self) {
        let [a, b, c, d] = &mut self.v;
        *a = a.wrapping_add(*b);
        *c = c.wrapping_add(*d);
        *b = b.rotate_left(13) ^ *a;
        *d = d.rotate_left(16) ^ *c;
        *a = a.rotate_left(32).wrapping_add(*d);
        *c = c.wrapping_add(*b);
        *d = d.rotate_left(21) ^ *a;
        *b = b.rotate_left(17) ^ *c;
        *c = c.rotate_left(32);
    }

    /// Adds a word.
    #[inline]
    pub fn word(&mut self, word: u64) {
        self.v[3] ^= word;
        self.round();
        self.v[0] ^= word;
        self.words += 1;
    }

    /// Adds an address.
    pub fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => self.word(u64::from(u32::from(v4))),
            IpAddr::V6(v6) => {
                let bits = u128::from(v6);
                self.word(bits as u64);
                self.word((bits >> 64) as u64);
            }
        }
    }

    /// The hash.
    #[inline]
    pub fn value(mut self) -> u64 {
        let words = self.words << 59;
        self.word(words);
        self.v[2] ^= 0xff;
        for _ in 0..3 {
            self.round();
        }
        self.v.iter().fold(0, |all, v| all ^ v)
    }
}

impl Default for Keyed {
    fn default() -> Self {
        Keyed::new()
    }
}

/// SipHash-2-4 of bytes under a key of one's own, where others have to come to the same value.
pub fn siphash24(key: [u64; 2], bytes: &[u8]) -> u64 {
    let mut hash = Keyed::with(key);
    let mut word = |word: u64| {
        hash.v[3] ^= word;
        hash.round();
        hash.round();
        hash.v[0] ^= word;
    };
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().for_each(|bytes| word(u64::from_le_bytes(*bytes)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    last[7] = bytes.len() as u8;
    word(u64::from_le_bytes(last));
    hash.v[2] ^= 0xff;
    for _ in 0..4 {
        hash.round();
    }
    hash.v.iter().fold(0, |all, v| all ^ v)
}

/// The hash of two connected ends.
pub fn of_pair(local: (IpAddr, u16), remote: (IpAddr, u16), salt: u64) -> u64 {
    let mut hash = Keyed::new();
    hash.address(local.0);
    hash.address(remote.0);
    hash.word(u64::from(local.1) << 16 | u64::from(remote.1) | salt << 32);
    hash.value()
}

impl Hasher for Keyed {
    fn finish(&self) -> u64 {
        self.clone().value()
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }

    fn write_u16(&mut self, value: u16) {
        self.word(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.word(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.word(value);
    }

    fn write_isize(&mut self, value: isize) {
        self.word(value as u64);
    }

    fn write_usize(&mut self, value: usize) {
        self.word(value as u64);
    }
}

/// Makes [`Keyed`] hashers for tables.
#[derive(Clone, Copy, Default)]
pub struct BuildKeyed;

impl BuildHasher for BuildKeyed {
    type Hasher = Keyed;

    fn build_hasher(&self) -> Keyed {
        Keyed::new()
    }
}

/// A table keyed by what strangers choose.
pub type Table<K, V> = hashbrown::HashMap<K, V, BuildKeyed>;
