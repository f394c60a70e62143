//! The settings of each interface (`net.ipv4.conf.*`, `net.ipv6.conf.*`; ip-sysctl.rst). Besides an interface's own there are `all`, which is joined
//! with them in a way that depends on the setting, and `default`, what new interfaces begin with.

use core::sync::atomic::{AtomicI32, Ordering};

use super::{Interface, all};

macro_rules! settings {
    ($(#[$doc:meta])* $kind:ident, $count:ident, $names:ident, $initial:ident, $($variant:ident $name:literal = $value:literal,)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[allow(missing_docs, reason = "ip-sysctl.rst documents each")]
        pub enum $kind { $($variant),* }

        /// How many there are.
        pub(crate) const $count: usize = [$($kind::$variant),*].len();
        /// Their names.
        pub(crate) const $names: [(&str, $kind); $count] = [$(($name, $kind::$variant)),*];
        const $initial: [i32; $count] = [$($value),*];
    };
}

settings! {
    /// A setting for IPv4.
    V4, V4_COUNT, V4_NAMES, V4_INITIAL,
    AcceptLocal "accept_local" = 0,
    AcceptRedirects "accept_redirects" = 1,
    AcceptSourceRoute "accept_source_route" = 1,
    ArpAnnounce "arp_announce" = 0,
    ArpIgnore "arp_ignore" = 0,
    ForceIgmpVersion "force_igmp_version" = 0,
    Forwarding "forwarding" = 0,
    Igmpv2Interval "igmpv2_unsolicited_report_interval" = 10000,
    Igmpv3Interval "igmpv3_unsolicited_report_interval" = 1000,
    LogMartians "log_martians" = 0,
    PromoteSecondaries "promote_secondaries" = 0,
    ProxyArp "proxy_arp" = 0,
    RouteLocalnet "route_localnet" = 0,
    RpFilter "rp_filter" = 0,
    SecureRedirects "secure_redirects" = 1,
    SendRedirects "send_redirects" = 1,
    SharedMedia "shared_media" = 1,
}

settings! {
    /// A setting for IPv6.
    V6, V6_COUNT, V6_NAMES, V6_INITIAL,
    AcceptDad "accept_dad" = 1,
    AcceptRa "accept_ra" = 1,
    AcceptRedirects "accept_redirects" = 1,
    Autoconf "autoconf" = 1,
    DadTransmits "dad_transmits" = 1,
    DisableIpv6 "disable_ipv6" = 0,
    ForceMldVersion "force_mld_version" = 0,
    Forwarding "forwarding" = 0,
    HopLimit "hop_limit" = 64,
    Mldv1Interval "mldv1_unsolicited_report_interval" = 10000,
    Mldv2Interval "mldv2_unsolicited_report_interval" = 1000,
}

/// The values of one interface, of `all`, or of `default`.
pub(crate) struct Values {
    v4: [AtomicI32; V4_COUNT],
    v6: [AtomicI32; V6_COUNT],
}

/// `all`.
pub(crate) static ALL: Values = Values::initial(true);
/// `default`.
pub(crate) static DEFAULT: Values = Values::initial(false);

impl Values {
    /// As they are at the start.
    const fn initial(for_all: bool) -> Values {
        let mut values =
            Values { v4: [const { AtomicI32::new(0) }; V4_COUNT], v6: [const { AtomicI32::new(0) }; V6_COUNT] };
        let mut i = 0;
        while i < V4_COUNT {
            values.v4[i] = AtomicI32::new(V4_INITIAL[i]);
            i += 1;
        }
        i = 0;
        while i < V6_COUNT {
            values.v6[i] = AtomicI32::new(V6_INITIAL[i]);
            i += 1;
        }
        if for_all {
            values.v4[V4::AcceptSourceRoute as usize] = AtomicI32::new(0);
            values.v6[V6::AcceptDad as usize] = AtomicI32::new(0);
        }
        values
    }

    /// What a new interface begins with.
    pub(super) fn for_new() -> Values {
        let values = Values::initial(false);
        let copy = |to: &[AtomicI32], from: &[AtomicI32]| {
            to.iter().zip(from).for_each(|(to, from)| to.store(from.load(Ordering::Relaxed), Ordering::Relaxed));
        };
        copy(&values.v4, &DEFAULT.v4);
        copy(&values.v6, &DEFAULT.v6);
        values
    }

    /// A value for IPv4.
    pub(crate) fn v4(&self, setting: V4) -> i32 {
        self.v4[setting as usize].load(Ordering::Relaxed)
    }

    /// A value for IPv6.
    pub(crate) fn v6(&self, setting: V6) -> i32 {
        self.v6[setting as usize].load(Ordering::Relaxed)
    }

    /// Sets a value for IPv4 here alone.
    pub(crate) fn set_v4(&self, setting: V4, value: i32) {
        self.v4[setting as usize].store(value, Ordering::Relaxed);
    }

    /// Sets a value for IPv6 here alone.
    pub(crate) fn set_v6(&self, setting: V6, value: i32) {
        self.v6[setting as usize].store(value, Ordering::Relaxed);
    }
}

impl Interface {
    /// Is it set for this interface, or for all?
    pub(crate) fn either(&self, setting: V4) -> bool {
        self.conf.v4(setting) != 0 || ALL.v4(setting) != 0
    }

    /// Is it set for this interface, and for all?
    pub(crate) fn both(&self, setting: V4) -> bool {
        self.conf.v4(setting) != 0 && ALL.v4(setting) != 0
    }

    /// The larger of this interface's value and that for all.
    pub(crate) fn most(&self, setting: V4) -> i32 {
        self.conf.v4(setting).max(ALL.v4(setting))
    }

    /// Does it send packets for others on?
    pub(crate) fn forwards(&self, v4: bool) -> bool {
        (if v4 { self.conf.v4(V4::Forwarding) } else { self.conf.v6(V6::Forwarding) }) != 0
    }

    /// Does it believe redirects for IPv4? As a router only if all interfaces are to.
    pub(crate) fn takes_redirects(&self) -> bool {
        if self.forwards(true) { self.both(V4::AcceptRedirects) } else { self.either(V4::AcceptRedirects) }
    }

    /// Has an administrator switched IPv6 off here?
    pub(crate) fn is_v6_disabled(&self) -> bool {
        self.conf.v6(V6::DisableIpv6) != 0
    }
}

/// `net.ipv4.ip_forward` and `conf.all.forwarding`: all interfaces there are and come. A router does not believe redirects.
pub(crate) fn set_forwarding(v4: bool, on: bool) {
    let value = i32::from(on);
    let each = |values: &Values| {
        if v4 { values.set_v4(V4::Forwarding, value) } else { values.set_v6(V6::Forwarding, value) }
    };
    each(&ALL);
    each(&DEFAULT);
    all().iter().for_each(|interface| each(&interface.conf));
    if v4 {
        ALL.set_v4(V4::AcceptRedirects, i32::from(!on));
    }
    crate::route::changed();
}

/// `net.ipv6.conf.*.disable_ipv6` of one interface, or of all there are and come.
pub(crate) fn set_v6_disabled(only: Option<&Interface>, off: bool) {
    if let Some(interface) = only {
        interface.switch_v6(off);
        return;
    }
    ALL.set_v6(V6::DisableIpv6, off.into());
    DEFAULT.set_v6(V6::DisableIpv6, off.into());
    all().iter().for_each(|interface| interface.switch_v6(off));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_unlike() {
        assert!(V4_NAMES.is_sorted_by(|a, b| a.0 < b.0) && V6_NAMES.is_sorted_by(|a, b| a.0 < b.0));
        assert!(V4_NAMES.iter().enumerate().all(|(i, (_, setting))| *setting as usize == i));
    }

    #[test]
    fn the_first_values() {
        let fresh = Values::for_new();
        assert_eq!((fresh.v4(V4::AcceptRedirects), fresh.v4(V4::AcceptSourceRoute), fresh.v4(V4::RpFilter)), (1, 1, 0));
        assert_eq!((ALL.v4(V4::AcceptSourceRoute), ALL.v6(V6::AcceptDad), fresh.v6(V6::AcceptDad)), (0, 0, 1));
    }
}
