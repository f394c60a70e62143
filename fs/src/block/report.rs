//! `/proc/diskstats`, `/proc/partitions`, and what `/sys` says about disks: what lsblk, iostat and blkid read.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use base::Result;
use dev::SECTOR;

use super::statistics::{Kind, Statistics};
use super::{BlockDev, BlockIo, list, loop_device};
use crate::procfs::{Listed, Node, ProcDir, dir, file, link};
use crate::{FileKind, LinkTarget};

/// The figures of `/sys/block/DISK/stat`, which follow the name in `/proc/diskstats`.
fn figures(statistics: &Statistics) -> String {
    let millis = |nanos: u64| nanos / 1_000_000;
    let get = |kind: Kind| {
        let c = &statistics.kinds[kind as usize];
        let load = |n: &core::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
        (load(&c.requests), load(&c.merges), load(&c.sectors), millis(load(&c.time)))
    };
    let (read, write, discard, flush) = (get(Kind::Read), get(Kind::Write), get(Kind::Discard), get(Kind::Flush));
    let four =
        |(requests, merges, sectors, time): (u64, u64, u64, u64)| format!("{requests} {merges} {sectors} {time}");
    format!(
        "{} {} {} {} {} {} {} {}",
        four(read),
        four(write),
        statistics.under_way(),
        millis(statistics.busy(sched::time::now())),
        read.3 + write.3 + discard.3 + flush.3,
        four(discard),
        flush.0,
        flush.3
    )
}

/// `/proc/diskstats`.
pub fn diskstats() -> Result<Vec<u8>> {
    let mut out = String::new();
    for device in list().iter().filter(|device| device.sectors() > 0) {
        let number = device.number();
        let figures = figures(&device.statistics);
        out.push_str(&format!("{:4} {:7} {} {figures}\n", number.major, number.minor, device.name()));
    }
    Ok(out.into_bytes())
}

/// KiB read from and written to all disks.
pub fn kibibytes() -> (u64, u64) {
    let sum = |kind: Kind| {
        let disks = list().into_iter().filter(|device| device.partition().is_none());
        disks.map(|device| device.statistics.kinds[kind as usize].sectors.load(Ordering::Relaxed)).sum::<u64>() / 2
    };
    (sum(Kind::Read), sum(Kind::Write))
}

/// `/proc/partitions`.
pub fn partitions() -> Result<Vec<u8>> {
    let mut out = String::from("major minor  #blocks  name\n\n");
    for device in list().iter().filter(|device| device.sectors() > 0) {
        let number = device.number();
        out.push_str(&format!(
            "{:4}  {:7} {:10} {}\n",
            number.major,
            number.minor,
            device.sectors() / 2,
            device.name()
        ));
    }
    Ok(out.into_bytes())
}

/// A file that says something about a device.
fn about(device: &Arc<BlockDev>, say: impl Fn(&BlockDev) -> String + Send + Sync + 'static) -> Node {
    let device = device.clone();
    file(move || Ok(format!("{}\n", say(&device)).into_bytes()))
}

fn number_of(device: &BlockDev) -> String {
    format!("{}:{}", device.number().major, device.number().minor)
}

fn queue(device: &Arc<BlockDev>) -> Node {
    let about = |say: fn(&BlockDev) -> String| about(device, say);
    dir(vec![
        ("rotational", about(|_| "0".into())),
        ("logical_block_size", about(|d| format!("{}", d.logical_block()))),
        ("hw_sector_size", about(|d| format!("{}", d.logical_block()))),
        ("physical_block_size", about(|d| format!("{}", d.geometry().physical_block.max(512)))),
        ("minimum_io_size", about(|d| format!("{}", d.geometry().physical_block.max(512)))),
        ("optimal_io_size", about(|_| "0".into())),
        ("max_sectors_kb", about(|_| "1024".into())),
        ("max_hw_sectors_kb", about(|_| "1024".into())),
        ("max_segments", about(|d| format!("{}", d.geometry().max_segments))),
        ("max_segment_size", about(|d| format!("{}", d.geometry().max_segment_size))),
        ("nr_requests", about(|d| format!("{}", d.geometry().depth))),
        ("read_ahead_kb", about(|_| "256".into())),
        ("scheduler", about(|_| "[none]".into())),
        ("nomerges", about(|_| "0".into())),
        (
            "discard_granularity",
            about(|d| format!("{}", if d.geometry().max_discard > 0 { d.logical_block() } else { 0 })),
        ),
        ("discard_max_bytes", about(|d| format!("{}", u64::from(d.geometry().max_discard) * SECTOR))),
        ("discard_max_hw_bytes", about(|d| format!("{}", u64::from(d.geometry().max_discard) * SECTOR))),
        ("discard_zeroes_data", about(|_| "0".into())),
        ("write_zeroes_max_bytes", about(|d| format!("{}", u64::from(d.geometry().max_write_zeroes) * SECTOR))),
        ("write_cache", about(|d| if d.geometry().volatile_cache { "write back" } else { "write through" }.into())),
        ("fua", about(|_| "0".into())),
        ("zoned", about(|_| "none".into())),
        ("dax", about(|_| "0".into())),
    ])
}

/// The directory of a device; a disk's has those of its partitions in it.
struct DeviceDir(Vec<(String, Node)>);

