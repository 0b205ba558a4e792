//! Which HTTP ports to open.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::Serves;

/// Every HTTP address, by purpose. An address given for several purposes is one listener.
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

impl Config {
    /// The listeners to bind, and what each of them serves.
    pub fn listeners(&self) -> BTreeMap<SocketAddr, Serves> {
        let mut listeners: BTreeMap<SocketAddr, Serves> = BTreeMap::new();
        for address in &self.prometheus {
            listeners.entry(*address).or_default().metrics = true;
        }
        for health in &self.health {
            listeners.entry(health.address).or_default().health = true;
        }
        for address in &self.ready {
            listeners.entry(*address).or_default().ready = true;
        }
        listeners
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_is_one_listener() {
        let shared: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        let own: SocketAddr = "127.0.0.1:9253".parse().unwrap();
        let config = Config {
            prometheus: vec![own],
            health: vec![Health { address: shared, lameduck: Duration::ZERO }],
            ready: vec![shared],
        };
        let listeners = config.listeners();
        assert_eq!(listeners.len(), 2);
        assert!(listeners[&own].metrics && !listeners[&own].health);
        assert!(listeners[&shared].health && listeners[&shared].ready);
    }
}
