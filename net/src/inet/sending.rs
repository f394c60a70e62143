//! Sending on sockets of whole messages: where a message goes, corking, segmentation, and the header in front.

use core::sync::atomic::Ordering;

use base::{Errno, Result};

use super::address::{AF_UNSPEC, Endpoint, Family, family_of};
use super::datagram::{DatagramSocket, Flavour};
use super::{control, ping, raw, udp};
use crate::backlog;
use crate::ip::Outgoing;
use crate::options::option;
use crate::packet::{Packet, Rope};
use crate::route::{self, Kind, Path};

/// The largest datagram.
const MAX: usize = 65535;

impl DatagramSocket {
    /// Where a message goes: the destination, and the way there.
    pub(super) fn destination(&self, to: Option<&[u8]>, wishes: &control::Wishes) -> Result<(Endpoint, Path)> {
        let mut state = self.state.lock();
        let target = match to {
            None => state.remote.ok_or(Errno::EDESTADDRREQ)?,
            Some(raw) if family_of(raw)? == AF_UNSPEC && self.family == Family::V4 => {
                let raw = [&2u16.to_ne_bytes()[..], raw.get(2..).unwrap_or_default()].concat();
                Endpoint::parse(&raw, self.family)?
            }
            Some(raw) => Endpoint::parse(raw, self.family)?,
        };
        if self.flavour.is_udp() && target.port == 0 {
            return Err(Errno::EINVAL);
        }
        let target = normalise(target);
        if to.is_none()
            && wishes.interface == 0
            && let Some(path) = state.path.as_ref().filter(|path| path.is_current())
        {
            return Ok((target, path.clone()));
        }
        let settings = self.settings.lock();
        let mut device = settings.device;
        if device == 0 && !target.ip.is_multicast() {
            device = settings.unicast_interface;
        }
        if target.ip.is_multicast() && settings.multicast_interface != 0 {
            device = settings.multicast_interface;
        }
        if settings.v6_only && target.ip.is_ipv4() && self.family == Family::V6 {
            return Err(Errno::ENETUNREACH);
        }
        for named in [target.scope, wishes.interface] {
            device = if named != 0 { named } else { device };
        }
        let path = route::lookup(target.ip, device)?;
        if path.kind == Kind::Broadcast && !self.options.flag(option::SO_BROADCAST) {
            return Err(Errno::EACCES);
        }
        if to.is_none() {
            state.path = Some(path.clone());
        }
        Ok((target, path))
    }

    /// Puts headers in front of a message and sends it.
    fn transmit(&self, data: Rope, target: Endpoint, path: &Path, wishes: &control::Wishes) -> Result<()> {
        let (local, no_checksum, coverage) = {
            let state = self.state.lock();
            (state.local, state.no_checksum, state.coverage[0])
        };
        let settings = self.settings.lock().clone();
        let bound = (!local.ip.is_unspecified() && !local.ip.is_multicast()).then_some(local.ip);
        let multicast = settings.multicast_source.filter(|_| target.ip.is_multicast()).map(Into::into);
        let source = wishes.source.or(bound).or(multicast).unwrap_or(path.source);
        if source.is_ipv4() != target.ip.is_ipv4() {
            return Err(Errno::ENETUNREACH);
        }
        let out = Outgoing {
            source,
            destination: target.ip,
            protocol: self.protocol(),
            ttl: wishes.ttl.unwrap_or_else(|| settings.ttl_for(target.ip)),
            tos: wishes.tos.unwrap_or_else(|| settings.tos_for(target.ip)),
            whole: settings.whole(),
            quiet: !settings.multicast_loop,
            options: &settings.header_options,
            rate: u32::try_from(self.options.max_pacing.load(Ordering::Relaxed)).unwrap_or(0),
        };
        let stamped = (self.options.timestamping.load(Ordering::Relaxed) != 0).then(|| data.clone());
        let result = match self.flavour {
            Flavour::Udp => udp::send(data, local.port, target.port, &out, path, no_checksum, wishes.segment),
            Flavour::UdpLite => udp::send_lite(data, local.port, target.port, &out, path, coverage),
            Flavour::Ping => ping::send(data, local.port, &out, path),
            Flavour::Raw(_) => raw::send(data, &out, path, &settings),
        };
        match (result, stamped) {
            (Err(Errno::EMSGSIZE), _) => self.on_too_large(target, path.mtu()),
            (Ok(()), Some(data)) => self.on_sent(target, &data),
            _ => {}
        }
        result
    }

    pub(super) fn check_size(&self, len: usize, target: &Endpoint) -> Result<()> {
        let headers = match self.flavour {
            Flavour::Udp | Flavour::UdpLite => 8,
            _ => 0,
        };
        let most = if target.ip.is_ipv4() { MAX - 20 } else { MAX } - headers;
        if len > most { Err(Errno::EMSGSIZE) } else { Ok(()) }
    }

    /// Sends what UDP_CORK has collected.
    pub(super) fn uncork(&self) -> Result<()> {
        let collected = self.state.lock().cork.take();
        let Some((target, data)) = collected else { return Ok(()) };
        let path = route::lookup(target.ip, target.scope)?;
        self.check_size(data.len(), &target)?;
        let result = self.transmit(data, target, &path, &control::Wishes::default());
        backlog::run();
        result
    }

    pub(super) fn send_data(
        &self,
        data: Rope,
        target: Endpoint,
        path: &Path,
        wishes: &control::Wishes,
    ) -> Result<usize> {
        let len = data.len();
        let segment = usize::from(if wishes.segment != 0 { wishes.segment } else { self.state.lock().segment });
        if segment == 0 || len <= segment || self.flavour != Flavour::Udp {
            self.transmit(data, target, path, &control::Wishes { segment: 0, ..*wishes })?;
            return Ok(len);
        }
        const SEGMENTS_MAX: usize = 64;
        let headers = if target.ip.is_ipv4() { 28 } else { 48 };
        if len.div_ceil(segment) > SEGMENTS_MAX || segment + headers > path.mtu() {
            return Err(Errno::EINVAL);
        }
        self.transmit(data, target, path, &control::Wishes { segment: segment as u16, ..*wishes })?;
        Ok(len)
    }
}

/// The unspecified address as a destination means this machine.
pub(super) fn normalise(mut to: Endpoint) -> Endpoint {
    if to.ip.is_unspecified() {
        to.ip = match to.ip {
            core::net::IpAddr::V4(_) => core::net::Ipv4Addr::LOCALHOST.into(),
            core::net::IpAddr::V6(_) => core::net::Ipv6Addr::LOCALHOST.into(),
        };
    }
    to
}

/// Makes a packet of a message with room for its header.
pub(super) fn packet_with_header(data: Rope, header: &[u8]) -> Result<alloc::boxed::Box<Packet>> {
    let mut packet = Packet::outgoing(data);
    packet.push(header.len())?.copy_from_slice(header);
    Ok(packet)
}
