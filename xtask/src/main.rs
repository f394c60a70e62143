//! The project's own commands: `cargo xtask COMMAND`.
//!
//! Every command makes sure of what it needs first ([`setup`]), builds what is stale ([`build`])
//! and says in plain words what it did not find. Depends on no crate of the workspace: it builds
//! and runs them as programs.

mod bench;
mod build;
mod census;
mod compat;
mod conformance;
mod crash_test;
mod fuzz;
mod guest;
mod lint;
mod net_lab;
mod profile;
mod run;
mod setup;
mod source;
mod status;
mod test;
mod toolchain;
mod workspace;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  run [OPTIONS] [-- CMD ARGS...]  build what is stale, then `quintet run` with these arguments
  test [FILTER] [--quick]         host tests, then the same ABI tests on Linux and in Quintet
  abi [OPTIONS] [FILTER]          only the ABI tests (--linux: in a Linux guest; --cpus N)
  bench [micro] [boot] [perf] [apps] [--quick] [--icount] [--against REV] [--rounds N] [--cpus N]
        [--accel A] [--json FILE] [--plot FILE.svg]
                                  time Quintet beside Linux, or beside another revision
  conformance [SUITE...] [--quick] [--item WORD] [--fresh] [--json FILE]
                                  other people's test-suites, on Linux and on Quintet
  report [--quick] [--no-run]     both of these; writes docs/status.md
  profile [--cpus N] [--root R] [--svg FILE] [--folded FILE] -- CMD...
                                  where the kernel spends the time of a command
  fuzz-syscalls [--minutes N] [--seed S] [--cpus N]
                                  random system calls; the kernel has to survive
  crash-test [--kills N] [--mode ordered|journal|writeback] [--drop-unflushed] [--seed S]
                                  kill the machine while it writes; e2fsck has to find nothing
  net-lab [--rounds N] [--link WORD] [SCENARIO...]
                                  machines on one link, Quintet's and Linux's; a wrong name lists the scenarios
  lint                            format, clippy, layers, unsafe, documentation, lengths
  census                          lines and share of unsafe, crate by crate
  compat [--check]                docs/compatibility.md from the system-call table
  build                           only build kernel, guest-init and quintet
  setup                           install what is missing on this machine
";

/// What went wrong, in words for the user.
type Failure = String;
type Outcome = Result<ExitCode, Failure>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", arguments.as_slice()),
    };
    let outcome = match command {
        "run" => run::run(rest),
        "test" => test::run(rest),
        "abi" => test::abi::command(rest),
        "bench" => bench::run(rest),
        "conformance" => conformance::run(rest),
        "crash-test" => crash_test::run(rest),
        "fuzz-syscalls" => fuzz::run(rest),
        "profile" => profile::run(rest),
        "report" => status::run(rest),
        "net-lab" => net_lab::run(rest),
        "lint" => lint::run(),
        "census" => census::run(),
        "compat" => compat::run(rest),
        "build" => build::all().map(|()| ExitCode::SUCCESS),
        "setup" => setup::run(rest),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        other => Err(format!("no command {other}\n{USAGE}")),
    };
    outcome.unwrap_or_else(|failure| {
        eprintln!("xtask: {failure}");
        ExitCode::FAILURE
    })
}
