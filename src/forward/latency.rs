//! How long an upstream usually takes, and how long to wait before asking twice.

use std::cell::Cell;
use std::time::Duration;

/// No second attempt starts sooner: a cluster's DNS answers in well under a millisecond, so whoever
/// is silent for this long is likely gone, and a pod can bear it.
pub(super) const MIN_PATIENCE: Duration = Duration::from_millis(100);
/// A second attempt does not wait longer.
const MAX_PATIENCE: Duration = Duration::from_secs(1);

/// An estimate is old when nothing was answered for this long.
const OLD: Duration = Duration::from_secs(5);
/// With an old estimate, a second attempt does not wait longer: connections may have died meanwhile.
const OLD_PATIENCE: Duration = Duration::from_millis(150);

/// A running estimate of the 95th percentile of one upstream's answer times.
///
/// Each sample above the estimate raises it by a twentieth, each one below lowers it by a 380th: it
/// rests where one sample in twenty is above. No history is kept.
pub(super) struct Latency {
    /// Microseconds.
    p95: Cell<u64>,
}

impl Latency {
    const RAISE: u64 = 20;
    const LOWER: u64 = 380;
    const FLOOR: u64 = 1_000;
    const CEILING: u64 = 1_000_000;

    pub(super) fn new() -> Latency {
        Latency { p95: Cell::new(50_000) }
    }

    /// Takes an answer time into account.
    pub(super) fn observe(&self, elapsed: Duration) {
        let p95 = self.p95.get();
        let moved = if elapsed.as_micros() > u128::from(p95) {
            p95 + p95 / Self::RAISE
        } else {
            p95 - p95 / Self::LOWER
        };
        self.p95.set(moved.clamp(Self::FLOOR, Self::CEILING));
    }

    /// How long to wait for an answer before a second attempt starts: twice the 95th percentile,
    /// so that an upstream in its usual shape is hardly ever asked twice. `idle` is how long nothing
    /// was answered.
    pub(super) fn patience(&self, idle: Duration) -> Duration {
        let most = if idle < OLD { MAX_PATIENCE } else { OLD_PATIENCE };
        Duration::from_micros(2 * self.p95.get()).clamp(MIN_PATIENCE, most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_settles_at_the_95th_percentile() {
        let latency = Latency::new();
        for sample in 0..20_000_u64 {
            // 1 ms .. 100 ms, evenly, in a scattered order.
            latency.observe(Duration::from_millis(1 + sample * 37 % 100));
        }
        let p95 = latency.p95.get();
        assert!((85_000..105_000).contains(&p95), "{p95} µs");
    }

    #[test]
    fn patience_has_bounds() {
        let latency = Latency::new();
        for _ in 0..5000 {
            latency.observe(Duration::from_micros(300));
        }
        assert_eq!(latency.patience(Duration::ZERO), MIN_PATIENCE);
        for _ in 0..5000 {
            latency.observe(Duration::from_secs(3));
        }
        assert_eq!(latency.patience(Duration::ZERO), MAX_PATIENCE);
        assert_eq!(latency.patience(OLD), OLD_PATIENCE);
    }
}
