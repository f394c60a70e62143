//! userfaultfd(2): page faults as messages of a file, and the ioctls that resolve them (ioctl_userfaultfd(2)). The mechanism is in
//! [`mm::userfault`].

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use base::{Capability, Errno, Events, Result};
use fs::chardev::{self, OpenWith};
use fs::procfs::{file_rw, register_sysctl};
use fs::vfs::pseudo::open_anonymous;
use fs::{DeviceNumber, File, FileKind, FsContext, Io, IoctlContext, OpenFile, OpenFlags, PollTable, devices};
use hal::user::UserPtr;
use mm::userfault::{Features, Kind, Message, Modes, Monitor};
use mm::{AddressSpace, Fill, Sink};

/// UFFD_API.
const API: u64 = 0xaa;

/// The requests of ioctl(2), with the sizes of their arguments.
mod request {
    pub(super) const API: u32 = 0xc018_aa3f;
    pub(super) const REGISTER: u32 = 0xc020_aa00;
    pub(super) const UNREGISTER: u32 = 0x8010_aa01;
    pub(super) const WAKE: u32 = 0x8010_aa02;
    pub(super) const COPY: u32 = 0xc028_aa03;
    pub(super) const ZEROPAGE: u32 = 0xc020_aa04;
    pub(super) const WRITEPROTECT: u32 = 0xc018_aa06;
    pub(super) const CONTINUE: u32 = 0xc020_aa07;
    /// USERFAULTFD_IOC_NEW, of the device.
    pub(super) const NEW: u32 = 0xaa00;
}

/// A bit for each request that a descriptor takes, and that a range takes, by their numbers.
const API_IOCTLS: u64 = 1 | 1 << 1 | 1 << 0x3f;
const RANGE_IOCTLS: u64 = 1 << 2 | 1 << 3 | 1 << 4;
const RANGE_WRITEPROTECT: u64 = 1 << 6;
const RANGE_CONTINUE: u64 = 1 << 7;

/// UFFDIO_*_MODE_DONTWAKE, and the bit for write protection of UFFDIO_COPY; UFFDIO_WRITEPROTECT has them the other way round.
const DONT_WAKE: u64 = 1;
const COPY_PROTECTED: u64 = 2;
const PROTECT: u64 = 1;
const PROTECT_DONT_WAKE: u64 = 2;

/// UFFD_USER_MODE_ONLY.
pub const USER_MODE_ONLY: u32 = 1;

const MESSAGE: usize = 32;

/// `vm.unprivileged_userfaultfd`.
static UNPRIVILEGED: AtomicBool = AtomicBool::new(false);

struct UserFault {
    monitor: Arc<Monitor>,
    /// O_CLOEXEC and O_NONBLOCK as it was made, which the descriptors of children get too.
    flags: OpenFlags,
}

/// userfaultfd(2), on the memory of the caller. `EINVAL`.
pub fn create(space: &Arc<AddressSpace>, flags: u32) -> Result<Arc<OpenFile>> {
    let known = OpenFlags::CLOEXEC.bits() | OpenFlags::NONBLOCK.bits() | USER_MODE_ONLY;
    if flags & !known != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(open(Monitor::new(space, flags & USER_MODE_ONLY != 0), OpenFlags::from_bits_retain(flags)))
}

fn open(monitor: Arc<Monitor>, flags: OpenFlags) -> Arc<OpenFile> {
    open_anonymous(Arc::new(UserFault { monitor, flags }), "[userfaultfd]", flags & OpenFlags::NONBLOCK)
}

/// May anybody be told of faults in the kernel?
pub fn is_unprivileged_allowed() -> bool {
    UNPRIVILEGED.load(Ordering::Relaxed)
}

impl UserFault {
    fn features(&self) -> Result<Features> {
        self.monitor.features().ok_or(Errno::EINVAL)
    }

    /// The bytes of `struct uffd_msg`. `EMFILE` where a fork's monitor gets no descriptor.
    fn encode(&self, message: Message) -> Result<[u8; MESSAGE]> {
        let (event, words): (u8, [u64; 3]) = match message {
            Message::Fault { address, write, kind, thread } => {
                let why = match kind {
                    Kind::Missing => 0,
                    Kind::WriteProtected => 2,
                    Kind::Minor => 4,
                };
                (0x12, [u64::from(write) | why, address as u64, thread as u64])
            }
            Message::Fork(child) => {
                let made = open(child, self.flags);
                let close_on_exec = self.flags.contains(OpenFlags::CLOEXEC);
                (0x13, [fs::callers::get()?.install(made, close_on_exec)? as u64, 0, 0])
            }
            Message::Remap { from, to, len } => (0x14, [from as u64, to as u64, len as u64]),
            Message::Remove(start, end) => (0x15, [start as u64, end as u64, 0]),
            Message::Unmap(start, end) => (0x16, [start as u64, end as u64, 0]),
        };
        let mut bytes = [0; MESSAGE];
        bytes[0] = event;
        for (place, word) in bytes[8..].chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        Ok(bytes)
    }

