//! The header of a cpio entry, in the formats "newc" (070701) and "crc" (070702).

use crate::DeviceNumber;

/// Bytes in a header.
pub(super) const HEADER_LEN: usize = 110;

/// A header's fields, checked to be hexadecimal numbers and nothing more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) inode: u32,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) links: u32,
    pub(super) mtime: u32,
    pub(super) size: u32,
    /// The device that the file was archived from.
    pub(super) device: DeviceNumber,
    /// The device that it is.
    pub(super) rdev: DeviceNumber,
    /// With its NUL.
    pub(super) name_len: u32,
}

impl Header {
    /// Reads a header; `None` if it is none.
    pub(super) fn parse(raw: &[u8; HEADER_LEN]) -> Option<Header> {
        let (magic, fields) = raw.split_first_chunk::<6>()?;
        if magic != b"070701" && magic != b"070702" {
            return None;
        }
        let mut numbers = [0; 13];
        for (number, digits) in numbers.iter_mut().zip(fields.chunks_exact(8)) {
            *number = hex(digits)?;
        }
        let [inode, mode, uid, gid, links, mtime, size, major, minor, rmajor, rminor, name_len, _checksum] = numbers;
        Some(Header {
            inode,
            mode,
            uid,
            gid,
            links,
            mtime,
            size,
            device: DeviceNumber::new(major, minor),
            rdev: DeviceNumber::new(rmajor, rminor),
            name_len,
        })
    }

    /// The time of change, in nanoseconds since 1970.
    pub(super) fn mtime_nanos(&self) -> i64 {
        i64::from(self.mtime) * 1_000_000_000
    }
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |n, &d| Some((n << 4) | char::from(d).to_digit(16)?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// An archive entry, for tests.
    pub(crate) fn entry(name: &str, mode: u32, inode: u32, links: u32, data: &[u8]) -> Vec<u8> {
        let fields = [inode, mode, 0, 0, links, 1, data.len() as u32, 8, 1, 0, 0, name.len() as u32 + 1, 0];
        let mut bytes = b"070701".to_vec();
        for field in fields {
            bytes.extend_from_slice(alloc::format!("{field:08x}").as_bytes());
        }
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn headers_are_parsed_or_refused() {
        let bytes = entry("etc/passwd", 0o100644, 7, 1, b"root");
        let raw: [u8; HEADER_LEN] = bytes[..HEADER_LEN].try_into().unwrap();
        let header = Header::parse(&raw).unwrap();
        assert_eq!((header.mode, header.size, header.name_len, header.inode), (0o100644, 4, 11, 7));
        let mut bad = raw;
        bad[5] = b'7';
        assert_eq!(Header::parse(&bad), None);
        let mut bad = raw;
        bad[50] = b'g';
        assert_eq!(Header::parse(&bad), None);
    }
}
