//! The pace of a pool's connects.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use tokio::time::Instant;

use super::super::error::{Failure, Reason};
use super::Unconnected;

pub(super) const MIN_CONNECT: Duration = Duration::from_millis(300);
pub(super) const MAX_CONNECT: Duration = Duration::from_secs(1);
pub(super) const MIN_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_millis(250);

/// How long a connect may take, and how soon after a failed one the next may start.
pub(super) struct Pace {
    /// Moving average of connect times.
    average: Cell<Duration>,
    /// Failed in a row.
    failures: Cell<u32>,
    last: RefCell<Option<Unconnected>>,
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace { average: Cell::new(MIN_CONNECT / 2), failures: Cell::new(0), last: RefCell::new(None) }
    }

    /// Twice the average, within bounds: CoreDNS's rule with bounds a pod can bear. The kernel
    /// repeats a lost SYN after a second; a connect anew is sooner and may meet another backend.
    pub(super) fn patience(&self) -> Duration {
        (self.average.get() * 2).clamp(MIN_CONNECT, MAX_CONNECT)
    }

    /// The last failure, while it is too soon for another attempt.
    pub(super) fn refusal(&self, now: Instant) -> Option<Unconnected> {
        self.last.borrow().clone().filter(|last| now < last.retry_at)
    }

    pub(super) fn succeeded(&self, elapsed: Duration) {
        self.observe(elapsed);
        self.failures.set(0);
        self.last.replace(None);
    }

    pub(super) fn failed(&self, failure: Failure, now: Instant) -> Unconnected {
        if failure.reason == Reason::Timeout {
            // It may only be far away: allow more next time.
            self.observe(self.patience() * 2);
        }
        let doublings = self.failures.get().min(8);
        self.failures.set(doublings + 1);
        let unconnected =
            Unconnected { failure, retry_at: now + (MIN_PAUSE * (1 << doublings)).min(MAX_PAUSE) };
        self.last.replace(Some(unconnected.clone()));
        unconnected
    }

    fn observe(&self, sample: Duration) {
        let sample = sample.min(MAX_CONNECT);
        self.average.set((self.average.get() * 3 + sample) / 4);
    }
}
