//! `/sys/class/net`: a directory for each interface, with what scripts and udev read of it (sysfs-class-net).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use base::{Errno, Result};
use fs::procfs::{FixedDir, Listed, Node, ProcDir, dir, file, file_rw, link as symlink};
use fs::{FileKind, LinkTarget};

use crate::link::interface::Appetite;
use crate::link::{self, Interface, ioctl};
use crate::netlink::link::{STATISTICS, operational_state, statistics};

fn line(text: impl ToString) -> Result<Vec<u8>> {
    Ok((text.to_string() + "\n").into_bytes())
}

/// What is written: one number, decimal or hexadecimal. `EINVAL`.
fn number(data: &[u8]) -> Result<u32> {
    let text = core::str::from_utf8(data).map_err(|_| Errno::EINVAL)?.trim();
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    }
    .map_err(|_| Errno::EINVAL)
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

/// One interface.
struct Device(Arc<Interface>);

impl Device {
    fn read(&self, read: impl Fn(&Interface) -> Result<Vec<u8>> + Send + Sync + 'static) -> Node {
        let interface = self.0.clone();
        file(move || read(&interface))
    }

    fn change(
        &self,
        read: impl Fn(&Interface) -> Result<Vec<u8>> + Send + Sync + 'static,
        write: impl Fn(&Interface, &[u8]) -> Result<()> + Send + Sync + 'static,
    ) -> Node {
        let (reader, writer) = (self.0.clone(), self.0.clone());
        let write = move |data: &[u8]| {
            let _changing = link::CHANGING.lock();
            write(&writer, data)
        };
        file_rw(move || read(&reader), write)
    }

    fn statistics(&self) -> Node {
        let one = |at: usize| self.read(move |i| line(statistics(i)[at]));
        dir(STATISTICS.iter().enumerate().map(|(at, name)| (*name, one(at))).collect())
    }

    fn changeable(&self) -> Vec<(&'static str, Node)> {
        let flags = |i: &Interface| line(format!("{:#x}", i.flags() & 0xffff));
        let set_flags = |i: &Interface, data: &[u8]| {
            let flags = number(data)?;
            i.set_flags(flags, u32::MAX);
            i.set_up(flags & link::flag::UP != 0);
            Ok(())
        };
        let alias = |i: &Interface| {
            Ok(i.alias.lock().clone()).and_then(|text| if text.is_empty() { Ok(Vec::new()) } else { line(text) })
        };
        let set_alias = |i: &Interface, data: &[u8]| {
            let text = core::str::from_utf8(data).map_err(|_| Errno::EINVAL)?.trim_end_matches('\n');
            if text.len() >= 256 {
                return Err(Errno::EINVAL);
            }
            *i.alias.lock() = text.into();
            Ok(())
        };
        vec![
            ("flags", self.change(flags, set_flags)),
            ("ifalias", self.change(alias, set_alias)),
            ("mtu", self.change(|i| line(i.mtu()), |i, data| i.set_mtu(number(data)?))),
            (
                "netdev_group",
                self.change(
                    |i| line(i.group.load(Ordering::Relaxed)),
                    |i, data| number(data).map(|group| i.group.store(group, Ordering::Relaxed)),
                ),
            ),
            (
                "tx_queue_len",
                self.change(
                    |i| line(i.queue_len.load(Ordering::Relaxed)),
                    |i, data| number(data).map(|len| i.queue_len.store(len, Ordering::Relaxed)),
                ),
            ),
        ]
    }

    fn entries(&self) -> Vec<(&'static str, Node)> {
        // What an interface that is down cannot tell.
        let up = |i: &Interface| if i.is_up() { Ok(()) } else { Err(Errno::EINVAL) };
        let hardware = |i: &Interface| if i.is_loopback() { [0; 6] } else { [0xff; 6] };
        let mut entries = self.changeable();
        entries.extend([
            ("addr_assign_type", self.read(|_| line(0))),
            ("addr_len", self.read(|i| line(if i.is_framed() || i.is_loopback() { 6 } else { 0 }))),
            ("address", self.read(|i| line(mac(i.mac())))),
            ("broadcast", self.read(move |i| line(mac(hardware(i))))),
            ("carrier", self.read(move |i| up(i).and_then(|()| line(u8::from(i.has_carrier()))))),
            ("carrier_changes", self.read(|_| line(1))),
            ("dev_id", self.read(|_| line("0x0"))),
            ("dev_port", self.read(|_| line(0))),
            ("dormant", self.read(move |i| up(i).and_then(|()| line(0)))),
            (
                "duplex",
                self.read(
                    move |i| if i.is_loopback() { Err(Errno::EINVAL) } else { up(i).and_then(|()| line("unknown")) },
                ),
            ),
            ("ifindex", self.read(|i| line(i.index))),
            ("iflink", self.read(|i| line(if i.lower != 0 { i.lower } else { i.index }))),
            ("link_mode", self.read(|_| line(0))),
            ("name_assign_type", self.read(|i| if i.is_loopback() { Err(Errno::EINVAL) } else { line(3) })),
            ("operstate", self.read(|i| line(OPERATIONAL[usize::from(operational_state(i))]))),
            ("promiscuity", self.read(|i| line(i.wanting(Appetite::Everything)))),
            ("proto_down", self.read(|_| line(0))),
            (
                "speed",
                self.read(move |i| if i.is_loopback() { Err(Errno::EINVAL) } else { up(i).and_then(|()| line(-1)) }),
            ),
            ("statistics", self.statistics()),
            ("subsystem", symlink(|_| Ok(LinkTarget::Path(b"../../../../class/net".to_vec())))),
            ("type", self.read(|i| line(ioctl::hardware(i)))),
            ("uevent", self.read(|i| line(format!("INTERFACE={}\nIFINDEX={}", i.name(), i.index)))),
        ]);
        if let Some(master) = link::by_index(self.0.master.load(Ordering::Relaxed)) {
            let target = format!("../{}", master.name()).into_bytes();
            entries.push(("master", symlink(move |_| Ok(LinkTarget::Path(target.clone())))));
        }
        entries
    }
}

/// IF_OPER_* as words.
const OPERATIONAL: [&str; 7] = ["unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up"];

/// All interfaces: links to their directories, or these.
struct Devices {
    links: bool,
}

impl ProcDir for Devices {
    fn lookup(&self, name: &[u8]) -> Option<Node> {
        let interface = link::by_name(name)?;
        if !self.links {
            return Some(Node::dir_of(FixedDir(Device(interface).entries())));
        }
        let target = [b"../../devices/virtual/net/", name].concat();
        Some(symlink(move |_| Ok(LinkTarget::Path(target.clone()))))
    }

    fn list(&self, position: u64, emit: &mut dyn FnMut(&Listed) -> bool) -> u64 {
        let names: Vec<String> = link::all().iter().map(|interface| interface.name()).collect();
        let kind = if self.links { FileKind::Symlink } else { FileKind::Directory };
        crate::procfs::list_names(&names, kind, position, emit)
    }
}

/// Registers the class. Once, before sysfs is mounted.
pub fn register() {
    fs::sysfs::register_class("net", Node::dir_of(Devices { links: true }), Node::dir_of(Devices { links: false }));
}
