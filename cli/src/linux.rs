//! Debian's own kernel, to run the same root and command on for comparison.

use crate::cache::Cache;
use crate::failure::{Context, Failure};
use crate::root::package;
use std::fs;
use std::path::PathBuf;

const META_PACKAGE: &str = "linux-image-cloud-amd64";
/// What a module is needed for. Loading takes time, so a guest gets those that it needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    Ports,
    Disks,
    Network,
    /// Only a guest that names it: what a peer needs to make a link bad, or to send otherwise than by default, or what a test is about.
    Asked,
}

/// The modules, in the order of loading.
const MODULES: [(&str, For); 22] = [
    ("virtio_ring", For::Ports),
    ("virtio", For::Ports),
    ("virtio_mmio", For::Ports),
    ("virtio_pci_legacy_dev", For::Ports),
    ("virtio_pci_modern_dev", For::Ports),
    ("virtio_pci", For::Ports),
    ("virtio_console", For::Ports),
    ("virtio_blk", For::Disks),
    ("failover", For::Network),
    ("net_failover", For::Network),
    ("virtio_net", For::Network),
    ("ifb", For::Asked),
    ("act_mirred", For::Asked),
    ("cls_matchall", For::Asked),
    ("sch_ingress", For::Asked),
    ("sch_netem", For::Asked),
    ("sch_fq", For::Asked),
    ("tcp_bbr", For::Asked),
    ("vsock", For::Asked),
    ("vmw_vsock_virtio_transport_common", For::Asked),
    ("vsock_loopback", For::Asked),
    ("vsock_diag", For::Asked),
];

/// A Linux kernel and its modules.
#[derive(Clone, Debug)]
pub struct LinuxKernel {
    /// The kernel's image.
    pub image: PathBuf,
    /// The modules that the guest's PID 1 has to load.
    pub modules: Vec<PathBuf>,
}

/// What Linux wants to be told.
pub fn command_line(show_log: bool) -> &'static str {
    if show_log {
        "console=ttyS0 rdinit=/.quintet/init panic=-1"
    } else {
        "console=ttyS0 rdinit=/.quintet/init panic=-1 loglevel=3"
    }
}

/// The kernel from the cache, fetched the first time, with the modules for `disks` and `network` if it has them, and those that are `asked` for
/// by name.
pub fn prepare(cache: &Cache, disks: bool, network: bool, asked: &[String]) -> Result<LinuxKernel, Failure> {
    if let Some(name) = asked.iter().find(|asked| !MODULES.iter().any(|(name, _)| name == asked)) {
        return Err(Failure::new(format!("\"{name}\" is not among the modules that are kept of Debian's kernel")));
    }
    let folder = cache.path(&format!("linux-{}", MODULES.len()));
    let needed = |name: &str, reason: For| match reason {
        For::Ports => true,
        For::Disks => disks,
        For::Network => network,
        For::Asked => asked.iter().any(|asked| asked == name),
    };
    let modules = MODULES.iter().enumerate().filter(|(_, (name, reason))| needed(name, *reason));
    let kernel = LinuxKernel {
        image: folder.join("vmlinuz"),
        modules: modules.map(|(number, (name, _))| folder.join(format!("{number:02}-{name}.ko"))).collect(),
    };
    let _lock = cache.lock("linux")?;
    if folder.exists() {
        return Ok(kernel);
    }
    eprintln!("quintet: fetching Debian's Linux kernel (once)");
    let package = package::dependency(META_PACKAGE, "linux-image-")?;
    let new = tempfile::tempdir_in(cache.folder()).or_fail(|| "cannot make a folder".into())?;
    let mut found = 0;
    package::unpack(&package, |path, data| {
        let name = path.rsplit('/').next().unwrap_or(path);
        let place = if path.starts_with("boot/vmlinuz-") {
            "vmlinuz".to_owned()
        } else if let Some(stem) = name.strip_suffix(".ko")
            && let Some(number) = MODULES.iter().position(|(module, _)| *module == stem)
        {
            format!("{number:02}-{name}")
        } else {
            return Ok(());
        };
        found += 1;
        fs::write(new.path().join(place), data()?)
    })?;
    if found != MODULES.len() + 1 {
        return Err(Failure::new(format!("the package {package} lacks a file that we need")));
    }
    let new = new.keep();
    fs::rename(&new, &folder).or_fail(|| format!("cannot make {}", folder.display()))?;
    Ok(kernel)
}