    /// UFFDIO_API: chooses features; the answer tells all there are. `EINVAL`, `EPERM`, `EFAULT`.
    fn enable(&self, cx: &IoctlContext, arg: usize) -> Result<usize> {
        let pointer = UserPtr::<[u64; 3]>::new(arg);
        let [api, wanted, _] = pointer.read()?;
        let chosen = Features::from_bits(wanted).filter(|_| api == API).ok_or(Errno::EINVAL).and_then(|wanted| {
            if wanted.contains(Features::EVENT_FORK) && !cx.cred.capable(Capability::SysPtrace) {
                return Err(Errno::EPERM);
            }
            pointer.write(&[API, Features::all().bits(), API_IOCTLS])?;
            self.monitor.enable(wanted)
        });
        if let Err(error @ (Errno::EINVAL | Errno::EPERM)) = chosen {
            pointer.write(&[0; 3])?;
            return Err(error);
        }
        chosen.map(|()| 0)
    }

    fn register(&self, arg: usize) -> Result<usize> {
        let [start, len, mode] = UserPtr::<[u64; 3]>::new(arg).read()?;
        let modes = u8::try_from(mode).ok().and_then(Modes::from_bits).filter(|modes| !modes.is_empty());
        let modes = modes.ok_or(Errno::EINVAL)?;
        let space = self.monitor.space().map_err(|_| Errno::ENOMEM)?;
        space.watch(&self.monitor, start as usize, len as usize, modes)?;
        let mut ioctls = RANGE_IOCTLS;
        if modes.contains(Modes::WRITE_PROTECT) {
            ioctls |= RANGE_WRITEPROTECT;
        }
        if modes.contains(Modes::MINOR) {
            ioctls |= RANGE_CONTINUE;
        }
        UserPtr::<u64>::new(arg + 24).write(&ioctls)?;
        Ok(0)
    }

    fn wake(&self, arg: usize) -> Result<usize> {
        let [start, len] = UserPtr::<[u64; 2]>::new(arg).read()?;
        let end = mm::userfault::end_of(start as usize, len as usize)?;
        self.monitor.wake(start as usize, end);
        Ok(0)
    }

    /// Puts pages in, tells how many bytes at `told`, and wakes who waited for them. `EAGAIN` where that was not all.
    fn fill(&self, (start, len): (u64, u64), fill: &Fill, mode: u64, told: usize) -> Result<usize> {
        let space = self.monitor.space()?;
        let filled = space.fill(&self.monitor, start as usize, len as usize, fill, mode & COPY_PROTECTED != 0);
        let number = match filled {
            Ok(bytes) => bytes as i64,
            Err(error) => -i64::from(error.code()),
        };
        UserPtr::<i64>::new(told).write(&number)?;
        let bytes = filled?;
        if mode & DONT_WAKE == 0 {
            self.monitor.wake(start as usize, start as usize + bytes);
        }
        if bytes as u64 == len { Ok(0) } else { Err(Errno::EAGAIN) }
    }

    /// `EAGAIN` where the memory is being changed.
    fn settled(&self) -> Result<()> {
        if self.monitor.is_changing() { Err(Errno::EAGAIN) } else { Ok(()) }
    }

    fn copy(&self, arg: usize) -> Result<usize> {
        self.settled()?;
        let [to, from, len, mode] = UserPtr::<[u64; 4]>::new(arg).read()?;
        mm::userfault::end_of(to as usize, len as usize)?;
        let wraps = from.checked_add(len).is_none_or(|end| end <= from);
        if wraps || mode & !(DONT_WAKE | COPY_PROTECTED) != 0 {
            return Err(Errno::EINVAL);
        }
        self.fill((to, len), &Fill::Copy(from as usize), mode, arg + 32)
    }

    /// UFFDIO_ZEROPAGE and UFFDIO_CONTINUE.
    fn fill_range(&self, arg: usize, fill: &Fill) -> Result<usize> {
        self.settled()?;
        let [start, len, mode] = UserPtr::<[u64; 3]>::new(arg).read()?;
        mm::userfault::end_of(start as usize, len as usize)?;
        if mode & !DONT_WAKE != 0 {
            return Err(Errno::EINVAL);
        }
        self.fill((start, len), fill, mode, arg + 24)
    }

