//! What `forward` reports, in the registry.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::forward::{Metrics, Protocol};
use crate::metrics::{Counter, Histogram, Registry, names, rcode_name};

/// The `proxy_*` and `forward_*` families. Handles are kept, so that a miss looks none up by name.
pub struct UpstreamMetrics {
    registry: Registry,
    durations: RefCell<HashMap<(SocketAddr, u16), Arc<Histogram>>>,
    connections: RefCell<HashMap<(SocketAddr, Protocol, bool), Arc<Counter>>>,
    all_down: Arc<Counter>,
    overloaded: Arc<Counter>,
}

/// Label `proxy_name` of everything `forward` does.
const PROXY: &str = "forward";

impl UpstreamMetrics {
    /// Counts in `registry`.
    pub fn new(registry: &Registry) -> UpstreamMetrics {
        UpstreamMetrics {
            durations: RefCell::default(),
            connections: RefCell::default(),
            all_down: registry.counter(&names::FORWARD_HEALTHCHECK_BROKEN, []),
            overloaded: registry.counter(&names::FORWARD_MAX_CONCURRENT_REJECTS, []),
            registry: registry.clone(),
        }
    }

    fn connection(&self, to: SocketAddr, protocol: Protocol, reused: bool) {
        let mut connections = self.connections.borrow_mut();
        let counter = connections.entry((to, protocol, reused)).or_insert_with(|| {
            let labels = [PROXY, &to.to_string(), protocol.label()];
            if reused {
                self.registry.counter(&names::PROXY_CONN_CACHE_HITS, labels)
            } else {
                self.registry.counter(&names::PROXY_CONN_CACHE_MISSES, labels)
            }
        });
        counter.inc();
    }
}

impl Metrics for UpstreamMetrics {
    fn answered(&self, to: SocketAddr, rcode: u16, elapsed: Duration) {
        let mut durations = self.durations.borrow_mut();
        let histogram = durations.entry((to, rcode)).or_insert_with(|| {
            let labels = [PROXY, &to.to_string(), &rcode_name(rcode)];
            self.registry.histogram(&names::PROXY_REQUEST_DURATION, labels)
        });
        histogram.observe(elapsed);
    }

    fn probe_failed(&self, to: SocketAddr) {
        self.registry.counter(&names::PROXY_HEALTHCHECK_FAILURES, [PROXY, &to.to_string()]).inc();
    }

    fn connection_reused(&self, to: SocketAddr, protocol: Protocol) {
        self.connection(to, protocol, true);
    }

    fn connection_opened(&self, to: SocketAddr, protocol: Protocol) {
        self.connection(to, protocol, false);
    }

    fn all_down(&self) {
        self.all_down.inc();
    }

    fn overloaded(&self) {
        self.overloaded.inc();
    }

    fn retried(&self, to: SocketAddr) {
        self.registry.counter(&names::UPSTREAM_RETRIES, [&to.to_string()]).inc();
    }

    fn unrelated(&self, to: SocketAddr) {
        self.registry.counter(&names::UPSTREAM_STRAYS, [&to.to_string()]).inc();
    }

    fn hedge_withheld(&self, to: SocketAddr) {
        self.registry.counter(&names::UPSTREAM_HEDGES_WITHHELD, [&to.to_string()]).inc();
    }

    fn hedged(&self, to: SocketAddr) {
        self.registry.counter(&names::UPSTREAM_HEDGES, [&to.to_string()]).inc();
    }
}
