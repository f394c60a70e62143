//! Rules (ip-rule(8)): which tables are asked for a packet, in which order.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

use base::{Errno, Result};
use hal::sync::SpinLock;

use super::table::{self, Hop, Route, kind};
use super::{Flow, changed, matches};
use crate::{link, netlink};

/// FR_ACT_* of rules.
#[allow(missing_docs, reason = "ip-rule(8) documents them")]
pub mod action {
    pub const TO_TABLE: u8 = 1;
    pub const GOTO: u8 = 2;
    pub const NOP: u8 = 3;
    pub const BLACKHOLE: u8 = 6;
    pub const UNREACHABLE: u8 = 7;
    pub const PROHIBIT: u8 = 8;
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// For IPv6.
    pub v6: bool,
    /// The lower is asked first.
    pub priority: u32,
    /// FR_ACT_*.
    pub action: u8,
    /// The table.
    pub table: u32,
    /// The source's network.
    pub from: Option<(IpAddr, u8)>,
    /// The destination's network.
    pub to: Option<(IpAddr, u8)>,
    /// The name of the interface that it came in by; `lo` for this machine's own.
    pub input: Option<String>,
    /// The name of the interface that it was bound to.
    pub output: Option<String>,
    /// Bits of the mark, and which of them count.
    pub mark: Option<(u32, u32)>,
    /// The type of service.
    pub tos: u8,
    /// The rule is for all that does not fit.
    pub inverted: bool,
    /// Routes with a shorter prefix than this or as long don't count.
    pub suppress: Option<u32>,
    /// The priority of the rule that comes next, for FR_ACT_GOTO.
    pub target: u32,
    /// RTPROT_*.
    pub protocol: u8,
}

impl Rule {
    /// A rule for all packets of a family.
    pub fn all(v6: bool, priority: u32, table: u32) -> Rule {
        Rule {
            v6,
            priority,
            action: action::TO_TABLE,
            table,
            from: None,
            to: None,
            input: None,
            output: None,
            mark: None,
            tos: 0,
            inverted: false,
            suppress: None,
            target: 0,
            protocol: table::FROM_KERNEL,
        }
    }

    fn fits(&self, flow: &Flow) -> bool {
        let named = |wanted: &Option<String>, index: u32| {
            wanted.as_ref().is_none_or(|name| link::by_name(name.as_bytes()).is_some_and(|i| i.index == index))
        };
        // What this machine sends itself came in by the loopback interface.
        let input = if flow.input == 0 { 1 } else { flow.input };
        let inside = |net: Option<(IpAddr, u8)>, ip: Option<IpAddr>| {
            net.is_none_or(|(network, prefix)| ip.is_some_and(|ip| matches(ip, network, prefix)))
        };
        let fits = inside(self.from, flow.source)
            && inside(self.to, Some(flow.destination))
            && named(&self.input, input)
            && named(&self.output, flow.output)
            && self.mark.is_none_or(|(mark, mask)| flow.mark & mask == mark)
            && (self.tos == 0 || self.tos == flow.tos);
        fits != self.inverted
    }
}

/// Rules that there may be.
const RULES_MAX: usize = 4096;

/// Nothing while they are as they were at the start.
static RULES: SpinLock<Option<Vec<Rule>>> = SpinLock::new(None);

/// The rules of a family, those that there are from the start included.
pub fn all(v6: bool) -> Vec<Rule> {
    let rules = RULES.lock();
    let Some(rules) = rules.as_ref() else { return initial(v6) };
    rules.iter().filter(|rule| rule.v6 == v6).cloned().collect()
}

fn initial(v6: bool) -> Vec<Rule> {
    let mut rules = alloc::vec![Rule::all(v6, 0, table::LOCAL), Rule::all(v6, 32766, table::MAIN)];
    if !v6 {
        rules.push(Rule::all(v6, 32767, table::DEFAULT));
    }
    rules
}

/// Changes the rules: from now on they stand in the list, in order of their priorities.
fn change<R>(change: impl FnOnce(&mut Vec<Rule>) -> Result<R>) -> Result<R> {
    let mut rules = RULES.lock();
    let list = rules.get_or_insert_with(|| [initial(false), initial(true)].concat());
    let result = change(list)?;
    list.sort_by_key(|rule| rule.priority);
    drop(rules);
    changed();
    Ok(result)
}

/// Adds a rule. With `exclusive`, `EEXIST` where there is one like it. `ENOBUFS`.
pub fn add(mut rule: Rule, chosen: bool, exclusive: bool) -> Result<()> {
    let added = change(|rules| {
        if rules.len() >= RULES_MAX {
            return Err(Errno::ENOBUFS);
        }
        if !chosen {
            // Before the second one, as Linux puts it.
            let second = rules.iter().filter(|other| other.v6 == rule.v6).nth(1);
            rule.priority = second.map_or(0, |second| second.priority.saturating_sub(1));
        }
        if exclusive && rules.contains(&rule) {
            return Err(Errno::EEXIST);
        }
        let at = rules.partition_point(|other| other.priority <= rule.priority);
        rules.insert(at, rule.clone());
        Ok(rule)
    })?;
    netlink::rule::announce(&added, false);
    Ok(())
}

/// Removes the first rule that `which` accepts. `ENOENT`.
pub fn remove(which: impl Fn(&Rule) -> bool) -> Result<()> {
    let gone = change(|rules| {
        let at = rules.iter().position(which).ok_or(Errno::ENOENT)?;
        Ok(rules.remove(at))
    })?;
    netlink::rule::announce(&gone, true);
    Ok(())
}

/// What a rule's table says of a flow: a way, an error, or nothing.
fn ask(number: u32, suppress: Option<u32>, flow: &Flow) -> Option<Result<(Arc<Route>, Hop)>> {
    let (route, hop) = table::find_in(number, flow)?;
    if suppress.is_some_and(|longest| u32::from(route.prefix) <= longest) {
        return None;
    }
    match route.kind {
        kind::THROW => None,
        kind::BLACKHOLE => Some(Err(Errno::EINVAL)),
        kind::UNREACHABLE => Some(Err(Errno::EHOSTUNREACH)),
        kind::PROHIBIT => Some(Err(Errno::EACCES)),
        _ => Some(Ok((route, hop))),
    }
}

/// The route of a flow, and the way. `ENETUNREACH`, or what the route or rule says: `EHOSTUNREACH`, `EACCES`, `EINVAL`.
pub fn find(flow: &Flow) -> Result<(Arc<Route>, Hop)> {
    let v6 = flow.destination.is_ipv6();
    let rules = RULES.lock();
    let Some(list) = rules.as_ref() else {
        drop(rules);
        return [table::LOCAL, table::MAIN, table::DEFAULT]
            .into_iter()
            .find_map(|number| ask(number, None, flow))
            .unwrap_or(Err(Errno::ENETUNREACH));
    };
    let mut at_least = 0;
    for rule in list.iter().filter(|rule| rule.v6 == v6) {
        if rule.priority < at_least || !rule.fits(flow) {
            continue;
        }
        match rule.action {
            action::TO_TABLE => {
                if let Some(found) = ask(rule.table, rule.suppress, flow) {
                    return found;
                }
            }
            action::GOTO => at_least = rule.target,
            action::BLACKHOLE => return Err(Errno::EINVAL),
            action::UNREACHABLE => return Err(Errno::ENETUNREACH),
            action::PROHIBIT => return Err(Errno::EACCES),
            _ => {}
        }
    }
    Err(Errno::ENETUNREACH)
}
