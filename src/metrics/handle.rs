//! Metrics that any thread may write: atomics behind an `Arc`.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::names::{Description, Kind};
use super::snapshot::Value;

/// A number that only grows.
///
/// Aligned to a cache line so that two counters with different writers never share one.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A whole number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Replaces the value.
    #[inline]
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// Adds `n`, which may be negative.
    #[inline]
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// Durations counted by bucket.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One per bound and one for `+Inf`; not cumulative.
    counts: Box<[AtomicU64]>,
    sum_ns: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(ns, Relaxed);
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Relaxed)).sum()
    }
}

/// What the registry can make and read; implemented by the three handles only.
pub trait Handle: Send + Sync + 'static {
    /// A fresh one for a series of this family.
    fn create(family: &Description) -> Self;
    /// What a scrape shows.
    fn value(&self) -> Value;
}

impl Handle for Counter {
    fn create(_: &Description) -> Counter {
        Counter::default()
    }

    fn value(&self) -> Value {
        Value::Number(self.get() as f64)
    }
}

impl Handle for Gauge {
    fn create(_: &Description) -> Gauge {
        Gauge::default()
    }

    fn value(&self) -> Value {
        Value::Number(self.get() as f64)
    }
}

impl Handle for Histogram {
    fn create(family: &Description) -> Histogram {
        let bounds = match family.kind {
            Kind::Histogram(bounds) => bounds,
            Kind::Counter | Kind::Gauge => &[],
        };
        Histogram {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum_ns: AtomicU64::new(0),
        }
    }

    fn value(&self) -> Value {
        Value::Histogram {
            counts: self.counts.iter().map(|count| count.load(Relaxed)).collect(),
            sum: self.sum_ns.load(Relaxed) as f64 / 1e9,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::names;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::create(names::HEALTH_REQUEST_DURATION.description());
        for us in [0, 250, 251, 2_500_000, 2_500_001] {
            histogram.observe(Duration::from_micros(us));
        }
        let Value::Histogram { counts, sum } = histogram.value() else {
            panic!("not a histogram");
        };
        assert_eq!(counts, [2, 1, 0, 0, 1, 1]);
        assert!((sum - 5.000_502).abs() < 1e-9, "{sum}");
        assert_eq!(histogram.count(), 5);
    }
}
