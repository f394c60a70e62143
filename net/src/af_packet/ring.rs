//! Rings: memory that a packet socket shares with its program (PACKET_RX_RING, PACKET_TX_RING; packet_mmap.rst). Versions 1 and 2 have a frame for each
//! packet, version 3 blocks that packets are put into one after the other.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering, fence};

use abi::PAGE_SIZE;
use base::{Errno, Events, NANOS_PER_SEC, Nanos, Result};
use hal::frame::Frame;
use hal::sync::SpinLock;
use mm::PageCache;

use super::PacketSocket;
use super::queue::Captured;
use super::rollover::Room;
use crate::alarm::{Alarm, Rings};
use crate::socket::SocketKind;

/// TP_STATUS_*.
const KERNEL: u32 = 0;
const USER: u32 = 1;
const LOSING: u32 = 4;
const BLOCK_TIMEOUT: u32 = 0x20;
/// The kernel may send it; it is wrong.
const SEND_REQUEST: u32 = 1;
const WRONG_FORMAT: u32 = 4;
/// Bytes of a ring at most.
const BYTES_MAX: usize = 64 << 20;
/// Bytes of `struct tpacket_block_desc`.
const BLOCK_HEADER: usize = 48;
/// How long version 3 waits for a block to fill, unless the program says.
const PATIENCE: Nanos = 8_000_000;

/// How a ring is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    pub(super) version: u32,
    block_size: usize,
    block_count: usize,
    frame_size: usize,
    frame_count: usize,
    private: usize,
    patience: Nanos,
    reserve: usize,
}

/// `TPACKET_ALIGN`.
fn align(n: usize) -> usize {
    n.next_multiple_of(16)
}

/// Bytes of the header of a packet with the address behind it.
pub(super) fn header_len(version: u32) -> usize {
    match version {
        0 => align(32) + 20,
        1 => align(32) + 20,
        _ => align(48) + 20,
    }
}

impl Layout {
    /// From `struct tpacket_req` or `tpacket_req3`; `None` to take the ring away. `EINVAL`.
    pub(super) fn parse(raw: &[u8], version: u32, reserve: u32, sending: bool) -> Result<Option<Layout>> {
        let size = if version == 2 { 28 } else { 16 };
        if raw.len() < size {
            return Err(Errno::EINVAL);
        }
        let word = |i: usize| raw.get(i * 4..i * 4 + 4).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
        let [block_size, block_count, frame_size, frame_count] = [0, 1, 2, 3].map(|i| word(i) as usize);
        if block_count == 0 {
            return if frame_count == 0 { Ok(None) } else { Err(Errno::EINVAL) };
        }
        let private = if version == 2 { word(5) as usize } else { 0 };
        if (block_size as i32) <= 0 || !block_size.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        let least = header_len(version) + reserve as usize;
        let too_small = frame_size < least || !frame_size.is_multiple_of(16) || frame_size > block_size;
        if too_small || version == 2 && !sending && BLOCK_HEADER + private.next_multiple_of(8) + least > block_size {
            return Err(Errno::EINVAL);
        }
        let per_block = block_size / frame_size;
        if per_block.checked_mul(block_count) != Some(frame_count) {
            return Err(Errno::EINVAL);
        }
        if block_size.checked_mul(block_count).is_none_or(|bytes| bytes > BYTES_MAX) {
            return Err(Errno::ENOMEM);
        }
        let patience = if word(4) == 0 { PATIENCE } else { u64::from(word(4)) * 1_000_000 };
        Ok(Some(Layout {
            version,
            block_size,
            block_count,
            frame_size,
            frame_count,
            private,
            patience,
            reserve: reserve as usize,
        }))
    }

    /// Bytes of the ring.
    pub(super) fn size(&self) -> usize {
        self.block_size * self.block_count
    }

    /// Where a frame begins.
    fn frame(&self, number: usize) -> usize {
        let per_block = self.block_size / self.frame_size;
        number / per_block * self.block_size + number % per_block * self.frame_size
    }
}

