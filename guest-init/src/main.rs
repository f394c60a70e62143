//! PID 1 in the guest: mounts what every Linux program expects, runs one program for `quintet` and
//! reports how it ended, then switches the machine off.
//!
//! It talks to the host over four virtio-serial ports (see `protocol`), is one thread around
//! `poll(2)`, and uses only plain system calls, so that it is among the first programs that a young
//! kernel can run. It works the same on Linux, where it first loads the modules it finds in
//! `/.quintet/modules`.
//!
//! May depend on `protocol`. Takes no lock.

mod account;
mod disk_root;
mod mounts;
mod network;
mod ports;
mod pump;
mod session;
mod spawn;
mod volumes;

use std::fs;
use std::process::ExitCode;

/// Where the host put this program and what it needs to get going.
const OWN_FOLDER: &str = "/.quintet";

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("guest-init is PID 1 of a Quintet guest: `quintet run` starts it there.");
        return ExitCode::FAILURE;
    }
    if let Err(error) = run() {
        // Standard error is the console: this line lands in the kernel log.
        eprintln!("quintet init: {error}");
    }
    session::end_all();
    rustix::fs::sync();
    disk_root::leave();
    if let Err(error) = rustix::system::reboot(rustix::system::RebootCommand::PowerOff) {
        eprintln!("quintet init: cannot switch off: {error}");
    }
    ExitCode::FAILURE
}

fn run() -> std::io::Result<()> {
    load_modules();
    mounts::set_up();
    let ports = ports::Ports::open()?;
    if let Some(device) = disk_root::device() {
        disk_root::enter(&device)?;
    }
    network::set_up();
    // The program should find the root as its owner made it.
    let _ = fs::remove_dir_all(OWN_FOLDER);
    session::run(ports)
}

/// Loads the modules that a Linux kernel needs for the ports, in the order of their file names.
fn load_modules() {
    let Ok(entries) = fs::read_dir(format!("{OWN_FOLDER}/modules")) else {
        return;
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let loaded = fs::File::open(&path).and_then(|file| Ok(rustix::system::finit_module(&file, c"", 0)?));
        if let Err(error) = loaded {
            eprintln!("quintet init: {}: {error}", path.display());
        }
    }
}
