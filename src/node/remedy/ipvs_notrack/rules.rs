//! The rules as typed values, for both backends.

use std::net::IpAddr;

use netlink_packet_netfilter::nftables::InetHookNumber;

use super::Shape;
use crate::node::iptables::Family;
use crate::node::nftables::{BaseChain, Contents, ListedRule, Side, Step, port_steps, prefix_steps};
use crate::node::remedy::Cidr;
use crate::node::remedy::chains::OwnChain;
use crate::node::rules::Protocol;

const DNS: u16 = 53;
/// The iptables chain of rules before conntrack.
pub(super) const NOTRACK_CHAIN: &str = "DOORSTEP-NOTRACK";
/// The iptables chain of rules that let forwarded packets through.
pub(super) const FORWARD_CHAIN: &str = "DOORSTEP-FORWARD";

/// What the rules are made of; each list may hold both families.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Virtual addresses on whose port 53 IPVS balances UDP.
    pub cluster_ips: Vec<IpAddr>,
    /// Where this node's pods have their addresses.
    pub node_pods: Vec<Cidr>,
    /// Where all pods have theirs.
    pub pods: Vec<Cidr>,
}

/// One match on UDP packets; what becomes of them depends on where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Whence; `None`: anywhere.
    pub source: Option<Cidr>,
    /// Whither; `None`: anywhere.
    pub destination: Option<Cidr>,
    /// Whether 53 is the source's port or the destination's.
    pub port_of: Side,
}

impl Facts {
    /// Those of one family.
    fn of(&self, family: Family) -> Facts {
        let wanted = |is_ipv4: bool| is_ipv4 == (family == Family::V4);
        Facts {
            cluster_ips: self.cluster_ips.iter().copied().filter(|ip| wanted(ip.is_ipv4())).collect(),
            node_pods: self.node_pods.iter().copied().filter(|range| wanted(range.is_ipv4())).collect(),
            pods: self.pods.iter().copied().filter(|range| wanted(range.is_ipv4())).collect(),
        }
    }

    /// Whether there is all that the rules of `family` need.
    pub fn suffice(&self, family: Family) -> bool {
        let own = self.of(family);
        !(own.cluster_ips.is_empty() || own.node_pods.is_empty() || own.pods.is_empty())
    }

    /// What `family` leaves untracked; nothing unless the facts suffice.
    pub fn untracked(&self, family: Family, shape: Shape) -> Vec<Flow> {
        let own = self.of(family);
        if !self.suffice(family) {
            return Vec::new();
        }
        let virtual_ips = own.cluster_ips.iter().map(|ip| Cidr::host(*ip));
        match shape {
            Shape::Corrected => {
                let to_virtual =
                    virtual_ips.flat_map(|ip| own.node_pods.iter().map(move |pods| to(*pods, ip)));
                to_virtual.chain(own.between_pods()).collect()
            }
            Shape::NetworkNodeManager => {
                let from_anywhere =
                    |range| Flow { source: None, destination: Some(range), port_of: Side::Destination };
                let to_anywhere =
                    |range| Flow { source: Some(range), destination: None, port_of: Side::Source };
                let queries = virtual_ips.chain(own.pods.iter().copied()).map(from_anywhere);
                queries.chain(own.pods.iter().copied().map(to_anywhere)).collect()
            }
        }
    }

    /// What `family` lets through the firewall without looking at a state it no longer has.
    pub fn forwarded(&self, family: Family) -> Vec<Flow> {
        if self.suffice(family) { self.of(family).between_pods() } else { Vec::new() }
    }

    /// Queries from this node's pods to kube-dns pods, and the answers.
    fn between_pods(&self) -> Vec<Flow> {
        let pairs = || self.node_pods.iter().flat_map(|own| self.pods.iter().map(move |all| (*own, *all)));
        pairs().map(|(own, all)| to(own, all)).chain(pairs().map(|(own, all)| back(all, own))).collect()
    }
}

fn to(source: Cidr, destination: Cidr) -> Flow {
    Flow { source: Some(source), destination: Some(destination), port_of: Side::Destination }
}

fn back(source: Cidr, destination: Cidr) -> Flow {
    Flow { source: Some(source), destination: Some(destination), port_of: Side::Source }
}

impl Flow {
    /// The matches as `iptables-save` prints them.
    fn iptables(&self) -> String {
        let range = |option: &str, range: Option<Cidr>| match range {
            // Of a range that holds everything it prints nothing.
            Some(range) if range.length() > 0 => format!("{option} {range} "),
            _ => String::new(),
        };
        let port = if self.port_of == Side::Source { "--sport" } else { "--dport" };
        let (source, destination) = (range("-s", self.source), range("-d", self.destination));
        format!("{source}{destination}-p udp -m udp {port} {DNS}")
    }

    fn steps(&self) -> Vec<Step> {
        let range = |side, range: Option<Cidr>| {
            range.map(|range| prefix_steps(side, range.network(), range.length())).into_iter().flatten()
        };
        let ends = range(Side::Source, self.source).chain(range(Side::Destination, self.destination));
        let mut steps: Vec<Step> = ends.collect();
        steps.extend(port_steps(Protocol::Udp, self.port_of, DNS));
        steps.extend([Step::Count, Step::NoTrack]);
        steps
    }
}

