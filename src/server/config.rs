//! What the server blocks of a Corefile ask for.

use std::net::SocketAddr;
use std::time::Duration;

use crate::wire::Name;
pub use crate::wire::Subnet;
use crate::{cache, forward, plugin};

/// Every server block, in the Corefile's order.
#[derive(Debug, Clone)]
pub struct Config {
    /// The blocks.
    pub blocks: Vec<Block>,
    /// `timeouts`: the last block that sets them speaks for all listeners.
    pub timeouts: Timeouts,
    /// UDP sockets (and threads) per address: `multisocket`, 1 unless asked.
    pub udp_threads: usize,
}

/// One server block: its zones share its plugins.
#[derive(Debug, Clone)]
pub struct Block {
    /// Zone and the addresses (port included) it is served on. A wildcard address stands for all.
    pub zones: Vec<(Name, Vec<SocketAddr>)>,
    /// `cache`; `None`: every query is forwarded.
    pub cache: Option<cache::Config>,
    /// `forward` directives in order.
    pub forwards: Vec<forward::Config>,
    /// `errors`.
    pub errors: Option<ErrorsLog>,
    /// `log` rules in order.
    pub log: Vec<QueryLog>,
    /// `loadbalance`.
    pub loadbalance: Option<LoadBalance>,
    /// What is done between cache and upstreams.
    pub steps: plugin::Config,
    /// `loop`.
    pub detect_loops: bool,
    /// `whoami`: what no other directive answers tells clients who they are.
    pub whoami: bool,
    /// `search_ahead`, with the node's search domains.
    pub search_ahead: Option<Vec<Name>>,
    /// `prometheus` is in the block: its queries are counted.
    pub metrics: bool,
    /// `bufsize`: cap on the UDP payload size.
    pub bufsize: Option<u16>,
    /// Names of the directives present, sorted, for `coredns_plugin_enabled`.
    pub plugins: Vec<&'static str>,
}

/// `loadbalance [round_robin] { prefer SUBNET... }`.
#[derive(Debug, Clone, Default)]
pub struct LoadBalance {
    /// Addresses in these come first, in this order.
    pub prefer: Vec<Subnet>,
}

/// `timeouts { read idle write }`, for TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until a connection's first query is complete.
    pub read: Duration,
    /// Between two queries.
    pub idle: Duration,
    /// For one answer to be taken.
    pub write: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        let seconds = Duration::from_secs;
        Timeouts { read: seconds(3), idle: seconds(10), write: seconds(5) }
    }
}

/// `errors [stdout] { consolidate ... }`.
#[derive(Debug, Clone, Default)]
pub struct ErrorsLog {
    /// First match wins.
    pub consolidate: Vec<Consolidate>,
}

/// `consolidate DURATION REGEXP [LEVEL] [show_first]`.
#[derive(Debug, Clone)]
pub struct Consolidate {
    /// How long matches are counted before one line reports them.
    pub period: Duration,
    /// What the error text must match.
    pub pattern: regex::Regex,
    /// Level of the summary line.
    pub level: LogLevel,
    /// Also print the first match at once.
    pub show_first: bool,
}

/// Levels of CoreDNS's log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// `[ERROR]`
    #[default]
    Error,
    /// `[WARNING]`
    Warning,
    /// `[INFO]`
    Info,
    /// `[DEBUG]`
    Debug,
}

/// `log [NAMES...] [FORMAT] { class ... }`: one rule per name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryLog {
    /// Names below this are logged by this rule.
    pub scope: Name,
    /// The line, with `{placeholders}`; shortcuts are already replaced.
    pub format: String,
    /// Kinds of reply to log; empty: all.
    pub classes: Vec<LogClass>,
}

/// Kinds of reply, as `log`'s `class` groups them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogClass {
    /// Every reply.
    All,
    /// NOERROR with data.
    Success,
    /// NXDOMAIN and NODATA.
    Denial,
    /// Any other.
    Error,
}
