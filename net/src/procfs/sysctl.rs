//! `/proc/sys/net`: settings that have their effect here, and what others show of the way things are.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use base::{Errno, Result};
use fs::procfs::{Node, dir, file, file_rw, register_sysctl};

use super::conf;
use crate::inet::{multicast, ping, port};
use crate::ip::{fragment, icmp};
use crate::options::{BUFFER_DEFAULT, BUFFER_MAX};
use crate::tcp::sysctl as tcp;
use crate::tcp::{BACKLOG_MAX, SYN_BACKLOG, SYN_COOKIES, SYNACK_RETRIES};
use crate::tcp::{congestion, fast_open, memory};

/// A number as in C: decimal, hexadecimal or octal.
fn based(word: &str) -> Option<u32> {
    match word.strip_prefix("0x").or(word.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None if word.len() > 1 && word.starts_with('0') => u32::from_str_radix(&word[1..], 8).ok(),
        None => word.parse().ok(),
    }
}

/// The numbers in what was written. `EINVAL`.
fn numbers(data: &[u8]) -> Result<Vec<u32>> {
    let text = core::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
    text.split_ascii_whitespace().map(|word| based(word).ok_or(Errno::EINVAL)).collect()
}

fn one(data: &[u8], most: u32) -> Result<u32> {
    match numbers(data)?[..] {
        [n] if n <= most => Ok(n),
        _ => Err(Errno::EINVAL),
    }
}

/// A number that can be set, up to `most`.
fn number(cell: &'static AtomicU32, most: u32) -> Node {
    file_rw(
        move || Ok(format!("{}\n", cell.load(Ordering::Relaxed)).into_bytes()),
        move |data| {
            cell.store(one(data, most)?, Ordering::Relaxed);
            Ok(())
        },
    )
}

fn fixed(text: &'static str) -> Node {
    file(move || Ok(text.as_bytes().to_vec()))
}

/// Three numbers that can be set.
fn triple(cells: &'static [AtomicU32; 3]) -> Node {
    file_rw(
        move || {
            let [a, b, c] = [0, 1, 2].map(|i: usize| cells[i].load(Ordering::Relaxed));
            Ok(format!("{a}\t{b}\t{c}\n").into_bytes())
        },
        move |data| {
            let new = numbers(data)?;
            if new.len() > cells.len() || new.iter().any(|&n| n == 0 || n > i32::MAX as u32) {
                return Err(Errno::EINVAL);
            }
            cells.iter().zip(new).for_each(|(cell, n)| cell.store(n, Ordering::Relaxed));
            Ok(())
        },
    )
}

fn port_range() -> Node {
    file_rw(
        || {
            let (first, last) = port::range();
            Ok(format!("{first}\t{last}\n").into_bytes())
        },
        |data| match numbers(data)?[..] {
            [first, last] if first <= 65535 && last <= 65535 => port::set_range(first as u16, last as u16),
            _ => Err(Errno::EINVAL),
        },
    )
}

fn ping_range() -> Node {
    file_rw(
        || {
            let (first, last) = ping::allowed();
            Ok(format!("{first}\t{last}\n").into_bytes())
        },
        |data| match numbers(data)?[..] {
            [first, last] => {
                ping::set_allowed(first, last);
                Ok(())
            }
            _ => Err(Errno::EINVAL),
        },
    )
}

fn unprivileged() -> Node {
    file_rw(
        || Ok(format!("{}\n", port::unprivileged()).into_bytes()),
        |data| {
            port::set_unprivileged(one(data, 65535)?);
            Ok(())
        },
    )
}

fn congestion_control() -> Node {
    file_rw(
        || Ok((String::from(congestion::default_name()) + "\n").into_bytes()),
        |data| {
            let name = data.split(|b| b.is_ascii_whitespace()).next().unwrap_or_default();
            if congestion::set_default(name) { Ok(()) } else { Err(Errno::ENOENT) }
        },
    )
}

/// A write to it forgets what routers have told.
fn flush_routes() -> Node {
    file_rw(
        || Err(Errno::EACCES),
        |_| {
            crate::route::exception::clear();
            Ok(())
        },
    )
}

/// Keys for fast opening, each as four words in hexadecimal.
fn fast_open_key() -> Node {
    let text = |key: [u32; 4]| key.map(|word| format!("{word:08x}")).join("-");
    let parse = |part: &str| -> Option<[u32; 4]> {
        let words: Option<Vec<u32>> = part.split('-').map(|word| u32::from_str_radix(word, 16).ok()).collect();
        words?.try_into().ok()
    };
    file_rw(
        move || {
            let (first, second) = fast_open::keys();
            let second = second.map_or(String::new(), |key| format!(",{}", text(key)));
            Ok(format!("{}{second}\n", text(first)).into_bytes())
        },
        move |data| {
            let data = core::str::from_utf8(data).map_err(|_| Errno::EINVAL)?.trim();
            let (first, second) = data.split_once(',').map_or((data, None), |(first, second)| (first, Some(second)));
            let second = second.map(|key| parse(key).ok_or(Errno::EINVAL)).transpose()?;
            fast_open::set_keys((parse(first).ok_or(Errno::EINVAL)?, second));
            Ok(())
        },
    )
    .mode(0o600)
}

