//! The counters as tables: snmp (RFC 1213) and netstat (Linux's own).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::link::conf;
use crate::statistics::{Counter, Way, get, get_for, messages};

fn table(name: &str, columns: &[(&str, i64)]) -> String {
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let values: Vec<String> = columns.iter().map(|(_, value)| value.to_string()).collect();
    format!("{name}: {}\n{name}: {}\n", names.join(" "), values.join(" "))
}

fn n(counter: Counter) -> i64 {
    get(counter) as i64
}

fn ip() -> String {
    use Counter::*;
    let ttl = i64::from(crate::ip::DEFAULT_TTL.load(core::sync::atomic::Ordering::Relaxed));
    table(
        "Ip",
        &[
            ("Forwarding", if conf::ALL.v4(conf::V4::Forwarding) != 0 { 1 } else { 2 }),
            ("DefaultTTL", ttl),
            ("InReceives", n(IpInReceives)),
            ("InHdrErrors", n(IpInHdrErrors)),
            ("InAddrErrors", n(IpInAddrErrors)),
            ("ForwDatagrams", n(IpForwDatagrams)),
            ("InUnknownProtos", n(IpInUnknownProtos)),
            ("InDiscards", 0),
            ("InDelivers", n(IpInDelivers)),
            ("OutRequests", n(IpOutRequests)),
            ("OutDiscards", 0),
            ("OutNoRoutes", 0),
            ("ReasmTimeout", n(IpReasmTimeout)),
            ("ReasmReqds", n(IpReasmReqds)),
            ("ReasmOKs", n(IpReasmOks)),
            ("ReasmFails", n(IpReasmFails)),
            ("FragOKs", n(IpFragOks)),
            ("FragFails", 0),
            ("FragCreates", n(IpFragCreates)),
        ],
    )
}

/// Types of ICMP's messages that have columns of their own.
const ICMP_KINDS: [(&str, u8); 11] = [
    ("DestUnreachs", 3),
    ("TimeExcds", 11),
    ("ParmProbs", 12),
    ("SrcQuenchs", 4),
    ("Redirects", 5),
    ("Echos", 8),
    ("EchoReps", 0),
    ("Timestamps", 13),
    ("TimestampReps", 14),
    ("AddrMasks", 17),
    ("AddrMaskReps", 18),
];

const ICMP6_KINDS: [(&str, u8); 15] = [
    ("DestUnreachs", 1),
    ("PktTooBigs", 2),
    ("TimeExcds", 3),
    ("ParmProblems", 4),
    ("Echos", 128),
    ("EchoReplies", 129),
    ("GroupMembQueries", 130),
    ("GroupMembResponses", 131),
    ("GroupMembReductions", 132),
    ("RouterSolicits", 133),
    ("RouterAdvertisements", 134),
    ("NeighborSolicits", 135),
    ("NeighborAdvertisements", 136),
    ("Redirects", 137),
    ("MLDv2Reports", 143),
];

/// Columns of messages by type, each with `prefix` before its name.
fn kinds(v6: bool, way: Way, prefix: &str) -> impl Iterator<Item = (String, i64)> {
    let kinds: &[(&str, u8)] = if v6 { &ICMP6_KINDS } else { &ICMP_KINDS };
    kinds.iter().map(move |(name, kind)| (format!("{prefix}{name}"), messages(v6, way, *kind) as i64))
}

/// The types that there were messages of.
fn seen(v6: bool, way: Way, prefix: &str) -> impl Iterator<Item = (String, i64)> {
    let counts = (0..=u8::MAX).map(move |kind| (kind, messages(v6, way, kind) as i64));
    counts.filter(|(_, count)| *count != 0).map(move |(kind, count)| (format!("{prefix}Type{kind}"), count))
}

fn icmp() -> String {
    use Counter::*;
    let table_of = |name: &str, all: &[(String, i64)]| {
        let columns: Vec<(&str, i64)> = all.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        table(name, &columns)
    };
    let mut all: Vec<(String, i64)> =
        alloc::vec![("InMsgs".into(), n(IcmpInMsgs)), ("InErrors".into(), n(IcmpInErrors)), ("InCsumErrors".into(), 0)];
    all.extend(kinds(false, Way::In, "In"));
    all.extend([("OutMsgs".into(), n(IcmpOutMsgs)), ("OutErrors".into(), 0)]);
    all.extend(kinds(false, Way::Out, "Out"));
    let by_type: Vec<_> = seen(false, Way::In, "In").chain(seen(false, Way::Out, "Out")).collect();
    let by_type = if by_type.is_empty() { String::new() } else { table_of("IcmpMsg", &by_type) };
    table_of("Icmp", &all) + &by_type
}

