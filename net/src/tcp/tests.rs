//! The machine by scripts: segments in, segments out.

use super::connection::*;
use super::mark::Wish;
use super::rtt::MS;
use super::segment::{FastOpen, Flags, Options, Segment};
use super::seq::Seq;
use super::{congestion, rtt};
use crate::packet::{Filler, Rope};
use base::{Errno, Nanos};

const PATH: Path = Path { mss: 1000, segmentation: false };

pub(super) fn rope(bytes: &[u8]) -> Rope {
    Filler::new().bytes(bytes).unwrap()
}

struct Script {
    now: Nanos,
    c: Connection,
    out: Vec<Segment>,
}

impl Script {
    /// A connection that was opened actively; the peer's numbers begin at 5000, ours at 100.
    fn established(options: Options) -> Script {
        let mut out = Vec::new();
        let reno = congestion::by_name(b"reno").unwrap();
        let c = Connection::connect(1, PATH, Settings::default(), reno, (100, 0), &mut |s| out.push(s));
        let mut script = Script { now: 1, c, out };
        let syn = script.sent();
        assert_eq!((syn[0].flags, syn[0].seq, syn[0].options.mss), (Flags::SYN, Seq(100), Some(1000)));
        script.after(10 * MS);
        let mut segment = script.segment(0, b"", Flags::SYN | Flags::ACK);
        segment.seq = Seq(5000);
        segment.ack = Seq(101);
        segment.options = options;
        assert!(script.give(segment).contains(Effects::CONNECTED));
        let ack = script.sent();
        assert_eq!((ack[0].flags, ack[0].ack), (Flags::ACK, Seq(5001)));
        script
    }

    fn plain() -> Script {
        Script::established(Options { mss: Some(1000), ..Options::default() })
    }

    fn with_sack() -> Script {
        Script::established(Options { mss: Some(1000), sack_permitted: true, ..Options::default() })
    }

    fn after(&mut self, nanos: Nanos) -> Effects {
        let end = self.now + nanos;
        let mut effects = Effects::empty();
        while let Some(at) = self.c.deadline().filter(|&at| at <= end) {
            self.now = self.now.max(at);
            effects |= self.c.on_time(self.now, &mut |s| self.out.push(s));
        }
        self.now = end;
        effects
    }

    /// A segment of the peer: `seq` and our own numbers counted from the first byte of data.
    fn segment(&self, seq: usize, data: &[u8], flags: Flags) -> Segment {
        let mut segment =
            Segment { seq: Seq(5001) + seq, flags: flags | Flags::ACK, window: 60000, ..Segment::default() };
        segment.ack = self.c.send.nxt;
        segment.payload = rope(data);
        segment
    }

    fn ack(&self, n: usize) -> Segment {
        let mut segment = self.segment(0, b"", Flags::empty());
        segment.seq = self.c.receive.nxt;
        segment.ack = Seq(101) + n;
        segment
    }

    fn give(&mut self, segment: Segment) -> Effects {
        self.c.on_segment(self.now, segment, &mut |s| self.out.push(s))
    }

    fn write(&mut self, n: usize) {
        let data = rope(&vec![7; n]);
        self.c.write(self.now, data, false, false, &mut |s| self.out.push(s));
    }

    fn sent(&mut self) -> Vec<Segment> {
        core::mem::take(&mut self.out)
    }

    /// Where the segments sent begin (counted from the first byte), and how long they are.
    fn data(&mut self) -> Vec<(usize, usize)> {
        let sent = self.sent();
        sent.iter().filter(|s| s.span() > 0).map(|s| (s.seq.since(Seq(101)), s.payload.len())).collect()
    }
}

#[test]
fn data_is_acknowledged_late_or_with_the_second_segment() {
    let mut s = Script::plain();
    s.c.receive.quick = 0;
    let effects = s.give(s.segment(0, &[1; 1000], Flags::empty()));
    assert!(effects.contains(Effects::READABLE));
    assert!(s.sent().is_empty());
    s.after(41 * MS);
    assert_eq!(s.sent()[0].ack, Seq(6001));
    s.c.receive.quick = 0;
    s.give(s.segment(1000, &[1; 1000], Flags::empty()));
    s.give(s.segment(2000, &[1; 1000], Flags::empty()));
    assert_eq!(s.sent()[0].ack, Seq(8001));
    assert_eq!(s.c.readable(), 3000);
}

