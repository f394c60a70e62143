//! What guests that measure need on the host: a disk, and somebody who answers.

use crate::Failure;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const DISK_SIZE: u64 = 512 << 20;

/// Makes an empty ext4 disk image with mkfs.ext4's usual features.
pub(super) fn make_disk(path: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    if path.exists() {
        fs::remove_file(path).map_err(failed)?;
    }
    File::create(path).and_then(|file| file.set_len(DISK_SIZE)).map_err(failed)?;
    let status = Command::new("/usr/sbin/mke2fs").args(["-q", "-t", "ext4"]).arg(path).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("mke2fs {}: {status}", path.display())),
        Err(error) => Err(format!("cannot run mke2fs: {error}")),
    }
}

/// iperf3 as a server on the host, for as long as this lives.
pub(super) struct Server(Child);

impl Server {
    /// Starts it.
    pub(super) fn start() -> Result<Server, Failure> {
        let child = Command::new("iperf3")
            .args(["--server", "--bind", "127.0.0.1"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        child.map(Server).map_err(|error| format!("cannot start iperf3: {error}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
