//! What one thread counts about the queries of one zone.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::label::{
    AnsweredBy, CacheType, Family, QTYPE_SLOTS, RCODES, Transport, qtype_label, qtype_slot, rcode_name,
};
use super::names;
use super::snapshot::{Snapshot, Value};

/// The labels all series of a shard carry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZoneLabels {
    /// `dns://169.254.20.10:53`.
    pub server: String,
    /// `cluster.local.`; `dropped` for queries that no zone takes.
    pub zone: String,
    /// Label `zones`: the zones of the cache, joined by `,`.
    pub cache_zones: String,
}

/// A number that one thread writes and any thread reads.
///
/// Load and store instead of a locked add: a third of the time, and no other writer to lose to.
#[derive(Debug, Default)]
struct Tally(AtomicU64);

impl Tally {
    #[inline(always)]
    fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A histogram of message sizes.
#[derive(Debug, Default)]
struct Sizes {
    counts: [Tally; names::SIZE_BUCKETS.len() + 1],
    sum: Tally,
}

impl Sizes {
    #[inline(always)]
    fn observe(&self, size: usize) {
        // `get`, because the compiler cannot see that a bucket is always in range.
        if let Some(count) = self.counts.get(size_bucket(size)) {
            count.add(1);
        }
        self.sum.add(size as u64);
    }

    fn value(&self) -> Option<Value> {
        histogram(&self.counts, self.sum.get() as f64)
    }
}

/// The buckets of small sizes, which are nearly all.
static SMALL_SIZES: [u8; 512] = {
    let mut buckets = [0; 512];
    let mut size = 0;
    while size < buckets.len() {
        let mut bucket = 0;
        while names::SIZE_BUCKETS[bucket] < size as f64 {
            bucket += 1;
        }
        buckets[size] = bucket as u8;
        size += 1;
    }
    buckets
};

/// The bucket of a message size.
#[inline(always)]
fn size_bucket(size: usize) -> usize {
    SMALL_SIZES.get(size).map_or_else(|| large_size_bucket(size), |bucket| usize::from(*bucket))
}

#[inline(never)]
fn large_size_bucket(size: usize) -> usize {
    names::SIZE_BUCKETS.partition_point(|bound| *bound < size as f64)
}

/// The bucket of a duration. The bounds double from 250 µs, so the bit length finds it; hits are below.
#[inline(always)]
fn duration_bucket(ns: u64) -> usize {
    if ns <= 250_000 {
        return 0;
    }
    let quarters = (ns - 1) / 250_000;
    let bit_length = (u64::BITS - quarters.leading_zeros()) as usize;
    bit_length.min(names::TIME_BUCKETS.len())
}

/// A value to show, unless nothing was ever observed.
fn histogram(counts: &[Tally], sum: f64) -> Option<Value> {
    let counts: Vec<u64> = counts.iter().map(Tally::get).collect();
    (counts.iter().any(|count| *count > 0)).then_some(Value::Histogram { counts, sum })
}

/// Counters and histograms of one zone, **written by one thread only**; a second writer loses counts.
///
/// Any thread may read. Aligned so that no line is shared with another thread's data; 128, because
/// CPUs fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ZoneShard {
    requests: [[[Tally; QTYPE_SLOTS]; 2]; 2],
    dnssec_ok: Tally,
    request_sizes: [Sizes; 2],
    /// By response code, the last row for all that have no row of their own.
    responses: [[Tally; AnsweredBy::COUNT]; RCODES + 1],
    response_sizes: [Sizes; 2],
    durations: [Tally; names::TIME_BUCKETS.len() + 1],
    duration_sum_ns: Tally,
    cache_hits: [Tally; 2],
    cache_misses: Tally,
    cache_prefetch: Tally,
    cache_drops: Tally,
    cache_served_stale: Tally,
    cache_evictions: [Tally; 2],
}

impl ZoneShard {
    /// A shard that no scrape sees, for server blocks without `prometheus`.
    pub fn detached() -> std::sync::Arc<ZoneShard> {
        std::sync::Arc::default()
    }

    /// Counts a query of `size` octets.
    #[inline(always)]
    pub fn request(&self, transport: Transport, family: Family, qtype: u16, size: usize, dnssec_ok: bool) {
        let by_type = &self.requests[transport as usize][family as usize];
        if let Some(requests) = by_type.get(qtype_slot(qtype)) {
            requests.add(1);
        }
        self.dnssec_ok.add(u64::from(dnssec_ok));
        self.request_sizes[transport as usize].observe(size);
    }

    /// Counts a reply of `size` octets that was sent `duration_ns` after its query came in; `rcode` is
    /// the extended response code.
    #[inline(always)]
    pub fn response(&self, transport: Transport, rcode: u16, by: AnsweredBy, size: usize, duration_ns: u64) {
        self.responses[usize::from(rcode).min(RCODES)][by as usize].add(1);
        self.response_sizes[transport as usize].observe(size);
        self.durations[duration_bucket(duration_ns)].add(1);
        self.duration_sum_ns.add(duration_ns);
    }

    /// Counts a look-up that found a usable answer, fresh or stale.
    #[inline(always)]
    pub fn cache_hit(&self, store: CacheType) {
        self.cache_hits[store as usize].add(1);
    }

    /// Counts a look-up that found none.
    #[inline]
    pub fn cache_miss(&self) {
        self.cache_misses.add(1);
    }

    /// Counts a refresh ahead of expiry.
    #[inline]
    pub fn cache_prefetch(&self) {
        self.cache_prefetch.add(1);
    }

