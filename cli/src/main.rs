//! The thin binary around the `quintet` library.

use clap::Parser;
use quintet::args::{Arguments, Command};
use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run(options) => quintet::run::run(&options),
        Command::Deadlocks { pid, graph } => quintet::inquiry::deadlocks(pid, graph),
        Command::Guard { program } => Err(quintet::machine::guard(&program)),
    };
    match outcome {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.status)
        }
    }
}
