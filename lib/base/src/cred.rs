//! Credentials: who a process is and what it may do (credentials(7), capabilities(7)).

use alloc::sync::Arc;
use bitflags::bitflags;
use core::any::Any;

/// One capability, by Linux's number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs, reason = "capabilities(7) documents each")]
pub enum Capability {
    Chown = 0,
    DacOverride = 1,
    DacReadSearch = 2,
    Fowner = 3,
    Fsetid = 4,
    Kill = 5,
    Setgid = 6,
    Setuid = 7,
    Setpcap = 8,
    LinuxImmutable = 9,
    NetBindService = 10,
    NetBroadcast = 11,
    NetAdmin = 12,
    NetRaw = 13,
    IpcLock = 14,
    IpcOwner = 15,
    SysModule = 16,
    SysRawio = 17,
    SysChroot = 18,
    SysPtrace = 19,
    SysPacct = 20,
    SysAdmin = 21,
    SysBoot = 22,
    SysNice = 23,
    SysResource = 24,
    SysTime = 25,
    SysTtyConfig = 26,
    Mknod = 27,
    Lease = 28,
    AuditWrite = 29,
    AuditControl = 30,
    Setfcap = 31,
    MacOverride = 32,
    MacAdmin = 33,
    Syslog = 34,
    WakeAlarm = 35,
    BlockSuspend = 36,
    AuditRead = 37,
    Perfmon = 38,
    Bpf = 39,
    CheckpointRestore = 40,
}

bitflags! {
    /// A set of capabilities; bit n is capability n.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct CapSet: u64 {
        /// Every capability that Linux 6.1 knows (0 to 40).
        const FULL = (1 << 41) - 1;
    }
}

impl CapSet {
    /// Does the set hold `cap`?
    pub const fn has(self, cap: Capability) -> bool {
        self.bits() & (1 << cap as u8) != 0
    }
}

/// A Landlock domain, which only the file systems' layer can read.
#[derive(Clone)]
pub struct Landlocked(pub Arc<dyn Any + Send + Sync>);

impl core::fmt::Debug for Landlocked {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Landlocked")
    }
}

/// The credentials of a thread. Shared as `Arc<Cred>` and replaced whole (copy on write), never changed in place.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "credentials(7) names the ids")]
pub struct Cred {
    pub uid: u32,
    pub euid: u32,
    pub suid: u32,
    pub fsuid: u32,
    pub gid: u32,
    pub egid: u32,
    pub sgid: u32,
    pub fsgid: u32,
    /// Supplementary groups, sorted.
    pub groups: Arc<[u32]>,
    pub inheritable: CapSet,
    pub permitted: CapSet,
    pub effective: CapSet,
    pub bounding: CapSet,
    pub ambient: CapSet,
    /// SECBIT_* of prctl(2).
    pub securebits: u32,
    pub no_new_privs: bool,
    /// What it restricted itself to by Landlock.
    pub landlock: Option<Landlocked>,
}

impl Cred {
    /// The credentials of the first process: root with everything.
    pub fn root() -> Cred {
        Cred {
            uid: 0,
            euid: 0,
            suid: 0,
            fsuid: 0,
            gid: 0,
            egid: 0,
            sgid: 0,
            fsgid: 0,
            groups: Arc::from([]),
            inheritable: CapSet::empty(),
            permitted: CapSet::FULL,
            effective: CapSet::FULL,
            bounding: CapSet::FULL,
            ambient: CapSet::empty(),
            securebits: 0,
            no_new_privs: false,
            landlock: None,
        }
    }

    /// Is `cap` effective?
    pub fn capable(&self, cap: Capability) -> bool {
        self.effective.has(cap)
    }

    /// Is `gid` the file-system group or a supplementary one?
    pub fn in_group(&self, gid: u32) -> bool {
        self.fsgid == gid || self.groups.binary_search(&gid).is_ok()
    }

    /// Is `gid` the effective group or a supplementary one?
    pub fn in_egroup(&self, gid: u32) -> bool {
        self.egid == gid || self.groups.binary_search(&gid).is_ok()
    }
}
