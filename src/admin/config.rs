//! Which HTTP ports to open.

use std::net::SocketAddr;
use std::time::Duration;

/// Every HTTP address; one address may serve several purposes only if it is listed once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// `prometheus [ADDRESS]`: `/metrics`. Duplicates removed.
    pub prometheus: Vec<SocketAddr>,
    /// `health [ADDRESS] { lameduck }`: `/health`.
    pub health: Vec<Health>,
    /// `ready [ADDRESS]`: `/ready`. Duplicates removed.
    pub ready: Vec<SocketAddr>,
}

/// One `health` directive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// Where `/health` is served.
    pub address: SocketAddr,
    /// How long to go on serving after a stop was asked for.
    pub lameduck: Duration,
}
