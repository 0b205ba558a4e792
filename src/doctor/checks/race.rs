//! Which of conntrack's races this node loses queries to.

use super::super::facts::{Facts, KubeProxy};
use super::Severity::{Critical, Note, Warning};
use super::{Check, Symptom, symptom};

const DEPLOY: &str = "Let pods ask a cache on the node whose address is exempt from tracking: deploy Doorstep. Where \
    kube-proxy uses IPVS, or until then: `doorstep remedy ipvs-notrack`, `doorstep remedy rps`, \
    `doorstep remedy aaaa-delay`.";

pub const CHECKS: &[Check] = &[
    Check {
        id: "slow-answer-loss",
        headline: "Answers come back to ports where nobody waits, after conntrack clashes",
        meaning: "Two packets of one socket raced, and the kernel kept the loser's entry for one second only. An \
            answer that takes longer reaches the pod from an address it never asked, and is lost; insert_failed and \
            drop stay at zero.",
        remedy: DEPLOY,
        examine: |facts| {
            clashes(facts).filter(|_| strays(facts) > 0).and_then(|clashes| {
                let strays = strays(facts);
                let seen =
                    format!("clash_resolve grew by {clashes}, UDP NoPorts of node and pods by {strays}");
                symptom(Critical, seen + whose(facts))
            })
        },
    },
    Check {
        id: "conntrack-race",
        headline: "Packets of one socket race for conntrack entries",
        meaning: "The kernel resolves these clashes, but an answer that takes longer than a second is lost, without \
            any counter that says so.",
        remedy: DEPLOY,
        examine: |facts| {
            clashes(facts).filter(|_| strays(facts) == 0).and_then(|clashes| {
                symptom(Warning, format!("clash_resolve grew by {clashes}") + whose(facts))
            })
        },
    },
    Check {
        id: "snat-collision",
        headline: "Packets are dropped because two flows were given one source port",
        meaning: "Two pods sent to the same server from the same port, and MASQUERADE kept it for both: the kernel \
            drops the later one, and its sender waits for its timeout, 5 seconds with most resolvers.",
        remedy: "Masquerade with --random-fully (`doorstep remedy random-fully` shows and mends the rules), and let \
            pods ask a cache on the node.",
        examine: |facts| dropped(facts).filter(|_| !before(facts, (5, 6))),
    },
    Check {
        id: "race-drops",
        headline: "Queries are dropped in the conntrack race",
        meaning: "This kernel drops the later of two packets of one socket whenever they chose different kube-dns \
            pods: of A and AAAA one is lost, and the pod waits 5 seconds.",
        remedy: DEPLOY,
        examine: |facts| dropped(facts).filter(|_| before(facts, (5, 6))),
    },
    Check {
        id: "old-kernel",
        headline: "This kernel loses more of the races than later ones",
        meaning: "Before 5.6 a clash of two conntrack entries drops a packet. Before 6.5 softirq work that waits for \
            ksoftirqd lets even a resolver with one thread race against itself on a busy node. Nothing here exempts \
            pods' queries from tracking.",
        remedy: DEPLOY,
        examine: old_kernel,
    },
];

fn clashes(facts: &Facts) -> Option<u64> {
    Some(facts.growth(|sample| sample.conntrack?.clash_resolve)).filter(|&clashes| clashes > 0)
}

/// Clashes are counted for every flow, not for DNS alone.
fn whose(facts: &Facts) -> &'static str {
    match facts.is_protected() {
        true => "\nwhat pods are told to ask is exempt: these are of pods that ask elsewhere, or not of DNS",
        false => "",
    }
}

fn strays(facts: &Facts) -> u64 {
    facts.udp_growth(|udp| udp.no_ports)
}

fn dropped(facts: &Facts) -> Option<Symptom> {
    let failed = facts.growth(|sample| Some(sample.conntrack?.insert_failed));
    let drop = facts.growth(|sample| Some(sample.conntrack?.drop));
    if failed == 0 {
        return None;
    }
    symptom(Critical, format!("insert_failed grew by {failed}, drop by {drop}"))
}

fn before(facts: &Facts, version: (u32, u32)) -> bool {
    facts.kernel.as_ref().is_some_and(|kernel| kernel.version < version)
}

fn old_kernel(facts: &Facts) -> Option<Symptom> {
    // Cilium translates before conntrack sees the packet.
    let races = matches!(facts.kube_proxy(), Some(proxy) if proxy != KubeProxy::Cilium);
    if !races || facts.is_protected() {
        return None;
    }
    let release = &facts.kernel.as_ref()?.release;
    match (before(facts, (5, 6)), before(facts, (6, 5))) {
        (true, _) => symptom(Warning, format!("Linux {release}, older than 5.6")),
        (false, true) => symptom(Note, format!("Linux {release}, older than 6.5")),
        (false, false) => None,
    }
}
