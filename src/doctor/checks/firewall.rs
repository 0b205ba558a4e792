//! Other people's netfilter rules.

use std::net::IpAddr;

use super::super::facts::Facts;
use super::Severity::{Critical, Note, Warning};
use super::{Check, Symptom, some_lines, symptom};
use crate::node::rules::{Chain, Verdict};

pub const CHECKS: &[Check] = &[
    Check {
        id: "masquerade-not-random",
        headline: "MASQUERADE keeps source ports that another flow may take at the same time",
        meaning: "Two pods that send to one server from one port at once collide, and one packet is dropped.",
        remedy: "Add --random-fully (nftables: fully-random) to the rule; `doorstep remedy random-fully` lists them \
            and can set its own in front. Clashes behind DNAT it does not cure.",
        examine: |facts| {
            let failed = facts.growth(|sample| Some(sample.conntrack?.insert_failed));
            some_lines(if failed > 0 { Warning } else { Note }, &facts.iptables.masquerade)
        },
    },
    Check {
        id: "firewall-drops-dns",
        headline: "The firewall drops DNS to or from the cache",
        meaning: "Packets that are not tracked fail a rule for established connections, and an accept in another \
            nftables table does not overrule a drop here.",
        remedy: "Run Doorstep with -rules-backend iptables (auto does so where it can run iptables), which puts its \
            accepts into this chain.",
        examine: drops_dns,
    },
    Check {
        id: "forward-drops-untracked",
        headline: "FORWARD drops what a notrack rule makes of DNS",
        meaning: "Answers to queries that are not tracked match neither RELATED nor ESTABLISHED.",
        remedy: "Accept UDP port 53 between the pods' networks in both directions, without a match on state: \
            `doorstep remedy ipvs-notrack` sets such rules.",
        examine: |facts| {
            let how = dropping(facts, "FORWARD")?;
            if accepts(facts, "FORWARD") || facts.iptables.foreign_notrack.is_empty() {
                return None;
            }
            let notrack = facts.iptables.foreign_notrack.iter().cloned();
            some_lines(Critical, std::iter::once(format!("iptables FORWARD: {how}")).chain(notrack))
        },
    },
    Check {
        id: "xtables-lock-held",
        headline: "Somebody holds the xtables lock",
        meaning: "kube-proxy, CNI plugins and node-cache wait for it, and rules are late.",
        remedy: "See what that process does; a long list of rules or a stuck iptables-restore is the usual reason.",
        examine: lock_held,
    },
];

fn dropping<'a>(facts: &'a Facts, chain: &str) -> Option<&'a str> {
    facts.iptables.drops.iter().find_map(|(name, how)| (name == chain).then_some(how.as_str()))
}

/// Whether DNS may get through: an accept in the chain, or in a chain of somebody's own that it may jump to.
fn accepts(facts: &Facts, chain: &str) -> bool {
    let builtin = ["INPUT", "FORWARD", "OUTPUT"];
    facts.iptables.accepts.iter().any(|name| name == chain || !builtin.contains(&name.as_str()))
}

fn drops_dns(facts: &Facts) -> Option<Symptom> {
    if !facts.cache_runs() {
        return None;
    }
    let accepted = |chain: Chain, address: IpAddr| {
        facts.rules.iter().any(|live| {
            let rule = live.rule;
            !live.nftables && (rule.verdict, rule.chain, rule.address) == (Verdict::Accept, chain, address)
        })
    };
    let mut lines = Vec::new();
    for chain in [Chain::Input, Chain::Output] {
        let Some(how) = dropping(facts, chain.iptables()).filter(|_| !accepts(facts, chain.iptables()))
        else {
            continue;
        };
        let dropped = facts.wanted.local_ips.iter().filter(|&&address| !accepted(chain, address));
        lines.extend(
            dropped.map(|address| format!("iptables {}: {how}, no accept for {address}", chain.iptables())),
        );
    }
    some_lines(Critical, lines)
}

fn lock_held(facts: &Facts) -> Option<Symptom> {
    let holder = facts.samples.last()?.lock_holder?;
    if facts.samples.iter().any(|sample| sample.lock_holder != Some(holder)) {
        return None;
    }
    let severity = if facts.samples.len() > 1 { Warning } else { Note };
    symptom(severity, format!("process {holder}, at each of {} readings", facts.samples.len()))
}
