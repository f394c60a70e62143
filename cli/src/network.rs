//! The guest's network: none, QEMU's user network, or a link that several machines share. None needs rights on the host.
//!
//! The guest is told its addresses on the kernel's command line (`quintet.net=`); its PID 1 sets them.

use crate::machine::Model;
use std::collections::hash_map::RandomState;
use std::ffi::OsString;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;

/// What the guest is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// Nothing but its own loopback.
    None,
    /// The host's network, through QEMU: the guest can reach out; nobody reaches in but by --publish.
    User,
    /// A link that all machines share which name it, on this host.
    Socket {
        /// Its name.
        name: String,
        /// The guest's address on it, with the bits of its network.
        address: Option<String>,
    },
}

/// Parses `none`, `user` or `socket=NAME[,ADDRESS/BITS]`.
pub fn parse_network(text: &str) -> Result<Network, String> {
    match text {
        "none" => return Ok(Network::None),
        "user" => return Ok(Network::User),
        _ => {}
    }
    let wrong = || "write none, user, socket=NAME or socket=NAME,ADDRESS/BITS".to_owned();
    let link = text.strip_prefix("socket=").ok_or_else(wrong)?;
    let (name, address) = link.split_once(',').map_or((link, None), |(name, address)| (name, Some(address)));
    let good = |address: &str| {
        let (ip, bits) = address.split_once('/')?;
        ip.parse::<Ipv4Addr>().ok()?;
        bits.parse::<u8>().ok().filter(|&bits| bits <= 32)
    };
    if name.is_empty() || address.is_some_and(|address| good(address).is_none()) {
        return Err(wrong());
    }
    Ok(Network::Socket { name: name.to_owned(), address: address.map(str::to_owned) })
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
    /// A shared link: its name, and the guest's address there.
    pub link: Option<(String, Option<String>)>,
    /// The ports that lead into the guest.
    pub publish: Vec<Publish>,
}

impl Connection {
    /// What the options ask for: publishing ports needs a network.
    pub fn new(network: Option<&Network>, publish: &[Publish]) -> Connection {
        let usual = if publish.is_empty() { &Network::None } else { &Network::User };
        let network = network.unwrap_or(usual);
        let link = match network {
            Network::Socket { name, address } => Some((name.clone(), address.clone())),
            _ => None,
        };
        Connection { user: *network == Network::User, link, publish: publish.to_vec() }
    }

    /// Is there a device?
    pub fn exists(&self) -> bool {
        self.user || self.link.is_some()
    }

    /// The word for the kernel's command line.
    pub fn command_line(&self) -> Option<String> {
        if let Some((_, address)) = &self.link {
            return address.as_ref().map(|address| format!("quintet.net={address}"));
        }
        self.user.then(|| format!("quintet.net={GUEST},{GATEWAY},{NAME_SERVER}"))
    }

    /// QEMU's options.
    pub(crate) fn arguments(&self, model: Model) -> Vec<(&'static str, OsString)> {
        if !self.exists() {
            return Vec::new();
        }
        let rules: String = self.publish.iter().map(Publish::rule).collect();
        let device = match model {
            Model::Q35 => "virtio-net-pci,netdev=net0,romfile=",
            Model::Microvm => "virtio-net-device,netdev=net0",
        };
        let (backend, device) = match &self.link {
            Some((name, _)) => (
                format!("socket,id=net0,mcast={},localaddr=127.0.0.1", group_of(name)),
                format!("{device},mac={}", fresh_mac()),
            ),
            None => (format!("user,id=net0{rules}"), device.to_owned()),
        };
        vec![("-netdev", backend.into()), ("-device", device.into())]
    }
}

/// The multicast address and port, on this host's loopback, that stand for a link of that name.
fn group_of(name: &str) -> String {
    // The same in every process: this hasher has fixed keys.
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let [a, b, c, d, e, ..] = hasher.finish().to_ne_bytes();
    let port = 20_000 + u16::from_ne_bytes([d, e]) % 20_000;
    format!("239.{a}.{b}.{c}:{port}")
}

/// A hardware address that no other machine on a link should have.
fn fresh_mac() -> String {
    let [a, b, c, ..] = RandomState::new().hash_one(std::process::id()).to_ne_bytes();
    format!("52:54:00:{a:02x}:{b:02x}:{c:02x}")
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
        assert!(Connection::new(Some(&Network::None), &publish).arguments(Model::Q35).is_empty());
    }

    #[test]
    fn links_are_named() {
        let link = parse_network("socket=lab,10.5.0.1/24").expect("good");
        let connection = Connection::new(Some(&link), &[]);
        assert_eq!(connection.command_line().as_deref(), Some("quintet.net=10.5.0.1/24"));
        assert!(connection.exists() && !connection.user);
        assert_eq!(group_of("lab"), group_of("lab"));
        assert_ne!(group_of("lab"), group_of("other"));
        for bad in ["socket", "socket=", "socket=x,1.2.3.4", "socket=x,1.2.3/24", "tap"] {
            assert!(parse_network(bad).is_err(), "{bad}");
        }
    }
}
