//! Two connections over a network that loses, repeats, reorders and delays: every byte arrives, in order, and both ends close.

use super::congestion;
use super::connection::*;
use super::rtt::MS;
use super::segment::{Flags, Segment};
use super::tests::rope;
use base::{NANOS_PER_SEC, Nanos};
use std::collections::BTreeMap;

const MSS: usize = 1448;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn percent(&mut self, n: u64) -> bool {
        self.next() % 100 < n
    }
}

struct Network {
    random: Random,
    loss: u64,
    reorder: u64,
    wire: BTreeMap<(Nanos, u64), (usize, Segment)>,
    count: u64,
    /// Bytes a second, and the segments that wait for their turn at most.
    narrow: Option<(u64, u64)>,
    /// When the way to each end is free again.
    free_at: [Nanos; 2],
    /// What goes to the client is held up for so long, every third time.
    lump: Nanos,
}

impl Network {
    fn new(seed: u64, loss: u64, reorder: u64) -> Network {
        let random = Random(seed | 1);
        Network { random, loss, reorder, wire: BTreeMap::new(), count: 0, narrow: None, free_at: [0; 2], lump: 1 }
    }

    /// When the last bit of a segment has left; `None` if the queue is full.
    fn departure(&mut self, now: Nanos, to: usize, len: usize) -> Option<Nanos> {
        let Some((rate, queue)) = self.narrow else { return Some(now) };
        let begin = self.free_at[to].max(now);
        if (begin - now) * rate / NANOS_PER_SEC > queue * 1500 {
            return None;
        }
        self.free_at[to] = begin + (len as u64 + 60) * NANOS_PER_SEC / rate;
        Some(self.free_at[to])
    }

    /// What the sender's device makes of a large segment.
    fn cut(mut segment: Segment) -> Vec<Segment> {
        let mut parts = Vec::new();
        while segment.payload.len() > MSS {
            let mut part = Segment { flags: segment.flags - Flags::FIN - Flags::PSH, ..segment.clone() };
            part.payload = segment.payload.split_to(MSS);
            segment.seq += MSS;
            parts.push(part);
        }
        parts.push(segment);
        parts
    }

    fn carry(&mut self, now: Nanos, to: usize, segment: Segment) {
        Network::cut(segment).into_iter().for_each(|part| self.carry_one(now, to, part));
    }

    fn carry_one(&mut self, now: Nanos, to: usize, segment: Segment) {
        let Some(now) = self.departure(now, to, segment.payload.len()) else { return };
        if self.random.percent(self.loss) {
            return;
        }
        let copies = if self.random.percent(self.reorder / 4) { 2 } else { 1 };
        for _ in 0..copies {
            let late = if self.random.percent(self.reorder) { self.random.next() % (30 * MS) } else { 0 };
            self.count += 1;
            // Through the header and back, as on a wire.
            let mut bytes = vec![0; segment.header_len()];
            segment.emit(1, 2, &mut bytes);
            let mut copy = Segment::parse(&bytes).expect("our own header");
            copy.payload = segment.payload.clone();
            let at = now + 10 * MS + late;
            let held = to == 0 && (at / self.lump).is_multiple_of(3);
            let at = if held { at.next_multiple_of(self.lump) } else { at };
            self.wire.insert((at, self.count), (to, copy));
        }
    }
}

/// A client, a server, and what is between them.
struct Pair {
    ends: [Connection; 2],
    network: Network,
    now: Nanos,
    /// What an end has just sent.
    out: Vec<Segment>,
}

impl Pair {
    /// Opens a connection: its handshake is not disturbed.
    fn open(mut network: Network, algorithm: &str, segmentation: bool) -> Pair {
        let path = Path { mss: MSS as u16, segmentation };
        let choose = || congestion::by_name(algorithm.as_bytes()).unwrap();
        let (mut now, mut out) = (1000, Vec::new());
        let iss = (network.random.next() as u32, 0);
        let mut client = Connection::connect(now, path, Settings::default(), choose(), iss, &mut |s| out.push(s));
        let syn = out.pop().unwrap();
        let server_iss = super::seq::Seq(network.random.next() as u32);
        let agreed = Agreed {
            ecn: false,
            mss: syn.options.mss,
            scale: syn.options.scale,
            sack: syn.options.sack_permitted,
            timestamp: syn.options.timestamps.map(|t| t.0),
        };
        let numbers = (server_iss, syn.seq);
        let server = Connection::accept(now, path, Settings::default(), choose(), numbers, agreed, 0, 65535);
        let timestamps = syn.options.timestamps.map(|t| (0, t.0));
        let answer = Segment {
            seq: server_iss,
            ack: syn.seq + 1,
            flags: Flags::SYN | Flags::ACK,
            window: 65535,
            options: super::segment::Options { timestamps, ..syn.options.clone() },
            ..Segment::default()
        };
        now += 10 * MS;
        client.on_segment(now, answer, &mut |s| out.push(s));
        let mut pair = Pair { ends: [client, server], network, now, out };
        // The handshake's last segment arrives, so that the server knows of the client.
        let ack = pair.out.remove(0);
        pair.with(1, |server, now, out| server.on_segment(now, ack, out));
        pair
    }

    /// Lets an end do something, and the network take what it sends.
    fn with<R>(&mut self, end: usize, f: impl FnOnce(&mut Connection, Nanos, Out) -> R) -> R {
        let out = &mut self.out;
        let result = f(&mut self.ends[end], self.now, &mut |s| out.push(s));
        for segment in self.out.drain(..) {
            self.network.carry(self.now, 1 - end, segment);
        }
        result
    }

