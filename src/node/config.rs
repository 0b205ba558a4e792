//! What the node must look like while Doorstep serves.

use std::net::IpAddr;
use std::time::Duration;

/// Desired state, from the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `-localip`: addresses on the link, both families.
    pub local_ips: Vec<IpAddr>,
    /// `-interfacename`.
    pub interface: String,
    /// `-setupinterface`.
    pub setup_interface: bool,
    /// `-setupiptables`.
    pub setup_rules: bool,
    /// `-rules-backend`; `None`: chosen from what the host shows.
    pub backend: Option<Backend>,
    /// `-syncinterval`: how often everything is compared and repaired.
    pub sync_interval: Duration,
    /// `-dns.port`.
    pub dns_port: u16,
    /// `-health-port`, or the port of the Corefile's `health`.
    pub health_port: u16,
}

/// Who carries the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Own table `inet nodelocaldns`, over netlink.
    Nftables,
    /// node-cache's rules, through `iptables-restore`.
    Iptables,
}
