//! `quintet run`: from the options to the program's exit status.

use crate::accel::{self, Attempt};
use crate::args::RunOptions;
use crate::artifacts;
use crate::cache::Cache;
use crate::disk;
use crate::failure::{Context, Failure};
use crate::kernel_log::{KernelLog, Sink};
use crate::linux::{self, LinuxKernel};
use crate::machine::{Machine, Model};
use crate::network::Connection;
use crate::root::{self, Initrd, Overlay, Root};
use crate::session::{self, Outcome, Plan};
use crate::terminal;
use crate::volume::{self, Volume};
use protocol::Start;
use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

/// Memory that a guest gets beyond what its root takes.
const SPARE_MEMORY: u64 = 1 << 30;
/// Less than this beyond the root, and no kernel comes up.
const LEAST_MEMORY: u64 = 32 << 20;
const MEMORY_STEP: u64 = 64 << 20;

/// The kernel to boot, and what it needs to be told.
struct Kernel {
    path: PathBuf,
    linux: Option<LinuxKernel>,
}

impl Kernel {
    fn usual_machine(&self) -> Model {
        // Debian's kernel finds no clock on a microvm without KVM.
        if self.linux.is_some() { Model::Q35 } else { Model::Microvm }
    }
}

/// Runs what the options say and returns the exit status.
pub fn run(options: &RunOptions) -> Result<u8, Failure> {
    let cache = Cache::open()?;
    let kernel = choose_kernel(options, &cache)?;
    let init = artifacts::init(options.init.as_deref())?;
    let modules = kernel.linux.as_ref().map(|linux| linux.modules.clone()).unwrap_or_default();
    let overlay = Overlay { init, modules, copies: options.copy.clone() };
    let initrd = root::prepare(&options.root, options.keep, kernel.linux.is_none(), &cache, &overlay)?;
    let mut disks = Vec::new();
    // The root is the last, so that the user's disks have the names that they would have without it.
    for disk in options.disk.iter().chain(&initrd.disk) {
        disks.push((disk.clone(), disk.format()?));
    }
    options.volume.iter().try_for_each(Volume::check)?;
    let network = Connection::new(options.network.as_ref(), &options.publish);
    let machine = Machine {
        model: options.machine.unwrap_or(kernel.usual_machine()),
        acpi: !options.no_acpi,
        cpus: options.cpus,
        memory: memory(options, initrd.size, kernel.linux.is_some())?,
        command_line: command_line(options, &kernel, &initrd, &network),
        kernel: kernel.path.clone(),
        initrd: initrd.path.clone(),
        disks,
        root: initrd.shared.clone(),
        volumes: options.volume.clone(),
        network,
        gdb: options.gdb,
        extra: options.qemu_arg.clone(),
    };
    let log = KernelLog::new(log_sink(options)?);
    if let Some(port) = options.gdb {
        announce_gdb(port, &kernel);
    }
    let start = start(options);
    for attempt in accel::attempts(options.accel, &cache) {
        let plan = Plan {
            start: start.clone(),
            attempt: if options.gdb.is_some() { Attempt { patience: None, ..attempt } } else { attempt },
            timeout: options.timeout.map(Duration::from_secs_f64),
            kernel: kernel.path.clone(),
            debugged: options.gdb.is_some(),
            times: options.times.clone(),
        };
        match session::run(machine.start(attempt.accel)?, &plan, &log)? {
            Outcome::Status(status) => return Ok(status),
            Outcome::NotUp(why) => accel::kvm_failed(&cache, &why),
        }
    }
    Err(Failure::new("the guest does not come up").advise("Add --kernel-log to see how far it gets."))
}

fn choose_kernel(options: &RunOptions, cache: &Cache) -> Result<Kernel, Failure> {
    if options.kernel.as_deref() == Some("linux".as_ref()) {
        let disks = !options.disk.is_empty() || options.root != Root::Builtin;
        let network = Connection::new(options.network.as_ref(), &options.publish).exists();
        let linux = linux::prepare(cache, disks, network, &options.module)?;
        return Ok(Kernel { path: linux.image.clone(), linux: Some(linux) });
    }
    Ok(Kernel { path: artifacts::kernel(options.kernel.as_deref())?, linux: None })
}

fn memory(options: &RunOptions, root: u64, linux: bool) -> Result<u64, Failure> {
    // Linux copies the root out of the initrd before it frees that; Quintet uses it in place.
    let needed = if linux { root * 2 } else { root };
    match options.memory {
        None => Ok((needed + SPARE_MEMORY).next_multiple_of(MEMORY_STEP)),
        Some(given) if given >= needed + LEAST_MEMORY => Ok(given),
        Some(given) => Err(Failure::new(format!("{} MiB of memory are too little", given >> 20))
            .because(format!("the root alone takes {} MiB", needed >> 20))
            .advise(format!(
                "Give it --memory {}M or more, or leave the option out.",
                ((needed + LEAST_MEMORY).next_multiple_of(MEMORY_STEP)) >> 20
            ))),
    }
}

fn command_line(options: &RunOptions, kernel: &Kernel, initrd: &Initrd, network: &Connection) -> String {
    let mut words = Vec::new();
    // Read by the guest's PID 1; the kernel starts that from the initrd first.
    if initrd.disk.is_some() {
        words.push(format!("quintet.root=/dev/{}", disk::name(options.disk.len())));
    } else if let Some((_, keep)) = &initrd.shared {
        let how = if *keep { "shared" } else { "below" };
        words.push(format!("quintet.root={how}:{}", volume::ROOT_TAG));
    }
    if kernel.linux.is_some() {
        words.push(linux::command_line(options.kernel_log.is_some()).to_owned());
    }
    words.extend(network.command_line());
    words.extend(options.append.iter().cloned());
    words.join(" ")
}

fn log_sink(options: &RunOptions) -> Result<Sink, Failure> {
    Ok(match &options.kernel_log {
        None => Sink::Nowhere,
        Some(None) => Sink::Stderr,
        Some(Some(path)) => {
            Sink::File(File::create(path).or_fail(|| format!("cannot write the kernel log to {}", path.display()))?)
        }
    })
}

fn announce_gdb(port: u16, kernel: &Kernel) {
    eprintln!(
        "quintet: waiting for gdb:  gdb {} -ex 'target remote :{port}' -ex 'hbreak kernel::boot::main' -ex continue",
        kernel.path.display()
    );
}

fn start(options: &RunOptions) -> Start {
    let terminal = terminal::is_interactive().then(terminal::size);
    let mut env = Vec::new();
    if terminal.is_some() {
        let kind = env::var_os("TERM").unwrap_or_else(|| "xterm".into());
        env.push([b"TERM=", kind.as_bytes()].concat());
    }
    for entry in &options.env {
        if entry.as_bytes().contains(&b'=') {
            env.push(entry.clone().into_vec());
        } else if let Some(value) = env::var_os(entry) {
            env.push([entry.as_bytes(), b"=", value.as_bytes()].concat());
        }
    }
    let bytes = |text: &OsStr| text.as_bytes().to_vec();
    Start {
        argv: options.command.iter().map(|word| bytes(word)).collect(),
        env,
        cwd: bytes(&options.workdir),
        user: bytes(&options.user),
        hostname: bytes(&options.hostname),
        terminal,
        volumes: options.volume.iter().enumerate().map(|(index, volume)| volume.message(index)).collect(),
    }
}
