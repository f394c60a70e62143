//! What a mount and a file system restrict, in the bits of mount(2).

use alloc::vec::Vec;

use bitflags::bitflags;

bitflags! {
    /// How a mount restricts what it shows, in the bits of mount(2) and statfs(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MountFlags: u32 {
        /// MS_RDONLY.
        const RDONLY = 1;
        /// MS_NOSUID.
        const NOSUID = 2;
        /// MS_NODEV.
        const NODEV = 4;
        /// MS_NOEXEC.
        const NOEXEC = 8;
        /// MS_NOSYMFOLLOW.
        const NOSYMFOLLOW = 256;
        /// MS_NOATIME.
        const NOATIME = 1024;
        /// MS_NODIRATIME.
        const NODIRATIME = 2048;
        /// MS_RELATIME: what is done unless another is asked for.
        const RELATIME = 1 << 21;
    }
}

impl MountFlags {
    /// The flags about times of access.
    pub const ATIME: MountFlags = MountFlags::NOATIME.union(MountFlags::NODIRATIME).union(MountFlags::RELATIME);

    /// The options behind `ro` or `rw`, as `/proc/mounts` shows them.
    pub fn options(self) -> Vec<u8> {
        let names: [(MountFlags, &[u8]); 7] = [
            (MountFlags::NOSUID, b",nosuid"),
            (MountFlags::NODEV, b",nodev"),
            (MountFlags::NOEXEC, b",noexec"),
            (MountFlags::NOATIME, b",noatime"),
            (MountFlags::NODIRATIME, b",nodiratime"),
            (MountFlags::RELATIME, b",relatime"),
            (MountFlags::NOSYMFOLLOW, b",nosymfollow"),
        ];
        names.iter().filter(|(flag, _)| self.contains(*flag)).flat_map(|(_, name)| name.iter().copied()).collect()
    }
}

bitflags! {
    /// What holds for a file system through whichever mount it is seen, in the bits of mount(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct SuperFlags: u32 {
        /// MS_RDONLY.
        const RDONLY = 1;
        /// MS_SYNCHRONOUS: writes are on the disk when they return.
        const SYNCHRONOUS = 16;
        /// MS_MANDLOCK: shown, without effect since Linux 5.15.
        const MANDLOCK = 64;
        /// MS_DIRSYNC: so are changes of directories.
        const DIRSYNC = 128;
        /// MS_LAZYTIME: times are written when something else is.
        const LAZYTIME = 1 << 25;
    }
}

impl SuperFlags {
    /// The options as `/proc/mounts` shows them.
    pub fn options(self) -> Vec<u8> {
        let names: [(SuperFlags, &[u8]); 4] = [
            (SuperFlags::SYNCHRONOUS, b",sync"),
            (SuperFlags::DIRSYNC, b",dirsync"),
            (SuperFlags::MANDLOCK, b",mand"),
            (SuperFlags::LAZYTIME, b",lazytime"),
        ];
        names.iter().filter(|(flag, _)| self.contains(*flag)).flat_map(|(_, name)| name.iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_in_the_order_of_linux() {
        let flags = MountFlags::RDONLY | MountFlags::RELATIME | MountFlags::NOSUID;
        assert_eq!(flags.options(), b",nosuid,relatime");
        assert_eq!((SuperFlags::DIRSYNC | SuperFlags::SYNCHRONOUS | SuperFlags::RDONLY).options(), b",sync,dirsync");
    }
}
