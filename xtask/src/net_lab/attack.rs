//! Attacks: a machine that is attacked goes on to serve others, within bounds. And what idle connections cost.

use super::Options;
use super::bulk::serve;
use super::machine::Machine;
use crate::Failure;

/// Bytes of memory that a victim may lose to an attack while it lasts.
const LOSS: u64 = 96 << 20;
/// The kernel's bytes for each end of an idle connection.
const IDLE: u64 = 4096;
const IDLE_CONNECTIONS: u32 = 10_000;

fn number(machine: &mut Machine, command: &str, seconds: u64) -> Result<u64, Failure> {
    let said = machine.ask(command, seconds)?;
    said.trim().parse().map_err(|_| format!("{}: `{command}` says {said:?} and no number", machine.name))
}

fn available(machine: &mut Machine) -> Result<u64, Failure> {
    number(machine, "awk '/^MemAvailable/ { print $2 * 1024 }' /proc/meminfo", 20)
}

/// The attacker uses the service as others do.
fn use_service(attacker: &mut Machine, what: &str) -> Result<(), Failure> {
    let said = attacker.ask("python3 /bulk.py crowd 10.5.0.1 7000 50", 120)?;
    println!("   during {what}: {}", said.trim());
    Ok(())
}

fn check_loss(victim: &mut Machine, before: u64, what: &str) -> Result<(), Failure> {
    let lost = before.saturating_sub(available(victim)?);
    println!("   {what}: {} KiB of memory in use", lost >> 10);
    if lost <= LOSS { Ok(()) } else { Err(format!("{what}: {} MiB of memory are in use", lost >> 20)) }
}

/// A flood of SYNs, and connections that take nothing of what they asked for.
pub(super) fn play(machines: &mut [Machine], _: &Options) -> Result<(), Failure> {
    let [victim, attacker] = machines else { return Ok(()) };
    serve(victim)?;
    // Answers to those who do not exist get lost at the attacker.
    victim.ask("ip route add default via 10.5.0.2", 10)?;
    let mac = victim.ask("cat /sys/class/net/eth0/address", 10)?;
    use_service(attacker, "peace")?;
    let before = available(victim)?;

    attacker.ask(&format!("python3 /attack.py flood eth0 {} 10.5.0.1 7000 20 > /tmp/sent 2>&1 &", mac.trim()), 10)?;
    attacker.ask("sleep 5", 30)?;
    use_service(attacker, "a flood of SYNs")?;
    check_loss(victim, before, "a flood of SYNs")?;
    let sent = number(attacker, "wait; while pgrep -f attack.py > /dev/null; do sleep 1; done; cat /tmp/sent", 120)?;
    let count = |name: &str| format!("nstat -asz {name} | awk '/^{name}/ {{ print $2 }}'");
    let cookies = number(victim, &count("TcpExtSyncookiesSent"), 20)?;
    println!(
        "   {sent} SYNs sent, {cookies} cookies in answer, {} came back",
        number(victim, &count("TcpExtSyncookiesRecv"), 20)?
    );
    if cookies == 0 {
        return Err("no cookies were sent".into());
    }

    attacker.ask("python3 /attack.py stall 10.5.0.1 7000 200 20 > /tmp/held 2>&1 &", 10)?;
    attacker.ask("until test -s /tmp/held; do sleep 0.2; done; sleep 3", 60)?;
    use_service(attacker, "200 connections that take nothing")?;
    check_loss(victim, before, "200 connections that take nothing")?;
    attacker.ask("while pgrep -f attack.py > /dev/null; do sleep 1; done; sleep 2", 120)?;
    check_loss(victim, before, "after it all")
}

/// What an idle connection costs, on Quintet and on Linux.
pub(super) fn idle(machines: &mut [Machine], _: &Options) -> Result<(), Failure> {
    let mut costs = Vec::new();
    for machine in machines {
        let bytes = number(machine, &format!("python3 /idle.py {IDLE_CONNECTIONS}"), 900)?;
        println!("   {}: {bytes} bytes for each end of {IDLE_CONNECTIONS} idle connections", machine.name);
        costs.push(bytes);
    }
    if costs.first().is_some_and(|&ours| ours <= IDLE) { Ok(()) } else { Err(format!("more than {IDLE} bytes")) }
}
