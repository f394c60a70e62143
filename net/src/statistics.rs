//! What is counted for `/proc/net/snmp` and `/proc/net/netstat` (RFC 1213's MIB-II names; Linux's extensions).

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
    IpFragOks, IpFragCreates, IpForwDatagrams,
    IcmpInMsgs, IcmpInErrors, IcmpOutMsgs,
    TcpActiveOpens, TcpPassiveOpens, TcpAttemptFails, TcpEstabResets, TcpInSegs, TcpOutSegs, TcpRetransSegs, TcpInErrs,
    TcpOutRsts, TcpFastOpenActive, TcpFastOpenPassive,
    UdpInDatagrams, UdpNoPorts, UdpInErrors, UdpOutDatagrams, UdpRcvbufErrors, UdpInCsumErrors,
    SyncookiesSent, SyncookiesRecv, SyncookiesFailed, ListenOverflows, ListenDrops, TimeWaited, TimeWaitRecycled,
}

static COUNTERS: PerCpu<[AtomicU64; COUNT]> = hal::per_cpu!([const { AtomicU64::new(0) }; COUNT]);

/// Counts.
#[inline]
pub fn add(counter: Counter, n: u64) {
    COUNTERS.get()[counter as usize].fetch_add(n, Ordering::Relaxed);
}

/// The count of all processors.
pub fn get(counter: Counter) -> u64 {
    COUNTERS.iter().map(|each| each[counter as usize].load(Ordering::Relaxed)).sum()
}
