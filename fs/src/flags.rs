//! Flags of open(2) and the access that they grant.

use abi::general as c;
use bitflags::bitflags;

bitflags! {
    /// The O_* flags, in Linux's values for x86-64.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct OpenFlags: u32 {
        /// O_WRONLY; with neither this nor `RDWR`, O_RDONLY.
        const WRONLY = c::O_WRONLY;
        /// O_RDWR.
        const RDWR = c::O_RDWR;
        /// O_CREAT.
        const CREAT = c::O_CREAT;
        /// O_EXCL.
        const EXCL = c::O_EXCL;
        /// O_NOCTTY.
        const NOCTTY = c::O_NOCTTY;
        /// O_TRUNC.
        const TRUNC = c::O_TRUNC;
        /// O_APPEND.
        const APPEND = c::O_APPEND;
        /// O_NONBLOCK.
        const NONBLOCK = c::O_NONBLOCK;
        /// O_DSYNC.
        const DSYNC = c::O_DSYNC;
        /// O_ASYNC.
        const ASYNC = c::FASYNC;
        /// O_DIRECT.
        const DIRECT = c::O_DIRECT;
        /// O_LARGEFILE: always on for 64-bit programs, and shown by F_GETFL.
        const LARGEFILE = c::O_LARGEFILE;
        /// O_DIRECTORY.
        const DIRECTORY = c::O_DIRECTORY;
        /// O_NOFOLLOW.
        const NOFOLLOW = c::O_NOFOLLOW;
        /// O_NOATIME.
        const NOATIME = c::O_NOATIME;
        /// O_CLOEXEC.
        const CLOEXEC = c::O_CLOEXEC;
        /// The bit that O_SYNC has more than O_DSYNC.
        const SYNC = 0o4000000;
        /// O_PATH.
        const PATH = c::O_PATH;
        /// The bit that O_TMPFILE has more than O_DIRECTORY.
        const TMPFILE = 0o20000000;
    }
}

impl OpenFlags {
    /// The flags that fcntl(F_SETFL) may change.
    pub const SETTABLE: OpenFlags = OpenFlags::APPEND
        .union(OpenFlags::NONBLOCK)
        .union(OpenFlags::ASYNC)
        .union(OpenFlags::DIRECT)
        .union(OpenFlags::NOATIME);

    /// The flags that only matter while opening and that F_GETFL doesn't show.
    pub const CREATION: OpenFlags = OpenFlags::CREAT
        .union(OpenFlags::EXCL)
        .union(OpenFlags::NOCTTY)
        .union(OpenFlags::TRUNC)
        .union(OpenFlags::CLOEXEC);

    /// Watchers hear nothing of what is done with the file: it was opened to tell of others. Not for users to ask for; Linux's bit.
    pub const UNHEARD: OpenFlags = OpenFlags::from_bits_retain(0x400_0000);
    /// RWF_NOWAIT of a transfer, never of an open file: only what is in memory is read (preadv2(2)).
    pub const NOWAIT: OpenFlags = OpenFlags::from_bits_retain(0x800_0000);

    /// What may be done through the descriptor. The access mode 3 (used with device ioctls) allows neither reading nor writing.
    pub fn access(self) -> Access {
        if self.contains(OpenFlags::PATH) {
            return Access::empty();
        }
        match self.bits() & c::O_ACCMODE {
            c::O_RDONLY => Access::READ,
            c::O_WRONLY => Access::WRITE,
            c::O_RDWR => Access::READ | Access::WRITE,
            _ => Access::empty(),
        }
    }
}

bitflags! {
    /// What may be done: the bits of a permission check, in the order of a mode's `rwx`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Access: u32 {
        /// Execute a file, search a directory.
        const EXEC = 1;
        /// Write.
        const WRITE = 2;
        /// Read.
        const READ = 4;
    }
}