fn ipv4() -> Node {
    let names = || Ok((congestion::AVAILABLE.join(" ") + "\n").into_bytes());
    let kept = tcp::KEPT.iter().map(|(name, cell)| (*name, number(cell, i32::MAX as u32)));
    let mut entries = vec![
        ("conf", conf::conf(true)),
        ("icmp_echo_ignore_all", number(&icmp::ECHO_IGNORE_ALL, 1)),
        ("icmp_echo_ignore_broadcasts", number(&icmp::ECHO_IGNORE_BROADCASTS, 1)),
        ("igmp_max_memberships", number(&multicast::GROUPS_MAX, i32::MAX as u32)),
        ("igmp_max_msf", number(&multicast::SOURCES_MAX, i32::MAX as u32)),
        ("ip_default_ttl", number(&crate::ip::DEFAULT_TTL, 255)),
        ("ip_forward", conf::forwarding()),
        ("ip_local_port_range", port_range()),
        ("ip_unprivileged_port_start", unprivileged()),
        ("ipfrag_high_thresh", number(&fragment::MEMORY_MAX, i32::MAX as u32)),
        ("ipfrag_time", number(&fragment::PATIENCE, 3600)),
        ("ping_group_range", ping_range()),
        ("route", dir(vec![("flush", flush_routes()), ("min_pmtu", fixed("552\n")), ("mtu_expires", fixed("600\n"))])),
        ("tcp_abort_on_overflow", number(&tcp::ABORT_ON_OVERFLOW, 1)),
        ("tcp_allowed_congestion_control", file(names)),
        ("tcp_available_congestion_control", file(names)),
        ("tcp_congestion_control", congestion_control()),
        ("tcp_dsack", number(&tcp::DSACK, 1)),
        ("tcp_early_retrans", number(&tcp::EARLY_RETRANS, 4)),
        ("tcp_ecn", number(&tcp::ECN, 2)),
        ("tcp_fastopen", number(&fast_open::MODE, u32::MAX)),
        ("tcp_fastopen_key", fast_open_key()),
        ("tcp_frto", number(&tcp::FRTO, 2)),
        ("tcp_fin_timeout", number(&tcp::FIN_TIMEOUT, 3600)),
        ("tcp_keepalive_intvl", number(&tcp::KEEPALIVE_INTERVAL, 32767)),
        ("tcp_keepalive_probes", number(&tcp::KEEPALIVE_PROBES, 127)),
        ("tcp_keepalive_time", number(&tcp::KEEPALIVE_TIME, 32767)),
        ("tcp_max_orphans", number(&memory::ORPHANS_MAX, i32::MAX as u32)),
        ("tcp_max_syn_backlog", number(&SYN_BACKLOG, 1 << 20)),
        ("tcp_max_tw_buckets", number(&memory::TIME_WAITS_MAX, i32::MAX as u32)),
        ("tcp_mem", triple(&memory::LIMITS)),
        ("tcp_moderate_rcvbuf", number(&tcp::MODERATE_RCVBUF, 1)),
        ("tcp_notsent_lowat", number(&tcp::NOTSENT_LOWAT, u32::MAX)),
        ("tcp_orphan_retries", number(&tcp::ORPHAN_RETRIES, 255)),
        ("tcp_reordering", number(&tcp::REORDERING, 300)),
        ("tcp_rfc1337", number(&tcp::RFC1337, 1)),
        ("tcp_retries2", number(&tcp::RETRIES2, 255)),
        ("tcp_rmem", triple(&tcp::RECEIVE)),
        ("tcp_sack", number(&tcp::SACK, 1)),
        ("tcp_slow_start_after_idle", number(&tcp::SLOW_START_AFTER_IDLE, 1)),
        ("tcp_syn_retries", number(&tcp::SYN_RETRIES, 127)),
        ("tcp_synack_retries", number(&SYNACK_RETRIES, 255)),
        ("tcp_syncookies", number(&SYN_COOKIES, 2)),
        ("tcp_timestamps", number(&tcp::TIMESTAMPS, 2)),
        ("tcp_tw_reuse", number(&tcp::TIME_WAIT_REUSE, 2)),
        ("tcp_window_scaling", number(&tcp::WINDOW_SCALING, 1)),
        ("tcp_wmem", triple(&tcp::SEND)),
    ];
    entries.extend(kept);
    entries.sort_by_key(|(name, _)| *name);
    dir(entries)
}

fn ipv6() -> Node {
    dir(vec![("bindv6only", number(&crate::inet::BIND_V6_ONLY, 1)), ("conf", conf::conf(false))])
}

fn core_settings() -> Node {
    dir(vec![
        ("netdev_max_backlog", fixed("1000\n")),
        ("optmem_max", fixed("20480\n")),
        ("rmem_default", number(&BUFFER_DEFAULT[1], i32::MAX as u32)),
        ("rmem_max", number(&BUFFER_MAX[1], i32::MAX as u32)),
        ("somaxconn", number(&BACKLOG_MAX, i32::MAX as u32)),
        ("wmem_default", number(&BUFFER_DEFAULT[0], i32::MAX as u32)),
        ("wmem_max", number(&BUFFER_MAX[0], i32::MAX as u32)),
    ])
}

/// Registers the settings. Once, before procfs is set up.
pub fn register() {
    register_sysctl("net", "core", core_settings());
    register_sysctl("net", "ipv4", ipv4());
    register_sysctl("net", "ipv6", ipv6());
}
