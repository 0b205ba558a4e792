//! network-node-manager's cure for nodes whose kube-proxy uses IPVS: DNS between pods and the
//! ClusterIP is left untracked. IPVS balances and rewrites from its own table, so nothing is lost
//! with the conntrack entry, and there is nothing to race for.
//!
//! The rules stay between pods. network-node-manager's own also untrack what the node itself sends,
//! and answers to it: then kube-proxy's MASQUERADE never runs, kube-dns on another node sees the
//! ClusterIP as its client, which that node takes for its own, and the answer is lost. Hence
//! PREROUTING alone, from and to this node's pods.

mod rules;
mod sources;

use std::net::IpAddr;

use netlink_packet_netfilter::nftables::InetHookNumber;
use tracing::{info, warn};

use super::{Cidr, Refusal, Remedy, chains};
use crate::node::iptables::{self, Family, Saved};
use crate::node::monitor::Change;
use crate::node::nftables::{BaseChain, Contents, Ownership, Table};
use crate::node::{Backend, Drift, Error, Kept};
use crate::route_message::RouteMessage;

pub use rules::{Facts, Flow};
pub use sources::{Found, Sources, virtual_dns_servers};

/// The comment of rules and jumps.
const COMMENT: &str = "doorstep remedy ipvs-notrack";
/// The nftables table.
pub(super) const TABLE: &str = "doorstep-ipvs-notrack";

/// Which rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// Those that work for pods and for the node's own queries.
    #[default]
    Corrected,
    /// Those of network-node-manager, in PREROUTING and OUTPUT, for comparison.
    NetworkNodeManager,
}

/// What the operator says; what is empty is read from the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// `-cluster-ip`.
    pub cluster_ips: Vec<IpAddr>,
    /// `-node-pod-cidr`.
    pub node_pods: Vec<Cidr>,
    /// `-cluster-cidr`.
    pub pods: Vec<Cidr>,
    /// `-rules-backend`; `None`: chosen from what the host shows.
    pub backend: Option<Backend>,
    /// `-as-network-node-manager`.
    pub shape: Shape,
}

/// The remedy, at work from its first [`Kept::reconcile`].
#[derive(Debug)]
pub struct IpvsNotrack {
    sources: Sources,
    shape: Shape,
    /// The ClusterIPs to care for; `None`: every one on whose port 53 IPVS balances UDP.
    wanted: Option<Vec<IpAddr>>,
    node_pods: Vec<Cidr>,
    pods: Vec<Cidr>,
    backend: Backend,
    table: Option<Table>,
    /// The ClusterIPs that had rules at the last look.
    covered: Option<Vec<IpAddr>>,
}

impl IpvsNotrack {
    /// Reads what `config` leaves open from the node and says what is used. Changes nothing yet.
    ///
    /// Refuses where IPVS balances none of the ClusterIPs: without it, untracked queries go nowhere.
    pub fn new(config: Config, sources: Sources) -> Result<IpvsNotrack, Refusal> {
        let cluster_ips = Found::given("-cluster-ip", config.cluster_ips);
        let cluster_ips = if cluster_ips.values.is_empty() { sources.cluster_ips() } else { cluster_ips };
        let ranges = |flag: &str, given: Vec<Cidr>, read: &dyn Fn() -> Found<Cidr>| {
            let found = if given.is_empty() { read() } else { Found::given(flag, given) };
            if found.values.is_empty() {
                return Err(Refusal::Unknown { remedy: "ipvs-notrack", flag: flag.into() });
            }
            Ok(found)
        };
        let node_pods = ranges("-node-pod-cidr", config.node_pods, &|| sources.node_pods())?;
        let pods = ranges("-cluster-cidr", config.pods, &|| sources.pods())?;
        let wanted = (!cluster_ips.values.is_empty()).then_some(cluster_ips.values);
        let (backend, reason) = choose(config.backend, node_pods.values.as_slice());
        let remedy = IpvsNotrack {
            shape: config.shape,
            node_pods: node_pods.values,
            pods: pods.values,
            table: None,
            covered: None,
            sources,
            wanted,
            backend,
        };
        let facts = remedy.facts();
        let covered = Family::BOTH.into_iter().any(|family| facts.suffice(family));
        if !covered {
            return Err(Refusal::NoVirtualServer {
                wanted: list(remedy.wanted.as_deref().unwrap_or_default()),
            });
        }
        let origin = if remedy.wanted.is_some() { cluster_ips.origin.as_str() } else { "/proc/net/ip_vs" };
        info!("ipvs-notrack: ClusterIP {} (from {origin})", list(&facts.cluster_ips));
        info!("ipvs-notrack: pods of this node {} (from {})", list(&remedy.node_pods), node_pods.origin);
        info!("ipvs-notrack: all pods {} (from {})", list(&remedy.pods), pods.origin);
        info!(?backend, "ipvs-notrack: rules go through this backend: {reason}");
        if remedy.shape == Shape::NetworkNodeManager {
            warn!(
                "ipvs-notrack: with network-node-manager's rules, this node's own queries to a kube-dns \
                 on another node are lost"
            );
        }
        Ok(remedy)
    }

