//! The node's state while a worker serves: link before, rules once it answers, both watched.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::counts::{Counts, what};
use crate::node::{self, Backend, Config, Event, Node, Reconciler};
use crate::resident;

/// Link and rules of this process. What was not undone before is undone on drop, so that a failed
/// start or an impatient operator leaves nothing behind either.
pub struct Host {
    counts: Counts,
    interval: Duration,
    keep: bool,
    served: Vec<IpAddr>,
    /// Whether there are rules for answers at addresses that are served no more.
    leaves: bool,
    /// Whether anything was done that could be undone. What is there otherwise is another process's.
    touched: bool,
    /// Whether the link was not there before.
    created: bool,
    local: Vec<IpAddr>,
    /// Who carries the rules; `None` before there were any.
    backend: Option<Backend>,
    state: State,
}

enum State {
    /// Nobody watches.
    Idle(Node),
    Watched(Reconciler),
    /// It is another process's to keep and to undo.
    Disowned(Node),
    /// There is nothing to keep.
    Gone,
}

impl Host {
    /// Wants what `config` says; `keep`: leave it at the end (`-skipteardown`).
    pub fn new(config: Config, keep: bool, counts: Counts) -> Host {
        let (interval, local) = (config.sync_interval, config.local_ips.clone());
        let state = if may_change_the_node(&config, &counts) {
            let node = Node::new(config);
            // With the owner flag the kernel would take the rules away when this process ends.
            State::Idle(if keep { node.without_owner_flag() } else { node })
        } else {
            State::Gone
        };
        Host {
            counts,
            interval,
            keep,
            served: Vec::new(),
            leaves: false,
            touched: false,
            created: false,
            local,
            backend: None,
            state,
        }
    }

    /// Makes the link and its addresses. A failure is logged and counted; the watch will try again.
    pub fn ensure_link(&mut self) {
        self.touched = true;
        if let State::Idle(node) = &mut self.state {
            match node.ensure_link() {
                Ok(changes) => self.created |= changes.created,
                Err(error) => report(&self.counts, &error),
            }
        }
    }

    /// Sees to it that rules bring queries here for exactly those local addresses that are in `served`, and watches
    /// over them. Only to be called with addresses that a worker answers on. Answers at those that were left go
    /// untracked as before until [`Host::forget_left`].
    ///
    /// With `elsewhere`, the addresses at which somebody else answers, what others left goes, save rules for those.
    ///
    /// Returns the socket that owns the nftables table, if there is one: whoever answers holds it, too.
    pub fn intercept(
        &mut self,
        served: &[IpAddr],
        health_port: Option<u16>,
        elsewhere: Option<&[IpAddr]>,
    ) -> Option<OwnedFd> {
        let mut node = self.unwatched()?;
        self.served = served.to_vec();
        self.leaves = node.serve(served);
        if let Some(port) = health_port {
            node.set_health_port(port);
        }
        // The rules first: addresses of a process before that are not wanted any more go then.
        let rules = node.install_rules().err();
        let link = elsewhere.and_then(|_| node.ensure_link().err());
        rules.iter().chain(&link).for_each(|error| report(&self.counts, error));
        self.backend = node.backend();
        if let Some(elsewhere) = elsewhere {
            node.remove_leftovers(elsewhere);
        }
        let lease = shared_lease(&node);
        self.watch(node);
        lease
    }

    /// Nobody answers any more where the last [`Host::intercept`] was not to bring queries to.
    pub fn forget_left(&mut self) {
        if !std::mem::take(&mut self.leaves) {
            return;
        }
        let watched = matches!(self.state, State::Watched(_));
        let Some(mut node) = self.unwatched() else { return };
        if let Err(error) = node.forget_left() {
            report(&self.counts, &error);
        }
        if watched {
            self.watch(node);
        } else {
            self.state = State::Idle(node);
        }
    }

    fn watch(&mut self, node: Node) {
        let counts = self.counts.clone();
        let on_event = move |event| note(&counts, &event);
        self.state = match Reconciler::spawn(node, self.interval, on_event) {
            Ok(reconciler) => State::Watched(reconciler),
            Err(error) => {
                tracing::error!("{error}; link and rules are not watched");
                State::Idle(*error.node)
            }
        };
    }

    /// The node, with the watch joined: a repair in progress would put back what is about to go.
    fn unwatched(&mut self) -> Option<Node> {
        match std::mem::replace(&mut self.state, State::Gone) {
            State::Watched(reconciler) => Some(reconciler.stop()),
            State::Idle(node) => Some(node),
            disowned @ State::Disowned(_) => {
                self.state = disowned;
                None
            }
            State::Gone => None,
        }
    }

    /// Stops watching, and gives the socket that owns the nftables table, if there is one.
    pub fn pause(&mut self) -> Option<OwnedFd> {
        let node = self.unwatched()?;
        let lease = shared_lease(&node);
        self.state = State::Idle(node);
        lease
    }

    /// Goes on watching after [`Host::pause`].
    pub fn resume(&mut self) {
        if let Some(node) = self.unwatched() {
            self.watch(node);
        }
    }

    /// Takes over the nftables table of a predecessor.
    pub fn adopt_lease(&mut self, lease: OwnedFd) {
        if let State::Idle(node) = &mut self.state
            && let Err(error) = node.adopt_lease(lease)
        {
            report(&self.counts, &error);
        }
    }

