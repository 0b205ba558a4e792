//! The settings in which pairs are sent.

use std::time::Duration;

use super::Cluster;
use super::kube_proxy::{Masquerade, ServiceRules, Shape};
use super::network::KUBE_DNS_PODS;
use super::race::{Expected, Origin, Subject};
use super::zone::{DUAL, DUAL_ADDRESSES, EXTERNAL, SLOW};

/// Longer than the second for which the kernel keeps the entry of whoever lost a clash.
const SLOW_ANSWER: Duration = Duration::from_millis(1200);
/// Some twelve pairs are under way at a time.
const SLOW_PACE: Duration = Duration::from_millis(100);
/// Slow pairs by each shape of the Service rules.
const SLOW_PAIRS: u64 = 20;
/// Below the ports that the kernel gives out.
const FIRST_SHARED_PORT: u16 = 20_000;
/// Shared ports by each shape.
const MOST_SHARED_PORTS: u64 = 6000;

/// Who asks, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// One thread sends both queries: no race on kernels since 6.5, and hardly one before.
    OneThread,
    /// Two threads send one each. Since 5.6 the kernel resolves the clash.
    TwoThreads,
    /// The same, for external names whose answers take 1.2 seconds: by then the loser's entry is gone.
    SlowAnswers,
    /// Two pods send one each from one source port, and everybody is masqueraded with the port they have.
    SharedPort,
}

impl Setting {
    /// In the order in which they are run and shown.
    pub const ALL: [Setting; 4] =
        [Setting::OneThread, Setting::TwoThreads, Setting::SlowAnswers, Setting::SharedPort];

    /// The key in JSON.
    pub fn key(self) -> &'static str {
        match self {
            Setting::OneThread => "one_thread",
            Setting::TwoThreads => "two_threads",
            Setting::SlowAnswers => "slow_answers",
            Setting::SharedPort => "snat",
        }
    }

    /// A title of two lines.
    pub(super) fn title(self) -> [&'static str; 2] {
        match self {
            Setting::OneThread => ["one thread asks,", "answers at once"],
            Setting::TwoThreads => ["two threads ask,", "answers at once"],
            Setting::SlowAnswers => ["two threads ask,", "answers in 1.2 s"],
            Setting::SharedPort => ["2 pods, one port,", "MASQUERADE"],
        }
    }

    /// Pairs by each shape of the Service rules when `pairs` were asked for in all.
    pub(super) fn pairs(self, pairs: u64) -> u64 {
        let half = pairs.div_ceil(2).max(1);
        match self {
            Setting::OneThread | Setting::TwoThreads => half,
            Setting::SlowAnswers => half.min(SLOW_PAIRS),
            Setting::SharedPort => half.min(MOST_SHARED_PORTS),
        }
    }

    pub(super) fn pace(self) -> Duration {
        if self == Setting::SlowAnswers { SLOW_PACE } else { Duration::ZERO }
    }

    /// `earlier`: pairs that this setting sent before.
    pub(super) fn origin(self, cluster: &Cluster, earlier: u64) -> Origin<'_> {
        match self {
            Setting::OneThread => Origin::OneThread(cluster.pod()),
            Setting::TwoThreads | Setting::SlowAnswers => Origin::TwoThreads(cluster.pod()),
            Setting::SharedPort => {
                Origin::OnePort([cluster.pod(), cluster.pod2()], FIRST_SHARED_PORT + earlier as u16)
            }
        }
    }

    /// Queries from one port collide only on the way to the same endpoint, so that setting has no other.
    pub(super) fn service_rules(self, shape: Shape) -> ServiceRules {
        match self {
            Setting::SharedPort => {
                ServiceRules { shape, endpoints: 1, masquerade: Masquerade::EveryoneKeepingPorts }
            }
            _ => ServiceRules { shape, endpoints: KUBE_DNS_PODS.len(), masquerade: Masquerade::NonPods },
        }
    }

    /// What the pair of this number, which no other pair of the run has, asks for: mostly a name that a
    /// cache has, now and then one that it cannot have, or one that does not exist.
    pub(super) fn subject(self, number: u64) -> Subject {
        let (name, expected) = match (self, number % 31) {
            (Setting::SlowAnswers, _) => {
                let delay = SLOW_ANSWER.as_millis();
                (format!("slow-{delay}.{number}.{EXTERNAL}"), Expected::Addresses(SLOW))
            }
            (_, 10) => (format!("slow-0.{number}.cluster.local."), Expected::Addresses(SLOW)),
            (_, 20) => (format!("nothing-{number}.default.svc.cluster.local."), Expected::NoSuchName),
            _ => (DUAL.to_owned(), Expected::Addresses(DUAL_ADDRESSES)),
        };
        Subject { name, expected }
    }
}