    /// The facts of this moment: ClusterIPs count while IPVS balances them.
    fn facts(&self) -> Facts {
        let mut cluster_ips = self.sources.balanced();
        if let Some(wanted) = &self.wanted {
            cluster_ips.retain(|ip| wanted.contains(ip));
        }
        cluster_ips.sort();
        Facts { cluster_ips, node_pods: self.node_pods.clone(), pods: self.pods.clone() }
    }

    /// Writes the rules that `facts` call for, and none else. Returns how many differed.
    fn write(&mut self, facts: &Facts) -> Result<usize, Error> {
        if self.backend == Backend::Iptables {
            let mut differed = 0;
            for family in Family::BOTH {
                let chains = rules::iptables(facts, family, self.shape);
                differed += match chains.is_empty() {
                    true if !self.uses(family) => 0,
                    true => chains::remove_found(family, &rules::chains(self.shape))?,
                    false => chains::install(family, &chains)?,
                };
            }
            return Ok(differed);
        }
        let table = match &mut self.table {
            Some(table) => table,
            none => none.insert(Table::named(TABLE, Ownership::Owned).map_err(Error::Nftables)?),
        };
        let contents = rules::nftables(facts, self.shape);
        let differed =
            if contents.rules.is_empty() { table.remove().map(usize::from) } else { table.keep(&contents) };
        differed.map_err(Error::Nftables)
    }

    /// Whether there may ever be rules of this family.
    fn uses(&self, family: Family) -> bool {
        let same = |range: &Cidr| range.is_ipv4() == (family == Family::V4);
        self.node_pods.iter().any(same) && self.pods.iter().any(same)
    }
}

impl Kept for IpvsNotrack {
    fn reconcile(&mut self) -> Drift {
        let facts = self.facts();
        let mut drift = Drift::default();
        let moved = self.covered.as_ref().is_none_or(|covered| *covered != facts.cluster_ips);
        match self.write(&facts) {
            // New ClusterIPs are no drift: nobody touched our rules.
            Ok(differed) => drift.rules = if moved { 0 } else { differed },
            Err(e) => drift.errors.push(e),
        }
        if self.covered.is_none() {
            // What a killed predecessor with the other backend left.
            drift.errors.extend(match self.backend {
                Backend::Nftables => clean_iptables(),
                Backend::Iptables => super::remove_table(TABLE).into_iter().collect(),
            });
        } else if moved {
            match facts.cluster_ips.as_slice() {
                [] => warn!("ipvs-notrack: IPVS balances no DNS any more, the rules are gone until it does"),
                ips => info!("ipvs-notrack: ClusterIP {}", list(ips)),
            }
        }
        self.covered = Some(facts.cluster_ips);
        drift
    }

    /// kube-proxy puts ClusterIPs on `kube-ipvs0`: an address that comes or goes is its sign.
    fn concerned_by(&self, change: Change<'_>) -> bool {
        match change {
            Change::Route(RouteMessage::NewAddress(address) | RouteMessage::DelAddress(address)) => {
                matches!(address.header.prefix_len, 32 | 128)
            }
            Change::Route(_) => false,
            Change::Rules { table, .. } if self.backend == Backend::Nftables => table == Some(TABLE),
            Change::Rules { table, chain } => match chain {
                Some("PREROUTING" | "OUTPUT" | "FORWARD") | None => matches!(table, Some("raw" | "filter")),
                Some(chain) => [rules::NOTRACK_CHAIN, rules::FORWARD_CHAIN].contains(&chain),
            },
        }
    }

    fn is_waiting(&self) -> bool {
        self.table.as_ref().is_some_and(Table::held_elsewhere)
    }
}