/// Where the kernel is.
#[derive(Default)]
struct Place {
    /// The next frame, or the block that is being filled.
    head: usize,
    /// In a block: where the next packet goes, where the last one is, and how many there are.
    at: usize,
    last: usize,
    count: u32,
    opened: bool,
    opened_at: Nanos,
    sequence: u64,
    losing: bool,
}

/// A ring.
pub(super) struct Ring {
    pub(super) layout: Layout,
    pages: Vec<Frame>,
    place: SpinLock<Place>,
    alarm: Alarm,
    socket: alloc::sync::Weak<PacketSocket>,
    stopped: AtomicBool,
}

impl Ring {
    /// Makes a ring of pages, which are put into the memory that programs map from page `first` on. `ENOMEM`.
    pub(super) fn new(layout: Layout, memory: &PageCache, first: usize, socket: &PacketSocket) -> Result<Arc<Ring>> {
        let count = layout.size() / PAGE_SIZE;
        let mut pages = Vec::new();
        pages.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
        for number in 0..count {
            let page = memory.page((first + number) as u64, true)?.ok_or(Errno::ENOMEM)?;
            pages.push(page);
        }
        Ok(Arc::new(Ring {
            layout,
            pages,
            place: SpinLock::new(Place::default()),
            alarm: Alarm::default(),
            socket: socket.me.clone(),
            stopped: AtomicBool::new(false),
        }))
    }

