//! The way of a connection's segments: its two ends, and the path between them.

use base::{NANOS_PER_SEC, Nanos, Result};

use super::connection::Path as Limits;
use super::segment::{Flags, HEADER, Segment};
use crate::inet::Endpoint;
use crate::ip::{Header, Outgoing, header_len, output, protocol, set_checksum};
use crate::link::neighbour;
use crate::packet::{Packet, Rope};
use crate::route::{self, Path};
use crate::statistics::{self, Counter};

/// The two ends, and what goes into the network header.
pub(super) struct Link {
    pub(super) local: Endpoint,
    pub(super) remote: Endpoint,
    pub(super) ttl: u8,
    pub(super) tos: u8,
    /// SO_BINDTODEVICE, or the link of a link-local address.
    pub(super) device: u32,
    pub(super) path: Option<Path>,
    /// The segment size that a device is to cut to.
    pub(super) mss: u16,
    /// When the neighbour on the way was last told to be there.
    pub(super) confirmed: Nanos,
}

impl Link {
    /// The path, looked up anew if the tables have changed. `ENETUNREACH`, ...
    pub(super) fn path(&mut self) -> Result<&Path> {
        if !self.path.as_ref().is_some_and(Path::is_current) {
            self.path = Some(route::lookup(self.remote.ip, self.device)?);
        }
        self.path.as_ref().ok_or(base::Errno::ENETUNREACH)
    }

    /// The peer has acknowledged something, so the neighbour on the way passes our segments on.
    pub(super) fn confirm(&mut self, now: Nanos) {
        // An entry is trusted for much longer: not every acknowledgement has to tell.
        if let Some(path) = &self.path
            && now.saturating_sub(self.confirmed) >= NANOS_PER_SEC
        {
            self.confirmed = now;
            neighbour::confirm(&path.interface, path.next_hop, now);
        }
    }

    /// What the path allows a connection.
    pub(super) fn limits(&mut self) -> Result<Limits> {
        let headers = header_len(self.remote.ip) + HEADER;
        let path = self.path()?;
        let mss = path.mtu().min(65535).saturating_sub(headers).max(super::connection::MIN_MSS) as u16;
        Ok(Limits { mss, segmentation: true })
    }

    /// Sends a segment; one that cannot be sent is lost like any that the network loses.
    pub(super) fn send(&mut self, segment: Segment) {
        let mut segment = segment;
        statistics::add(Counter::TcpOutSegs, 1);
        if segment.has(Flags::RST) {
            statistics::add(Counter::TcpOutRsts, 1);
        }
        let payload = core::mem::replace(&mut segment.payload, Rope::new());
        let out = Outgoing {
            source: self.local.ip,
            destination: self.remote.ip,
            protocol: protocol::TCP,
            ttl: self.ttl,
            tos: self.tos & !3 | segment.codepoint,
            whole: true,
            quiet: false,
            options: &[],
            rate: 0,
        };
        let (from, to, mss) = (self.local.port, self.remote.port, self.mss);
        let Ok(path) = self.path() else { return };
        let large = payload.len() > usize::from(mss) && !path.interface.is_loopback();
        let mut packet = Packet::outgoing(payload);
        let Ok(head) = packet.push(segment.header_len()) else { return };
        segment.emit(from, to, head);
        if large {
            packet.segment_size = mss;
        }
        set_checksum(&mut packet, &out, 16);
        let _ = output(packet, &out, path);
    }
}

/// Answers a received segment from nowhere: a reset.
pub(super) fn refuse(segment: &Segment, header: &Header, ports: (u16, u16)) {
    let Some(reset) = segment.reset() else { return };
    if header.destination.is_multicast() || header.source.is_unspecified() {
        return;
    }
    answer(reset, header, ports);
}

/// Sends a segment back to where one came from.
pub(super) fn answer(segment: Segment, header: &Header, ports: (u16, u16)) {
    let scope = if route::is_link_local(header.source) { header.interface } else { 0 };
    let mut link = Link {
        local: Endpoint::new(header.destination, ports.1),
        remote: Endpoint { ip: header.source, port: ports.0, scope },
        ttl: crate::ip::default_ttl(header.source),
        tos: 0,
        device: scope,
        path: None,
        mss: u16::MAX,
        confirmed: 0,
    };
    link.send(segment);
}
