//! Argument and environment strings on their way from the old program to the new.

use alloc::vec::Vec;

use base::{Errno, Result};
use hal::user::{UserPtr, copy_in};

/// The longest string with its NUL (MAX_ARG_STRLEN).
const MAX_STRING: usize = 32 * 4096;
/// The most that all may take, whatever the stack's limit (three quarters of Linux's default stack).
const MAX_TOTAL: u64 = 6 << 20;
/// What they may take at least.
const MIN_TOTAL: u64 = 128 << 10;

/// Strings one after another, each with its NUL.
#[derive(Clone, Default, Debug)]
pub struct Strings {
    bytes: Vec<u8>,
    count: usize,
}

impl Strings {
    /// The strings.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.split_inclusive(|&b| b == 0)
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many strings.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Adds a string. It must hold no NUL. `ENOMEM`.
    pub fn push(&mut self, string: &[u8]) -> Result<()> {
        self.bytes.try_reserve(string.len() + 1).map_err(|_| Errno::ENOMEM)?;
        self.bytes.extend_from_slice(string);
        self.bytes.push(0);
        self.count += 1;
        Ok(())
    }

    /// Of these.
    pub fn of(strings: &[&[u8]]) -> Result<Strings> {
        let mut all = Strings::default();
        strings.iter().try_for_each(|string| all.push(string))?;
        Ok(all)
    }

    /// These in the place of the first (a script's interpreter, its argument, the script). `ENOMEM`.
    pub fn replace_first(&mut self, new: &[&[u8]]) -> Result<()> {
        let mut all = Strings::of(new)?;
        for string in self.iter().skip(1) {
            all.push(string.strip_suffix(&[0]).unwrap_or(string))?;
        }
        *self = all;
        Ok(())
    }

    /// Copies a NULL-terminated array of strings in; NULL counts as an empty one. `room` is what is left of the total, and is
    /// reduced. `EFAULT`, `E2BIG`, `ENOMEM`.
    pub fn from_user(array: UserPtr<usize>, room: &mut Room) -> Result<Strings> {
        let mut all = Strings::default();
        let Some(array) = array.non_null() else { return Ok(all) };
        for index in 0.. {
            let at = array.at(index).read()?;
            if at == 0 {
                break;
            }
            room.take(size_of::<usize>())?;
            all.append_user(at, room)?;
            if index % 64 == 0 {
                sched::preempt_point();
            }
        }
        Ok(all)
    }

    fn append_user(&mut self, at: usize, room: &mut Room) -> Result<()> {
        const STEP: usize = 256;
        let start = self.bytes.len();
        loop {
            let done = self.bytes.len() - start;
            if done >= MAX_STRING {
                return Err(Errno::E2BIG);
            }
            let from = at.checked_add(done).ok_or(Errno::EFAULT)?;
            // Not past the page's end in one step: the string may end before an unmapped page.
            let step = STEP.min(abi::PAGE_SIZE - from % abi::PAGE_SIZE);
            let mut piece = [0; STEP];
            copy_in(&mut piece[..step], from)?;
            let end = piece[..step].iter().position(|&b| b == 0);
            let taken = end.map_or(step, |end| end + 1);
            room.take(taken)?;
            self.bytes.try_reserve(taken).map_err(|_| Errno::ENOMEM)?;
            self.bytes.extend_from_slice(&piece[..taken]);
            if end.is_some() {
                self.count += 1;
                return Ok(());
            }
        }
    }
}

/// What is left of the room for strings and the pointers to them.
pub struct Room(u64);

impl Room {
    /// The room under a stack limit of `stack` bytes.
    pub fn under(stack: u64) -> Room {
        Room((stack / 4).clamp(MIN_TOTAL, MAX_TOTAL))
    }

    fn take(&mut self, bytes: usize) -> Result<()> {
        self.0 = self.0.checked_sub(bytes as u64).ok_or(Errno::E2BIG)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_replace_the_first_argument() {
        let mut args = Strings::of(&[b"name", b"a", b""]).unwrap();
        args.replace_first(&[b"/bin/sh", b"-e", b"./script"]).unwrap();
        let all: Vec<&[u8]> = args.iter().collect();
        assert_eq!(all, [b"/bin/sh\0".as_slice(), b"-e\0", b"./script\0", b"a\0", b"\0"]);
        assert_eq!(args.count(), 5);
    }

    #[test]
    fn room_follows_the_stack_limit_between_its_bounds() {
        assert_eq!(Room::under(0).0, MIN_TOTAL);
        assert_eq!(Room::under(8 << 20).0, 2 << 20);
        assert_eq!(Room::under(u64::MAX).0, MAX_TOTAL);
        let mut room = Room(10);
        assert_eq!(room.take(10), Ok(()));
        assert_eq!(room.take(1), Err(Errno::E2BIG));
    }
}
