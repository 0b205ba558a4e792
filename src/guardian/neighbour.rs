//! A server of another make at the same addresses: node-cache, beside which this process starts where a rollout
//! surges, or which starts beside this one when somebody goes back.
//!
//! With `SO_REUSEPORT` both have the port. node-cache's end takes link and rules away, which the watch restores;
//! the end of this process must not do the same to it, for node-cache looks once a minute. If it is killed it leaves
//! rules, which keep a ClusterIP from kube-proxy once nobody answers there.

use std::net::{IpAddr, SocketAddr};

use super::Guardian;
use super::state::{Event, Id, State};
use crate::clock::{self, Moment};
use crate::resident;
use crate::sockets::{Listen, Role, Sockets};

/// How often to look whether it is gone, and its ports are free, milliseconds.
const AGAIN_MS: u64 = 1_000;

/// What is to be known of it.
#[derive(Default)]
pub(super) struct Neighbour {
    /// Whether it was there when it was looked for last.
    present: bool,
    /// What is optional and was held elsewhere when the worker that serves wanted it.
    pub(super) missing: Vec<Listen>,
    /// The same of the one on its way up, which may come to nothing.
    pub(super) missed: Vec<Listen>,
    /// When it was looked for last.
    looked: Moment,
    /// When to look next whether something that is missing can be had.
    retry: Moment,
    /// Whether all that comes is left to it.
    spared: bool,
}

impl Guardian<'_> {
    /// Where somebody else answers DNS.
    pub(super) fn elsewhere(&self) -> Vec<IpAddr> {
        self.sockets.elsewhere(self.config.node.dns_port)
    }

    /// The addresses, local ones first, at which somebody else answers, too.
    fn shared(&self) -> Vec<IpAddr> {
        let node = &self.config.node;
        let elsewhere = self.elsewhere();
        let listens = self.sockets.listens();
        let dns = |listen: &&Listen| listen.role == Role::DnsUdp && listen.address.port() == node.dns_port;
        let own = listens.iter().filter(dns).map(|listen| listen.address.ip());
        node.local_ips.iter().copied().chain(own).filter(|ip| elsewhere.contains(ip)).collect()
    }

    fn shared_address(&self) -> Option<SocketAddr> {
        self.shared().first().map(|ip| SocketAddr::new(*ip, self.config.node.dns_port))
    }

    /// Says that there is one.
    pub(super) fn greet_the_neighbour(&mut self) {
        self.neighbour.looked = clock::now();
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

    /// Brings no more queries here, and takes nothing away from under it.
    pub(super) fn release(&mut self) {
        let shared = self.shared();
        // Whoever takes over from this process has the same sockets.
        let alone = !self.host.is_disowned() && self.succession.successor.is_none();
        if let Some(ip) = shared.first()
            && self.announced
            && alone
            && !self.neighbour.spared
        {
            self.neighbour.spared = true;
            // What has come is answered; what comes from now on is dealt to the other alone.
            let mut listens = self.sockets.listens();
            listens.retain(|listen| !shared.contains(&listen.address.ip()));
            self.sockets.retain(&listens);
            let address = SocketAddr::new(*ip, self.config.node.dns_port);
            tracing::warn!(
                "another server answers at {address}, too: the link and iptables rules stay for it"
            );
        }
        self.host.release(&shared);
    }

    /// Once it has ended: what it left goes, what it took comes back, and what it held comes to the next worker.
    pub(super) fn look_for_the_neighbour(&mut self) {
        let State::Serving { worker, .. } = self.machine.state() else { return };
        let now = clock::now();
        let interval_ms = u64::try_from(self.config.node.sync_interval.as_millis()).unwrap_or(u64::MAX);
        let interval_ms = interval_ms.max(AGAIN_MS);
        self.look_for_ports(worker, now, interval_ms);
        let pause_ms = if self.neighbour.present { AGAIN_MS } else { interval_ms };
        // Another one of our own, on its way up or down, has link and rules in its hands.
        let may_look = self.succession.successor.is_none() && self.succession.predecessor.is_none();
        if !may_look || now.since(self.neighbour.looked) < pause_ms {
            return;
        }
        self.neighbour.looked = now;
        match (self.neighbour.present, self.shared_address()) {
            (true, Some(_)) => {}
            (true, None) => {
                tracing::info!("the other server has ended");
                self.neighbour.present = false;
                self.host.survive_another(&self.elsewhere());
            }
            (false, Some(_)) => self.greet_the_neighbour(),
            (false, None) => {
                self.host.tidy(&self.elsewhere());
                // This runs rarely. Failing to save memory is no failure.
                let _ = resident::drop_code();
            }
        }
    }

    /// Has a worker started that takes what was missing; another one after `pause_ms`, if it came to nothing.
    fn look_for_ports(&mut self, worker: Id, now: Moment, pause_ms: u64) {
        if self.neighbour.missing.is_empty() || now < self.neighbour.retry {
            return;
        }
        let is_free = |listen: &Listen| Sockets::default().bind(&[*listen]).is_ok();
        let free = self.neighbour.missing.iter().any(is_free);
        self.neighbour.retry = now.plus_ms(if free { pause_ms } else { AGAIN_MS });
        if free {
            tracing::info!("a port that was held elsewhere is free");
            self.pending.push_back(Event::Reload(worker));
        }
    }
}