#[test]
fn without_memory_only_what_cannot_wait_is_taken() {
    use super::memory::Pressure;
    let mut s = Script::plain();
    s.write(5000);
    s.c.pressure = Pressure::Full;
    assert_eq!(s.c.room(), 0);
    s.give(s.segment(1000, &[1; 1000], Flags::empty()));
    assert_eq!(s.c.held(), 0, "what was sent is acknowledged, and what came was too early");
    s.give(s.segment(0, &[1; 1000], Flags::empty()));
    s.give(s.segment(1000, &[1; 1000], Flags::empty()));
    assert_eq!(s.c.readable(), 1000, "the user has something to take first");
    s.c.pressure = Pressure::None;
    s.give(s.segment(1000, &[1; 1000], Flags::empty()));
    assert_eq!((s.c.readable(), s.c.held()), (2000, 2000));
}

#[test]
fn early_data_is_reported_and_joined() {
    let mut s = Script::with_sack();
    s.give(s.segment(1000, &[2; 1000], Flags::empty()));
    let ack = s.sent();
    assert_eq!((ack[0].ack, ack[0].options.blocks[0]), (Seq(5001), (Seq(6001), Seq(7001))));
    s.give(s.segment(3000, &[4; 1000], Flags::empty()));
    let ack = s.sent();
    assert_eq!(ack[0].options.blocks.to_vec(), [(Seq(8001), Seq(9001)), (Seq(6001), Seq(7001))]);
    s.give(s.segment(500, &[1; 2600], Flags::empty()));
    s.sent();
    s.give(s.segment(0, &[0; 700], Flags::empty()));
    assert_eq!(s.sent()[0].ack, Seq(9001));
    let all = s.c.peek(0, 9999).to_vec().unwrap();
    assert_eq!(all.len(), 4000);
    assert_eq!((all[499], all[700], all[1000], all[2999], all[3000]), (0, 1, 1, 1, 4));
}

#[test]
fn nagle_waits_for_the_acknowledgement_of_a_short_segment() {
    let mut s = Script::plain();
    s.write(10);
    assert_eq!(s.data(), [(0, 10)]);
    s.write(10);
    assert_eq!(s.data(), []);
    s.write(1500);
    assert_eq!(s.data(), [(10, 1000)]);
    s.give(s.ack(1010));
    assert_eq!(s.data(), [(1010, 510)]);
    s.c.settings.no_delay = true;
    s.write(5);
    assert_eq!(s.data(), [(1520, 5)]);
    s.c.settings.cork = true;
    s.write(5);
    assert_eq!(s.data(), []);
    s.give(s.ack(1525));
    s.after(250 * MS);
    assert_eq!(s.data(), [(1525, 5)], "a cork holds for 200 ms");
}

#[test]
fn a_lost_segment_is_repeated_after_three_duplicates() {
    let mut s = Script::plain();
    s.write(8000);
    assert_eq!(s.data().len(), 8);
    s.after(10 * MS);
    for _ in 0..2 {
        s.give(s.ack(0));
    }
    assert_eq!(s.data(), []);
    s.give(s.ack(0));
    assert_eq!(s.data(), [(0, 1000)]);
    s.give(s.ack(8000));
    assert_eq!(s.c.window.size, 5, "half of ten");
}

#[test]
fn sack_repeats_just_what_is_missing() {
    let mut s = Script::with_sack();
    s.write(10_000);
    s.data();
    s.after(10 * MS);
    let mut ack = s.ack(1000);
    ack.options.blocks.push((Seq(2101), Seq(4101)));
    ack.options.blocks.push((Seq(5101), Seq(7101)));
    s.give(ack);
    assert_eq!(s.data()[..2], [(1000, 1000), (4000, 1000)]);
    s.after(10 * MS);
    s.give(s.ack(10_000));
    assert_eq!((s.c.flying, s.c.lost, s.c.sacked), (0, 0, 0));
    assert_eq!(s.c.loss.state, Recovery::Open);
}

