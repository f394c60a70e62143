//! CRC-32C (Castagnoli), as ext4 and its journal use it: reflected, and without the final complement.

const TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 != 0 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut n = 1;
    while n < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[n - 1][byte];
            tables[n][byte] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        n += 1;
    }
    tables
}

/// The checksum of `bytes` behind what gave `crc` (`!0` for nothing), eight bytes at a time.
pub(crate) fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    let (chunks, rest) = bytes.as_chunks::<8>();
    let mut crc = crc;
    for chunk in chunks {
        let word = u64::from_le_bytes(*chunk) ^ u64::from(crc);
        crc = 0;
        let mut n = 0;
        while n < 8 {
            crc ^= TABLES[7 - n][(word >> (8 * n)) as usize & 0xff];
            n += 1;
        }
    }
    rest.iter().fold(crc, |crc, &byte| crc >> 8 ^ TABLES[0][((crc ^ u32::from(byte)) & 0xff) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_value_and_pieces() {
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
        let data: alloc::vec::Vec<u8> = (0..1000u32).map(|i| (i * 7) as u8).collect();
        for cut in [0, 1, 7, 8, 9, 500, 999] {
            assert_eq!(crc32c(crc32c(!0, &data[..cut]), &data[cut..]), crc32c(!0, &data));
        }
    }
}