    fn protect(&self, arg: usize) -> Result<usize> {
        self.settled()?;
        let [start, len, mode] = UserPtr::<[u64; 3]>::new(arg).read()?;
        let end = mm::userfault::end_of(start as usize, len as usize)?;
        let (protect, silent) = (mode & PROTECT != 0, mode & PROTECT_DONT_WAKE != 0);
        if mode & !(PROTECT | PROTECT_DONT_WAKE) != 0 || protect && silent {
            return Err(Errno::EINVAL);
        }
        self.monitor.space()?.guard(&self.monitor, start as usize, len as usize, protect)?;
        if !protect && !silent {
            self.monitor.wake(start as usize, end);
        }
        Ok(0)
    }
}

impl File for UserFault {
    fn read(&self, sink: &mut Sink, io: &mut Io) -> Result<usize> {
        self.features()?;
        let mut done = 0;
        loop {
            if sink.remaining() < MESSAGE {
                return if done > 0 { Ok(done) } else { Err(Errno::EINVAL) };
            }
            // Only the first is waited for.
            let bytes = match self.monitor.next(io.nonblocking() || done > 0).and_then(|message| self.encode(message)) {
                Ok(bytes) => bytes,
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(error),
            };
            match sink.put(&bytes) {
                Ok(MESSAGE) => done += MESSAGE,
                _ if done > 0 => return Ok(done),
                _ => return Err(Errno::EFAULT),
            }
        }
    }

    fn poll(&self, table: &mut PollTable) -> Events {
        table.register(&self.monitor.readers);
        // poll(2) says nothing about a read that would block, so it is not for files that do.
        match self.monitor.features() {
            Some(_) if table.is_nonblocking() => {}
            _ => return Events::ERR,
        }
        if self.monitor.is_ready() { Events::IN } else { Events::empty() }
    }

    fn ioctl(&self, cx: &IoctlContext, request: u32, arg: usize) -> Result<usize> {
        if request != request::API {
            self.features()?;
        }
        match request {
            request::API => self.enable(cx, arg),
            request::REGISTER => self.register(arg),
            request::UNREGISTER => {
                let [start, len] = UserPtr::<[u64; 2]>::new(arg).read()?;
                let space = self.monitor.space().map_err(|_| Errno::ENOMEM)?;
                space.unregister(start as usize, len as usize).map(|()| 0)
            }
            request::WAKE => self.wake(arg),
            request::COPY => self.copy(arg),
            request::ZEROPAGE => self.fill_range(arg, &Fill::Zero),
            request::CONTINUE => self.fill_range(arg, &Fill::Continue),
            request::WRITEPROTECT => self.protect(arg),
            _ => Err(Errno::EINVAL),
        }
    }

    fn release(&self, _flags: OpenFlags) {
        self.monitor.release();
    }

    fn fdinfo(&self) -> Vec<u8> {
        let (pending, total) = self.monitor.counts();
        let features = self.monitor.features().map_or(0, |features| features.bits());
        let all = Features::all().bits() | API_IOCTLS;
        format!("pending:\t{pending}\ntotal:\t{total}\nAPI:\t{API:x}:{features:x}:{all:x}\n").into_bytes()
    }
}

/// `/dev/userfaultfd`: who may open it may be told of faults in the kernel.
struct Device;

impl File for Device {
    fn ioctl(&self, cx: &IoctlContext, request: u32, arg: usize) -> Result<usize> {
        if request != request::NEW {
            return Err(Errno::EINVAL);
        }
        let flags = u32::try_from(arg).map_err(|_| Errno::EINVAL)?;
        let space = fs::callers::get()?.address_space()?;
        let made = create(&space, flags)?;
        let fd = (cx.install)(made, flags & OpenFlags::CLOEXEC.bits() != 0)?;
        Ok(fd as usize)
    }
}

/// Shows the device and the setting. Once, at boot.
pub fn register() -> Result<()> {
    const NUMBER: DeviceNumber = DeviceNumber { major: 10, minor: 126 };
    let opener = |_: DeviceNumber, _: &FsContext, _: OpenFlags| -> Result<Arc<dyn File>> { Ok(Arc::new(Device)) };
    chardev::register(
        "userfaultfd",
        NUMBER.major,
        NUMBER.minor,
        NUMBER.minor,
        Arc::new(OpenWith(alloc::boxed::Box::new(opener))),
    )?;
    devices::add_node("userfaultfd", FileKind::CharDevice, 0o600, 0, NUMBER)?;
    let shown = || Ok(format!("{}\n", u8::from(is_unprivileged_allowed())).into_bytes());
    let set = |data: &[u8]| {
        let allowed = match data.trim_ascii() {
            b"0" => false,
            b"1" => true,
            _ => return Err(Errno::EINVAL),
        };
        UNPRIVILEGED.store(allowed, Ordering::Relaxed);
        Ok(())
    };
    register_sysctl("vm", "unprivileged_userfaultfd", file_rw(shown, set));
    Ok(())
}