#[test]
fn the_tail_is_probed_and_then_times_out_with_doubling() {
    let mut s = Script::with_sack();
    s.write(2000);
    s.data();
    s.after(30 * MS);
    assert_eq!(s.data(), [(1000, 1000)], "tail loss probe");
    s.after(250 * MS);
    assert_eq!(s.data(), [(0, 1000)]);
    s.after(250 * MS);
    assert_eq!(s.data(), []);
    s.after(250 * MS);
    assert_eq!(s.data(), [(0, 1000)]);
    assert_eq!(s.c.window.size, 1);
    let effects = s.after(3_000_000 * MS);
    assert!(effects.contains(Effects::FAILED));
    assert_eq!(s.c.take_error(), Some(Errno::ETIMEDOUT));
}

#[test]
fn a_closed_window_is_probed() {
    let mut s = Script::plain();
    let mut shut = s.ack(0);
    shut.window = 0;
    s.give(shut);
    s.write(100);
    assert_eq!(s.sent().len(), 0);
    s.after(1500 * MS);
    let probe = s.sent();
    assert_eq!((probe.len(), probe[0].seq, probe[0].span()), (3, Seq(100), 0), "after 210, 420 and 840 ms");
    s.give(s.ack(0));
    assert_eq!(s.data(), [(0, 100)]);
}

#[test]
fn four_way_close_and_time_wait() {
    let mut s = Script::plain();
    s.c.close(s.now, false, &mut |x| s.out.push(x));
    assert_eq!(s.c.state(), State::FinWait1);
    assert!(s.sent()[0].has(Flags::FIN));
    s.give(s.ack(1));
    assert_eq!(s.c.state(), State::FinWait2);
    s.give(s.segment(0, b"", Flags::FIN));
    assert_eq!(s.c.state(), State::TimeWait);
    assert_eq!(s.sent()[0].ack, Seq(5002));
    s.give(s.segment(0, b"", Flags::RST));
    assert_eq!(s.c.state(), State::TimeWait);
    assert!(s.after(TIME_WAIT).contains(Effects::CLOSED));
}

#[test]
fn passive_close_and_simultaneous_close() {
    let mut s = Script::plain();
    s.give(s.segment(0, b"bye", Flags::FIN));
    assert_eq!((s.c.state(), s.c.readable(), s.c.at_end()), (State::CloseWait, 3, true));
    s.c.consume(s.now, 3, &mut |_| ());
    s.c.close(s.now, false, &mut |x| s.out.push(x));
    assert_eq!(s.c.state(), State::LastAck);
    assert!(s.give(s.ack(1)).contains(Effects::CLOSED));

    let mut s = Script::plain();
    s.c.close(s.now, false, &mut |x| s.out.push(x));
    let mut fin = s.segment(0, b"", Flags::FIN);
    fin.ack = Seq(101);
    s.give(fin);
    assert_eq!(s.c.state(), State::Closing);
    s.give(s.ack(1));
    assert_eq!(s.c.state(), State::TimeWait);
}

#[test]
fn closing_with_unread_data_resets() {
    let mut s = Script::plain();
    s.give(s.segment(0, b"unread", Flags::empty()));
    s.sent();
    assert!(s.c.close(s.now, false, &mut |x| s.out.push(x)).contains(Effects::CLOSED));
    assert!(s.sent()[0].has(Flags::RST));
}

#[test]
fn only_the_exact_reset_counts() {
    let mut s = Script::plain();
    s.give(s.segment(10, b"", Flags::RST));
    assert_eq!(s.c.state(), State::Established);
    assert_eq!(s.sent().len(), 1, "a challenge");
    s.give(s.segment(10, b"", Flags::SYN));
    assert_eq!((s.c.state(), s.sent().len()), (State::Established, 1));
    assert!(s.give(s.segment(0, b"", Flags::RST)).contains(Effects::FAILED));
    assert_eq!(s.c.take_error(), Some(Errno::ECONNRESET));
}

