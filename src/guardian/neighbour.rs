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

/// How often to look whether it is gone, and its ports are free, milliseconds.
const AGAIN_MS: u64 = 1_000;

/// What is to be known of it.
#[derive(Default)]
pub(super) struct Neighbour {
    /// Whether it was there when this process began to serve, and has not been seen to end.
    present: bool,
    /// What is optional and was held elsewhere when the worker wanted it.
    pub(super) missing: Vec<Listen>,
    /// When it was looked for last.
    looked: Moment,
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
    pub(super) fn greet_the_neighbour(&mut self) {
        if self.succession.predecessor.is_none()
            && let Some(address) = self.shared_address()
        {
            self.neighbour.present = true;
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
            // What has come is answered; what comes from now on is dealt to the other alone.
            self.sockets.retain(&[]);
            tracing::warn!(
                "another server answers at {address}, too: the link and iptables rules stay for it"
            );
        }
    }

    /// Once it has ended: what it left goes, what it took comes back, and what it held comes to the next worker.
    pub(super) fn look_for_the_neighbour(&mut self) {
        let now = clock::now();
        let State::Serving { worker, .. } = self.machine.state() else { return };
        let expected = self.neighbour.present || !self.neighbour.missing.is_empty();
        if !expected || now.since(self.neighbour.looked) < AGAIN_MS {
            return;
        }
        self.neighbour.looked = now;
        // A successor on its way up has asked for link and rules to be left alone.
        let may_look = self.succession.successor.is_none();
        if self.neighbour.present && may_look && self.shared_address().is_none() {
            tracing::info!("the other server has ended");
            self.neighbour.present = false;
            self.host.survive_another();
        }
        let is_free = |listen: &Listen| Sockets::default().bind(&[*listen]).is_ok();
        if self.neighbour.missing.iter().any(is_free) {
            tracing::info!("a port that was held elsewhere is free");
            self.neighbour.missing.clear();
            self.pending.push_back(Event::Reload(worker));
        }
    }
}
