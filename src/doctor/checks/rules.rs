//! The rules that keep DNS out of conntrack, and the sockets and link they belong to.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::super::facts::{Facts, KubeProxy, LiveRule, Process};
use super::Severity::{Critical, Warning};
use super::{Check, Symptom, some_lines, symptom};
use crate::node;
use crate::node::rules::{Protocol, Rule, RuleSet, Verdict};

const RESTORE: &str = "Start Doorstep, which mends rules and link by itself, or remove what is left with \
    `doorstep teardown`.";

pub const CHECKS: &[Check] = &[
    Check {
        id: "notrack-without-listener",
        headline: "A rule takes queries past kube-proxy to where nobody listens",
        meaning: "Packets that are not tracked are not translated to a kube-dns pod. Every query to this address \
            from this node is lost.",
        remedy: RESTORE,
        examine: black_hole,
    },
    Check {
        id: "address-without-listener",
        headline: "The cache's address is on the node, but nobody listens on it",
        meaning: "Pods that ask this address get no answer until the cache is back.",
        remedy: "Find out why the cache ended (`kubectl logs --previous`); see port-conflict if there is one. Or \
            take the address away with `doorstep teardown` and point kubelet's clusterDNS back at kube-dns.",
        examine: deaf_address,
    },
    Check {
        id: "clusterip-bypassed",
        headline: "The cache listens on a ClusterIP, but queries to it go elsewhere",
        meaning: "Without a notrack rule for it kube-proxy translates the ClusterIP first: the cache sees none of \
            these queries, and they race and are tracked as without it.",
        remedy: "Let the cache keep its rules: -setupiptables=true, CAP_NET_ADMIN, and the address in -localip.",
        examine: bypassed,
    },
    Check {
        id: "rules-missing",
        headline: "Some of the cache's rules are not there",
        meaning: "DNS that no rule exempts is tracked, and may be dropped by a firewall that accepts only what it \
            knows.",
        remedy: "Doorstep puts them back by itself within -syncinterval; if they keep going, find out who removes \
            them (doorstep_drift_repairs_total counts it).",
        examine: missing,
    },
    Check {
        id: "rules-ineffective",
        headline: "Queries to the cache are tracked although rules should prevent it",
        meaning: "The rules saw no packet between two readings, while conntrack has entries for DNS to the cache's \
            address: packets take another way than through these rules, or the entries are older than the rules.",
        remedy: "Run it again after two minutes, when old entries are gone. If it stays, look for a table whose chain \
            comes before priority -300, or for the other of iptables-legacy and iptables-nft.",
        examine: ineffective,
    },
    Check {
        id: "leftover-rules",
        headline: "Rules of a cache that does not use them are left on the node",
        meaning: "They send queries past kube-proxy. As soon as nobody listens, those are lost.",
        remedy: "`doorstep teardown` removes them; so does a start of Doorstep.",
        examine: leftover_rules,
    },
    Check {
        id: "leftover-link",
        headline: "The cache's link is left on the node without a cache",
        meaning: "Its addresses stay the node's own: what is sent to them ends here.",
        remedy: "`doorstep teardown` removes it; a start of Doorstep takes it over.",
        examine: |facts| {
            let link = facts.link(&facts.wanted.interface).filter(|_| !facts.cache_runs())?;
            symptom(Warning, format!("link {}, and no process of doorstep or node-cache", link.name))
        },
    },
];

fn black_hole(facts: &Facts) -> Option<Symptom> {
    let mut untracked: Vec<IpAddr> = facts.rules.iter().map(|live| live.rule.address).collect();
    untracked.sort_unstable();
    untracked.dedup();
    untracked.retain(|&address| facts.is_untracked(address));
    let lines = untracked.into_iter().filter_map(|address| {
        let mut lacks = Vec::new();
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            if !facts.is_heard(address, protocol) {
                lacks.push(format!("no {} socket", protocol.name()));
            }
        }
        if !facts.addresses.is_empty() && !facts.addresses.contains(&address) {
            lacks.push("the address is not on this node".to_owned());
        }
        let place = SocketAddr::new(address, facts.wanted.dns_port);
        (!lacks.is_empty()).then(|| format!("notrack for {place}: {}", lacks.join(", ")))
    });
    some_lines(Critical, lines)
}