#[test]
fn a_refused_opening_and_one_without_answer() {
    let open = |out: &mut Vec<Segment>| {
        let reno = congestion::by_name(b"reno").unwrap();
        Connection::connect(1, PATH, Settings::default(), reno, (100, 0), &mut |s| out.push(s))
    };
    let mut out = Vec::new();
    let mut c = open(&mut out);
    let reset = Segment { flags: Flags::RST | Flags::ACK, ack: Seq(101), ..Segment::default() };
    assert!(c.on_segment(2, reset, &mut |_| ()).contains(Effects::FAILED));
    assert_eq!(c.take_error(), Some(Errno::ECONNREFUSED));

    let mut c = open(&mut out);
    out.clear();
    let mut effects = Effects::empty();
    while let Some(at) = c.deadline() {
        effects |= c.on_time(at, &mut |s| out.push(s));
    }
    assert_eq!((out.len(), c.take_error()), (6, Some(Errno::ETIMEDOUT)));
    assert!(effects.contains(Effects::FAILED));
}

#[test]
fn simultaneous_open() {
    let mut out = Vec::new();
    let reno = congestion::by_name(b"reno").unwrap();
    let mut c = Connection::connect(1, PATH, Settings::default(), reno, (100, 0), &mut |s| out.push(s));
    out.clear();
    let syn = Segment { seq: Seq(700), flags: Flags::SYN, window: 999, ..Segment::default() };
    c.on_segment(2, syn.clone(), &mut |s| out.push(s));
    assert_eq!((c.state(), out[0].flags, out[0].ack), (State::SynReceived, Flags::SYN | Flags::ACK, Seq(701)));
    let answer = Segment { flags: Flags::SYN | Flags::ACK, ack: Seq(101), ..syn };
    assert!(c.on_segment(3, answer, &mut |s| out.push(s)).contains(Effects::CONNECTED));
    assert_eq!(c.state(), State::Established);
}

#[test]
fn keep_alive_gives_up_on_a_dead_peer() {
    let mut s = Script::plain();
    s.c.settings.keep_alive = true;
    s.c.settings_changed(s.now, &mut |_| ());
    s.after(7200 * 1000 * MS);
    assert_eq!(s.sent().len(), 1);
    s.give(s.ack(0));
    let mut effects = Effects::empty();
    for _ in 0..7200 + 75 * 11 {
        effects |= s.after(1000 * MS);
    }
    assert!(effects.contains(Effects::FAILED));
    assert_eq!(s.sent().iter().filter(|x| !x.has(Flags::RST)).count(), 9);
}

#[test]
fn urgent_byte_is_out_of_band() {
    let mut s = Script::plain();
    let mut segment = s.segment(0, b"abcdX", Flags::URG);
    segment.urgent = 5;
    assert!(s.give(segment).contains(Effects::URGENT));
    s.give(s.segment(5, b"ef", Flags::empty()));
    assert_eq!(s.c.peek(0, 99).to_vec().unwrap(), b"abcd", "reading stops at the mark");
    assert_eq!(s.c.urgent(false), Some(Some(b'X')));
    s.c.consume(s.now, 4, &mut |_| ());
    assert!(s.c.at_mark());
    assert_eq!(s.c.peek(0, 99).to_vec().unwrap(), b"ef");
    assert_eq!(s.c.urgent(true), Some(Some(b'X')));
    assert_eq!(s.c.urgent(true), None);
}

#[test]
fn timeouts_without_loss_are_undone() {
    let stamps = Options { mss: Some(1000), sack_permitted: true, timestamps: Some((1, 1)), ..Options::default() };
    let mut s = Script::established(stamps);
    s.after(1000 * MS);
    s.write(5000);
    let first_stamp = s.sent()[0].options.timestamps.unwrap().0;
    let before = s.c.window.size;
    s.after(rtt::RTO_MAX / 100);
    assert!(!s.sent().is_empty());
    assert_eq!(s.c.window.size, 1);
    let mut ack = s.ack(2000);
    ack.options.timestamps = Some((2, first_stamp));
    s.give(ack);
    assert!(s.c.window.size >= before, "{}", s.c.window.size);
}

#[test]
fn a_connection_that_is_closed_before_it_is_answered_needs_no_time() {
    let reno = congestion::by_name(b"reno").unwrap();
    let mut c = Connection::connect(1, PATH, Settings::default(), reno, (100, 0), &mut |_| {});
    assert!(c.deadline().is_some(), "the SYN is repeated");
    assert!(c.close(2, false, &mut |_| {}).contains(Effects::CLOSED));
    assert_eq!((c.state(), c.deadline()), (State::Closed, None));
}

