//! virtiofsd: a process beside QEMU that shows the guest a folder, whose memory it shares (vhost-user-fs).

use crate::failure::{Context, Failure};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Where Debian's QEMU has it; it is in nobody's search path.
const PROGRAM: &str = "/usr/lib/qemu/virtiofsd";
/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_secs(5);

/// A running one.
pub struct Server {
    child: Child,
    /// Has the socket; goes with it.
    folder: TempDir,
}

impl Server {
    /// Starts one for a folder, which ends when this process does.
    pub fn start(shown: &Path) -> Result<Server, Failure> {
        let failed = || format!("cannot show {} over virtiofs", shown.display());
        if !Path::new(PROGRAM).exists() {
            return Err(Failure::new(failed())
                .because(format!("there is no {PROGRAM}"))
                .advise("`apt-get install qemu-system-common`, or leave `:virtiofs` out."));
        }
        let folder = tempfile::tempdir().or_fail(failed)?;
        let mut source = OsString::from("source=");
        source.push(shown.canonicalize().or_fail(failed)?);
        let own = std::env::current_exe().or_fail(failed)?;
        let mut command = Command::new(own);
        command.args(["__guard", "--"]);
        if !rustix::process::geteuid().is_root() {
            // It wants to be root, and is in a name space of its own.
            command.args(["unshare", "--user", "--map-root-user", "--mount"]);
        }
        let mut socket = OsString::from("--socket-path=");
        socket.push(folder.path().join("socket"));
        let child = command
            .args([PROGRAM, "-f", "-o", "cache=none,xattr", "-o"])
            .arg(source)
            .arg(socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .or_fail(failed)?;
        let mut server = Server { child, folder };
        let deadline = Instant::now() + PATIENCE;
        while !server.socket().exists() {
            if Instant::now() > deadline || !matches!(server.child.try_wait(), Ok(None)) {
                return Err(Failure::new(failed()).because("virtiofsd does not come up"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(server)
    }

    /// Where QEMU finds it.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(self.socket());
    }
}
