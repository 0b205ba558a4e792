//! Whom pods ask, as kubelet and their files say.

use std::net::IpAddr;

use super::super::facts::{Facts, Pod};
use super::Severity::{Note, Warning};
use super::{Check, some_lines, symptom};
use crate::node::rules::Protocol;

/// What kubelet writes.
const NDOTS: u32 = 5;

pub const CHECKS: &[Check] = &[
    Check {
        id: "kubelet-asks-elsewhere",
        headline: "kubelet sends pods to another DNS server than the cache",
        meaning: "Pods that kubelet starts do not use the cache.",
        remedy: "Set clusterDNS in kubelet's configuration to the cache's address, or serve the ClusterIP that it \
            names: -localip 169.254.20.10,CLUSTERIP.",
        examine: |facts| {
            if facts.cluster_dns.is_empty() || !facts.cache_runs() || served(facts, &facts.cluster_dns) {
                return None;
            }
            let (told, ours) = (list(&facts.cluster_dns), list(&facts.wanted.local_ips));
            symptom(Warning, format!("clusterDNS is {told}; the cache serves {ours}"))
        },
    },
    Check {
        id: "pods-ask-elsewhere",
        headline: "Pods ask another DNS server than the cache",
        meaning: "Their resolv.conf is from before the cache, or set by hand; it changes only with the pod.",
        remedy: "Restart these pods, or serve the address that they ask as well.",
        examine: |facts| {
            // That kubelet does so is a finding of its own.
            if !facts.cache_runs() || !facts.cluster_dns.is_empty() && !served(facts, &facts.cluster_dns) {
                return None;
            }
            let elsewhere = |pod: &&Pod| !served(facts, &pod.resolv_conf.servers);
            let line =
                |pod: &Pod| format!("process {}: nameserver {}", pod.pid, list(&pod.resolv_conf.servers));
            some_lines(Note, facts.pods.iter().filter(elsewhere).map(line))
        },
    },
    Check {
        id: "pods-ndots",
        headline: "Pods try search domains even for names with many dots",
        meaning: "Every name with fewer dots than ndots is first asked for with each search domain behind it.",
        remedy: "Set dnsConfig.options ndots to 5 or less, 1 or 2 where services are named in full.",
        examine: |facts| {
            let many =
                facts.pods.iter().filter(|pod| pod.resolv_conf.ndots.is_some_and(|ndots| ndots > NDOTS));
            let line = |pod: &Pod| {
                format!("process {}: ndots {}", pod.pid, pod.resolv_conf.ndots.unwrap_or_default())
            };
            some_lines(Note, many.map(line))
        },
    },
    Check {
        id: "resolv-conf-loop",
        headline: "The node's resolv.conf names the cache, which asks resolv.conf's servers",
        meaning: "`forward . /etc/resolv.conf` sends the cache's questions to itself.",
        remedy: "Name the network's own resolvers in the file that the cache reads, or in `forward`.",
        examine: |facts| {
            let own =
                facts.resolv_conf.servers.iter().filter(|server| facts.wanted.local_ips.contains(server));
            some_lines(Warning, own.map(|server| format!("/etc/resolv.conf: nameserver {server}")))
        },
    },
];

/// Whether DNS to one of these is heard on this node.
fn served(facts: &Facts, servers: &[IpAddr]) -> bool {
    servers.iter().any(|&server| facts.is_heard(server, Protocol::Udp))
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
