//! QEMU's command line and process.

use crate::accel::Accel;
use crate::disk::Disk;
use crate::failure::{Context, Failure};
use crate::network::Connection;
use crate::virtiofsd::Server;
use crate::volume::{self, Volume};
use clap::ValueEnum;
use protocol::Port;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

const QEMU: &str = "qemu-system-x86_64";

/// The machines that QEMU models for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Model {
    /// A PC with PCI Express and a BIOS.
    Q35,
    /// The least that a PC can be: virtio over MMIO, no BIOS.
    Microvm,
}

/// Everything that QEMU needs to know.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The machine.
    pub model: Model,
    /// ACPI tables for the guest.
    pub acpi: bool,
    /// Number of CPUs.
    pub cpus: u16,
    /// Bytes of memory.
    pub memory: u64,
    /// The kernel's file.
    pub kernel: PathBuf,
    /// The initrd's file.
    pub initrd: PathBuf,
    /// The kernel's command line.
    pub command_line: String,
    /// Disks, each with its format.
    pub disks: Vec<(Disk, &'static str)>,
    /// A folder that is its root, and whether it may write there.
    pub root: Option<(PathBuf, bool)>,
    /// Folders that it sees.
    pub volumes: Vec<Volume>,
    /// What it is connected to.
    pub network: Connection,
    /// Wait for gdb on this port.
    pub gdb: Option<u16>,
    /// The user's own arguments.
    pub extra: Vec<OsString>,
}

/// A running QEMU and our ends of its lines.
pub struct Running {
    child: Child,
    /// What shows it folders, as long as it runs.
    _servers: Vec<Server>,
    messages: Option<JoinHandle<String>>,
    /// The serial line: the kernel's log.
    pub serial: UnixStream,
    /// The ports, in the order of [`Port::ALL`].
    pub ports: [UnixStream; 4],
    /// When it started.
    pub started: SystemTime,
}

impl Machine {
    /// Starts QEMU.
    pub fn start(&self, accel: Accel) -> Result<Running, Failure> {
        let mut lines = Vec::new();
        let mut theirs = Vec::new();
        for _ in 0..=Port::ALL.len() {
            let (our_end, their_end) = UnixStream::pair().or_fail(|| "cannot make a socket pair".into())?;
            let their_end = OwnedFd::from(their_end);
            // QEMU inherits this end and knows it by its number.
            fcntl_setfd(&their_end, FdFlags::empty()).or_fail(|| "cannot pass a socket".into())?;
            lines.push(our_end);
            theirs.push(their_end);
        }
        let numbers: Vec<i32> = theirs.iter().map(AsRawFd::as_raw_fd).collect();
        let own = std::env::current_exe().or_fail(|| "cannot find this program".into())?;
        let shared = self.volumes.iter().filter(|volume| volume.virtiofs);
        let servers = shared.map(|volume| Server::start(&volume.host)).collect::<Result<Vec<_>, _>>()?;
        let sockets: Vec<PathBuf> = servers.iter().map(Server::socket).collect();
        let started = SystemTime::now();
        let mut child = Command::new(own)
            .arg("__guard")
            .arg("--")
            .arg(QEMU)
            .args(self.arguments(accel, &numbers, &sockets))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C is for the program in the guest.
            .process_group(0)
            .spawn()
            .or_fail(|| "cannot start QEMU".into())?;
        drop(theirs);
        let messages = child.stderr.take().map(|mut pipe| {
            std::thread::spawn(move || {
                let mut text = Vec::new();
                // What could be read is what there is to show.
                let _ = pipe.by_ref().take(64 << 10).read_to_end(&mut text);
                let _ = io::copy(&mut pipe, &mut io::sink());
                String::from_utf8_lossy(&text).into_owned()
            })
        });
        let serial = lines.remove(0);
        let ports = lines.try_into().map_err(|_| Failure::new("the ports are not four"))?;
        Ok(Running { child, _servers: servers, messages, serial, ports, started })
    }

    /// QEMU's arguments; `lines` are the descriptors of the serial line and of the ports, `sockets` those of what shows the volumes that are
    /// shown over virtiofs.
    fn arguments(&self, accel: Accel, lines: &[i32], sockets: &[PathBuf]) -> Vec<OsString> {
        let (machine, serial_device) = match self.model {
            Model::Q35 => ("q35", "virtio-serial-pci"),
            Model::Microvm => ("microvm", "virtio-serial-device"),
        };
        let mut arguments: Vec<OsString> =
            ["-nodefaults", "-no-user-config", "-no-reboot"].map(OsString::from).to_vec();
        let mut add = |option: &str, value: OsString| {
            arguments.push(option.into());
            arguments.push(value);
        };
        add("-display", "none".into());
        add("-machine", format!("{machine},acpi={}", if self.acpi { "on" } else { "off" }).into());
        add("-accel", self.accel_argument(accel).into());
        add("-cpu", "max".into());
        add("-smp", self.cpus.to_string().into());
        add("-m", format!("{}k", self.memory >> 10).into());
        add("-kernel", self.kernel.clone().into());
        add("-initrd", self.initrd.clone().into());
        add("-append", self.command_line.clone().into());
        add("-device", "isa-debug-exit,iobase=0xf4,iosize=4".into());
        add("-global", "virtio-mmio.force-legacy=false".into());
        add("-device", serial_device.into());
        for (index, line) in lines.iter().enumerate() {
            add("-chardev", format!("socket,id=line{index},fd={line}").into());
            if index == 0 {
                add("-serial", "chardev:line0".into());
            } else {
                let port = format!("virtserialport,chardev=line{index},nr={index},name=quintet.{index}");
                add("-device", port.into());
            }
        }
        let disk =
            |(index, (disk, format)): (usize, &(Disk, &str))| disk.arguments(self.model, self.cpus, index, format);
        for (option, value) in self.disks.iter().enumerate().flat_map(disk) {
            add(option, value);
        }
        let shown =
            |(folder, writes): &(PathBuf, bool)| volume::arguments(folder, !writes, self.model, volume::ROOT_TAG);
        for (option, value) in self.root.iter().flat_map(shown) {
            add(option, value);
        }
        for (option, value) in self.volume_arguments(sockets) {
            add(option, value);
        }
        for (option, value) in self.network.arguments(self.model) {
            add(option, value);
        }
        if let Some(port) = self.gdb {
            add("-gdb", format!("tcp:127.0.0.1:{port}").into());
            arguments.push("-S".into());
        }
        arguments.extend(self.extra.iter().cloned());
        arguments
    }

