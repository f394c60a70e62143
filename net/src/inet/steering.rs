//! Programs that choose among the sockets that share a port (SO_ATTACH_REUSEPORT_CBPF: socket(7)).
//!
//! Sockets with SO_REUSEPORT at the same address and port share one [`Steering`], whoever of them attached the program and whether or not that one
//! still lives. A socket may have its own before it is bound: it can then be the first at its port, but not join others.

use alloc::sync::Arc;

use base::{Errno, Result};
use bpf::{Data, Program};
use hal::sync::SpinLock;

use crate::filter;
use crate::options::{Options, level, option};
use crate::packet::Rope;

/// The choice among sockets at one address and port.
#[derive(Default)]
pub struct Steering {
    program: SpinLock<Option<Arc<Program>>>,
}

impl Steering {
    /// Which of `count` sockets gets what `data` shows; `None` where there is no program or it names none of them.
    fn choose(&self, count: usize, data: &dyn Data) -> Option<usize> {
        let program = self.program.lock().clone()?;
        Some(program.run(data) as usize).filter(|&chosen| chosen < count)
    }
}

/// The place of the socket among equals that is to get what `data` shows: by their program, or else by `hash`; `None` where they don't all share.
pub(crate) fn select<'a>(
    equals: impl ExactSizeIterator<Item = &'a Options> + Clone,
    data: &dyn Data,
    hash: u64,
) -> Option<usize> {
    if !equals.clone().all(|options| options.flag(option::SO_REUSEPORT)) {
        return None;
    }
    let count = equals.len();
    let steering = equals.clone().next()?.steering.lock().clone();
    let chosen = steering.and_then(|steering| steering.choose(count, data));
    Some(chosen.unwrap_or(hash as usize % count))
}

/// SO_ATTACH_REUSEPORT_CBPF for a socket that is bound or not. `EINVAL` without SO_REUSEPORT, or for a bad program; `EPERM` where filters are
/// locked, `EFAULT`.
pub(crate) fn attach(options: &Options, bound: bool, raw: &[u8]) -> Result<()> {
    let program = filter::parse(raw.try_into().map_err(|_| Errno::EINVAL)?)?;
    if options.filter.is_locked() {
        return Err(Errno::EPERM);
    }
    let mut own = options.steering.lock();
    if own.is_none() && (bound || !options.flag(option::SO_REUSEPORT)) {
        return Err(Errno::EINVAL);
    }
    let steering = own.get_or_insert_default().clone();
    drop(own);
    *steering.program.lock() = Some(Arc::new(program));
    Ok(())
}

/// SO_DETACH_REUSEPORT_BPF. `ENOENT` where there is no program, `EINVAL` where the port is not shared.
pub(crate) fn detach(options: &Options) -> Result<()> {
    let none = if options.flag(option::SO_REUSEPORT) { Errno::ENOENT } else { Errno::EINVAL };
    let steering = options.steering.lock().clone().ok_or(none)?;
    steering.program.lock().take().map(drop).ok_or(Errno::ENOENT)
}

/// Sets an option of a socket, if it is one of these.
pub(crate) fn set_option(options: &Options, bound: bool, at: i32, name: i32, value: &[u8]) -> Option<Result<()>> {
    match name {
        _ if at != level::SOL_SOCKET => None,
        option::SO_ATTACH_REUSEPORT_CBPF => Some(attach(options, bound, value)),
        option::SO_DETACH_REUSEPORT_BPF => Some(detach(options)),
        _ => None,
    }
}

/// A segment as a program sees it: its data alone.
pub(crate) struct Payload<'a>(pub(crate) &'a Rope);

impl Data for Payload<'_> {
    fn len(&self) -> u32 {
        self.0.len() as u32
    }

    fn load(&self, offset: i32, size: usize) -> Option<u32> {
        let mut bytes = [0; 4];
        match usize::try_from(offset) {
            Ok(at) => (self.0.read(at, &mut bytes[4 - size..]) == size).then(|| u32::from_be_bytes(bytes)),
            Err(_) => filter::about_machine(offset),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use bpf::Instruction;

    /// Takes the first four bytes modulo `k`.
    fn modulo(k: u32) -> Program {
        let step = |code, k| Instruction { code, jt: 0, jf: 0, k };
        Program::new(vec![step(0x20, 0), step(0x94, k), step(0x16, 0)]).unwrap()
    }

    struct Word(u32);

    impl Data for Word {
        fn len(&self) -> u32 {
            4
        }

        fn load(&self, offset: i32, size: usize) -> Option<u32> {
            (offset == 0 && size == 4).then_some(self.0)
        }
    }

    #[test]
    fn a_program_chooses_and_the_hash_stands_in() {
        let sockets = [(); 3].map(|()| Options::default());
        let of = |word, hash: u64| select(sockets.iter(), &Word(word), hash);
        assert_eq!(of(0, 7), None);
        for socket in &sockets {
            socket.set_flag(option::SO_REUSEPORT, true);
        }
        assert_eq!(of(5, 7), Some(1));
        let steering = Arc::new(Steering::default());
        *steering.program.lock() = Some(Arc::new(modulo(4)));
        *sockets[0].steering.lock() = Some(steering);
        assert_eq!((of(6, 7), of(3, 7)), (Some(2), Some(1)));
    }

    #[test]
    fn who_may_detach() {
        let socket = Options::default();
        assert_eq!(detach(&socket), Err(Errno::EINVAL));
        socket.set_flag(option::SO_REUSEPORT, true);
        assert_eq!(detach(&socket), Err(Errno::ENOENT));
        *socket.steering.lock() = Some(Arc::default());
        assert_eq!(detach(&socket), Err(Errno::ENOENT));
    }
}
