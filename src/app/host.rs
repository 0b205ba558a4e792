//! The node's state while the worker serves: link before, rules once it answers, both watched.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::metrics::{Counter, Registry, names};
use crate::node::{self, Config, Event, Node, Reconciler};

/// Link and rules of this process. What was not undone before is undone on drop, so that a failed
/// start or an impatient operator leaves nothing behind either.
pub struct Host {
    registry: Registry,
    interval: Duration,
    keep: bool,
    state: State,
}

enum State {
    Idle(Node),
    Watched(Reconciler),
    Gone,
}

impl Host {
    /// Wants what `config` says; `keep`: leave it at the end (`-skipteardown`).
    pub fn new(config: Config, keep: bool, registry: &Registry) -> Host {
        let interval = config.sync_interval;
        if !may_change_the_node(&config, registry) {
            return Host { registry: registry.clone(), interval, keep, state: State::Gone };
        }
        let node = Node::new(config);
        // With the owner flag the kernel would take the rules away when this process ends.
        let node = if keep { node.without_owner_flag() } else { node };
        Host { registry: registry.clone(), interval, keep, state: State::Idle(node) }
    }

    /// Makes the link and its addresses. A failure is logged and counted; the watch will try again.
    pub fn ensure_link(&mut self) {
        if let State::Idle(node) = &mut self.state
            && let Err(error) = node.ensure_link()
        {
            report(&self.registry, &error);
        }
    }

    /// Sees to it that there are rules for exactly those local addresses that are in `served`, and
    /// watches over them. Only to be called with addresses that a thread answers on.
    pub fn intercept(&mut self, served: &[IpAddr]) {
        let Some(mut node) = self.unwatched() else { return };
        node.serve(served);
        if let Err(error) = node.install_rules() {
            report(&self.registry, &error);
        }
        let registry = self.registry.clone();
        let repairs = |kind| registry.counter(&names::DRIFT_REPAIRS, [kind]);
        let counters = [repairs("link"), repairs("address"), repairs("rule")];
        let on_event = move |event| note(&registry, &counters, &event);
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
            State::Gone => None,
        }
    }

    /// Takes the rules away, so that kube-proxy's path serves again, while everything still answers.
    pub fn release(&mut self) {
        let Some(mut node) = self.unwatched() else { return };
        if !self.keep
            && let Err(error) = node.remove_rules()
        {
            report(&self.registry, &error);
        }
        self.state = State::Idle(node);
    }

    /// Takes the link away. Call [`Host::release`] first.
    pub fn remove_link(&mut self) {
        let State::Idle(mut node) = std::mem::replace(&mut self.state, State::Gone) else {
            return;
        };
        if !self.keep
            && let Err(error) = node.remove_link()
        {
            report(&self.registry, &error);
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.release();
        self.remove_link();
    }
}

/// Says which capabilities are missing and what works without them; whether the node's state can be
/// set up at all.
fn may_change_the_node(config: &Config, registry: &Registry) -> bool {
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
        registry.counter(&names::SETUP_ERRORS, [error_type]).inc();
    }
    may
}

fn note(registry: &Registry, counters: &[Arc<Counter>; 3], event: &Event) {
    let drift = &event.drift;
    for (counter, repairs) in counters.iter().zip([drift.links, drift.addresses, drift.rules]) {
        counter.add(repairs as u64);
    }
    if drift.repairs() > 0 {
        tracing::warn!(
            "somebody changed the node's state; restored {} link, {} addresses, {} rules",
            drift.links,
            drift.addresses,
            drift.rules
        );
    }
    drift.errors.iter().for_each(|error| report(registry, error));
}

fn report(registry: &Registry, error: &node::Error) {
    registry.counter(&names::SETUP_ERRORS, [error.error_type()]).inc();
    tracing::error!("node: {error}");
}