    fn volume_arguments(&self, sockets: &[PathBuf]) -> Vec<(&'static str, OsString)> {
        let mut sockets = sockets.iter();
        let mut all: Vec<(&'static str, OsString)> = Vec::new();
        for (index, volume) in self.volumes.iter().enumerate() {
            let socket = if volume.virtiofs { sockets.next() } else { None };
            all.extend(match socket {
                Some(socket) => volume::virtiofs_arguments(socket, self.model, index),
                None => volume.arguments(self.model, index),
            });
        }
        if self.volumes.iter().any(|volume| volume.virtiofs) {
            // Who shows them writes into the guest's memory.
            let memory = format!("memory-backend-memfd,id=memory,size={}k,share=on", self.memory >> 10);
            all.push(("-object", memory.into()));
            all.push(("-machine", "memory-backend=memory".into()));
        }
        all
    }

    fn accel_argument(&self, accel: Accel) -> &'static str {
        match accel {
            Accel::Kvm => "kvm",
            // QEMU counts instructions in one thread only.
            Accel::Tcg if self.extra.iter().any(|argument| argument == "-icount") => "tcg,thread=single",
            Accel::Tcg => "tcg,thread=multi",
        }
    }
}

impl Running {
    /// Ends the machine now.
    pub fn kill(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // An error means that it has ended already.
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Waits for the end, and brings it about if it does not come: QEMU's status and what it said.
    pub fn wait_at_most(&mut self, patience: Duration) -> (Option<ExitStatus>, String) {
        let started = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if started.elapsed() > patience {
                self.kill();
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let status = self.child.wait().ok();
        let said = self.messages.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        (status, said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}

/// Says how QEMU ended.
pub fn describe(status: Option<ExitStatus>) -> String {
    match status {
        None => "QEMU ended".into(),
        Some(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("QEMU ended with status {code}"),
            (None, Some(signal)) => format!("QEMU was killed by signal {signal}"),
            (None, None) => "QEMU ended".into(),
        },
    }
}

/// Becomes `program` in a process that the kernel kills when `quintet` ends, however it ends.
pub fn guard(program: &[OsString]) -> Failure {
    let Some((name, arguments)) = program.split_first() else {
        return Failure::new("there is nothing to guard");
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return Failure::new("cannot tie QEMU's life to ours").because(error);
    }
    if getppid() == Some(Pid::INIT) {
        return Failure::new("the quintet that started this process has ended");
    }
    let error = Command::new(name).args(arguments).exec();
    Failure::new(format!("cannot start {}", name.display()))
        .because(error)
        .advise("Install QEMU: `apt-get install qemu-system-x86`, or run `cargo xtask setup`.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(model: Model) -> Machine {
        Machine {
            model,
            acpi: false,
            cpus: 3,
            memory: 512 << 20,
            kernel: "k".into(),
            initrd: "i".into(),
            command_line: "a b".into(),
            disks: Vec::new(),
            root: None,
            volumes: Vec::new(),
            network: Connection::default(),
            gdb: Some(1234),
            extra: vec!["-x".into()],
        }
    }

    #[test]
    fn the_command_line_says_what_was_asked() {
        let arguments = machine(Model::Microvm).arguments(Accel::Tcg, &[10, 11, 12, 13, 14], &[]);
        let line = arguments.join(std::ffi::OsStr::new(" ")).into_string().expect("text");
        for part in [
            "-machine microvm,acpi=off -accel tcg,thread=multi -cpu max -smp 3 -m 524288k",
            "-kernel k -initrd i -append a b",
            "-chardev socket,id=line0,fd=10 -serial chardev:line0",
            "-chardev socket,id=line4,fd=14 -device virtserialport,chardev=line4,nr=4,",
            "-device virtio-serial-device",
            "-gdb tcp:127.0.0.1:1234 -S -x",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        let arguments = machine(Model::Q35).arguments(Accel::Kvm, &[], &[]);
        assert!(arguments.contains(&"virtio-serial-pci".into()));
        assert!(arguments.contains(&"kvm".into()));
    }
}
