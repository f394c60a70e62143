//! `/dev/null`, `zero`, `full`, `random` and `urandom` (null(4), full(4), random(4)).

use alloc::sync::Arc;

use base::{Capability, Errno, Result};
use hal::user::UserPtr;
use mm::{Sink, Source};

use crate::{DeviceNumber, File, Io, IoctlContext, Mapping, OpenFlags, SeekFrom, chardev};

/// What is read from a device, and what becomes of what is written.
enum Bytes {
    Null,
    Zero,
    Full,
}

struct Simple(Bytes);

impl File for Simple {
    fn read(&self, sink: &mut Sink, _io: &mut Io) -> Result<usize> {
        if matches!(self.0, Bytes::Null) {
            return Ok(0);
        }
        let mut total = 0;
        while sink.remaining() > 0 {
            // In pieces, so that a huge read lets others run.
            match sink.put_zeros(1 << 16) {
                Ok(n) => total += n,
                Err(_) if total > 0 => break,
                Err(error) => return Err(error),
            }
            sched::preempt_point();
        }
        Ok(total)
    }

    fn write(&self, source: &mut Source, _io: &mut Io) -> Result<usize> {
        match self.0 {
            Bytes::Full => Err(Errno::ENOSPC),
            Bytes::Null | Bytes::Zero => Ok(source.remaining()),
        }
    }

    fn positioned(&self) -> bool {
        true
    }

    fn seek(&self, _to: SeekFrom, _position: u64) -> Result<u64> {
        Ok(0)
    }

    fn mapping(&self) -> Result<Mapping> {
        if matches!(self.0, Bytes::Zero) { Ok(Mapping::Zeros) } else { Err(Errno::ENODEV) }
    }
}

/// The source of random bytes.
pub struct Random;

impl Random {
    /// Fills the sink. Large requests end early at a signal, as random(4) says.
    pub fn fill(sink: &mut Sink) -> Result<usize> {
        let mut total = 0;
        let mut chunk = [0; 256];
        while sink.remaining() > 0 {
            hal::random::fill(&mut chunk);
            match sink.put(&chunk) {
                Ok(n) => total += n,
                Err(_) if total > 0 => break,
                Err(error) => return Err(error),
            }
            if total % 4096 == 0 {
                if sched::with_current(|thread| thread.interrupted()) {
                    break;
                }
                sched::preempt_point();
            }
        }
        Ok(total)
    }
}

/// ioctls of random(4).
mod request {
    pub(super) const RNDGETENTCNT: u32 = 0x8004_5200;
    pub(super) const RNDADDTOENTCNT: u32 = 0x4004_5201;
    pub(super) const RNDADDENTROPY: u32 = 0x4008_5203;
    pub(super) const RNDZAPENTCNT: u32 = 0x5204;
    pub(super) const RNDCLEARPOOL: u32 = 0x5206;
    pub(super) const RNDRESEEDCRNG: u32 = 0x5207;
}

impl File for Random {
    fn read(&self, sink: &mut Sink, _io: &mut Io) -> Result<usize> {
        Random::fill(sink)
    }

    fn write(&self, source: &mut Source, _io: &mut Io) -> Result<usize> {
        let mut total = 0;
        let mut chunk = [0; 64];
        while source.remaining() > 0 {
            let n = match source.take(&mut chunk) {
                Ok(n) => n,
                Err(_) if total > 0 => break,
                Err(error) => return Err(error),
            };
            hal::random::mix(&chunk[..n]);
            total += n;
        }
        Ok(total)
    }

    fn ioctl(&self, cx: &IoctlContext, request: u32, arg: usize) -> Result<usize> {
        use request::*;
        match request {
            RNDGETENTCNT => UserPtr::new(arg).write(&256i32)?,
            RNDADDTOENTCNT | RNDADDENTROPY | RNDZAPENTCNT | RNDCLEARPOOL | RNDRESEEDCRNG => {
                if !cx.cred.capable(Capability::SysAdmin) {
                    return Err(Errno::EPERM);
                }
                if request == RNDADDENTROPY {
                    // An entropy count, a length, and the bytes.
                    let [_, len] = UserPtr::<[i32; 2]>::new(arg).read()?;
                    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
                    let bytes = [hal::user::UserBuf::new(arg.wrapping_add(8), len.min(4096))];
                    self.write(&mut Source::user(&bytes), &mut Io { offset: 0, flags: OpenFlags::empty() })?;
                }
            }
            _ => return Err(Errno::EINVAL),
        }
        Ok(0)
    }

    fn seek(&self, _to: SeekFrom, _position: u64) -> Result<u64> {
        Ok(0)
    }

    fn positioned(&self) -> bool {
        true
    }
}

pub(super) fn register() -> Result<()> {
    let mem = |minor| DeviceNumber::new(1, minor);
    chardev::register_file("mem", mem(3), Arc::new(Simple(Bytes::Null)))?;
    chardev::register_file("mem", mem(5), Arc::new(Simple(Bytes::Zero)))?;
    chardev::register_file("mem", mem(7), Arc::new(Simple(Bytes::Full)))?;
    chardev::register_file("mem", mem(8), Arc::new(Random))?;
    chardev::register_file("mem", mem(9), Arc::new(Random))
}
