//! Provided buffers: a request names a group, and takes a buffer of it when there is data.

use alloc::collections::{BTreeMap, VecDeque};

use base::{Errno, Result};
use hal::user::{UserBuf, UserPtr};

/// A buffer that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Where it is.
    pub buffer: UserBuf,
    /// Its number, which goes into the completion.
    pub id: u16,
}

enum Group {
    /// Buffers that were handed over one by one (IORING_OP_PROVIDE_BUFFERS).
    List(VecDeque<Taken>),
    /// A ring in user memory (IORING_REGISTER_PBUF_RING), of so many entries; the program moves the tail, the kernel the head.
    Ring { at: usize, entries: u16, head: u16 },
}

/// The groups of a ring.
#[derive(Default)]
pub struct Groups {
    by_number: BTreeMap<u16, Group>,
    /// Buffers in all lists together.
    listed: usize,
}

/// The tail of a ring of buffers lies in the unused field of its first entry.
const TAIL_AT: usize = 14;
const ENTRY: usize = 16;
/// The most buffers in the list of a group (their numbers have 16 bits), and in all lists together.
const LIST_MAX: usize = 1 << 16;
const LISTED_MAX: usize = 1 << 20;

impl Groups {
    /// Adds `count` buffers of `len` bytes from `addr` on, numbered from `id` on. `EINVAL` where the group is a ring, `ENOMEM`.
    pub fn provide(&mut self, group: u16, addr: usize, len: usize, count: usize, id: u16) -> Result<()> {
        if self.listed + count > LISTED_MAX {
            return Err(Errno::ENOMEM);
        }
        let group = self.by_number.entry(group).or_insert_with(|| Group::List(VecDeque::new()));
        let Group::List(list) = group else { return Err(Errno::EINVAL) };
        if list.len() + count > LIST_MAX {
            return Err(Errno::ENOMEM);
        }
        list.try_reserve(count).map_err(|_| Errno::ENOMEM)?;
        for index in 0..count {
            let buffer = UserBuf::new(addr.wrapping_add(index * len), len);
            list.push_back(Taken { buffer, id: id.wrapping_add(index as u16) });
        }
        self.listed += count;
        Ok(())
    }

    /// Takes up to `count` buffers of a list out again; how many. `ENOENT`, `EINVAL` where it is a ring.
    pub fn remove(&mut self, group: u16, count: usize) -> Result<usize> {
        match self.by_number.get_mut(&group).ok_or(Errno::ENOENT)? {
            Group::List(list) => {
                let count = count.min(list.len());
                list.drain(..count);
                self.listed -= count;
                Ok(count)
            }
            Group::Ring { .. } => Err(Errno::EINVAL),
        }
    }

    /// Makes the group a ring in user memory. `EEXIST` where it is in use.
    pub fn register_ring(&mut self, group: u16, at: usize, entries: u16) -> Result<()> {
        let in_use = match self.by_number.get(&group) {
            Some(Group::List(list)) => !list.is_empty(),
            Some(Group::Ring { .. }) => true,
            None => false,
        };
        if in_use {
            return Err(Errno::EEXIST);
        }
        self.by_number.insert(group, Group::Ring { at, entries, head: 0 });
        Ok(())
    }

    /// Forgets a ring. `ENOENT`, `EINVAL` where the group is a list.
    pub fn unregister_ring(&mut self, group: u16) -> Result<()> {
        match self.by_number.get(&group) {
            None => Err(Errno::ENOENT),
            Some(Group::List(_)) => Err(Errno::EINVAL),
            Some(Group::Ring { .. }) => {
                self.by_number.remove(&group);
                Ok(())
            }
        }
    }

    /// The head of a ring (IORING_REGISTER_PBUF_STATUS). `ENOENT`, `EINVAL` where the group is a list.
    pub fn ring_head(&self, group: u16) -> Result<u16> {
        match self.by_number.get(&group).ok_or(Errno::ENOENT)? {
            Group::Ring { head, .. } => Ok(*head),
            Group::List(_) => Err(Errno::EINVAL),
        }
    }

    /// Takes the next buffer of a group, at most `len` bytes of it if `len` is not 0. `ENOBUFS`, `EFAULT`. May touch user memory.
    pub fn take(&mut self, group: u16, len: usize) -> Result<Taken> {
        let cut = |buffer: UserBuf| if len == 0 { buffer } else { UserBuf::new(buffer.addr, buffer.len.min(len)) };
        match self.by_number.get_mut(&group).ok_or(Errno::ENOBUFS)? {
            Group::List(list) => {
                let Taken { buffer, id } = list.pop_front().ok_or(Errno::ENOBUFS)?;
                self.listed -= 1;
                Ok(Taken { buffer: cut(buffer), id })
            }
            Group::Ring { at, entries, head } => {
                let tail = UserPtr::<u16>::new(*at + TAIL_AT).read()?;
                if tail == *head {
                    return Err(Errno::ENOBUFS);
                }
                let entry = *at + usize::from(*head & (*entries - 1)) * ENTRY;
                let addr = UserPtr::<u64>::new(entry).read()? as usize;
                let [size, id] = UserPtr::<[u32; 2]>::new(entry + 8).read()?;
                *head = head.wrapping_add(1);
                Ok(Taken { buffer: cut(UserBuf::new(addr, size as usize)), id: id as u16 })
            }
        }
    }

    /// Gives a buffer back that was taken last, and not used.
    pub fn give_back(&mut self, group: u16, taken: Taken, whole: UserBuf) {
        match self.by_number.get_mut(&group) {
            Some(Group::List(list)) => {
                list.push_front(Taken { buffer: whole, ..taken });
                self.listed += 1;
            }
            Some(Group::Ring { head, .. }) => *head = head.wrapping_sub(1),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_give_in_order_and_take_back() {
        let mut groups = Groups::default();
        assert_eq!(groups.take(1, 0), Err(Errno::ENOBUFS));
        groups.provide(1, 0x1000, 64, 2, 9).unwrap();
        let first = groups.take(1, 16).unwrap();
        assert_eq!(first, Taken { buffer: UserBuf::new(0x1000, 16), id: 9 });
        groups.give_back(1, first, UserBuf::new(0x1000, 64));
        assert_eq!(groups.take(1, 0).unwrap().buffer.len, 64);
        assert_eq!(groups.take(1, 0).unwrap().id, 10);
        assert_eq!(groups.take(1, 0), Err(Errno::ENOBUFS));
        assert_eq!(groups.remove(2, 1), Err(Errno::ENOENT));
    }
}
