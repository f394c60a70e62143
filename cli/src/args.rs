//! The command line.

use crate::accel::Choice;
use crate::disk::Disk;
use crate::machine::Model;
use crate::network::{Network, Publish, parse_network, parse_publish};
use crate::root::Root;
use crate::volume::{self, Volume};
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// Runs Linux programs on the Quintet kernel in a microVM.
#[derive(Debug, Parser)]
#[command(name = "quintet", version)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `quintet` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a program in a new guest, or a shell if none is named.
    ///
    /// The exit status is the program's (128 + n if signal n killed it); 123 if the guest's
    /// kernel panicked, 124 after --timeout, 125 if quintet itself failed, 126 if the program
    /// cannot be executed, 127 if it is not there.
    Run(Box<RunOptions>),
    /// Print who waits for whom in a running guest: threads that wait for locks, pipes and semaphores, and circles
    /// of them.
    Deadlocks {
        /// The process that runs the guest; not needed where there is only one.
        pid: Option<u32>,
        /// A graph for Graphviz's `dot`.
        #[arg(long)]
        graph: bool,
    },
    /// Become QEMU, and end when quintet ends.
    #[command(name = "__guard", hide = true)]
    Guard {
        /// QEMU and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        program: Vec<OsString>,
    },
}

/// The options of `quintet run`.
#[derive(Args, Clone, Debug)]
pub struct RunOptions {
    /// The root to run on: `builtin` (busybox), `debian` or `debian,PACKAGE,...` (made once and kept as an ext4 image),
    /// a folder, a tar file, or a disk image (raw or qcow2) with ext4, squashfs or erofs.
    #[arg(long, default_value = "builtin", value_name = "ROOT")]
    pub root: Root,
    /// Keep what is written to a root on a disk image (Debian's is one) or in a folder; otherwise it is gone afterwards.
    #[arg(long)]
    pub keep: bool,
    /// Number of CPUs.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=255))]
    pub cpus: u16,
    /// Memory, such as 512M or 4G [default: what the root needs and 1G].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub memory: Option<u64>,
    /// The machine that QEMU models [default: microvm; q35 for --kernel linux].
    #[arg(long, value_enum)]
    pub machine: Option<Model>,
    /// How the guest's CPUs run; auto takes KVM where the guest comes up under it.
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    pub accel: Choice,
    /// Show the kernel's own log on standard error, or write it to FILE.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    pub kernel_log: Option<Option<PathBuf>>,
    /// Wait for gdb on this port of the local host before the first instruction.
    #[arg(long, value_name = "PORT", num_args = 0..=1, require_equals = true, default_missing_value = "1234")]
    pub gdb: Option<u16>,
    /// Add a file or a folder of this machine to the root, in a folder that the root has.
    #[arg(long, value_name = "FILE:PATH", value_parser = parse_copy)]
    pub copy: Vec<(PathBuf, String)>,
    /// Give the guest a disk image (raw or qcow2): the first is /dev/vda, the next /dev/vdb, ... `:ro` makes it
    /// read-only, with `:snapshot` what the guest writes is gone afterwards.
    #[arg(long, value_name = "IMG[:ro][:snapshot]")]
    pub disk: Vec<Disk>,
    /// Show a folder of this machine in the guest, where both see at once what the other writes; `:ro` keeps the
    /// guest from writing, `:virtiofs` shows it by a process of its own (virtiofsd) instead of QEMU's 9P server.
    #[arg(short, long, value_name = "HOST:GUEST[:ro|:virtiofs]", value_parser = volume::parse)]
    pub volume: Vec<Volume>,
    /// What the guest is connected to: nothing, the host's network through QEMU, or a link that it shares with the other machines that name
    /// it [default: none, or user with --publish].
    #[arg(long, value_name = "none|user|socket=NAME[,ADDRESS/BITS]", value_parser = parse_network)]
    pub network: Option<Network>,
    /// Let a port of this machine lead to one of the guest.
    #[arg(short, long, value_name = "[ADDRESS:]HOST:GUEST[/udp]", value_parser = parse_publish)]
    pub publish: Vec<Publish>,
    /// Set an environment variable (NAME alone passes on its value here).
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<OsString>,
    /// The working directory in the guest.
    #[arg(short, long, value_name = "DIR", default_value = "/")]
    pub workdir: OsString,
    /// The user to run as: a name or number, with or without a group.
    #[arg(short, long, value_name = "USER[:GROUP]", default_value = "")]
    pub user: OsString,
    /// The guest's host name.
    #[arg(long, value_name = "NAME", default_value = "quintet")]
    pub hostname: OsString,
    /// End the guest after this many seconds, with status 124.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub timeout: Option<f64>,
    /// Add words to the kernel's command line.
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    pub append: Vec<String>,
    /// Boot this kernel: a file, or `linux` for Debian's own, to compare with.
    #[arg(long, value_name = "FILE|linux")]
    pub kernel: Option<PathBuf>,
    /// Load this module of Debian's kernel as well.
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub module: Vec<String>,
    /// Start this program as PID 1 instead of quintet's own.
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub init: Option<PathBuf>,
    /// Hide ACPI from the guest.
    #[arg(long, hide_short_help = true)]
    pub no_acpi: bool,
    /// Write to FILE when QEMU started (`started`, seconds of the host's clock) and how many milliseconds
    /// later PID 1 was there (`ready`), and the bytes of the kernel's image (`image`).
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub times: Option<PathBuf>,
    /// Add one argument to QEMU's.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true, hide_short_help = true)]
    pub qemu_arg: Vec<OsString>,
    /// The program and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Parses a number of bytes with an optional unit: K, M, G or T, powers of 1024.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let upper = text.to_ascii_uppercase();
    let upper = upper.trim_end_matches('B').trim_end_matches('I');
    let digits = upper.trim_end_matches(['K', 'M', 'G', 'T']);
    let shift = match &upper[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err("write a number and one of K, M, G, T, such as 512M".into()),
    };
    let number: u64 = digits.parse().map_err(|_| "write a size such as 512M or 4G")?;
    let size = number.checked_mul(1 << shift).ok_or("that is too much")?;
    if size < 1 << 20 {
        return Err("less than 1M; write a unit, such as 512M".into());
    }
    Ok(size)
}

fn parse_copy(text: &str) -> Result<(PathBuf, String), String> {
    match text.rsplit_once(":/") {
        Some((file, path)) if !file.is_empty() && !path.is_empty() => Ok((file.into(), path.to_owned())),
        _ => Err("write FILE:/PATH/IN/THE/GUEST".into()),
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds < 1e9 => Ok(seconds),
        _ => Err("write a positive number of seconds".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("4g"), Ok(4 << 30));
        assert_eq!(parse_size("2GiB"), Ok(2 << 30));
        for bad in ["", "M", "12", "1X", "1KM", "99999999999T", "-1G"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_command_keeps_its_own_options() {
        let parse = |words: &[&str]| Arguments::try_parse_from(words).map(|got| got.command);
        let Ok(Command::Run(options)) = parse(&["quintet", "run", "--kernel-log", "--gdb", "ls", "-l", "--cpus", "3"])
        else {
            panic!("refused");
        };
        assert_eq!(options.command, ["ls", "-l", "--cpus", "3"]);
        assert_eq!(options.cpus, 1);
        assert_eq!(options.kernel_log, Some(None));
        assert_eq!(options.gdb, Some(1234));
        assert!(parse(&["quintet", "run", "--cpus", "0"]).is_err());
        assert!(parse(&["quintet", "run", "--timeout", "-1"]).is_err());
    }
}
