//! What others learn of a socket: tables of sockets and SOCK_DESTROY; listeners of connections that were opened fast; programs of data that was sent.

use core::net::IpAddr;

use base::{Errno, Events, Result};

use super::connection::State;
use super::fast_open::{self, Verdict};
use super::mark::Wish;
use super::segment::Segment;
use super::socket::{Role, TcpSocket};
use crate::backlog;
use crate::inet::{Endpoint, Family};
use crate::netlink::diag::inet::{Facts, facts};

impl TcpSocket {
    /// The opening is over: a cookie that came is kept, and a listener that waited for it counts it no more.
    pub(super) fn opened(&self) {
        let (cookie, ends, parent) = {
            let mut core = self.core.lock();
            let ends = (core.link.local.ip, core.link.remote.ip);
            let parent = core::mem::take(&mut core.parent);
            let Role::Open(connection) = &mut core.role else { return };
            (connection.take_cookie(), ends, parent)
        };
        if let Some(known) = cookie {
            fast_open::remember(ends.0, ends.1, known);
        }
        if let Some(parent) = parent.upgrade() {
            parent.with_listener(|listener| listener.unconfirmed = listener.unconfirmed.saturating_sub(1));
        }
    }

    /// Until it is confirmed, a listener counts it.
    pub(super) fn confirm_with(&self, listener: &TcpSocket) {
        self.core.lock().parent = listener.me.clone();
    }

    /// Seconds of TCP_DEFER_ACCEPT, as repetitions of the answer to a SYN.
    pub(super) fn defers_accept(&self) -> u32 {
        self.core.lock().defer_accept
    }

    /// What is to be done with a SYN that asks for, or brings, a fast opening.
    pub(super) fn judge_fast(&self, syn: &Segment, client: IpAddr, server: IpAddr) -> Verdict {
        if syn.options.fast_open.is_none() && syn.payload.is_empty() || !fast_open::allows(fast_open::mode::SERVER) {
            return Verdict::Usual(None);
        }
        let (most, keys) = {
            let core = self.core.lock();
            (usize::try_from(core.fast_open).unwrap_or(0), core.fast_keys)
        };
        if self.with_listener(|listener| listener.unconfirmed >= most) != Some(false) {
            return Verdict::Usual(None);
        }
        fast_open::judge(keys.unwrap_or_else(fast_open::keys), syn, client, server)
    }

    /// Queues what is to be told of data that was sent.
    pub(super) fn tell_notices(&self, notices: &[Wish]) {
        for notice in notices {
            self.failures.lock().note(notice, &self.options);
        }
        self.news.wake_for(Events::ERR, usize::MAX);
    }

    /// Its entry in a table of `/proc/net`: local, remote, state, bytes to send, bytes (or connections) to take.
    pub(crate) fn summary(&self) -> (Endpoint, Endpoint, State, usize, usize) {
        let core = self.core.lock();
        let (local, remote) = (core.link.local, core.link.remote);
        match &core.role {
            Role::Fresh => (local, remote, State::Closed, 0, 0),
            Role::Listening(listener) => (local, remote, State::Listen, listener.backlog, listener.waiting.len()),
            Role::Open(c) => (local, remote, c.state(), c.unacknowledged(), c.readable()),
        }
    }

    /// What sock_diag tells.
    pub(crate) fn facts(&self) -> Facts {
        let now = sched::time::now();
        let (local, remote, state, to_send, to_take) = self.summary();
        let mut facts = facts(self, self.family, local, remote);
        facts.state = state as u8;
        // Of a listener these are the connections that wait, and how many may.
        (facts.receive_queue, facts.send_queue) = (to_take, to_send);
        let core = self.core.lock();
        if core.closed {
            facts.inode = 0;
        }
        facts.device = core.link.device;
        facts.congestion = Some(core.congestion);
        facts.shutdown = u8::from(core.shut_read) | u8::from(core.shut_write) << 1;
        if let Role::Open(connection) = &core.role {
            facts.timer = connection.timer(now);
            facts.congestion = Some(connection.congestion());
            facts.info = Some(connection.info(now));
        }
        drop(core);
        let settings = self.settings.lock();
        (facts.tos, facts.class, facts.v6_only) = (settings.tos, settings.class, settings.v6_only);
        facts
    }

    /// SOCK_DESTROY: a connection is reset, and who uses it hears ECONNABORTED; a listener ends.
    pub(crate) fn destroy(&self) -> Result<()> {
        let listening = {
            let mut core = self.core.lock();
            match &mut core.role {
                Role::Listening(listener) => Some((core::mem::take(&mut listener.waiting), core.link.local.port)),
                _ => None,
            }
        };
        if let Some((waiting, port)) = listening {
            self.core.lock().role = Role::Fresh;
            self.close_listener(waiting, port);
            return Ok(());
        }
        self.core.lock().error = Some(Errno::ECONNABORTED);
        self.drive(|connection, now, out| ((), connection.abort(now, Some(Errno::ECONNABORTED), out)));
        self.forget();
        backlog::run();
        Ok(())
    }

    /// Which family it is of.
    pub(crate) fn socket_family(&self) -> Family {
        self.family
    }
}
