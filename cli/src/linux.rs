//! Debian's own kernel, to run the same root and command on for comparison.

use crate::cache::Cache;
use crate::failure::{Context, Failure};
use crate::root::package;
use std::fs;
use std::path::PathBuf;

const META_PACKAGE: &str = "linux-image-cloud-amd64";
/// What the ports need, in the order of loading.
const MODULES: [&str; 7] = [
    "virtio_ring",
    "virtio",
    "virtio_mmio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_console",
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

/// The kernel from the cache, fetched the first time.
pub fn prepare(cache: &Cache) -> Result<LinuxKernel, Failure> {
    let folder = cache.path("linux");
    let kernel = LinuxKernel {
        image: folder.join("vmlinuz"),
        modules: MODULES
            .iter()
            .enumerate()
            .map(|(number, name)| folder.join(format!("{number:02}-{name}.ko")))
            .collect(),
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
            && let Some(number) = MODULES.iter().position(|module| *module == stem)
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