    /// Counts an answer that was not cached because it does not match its question.
    #[inline]
    pub fn cache_drop(&self) {
        self.cache_drops.add(1);
    }

    /// Counts a reply made from an expired answer.
    #[inline]
    pub fn cache_served_stale(&self) {
        self.cache_served_stale.add(1);
    }

    /// Counts an answer thrown out to make room.
    #[inline]
    pub fn cache_eviction(&self, store: CacheType) {
        self.cache_evictions[store as usize].add(1);
    }

    /// Adds what was counted so far to a scrape. Series that never moved are left out.
    pub(super) fn collect(&self, labels: &ZoneLabels, into: &mut Snapshot) {
        self.collect_requests(labels, into);
        self.collect_responses(labels, into);
        self.collect_sizes(labels, into);
        self.collect_cache(labels, into);
    }

    fn collect_requests(&self, zone: &ZoneLabels, into: &mut Snapshot) {
        for transport in Transport::ALL {
            for family in Family::ALL {
                let by_type = &self.requests[transport as usize][family as usize];
                for (slot, count) in moved(by_type) {
                    let labels = [
                        &*zone.server,
                        &zone.zone,
                        VIEW,
                        transport.label(),
                        family.label(),
                        qtype_label(slot),
                    ];
                    into.number(names::DNS_REQUESTS.description(), &labels, count);
                }
            }
        }
        if self.dnssec_ok.get() > 0 {
            let labels = [&*zone.server, &zone.zone, VIEW];
            let count = self.dnssec_ok.get() as f64;
            into.number(names::DNS_DO_REQUESTS.description(), &labels, count);
        }
    }

    fn collect_responses(&self, zone: &ZoneLabels, into: &mut Snapshot) {
        for (rcode, by_plugin) in (0..).zip(&self.responses) {
            let name = match rcode {
                rcode if usize::from(rcode) < RCODES => rcode_name(rcode),
                _ => "other".into(),
            };
            for (by, count) in moved(by_plugin) {
                let labels = [&*zone.server, &zone.zone, VIEW, &name, AnsweredBy::LABELS[by]];
                into.number(names::DNS_RESPONSES.description(), &labels, count);
            }
        }
        let seconds = self.duration_sum_ns.get() as f64 / 1e9;
        if let Some(value) = histogram(&self.durations, seconds) {
            let labels = [&*zone.server, &zone.zone, VIEW];
            into.add(names::DNS_REQUEST_DURATION.description(), &labels, value);
        }
    }

    fn collect_sizes(&self, zone: &ZoneLabels, into: &mut Snapshot) {
        for transport in Transport::ALL {
            let labels = [&*zone.server, &zone.zone, VIEW, transport.label()];
            if let Some(value) = self.request_sizes[transport as usize].value() {
                into.add(names::DNS_REQUEST_SIZE.description(), &labels, value);
            }
            if let Some(value) = self.response_sizes[transport as usize].value() {
                into.add(names::DNS_RESPONSE_SIZE.description(), &labels, value);
            }
        }
    }

    fn collect_cache(&self, zone: &ZoneLabels, into: &mut Snapshot) {
        let mut found = 0;
        for store in CacheType::ALL {
            let labels = [&*zone.server, store.label(), &zone.cache_zones, VIEW];
            let hits = self.cache_hits[store as usize].get();
            let evictions = self.cache_evictions[store as usize].get();
            found += hits;
            for (family, count) in [(&names::CACHE_HITS, hits), (&names::CACHE_EVICTIONS, evictions)] {
                if count > 0 {
                    into.number(family.description(), &labels, count as f64);
                }
            }
        }
        let misses = self.cache_misses.get();
        let labels = [&*zone.server, &zone.cache_zones, VIEW];
        for (family, count) in [
            (&names::CACHE_REQUESTS, found + misses),
            (&names::CACHE_MISSES, misses),
            (&names::CACHE_PREFETCH, self.cache_prefetch.get()),
            (&names::CACHE_DROPS, self.cache_drops.get()),
            (&names::CACHE_SERVED_STALE, self.cache_served_stale.get()),
        ] {
            if count > 0 {
                into.number(family.description(), &labels, count as f64);
            }
        }
    }
}

/// There are no views; the label is there because dashboards match on it.
const VIEW: &str = "";

/// The slots that ever moved, with their counts.
fn moved(tallies: &[Tally]) -> impl Iterator<Item = (usize, f64)> {
    tallies
        .iter()
        .map(Tally::get)
        .enumerate()
        .filter(|(_, count)| *count > 0)
        .map(|(slot, count)| (slot, count as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_by_arithmetic_are_buckets_by_search() {
        for size in 0..=65_535 {
            assert_eq!(size_bucket(size), large_size_bucket(size), "{size} octets");
        }
        let edges = (0..18).map(|n| 250_000_u64 << n);
        for ns in edges.flat_map(|ns| [ns - 1, ns, ns + 1]).chain([0, 1, u64::MAX]) {
            let seconds = ns as f64 / 1e9;
            let searched = names::TIME_BUCKETS.partition_point(|bound| *bound < seconds);
            assert_eq!(duration_bucket(ns), searched, "{ns} ns");
        }
    }

    #[test]
    fn shards_share_no_cache_line() {
        assert_eq!(align_of::<ZoneShard>(), 128);
        assert!(size_of::<ZoneShard>() < 5 * 1024, "{}", size_of::<ZoneShard>());
    }
}