    /// Goes on to when something arrives or is due.
    fn step(&mut self) {
        let next = self.network.wire.first_key_value().map(|(key, _)| key.0);
        let timers = self.ends.iter().filter_map(|e| e.deadline()).min();
        self.now = [next, timers].into_iter().flatten().min().unwrap_or(self.now).max(self.now);
        while let Some(entry) = self.network.wire.first_entry().filter(|e| e.key().0 <= self.now) {
            let (to, segment) = entry.remove();
            self.with(to, |end, now, out| end.on_segment(now, segment, out));
        }
        for index in 0..2 {
            if self.ends[index].deadline().is_some_and(|at| at <= self.now) {
                self.with(index, |end, now, out| end.on_time(now, out));
            }
        }
    }
}

/// Runs a transfer; how long it took in simulated time.
fn transfer(seed: u64, algorithm: &str, loss: u64, reorder: u64, bytes: usize, segmentation: bool) -> Nanos {
    transfer_over(Network::new(seed, loss, reorder), algorithm, bytes, segmentation).0
}

/// How long it took, and the window when the last byte was written.
fn transfer_over(network: Network, algorithm: &str, bytes: usize, segmentation: bool) -> (Nanos, u32) {
    let (loss, reorder) = (network.loss, network.reorder);
    let mut pair = Pair::open(network, algorithm, segmentation);
    let data: Vec<u8> = (0..bytes).map(|i| (i * 7 + i / 251) as u8).collect();
    let (mut written, mut received, mut closed) = (0, Vec::new(), false);
    let (mut done_at, mut window) = (0, 0);
    for _ in 0..4_000_000 {
        while pair.ends[0].can_send_ever() && written < bytes && pair.ends[0].room() > 0 {
            let n = pair.ends[0].room().min(bytes - written).min(65536);
            let piece = rope(&data[written..written + n]);
            pair.with(0, |end, now, out| end.write(now, piece, false, false, out));
            written += n;
        }
        if written == bytes && !closed {
            closed = true;
            window = pair.ends[0].window.size;
            pair.with(0, |end, now, out| end.finish(now, out));
        }
        let n = pair.ends[1].readable();
        if n > 0 && pair.network.random.percent(60) {
            received.extend(pair.ends[1].peek(0, n).to_vec().unwrap());
            pair.with(1, |end, now, out| end.consume(now, n, out));
        }
        if pair.ends[1].at_end() && pair.ends[1].readable() == 0 && pair.ends[1].state() == State::CloseWait {
            done_at = pair.now;
            pair.with(1, |end, now, out| end.finish(now, out));
        }
        if pair.ends[0].state() == State::TimeWait && pair.ends[1].state() == State::Closed {
            break;
        }
        pair.step();
    }
    let states = (pair.ends[0].state(), pair.ends[1].state());
    assert_eq!(received.len(), bytes, "{algorithm} loss {loss} reorder {reorder}: {states:?}");
    assert!(received == data, "{algorithm} loss {loss} reorder {reorder}: bytes differ");
    assert_eq!(states, (State::TimeWait, State::Closed), "{algorithm} loss {loss}");
    (done_at, window)
}

#[test]
fn every_byte_arrives_through_a_bad_network() {
    for algorithm in congestion::AVAILABLE {
        for seed in 1..8 {
            for (loss, reorder) in [(0, 0), (1, 0), (5, 0), (2, 10), (0, 20), (15, 5)] {
                transfer(seed * 7919, algorithm, loss, reorder, 300_000, seed % 2 == 0);
            }
        }
    }
}

#[test]
fn a_clean_path_is_filled_and_a_lossy_one_is_used() {
    for algorithm in congestion::AVAILABLE {
        let clean = transfer(11, algorithm, 0, 0, 3_000_000, false);
        assert!(clean < 1500 * MS, "{algorithm}: {} ms", clean / MS);
        let lossy = transfer(12, algorithm, 1, 0, 1_000_000, false);
        assert!(lossy < 8000 * MS, "{algorithm}: {} ms", lossy / MS);
    }
}
#[test]
fn patience_grows_on_a_path_that_reorders() {
    for algorithm in congestion::AVAILABLE {
        let times = (1..6).map(|seed| transfer(seed * 77, algorithm, 0, 25, 2_000_000, false));
        let sum: Nanos = times.sum();
        assert!(sum < 12_000 * MS, "{algorithm}: {} ms", sum / MS);
    }
}

#[test]
fn a_narrow_path_is_filled() {
    for algorithm in congestion::AVAILABLE {
        for (queue, segmentation) in [(20, true), (100, false)] {
            let mut network = Network::new(31, 0, 0);
            network.narrow = Some((1_000_000, queue));
            // With headers it takes 3.13 seconds.
            let (took, _) = transfer_over(network, algorithm, 3_000_000, segmentation);
            assert!(took < 3700 * MS, "{algorithm}, {queue} in the queue: {} ms", took / MS);
        }
    }
}

#[test]
fn acknowledgements_in_lumps_do_not_make_a_path_look_wide() {
    let mut network = Network::new(31, 0, 0);
    network.narrow = Some((1_000_000, 1000));
    network.lump = 30 * MS;
    let (took, window) = transfer_over(network, "bbr", 3_000_000, true);
    // Fourteen segments fill the path, and twenty come while it is held up.
    assert!(took < 3700 * MS && window < 80, "{} ms, {window} segments", took / MS);
}
