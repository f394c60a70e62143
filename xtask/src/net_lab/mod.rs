//! `cargo xtask net-lab`: several machines on one link, and Linux among them.
//!
//! A scenario gets its machines freshly booted, has them talk with each other, and fails with the command that did not do what it should.

mod attack;
mod bulk;
mod curve;
mod machine;
mod plain;
mod services;

use crate::guest::Kernel::{self, Linux, Quintet};
use crate::workspace::root;
use crate::{Failure, Outcome, build, setup};
use machine::{Machine, Plan};
use std::process::ExitCode;
use std::time::Instant;

/// Debian with servers and clients of every kind.
const DEBIAN: &str = "debian,bind9-dnsutils,curl,dnsmasq-base,ethtool,iperf3,iproute2,iputils-ping,isc-dhcp-client,netbase,nginx-light,\
    openssh-server,tcpdump";
/// What a Linux peer makes its side of the link bad with.
const MODULES: &[&str] = &["ifb", "act_mirred", "cls_matchall", "sch_ingress", "sch_netem", "sch_fq", "tcp_bbr"];

/// A scenario: its name, its machines, and what they do.
struct Scenario {
    name: &'static str,
    what: &'static str,
    machines: &'static [Kernel],
    root: &'static str,
    /// What `quintet run` is told besides.
    options: &'static [&'static str],
    play: fn(&mut [Machine], &Options) -> Result<(), Failure>,
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "plain",
        what: "three Quintet machines: ping of all sizes, files by HTTP",
        machines: &[Quintet, Quintet, Quintet],
        root: "builtin",
        options: &[],
        play: plain::play,
    },
    Scenario {
        name: "services",
        what: "three Quintet machines: nginx, ssh, iperf3, DNS, DHCP",
        machines: &[Quintet, Quintet, Quintet],
        root: DEBIAN,
        options: &[],
        play: services::play,
    },
    Scenario {
        name: "peer",
        what: "the same with Linux as server and as client",
        machines: &[Quintet, Linux],
        root: DEBIAN,
        options: &[],
        play: services::with_peer,
    },
    Scenario {
        name: "crowd",
        what: "10,000 connections between Linux and Quintet, each way",
        machines: &[Quintet, Linux],
        root: DEBIAN,
        options: &[],
        play: bulk::crowd,
    },
    Scenario {
        name: "attack",
        what: "a flood of SYNs and connections that take nothing: others are served, memory is bounded",
        machines: &[Quintet, Quintet],
        root: DEBIAN,
        options: &[],
        play: attack::play,
    },
    Scenario {
        name: "idle",
        what: "memory of idle connections, beside Linux",
        machines: &[Quintet, Linux],
        root: DEBIAN,
        options: &["--memory", "4G"],
        play: attack::idle,
    },
    Scenario {
        name: "bulk",
        what: "transfers over a bad link to and from Linux, beside Linux to Linux",
        machines: &[Linux, Quintet, Linux],
        root: DEBIAN,
        options: &[],
        play: bulk::compare,
    },
    Scenario {
        name: "curves",
        what: "windows and round-trip times of each congestion control over a narrow link, as SVG",
        machines: &[Linux, Quintet, Linux],
        root: DEBIAN,
        options: &[],
        play: bulk::curves,
    },
];

/// What a scenario may be told.
struct Options {
    /// How often a figure is taken.
    rounds: usize,
    /// Only links whose name has this in it.
    link: String,
}

fn parse(mut arguments: &[String]) -> Result<(Options, &[String]), Failure> {
    let mut options = Options { rounds: 3, link: String::new() };
    while let [option, value, rest @ ..] = arguments {
        match option.as_str() {
            "--rounds" => options.rounds = value.parse().map_err(|_| "--rounds takes a number")?,
            "--link" => options.link = value.clone(),
            _ => break,
        }
        arguments = rest;
    }
    Ok((options, arguments))
}

/// `cargo xtask net-lab [--rounds N] [--link WORD] [SCENARIO...]`
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let (options, arguments) = parse(arguments)?;
    let known = |name: &String| SCENARIOS.iter().any(|scenario| scenario.name == name);
    if let Some(name) = arguments.iter().find(|name| !known(name)) {
        let list: Vec<String> = SCENARIOS.iter().map(|one| format!("  {:<9} {}", one.name, one.what)).collect();
        return Err(format!("net-lab has no scenario {name}, but these:\n{}", list.join("\n")));
    }
    setup::ensure(setup::RUN)?;
    build::all()?;
    let mut failed = false;
    for scenario in SCENARIOS.iter().filter(|one| arguments.is_empty() || arguments.iter().any(|name| name == one.name))
    {
        println!("== {}: {}", scenario.name, scenario.what);
        let began = Instant::now();
        let outcome = play(scenario, &options);
        failed |= outcome.is_err();
        let result = outcome.map_or_else(|why| format!("FAILED: {why}"), |()| "ok".to_owned());
        println!("   {result} ({} s)", began.elapsed().as_secs());
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What `cargo xtask test` runs of it.
pub(crate) const SHORT: &str = "network: three machines on one link";

/// The short form.
pub(crate) fn short() -> Result<(), Failure> {
    play(&SCENARIOS[0], &Options { rounds: 1, link: String::new() })
}

fn play(scenario: &Scenario, options: &Options) -> Result<(), Failure> {
    let link = format!("lab-{}-{}", std::process::id(), scenario.name);
    let program = |name: &str| root().join("tests/net-lab").join(name);
    let programs = ["bulk.py", "attack.py", "idle.py"].map(|name| (program(name), format!("/{name}")));
    let files = if scenario.root == DEBIAN { &programs[..] } else { &[] };
    let mut machines = Vec::new();
    for (number, &kernel) in (1..).zip(scenario.machines) {
        let (root, options) = (scenario.root, scenario.options);
        machines.push(Machine::start(&Plan { kernel, number, root, options, files, modules: MODULES }, &link)?);
    }
    machines.iter_mut().try_for_each(Machine::ready)?;
    (scenario.play)(&mut machines, options)
}
