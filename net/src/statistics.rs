//! What is counted for `/proc/net/snmp`, `snmp6` and `netstat` (RFC 1213's MIB-II names; Linux's extensions). IPv4 and IPv6 have each their own
//! counts of what lies on either; what is common to both, TCP's among it, counts as IPv4's.

use core::sync::atomic::{AtomicU64, Ordering};

use hal::cpu::PerCpu;

macro_rules! counters {
    ($($name:ident),* $(,)?) => {
        /// A counter.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[allow(missing_docs, reason = "the MIBs name them")]
        pub enum Counter { $($name),* }

        const COUNT: usize = [$(Counter::$name),*].len();
    };
}

counters! {
    IpInReceives, IpInHdrErrors, IpInAddrErrors, IpInUnknownProtos, IpInDelivers, IpOutRequests, IpReasmReqds, IpReasmOks, IpReasmFails, IpReasmTimeout, IpReversePathFilter,
    IpFragOks, IpFragCreates, IpForwDatagrams, IpInMcastPkts, IpOutMcastPkts, IpInOctets, IpOutOctets,
    IcmpInMsgs, IcmpInErrors, IcmpOutMsgs,
    TcpActiveOpens, TcpPassiveOpens, TcpAttemptFails, TcpEstabResets, TcpInSegs, TcpOutSegs, TcpRetransSegs, TcpInErrs,
    TcpOutRsts, TcpFastOpenActive, TcpFastOpenPassive,
    UdpInDatagrams, UdpNoPorts, UdpInErrors, UdpOutDatagrams, UdpRcvbufErrors, UdpInCsumErrors,
    SyncookiesSent, SyncookiesRecv, SyncookiesFailed, ListenOverflows, ListenDrops, TimeWaited, TimeWaitRecycled,
}

/// One set of counters for IPv4, one for IPv6.
type Counters = [[AtomicU64; COUNT]; 2];
/// Messages of ICMP by family, way and type.
type Messages = [[[AtomicU64; 256]; 2]; 2];

static COUNTERS: PerCpu<Counters> = hal::per_cpu!([const { [const { AtomicU64::new(0) }; COUNT] }; 2]);
static MESSAGES: Messages = [const { [const { [const { AtomicU64::new(0) }; 256] }; 2] }; 2];

/// Which way a message went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Received.
    In,
    /// Sent.
    Out,
}

/// Counts.
#[inline]
pub fn add(counter: Counter, n: u64) {
    add_for(false, counter, n);
}

/// Counts for IPv6 or for IPv4.
#[inline]
pub fn add_for(v6: bool, counter: Counter, n: u64) {
    COUNTERS.get()[usize::from(v6)][counter as usize].fetch_add(n, Ordering::Relaxed);
}

/// Counts a message of ICMP.
pub fn add_message(v6: bool, way: Way, kind: u8) {
    MESSAGES[usize::from(v6)][way as usize][usize::from(kind)].fetch_add(1, Ordering::Relaxed);
}

/// How many messages of that type went that way.
pub fn messages(v6: bool, way: Way, kind: u8) -> u64 {
    MESSAGES[usize::from(v6)][way as usize][usize::from(kind)].load(Ordering::Relaxed)
}

/// The count of all processors.
pub fn get(counter: Counter) -> u64 {
    get_for(false, counter)
}

/// The count of all processors for IPv6 or for IPv4.
pub fn get_for(v6: bool, counter: Counter) -> u64 {
    COUNTERS.iter().map(|each| each[usize::from(v6)][counter as usize].load(Ordering::Relaxed)).sum()
}
