//! Numbers and structures of io_uring, as `linux/io_uring.h` (6.7) lays them out.

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes};

bitflags! {
    /// Flags of io_uring_setup(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Setup: u32 {
        /// Completions are polled for.
        const IOPOLL = 1 << 0;
        /// A kernel thread submits.
        const SQPOLL = 1 << 1;
        /// That thread stays on one processor.
        const SQ_AFF = 1 << 2;
        /// The caller says how many completions.
        const CQSIZE = 1 << 3;
        /// Sizes are cut to what there can be.
        const CLAMP = 1 << 4;
        /// Share the workers of another ring.
        const ATTACH_WQ = 1 << 5;
        /// It starts disabled.
        const R_DISABLED = 1 << 6;
        /// An error does not end a batch.
        const SUBMIT_ALL = 1 << 7;
        /// No interruption of the program to carry requests on.
        const COOP_TASKRUN = 1 << 8;
        /// Tell in the ring that there is something to carry on.
        const TASKRUN_FLAG = 1 << 9;
        /// Submissions have 128 bytes.
        const SQE128 = 1 << 10;
        /// Completions have 32 bytes.
        const CQE32 = 1 << 11;
        /// One thread submits.
        const SINGLE_ISSUER = 1 << 12;
        /// Requests are carried on in enter alone.
        const DEFER_TASKRUN = 1 << 13;
        /// Submissions are taken in their order.
        const NO_SQARRAY = 1 << 16;
    }
}

bitflags! {
    /// IOSQE_*: flags of a submission.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct SqeFlags: u8 {
        /// The descriptor is the index of a registered file.
        const FIXED_FILE = 1 << 0;
        /// It begins when all before it have ended.
        const IO_DRAIN = 1 << 1;
        /// The next begins when this has succeeded.
        const IO_LINK = 1 << 2;
        /// The next begins when this has ended.
        const IO_HARDLINK = 1 << 3;
        /// Not in the submitting thread.
        const ASYNC = 1 << 4;
        /// Its buffer comes from a group of provided ones.
        const BUFFER_SELECT = 1 << 5;
        /// Success is not told.
        const CQE_SKIP_SUCCESS = 1 << 6;
    }
}

/// IORING_FEAT_*: what the kernel can do, all that 6.7 tells but the pinned memory of registered rings (bits 0 to 13).
pub const FEATURES: u32 = 0x3fff;

/// `struct io_sqring_offsets`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, FromBytes, IntoBytes, Immutable)]
#[allow(missing_docs, reason = "io_uring_setup(2) names them")]
pub struct SqOffsets {
    pub head: u32,
    pub tail: u32,
    pub ring_mask: u32,
    pub ring_entries: u32,
    pub flags: u32,
    pub dropped: u32,
    pub array: u32,
    pub reserved: u32,
    pub user_addr: u64,
}

/// `struct io_cqring_offsets`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, FromBytes, IntoBytes, Immutable)]
#[allow(missing_docs, reason = "io_uring_setup(2) names them")]
pub struct CqOffsets {
    pub head: u32,
    pub tail: u32,
    pub ring_mask: u32,
    pub ring_entries: u32,
    pub overflow: u32,
    pub cqes: u32,
    pub flags: u32,
    pub reserved: u32,
    pub user_addr: u64,
}

/// `struct io_uring_params`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, FromBytes, IntoBytes, Immutable)]
#[allow(missing_docs, reason = "io_uring_setup(2) names them")]
pub struct Params {
    pub sq_entries: u32,
    pub cq_entries: u32,
    pub flags: u32,
    pub sq_thread_cpu: u32,
    pub sq_thread_idle: u32,
    pub features: u32,
    pub wq_fd: u32,
    pub reserved: [u32; 3],
    pub sq: SqOffsets,
    pub cq: CqOffsets,
}