/// The server's side of an opening: a listener's answer was sent, and the connection made with it.
fn fast_server(data: &[u8]) -> Script {
    let reno = congestion::by_name(b"reno").unwrap();
    let agreed = Agreed { mss: Some(1000), sack: true, ..Agreed::default() };
    let numbers = (Seq(100), Seq(5000));
    let mut c = Connection::accept(1, PATH, Settings::default(), reno, numbers, agreed, 0, 65535);
    let syn = Segment {
        seq: Seq(5000),
        flags: Flags::SYN,
        window: 60000,
        payload: rope(data),
        options: Options { mss: Some(1000), sack_permitted: true, ..Options::default() },
        ..Segment::default()
    };
    let mut out = Vec::new();
    c.open_fast(1, &syn, None, &mut |s| out.push(s));
    Script { now: 1, c, out }
}

#[test]
fn a_server_answers_data_of_a_syn_before_the_opening_is_over() {
    let mut s = fast_server(b"hello");
    let answer = s.sent();
    assert_eq!((answer[0].flags, answer[0].seq, answer[0].ack), (Flags::SYN | Flags::ACK, Seq(100), Seq(5006)));
    assert_eq!((s.c.readable(), s.c.state(), s.c.can_send_ever()), (5, State::SynReceived, true));
    s.write(10);
    assert_eq!(s.data(), [(0, 10)]);
    s.after(1000 * MS);
    let again = s.sent();
    assert_eq!((again[0].flags, again[0].seq), (Flags::SYN | Flags::ACK, Seq(100)), "the answer is repeated");
    let mut ack = s.segment(5, b"", Flags::empty());
    ack.ack = Seq(111);
    assert!(s.give(ack).contains(Effects::CONNECTED));
    assert_eq!((s.c.state(), s.c.unacknowledged()), (State::Established, 0));
}

#[test]
fn a_repeated_syn_to_a_fast_server_is_answered_again() {
    let mut s = fast_server(b"hello");
    s.sent();
    s.give(Segment { seq: Seq(5000), flags: Flags::SYN, window: 60000, ..Segment::default() });
    assert_eq!(s.sent()[0].flags, Flags::SYN | Flags::ACK);
    let mut reset = s.segment(5, b"", Flags::RST);
    reset.ack = Seq(101);
    assert!(s.give(reset).contains(Effects::CLOSED | Effects::FAILED));
}

/// A client that opens with a cookie and data; the server acknowledges `taken` bytes of these with its SYN.
fn fast_client(data: &[u8], taken: usize) -> Script {
    let reno = congestion::by_name(b"reno").unwrap();
    let option = FastOpen { cookie: [7; 8].into_iter().collect(), experimental: false };
    let mut out = Vec::new();
    let what = (Some(option), rope(data));
    let c = Connection::connect_fast(1, PATH, Settings::default(), reno, (100, 0), what, &mut |s| out.push(s));
    let mut s = Script { now: 1, c, out };
    let syn = s.sent();
    assert_eq!((syn[0].flags, syn[0].seq, syn[0].payload.len()), (Flags::SYN, Seq(100), data.len()));
    assert_eq!(syn[0].options.fast_open.as_ref().unwrap().cookie.len(), 8);
    s.after(10 * MS);
    let mut answer = s.segment(0, b"", Flags::SYN);
    (answer.seq, answer.ack) = (Seq(5000), Seq(101) + taken);
    answer.options = Options { mss: Some(1000), ..Options::default() };
    assert!(s.give(answer).contains(Effects::CONNECTED));
    s
}

#[test]
fn a_client_sends_again_what_the_answer_to_its_syn_leaves_out() {
    let mut s = fast_client(&[1; 500], 500);
    assert_eq!((s.c.unacknowledged(), s.sent()[0].ack), (0, Seq(5001)));
    let mut s = fast_client(&[1; 500], 200);
    assert_eq!(s.data(), [(200, 300)]);
    let mut s = fast_client(&[1; 500], 0);
    assert_eq!(s.data(), [(0, 500)]);
}