impl DeviceDir {
    fn new(device: &Arc<BlockDev>) -> DeviceDir {
        let about = |say: fn(&BlockDev) -> String| about(device, say);
        let empty = || dir(Vec::new());
        let mut entries: Vec<(&str, Node)> = vec![
            ("dev", about(number_of)),
            ("size", about(|d| format!("{}", d.sectors()))),
            ("ro", about(|d| format!("{}", u8::from(d.is_read_only())))),
            ("stat", about(|d| figures(&d.statistics))),
            ("ioerr_cnt", about(|d| format!("{}", d.statistics.errors.load(Ordering::Relaxed)))),
            ("inflight", about(|d| format!("{:8} {:8}", d.statistics.under_way(), 0))),
            ("alignment_offset", about(|_| "0".into())),
            ("discard_alignment", about(|_| "0".into())),
            ("holders", empty()),
            ("subsystem", link(|_| Ok(LinkTarget::Path(b"/sys/class/block".to_vec())))),
        ];
        match device.partition() {
            Some((_, number)) => {
                entries.push(("partition", file(move || Ok(format!("{number}\n").into_bytes()))));
                entries.push(("start", about(|d| format!("{}", d.start()))));
                entries.push(("uevent", about(|d| uevent(d, "partition"))));
            }
            None => {
                entries.push(("queue", queue(device)));
                entries.push(("slaves", empty()));
                entries.push(("removable", about(|_| "0".into())));
                entries.push(("hidden", about(|_| "0".into())));
                entries.push(("capability", about(|_| "0".into())));
                entries.push(("range", about(|_| "256".into())));
                entries.push(("ext_range", about(|_| "256".into())));
                entries.push(("serial", about(|d| String::from_utf8_lossy(d.serial()).into_owned())));
                entries.push(("uevent", about(|d| uevent(d, "disk"))));
                entries.extend(loop_device::report::directory(device).map(|node| ("loop", node)));
            }
        }
        let mut entries: Vec<(String, Node)> = entries.into_iter().map(|(name, node)| (name.into(), node)).collect();
        for part in list() {
            if part.partition().is_some_and(|(disk, _)| Arc::ptr_eq(disk, device)) {
                entries.push((part.name().into(), Node::dir_of(DeviceDir::new(&part))));
            }
        }
        DeviceDir(entries)
    }
}

fn uevent(device: &BlockDev, kind: &str) -> String {
    let number = device.number();
    format!("MAJOR={}\nMINOR={}\nDEVNAME={}\nDEVTYPE={kind}", number.major, number.minor, device.name())
}

fn list_entries(
    entries: impl Iterator<Item = (String, FileKind)>,
    position: u64,
    emit: &mut dyn FnMut(&Listed) -> bool,
) -> u64 {
    let mut next = position;
    for (at, (name, kind)) in entries.enumerate().skip(usize::try_from(position).unwrap_or(usize::MAX)) {
        if !emit(&Listed { name: name.as_bytes(), kind, next: at as u64 + 1 }) {
            break;
        }
        next = at as u64 + 1;
    }
    next
}

impl ProcDir for DeviceDir {
    fn lookup(&self, name: &[u8]) -> Option<Node> {
        self.0.iter().find(|(n, _)| n.as_bytes() == name).map(|(_, node)| node.clone())
    }

    fn list(&self, position: u64, emit: &mut dyn FnMut(&Listed) -> bool) -> u64 {
        list_entries(self.0.iter().map(|(name, node)| (name.clone(), node.kind())), position, emit)
    }
}

/// `/sys/devices/block`: the disks themselves.
struct Disks;

impl ProcDir for Disks {
    fn lookup(&self, name: &[u8]) -> Option<Node> {
        let found = list().into_iter().find(|d| d.partition().is_none() && d.name().as_bytes() == name)?;
        Some(Node::dir_of(DeviceDir::new(&found)))
    }

    fn list(&self, position: u64, emit: &mut dyn FnMut(&Listed) -> bool) -> u64 {
        let disks = list().into_iter().filter(|d| d.partition().is_none());
        list_entries(disks.map(|d| (d.name().into(), FileKind::Directory)), position, emit)
    }
}

/// Links to the directories of devices: by what, and which.
struct Links {
    name: fn(&BlockDev) -> String,
    with_partitions: bool,
}

impl Links {
    fn devices(&self) -> impl Iterator<Item = Arc<BlockDev>> {
        list().into_iter().filter(|d| self.with_partitions || d.partition().is_none())
    }
}

impl ProcDir for Links {
    fn lookup(&self, name: &[u8]) -> Option<Node> {
        let found = self.devices().find(|d| (self.name)(d).as_bytes() == name)?;
        let path = match found.partition() {
            Some((disk, _)) => format!("{}/{}", disk.name(), found.name()),
            None => found.name().into(),
        };
        let up = if self.with_partitions { "../../" } else { "../" };
        let target = format!("{up}devices/block/{path}");
        Some(link(move |_| Ok(LinkTarget::Path(target.clone().into_bytes()))))
    }

    fn list(&self, position: u64, emit: &mut dyn FnMut(&Listed) -> bool) -> u64 {
        list_entries(self.devices().map(|d| ((self.name)(&d), FileKind::Symlink)), position, emit)
    }
}

/// `/sys/devices/block`.
pub fn devices() -> Node {
    Node::dir_of(Disks)
}

/// `/sys/block`.
pub fn block() -> Node {
    Node::dir_of(Links { name: |d| d.name().into(), with_partitions: false })
}

/// `/sys/class/block`.
pub fn class() -> Node {
    Node::dir_of(Links { name: |d| d.name().into(), with_partitions: true })
}

/// `/sys/dev/block`.
pub fn by_number() -> Node {
    Node::dir_of(Links { name: number_of, with_partitions: true })
}