/// The rules as an nftables table. It accepts nothing: an accept in it would not keep another table
/// from dropping, and nothing in it drops.
pub(super) fn nftables(facts: &Facts, shape: Shape) -> Contents {
    let hooks = match shape {
        Shape::Corrected => vec![("prerouting", InetHookNumber::PreRouting)],
        Shape::NetworkNodeManager => {
            vec![("prerouting", InetHookNumber::PreRouting), ("output", InetHookNumber::LocalOut)]
        }
    };
    let flows: Vec<Flow> =
        Family::BOTH.into_iter().flat_map(|family| facts.untracked(family, shape)).collect();
    let rules = hooks.iter().flat_map(|(chain, _)| {
        flows.iter().map(|flow| ListedRule {
            chain: (*chain).to_owned(),
            comment: Some(super::COMMENT.to_owned()),
            steps: Some(flow.steps()),
        })
    });
    Contents {
        rules: rules.collect(),
        chains: hooks.iter().map(|(name, hook)| BaseChain::raw(name, *hook)).collect(),
    }
}

/// The rules as iptables chains of one family; none unless the facts suffice.
pub(super) fn iptables(facts: &Facts, family: Family, shape: Shape) -> Vec<OwnChain> {
    if !facts.suffice(family) {
        return Vec::new();
    }
    let lines = |flows: Vec<Flow>, target: &str| {
        flows.iter().map(|flow| format!("{} -j {target}", flow.iptables())).collect()
    };
    let [mut forward, mut notrack] = chains(shape);
    forward.rules = lines(facts.forwarded(family), "ACCEPT");
    notrack.rules = lines(facts.untracked(family, shape), "CT --notrack");
    // network-node-manager leaves the firewall to others.
    if shape == Shape::NetworkNodeManager { vec![notrack] } else { vec![forward, notrack] }
}

/// Both chains, empty, in the order in which they are made: what goes untracked must be let through
/// by then.
pub(super) fn chains(shape: Shape) -> [OwnChain; 2] {
    let hooks: &[&str] = match shape {
        Shape::Corrected => &["PREROUTING"],
        Shape::NetworkNodeManager => &["PREROUTING", "OUTPUT"],
    };
    let chain =
        |table, name, hooks| OwnChain { table, name, hooks, comment: super::COMMENT, rules: Vec::new() };
    [chain("filter", FORWARD_CHAIN, &["FORWARD"]), chain("raw", NOTRACK_CHAIN, hooks)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            cluster_ips: vec!["10.96.0.10".parse().unwrap(), "fd00:96::a".parse().unwrap()],
            node_pods: vec!["10.244.3.0/24".parse().unwrap(), "fd00:244:3::/64".parse().unwrap()],
            pods: vec!["10.244.0.0/16".parse().unwrap(), "fd00:244::/48".parse().unwrap()],
        }
    }

    fn lines(shape: Shape, family: Family) -> String {
        let chains = iptables(&facts(), family, shape);
        let shown = chains.iter().flat_map(|chain| {
            chain.rules.iter().map(move |rule| format!("{} {} {rule}", chain.table, chain.hooks.join(",")))
        });
        shown.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_rules_stay_between_pods() {
        insta::assert_snapshot!(lines(Shape::Corrected, Family::V4), @r"
        filter FORWARD -s 10.244.3.0/24 -d 10.244.0.0/16 -p udp -m udp --dport 53 -j ACCEPT
        filter FORWARD -s 10.244.0.0/16 -d 10.244.3.0/24 -p udp -m udp --sport 53 -j ACCEPT
        raw PREROUTING -s 10.244.3.0/24 -d 10.96.0.10/32 -p udp -m udp --dport 53 -j CT --notrack
        raw PREROUTING -s 10.244.3.0/24 -d 10.244.0.0/16 -p udp -m udp --dport 53 -j CT --notrack
        raw PREROUTING -s 10.244.0.0/16 -d 10.244.3.0/24 -p udp -m udp --sport 53 -j CT --notrack
        ");
        insta::assert_snapshot!(lines(Shape::Corrected, Family::V6).lines().last().unwrap(),
            @"raw PREROUTING -s fd00:244::/48 -d fd00:244:3::/64 -p udp -m udp --sport 53 -j CT --notrack");
    }

    /// What is printed otherwise than it is written would be written again and again.
    #[test]
    fn a_range_that_holds_everything_is_written_as_it_is_printed() {
        let facts = Facts { pods: vec!["0.0.0.0/0".parse().unwrap()], ..facts() };
        let flows = facts.untracked(Family::V4, Shape::Corrected);
        assert_eq!(flows[1].iptables(), "-s 10.244.3.0/24 -p udp -m udp --dport 53");
        assert_eq!(flows[2].iptables(), "-d 10.244.3.0/24 -p udp -m udp --sport 53");
    }

    #[test]
    fn network_node_managers_rules_are_its_own() {
        insta::assert_snapshot!(lines(Shape::NetworkNodeManager, Family::V4), @r"
        raw PREROUTING,OUTPUT -d 10.96.0.10/32 -p udp -m udp --dport 53 -j CT --notrack
        raw PREROUTING,OUTPUT -d 10.244.0.0/16 -p udp -m udp --dport 53 -j CT --notrack
        raw PREROUTING,OUTPUT -s 10.244.0.0/16 -p udp -m udp --sport 53 -j CT --notrack
        ");
    }

    #[test]
    fn a_family_that_lacks_a_fact_gets_no_rule() {
        let mut facts = facts();
        facts.pods.truncate(1);
        assert!(facts.suffice(Family::V4) && !facts.suffice(Family::V6));
        assert!(iptables(&facts, Family::V6, Shape::Corrected).is_empty());
        assert_eq!(nftables(&facts, Shape::Corrected).rules.len(), 3);
        assert_eq!(nftables(&facts, Shape::NetworkNodeManager).rules.len(), 6);
    }
}
