//! What the upstream side counts, as callbacks.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// Where the counts of [`Chain`](super::Chain) go. Every method does nothing unless implemented.
///
/// The calls come from the thread that runs the chain and are made on the way of a query: they must
/// be cheap and must not block.
pub trait Metrics {
    /// `to` answered with the response code `rcode` (the header's four bits), `elapsed` after the
    /// query was handed to it: `proxy_request_duration_seconds{to,rcode}`.
    fn answered(&self, _to: SocketAddr, _rcode: u16, _elapsed: Duration) {}
    /// A probe of `to` failed: `proxy_healthcheck_failures_total{to}`.
    fn probe_failed(&self, _to: SocketAddr) {}
    /// A query took a connection that was open: `proxy_conn_cache_hits_total{to,proto}`.
    fn connection_reused(&self, _to: SocketAddr, _protocol: Protocol) {}
    /// A query needed a new connection, or a socket of its own over UDP:
    /// `proxy_conn_cache_misses_total{to,proto}`.
    fn connection_opened(&self, _to: SocketAddr, _protocol: Protocol) {}
    /// A query found every upstream down: `forward_healthcheck_broken_total`.
    fn all_down(&self) {}
    /// `max_concurrent` turned a query away: `forward_max_concurrent_rejects_total`.
    fn overloaded(&self) {}
    /// A query was sent again after its first attempt failed.
    fn retried(&self, _to: SocketAddr) {}
    /// `to` sent something that answers no question it was asked.
    fn unrelated(&self, _to: SocketAddr) {}
    /// A query to `to` took long, and was not sent again because too many were lately.
    fn hedge_withheld(&self, _to: SocketAddr) {}
    /// A query was sent to `to` while an earlier attempt was still unanswered.
    fn hedged(&self, _to: SocketAddr) {}
}

/// Counts nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoMetrics;

impl Metrics for NoMetrics {}

/// What carries a query upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// One datagram, from a socket of its own.
    Udp,
    /// A pipelined connection (RFC 7766).
    Tcp,
    /// The same inside TLS (RFC 7858).
    Tls,
}

impl Protocol {
    /// The `proto` label of CoreDNS's metrics.
    pub fn label(self) -> &'static str {
        match self {
            Protocol::Udp => "udp",
            Protocol::Tcp => "tcp",
            Protocol::Tls => "tcp-tls",
        }
    }
}

/// The network's name as Go's errors have it, where TLS is `tcp`.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Udp => "udp",
            Protocol::Tcp | Protocol::Tls => "tcp",
        })
    }
}
