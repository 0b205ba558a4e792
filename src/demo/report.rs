//! What the tour saw, and whether it is what should be seen.

use std::fmt;

use hickory_proto::op::ResponseCode;

use super::{Lookup, NotrackRules, QueryCounts};

/// One tour through the cluster. All lookups are the pod's, for one name.
#[derive(Debug, Clone)]
pub struct Report {
    /// At the ClusterIP, before the cache runs.
    pub direct: Lookup,
    /// Conntrack entries that `direct` left.
    pub direct_entries: usize,
    /// First lookup at the link-local address.
    pub miss: Lookup,
    /// Queries that reached kube-dns because of `miss`.
    pub upstream_of_miss: QueryCounts,
    /// The same again, more than a second later.
    pub hit: Lookup,
    /// The same over TCP.
    pub tcp: Lookup,
    /// The same at the ClusterIP, which the cache now serves too.
    pub vip: Lookup,
    /// Queries that reached kube-dns because of `hit`, `tcp` and `vip`.
    pub upstream_of_hits: QueryCounts,
    /// Conntrack entries that `miss`, `hit`, `tcp` and `vip` left.
    pub pod_entries: usize,
    /// Conntrack entries of the cache's own connections to kube-dns.
    pub upstream_entries: usize,
    /// The rules that spared the tracking, with all packets since they exist.
    pub notrack: NotrackRules,
}

impl Report {
    /// Every expectation that was not met, as a sentence. Empty: all is well.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let mut expect = |met: bool, failure: String| {
            if !met {
                failures.push(failure);
            }
        };
        for lookup in [&self.direct, &self.miss, &self.hit, &self.tcp, &self.vip] {
            expect(
                lookup.code() == ResponseCode::NoError,
                format!("{} answered {}", lookup.server, lookup.code()),
            );
            expect(
                lookup.addresses() == self.direct.addresses(),
                format!("{} gave another address than kube-dns", lookup.server),
            );
        }
        expect(
            self.direct_entries > 0,
            "the lookup at the ClusterIP left no conntrack entry: this kernel tracks nothing".into(),
        );
        expect(
            self.upstream_of_miss.udp == 0 && self.upstream_of_miss.tcp > 0,
            format!("the miss reached kube-dns as {}", self.upstream_of_miss),
        );
        expect(
            self.upstream_of_hits == QueryCounts::default(),
            format!("repeated lookups reached kube-dns: {}", self.upstream_of_hits),
        );
        expect(self.hit.ttl() < self.miss.ttl(), "the TTL did not count down in the cache".into());
        expect(
            self.pod_entries == 0,
            format!("the pod's queries left {} conntrack entries", self.pod_entries),
        );
        failures
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cached = |lookup: &Lookup| lookup.server.ip().to_string();
        writeln!(f, "Without a cache on the node, the pod asks kube-dns:")?;
        line(f, &format!("lookup at {}", self.direct.server.ip()), &self.direct)?;
        line(f, "conntrack entries it left", &self.direct_entries)?;
        writeln!(f)?;
        writeln!(f, "With doorstep on the node:")?;
        line(f, &format!("first lookup at {}", cached(&self.miss)), &self.miss)?;
        line(f, "which kube-dns saw as", &self.upstream_of_miss)?;
        line(f, "again, from the cache", &self.hit)?;
        line(f, "again, over TCP", &self.tcp)?;
        line(f, &format!("again, at {}", cached(&self.vip)), &self.vip)?;
        line(f, "which kube-dns saw as", &self.upstream_of_hits)?;
        line(f, "conntrack entries of all four", &self.pod_entries)?;
        line(f, "conntrack entries of doorstep's own", &self.upstream_entries)?;
        line(f, "kept out of conntrack by", &self.notrack)?;
        writeln!(f)?;
        match self.failures().as_slice() {
            [] => writeln!(f, "All as it should be."),
            failures => failures.iter().try_for_each(|failure| writeln!(f, "FAILED: {failure}.")),
        }
    }
}

fn line(f: &mut fmt::Formatter<'_>, label: &str, value: &dyn fmt::Display) -> fmt::Result {
    writeln!(f, "  {label:<37}{value}")
}

impl fmt::Display for QueryCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} over TCP, {} over UDP", self.tcp, self.udp)
    }
}

impl fmt::Display for NotrackRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.rules, self.packets) {
            // iptables-legacy rules are not in nf_tables.
            (0, _) => write!(f, "no rule in nf_tables"),
            (rules, Some(packets)) => write!(f, "{rules} rules, {packets} packets so far"),
            (rules, None) => write!(f, "{rules} rules, without counters"),
        }
    }
}
