//! How large a kernel's image is.

use std::fs;
use std::path::Path;

/// The bytes of the image that a loader reads: of an ELF file those of its loadable segments, without symbols and debugging
/// information; of another file (such as Linux's compressed image) all.
pub(crate) fn size(path: &Path) -> std::io::Result<u64> {
    let bytes = fs::read(path)?;
    Ok(segments(&bytes).unwrap_or(bytes.len() as u64))
}

/// The file sizes of the loadable segments of a 64-bit ELF file.
fn segments(file: &[u8]) -> Option<u64> {
    const LOAD: u32 = 1;
    let half = |at: usize| Some(usize::from(u16::from_le_bytes(file.get(at..at + 2)?.try_into().ok()?)));
    let long = |at: usize| Some(u64::from_le_bytes(file.get(at..at + 8)?.try_into().ok()?));
    if file.get(..5)? != b"\x7fELF\x02" {
        return None;
    }
    let (table, size, count) = (usize::try_from(long(32)?).ok()?, half(54)?, half(56)?);
    let mut total = 0;
    for number in 0..count {
        let at = table.checked_add(number * size)?;
        if u32::from_le_bytes(file.get(at..at + 4)?.try_into().ok()?) == LOAD {
            total += long(at + 32)?;
        }
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_loaded_counts() {
        let mut file = vec![0; 64 + 2 * 56];
        file[..5].copy_from_slice(b"\x7fELF\x02");
        (file[32], file[54], file[56]) = (64, 56, 2);
        (file[64], file[64 + 32]) = (1, 100);
        (file[64 + 56], file[64 + 56 + 32]) = (4, 50);
        assert_eq!(segments(&file), Some(100));
        assert_eq!(segments(&file[..100]), None);
        assert_eq!(segments(b"MZ"), None);
    }
}
