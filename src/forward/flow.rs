//! Whether an upstream's answers come so fast that queries had better share a connection.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// Answers are counted over this long; a thread that rests under load reads a few times in it.
const WINDOW: Duration = Duration::from_millis(8);
/// So many in a window are fast: a thousand a second. With fewer, a query hardly ever meets another one, and has
/// nothing to gain by going behind it.
const FAST: u32 = 8;

/// See the [module](self).
#[derive(Default)]
pub(super) struct Flow {
    /// When the window began.
    began: Cell<Option<Instant>>,
    /// Answers since then.
    count: Cell<u32>,
    /// Answers in the window before.
    before: Cell<u32>,
}

impl Flow {
    /// An answer came.
    pub(super) fn answered(&self, now: Instant) {
        let age = self.began.get().map(|began| now - began);
        if age.is_none_or(|age| age >= WINDOW) {
            // A window that nobody closed in time was a quiet one.
            self.before.set(if self.is_recent(now) { self.count.get() } else { 0 });
            self.count.set(0);
            self.began.set(Some(now));
        }
        self.count.set(self.count.get() + 1);
    }

    /// Whether answers come fast.
    pub(super) fn is_fast(&self, now: Instant) -> bool {
        self.before.get() >= FAST && self.is_recent(now)
    }

    fn is_recent(&self, now: Instant) -> bool {
        self.began.get().is_some_and(|began| now < began + 2 * WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it is fast at the end of a second in which `together` answers come every `pause`.
    fn is_fast_after(together: u32, pause: Duration) -> bool {
        let (flow, start) = (Flow::default(), Instant::now());
        let mut now = start;
        while now < start + Duration::from_secs(1) {
            (0..together).for_each(|_| flow.answered(now));
            now += pause;
        }
        flow.is_fast(now)
    }

    #[test]
    fn a_thousand_a_second_are_fast() {
        assert!(is_fast_after(1, Duration::from_micros(900)));
        assert!(is_fast_after(16, Duration::from_millis(2)));
        assert!(!is_fast_after(1, Duration::from_micros(1200)));
        assert!(!is_fast_after(1, Duration::from_millis(5)));
    }

    #[test]
    fn a_burst_is_not_and_its_end_is_noticed() {
        let (flow, start) = (Flow::default(), Instant::now());
        assert!(!flow.is_fast(start));
        (0..100).for_each(|_| flow.answered(start));
        assert!(!flow.is_fast(start), "it may be over");
        flow.answered(start + WINDOW);
        assert!(flow.is_fast(start + WINDOW));
        assert!(!flow.is_fast(start + 3 * WINDOW));
        flow.answered(start + 100 * WINDOW);
        assert!(!flow.is_fast(start + 100 * WINDOW));
    }
}
