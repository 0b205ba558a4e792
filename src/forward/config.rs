//! What one `forward` directive asks for.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::wire::Name;

/// One `forward FROM TO... { ... }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Names below this are forwarded.
    pub from: Name,
    /// Names below these are not.
    pub except: Vec<Name>,
    /// The upstreams, resolved, in the Corefile's order; at most [`Config::MAX_UPSTREAMS`].
    pub to: Vec<Target>,
    /// Where they came from, as the Corefile has them, for messages and re-reading.
    pub sources: Vec<Source>,
    /// `force_tcp`, `prefer_udp`, or neither.
    pub transport: Transport,
    /// The order in which upstreams are tried.
    pub policy: Policy,
    /// Idle connections are closed after this.
    pub expire: Duration,
    /// Failures in a row after which an upstream is down; 0: never.
    pub max_fails: u32,
    /// Queries in flight at most; one more is REFUSED. `None`: unbounded here.
    pub max_concurrent: Option<usize>,
    /// Connect attempts per query at most; 0: unlimited.
    pub max_connect_attempts: u32,
    /// How a suspect upstream is probed.
    pub health_check: HealthCheck,
    /// Response codes that hand the query to the block's next `forward`.
    pub next: Vec<u16>,
    /// Response codes that send the query to this directive's next upstream.
    pub failover: Vec<u16>,
    /// SERVFAIL at once when every upstream is down, instead of trying one anyway.
    pub failfast_all_unhealthy: bool,
    /// Certificates for `tls://` upstreams.
    pub tls: Tls,
}

/// One upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// Address and port.
    pub address: SocketAddr,
    /// Whether it is spoken to over TLS (RFC 7858).
    pub tls: bool,
    /// The name its certificate must carry, from `tls://IP%NAME`; otherwise [`Tls::server_name`].
    pub server_name: Option<String>,
}

/// One `TO` as it stands in the Corefile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An address.
    Address(Target),
    /// A file in the syntax of resolv.conf(5).
    ResolvConf(PathBuf),
}

/// Which transport carries a query upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// The client's own: UDP for UDP, TCP for TCP.
    #[default]
    AsClient,
    /// Always TCP.
    ForceTcp,
    /// UDP first, also for clients on TCP.
    PreferUdp,
}

/// How the client's query came, which is how it goes on unless the directive says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientTransport {
    /// In a datagram.
    Udp,
    /// On a connection, TLS included.
    Tcp,
}

/// The order in which upstreams are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// A fresh shuffle for each query.
    #[default]
    Random,
    /// In turn.
    RoundRobin,
    /// The Corefile's order.
    Sequential,
}

/// `health_check DURATION [no_rec] [domain FQDN]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// Time between two probes of an upstream that failed.
    pub interval: Duration,
    /// Whether probes ask for recursion.
    pub recursion_desired: bool,
    /// The name probes ask the NS records of.
    pub domain: Name,
}

/// `tls [CERT KEY] [CA]` and `tls_servername NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// Client certificate chain and key, PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Roots to trust instead of the system's, PEM.
    pub roots: Option<PathBuf>,
    /// The name certificates must carry.
    pub server_name: Option<String>,
}

impl Config {
    /// Upstreams one directive may name (CoreDNS's limit).
    pub const MAX_UPSTREAMS: usize = 15;
    /// CoreDNS's `expire`.
    pub const EXPIRE: Duration = Duration::from_secs(10);
    /// CoreDNS's `max_fails`.
    pub const MAX_FAILS: u32 = 2;
    /// CoreDNS's interval between health checks.
    pub const HEALTH_INTERVAL: Duration = Duration::from_millis(500);

    /// The directive with no options.
    pub fn new(from: Name, to: Vec<Target>) -> Config {
        Config {
            from,
            except: Vec::new(),
            sources: to.iter().cloned().map(Source::Address).collect(),
            to,
            transport: Transport::default(),
            policy: Policy::default(),
            expire: Config::EXPIRE,
            max_fails: Config::MAX_FAILS,
            max_concurrent: None,
            max_connect_attempts: 0,
            health_check: HealthCheck {
                interval: Config::HEALTH_INTERVAL,
                recursion_desired: true,
                domain: Name::root(),
            },
            next: Vec::new(),
            failover: Vec::new(),
            failfast_all_unhealthy: false,
            tls: Tls::default(),
        }
    }
}

impl Target {
    /// A plain DNS upstream.
    pub fn plain(address: SocketAddr) -> Target {
        Target { address, tls: false, server_name: None }
    }
}