    /// Leaves link and rules as they are, to another process. The table's socket stays open until this
    /// process ends.
    pub fn disown(&mut self) {
        if let Some(node) = self.unwatched() {
            self.state = State::Disowned(node);
        }
    }

    /// Whether link and rules are another process's.
    pub fn is_disowned(&self) -> bool {
        matches!(self.state, State::Disowned(_))
    }

    /// Takes back what was disowned.
    pub fn own(&mut self) {
        match std::mem::replace(&mut self.state, State::Gone) {
            State::Disowned(node) => {
                self.state = State::Idle(node);
                self.ensure_link();
                self.intercept(&self.served.clone(), None, None);
            }
            other => self.state = other,
        }
    }

    /// Looks at once at what a process of the same kind has done to link and rules, and removes what it left, save
    /// rules for addresses in `elsewhere`: there somebody else answers.
    pub fn survive_another(&mut self, elsewhere: &[IpAddr]) {
        if let Some(node) = self.unwatched() {
            node.remove_leftovers(elsewhere);
            self.watch(node);
        }
    }

    /// Removes what a process left that came and went unseen. Its rules are none of those that are watched here.
    pub fn tidy(&self, elsewhere: &[IpAddr]) {
        if self.backend == Some(Backend::Nftables)
            && let Err(error) = node::leftovers::remove_nft(elsewhere)
        {
            tracing::debug!("leftover node-cache rules stay: {error}");
        }
    }

    /// Brings no more queries here, so that kube-proxy's path serves them, while what has come is answered as
    /// before. Rules of iptables for addresses in `elsewhere` stay: they are somebody else's, too.
    pub fn release(&mut self, elsewhere: &[IpAddr]) {
        let shared = self.shared(elsewhere);
        let Some(mut node) = self.unwatched() else { return };
        if !self.keep && self.touched {
            let outcome = if shared.is_empty() || self.backend == Some(Backend::Nftables) {
                node.release()
            } else {
                node.retain_rules(&shared)
            };
            if let Err(error) = outcome {
                report(&self.counts, &error);
            }
        }
        self.state = State::Idle(node);
    }

    /// Takes away what is left: rules, then the link. Call [`Host::release`] first, and this once nobody answers
    /// any more. `elsewhere` tells where somebody else does.
    ///
    /// Of the link and rules of iptables nothing goes that such a process needs, which has the same ones:
    /// node-cache, once somebody has gone back to it. What one left that is gone goes, too.
    pub fn undo(&mut self, elsewhere: impl Fn() -> Vec<IpAddr>) {
        let Some(mut node) = self.unwatched() else { return };
        if self.keep || !self.touched {
            return;
        }
        // A start that came to nothing takes its own link away again.
        let only_made = self.created && self.served.is_empty();
        let others = elsewhere();
        let shared = self.shared(&others);
        let errors: Vec<node::Error> = match self.backend {
            _ if only_made || shared.is_empty() => node.teardown(),
            Some(Backend::Nftables) => node.remove_rules().err().into_iter().collect(),
            _ => node.retain_rules(&shared).and_then(|_| node.forget_left()).err().into_iter().collect(),
        };
        errors.iter().for_each(|error| report(&self.counts, error));
        self.tidy(&others);
        // Nobody can bind an address that is gone: who has one now has had it before.
        if let Err(error) = node.give_back(&self.shared(&elsewhere())) {
            report(&self.counts, &error);
        }
    }

    /// Those of the local addresses that are in `elsewhere`.
    fn shared(&self, elsewhere: &[IpAddr]) -> Vec<IpAddr> {
        self.local.iter().copied().filter(|ip| elsewhere.contains(ip)).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.undo(Vec::new);
    }
}

fn shared_lease(node: &Node) -> Option<OwnedFd> {
    node.lease().and_then(|lease| lease.try_clone_to_owned().ok())
}

/// Says which capabilities are missing and what works without them; whether the node's state can be
/// set up at all.
fn may_change_the_node(config: &Config, counts: &Counts) -> bool {
    if !config.setup_interface && !config.setup_rules {
        return true;
    }
    let missing = node::missing_capabilities();
    for capability in &missing {
        tracing::warn!("{capability} is missing: {}", node::capability_consequence(capability));
    }
    let may = !missing.contains(&"CAP_NET_ADMIN");
    let failed = [(config.setup_interface, "interface_add"), (config.setup_rules, "iptables")];
    for (_, error_type) in failed.iter().filter(|(wanted, _)| *wanted && !may) {
        counts.add(what::SETUP_ERRORS, error_type, 1);
    }
    may
}

fn note(counts: &Counts, event: &Event) {
    let drift = &event.drift;
    for (kind, repairs) in [("link", drift.links), ("address", drift.addresses), ("rule", drift.rules)] {
        counts.add(what::REPAIRS, kind, repairs as u64);
    }
    if drift.repairs() > 0 {
        tracing::warn!(
            "somebody changed the node's state; restored {} link, {} addresses, {} rules",
            drift.links,
            drift.addresses,
            drift.rules
        );
    }
    drift.errors.iter().for_each(|error| report(counts, error));
    // Comparing runs much that nothing else does. Failing to save memory is no failure.
    let _ = resident::drop_code();
}

fn report(counts: &Counts, error: &node::Error) {
    counts.add(what::SETUP_ERRORS, error.error_type(), 1);
    tracing::error!("node: {error}");
}
