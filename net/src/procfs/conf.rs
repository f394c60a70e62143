//! `net.ipv4.conf` and `net.ipv6.conf`: a directory for each interface, for `all`, and for `default`.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};
use fs::FileKind;
use fs::procfs::{FixedDir, Listed, Node, ProcDir, file_rw};

use crate::link::conf::{ALL, DEFAULT, V4, V4_NAMES, V6, V6_NAMES, Values, set_forwarding, set_v6_disabled};
use crate::link::{self, Interface};
use crate::route;

/// Whose settings.
#[derive(Clone)]
enum Owner {
    All,
    Default,
    One(Arc<Interface>),
}

impl Owner {
    fn values(&self) -> &Values {
        match self {
            Owner::All => &ALL,
            Owner::Default => &DEFAULT,
            Owner::One(interface) => &interface.conf,
        }
    }

    fn set_v4(&self, setting: V4, value: i32) {
        match (self, setting) {
            (Owner::All, V4::Forwarding) => set_forwarding(true, value != 0),
            _ => self.values().set_v4(setting, value),
        }
        route::changed();
    }

    fn set_v6(&self, setting: V6, value: i32) {
        match (self, setting) {
            (Owner::All, V6::Forwarding) => set_forwarding(false, value != 0),
            (Owner::All, V6::DisableIpv6) => set_v6_disabled(None, value != 0),
            (Owner::One(interface), V6::DisableIpv6) => set_v6_disabled(Some(interface), value != 0),
            _ => self.values().set_v6(setting, value),
        }
        route::changed();
    }
}

/// One `int`. `EINVAL`.
pub(super) fn integer(data: &[u8]) -> Result<i32> {
    let text = core::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
    let mut words = text.split_ascii_whitespace();
    match (words.next(), words.next()) {
        (Some(word), None) => word.parse().map_err(|_| Errno::EINVAL),
        _ => Err(Errno::EINVAL),
    }
}

fn line(value: i32) -> Result<Vec<u8>> {
    Ok(format!("{value}\n").into_bytes())
}

/// The directory of one owner.
fn settings(owner: Owner, v4: bool) -> FixedDir {
    let node4 = |setting: V4| {
        let (reader, writer) = (owner.clone(), owner.clone());
        let write = move |data: &[u8]| integer(data).map(|value| writer.set_v4(setting, value));
        file_rw(move || line(reader.values().v4(setting)), write)
    };
    let node6 = |setting: V6| {
        let (reader, writer) = (owner.clone(), owner.clone());
        let write = move |data: &[u8]| {
            let value = integer(data)?;
            let _changing = link::CHANGING.lock();
            writer.set_v6(setting, value);
            Ok(())
        };
        file_rw(move || line(reader.values().v6(setting)), write)
    };
    FixedDir(match v4 {
        true => V4_NAMES.iter().map(|&(name, setting)| (name, node4(setting))).collect(),
        false => V6_NAMES.iter().map(|&(name, setting)| (name, node6(setting))).collect(),
    })
}

/// The directory of all of them.
struct Owners {
    v4: bool,
}

impl Owners {
    fn names() -> Vec<String> {
        let fixed = ["all", "default"].into_iter().map(String::from);
        fixed.chain(link::all().iter().map(|interface| interface.name())).collect()
    }
}

impl ProcDir for Owners {
    fn lookup(&self, name: &[u8]) -> Option<Node> {
        let owner = match name {
            b"all" => Owner::All,
            b"default" => Owner::Default,
            name => Owner::One(link::by_name(name)?),
        };
        Some(Node::dir_of(settings(owner, self.v4)))
    }

    fn list(&self, position: u64, emit: &mut dyn FnMut(&Listed) -> bool) -> u64 {
        super::list_names(&Owners::names(), FileKind::Directory, position, emit)
    }
}

/// The directory for a family.
pub(super) fn conf(v4: bool) -> Node {
    Node::dir_of(Owners { v4 })
}

/// `ip_forward`, which is `conf.all.forwarding`.
pub(super) fn forwarding() -> Node {
    let write = |data: &[u8]| integer(data).map(|value| set_forwarding(true, value != 0));
    file_rw(|| line(ALL.v4(V4::Forwarding)), write)
}
