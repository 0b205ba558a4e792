//! A server of another make at the same addresses: node-cache, beside which this process starts where a rollout
//! surges, or which starts beside this one when somebody goes back.
//!
//! With `SO_REUSEPORT` both have the port. node-cache's end takes link and rules away, which the watch restores;
//! the end of this process must not do the same to it, for node-cache looks once a minute.

use std::net::SocketAddr;

use super::Guardian;
use super::state::{Event, State};
use crate::clock::{self, Moment};
use crate::sockets::{Listen, Sockets};

/// How often to look whether a port that is held elsewhere has become free, milliseconds.
const AGAIN_MS: u64 = 1_000;

/// What is to be known of it.
#[derive(Default)]
pub(super) struct Neighbour {
    /// What is optional and was held elsewhere when the worker wanted it.
    pub(super) missing: Vec<Listen>,
    /// When these were tried last.
    tried: Moment,
    /// Whether link and rules are left to it.
    spared: bool,
}

impl Guardian<'_> {
    /// An address at which somebody else answers, too.
    fn shared_address(&self) -> Option<SocketAddr> {
        let node = &self.config.node;
        let addresses: Vec<SocketAddr> =
            node.local_ips.iter().map(|ip| SocketAddr::new(*ip, node.dns_port)).collect();
        self.sockets.shared(&addresses).first().copied()
    }

    /// Says that there is one.
    pub(super) fn greet_the_neighbour(&self) {
        if self.succession.predecessor.is_none()
            && let Some(address) = self.shared_address()
        {
            tracing::warn!(
                "another server answers at {address}, too, and gets a part of the queries until it ends; \
                 what its end takes away is restored"
            );
        }
    }

    /// Takes nothing away from under it.
    pub(super) fn spare_the_neighbour(&mut self) {
        if !self.neighbour.spared
            && !self.host.is_disowned()
            && let Some(address) = self.shared_address()
            && self.host.leave_to_another()
        {
            self.neighbour.spared = true;
            tracing::warn!(
                "another server answers at {address}, too: the link and iptables rules stay for it"
            );
        }
    }

    /// Ports that it held and holds no longer come to the next worker.
    pub(super) fn look_for_missing_ports(&mut self) {
        let now = clock::now();
        let State::Serving { worker, .. } = self.machine.state() else { return };
        if self.neighbour.missing.is_empty() || now.since(self.neighbour.tried) < AGAIN_MS {
            return;
        }
        self.neighbour.tried = now;
        let is_free = |listen: &Listen| Sockets::default().bind(&[*listen]).is_ok();
        if self.neighbour.missing.iter().any(is_free) {
            tracing::info!("a port that was held elsewhere is free");
            self.neighbour.missing.clear();
            self.pending.push_back(Event::Reload(worker));
        }
    }
}