fn tcp() -> String {
    use Counter::*;
    let established = crate::tcp::all().iter().filter(|s| matches!(s.state() as u8, 1 | 8)).count() as i64;
    table(
        "Tcp",
        &[
            ("RtoAlgorithm", 1),
            ("RtoMin", 200),
            ("RtoMax", 120_000),
            ("MaxConn", -1),
            ("ActiveOpens", n(TcpActiveOpens)),
            ("PassiveOpens", n(TcpPassiveOpens)),
            ("AttemptFails", n(TcpAttemptFails)),
            ("EstabResets", n(TcpEstabResets)),
            ("CurrEstab", established),
            ("InSegs", n(TcpInSegs)),
            ("OutSegs", n(TcpOutSegs)),
            ("RetransSegs", n(TcpRetransSegs)),
            ("InErrs", n(TcpInErrs)),
            ("OutRsts", n(TcpOutRsts)),
            ("InCsumErrors", 0),
        ],
    )
}

fn udp() -> String {
    use Counter::*;
    let udp = [
        ("InDatagrams", n(UdpInDatagrams)),
        ("NoPorts", n(UdpNoPorts)),
        ("InErrors", n(UdpInErrors)),
        ("OutDatagrams", n(UdpOutDatagrams)),
        ("RcvbufErrors", n(UdpRcvbufErrors)),
        ("SndbufErrors", 0),
        ("InCsumErrors", n(UdpInCsumErrors)),
        ("IgnoredMulti", 0),
        ("MemErrors", 0),
    ];
    let none = udp.map(|(name, _)| (name, 0));
    table("Udp", &udp) + &table("UdpLite", &none)
}

pub(super) fn snmp() -> String {
    ip() + &icmp() + &tcp() + &udp()
}

pub(super) fn snmp6() -> String {
    use Counter::*;
    let line = |(name, value): (String, i64)| format!("{name:<32}\t{value}\n");
    let counted = |columns: &[(&str, Counter)]| -> String {
        columns.iter().map(|(name, counter)| line(((*name).into(), get_for(true, *counter) as i64))).collect()
    };
    let mut out = counted(&[
        ("Ip6InReceives", IpInReceives),
        ("Ip6InHdrErrors", IpInHdrErrors),
        ("Ip6InAddrErrors", IpInAddrErrors),
        ("Ip6InUnknownProtos", IpInUnknownProtos),
        ("Ip6InDelivers", IpInDelivers),
        ("Ip6OutForwDatagrams", IpForwDatagrams),
        ("Ip6OutRequests", IpOutRequests),
        ("Ip6ReasmTimeout", IpReasmTimeout),
        ("Ip6ReasmReqds", IpReasmReqds),
        ("Ip6ReasmOKs", IpReasmOks),
        ("Ip6ReasmFails", IpReasmFails),
        ("Ip6FragOKs", IpFragOks),
        ("Ip6FragCreates", IpFragCreates),
        ("Ip6InMcastPkts", IpInMcastPkts),
        ("Ip6OutMcastPkts", IpOutMcastPkts),
        ("Ip6InOctets", IpInOctets),
        ("Ip6OutOctets", IpOutOctets),
        ("Icmp6InMsgs", IcmpInMsgs),
        ("Icmp6InErrors", IcmpInErrors),
        ("Icmp6OutMsgs", IcmpOutMsgs),
    ]);
    for (way, prefix) in [(Way::In, "Icmp6In"), (Way::Out, "Icmp6Out")] {
        out.extend(kinds(true, way, prefix).map(line));
    }
    for (way, prefix) in [(Way::In, "Icmp6In"), (Way::Out, "Icmp6Out")] {
        out.extend(seen(true, way, prefix).map(line));
    }
    out + &counted(&[
        ("Udp6InDatagrams", UdpInDatagrams),
        ("Udp6NoPorts", UdpNoPorts),
        ("Udp6InErrors", UdpInErrors),
        ("Udp6OutDatagrams", UdpOutDatagrams),
        ("Udp6RcvbufErrors", UdpRcvbufErrors),
        ("Udp6InCsumErrors", UdpInCsumErrors),
    ])
}

pub(super) fn netstat() -> String {
    use Counter::*;
    table(
        "TcpExt",
        &[
            ("SyncookiesSent", n(SyncookiesSent)),
            ("SyncookiesRecv", n(SyncookiesRecv)),
            ("SyncookiesFailed", n(SyncookiesFailed)),
            ("TW", n(TimeWaited)),
            ("IPReversePathFilter", n(IpReversePathFilter)),
            ("TWRecycled", n(TimeWaitRecycled)),
            ("ListenOverflows", n(ListenOverflows)),
            ("ListenDrops", n(ListenDrops)),
            ("TCPFastOpenActive", n(TcpFastOpenActive)),
            ("TCPFastOpenPassive", n(TcpFastOpenPassive)),
        ],
    ) + &table(
        "IpExt",
        &[
            ("InMcastPkts", n(IpInMcastPkts)),
            ("OutMcastPkts", n(IpOutMcastPkts)),
            ("InOctets", n(IpInOctets)),
            ("OutOctets", n(IpOutOctets)),
        ],
    )
}
