//! tmpfs(5)'s mount options.

use base::{Errno, Result};

/// The options of an instance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// The most pages that files may take.
    pub pages: u64,
    /// The most files.
    pub inodes: u64,
    /// The root directory's permission bits.
    pub mode: u32,
    /// The root directory's owner.
    pub uid: u32,
    /// The root directory's group.
    pub gid: u32,
}

fn memory_pages() -> u64 {
    hal::frame::end() as u64
}

impl Default for Options {
    /// Half of memory, a file for every two pages of memory.
    fn default() -> Options {
        let pages = memory_pages() / 2;
        Options { pages, inodes: pages.max(1024), mode: 0o1777, uid: 0, gid: 0 }
    }
}

impl Options {
    /// No limits: for the root and the kernel's own.
    pub const fn unlimited() -> Options {
        Options { pages: u64::MAX / 4096, inodes: u64::MAX / 2, mode: 0o755, uid: 0, gid: 0 }
    }

    /// Changes what a comma-separated list says. `EINVAL` for what it doesn't know.
    pub fn parse(mut self, list: &[u8]) -> Result<Options> {
        for option in list.split(|&b| b == b',').filter(|o| !o.is_empty()) {
            let text = core::str::from_utf8(option).map_err(|_| Errno::EINVAL)?;
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            match name {
                "size" => self.pages = size(value)?.div_ceil(4096),
                "nr_blocks" => self.pages = size(value)?,
                "nr_inodes" => self.inodes = size(value)?,
                "mode" => self.mode = u32::from_str_radix(value, 8).map_err(|_| Errno::EINVAL)? & 0o7777,
                "uid" => self.uid = value.parse().map_err(|_| Errno::EINVAL)?,
                "gid" => self.gid = value.parse().map_err(|_| Errno::EINVAL)?,
                // Of no consequence here: there is one NUMA node, and inode numbers are 64 bits wide.
                "mpol" | "huge" | "inode32" | "inode64" => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        // Linux: 0 is no limit.
        if self.pages == 0 {
            self.pages = Options::unlimited().pages;
        }
        if self.inodes == 0 {
            self.inodes = Options::unlimited().inodes;
        }
        Ok(self)
    }
}

/// A number with a suffix k, m, g or %, the latter of memory.
fn size(text: &str) -> Result<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 = digits.parse().map_err(|_| Errno::EINVAL)?;
    let scaled = match &text[digits.len()..] {
        "" => Some(number),
        "k" | "K" => number.checked_mul(1 << 10),
        "m" | "M" => number.checked_mul(1 << 20),
        "g" | "G" => number.checked_mul(1 << 30),
        "%" => number.checked_mul(memory_pages() * 4096 / 100),
        _ => None,
    };
    scaled.ok_or(Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_parsed_as_tmpfs_5_says() {
        let base = Options { pages: 7, inodes: 8, mode: 0o1777, uid: 0, gid: 0 };
        let parsed = base.parse(b"size=10k,mode=755,uid=5,,gid=6").unwrap();
        assert_eq!(parsed, Options { pages: 3, inodes: 8, mode: 0o755, uid: 5, gid: 6 });
        assert_eq!(base.parse(b"size=1g").unwrap().pages, 262_144);
        assert_eq!(base.parse(b"size=0").unwrap().pages, Options::unlimited().pages);
        for bad in [
            &b"size=x"[..],
            b"size=1q",
            b"mode=9",
            b"colour=red",
            b"size=99999999999999999999",
            b"size=18446744073709551615g",
        ] {
            assert_eq!(base.parse(bad), Err(Errno::EINVAL));
        }
    }
}
