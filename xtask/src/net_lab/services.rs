//! Servers and clients of Debian's packages, from one machine to the other.

use super::Options;
use super::machine::Machine;
use super::plain::pings;
use crate::Failure;

/// Starts everything that serves on machine `number`.
fn serve(server: &mut Machine, number: u8) -> Result<(), Failure> {
    let script = "set -e
         head -c 4000000 /dev/urandom > /var/www/html/file
         sed -i 's/listen 80 /listen [::]:80 ipv6only=off /; /listen \\[::\\]:80 default/d' /etc/nginx/sites-available/default
         nginx
         mkdir -p /run/sshd /root/.ssh
         ssh-keygen -A > /dev/null
         echo 'PermitRootLogin yes' >> /etc/ssh/sshd_config
         /usr/sbin/sshd
         iperf3 --server --daemon
         echo '10.5.0.77 there.lab' >> /etc/hosts; echo 'fd05::77 there.lab' >> /etc/hosts
         dnsmasq --listen-address=10.5.0.NUMBER,fd05::NUMBER --bind-interfaces --no-resolv --dhcp-range=10.5.0.100,10.5.0.120,1h \\
             --dhcp-leasefile=/tmp/leases --user=root";
    server.ask(&script.replace("NUMBER", &number.to_string()), 60).map(drop)
}

/// The client's half: `server` is the number of the machine that serves.
fn use_all(client: &mut Machine, server: &mut Machine, number: u8) -> Result<(), Failure> {
    let key = client.ask("test -e /root/.ssh/id || { mkdir -p /root/.ssh; ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id; }; cat /root/.ssh/id.pub", 30)?;
    server.ask(&format!("echo '{}' >> /root/.ssh/authorized_keys", key.trim()), 10)?;
    let sum = server.ask("md5sum < /var/www/html/file", 20)?;
    for address in [format!("10.5.0.{number}"), format!("[fd05::{number}]")] {
        let bare = address.trim_matches(['[', ']']);
        let ssh = format!("ssh -i /root/.ssh/id -o StrictHostKeyChecking=no -o LogLevel=ERROR {bare}");
        for command in [
            format!("curl -sS --max-time 60 http://{address}/file | md5sum"),
            format!("{ssh} cat /var/www/html/file | md5sum"),
            format!("curl -sS --max-time 60 http://{address}/file | {ssh} md5sum"),
        ] {
            let got = client.ask(&command, 120)?;
            if got != sum {
                return Err(format!("{}: `{command}` gives {got}, not {sum}", client.name));
            }
        }
        for options in
            ["", "--reverse", "--parallel 4", "--udp --bitrate 5M", "--udp --bitrate 5M --reverse", "--bidir"]
        {
            client.ask(
                &format!("iperf3 --client {bare} --time 2 {options} > /tmp/iperf || {{ cat /tmp/iperf; exit 1; }}"),
                60,
            )?;
            let summary = client.ask("grep receiver /tmp/iperf | tail -1 | tr -s ' ' | cut -d' ' -f4-9", 10)?;
            println!("   {} <- {bare} iperf3 {options}: {}", client.name, summary.trim());
        }
        for (kind, answer) in [("A", "10.5.0.77"), ("AAAA", "fd05::77")] {
            for way in ["", "+tcp"] {
                let got = client.ask(&format!("dig +short {way} @{bare} there.lab {kind}"), 60)?;
                if got.trim() != answer {
                    return Err(format!("{}: the name has the address {got:?} and not {answer}", client.name));
                }
            }
        }
    }
    Ok(())
}

/// dhclient asks the server for an address, and gives it back.
fn ask_for_an_address(client: &mut Machine) -> Result<(), Failure> {
    client.ask("dhclient -v -1 -pf /tmp/dhclient.pid -lf /tmp/leases eth0", 60)?;
    let has = client.ask("ip -4 -o addr show dev eth0 | grep -o '10\\.5\\.0\\.1[012][0-9]/'", 10)?;
    client.ask("dhclient -v -r -pf /tmp/dhclient.pid -lf /tmp/leases eth0", 60)?;
    let left = client.ask("ip -4 -o addr show dev eth0", 10)?;
    if has.trim().is_empty() || left.contains(has.trim()) {
        return Err(format!("{}: the address {has} stays after it was given back: {left}", client.name));
    }
    Ok(())
}

/// Three machines: the first serves, the others use it.
pub(super) fn play(machines: &mut [Machine], _: &Options) -> Result<(), Failure> {
    pings(machines)?;
    let [server, clients @ ..] = machines else { return Ok(()) };
    serve(server, 1)?;
    clients.iter_mut().try_for_each(|client| use_all(client, server, 1))?;
    clients.iter_mut().try_for_each(ask_for_an_address)
}

/// Two machines: each serves the other.
pub(super) fn with_peer(machines: &mut [Machine], _: &Options) -> Result<(), Failure> {
    pings(machines)?;
    let [first, second] = machines else { return Ok(()) };
    serve(first, 1)?;
    use_all(second, first, 1)?;
    serve(second, 2)?;
    use_all(first, second, 2)
}
