//! The guest's network: none, or QEMU's user network, which needs no rights on the host.
//!
//! The guest is told its addresses on the kernel's command line (`quintet.net=`); its PID 1 sets them.

use crate::machine::Model;
use clap::ValueEnum;
use std::ffi::OsString;

/// What the guest is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Network {
    /// Nothing but its own loopback.
    None,
    /// The host's network, through QEMU: the guest can reach out; nobody reaches in but by --publish.
    User,
}

/// A port of the host that leads to one of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// The host's address; empty for its loopback.
    address: String,
    host: u16,
    guest: u16,
    udp: bool,
}

/// The addresses of the user network: the guest's, the gateway, the name server.
const GUEST: &str = "10.0.2.15/24";
const GATEWAY: &str = "10.0.2.2";
const NAME_SERVER: &str = "10.0.2.3";

/// Parses `[ADDRESS:]HOST:GUEST[/tcp|/udp]`.
pub fn parse_publish(text: &str) -> Result<Publish, String> {
    let wrong = || "write HOST:GUEST, ADDRESS:HOST:GUEST or HOST:GUEST/udp".to_owned();
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (rest, guest) = ports.rsplit_once(':').ok_or_else(wrong)?;
    let (address, host) = rest.rsplit_once(':').unwrap_or(("", rest));
    let port = |text: &str| text.parse::<u16>().ok().filter(|&port| port != 0).ok_or_else(wrong);
    if !matches!(protocol, "tcp" | "udp") || address.contains([',', '=', '-']) {
        return Err(wrong());
    }
    Ok(Publish { address: address.to_owned(), host: port(host)?, guest: port(guest)?, udp: protocol == "udp" })
}

impl Publish {
    /// The rule for QEMU's user network.
    fn rule(&self) -> String {
        let protocol = if self.udp { "udp" } else { "tcp" };
        let address = if self.address.is_empty() { "127.0.0.1" } else { &self.address };
        format!(",hostfwd={protocol}:{address}:{}-:{}", self.host, self.guest)
    }
}

/// What a machine is connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// QEMU's user network.
    pub user: bool,
    /// The ports that lead into the guest.
    pub publish: Vec<Publish>,
}

impl Connection {
    /// What the options ask for: publishing ports needs a network.
    pub fn new(network: Option<Network>, publish: &[Publish]) -> Connection {
        let user = network.unwrap_or(if publish.is_empty() { Network::None } else { Network::User }) == Network::User;
        Connection { user, publish: publish.to_vec() }
    }

    /// The word for the kernel's command line.
    pub fn command_line(&self) -> Option<String> {
        self.user.then(|| format!("quintet.net={GUEST},{GATEWAY},{NAME_SERVER}"))
    }

    /// QEMU's options.
    pub(crate) fn arguments(&self, model: Model) -> Vec<(&'static str, OsString)> {
        if !self.user {
            return Vec::new();
        }
        let rules: String = self.publish.iter().map(Publish::rule).collect();
        let device = match model {
            Model::Q35 => "virtio-net-pci,netdev=net0,romfile=",
            Model::Microvm => "virtio-net-device,netdev=net0",
        };
        vec![("-netdev", format!("user,id=net0{rules}").into()), ("-device", device.into())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_their_rules() {
        let rule = |text| parse_publish(text).map(|publish| publish.rule());
        assert_eq!(rule("8080:80"), Ok(",hostfwd=tcp:127.0.0.1:8080-:80".into()));
        assert_eq!(rule("0.0.0.0:53:5353/udp"), Ok(",hostfwd=udp:0.0.0.0:53-:5353".into()));
        for bad in ["80", "0:80", "x:80", "80:80/sctp", "a,b:1:2", "70000:1"] {
            assert!(rule(bad).is_err(), "{bad}");
        }
        let publish = [parse_publish("1:2").expect("good")];
        assert!(Connection::new(None, &publish).user && !Connection::new(None, &[]).user);
        assert!(Connection::new(Some(Network::None), &publish).arguments(Model::Q35).is_empty());
    }
}
