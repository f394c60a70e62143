//! Rules: RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE.

use alloc::string::String;
use core::net::IpAddr;

use base::{Errno, Result};

use super::message::{Attributes, NLM_F_EXCL, Reply, Request, notification, text_of};
use super::{NETLINK_ROUTE, group, ip_of, octets, publish};
use crate::route::rule::{self, Rule, action};

const NEWRULE: u16 = 32;
const DELRULE: u16 = 33;
/// Bytes of `struct fib_rule_hdr`.
const HEADER: usize = 12;
const DST: u16 = 1;
const SRC: u16 = 2;
const IIFNAME: u16 = 3;
const GOTO: u16 = 4;
const PRIORITY: u16 = 6;
const FWMARK: u16 = 10;
const SUPPRESS_PREFIX: u16 = 14;
const TABLE: u16 = 15;
const FWMASK: u16 = 16;
const OIFNAME: u16 = 17;
const PROTOCOL: u16 = 21;
const INVERT: u32 = 2;

/// Tells programs of a rule that came or went.
pub(crate) fn announce(rule: &Rule, gone: bool) {
    let kind = if gone { DELRULE } else { NEWRULE };
    let group = if rule.v6 { group::IPV6_RULE } else { group::IPV4_RULE };
    publish(NETLINK_ROUTE, group, || notification(kind, &fixed_part(rule), |put| fill(put, rule)));
}

fn fixed_part(rule: &Rule) -> [u8; HEADER] {
    let bits = |net: Option<(IpAddr, u8)>| net.map_or(0, |(_, prefix)| prefix);
    let table = u8::try_from(rule.table).unwrap_or(252);
    let table = if rule.action == action::TO_TABLE { table } else { 0 };
    let family = if rule.v6 { 10 } else { 2 };
    let mut fixed = [family, bits(rule.to), bits(rule.from), rule.tos, table, 0, 0, rule.action, 0, 0, 0, 0];
    if rule.inverted {
        fixed[8..12].copy_from_slice(&INVERT.to_ne_bytes());
    }
    fixed
}

fn fill(put: &mut Attributes, rule: &Rule) {
    put.word(TABLE, if rule.action == action::TO_TABLE { rule.table } else { 0 });
    put.word(SUPPRESS_PREFIX, rule.suppress.unwrap_or(u32::MAX));
    put.byte(PROTOCOL, rule.protocol);
    if rule.priority != 0 {
        put.word(PRIORITY, rule.priority);
    }
    if let Some((network, _)) = rule.to {
        put.put(DST, &octets(network));
    }
    if let Some((network, _)) = rule.from {
        put.put(SRC, &octets(network));
    }
    if let Some(name) = &rule.input {
        put.text(IIFNAME, name);
    }
    if let Some(name) = &rule.output {
        put.text(OIFNAME, name);
    }
    if let Some((mark, mask)) = rule.mark {
        put.word(FWMARK, mark);
        put.word(FWMASK, mask);
    }
    if rule.action == action::GOTO {
        put.word(GOTO, rule.target);
    }
}

/// RTM_GETRULE.
pub(super) fn get(request: &Request, reply: &mut Reply) -> Result<()> {
    if !request.is_dump() {
        return Err(Errno::EOPNOTSUPP);
    }
    for v6 in [false, true] {
        let wanted = request.byte(0) == 0 || (request.byte(0) == 10) == v6;
        for rule in rule::all(v6).iter().filter(|_| wanted) {
            reply.message(NEWRULE, &fixed_part(rule), |put| fill(put, rule));
        }
    }
    Ok(())
}

fn described(request: &Request) -> Result<Rule> {
    request.check_len(HEADER)?;
    let v6 = match request.byte(0) {
        2 => false,
        10 => true,
        _ => return Err(Errno::EAFNOSUPPORT),
    };
    let net = |kind, prefix: u8| -> Result<Option<(IpAddr, u8)>> {
        let Some(raw) = request.attribute(HEADER, kind) else {
            return if prefix == 0 { Ok(None) } else { Err(Errno::EINVAL) };
        };
        let ip = ip_of(raw)?;
        if ip.is_ipv6() != v6 || prefix > if v6 { 128 } else { 32 } {
            return Err(Errno::EINVAL);
        }
        Ok((prefix != 0).then_some((ip, prefix)))
    };
    let name = |kind| -> Result<Option<String>> {
        request.attribute(HEADER, kind).map(|raw| text_of(raw).map(String::from)).transpose()
    };
    let mask = request.attribute_word(HEADER, FWMASK);
    let mark = request.attribute_word(HEADER, FWMARK);
    let table = request.attribute_word(HEADER, TABLE).unwrap_or(request.byte(4).into());
    let mut rule = Rule::all(v6, request.attribute_word(HEADER, PRIORITY).unwrap_or(0), table);
    rule.action = request.byte(7);
    rule.from = net(SRC, request.byte(2))?;
    rule.to = net(DST, request.byte(1))?;
    rule.input = name(IIFNAME)?;
    rule.output = name(OIFNAME)?;
    rule.mark = (mark.is_some() || mask.is_some()).then(|| {
        let mark = mark.unwrap_or(0);
        (mark, mask.unwrap_or(if mark != 0 { u32::MAX } else { 0 }))
    });
    rule.tos = request.byte(3);
    rule.inverted = request.word(8) & INVERT != 0;
    rule.suppress = request.attribute_word(HEADER, SUPPRESS_PREFIX).filter(|&longest| longest != u32::MAX);
    rule.target = request.attribute_word(HEADER, GOTO).unwrap_or(0);
    rule.protocol = request.attribute(HEADER, PROTOCOL).and_then(|raw| raw.first()).copied().unwrap_or(0);
    Ok(rule)
}

/// RTM_NEWRULE and RTM_DELRULE. `EEXIST`, `ENOENT`, `EINVAL`, `EAFNOSUPPORT`.
pub(super) fn change(request: &Request, add: bool) -> Result<()> {
    let mut wanted = described(request)?;
    let chosen = request.attribute(HEADER, PRIORITY).is_some();
    if add {
        if wanted.action == action::TO_TABLE && wanted.table == 0 {
            // Without a table Linux would make one; `ip` always names it.
            wanted.table = crate::route::table::MAIN;
        }
        if wanted.action == action::GOTO && wanted.target <= wanted.priority {
            return Err(Errno::EINVAL);
        }
        if !matches!(wanted.action, 1..=3 | 6..=8) {
            return Err(Errno::EINVAL);
        }
        return rule::add(wanted, chosen, request.has(NLM_F_EXCL));
    }
    rule::remove(|rule| {
        rule.v6 == wanted.v6
            && (!chosen || rule.priority == wanted.priority)
            && (wanted.action == 0 || rule.action == wanted.action)
            && (wanted.table == 0 || rule.table == wanted.table)
            && (wanted.from.is_none() || rule.from == wanted.from)
            && (wanted.to.is_none() || rule.to == wanted.to)
            && (wanted.input.is_none() || rule.input == wanted.input)
            && (wanted.output.is_none() || rule.output == wanted.output)
            && (wanted.mark.is_none() || rule.mark == wanted.mark)
    })
}
