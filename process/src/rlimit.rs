//! Resource limits: getrlimit(2), prlimit(2).

use base::{Capability, Cred, Errno, Result};

/// No limit.
pub const INFINITY: u64 = u64::MAX;
/// The highest RLIMIT_NOFILE that anyone may set (`fs.nr_open`).
pub const NR_OPEN: u64 = 1 << 20;

/// What is limited, by Linux's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
#[allow(missing_docs, reason = "getrlimit(2) documents each")]
pub enum Resource {
    Cpu = 0,
    Fsize = 1,
    Data = 2,
    Stack = 3,
    Core = 4,
    Rss = 5,
    Nproc = 6,
    NoFile = 7,
    Memlock = 8,
    As = 9,
    Locks = 10,
    Sigpending = 11,
    Msgqueue = 12,
    Nice = 13,
    Rtprio = 14,
    Rttime = 15,
}

/// All of them, with the name and unit that `/proc/PID/limits` shows.
pub const RESOURCES: [(Resource, &str, &str); 16] = [
    (Resource::Cpu, "Max cpu time", "seconds"),
    (Resource::Fsize, "Max file size", "bytes"),
    (Resource::Data, "Max data size", "bytes"),
    (Resource::Stack, "Max stack size", "bytes"),
    (Resource::Core, "Max core file size", "bytes"),
    (Resource::Rss, "Max resident set", "bytes"),
    (Resource::Nproc, "Max processes", "processes"),
    (Resource::NoFile, "Max open files", "files"),
    (Resource::Memlock, "Max locked memory", "bytes"),
    (Resource::As, "Max address space", "bytes"),
    (Resource::Locks, "Max file locks", "locks"),
    (Resource::Sigpending, "Max pending signals", "signals"),
    (Resource::Msgqueue, "Max msgqueue size", "bytes"),
    (Resource::Nice, "Max nice priority", ""),
    (Resource::Rtprio, "Max realtime priority", ""),
    (Resource::Rttime, "Max realtime timeout", "us"),
];

impl Resource {
    /// The resource with Linux's number. `EINVAL`.
    pub fn new(number: u32) -> Result<Resource> {
        RESOURCES.get(number as usize).map(|entry| entry.0).ok_or(Errno::EINVAL)
    }
}

/// A soft and a hard limit, as `struct rlimit64`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
pub struct Limit {
    /// What is enforced.
    pub soft: u64,
    /// How far the process may raise it.
    pub hard: u64,
}

/// All limits of a process.
#[derive(Clone, Debug)]
pub struct Limits([Limit; 16]);

impl Limits {
    /// Those of the first process on Linux; `threads` is half of what memory has room for, which limits processes and signals.
    pub fn initial(threads: u64) -> Limits {
        let mut limits = Limits([Limit { soft: INFINITY, hard: INFINITY }; 16]);
        let mut set = |resource: Resource, soft, hard| limits.0[resource as usize] = Limit { soft, hard };
        set(Resource::Stack, 8 << 20, INFINITY);
        set(Resource::Core, 0, INFINITY);
        set(Resource::Nproc, threads, threads);
        set(Resource::NoFile, 1024, 4096);
        set(Resource::Memlock, 8 << 20, 8 << 20);
        set(Resource::Sigpending, threads, threads);
        set(Resource::Msgqueue, 819_200, 819_200);
        set(Resource::Nice, 0, 0);
        set(Resource::Rtprio, 0, 0);
        limits
    }

    /// One of them.
    pub fn get(&self, resource: Resource) -> Limit {
        self.0[resource as usize]
    }

    /// Changes one. `EINVAL` (soft above hard), `EPERM` (hard raised without CAP_SYS_RESOURCE, or NOFILE above [`NR_OPEN`]).
    pub fn set(&mut self, resource: Resource, limit: Limit, cred: &Cred) -> Result<()> {
        if limit.soft > limit.hard {
            return Err(Errno::EINVAL);
        }
        if resource == Resource::NoFile && limit.hard > NR_OPEN {
            return Err(Errno::EPERM);
        }
        let slot = &mut self.0[resource as usize];
        if limit.hard > slot.hard && !cred.capable(Capability::SysResource) {
            return Err(Errno::EPERM);
        }
        *slot = limit;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::CapSet;

    #[test]
    fn numbers_name_resources() {
        for (index, (resource, ..)) in RESOURCES.iter().enumerate() {
            assert_eq!(Resource::new(index as u32), Ok(*resource));
            assert_eq!(*resource as usize, index);
        }
        assert_eq!(Resource::new(16), Err(Errno::EINVAL));
    }

    #[test]
    fn only_the_privileged_raise_hard_limits() {
        let nobody = Cred { effective: CapSet::empty(), ..Cred::root() };
        let mut limits = Limits::initial(100);
        let limit = |soft, hard| Limit { soft, hard };
        assert_eq!(limits.set(Resource::Nproc, limit(2, 1), &nobody), Err(Errno::EINVAL));
        assert_eq!(limits.set(Resource::Nproc, limit(10, 101), &nobody), Err(Errno::EPERM));
        assert_eq!(limits.set(Resource::Nproc, limit(10, 50), &nobody), Ok(()));
        assert_eq!(limits.set(Resource::Nproc, limit(10, 51), &nobody), Err(Errno::EPERM));
        assert_eq!(limits.set(Resource::Nproc, limit(10, 200), &Cred::root()), Ok(()));
        assert_eq!(limits.set(Resource::NoFile, limit(1, NR_OPEN + 1), &Cred::root()), Err(Errno::EPERM));
    }
}