#[test]
fn a_syn_that_gets_no_answer_is_repeated_without_data_and_cookie() {
    let reno = congestion::by_name(b"reno").unwrap();
    let option = FastOpen { cookie: [7; 8].into_iter().collect(), experimental: false };
    let mut out = Vec::new();
    let what = (Some(option), rope(&[1; 100]));
    let c = Connection::connect_fast(1, PATH, Settings::default(), reno, (100, 0), what, &mut |s| out.push(s));
    let mut s = Script { now: 1, c, out };
    s.sent();
    s.after(1100 * MS);
    let again = s.sent();
    assert_eq!((again[0].flags, again[0].payload.len(), again[0].options.fast_open.is_none()), (Flags::SYN, 0, true));
}

fn with_ecn() -> Script {
    let mut out = Vec::new();
    let reno = congestion::by_name(b"reno").unwrap();
    let settings = Settings { ecn: 1, ..Settings::default() };
    let c = Connection::connect(1, PATH, settings, reno, (100, 0), &mut |s| out.push(s));
    let mut s = Script { now: 1, c, out };
    assert_eq!(s.sent()[0].flags, Flags::SYN | Flags::ECE | Flags::CWR);
    s.after(10 * MS);
    let mut answer = s.segment(0, b"", Flags::SYN | Flags::ECE);
    (answer.seq, answer.ack) = (Seq(5000), Seq(101));
    answer.options = Options { mss: Some(1000), sack_permitted: true, ..Options::default() };
    s.give(answer);
    s.sent();
    s
}

#[test]
fn a_mark_is_echoed_until_the_sender_slows_down() {
    let mut s = with_ecn();
    let mut marked = s.segment(0, &[1; 1000], Flags::empty());
    marked.codepoint = 3;
    s.give(marked);
    s.give(s.segment(1000, &[1; 1000], Flags::empty()));
    assert!(s.sent().iter().all(|ack| ack.has(Flags::ECE)));
    s.give(s.segment(2000, &[1; 1000], Flags::CWR));
    assert!(s.sent().iter().all(|ack| !ack.has(Flags::ECE)));
}

#[test]
fn an_echo_reduces_the_window_once_a_round_trip_and_is_confirmed() {
    let mut s = with_ecn();
    s.write(20_000);
    let sent = s.sent();
    assert_eq!((sent.len(), sent.iter().all(|segment| segment.codepoint == 2)), (10, true));
    s.after(10 * MS);
    for n in 1..=2 {
        let mut echo = s.ack(n * 1000);
        echo.flags |= Flags::ECE;
        s.give(echo);
    }
    assert_eq!((s.c.window.threshold, s.c.loss.retransmitted), (5, 0), "one reduction, nothing repeated");
    for n in 3..=10 {
        s.give(s.ack(n * 1000));
    }
    let fresh = s.sent();
    assert_eq!(fresh.iter().filter(|segment| segment.has(Flags::CWR)).count(), 1);
    assert_eq!(s.c.window.size, 5);
}

#[test]
fn repetitions_are_not_marked() {
    let mut s = with_ecn();
    s.write(1000);
    s.sent();
    s.after(2000 * MS);
    assert!(s.sent().iter().all(|segment| segment.codepoint == 0));
}

#[test]
fn marks_are_told_when_data_has_gone_and_arrived() {
    let mut s = Script::plain();
    s.write(20_000);
    s.c.mark(Wish::Sent(1));
    s.c.mark(Wish::Acknowledged(1));
    s.c.mark(Wish::Released(9));
    assert!(!s.c.has_notices(), "the window lets half of it go");
    s.after(10 * MS);
    assert!(s.give(s.ack(10_000)).is_empty() || !s.c.has_notices() || s.c.take_notices() == [Wish::Sent(1)]);
    s.give(s.ack(20_000));
    let told = s.c.take_notices();
    assert!(told.ends_with(&[Wish::Acknowledged(1), Wish::Released(9)]), "{told:?}");
    s.write(10);
    s.c.mark(Wish::Released(10));
    s.c.close(s.now, true, &mut |_| {});
    assert_eq!(s.c.take_notices(), [Wish::Released(10)], "nothing holds the memory any more");
}

#[test]
fn a_pace_that_the_user_sets_spreads_segments() {
    let mut s = Script::plain();
    s.c.settings.max_pacing = 100_000;
    s.write(5000);
    let first = s.data().len();
    assert!(first < 5, "{first}");
    s.after(60 * MS);
    assert_eq!(s.data().len(), 5 - first);
}
