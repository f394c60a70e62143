//! Datagrams that wait to be received.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::IpAddr;

use base::Nanos;

use super::address::Endpoint;
use crate::packet::Rope;

/// A datagram.
#[derive(Clone, Debug)]
pub(super) struct Datagram {
    pub(super) data: Rope,
    pub(super) from: Endpoint,
    pub(super) to: IpAddr,
    pub(super) interface: u32,
    pub(super) ttl: u8,
    pub(super) tos: u8,
    /// On the real-time clock.
    pub(super) received: Nanos,
    /// The options of its IPv4 header.
    pub(super) options: Vec<u8>,
    /// The size of the datagrams that it is a lump of; 0 for a single one.
    pub(super) segment: u16,
}

/// What waits on a socket.
#[derive(Default)]
pub(super) struct Inbox {
    datagrams: VecDeque<Datagram>,
    size: usize,
}

/// What a datagram costs besides its bytes.
const OVERHEAD: usize = 512;

impl Inbox {
    /// Adds one; false if `limit` is reached.
    pub(super) fn push(&mut self, datagram: Datagram, limit: usize) -> bool {
        let size = datagram.data.true_size() + OVERHEAD;
        if self.size + size > limit && !self.datagrams.is_empty() || self.datagrams.try_reserve(1).is_err() {
            return false;
        }
        self.size += size;
        self.datagrams.push_back(datagram);
        true
    }

    pub(super) fn pop(&mut self) -> Option<Datagram> {
        let datagram = self.datagrams.pop_front()?;
        self.size -= datagram.data.true_size() + OVERHEAD;
        Some(datagram)
    }

    pub(super) fn first(&self) -> Option<&Datagram> {
        self.datagrams.front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn drain(&mut self) -> VecDeque<Datagram> {
        self.size = 0;
        core::mem::take(&mut self.datagrams)
    }
}
