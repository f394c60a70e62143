//! Random numbers: a ChaCha20 generator (RFC 8439's block function) with fast key erasure, keyed by the processor's random source and reseeded every so often.

use crate::arch;
use crate::sync::SpinLock;

struct Generator {
    key: [u32; 8],
    counter: u64,
    /// Blocks until fresh seed is mixed in; 0 at first.
    until_reseed: u32,
}

static GENERATOR: SpinLock<Generator> = SpinLock::new(Generator { key: [0; 8], counter: 0, until_reseed: 0 });

fn quarter_round(state: &mut [u32; 16], a: usize, b: usize, c: usize, d: usize) {
    for (x, y, z, shift) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)] {
        state[x] = state[x].wrapping_add(state[y]);
        state[z] = (state[z] ^ state[x]).rotate_left(shift);
    }
}

/// The block function: 64 bytes from a key, a counter and a nonce.
fn block(key: &[u32; 8], counter: u64, nonce: u64) -> [u32; 16] {
    let mut state = [0u32; 16];
    state[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
    state[4..12].copy_from_slice(key);
    state[12] = counter as u32;
    state[13] = (counter >> 32) as u32;
    state[14] = nonce as u32;
    state[15] = (nonce >> 32) as u32;
    let start = state;
    for _ in 0..10 {
        for i in 0..4 {
            quarter_round(&mut state, i, 4 + i, 8 + i, 12 + i);
        }
        for i in 0..4 {
            quarter_round(&mut state, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4);
        }
    }
    for (word, first) in state.iter_mut().zip(start) {
        *word = word.wrapping_add(first);
    }
    state
}

impl Generator {
    fn reseed(&mut self) {
        for pair in self.key.chunks_exact_mut(2) {
            let seed = arch::random::seed();
            pair[0] ^= seed as u32;
            pair[1] ^= (seed >> 32) as u32;
        }
        self.until_reseed = 4096;
    }

    /// 32 bytes; the other half of the block becomes the next key, so that what was given out can't be found again.
    fn next(&mut self) -> [u8; 32] {
        if self.until_reseed == 0 {
            self.reseed();
        }
        self.until_reseed -= 1;
        self.counter += 1;
        let words = block(&self.key, self.counter, 0);
        self.key.copy_from_slice(&words[..8]);
        let mut bytes = [0; 32];
        for (out, word) in bytes.chunks_exact_mut(4).zip(&words[8..]) {
            out.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

/// Fills `bytes` with random bytes fit for keys.
pub fn fill(bytes: &mut [u8]) {
    for chunk in bytes.chunks_mut(32) {
        let random = GENERATOR.lock_irq().next();
        chunk.copy_from_slice(&random[..chunk.len()]);
    }
}

/// A random number.
pub fn word() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Mixes in what someone wrote to /dev/urandom: it can only add to the seed.
pub fn mix(bytes: &[u8]) {
    let mut generator = GENERATOR.lock_irq();
    for chunk in bytes.chunks(32) {
        let mut words = [0u32; 8];
        for (word, part) in words.iter_mut().zip(chunk.chunks(4)) {
            *word = part.iter().fold(0, |w, &b| w << 8 | u32::from(b));
        }
        for (key, word) in generator.key.iter_mut().zip(words) {
            *key ^= word;
        }
        generator.next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_function_is_that_of_rfc_8439() {
        // Section 2.3.2: key 00..1f, counter 1, nonce 000000090000004a00000000.
        let key: [u32; 8] = core::array::from_fn(|i| u32::from_le_bytes(core::array::from_fn(|b| (i * 4 + b) as u8)));
        let words = block(&key, 1 | 0x0900_0000 << 32, 0x4a00_0000);
        assert_eq!(words[..4], [0xe4e7_f110, 0x1559_3bd1, 0x1fdd_0f50, 0xc471_20a3]);
    }

    #[test]
    fn two_draws_differ() {
        assert_ne!(word(), word());
    }
}
