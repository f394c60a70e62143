//! The little programs that `ss` sends to choose sockets (INET_DIAG_REQ_BYTECODE).

use core::net::IpAddr;

use base::{Errno, Result};

use crate::inet::Endpoint;
use crate::route::matches;

const OPERATION: usize = 4;
/// Bytes of `struct inet_diag_hostcond` without the address.
const HOST: usize = 8;

/// What a program looks at.
pub(super) struct Subject {
    pub(super) local: Endpoint,
    pub(super) remote: Endpoint,
    pub(super) device: u32,
    pub(super) mark: u32,
    /// The user has chosen the local port.
    pub(super) bound: bool,
}

#[derive(Clone, Copy)]
struct Step<'a> {
    code: u8,
    yes: usize,
    no: usize,
    rest: &'a [u8],
}

impl Step<'_> {
    fn at(program: &[u8]) -> Option<Step<'_>> {
        let head = program.first_chunk::<OPERATION>()?;
        let no = usize::from(u16::from_ne_bytes([head[2], head[3]]));
        Some(Step { code: head[0], yes: head[1].into(), no, rest: &program[OPERATION..] })
    }

    /// The number that follows in the next step's place.
    fn number(&self) -> usize {
        Step::at(self.rest).map_or(0, |next| next.no)
    }

    fn word(&self) -> Option<u32> {
        self.rest.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b))
    }

    fn holds(&self, subject: &Subject) -> bool {
        let (source, destination) = (usize::from(subject.local.port), usize::from(subject.remote.port));
        match self.code {
            0 => true,
            1 => false,
            2 => source >= self.number(),
            3 => source <= self.number(),
            4 => destination >= self.number(),
            5 => destination <= self.number(),
            6 => !subject.bound,
            7 => self.host(&subject.local),
            8 => self.host(&subject.remote),
            9 => self.word() == Some(subject.device),
            10 => {
                let mask = self.rest.get(4..8).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
                self.word() == Some(subject.mark & mask)
            }
            11 => source == self.number(),
            12 => destination == self.number(),
            _ => false,
        }
    }

    fn host(&self, end: &Endpoint) -> bool {
        let Some(head) = self.rest.first_chunk::<HOST>() else { return false };
        let (family, prefix) = (head[0], head[1]);
        let port = i32::from_ne_bytes([head[4], head[5], head[6], head[7]]);
        if port != -1 && port != i32::from(end.port) {
            return false;
        }
        if prefix == 0 {
            return true;
        }
        let address = &self.rest[HOST..];
        let network: Option<IpAddr> = match family {
            2 => address.first_chunk::<4>().map(|b| (*b).into()),
            _ => address.first_chunk::<16>().map(|b| (*b).into()),
        };
        network.is_some_and(|network| matches(end.ip, network, prefix))
    }
}

/// Is the program one that ends, and stays inside itself? `EINVAL`.
pub(super) fn check(program: &[u8]) -> Result<()> {
    let mut at = 0;
    while at < program.len() {
        let step = Step::at(&program[at..]).ok_or(Errno::EINVAL)?;
        let left = program.len() - at;
        let room = |jump: usize| jump >= OPERATION && jump.is_multiple_of(4) && jump <= left + OPERATION;
        if step.code > 13 || step.yes < OPERATION || step.yes > left || !step.yes.is_multiple_of(4) || !room(step.no) {
            return Err(Errno::EINVAL);
        }
        at += step.yes;
    }
    Ok(())
}

/// Does the program choose this socket? Each step goes forward, so it ends.
pub(super) fn run(program: &[u8], subject: &Subject) -> bool {
    let mut at = 0;
    while let Some(step) = program.get(at..).and_then(Step::at) {
        at += if step.holds(subject) { step.yes } else { step.no }.max(OPERATION);
    }
    // One step beyond the end means no.
    at == program.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(port: u16) -> Subject {
        let end = |port| Endpoint::new([10, 0, 0, 1].into(), port);
        Subject { local: end(port), remote: end(9), device: 0, mark: 0, bound: true }
    }

    #[test]
    fn ports_are_compared() {
        // S_GE 80, else out; the number is in the second step.
        let program = [2, 8, 12, 0, 0, 4, 80, 0];
        assert_eq!(check(&program), Ok(()));
        assert!(run(&program, &subject(80)) && !run(&program, &subject(79)));
    }

    #[test]
    fn programs_that_leave_themselves_are_refused() {
        for bad in [&[2, 3, 12, 0][..], &[2, 4, 64, 0], &[2, 16, 8, 0], &[99, 4, 8, 0], &[2, 4]] {
            assert_eq!(check(bad), Err(Errno::EINVAL), "{bad:?}");
        }
    }
}