fn deaf_address(facts: &Facts) -> Option<Symptom> {
    let deaf = facts.wanted.local_ips.iter().filter(|&&address| {
        facts.addresses.contains(&address)
            && !facts.is_heard(address, Protocol::Udp)
            // A ClusterIP is answered by kube-proxy's pods; with a rule it is another finding.
            && !facts.is_cluster_ip(address)
            && !facts.is_untracked(address)
    });
    let port = facts.wanted.dns_port;
    some_lines(Critical, deaf.map(|&address| format!("nothing on {}", SocketAddr::new(address, port))))
}

fn bypassed(facts: &Facts) -> Option<Symptom> {
    if facts.rules_unseen() || facts.kube_proxy() == Some(KubeProxy::Ipvs) {
        return None;
    }
    let bypassed = facts.wanted.local_ips.iter().copied().filter(|&address| {
        let bound = facts.dns_listeners(address).any(|listener| listener.address == address);
        bound && facts.is_cluster_ip(address) && !facts.is_untracked(address)
    });
    some_lines(Warning, bypassed.map(|address| format!("a socket on {address}, no notrack rule for it")))
}

fn missing(facts: &Facts) -> Option<Symptom> {
    let off = |cache: &Process| {
        let value = cache.flag("setupiptables").unwrap_or_default();
        matches!(value.as_str(), "0" | "f" | "F" | "false" | "FALSE" | "False")
    };
    let no_rules_wanted = facts.caches.iter().any(off) || facts.kube_proxy() == Some(KubeProxy::Cilium);
    if facts.rules_unseen() || no_rules_wanted || !facts.cache_runs() {
        return None;
    }
    let there: Vec<Rule> = facts.rules.iter().map(|live| live.rule).collect();
    let served = facts.wanted.local_ips.iter().copied().filter(|&address| {
        facts.is_heard(address, Protocol::Udp)
            && (facts.is_untracked(address) || !facts.is_cluster_ip(address))
    });
    let config = config(facts, served.collect());
    let wanted = RuleSet::new(&config);
    // The health port may be the Corefile's, which is not read here.
    let dns = wanted.rules().iter().filter(|rule| rule.port == facts.wanted.dns_port);
    let (count, missing): (usize, Vec<&Rule>) =
        (dns.clone().count(), dns.filter(|rule| !there.contains(rule)).collect());
    if missing.is_empty() {
        return None;
    }
    let first = format!("{} of {count} rules are missing", missing.len());
    let rest = missing.iter().map(|rule| format!("{} {}", rule.table.iptables(), rule.iptables()));
    some_lines(Warning, std::iter::once(first).chain(rest))
}

fn config(facts: &Facts, local_ips: Vec<IpAddr>) -> node::Config {
    node::Config {
        local_ips,
        interface: facts.wanted.interface.clone(),
        setup_interface: true,
        setup_rules: true,
        backend: None,
        sync_interval: Duration::ZERO,
        dns_port: facts.wanted.dns_port,
        health_port: facts.wanted.health_port,
    }
}

fn ineffective(facts: &Facts) -> Option<Symptom> {
    let notrack = |live: &&LiveRule| live.rule.verdict == Verdict::NoTrack;
    let count = facts.rules.iter().filter(notrack).count();
    let tracked = facts.entries?.local;
    let still = facts.samples.len() > 1 && facts.growth(|sample| Some(sample.spared)) == 0;
    if count == 0 || tracked == 0 || !still {
        return None;
    }
    symptom(
        Warning,
        format!("{count} notrack rules without a packet, {tracked} conntrack entries to the cache's address"),
    )
}

fn leftover_rules(facts: &Facts) -> Option<Symptom> {
    let in_nftables = facts.rules.iter().filter(|live| live.nftables).count();
    let commented = facts.iptables.commented.iter().cloned();
    if !facts.cache_runs() {
        let table = format!("{in_nftables} rules in nftables table inet {}", node::nftables::TABLE);
        return some_lines(Warning, commented.chain((in_nftables > 0).then_some(table)));
    }
    let only_doorstep = facts.caches.iter().all(|cache| cache.name == "doorstep");
    if in_nftables > 0 && only_doorstep { some_lines(Warning, commented) } else { None }
}
