//! Many bytes and many connections: Linux makes its side of the link bad (netem, both ways), and Quintet's throughput is set beside Linux's.

use super::Options;
use super::curve::{self, Curve};
use super::machine::Machine;
use crate::Failure;
use crate::workspace::{root, shown};
use std::fs;

const CONTROLS: [&str; 3] = ["reno", "cubic", "bbr"];
const SECONDS: u32 = 6;
/// Quintet's throughput has to be so much of Linux's, the median of all pairs of a kind of link.
const SHARE: f64 = 0.9;
/// Where Linux itself sends less than this, chance decides: bytes a second.
const ENOUGH: f64 = 20_000.0;

/// A kind of link, as netem's options for each way.
const LINKS: &[(&str, &str)] = &[
    ("good", "delay 1ms"),
    ("0.1 % lost", "delay 10ms loss 0.1%"),
    ("1 % lost", "delay 10ms loss 1%"),
    ("5 % lost", "delay 10ms loss 5%"),
    ("slow", "delay 50ms"),
    ("jumbled", "delay 10ms reorder 25% 50%"),
    ("doubled", "delay 10ms duplicate 2%"),
    ("corrupted", "delay 10ms corrupt 0.5%"),
    ("narrow", "rate 8mbit delay 20ms limit 100"),
];

/// Makes Linux's link what the options say: what it sends at once, what it receives by way of an intermediate device.
fn spoil(linux: &mut Machine, options: &str) -> Result<(), Failure> {
    let limit = if options.contains("limit") { "" } else { "limit 10000" };
    let script = format!(
        "tc qdisc del dev eth0 root; tc qdisc del dev eth0 ingress; tc qdisc del dev ifb0 root
         set -e
         ethtool -K eth0 gro off gso off
         ip link set ifb0 up
         tc qdisc add dev eth0 ingress
         tc filter add dev eth0 parent ffff: matchall action mirred egress redirect dev ifb0
         tc qdisc add dev eth0 root netem {options} {limit}
         tc qdisc add dev ifb0 root netem {options} {limit}"
    );
    linux.ask(&script, 30).map(drop)
}

/// Starts the server that counts and compares.
pub(super) fn serve(machine: &mut Machine) -> Result<(), Failure> {
    machine.ask(
        "echo 4096 > /proc/sys/net/core/somaxconn
         python3 /bulk.py serve 7000 > /tmp/serve.log 2>&1 &
         until python3 -c \"import socket; socket.create_connection(('127.0.0.1', 7000), 1).close()\" 2> /dev/null; do sleep 0.2; done",
        60,
    )?;
    Ok(())
}

/// Bytes a second of a transfer that has to come through whole.
fn transfer(machine: &mut Machine, way: &str, control: &str, seconds: u32, samples: &str) -> Result<f64, Failure> {
    let command = format!("python3 /bulk.py {way} 10.5.0.1 7000 {control} {seconds} {samples}");
    let said = machine.ask(&command, 240)?;
    let numbers: Vec<f64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match numbers[..] {
        [bytes, took] => Ok(bytes / took),
        _ => Err(format!("{}: `{command}` says {said}", machine.name)),
    }
}

/// Ten thousand connections to Linux, and as many from it.
pub(super) fn crowd(machines: &mut [Machine], _: &Options) -> Result<(), Failure> {
    for (client, server) in [(0, 1), (1, 0)] {
        serve(&mut machines[server])?;
        let command = format!("python3 /bulk.py crowd 10.5.0.{} 7000 10000", server + 1);
        let said = machines[client].ask(&command, 400)?;
        println!("   from {}: {}", machines[client].name, said.split_whitespace().collect::<Vec<_>>().join(" "));
        println!("   {}", machines[server].ask("grep TCP /proc/net/sockstat", 10)?.trim());
    }
    Ok(())
}

/// Every kind of link and congestion control, Quintet and Linux in turn.
pub(super) fn compare(machines: &mut [Machine], options: &Options) -> Result<(), Failure> {
    let [peer, quintet, linux] = machines else { return Ok(()) };
    serve(peer)?;
    let mut slow = Vec::new();
    for (name, link) in LINKS.iter().filter(|(name, _)| name.contains(&options.link)) {
        spoil(peer, link)?;
        let mut ratios = Vec::new();
        for (way, controls) in [("put", &CONTROLS[..]), ("get", &["cubic"])] {
            for control in controls {
                let mut rates = Vec::new();
                for _ in 0..options.rounds {
                    let ours = transfer(quintet, way, control, SECONDS, "")?;
                    rates.push((ours, transfer(linux, way, control, SECONDS, "")?));
                }
                let (ours, theirs) = (middle(rates.iter().map(|pair| pair.0)), middle(rates.iter().map(|pair| pair.1)));
                println!(
                    "   {name:<11} {way} {control:<6} {:>8.0} KB/s, Linux {:>8.0} KB/s, ratio {:.2}",
                    ours / 1e3,
                    theirs / 1e3,
                    ours / theirs
                );
                if theirs > ENOUGH {
                    ratios.push(ours / theirs);
                }
            }
        }
        let ratio = middle(ratios.iter().copied());
        if !ratios.is_empty() && ratio < SHARE {
            slow.push(format!("{name}: {ratio:.2}"));
        }
    }
    if slow.is_empty() { Ok(()) } else { Err(format!("less than {SHARE} of Linux's throughput: {}", slow.join(", "))) }
}

fn middle(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// Windows and round-trip times over a link of 8 Mbit/s, of both kernels.
pub(super) fn curves(machines: &mut [Machine], _: &Options) -> Result<(), Failure> {
    let [peer, senders @ ..] = machines else { return Ok(()) };
    serve(peer)?;
    spoil(peer, "rate 8mbit delay 20ms limit 60")?;
    let mut curves = Vec::new();
    for control in CONTROLS {
        for sender in &mut *senders {
            let rate = transfer(sender, "put", control, 20, "/tmp/samples")?;
            println!("   {} {control}: {:.0} KB/s", sender.name, rate / 1e3);
            let samples = sender.ask("cat /tmp/samples", 20)?;
            curves.push(Curve::parse(&format!("{control}, {}", sender.name), &samples));
        }
    }
    let path = root().join("target/net-lab/curves.svg");
    fs::write(&path, curve::svg(&curves)).map_err(|error| format!("{}: {error}", path.display()))?;
    println!("   written to {}", shown(&path));
    Ok(())
}
