//! The counters as tables: snmp (RFC 1213) and netstat (Linux's own).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::link::conf;
use crate::statistics::{Counter, get};

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

fn icmp() -> String {
    use Counter::*;
    let names = [
        "DestUnreachs",
        "TimeExcds",
        "ParmProbs",
        "SrcQuenchs",
        "Redirects",
        "Echos",
        "EchoReps",
        "Timestamps",
        "TimestampReps",
        "AddrMasks",
        "AddrMaskReps",
    ];
    let kinds = |way: &str| -> Vec<(String, i64)> { names.iter().map(|name| (format!("{way}{name}"), 0)).collect() };
    let mut all: Vec<(String, i64)> =
        alloc::vec![("InMsgs".into(), n(IcmpInMsgs)), ("InErrors".into(), n(IcmpInErrors)), ("InCsumErrors".into(), 0)];
    all.extend(kinds("In"));
    all.extend([("OutMsgs".into(), n(IcmpOutMsgs)), ("OutErrors".into(), 0)]);
    all.extend(kinds("Out"));
    let columns: Vec<(&str, i64)> = all.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    table("Icmp", &columns)
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
    ["Ip6InReceives", "Ip6InDelivers", "Ip6OutRequests", "Udp6InDatagrams", "Udp6OutDatagrams"]
        .iter()
        .map(|name| format!("{name:<32}\t0\n"))
        .collect()
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
    )
}
