//! Pressure on conntrack's table.

use super::super::facts::Facts;
use super::Severity::{Critical, Note, Warning};
use super::{Check, Symptom, symptom};

/// Entries below which DNS's share does not matter.
const MANY: u64 = 1000;

pub const CHECKS: &[Check] = &[
    Check {
        id: "conntrack-full",
        headline: "The conntrack table is full, or nearly so",
        meaning: "A full table drops new flows of every kind, and tears old ones down before their time.",
        remedy: "Raise net.netfilter.nf_conntrack_max (kube-proxy's --conntrack-max-per-core). A query to kube-dns \
            costs an entry a socket for 30 seconds or more: with a cache on the node it costs none.",
        examine: full,
    },
    Check {
        id: "conntrack-dns",
        headline: "DNS takes much of the conntrack table",
        meaning: "Each socket that asks kube-dns leaves an entry for 30 to 120 seconds.",
        remedy: "Let pods ask a cache on the node whose address is exempt from tracking: deploy Doorstep.",
        examine: |facts| {
            let entries = facts.entries?;
            let much = entries.dns >= MANY && entries.dns * 4 >= entries.all;
            if much { symptom(Note, share(facts)) } else { None }
        },
    },
];

fn full(facts: &Facts) -> Option<Symptom> {
    let table = facts.conntrack()?;
    let early = facts.growth(|sample| Some(sample.conntrack?.early_drop));
    let percent = (table.count * 100).checked_div(table.max).unwrap_or(0);
    let severity = match percent {
        _ if early > 0 => Critical,
        95.. => Critical,
        80.. => Warning,
        _ => return None,
    };
    let (count, max) = (table.count, table.max);
    symptom(severity, format!("{count} of {max} entries, early_drop grew by {early}; {}", share(facts)))
}

fn share(facts: &Facts) -> String {
    match facts.entries {
        Some(entries) => format!("{} of {} entries are for port 53", entries.dns, entries.all),
        None => "the share of port 53 could not be read".to_owned(),
    }
}
