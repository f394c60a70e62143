//! Packets that wait to be read from a packet socket.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use base::{Nanos, Result};
use mm::Sink;

use super::option::{AUXDATA, SOL_PACKET};
use super::{ADDRESS, AF_PACKET, PacketSocket};
use crate::link::{ethernet, tunnel};
use crate::packet::{Checksum, Packet};
use crate::socket::{ControlMessage, MessageFlags, Received};

/// A packet as a socket was shown it.
#[derive(Clone)]
pub(super) struct Captured {
    pub(super) packet: Packet,
    /// Bytes of an Ethernet header of zeros in front.
    pub(super) before: usize,
    /// Bytes of the packet that the socket does not get.
    pub(super) skip: usize,
    /// The EtherType.
    pub(super) kind: u16,
    /// How much of it the filter lets through.
    pub(super) limit: usize,
    pub(super) interface: u32,
    pub(super) hardware: u16,
    pub(super) has_address: bool,
    pub(super) sender: [u8; 6],
    pub(super) time: Nanos,
}

impl Captured {
    /// Bytes of the whole packet as the socket sees it.
    pub(super) fn whole(&self) -> usize {
        (self.before + self.packet.len()).saturating_sub(self.skip)
    }

    /// Bytes that the socket gets.
    pub(super) fn len(&self) -> usize {
        self.whole().min(self.limit)
    }

    /// Bytes of the link header as the socket sees it.
    pub(super) fn link(&self) -> usize {
        self.before + usize::from(self.packet.link).saturating_sub(self.skip)
    }

    /// Copies from the beginning; how many bytes there were.
    pub(super) fn read(&self, dst: &mut [u8]) -> usize {
        let n = dst.len().min(self.len());
        let front = self.before.min(n);
        let mut made = [0; ethernet::HEADER];
        made[12..14].copy_from_slice(&self.kind.to_be_bytes());
        dst[..front].copy_from_slice(&made[..front]);
        front + self.packet.read(self.skip, &mut dst[front..n])
    }

    /// TP_STATUS_* about the packet.
    pub(super) fn status(&self) -> u32 {
        const CHECKSUM_NOT_READY: u32 = 8;
        const CHECKSUM_VALID: u32 = 0x80;
        match self.packet.checksum {
            Checksum::Partial { .. } => CHECKSUM_NOT_READY,
            Checksum::Good => CHECKSUM_VALID,
            Checksum::Unknown => 0,
        }
    }

    /// `struct sockaddr_ll`.
    pub(super) fn address(&self) -> [u8; ADDRESS] {
        let mut out = [0; ADDRESS];
        out[..2].copy_from_slice(&(AF_PACKET as u16).to_ne_bytes());
        out[2..4].copy_from_slice(&self.kind.to_be_bytes());
        out[4..8].copy_from_slice(&self.interface.to_ne_bytes());
        out[8..10].copy_from_slice(&self.hardware.to_ne_bytes());
        out[10] = self.packet.addressed as u8;
        out[11] = if self.has_address { 6 } else { 0 };
        out[12..18].copy_from_slice(&self.sender);
        out
    }

    /// `struct tpacket_auxdata`.
    fn auxiliary(&self) -> Vec<u8> {
        const USER: u32 = 1;
        let words = [USER | self.status(), self.whole() as u32, self.len() as u32];
        let mut out = words.map(u32::to_ne_bytes).concat();
        let network = self.link() as u16;
        out.extend_from_slice(&[0, network, 0, 0].map(u16::to_ne_bytes).concat());
        out
    }

    /// Stores it where recvmsg(2) wants it.
    pub(super) fn give(&self, socket: &PacketSocket, sink: &mut Sink, flags: MessageFlags) -> Result<Received> {
        let mut stored = 0;
        if socket.flags.vnet_header.load(Ordering::Relaxed) {
            let header = tunnel::vnet_header(&self.packet);
            if sink.remaining() < header.len() {
                return Err(base::Errno::EINVAL);
            }
            stored += sink.put(&header)?;
        }
        let mut chunk = [0; 512];
        let headers = (self.before + self.packet.head().len()).saturating_sub(self.skip);
        let front = headers.min(self.len()).min(chunk.len());
        let front = self.read(&mut chunk[..front]).min(sink.remaining());
        let mut data = if front > 0 { sink.put(&chunk[..front])? } else { 0 };
        let want = self.len() - front.min(self.len());
        if want > 0 && sink.remaining() > 0 {
            let rest = self.packet.payload.slice(0, want.min(sink.remaining()));
            data += rest.put(sink)?;
        }
        stored += data;
        let mut received = Received { len: stored, from: self.address().to_vec(), ..Received::default() };
        if data < self.len() {
            received.flags |= MessageFlags::TRUNC;
            if flags.contains(MessageFlags::TRUNC) {
                received.len = stored - data + self.len();
            }
        }
        if socket.flags.auxiliary.load(Ordering::Relaxed) {
            let data = self.auxiliary();
            received.control.messages.push(ControlMessage { level: SOL_PACKET, kind: AUXDATA, data });
        }
        crate::options::stamp(&socket.options, self.time, &mut received.control.messages);
        Ok(received)
    }
}

/// What waits on a socket.
#[derive(Default)]
pub(super) struct Queue {
    packets: VecDeque<Captured>,
    bytes: usize,
}

/// What a packet costs besides its bytes.
const OVERHEAD: usize = 768;

impl Queue {
    /// Adds one; false if `limit` is reached.
    pub(super) fn push(&mut self, captured: Captured, limit: usize) -> bool {
        let cost = captured.packet.len() + OVERHEAD;
        if self.bytes + cost > limit && !self.packets.is_empty() || self.packets.try_reserve(1).is_err() {
            return false;
        }
        self.bytes += cost;
        self.packets.push_back(captured);
        true
    }

    pub(super) fn pop(&mut self) -> Option<Captured> {
        let captured = self.packets.pop_front()?;
        self.bytes -= captured.packet.len() + OVERHEAD;
        Some(captured)
    }

    pub(super) fn first(&self) -> Option<&Captured> {
        self.packets.front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
