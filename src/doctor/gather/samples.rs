//! What counts up, and conntrack's table.

use super::super::facts::{Conntrack, Entries, LiveRule, Pod, Sample, Udp, Wanted};
use super::{Host, Unread};
use crate::node::conntrack::counters;
use crate::node::rules::{Chain, Direction};

const STATISTICS: &str = "/proc/net/stat/nf_conntrack";
const XTABLES_LOCK: &str = "/run/xtables.lock";

/// One reading; `rules` as they were read just before.
pub fn sample(host: &dyn Host, pods: &[Pod], rules: &[LiveRule], unread: &mut Unread) -> Sample {
    let statistics = unread.take("conntrack's counters", host.text(STATISTICS));
    let pods = pods.iter().filter_map(|pod| Some((pod.pid, udp(host, &format!("/proc/{}/net", pod.pid))?)));
    let incoming =
        |live: &&LiveRule| (live.rule.chain, live.rule.direction) == (Chain::Prerouting, Direction::To);
    Sample {
        conntrack: statistics.and_then(|text| conntrack(host, &text)),
        udp: udp(host, "/proc/net"),
        pods: pods.collect(),
        spared: rules.iter().filter(incoming).map(|live| live.packets).sum(),
        lock_holder: lock_holder(host),
    }
}

fn conntrack(host: &dyn Host, text: &str) -> Option<Conntrack> {
    let counters = counters(text)?;
    let sum = |name: &str| counters.get(name).copied();
    let setting = |name: &str| {
        let text = host.text(&format!("/proc/sys/net/netfilter/{name}")).ok()?;
        text.trim().parse().ok()
    };
    Some(Conntrack {
        clash_resolve: sum("clashres"),
        insert_failed: sum("insert_failed")?,
        drop: sum("drop")?,
        early_drop: sum("early_drop")?,
        count: setting("nf_conntrack_count").unwrap_or(0),
        max: setting("nf_conntrack_max").unwrap_or(0),
    })
}

/// UDP's counters of both families below `directory`.
fn udp(host: &dyn Host, directory: &str) -> Option<Udp> {
    let v4 = host.text(&format!("{directory}/snmp")).ok()?;
    let v6 = host.text(&format!("{directory}/snmp6")).unwrap_or_default();
    let mut lines = v4.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let count = |name: &str| -> u64 {
        let mut pairs = names.split(' ').zip(values.split(' '));
        let first = pairs.find(|(known, _)| *known == name).and_then(|(_, value)| value.parse().ok());
        let second =
            v6.lines().find_map(|line| line.strip_prefix("Udp6")?.strip_prefix(name)?.trim().parse().ok());
        first.unwrap_or(0) + second.unwrap_or(0_u64)
    };
    Some(Udp {
        no_ports: count("NoPorts"),
        receive_buffer_errors: count("RcvbufErrors"),
        checksum_errors: count("InCsumErrors"),
    })
}

/// Who holds the xtables lock, from the kernel's list of locks: to try it would be to take it.
fn lock_holder(host: &dyn Host) -> Option<u32> {
    let id = host.file_id(XTABLES_LOCK).ok()?;
    let locks = host.text("/proc/locks").ok()?;
    // `1: FLOCK  ADVISORY  WRITE 17489 fe:00:6627483 0 EOF`; one that waits has an arrow before its kind.
    let holder = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let held = words.get(1) == Some(&"FLOCK") && words.get(5) == Some(&id.as_str());
        if held { words.get(4)?.parse().ok() } else { None }
    };
    locks.lines().find_map(holder)
}

/// Counts the table's entries, where the kernel lists them as text.
pub fn entries(host: &dyn Host, wanted: &Wanted, unread: &mut Unread) -> Option<Entries> {
    let mut entries = Entries::default();
    let outcome = host.lines("/proc/net/nf_conntrack", &mut |line| {
        entries.all += 1;
        // The first dst and dport are the original direction's.
        let mut words = line.split_whitespace();
        let destination = words.find_map(|word| word.strip_prefix("dst="));
        if words.find_map(|word| word.strip_prefix("dport=")) != Some("53") {
            return;
        }
        entries.dns += 1;
        let destination = destination.and_then(|address| address.parse().ok());
        entries.local += u64::from(destination.is_some_and(|address| wanted.local_ips.contains(&address)));
    });
    unread.take("the conntrack table", outcome).map(|()| entries)
}
