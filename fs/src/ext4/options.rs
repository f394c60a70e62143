//! Mount options (ext4(5)).

use alloc::vec::Vec;

use base::{Errno, NANOS_PER_SEC, Nanos, Result};

use super::volume::OnError;

/// How the contents of files and the journal go together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DataMode {
    /// Contents go through the journal.
    Journal,
    /// Contents are on the disk before the metadata that leads to them.
    Ordered,
    /// No order is promised. (Here it is kept all the same: blocks become a file's only after they are written.)
    Writeback,
}

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Options {
    pub(super) data: DataMode,
    pub(super) on_error: Option<OnError>,
    pub(super) no_load: bool,
    /// How often the journal is committed.
    pub(super) commit: Nanos,
    /// Flushes are sent to the disk.
    pub(super) barrier: bool,
    pub(super) acl: bool,
    pub(super) user_xattr: bool,
    /// Who may use the reserved blocks, in place of what the superblock says.
    pub(super) reserved_user: Option<u32>,
    pub(super) reserved_group: Option<u32>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            data: DataMode::Ordered,
            on_error: None,
            no_load: false,
            commit: 5 * NANOS_PER_SEC,
            barrier: true,
            acl: true,
            user_xattr: true,
            reserved_user: None,
            reserved_group: None,
        }
    }
}

/// Options of Linux's that change nothing here: how it allocates, what it checks, and what it does in the background.
const WITHOUT_EFFECT: [&[u8]; 31] = [
    b"rw",
    b"ro",
    b"delalloc",
    b"nodelalloc",
    b"auto_da_alloc",
    b"noauto_da_alloc",
    b"block_validity",
    b"noblock_validity",
    b"dioread_lock",
    b"dioread_nolock",
    b"discard",
    b"nodiscard",
    b"journal_checksum",
    b"nojournal_checksum",
    b"journal_async_commit",
    b"init_itable",
    b"noinit_itable",
    b"inode_readahead_blks",
    b"stripe",
    b"min_batch_time",
    b"max_batch_time",
    b"journal_ioprio",
    b"max_dir_size_kb",
    b"nouid32",
    b"debug",
    b"lazytime",
    b"nolazytime",
    b"mblk_io_submit",
    b"nomblk_io_submit",
    b"i_version",
    b"prefetch_block_bitmaps",
];

impl Options {
    /// Parses a list separated by commas. `EINVAL` for what is not known.
    pub(super) fn parse(mut self, text: &[u8]) -> Result<Options> {
        for option in text.split(|&b| b == b',').filter(|option| !option.is_empty()) {
            let (name, value) = match option.iter().position(|&b| b == b'=') {
                Some(at) => (&option[..at], Some(&option[at + 1..])),
                None => (option, None),
            };
            match (name, value) {
                (b"data", Some(b"journal")) => self.data = DataMode::Journal,
                (b"data", Some(b"ordered")) => self.data = DataMode::Ordered,
                (b"data", Some(b"writeback")) => self.data = DataMode::Writeback,
                (b"errors", Some(b"continue")) => self.on_error = Some(OnError::Continue),
                (b"errors", Some(b"remount-ro")) => self.on_error = Some(OnError::ReadOnly),
                (b"errors", Some(b"panic")) => self.on_error = Some(OnError::Panic),
                (b"noload" | b"norecovery", None) => self.no_load = true,
                (b"commit", Some(value)) => {
                    let seconds = number(value)?;
                    self.commit = if seconds == 0 { 5 } else { u64::from(seconds) } * NANOS_PER_SEC;
                }
                (b"barrier", None) => self.barrier = true,
                (b"barrier", Some(value)) => self.barrier = number(value)? != 0,
                (b"nobarrier", None) => self.barrier = false,
                (b"resuid", Some(value)) => self.reserved_user = Some(number(value)?),
                (b"resgid", Some(value)) => self.reserved_group = Some(number(value)?),
                (b"acl", None) => self.acl = true,
                (b"noacl", None) => self.acl = false,
                (b"user_xattr", None) => self.user_xattr = true,
                (b"nouser_xattr", None) => self.user_xattr = false,
                _ if WITHOUT_EFFECT.contains(&name) => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(self)
    }

    /// As `/proc/mounts` shows them, what is usual being left out.
    pub(super) fn show(&self) -> Vec<u8> {
        let mut text = Vec::new();
        text.extend_from_slice(match self.on_error {
            None => b"",
            Some(OnError::Continue) => b",errors=continue",
            Some(OnError::ReadOnly) => b",errors=remount-ro",
            Some(OnError::Panic) => b",errors=panic",
        });
        for (name, id) in [("resuid", self.reserved_user), ("resgid", self.reserved_group)] {
            if let Some(id) = id {
                text.extend_from_slice(alloc::format!(",{name}={id}").as_bytes());
            }
        }
        if self.no_load {
            text.extend_from_slice(b",norecovery");
        }
        if !self.barrier {
            text.extend_from_slice(b",nobarrier");
        }
        if self.commit != Options::default().commit {
            text.extend_from_slice(alloc::format!(",commit={}", self.commit / NANOS_PER_SEC).as_bytes());
        }
        text.extend_from_slice(match self.data {
            DataMode::Journal => b",data=journal",
            DataMode::Ordered => b"",
            DataMode::Writeback => b",data=writeback",
        });
        text
    }
}

fn number(text: &[u8]) -> Result<u32> {
    core::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_shown() {
        let parse = |text: &str| Options::default().parse(text.as_bytes());
        let all = parse("data=journal,errors=remount-ro,commit=7,barrier=0,delalloc,,stripe=8").expect("known");
        assert_eq!(all.show(), b",errors=remount-ro,nobarrier,commit=7,data=journal");
        assert_eq!(parse("").map(|options| options.show()), Ok(Vec::new()));
        for bad in ["data=none", "commit=x", "size=1", "errors"] {
            assert_eq!(parse(bad), Err(Errno::EINVAL), "{bad}");
        }
    }
}
