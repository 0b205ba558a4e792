//! A one-node cluster's DNS path: two pods, a node with Service rules, kube-dns.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self as unix, UnixListener};

use super::kube_dns::KubeDns;
use super::kube_proxy::{self, ServiceRules};
use super::network::{self, KUBE_DNS_PODS};
use super::{DemoError, Namespace, QueryCounts};

/// What tells clusters on one machine apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// The namespaces are called `PREFIX-pod`, `PREFIX-pod2`, `PREFIX-node` and `PREFIX-kube-dns`.
    pub prefix: String,
}

impl Default for ClusterConfig {
    fn default() -> ClusterConfig {
        ClusterConfig { prefix: "doorstep".into() }
    }
}

/// A running cluster; dropping it removes everything it made. Children that were started in its
/// namespaces should be ended first.
///
/// Addresses are fixed: see the constants of [`network`](super::network).
#[derive(Debug)]
pub struct Cluster {
    // Dropped in this order: the server before its namespace, the claim last.
    server: KubeDns,
    pod: Namespace,
    pod2: Namespace,
    kube_dns: Namespace,
    node: Namespace,
    _claim: UnixListener,
}

impl Cluster {
    /// Builds the cluster: kube-dns answers when this returns. What a killed run of the same prefix
    /// left is removed first. Needs root.
    pub fn up(config: &ClusterConfig) -> Result<Cluster, DemoError> {
        if !rustix::process::geteuid().is_root() {
            return Err(DemoError::NotRoot);
        }
        let claim = claim(&config.prefix)?;
        let namespace = |role| Namespace::create(&format!("{}-{role}", config.prefix));
        let node = namespace("node")?;
        let kube_dns = namespace("kube-dns")?;
        let pod = namespace("pod")?;
        let pod2 = namespace("pod2")?;
        network::connect(&node, [&pod, &pod2], &kube_dns)?;
        kube_proxy::install(&node, ServiceRules::default())?;
        let server = KubeDns::start(&kube_dns, &KUBE_DNS_PODS)?;
        Ok(Cluster { server, pod, pod2, kube_dns, node, _claim: claim })
    }

    /// The pod at 10.244.0.11.
    pub fn pod(&self) -> &Namespace {
        &self.pod
    }

    /// The pod at 10.244.0.12.
    pub fn pod2(&self) -> &Namespace {
        &self.pod2
    }

    /// The node, where the Service rules are and where a DNS cache runs.
    pub fn node(&self) -> &Namespace {
        &self.node
    }

    /// Where kube-dns answers, at 10.244.1.11 and on.
    pub fn kube_dns(&self) -> &Namespace {
        &self.kube_dns
    }

    /// Puts other Service rules in place, in one transaction. [`up`](Cluster::up) leaves the default:
    /// one endpoint behind each ClusterIP.
    pub fn set_service_rules(&self, rules: ServiceRules) -> Result<(), DemoError> {
        kube_proxy::install(&self.node, rules)
    }

    /// Queries that reached kube-dns so far.
    pub fn queries(&self) -> QueryCounts {
        self.server.queries()
    }
}

/// Keeps two processes from using one prefix: an abstract socket name, which no kill leaves behind.
fn claim(prefix: &str) -> Result<UnixListener, DemoError> {
    let fail = || DemoError::io("claim the cluster's name");
    let name = unix::SocketAddr::from_abstract_name(format!("{prefix}-demo")).map_err(fail())?;
    match UnixListener::bind_addr(&name) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            Err(DemoError::Busy(prefix.to_owned()))
        }
        result => result.map_err(fail()),
    }
}
