//! One kept answer.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::clock::Moment;
use crate::wire::Answer;

/// An answer with the time it came and how long it is good for.
///
/// The counters are only written while `prefetch` or `serve_stale` ask for it; a plain hit reads.
#[derive(Debug)]
pub struct Entry {
    answer: Answer,
    stored: Moment,
    ttl: u32,
    /// Hits in a row, for `prefetch`.
    hits: AtomicU32,
    /// When the last of them was, in [`Moment`] milliseconds.
    last_hit: AtomicU64,
    /// Nobody starts a refresh before this [`Moment`].
    next_refresh: AtomicU64,
}

impl Entry {
    /// Keeps `answer` for `ttl` seconds.
    pub fn new(answer: Answer, ttl: u32, now: Moment) -> Entry {
        Entry {
            answer,
            stored: now,
            ttl,
            hits: AtomicU32::new(0),
            last_hit: AtomicU64::new(0),
            next_refresh: AtomicU64::new(0),
        }
    }

    /// The answer.
    #[inline]
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// TTL at the time of storing, seconds.
    #[inline]
    pub fn ttl(&self) -> u32 {
        self.ttl
    }

    /// Seconds left; 0 and below: expired for that long.
    #[inline]
    pub fn remaining(&self, now: Moment) -> i64 {
        i64::from(self.ttl) - (now.since(self.stored) / 1000) as i64
    }

    /// Counts a hit and says how many came without a gap longer than `gap_ms`.
    pub(super) fn hit(&self, now: Moment, gap_ms: u64) -> u32 {
        let idle = now.since(Moment(self.last_hit.load(Relaxed)));
        self.last_hit.store(now.0, Relaxed);
        let hits = if idle > gap_ms { 1 } else { self.hits.load(Relaxed).saturating_add(1) };
        self.hits.store(hits, Relaxed);
        hits
    }

    /// Takes over the popularity of the entry this one replaces.
    pub(super) fn inherit(&self, old: &Entry) {
        self.hits.store(old.hits.load(Relaxed), Relaxed);
        self.last_hit.store(old.last_hit.load(Relaxed), Relaxed);
    }

    /// Whether the caller shall refresh this entry now. One caller is told so every `lease_ms`: the
    /// refresh replaces the entry, and if it fails the lease runs out.
    pub(super) fn claim_refresh(&self, now: Moment, lease_ms: u64) -> bool {
        let due = self.next_refresh.load(Relaxed);
        now.0 >= due && self.next_refresh.compare_exchange(due, now.0 + lease_ms, Relaxed, Relaxed).is_ok()
    }
}
