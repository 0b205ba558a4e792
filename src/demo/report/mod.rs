//! What the demonstration measured, and whether it is what should be.

mod json;
mod table;

use std::time::Duration;

use super::race::Tally;
use super::{Setting, Statistics};

/// One run of the demonstration. It prints as a table of 92 columns.
#[derive(Debug, Clone)]
pub struct Report {
    /// Straight to the ClusterIP, without a cache on the node.
    pub direct: Side,
    /// Through the cache, at the ClusterIP and the link-local address in turn.
    pub doorstep: Side,
    /// Where it was.
    pub configuration: Configuration,
}

/// One way to kube-dns.
#[derive(Debug, Clone)]
pub struct Side {
    /// One for each of [`Setting::ALL`], in that order.
    pub measurements: Vec<Measurement>,
}

/// One setting, one way.
#[derive(Debug, Clone)]
pub struct Measurement {
    /// Which.
    pub setting: Setting,
    /// What became of the queries, with Service rules of the iptables shape and of the nftables shape.
    pub tallies: [Tally; 2],
    /// What conntrack on the node counted.
    pub statistics: Statistics,
    /// Conntrack entries of the pods with port 53 at one end, afterwards.
    pub entries: usize,
    /// Processor time of everybody: the pods, the kernel under them, kube-dns and the cache. Measured only
    /// where nobody spins.
    pub processor_time: Option<Duration>,
}

/// The machine, and what was built on it.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// `uname -r`.
    pub kernel: String,
    /// Processors that the process may use.
    pub processors: u64,
    /// Whether two threads can send at the same instant.
    pub can_race: bool,
    /// Addresses behind each ClusterIP.
    pub kube_dns_endpoints: u64,
}

impl Measurement {
    /// Both shapes together.
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        self.tallies.iter().for_each(|tally| total.add(tally));
        total
    }

    /// Microseconds for each query.
    pub fn processor_time_per_query(&self) -> Option<f64> {
        let queries: u64 = self.tallies.iter().map(|tally| tally.queries).sum();
        let spent = self.processor_time?.as_secs_f64() * 1e6;
        // Tenths are as far as it goes.
        Some((spent / queries.max(1) as f64 * 10.0).round() / 10.0)
    }
}

impl Side {
    /// All settings together.
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        self.measurements.iter().for_each(|measurement| total.add(&measurement.total()));
        total
    }

    /// The measurement of one setting.
    pub fn of(&self, setting: Setting) -> Option<&Measurement> {
        self.measurements.iter().find(|measurement| measurement.setting == setting)
    }

    fn sum(&self, of: impl Fn(&Measurement) -> u64) -> u64 {
        self.measurements.iter().map(of).sum()
    }

    /// Conntrack entries left by the pods' queries.
    pub fn entries(&self) -> u64 {
        self.sum(|measurement| measurement.entries as u64)
    }

    /// Clashes that the kernel resolved.
    pub fn clashes(&self) -> u64 {
        self.sum(|measurement| measurement.statistics.clash_resolve.unwrap_or(0))
    }

    /// Packets dropped for want of an entry.
    pub fn insert_failed(&self) -> u64 {
        self.sum(|measurement| measurement.statistics.insert_failed)
    }
}

impl Report {
    /// Everything that must not be, as sentences. Empty: all is well. What is lost without the cache is no
    /// failure, nor is it one if this kernel lost nothing.
    pub fn failures(&self) -> Vec<String> {
        let (total, side) = (self.doorstep.total(), &self.doorstep);
        let of = total.queries;
        let mut failures = Vec::new();
        for (count, failure) in [
            (total.lost, format!("of {of} queries through Doorstep {} were lost", total.lost)),
            (total.wrong, format!("{} were answered wrongly", total.wrong)),
            (side.clashes(), format!("Doorstep's pods raced for {} conntrack entries", side.clashes())),
            (side.insert_failed(), format!("conntrack dropped {} of them", side.insert_failed())),
            (side.entries(), format!("they left {} conntrack entries", side.entries())),
        ] {
            if count > 0 {
                failures.push(failure);
            }
        }
        if self.direct.entries() == 0 {
            failures.push("the direct way left no conntrack entry: nothing is tracked here".into());
        }
        failures
    }

    /// What the figures say, in one sentence or two.
    pub fn in_plain_words(&self) -> String {
        let (direct, doorstep) = (self.direct.total(), self.doorstep.total());
        if !self.failures().is_empty() {
            return format!("FAILED: {}.", self.failures().join("; "));
        }
        let clean =
            format!("through Doorstep none of {} was, and conntrack had nothing to do", doorstep.queries);
        let lost = |setting| self.direct.of(setting).map_or(0, |measurement| measurement.total().lost);
        match direct.lost {
            0 if !self.configuration.can_race => {
                "With one processor nothing races, so nothing was lost on either way.".into()
            }
            0 => format!("Nothing was lost without a cache this time (try more --pairs); {clean}."),
            all => format!(
                "Without a cache {all} of {} queries were lost, {} of them to slow answers and {} to a shared port, \
                 each a wait of 5 seconds; {clean}.",
                direct.queries,
                lost(Setting::SlowAnswers),
                lost(Setting::SharedPort),
            ),
        }
    }
}