/// `struct io_uring_sqe`, its unions by the name of the member that most operations use.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, FromBytes, IntoBytes, Immutable)]
pub struct Sqe {
    /// IORING_OP_*.
    pub opcode: u8,
    /// IOSQE_*.
    pub flags: u8,
    /// IOPRIO_* or flags of send, receive and accept.
    pub ioprio: u16,
    /// The descriptor, or the index of a registered file.
    pub fd: i32,
    /// Offset; or a second address.
    pub off: u64,
    /// An address; or the offset to splice from.
    pub addr: u64,
    /// A length, count or number.
    pub len: u32,
    /// RWF_*, MSG_*, poll events, ...
    pub op_flags: u32,
    /// Comes back with the completion.
    pub user_data: u64,
    /// The index of a registered buffer, or a group of provided ones.
    pub buf_index: u16,
    /// Registered credentials to use, 0 for the submitter's.
    pub personality: u16,
    /// A descriptor to splice from, or a slot for the file that the operation makes.
    pub file_index: u32,
    /// A third address.
    pub addr3: u64,
    /// Zero.
    pub pad: u64,
}

const _: () = assert!(size_of::<Sqe>() == 64 && size_of::<Params>() == 120);

/// A completion; the second half is only there in rings with CQE32.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Cqe {
    /// The submission's.
    pub user_data: u64,
    /// Like a system call's return value.
    pub result: i32,
    /// IORING_CQE_F_*.
    pub flags: u32,
    /// `big_cqe`.
    pub extra: [u64; 2],
}

/// IORING_CQE_F_*.
#[allow(missing_docs, reason = "io_uring_enter(2) names them")]
pub mod cqe_flag {
    pub const BUFFER: u32 = 1;
    pub const MORE: u32 = 2;
    pub const SOCK_NONEMPTY: u32 = 4;
    pub const NOTIF: u32 = 8;
    pub const BUFFER_SHIFT: u32 = 16;
}

/// IORING_OP_*.
#[allow(missing_docs, reason = "io_uring_enter(2) names them")]
pub mod op {
    pub const NOP: u8 = 0;
    pub const READV: u8 = 1;
    pub const WRITEV: u8 = 2;
    pub const FSYNC: u8 = 3;
    pub const READ_FIXED: u8 = 4;
    pub const WRITE_FIXED: u8 = 5;
    pub const POLL_ADD: u8 = 6;
    pub const POLL_REMOVE: u8 = 7;
    pub const SYNC_FILE_RANGE: u8 = 8;
    pub const SENDMSG: u8 = 9;
    pub const RECVMSG: u8 = 10;
    pub const TIMEOUT: u8 = 11;
    pub const TIMEOUT_REMOVE: u8 = 12;
    pub const ACCEPT: u8 = 13;
    pub const ASYNC_CANCEL: u8 = 14;
    pub const LINK_TIMEOUT: u8 = 15;
    pub const CONNECT: u8 = 16;
    pub const FALLOCATE: u8 = 17;
    pub const OPENAT: u8 = 18;
    pub const CLOSE: u8 = 19;
    pub const FILES_UPDATE: u8 = 20;
    pub const STATX: u8 = 21;
    pub const READ: u8 = 22;
    pub const WRITE: u8 = 23;
    pub const FADVISE: u8 = 24;
    pub const MADVISE: u8 = 25;
    pub const SEND: u8 = 26;
    pub const RECV: u8 = 27;
    pub const OPENAT2: u8 = 28;
    pub const EPOLL_CTL: u8 = 29;
    pub const SPLICE: u8 = 30;
    pub const PROVIDE_BUFFERS: u8 = 31;
    pub const REMOVE_BUFFERS: u8 = 32;
    pub const TEE: u8 = 33;
    pub const SHUTDOWN: u8 = 34;
    pub const RENAMEAT: u8 = 35;
    pub const UNLINKAT: u8 = 36;
    pub const MKDIRAT: u8 = 37;
    pub const SYMLINKAT: u8 = 38;
    pub const LINKAT: u8 = 39;
    pub const MSG_RING: u8 = 40;
    pub const FSETXATTR: u8 = 41;
    pub const SETXATTR: u8 = 42;
    pub const FGETXATTR: u8 = 43;
    pub const GETXATTR: u8 = 44;
    pub const SOCKET: u8 = 45;
    pub const URING_CMD: u8 = 46;
    pub const SEND_ZC: u8 = 47;
    pub const SENDMSG_ZC: u8 = 48;
    pub const READ_MULTISHOT: u8 = 49;
    pub const WAITID: u8 = 50;
    pub const FUTEX_WAIT: u8 = 51;
    pub const FUTEX_WAKE: u8 = 52;
    pub const FUTEX_WAITV: u8 = 53;
    pub const COUNT: u8 = 54;
}