    fn write(&self, mut at: usize, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let Some(page) = self.pages.get(at / PAGE_SIZE) else { return };
            let n = bytes.len().min(PAGE_SIZE - at % PAGE_SIZE);
            page.write(at % PAGE_SIZE, &bytes[..n]);
            (at, bytes) = (at + n, &bytes[n..]);
        }
    }

    fn read(&self, mut at: usize, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let Some(page) = self.pages.get(at / PAGE_SIZE) else { return };
            let n = bytes.len().min(PAGE_SIZE - at % PAGE_SIZE);
            page.read(at % PAGE_SIZE, &mut bytes[..n]);
            (at, bytes) = (at + n, &mut core::mem::take(&mut bytes)[n..]);
        }
    }

    fn word(&self, at: usize) -> u32 {
        let mut raw = [0; 4];
        self.read(at, &mut raw);
        fence(Ordering::Acquire);
        u32::from_ne_bytes(raw)
    }

    /// Hands a frame or block over: everything before is there when the program sees the status.
    fn set_word(&self, at: usize, value: u32) {
        fence(Ordering::Release);
        self.write(at, &value.to_ne_bytes());
    }

    /// No packet comes any more.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.alarm.cancel();
    }

    /// Has the program something to look at?
    pub(super) fn has_news(&self) -> bool {
        let place = self.place.lock();
        let layout = &self.layout;
        if layout.version == 2 {
            let before = (place.head + layout.block_count - 1) % layout.block_count;
            return self.word(before * layout.block_size + 8) & USER != 0;
        }
        let before = (place.head + layout.frame_count - 1) % layout.frame_count;
        self.word(layout.frame(before)) & USER != 0
    }

    /// How much more it takes: enough, if also the place a quarter of the ring further on is free.
    pub(super) fn room(&self) -> Room {
        let place = self.place.lock();
        let layout = &self.layout;
        let is_free = |at: usize| {
            if layout.version == 2 {
                self.word(at % layout.block_count * layout.block_size + 8) & USER == 0
            } else {
                self.word(layout.frame(at % layout.frame_count)) == KERNEL
            }
        };
        let count = if layout.version == 2 { layout.block_count } else { layout.frame_count };
        match (is_free(place.head + count / 4), is_free(place.head)) {
            (true, _) => Room::Normal,
            (false, true) => Room::Low,
            (false, false) => Room::None,
        }
    }

    /// Puts a packet in; false if there is no room.
    pub(super) fn put(self: &Arc<Self>, socket: &PacketSocket, captured: &Captured) -> bool {
        if self.layout.version == 2 { self.put_in_block(socket, captured) } else { self.put_in_frame(socket, captured) }
    }

    /// Where in its frame the link header and the network header of a packet go.
    fn offsets(&self, socket: &PacketSocket, captured: &Captured) -> (usize, usize) {
        let header = header_len(self.layout.version);
        if socket.kind == SocketKind::Datagram {
            let network = align(header) + 16 + self.layout.reserve;
            return (network, network);
        }
        let link = captured.link();
        let network = align(header + link.max(16)) + self.layout.reserve;
        (network - link, network)
    }

    fn copy(&self, at: usize, captured: &Captured, len: usize) {
        let mut chunk = [0; 512];
        let mut done = captured.read(&mut chunk).min(len);
        self.write(at, &chunk[..done]);
        while done < len {
            // The first bytes are headers, what follows lies in pages.
            let n = (len - done).min(chunk.len());
            let from = done + captured.skip - captured.before.min(done + captured.skip);
            let n = captured.packet.read(from, &mut chunk[..n]);
            if n == 0 {
                break;
            }
            self.write(at + done, &chunk[..n]);
            done += n;
        }
    }

    fn put_in_frame(&self, socket: &PacketSocket, captured: &Captured) -> bool {
        let layout = &self.layout;
        let (link, network) = self.offsets(socket, captured);
        let mut place = self.place.lock();
        let frame = layout.frame(place.head);
        if self.word(frame) != KERNEL || link > layout.frame_size {
            place.losing = true;
            return false;
        }
        let len = captured.len().min(layout.frame_size - link);
        let mut status = USER | captured.status();
        if core::mem::take(&mut place.losing) {
            status |= LOSING;
        }
        self.copy(frame + link, captured, len);
        let lens = [captured.whole() as u32, len as u32].map(u32::to_ne_bytes).concat();
        let offsets = [link as u16, network as u16].map(u16::to_ne_bytes).concat();
        let seconds = (captured.time / NANOS_PER_SEC) as u32;
        let nanos = (captured.time % NANOS_PER_SEC) as u32;
        if layout.version == 0 {
            self.write(frame + 8, &lens);
            self.write(frame + 16, &offsets);
            self.write(frame + 20, &[seconds, nanos / 1000].map(u32::to_ne_bytes).concat());
        } else {
            self.write(frame + 4, &lens);
            self.write(frame + 12, &offsets);
            self.write(frame + 16, &[seconds, nanos, 0].map(u32::to_ne_bytes).concat());
        }
        self.write(frame + 32, &captured.address());
        self.set_word(frame, status);
        place.head = (place.head + 1) % layout.frame_count;
        true
    }

    fn put_in_block(self: &Arc<Self>, socket: &PacketSocket, captured: &Captured) -> bool {
        let layout = &self.layout;
        let (link, network) = self.offsets(socket, captured);
        let first = BLOCK_HEADER + layout.private.next_multiple_of(8);
        let room = layout.block_size - first;
        let len = captured.len().min(room.saturating_sub(link));
        let whole = (link + len).next_multiple_of(8);
        if link > room {
            return false;
        }
        let mut place = self.place.lock();
        if place.opened && place.at + whole > layout.block_size {
            self.close_block(&mut place, 0);
        }
        if !place.opened && !self.open_block(&mut place, captured.time) {
            socket.counts.freezes.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let block = place.head * layout.block_size;
        let at = block + place.at;
        if place.count > 0 {
            self.write(place.last, &((at - place.last) as u32).to_ne_bytes());
        }
        self.copy(at + link, captured, len);
        let seconds = (captured.time / NANOS_PER_SEC) as u32;
        let nanos = (captured.time % NANOS_PER_SEC) as u32;
        let words = [0, seconds, nanos, len as u32, captured.whole() as u32, USER | captured.status()];
        self.write(at, &words.map(u32::to_ne_bytes).concat());
        self.write(at + 24, &[link as u16, network as u16].map(u16::to_ne_bytes).concat());
        self.write(at + 28, &[0; 20]);
        self.write(at + 48, &captured.address());
        place.last = at;
        place.at += whole;
        place.count += 1;
        self.write(block + 12, &place.count.to_ne_bytes());
        self.write(block + 20, &(place.at as u32).to_ne_bytes());
        self.write(block + 40, &[seconds, nanos].map(u32::to_ne_bytes).concat());
        let due = place.opened_at + layout.patience;
        self.alarm.set(Some(due), || Some(self.clone()));
        true
    }

    /// Begins to fill the next block; false if the program still has it.
    fn open_block(&self, place: &mut Place, time: Nanos) -> bool {
        let layout = &self.layout;
        let block = place.head * layout.block_size;
        if self.word(block + 8) & USER != 0 {
            return false;
        }
        let first = BLOCK_HEADER + layout.private.next_multiple_of(8);
        place.sequence += 1;
        (place.at, place.last, place.count, place.opened) = (first, 0, 0, true);
        place.opened_at = sched::time::now();
        let words = [1, BLOCK_HEADER as u32, KERNEL, 0, first as u32, first as u32];
        self.write(block, &words.map(u32::to_ne_bytes).concat());
        self.write(block + 24, &place.sequence.to_ne_bytes());
        let stamp = [(time / NANOS_PER_SEC) as u32, (time % NANOS_PER_SEC) as u32].map(u32::to_ne_bytes).concat();
        self.write(block + 32, &stamp);
        self.write(block + 40, &stamp);
        true
    }

    /// Hands the block that is being filled to the program.
    fn close_block(&self, place: &mut Place, why: u32) {
        let layout = &self.layout;
        place.opened = false;
        self.set_word(place.head * layout.block_size + 8, USER | why);
        place.head = (place.head + 1) % layout.block_count;
    }

    /// The next frame that the program wants sent: its bytes. `None` where there is none; `EINVAL` for one that makes no sense.
    pub(super) fn next_to_send(&self) -> Option<Result<Vec<u8>>> {
        let layout = &self.layout;
        let place = self.place.lock();
        let frame = layout.frame(place.head);
        let status_at = frame + if layout.version == 2 { 20 } else { 0 };
        if self.word(status_at) != SEND_REQUEST {
            return None;
        }
        let len = self.word(frame + [8, 4, 16][layout.version.min(2) as usize]) as usize;
        let at = header_len(layout.version) - 20;
        if len > layout.frame_size.saturating_sub(at) {
            return Some(Err(Errno::EMSGSIZE));
        }
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(len).is_err() {
            return Some(Err(Errno::ENOBUFS));
        }
        bytes.resize(len, 0);
        self.read(frame + at, &mut bytes);
        Some(Ok(bytes))
    }

    /// The frame was sent, or is wrong: the program has it back.
    pub(super) fn sent(&self, good: bool) {
        let layout = &self.layout;
        let mut place = self.place.lock();
        let status_at = layout.frame(place.head) + if layout.version == 2 { 20 } else { 0 };
        self.set_word(status_at, if good { KERNEL } else { WRONG_FORMAT });
        place.head = (place.head + 1) % layout.frame_count;
    }
}

impl Rings for Ring {
    fn ring(self: Arc<Self>, now: Nanos) {
        if self.stopped.load(Ordering::Relaxed) {
            return;
        }
        let mut place = self.place.lock();
        self.alarm.rung(now);
        if !place.opened || place.count == 0 {
            return;
        }
        let due = place.opened_at + self.layout.patience;
        if due > now {
            self.alarm.set(Some(due), || Some(self.clone()));
            return;
        }
        self.close_block(&mut place, BLOCK_TIMEOUT);
        drop(place);
        if let Some(socket) = self.socket.upgrade() {
            socket.news.wake_for(Events::READABLE, usize::MAX);
        }
    }
}
