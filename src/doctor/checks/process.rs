//! The cache itself, and who is in its way.

use std::net::IpAddr;

use super::super::facts::{Facts, Listener};
use super::super::gather::METRICS_PORTS;
use super::Severity::{self, Critical, Note, Warning};
use super::{Check, Symptom, some_lines, symptom};
use crate::node::rules::Protocol;

const VERSION: &str = env!("CARGO_PKG_VERSION");

pub const CHECKS: &[Check] = &[
    Check {
        id: "cache-absent",
        headline: "No cache serves on this node",
        meaning: "Pods' queries are translated and tracked one by one, and open to the races.",
        remedy: "Deploy Doorstep (deploy/node-local-dns.yaml).",
        examine: |facts| {
            let proxy = facts.kube_proxy().filter(|_| !facts.cache_runs())?;
            // Ports chosen at random are no cure for queries that are translated.
            if let Some(remedy) = facts.remedies.iter().find(|remedy| *remedy != "random-fully") {
                return symptom(Note, format!("doorstep remedy {remedy} runs instead"));
            }
            symptom(
                Warning,
                format!("kube-proxy ({}), no process of doorstep or node-cache, no socket", proxy.name()),
            )
        },
    },
    Check {
        id: "no-answer",
        headline: "The cache has a socket but does not answer",
        meaning: "Its process hangs or is stopped, or a firewall drops queries or answers: pods wait for their \
            timeout.",
        remedy: "See firewall-drops-dns and not-ready if they are here too; else read the cache's log and restart it.",
        examine: |facts| {
            some_lines(Critical, facts.silent.iter().map(|(address, what)| format!("{address}: {what}")))
        },
    },
    Check {
        id: "not-ready",
        headline: "The cache says that it is not well",
        meaning: "What /ready names is not up yet, or has failed; an endpoint that does not answer in 2 seconds \
            belongs to a process that hangs.",
        remedy: "Read its log. What stays pending for minutes is the fault: link, rules, a socket or an upstream.",
        examine: not_ready,
    },
    Check {
        id: "port-conflict",
        headline: "Another program has a port that the cache needs",
        meaning: "The cache cannot bind it; or, where both share it, part of the queries goes to the other program.",
        remedy: "Bind the other program to addresses of its own (dnsmasq: bind-interfaces; named: listen-on), or move \
            the cache's port: -dns.port, -metrics-listen-address, `health`, `prometheus`.",
        examine: port_conflict,
    },
    Check {
        id: "outdated-program",
        headline: "The cache that runs is not the one that is installed",
        meaning: "What was fixed or set in between is not in effect.",
        remedy: "Restart it.",
        examine: |facts| {
            let replaced = facts.caches.iter().filter(|cache| cache.outdated);
            let replaced = replaced.map(|cache| {
                format!("{} (process {}): its program file was replaced", cache.name, cache.pid)
            });
            let other = facts.version.iter().filter(|version| *version != VERSION);
            let other = other.map(|version| format!("doorstep {version} runs, this is {VERSION}"));
            some_lines(Note, replaced.chain(other))
        },
    },
    Check {
        id: "receive-buffer-full",
        headline: "UDP sockets of this node overflow",
        meaning: "Datagrams, queries perhaps among them, are dropped because their reader does not keep up.",
        remedy: "See which socket it is (`ss -ulmp`, d in skmem). For the cache: give it CPU (limits.cpu throttles), \
            add `multisocket` to its Corefile, or raise net.core.rmem_max.",
        examine: |facts| {
            let lost = facts.growth(|sample| Some(sample.udp?.receive_buffer_errors));
            if lost == 0 {
                return None;
            }
            symptom(Warning, format!("UDP RcvbufErrors grew by {lost}"))
        },
    },
];

fn not_ready(facts: &Facts) -> Option<Symptom> {
    let bad: Vec<(Severity, String)> = facts
        .answers
        .iter()
        .filter_map(|answer| match &answer.outcome {
            Ok((200, _)) => None,
            // It listens, and serves another thing there.
            Ok((404, _)) => None,
            Ok((code, body)) => Some((Warning, format!("{} answers {code}: {body}", answer.path))),
            Err(why) => Some((Critical, format!("{} does not answer: {why}", answer.path))),
        })
        .collect();
    let worst = bad.iter().map(|(severity, _)| *severity).max()?;
    some_lines(worst, bad.into_iter().map(|(_, line)| line))
}

fn port_conflict(facts: &Facts) -> Option<Symptom> {
    let wanted = &facts.wanted;
    let in_the_way = |listener: &&Listener| {
        let (port, takes_ours) = (listener.port, wanted.local_ips.iter().any(|&ip| listener.takes(ip)));
        let dns = port == wanted.dns_port && takes_ours;
        let http = listener.protocol == Protocol::Tcp
            && (port == wanted.health_port && takes_ours
                || METRICS_PORTS.contains(&port) && listener.takes(IpAddr::from([0, 0, 0, 0])));
        (dns || http) && listener.owner.is_some() && !facts.is_the_caches(listener)
    };
    let found: Vec<&Listener> = facts.listeners.iter().filter(in_the_way).collect();
    let worst = found.iter().map(|listener| severity(facts, listener)).max()?;
    some_lines(worst, found.iter().map(|listener| listener.describe()))
}

/// Bad where the cache runs and lacks the port because of it; on DNS's own port bad in any case.
fn severity(facts: &Facts, other: &Listener) -> Severity {
    let has_its_own = facts.listeners.iter().any(|listener| {
        (listener.port, listener.protocol) == (other.port, other.protocol) && facts.is_the_caches(listener)
    });
    match (other.port == facts.wanted.dns_port, facts.caches.is_empty(), has_its_own) {
        (true, false, false) => Critical,
        (true, ..) | (false, false, false) => Warning,
        (false, ..) => Note,
    }
}
