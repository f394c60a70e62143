//! sysfs: the little of `/sys` that programs ask for: processors, disks, and directories for others to mount upon.

mod cpu_cache;

use alloc::format;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use base::Result;
use hal::sync::{Once, SpinLock};

use crate::block::report;
use crate::procfs::{Listed, Node, ProcDir, dir, file, mount_node};
use crate::{FileKind, FileSystem, Inode};

/// `f_type` of sysfs.
const MAGIC: u32 = 0x6265_6572;

/// The processors as a list like `0-3`.
fn cpu_list() -> Result<Vec<u8>> {
    let last = hal::cpu::count() - 1;
    Ok(if last == 0 { b"0\n".to_vec() } else { format!("0-{last}\n").into_bytes() })
}

/// The processors as a hexadecimal mask.
fn cpu_mask() -> Result<Vec<u8>> {
    Ok(format!("{:x}\n", u64::MAX >> (64 - hal::cpu::count().min(64))).into_bytes())
}

fn text(value: &'static str) -> Node {
    file(move || Ok(value.as_bytes().to_vec()))
}

/// `/sys/devices/system/cpu`.
struct Cpus(Vec<(&'static str, Node)>);

fn cpu_number(name: &[u8]) -> Option<usize> {
    let digits = core::str::from_utf8(name.strip_prefix(b"cpu")?).ok()?;
    let number: usize = digits.parse().ok()?;
    (number < hal::cpu::count() && format!("{number}") == digits).then_some(number)
}

fn topology(cpu: usize) -> Node {
    let list = move || Ok(format!("{cpu}\n").into_bytes());
    let mask = move || Ok(format!("{:x}\n", 1u64.checked_shl(cpu as u32).unwrap_or(0)).into_bytes());
    dir(vec![
        ("core_id", file(list)),
        ("physical_package_id", text("0\n")),
        ("die_id", text("0\n")),
        ("thread_siblings", file(mask)),
        ("thread_siblings_list", file(list)),
        ("core_cpus", file(mask)),
        ("core_cpus_list", file(list)),
        ("core_siblings", file(cpu_mask)),
        ("core_siblings_list", file(cpu_list)),
        ("package_cpus_list", file(cpu_list)),
    ])
}

impl ProcDir for Cpus {
    fn lookup(&self, name: &[u8]) -> Option<Node> {
        let fixed = self.0.iter().find(|(n, _)| n.as_bytes() == name).map(|(_, node)| node.clone());
        fixed.or_else(|| {
            cpu_number(name).map(|cpu| {
                dir(vec![("online", text("1\n")), ("topology", topology(cpu)), ("cache", cpu_cache::directory(cpu))])
            })
        })
    }

    fn list(&self, position: u64, emit: &mut dyn FnMut(&Listed) -> bool) -> u64 {
        let cpus = (0..hal::cpu::count()).map(|cpu| (format!("cpu{cpu}"), FileKind::Directory));
        let fixed = self.0.iter().map(|(name, node)| ((*name).into(), node.kind()));
        let mut next = position;
        for (at, (name, kind)) in fixed.chain(cpus).enumerate().skip(usize::try_from(position).unwrap_or(usize::MAX)) {
            if !emit(&Listed { name: name.as_bytes(), kind, next: at as u64 + 1 }) {
                break;
            }
            next = at as u64 + 1;
        }
        next
    }

    fn is_fixed(&self, _name: &[u8]) -> bool {
        true
    }
}

static CLASSES: SpinLock<Vec<(&'static str, Node, Node)>> = SpinLock::new(Vec::new());

/// Adds a class of devices: its directory in `/sys/class`, and the one in `/sys/devices/virtual` that the links there lead to. At boot.
pub fn register_class(name: &'static str, class: Node, devices: Node) {
    CLASSES.lock().push((name, class, devices));
}

fn tree() -> Node {
    let empty = || dir(Vec::new());
    let cpus = Cpus(vec![
        ("online", file(cpu_list)),
        ("possible", file(cpu_list)),
        ("present", file(cpu_list)),
        ("offline", text("\n")),
        ("isolated", text("\n")),
        ("kernel_max", text("63\n")),
    ]);
    let node0 = dir(vec![("cpulist", file(cpu_list)), ("cpumap", file(cpu_mask)), ("distance", text("10\n"))]);
    let nodes = dir(vec![
        ("online", text("0\n")),
        ("possible", text("0\n")),
        ("has_cpu", text("0\n")),
        ("has_memory", text("0\n")),
        ("node0", node0),
    ]);
    let system = dir(vec![("cpu", Node::dir_of(cpus)), ("node", nodes)]);
    let hugepage = dir(vec![
        ("enabled", text("always madvise [never]\n")),
        ("defrag", text("always defer defer+madvise madvise [never]\n")),
        ("hpage_pmd_size", text("2097152\n")),
    ]);
    let mut classes = vec![("block", report::class()), ("tty", empty())];
    let mut virtual_devices = Vec::new();
    for (name, class, devices) in CLASSES.lock().iter() {
        classes.push((*name, class.clone()));
        virtual_devices.push((*name, devices.clone()));
    }
    dir(vec![
        ("block", report::block()),
        ("bus", empty()),
        ("class", dir(classes)),
        ("dev", dir(vec![("block", report::by_number()), ("char", empty())])),
        ("devices", dir(vec![("block", report::devices()), ("system", system), ("virtual", dir(virtual_devices))])),
        ("firmware", empty()),
        ("fs", dir(vec![("cgroup", empty())])),
        (
            "kernel",
            dir(vec![
                ("mm", dir(vec![("transparent_hugepage", hugepage), ("hugepages", empty())])),
                ("security", empty()),
            ]),
        ),
        ("module", empty()),
        ("power", empty()),
    ])
}

/// The kind "sysfs" for mount(2). All mounts show the same.
pub struct Kind;

static INSTANCE: Once<Arc<Inode>> = Once::new();

impl FileSystem for Kind {
    fn name(&self) -> &'static str {
        "sysfs"
    }

    fn mount(&self, _source: &[u8], _options: &[u8]) -> Result<Arc<Inode>> {
        Ok(INSTANCE.get_or_init(|| mount_node("sysfs", MAGIC, tree())).clone())
    }
}