impl Remedy for IpvsNotrack {
    fn name(&self) -> &'static str {
        "ipvs-notrack"
    }

    fn undo(&mut self) -> Vec<Error> {
        if self.backend == Backend::Nftables {
            let removed = self.table.as_mut().map_or(Ok(false), Table::remove);
            return removed.err().map(Error::Nftables).into_iter().collect();
        }
        let facts = self.facts();
        let remove = |family| match rules::iptables(&facts, family, self.shape) {
            chains if chains.is_empty() && !self.uses(family) => Ok(()),
            chains if chains.is_empty() => {
                chains::remove_found(family, &rules::chains(self.shape)).map(|_| ())
            }
            chains => chains::remove(family, &chains),
        };
        Family::BOTH.into_iter().filter_map(|family| remove(family).err()).map(Error::Iptables).collect()
    }
}

/// Removes what a killed predecessor of either backend left.
pub(super) fn clean() -> Vec<Error> {
    super::remove_table(TABLE).into_iter().chain(clean_iptables()).collect()
}

fn clean_iptables() -> Vec<Error> {
    let chains = rules::chains(Shape::Corrected);
    let remove = |family| match chains::remove_found(family, &chains) {
        // Nobody can have written rules without the tool.
        Err(iptables::Error::Missing { .. }) | Ok(_) => None,
        Err(e) => Some(Error::Iptables(e)),
    };
    Family::BOTH.into_iter().filter_map(remove).collect()
}

/// iptables where its FORWARD chain drops what it has no state for, since an accept in a table of our
/// own could not overrule that; else nftables, whose rules the kernel removes with this process.
fn choose(wanted: Option<Backend>, node_pods: &[Cidr]) -> (Backend, String) {
    if let Some(backend) = wanted {
        return (backend, "set by -rules-backend".into());
    }
    let in_use = |family: &Family| node_pods.iter().any(|range| range.is_ipv4() == (*family == Family::V4));
    let saved: Vec<Saved> =
        Family::BOTH.into_iter().filter(in_use).filter_map(|family| iptables::read(family).ok()).collect();
    if let Some(why) = saved.iter().find_map(forward_drops) {
        return (Backend::Iptables, format!("{why}, which only an accept in iptables can go before"));
    }
    let probe =
        Contents { chains: vec![BaseChain::raw("probe", InetHookNumber::PreRouting)], rules: Vec::new() };
    let probed = Table::open(Ownership::Plain).and_then(|mut table| {
        table.probe(&probe)?;
        table.forward_drops()
    });
    match probed {
        Ok(drops) => {
            if let [first, ..] = drops.as_slice() {
                warn!(
                    "ipvs-notrack: the nftables chain {first} drops what it does not accept, and an untracked \
                     packet is not established: let it accept UDP to and from port 53 between pods"
                );
            }
            if saved.is_empty() {
                warn!(
                    "ipvs-notrack: no iptables to ask whether its FORWARD chain drops; if so, DNS may be dropped"
                );
            }
            (Backend::Nftables, "the kernel takes our table and iptables drops no forwarded DNS".into())
        }
        Err(e) => (Backend::Iptables, format!("nftables is not usable: {e}")),
    }
}

/// What in iptables drops a forwarded packet that nothing accepts.
fn forward_drops(saved: &Saved) -> Option<String> {
    let policy = ("filter".to_owned(), "FORWARD".to_owned(), "DROP".to_owned());
    if saved.chains.contains(&policy) {
        return Some("the iptables FORWARD policy is DROP".into());
    }
    let targets = ["DROP", "REJECT"].into_iter();
    let ends = targets.filter(|target| {
        let drops_all = format!("FORWARD -j {target}");
        let in_filter = saved.rules.iter().filter(|rule| rule.table == "filter");
        in_filter
            .filter_map(|rule| rule.text.strip_prefix(&drops_all))
            .any(|rest| rest.is_empty() || rest.starts_with(' '))
    });
    ends.map(|target| format!("iptables FORWARD ends in {target}")).next()
}

fn list<T: ToString>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forward_chain_that_drops_is_seen() {
        let saved = |text: &str| Saved::parse(&format!("*filter\n{text}\nCOMMIT\n"));
        assert!(forward_drops(&saved(":FORWARD DROP [0:0]")).is_some());
        assert!(
            forward_drops(&saved(":FORWARD ACCEPT [0:0]\n-A FORWARD -j REJECT --reject-with x")).is_some()
        );
        assert!(forward_drops(&saved(":INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]")).is_none());
        assert!(forward_drops(&saved("-A FORWARD -i eth9 -j DROP")).is_none());
    }
}
