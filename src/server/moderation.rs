//! Rest between turns while misses come fast, as network cards hold interrupts back under load.
//!
//! A turn of the thread that asks upstreams costs a wake-up, a read and a write per connection,
//! however little there is to do. Sleeping a moment before it waits again lets one turn serve
//! several misses. While they are few nobody sleeps.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Misses are counted over this long, nanoseconds.
const WINDOW: u64 = 4_000_000;
/// So many in a window are a load: 2 000 a second.
const LOAD: u64 = 8;
/// The sleep. The kernel adds its timer slack, 50 µs.
const REST: Duration = Duration::from_micros(150);

/// Tells when to rest. Any thread may hold it; one counts and rests.
#[derive(Debug, Default)]
pub struct Moderation {
    /// When the window began, nanoseconds on the monotonic clock.
    began: AtomicU64,
    /// Misses since then.
    count: AtomicU64,
    /// Of the window before.
    before: AtomicU64,
}

impl Moderation {
    /// Counts `misses` that came together.
    pub fn count(&self, misses: usize) {
        self.count.fetch_add(misses as u64, Relaxed);
    }

    /// How long to sleep before waiting for more, at `now`, nanoseconds on the monotonic clock.
    pub fn rest(&self, now: u64) -> Option<Duration> {
        let elapsed = now.saturating_sub(self.began.load(Relaxed));
        if elapsed >= WINDOW {
            // A window that nobody closed in time was a quiet one.
            let count = self.count.swap(0, Relaxed);
            self.before.store(if elapsed < 2 * WINDOW { count } else { 0 }, Relaxed);
            self.began.store(now, Relaxed);
        }
        (self.before.load(Relaxed) >= LOAD).then_some(REST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_lone_miss_is_never_held_back() {
        let moderation = Moderation::default();
        for second in 1..100 {
            moderation.count(1);
            assert_eq!(moderation.rest(second * 1000 * MS), None);
        }
    }

    #[test]
    fn a_load_is_and_its_end_is_noticed() {
        let moderation = Moderation::default();
        let mut now = 1000 * MS;
        let mut rests = 0;
        for _ in 0..100 {
            now += MS;
            moderation.count(8);
            rests += u32::from(moderation.rest(now).is_some());
        }
        assert!(rests > 90, "{rests}");
        moderation.count(1);
        assert_eq!(moderation.rest(now + 1000 * MS), None);
    }
}
