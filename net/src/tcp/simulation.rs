//! Two connections over a network that loses, repeats, reorders and delays: every byte arrives, in order, and both ends close.

use super::congestion;
use super::connection::*;
use super::rtt::MS;
use super::segment::{Flags, Segment};
use super::tests::rope;
use base::Nanos;
use std::collections::BTreeMap;

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
}

impl Network {
    fn carry(&mut self, now: Nanos, to: usize, segment: Segment) {
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
            self.wire.insert((now + 10 * MS + late, self.count), (to, copy));
        }
    }
}

/// Runs a transfer; how long it took in simulated time.
fn transfer(seed: u64, algorithm: &str, loss: u64, reorder: u64, bytes: usize, segmentation: bool) -> Nanos {
    let mut network = Network { random: Random(seed | 1), loss, reorder, wire: BTreeMap::new(), count: 0 };
    let path = Path { mss: 1448, segmentation };
    let choose = || congestion::by_name(algorithm.as_bytes()).unwrap();
    let mut now = 1000;
    let mut out = Vec::new();
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
    let answer = Segment {
        seq: server_iss,
        ack: syn.seq + 1,
        flags: Flags::SYN | Flags::ACK,
        window: 65535,
        options: super::segment::Options {
            timestamps: syn.options.timestamps.map(|t| (0, t.0)),
            ..syn.options.clone()
        },
        ..Segment::default()
    };
    now += 10 * MS;
    client.on_segment(now, answer, &mut |s| out.push(s));
    let mut ends = [client, server];
    // The handshake's last segment arrives, so that the server knows of the client.
    let ack = out.remove(0);
    ends[1].on_segment(now, ack, &mut |s| out.push(s));
    for segment in out.drain(..) {
        network.carry(now, 0, segment);
    }
    let data: Vec<u8> = (0..bytes).map(|i| (i * 7 + i / 251) as u8).collect();
    let (mut written, mut received, mut closed) = (0, Vec::new(), false);
    let mut done_at = 0;
    for _ in 0..4_000_000 {
        while ends[0].can_send_ever() && written < bytes && ends[0].room() > 0 {
            let n = ends[0].room().min(bytes - written).min(16384);
            let piece = rope(&data[written..written + n]);
            ends[0].write(now, piece, false, false, &mut |s| out.push(s));
            written += n;
        }
        if written == bytes && !closed {
            closed = true;
            ends[0].finish(now, &mut |s| out.push(s));
        }
        for segment in out.drain(..) {
            network.carry(now, 1, segment);
        }
        let n = ends[1].readable();
        if n > 0 && network.random.percent(60) {
            let piece = ends[1].peek(0, n);
            received.extend(piece.to_vec().unwrap());
            ends[1].consume(now, n, &mut |s| out.push(s));
        }
        if ends[1].at_end() && ends[1].readable() == 0 && ends[1].state() == State::CloseWait {
            done_at = now;
            ends[1].finish(now, &mut |s| out.push(s));
        }
        for segment in out.drain(..) {
            network.carry(now, 0, segment);
        }
        if ends[0].state() == State::TimeWait && ends[1].state() == State::Closed {
            break;
        }
        let next = network.wire.first_key_value().map(|(key, _)| key.0);
        let timers = ends.iter().filter_map(|e| e.deadline()).min();
        let at = [next, timers].into_iter().flatten().min().unwrap_or(now);
        now = now.max(at);
        while let Some(entry) = network.wire.first_entry().filter(|e| e.key().0 <= now) {
            let (to, segment) = entry.remove();
            ends[to].on_segment(now, segment, &mut |s| out.push(s));
            for segment in out.drain(..) {
                network.carry(now, 1 - to, segment);
            }
        }
        for (index, end) in ends.iter_mut().enumerate() {
            if end.deadline().is_some_and(|at| at <= now) {
                end.on_time(now, &mut |s| out.push(s));
                for segment in out.drain(..) {
                    network.carry(now, 1 - index, segment);
                }
            }
        }
    }
    assert_eq!(
        received.len(),
        bytes,
        "seed {seed} {algorithm} loss {loss}: {:?} {:?}",
        ends[0].state(),
        ends[1].state()
    );
    assert!(received == data, "seed {seed}: bytes differ");
    assert_eq!((ends[0].state(), ends[1].state()), (State::TimeWait, State::Closed), "seed {seed}");
    done_at
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
