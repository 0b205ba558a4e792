//! Answers kept as wire bytes (the semantics of CoreDNS's `cache`).
//!
//! ```text
//! insert   policy::judge ─► success store   an answer here removes the denial of the same key,
//!                       └─► denial store    and a denial the answer; a failure removes nothing
//! get      success, then denial ─► Fresh | Stale | Miss
//! ```
//!
//! So a failure, or a reply that says nothing, never displaces an answer or a denial that may still be
//! served (CoreDNS keeps answers so from 1.14.4 on), while between an answer and a real denial the newer
//! one stands.

mod config;
mod eviction;
mod policy;
mod region;
mod table;
#[cfg(test)]
mod tests;

use std::io;

pub use config::{Config, Prefetch, ServeStale, StaleMode, StoreConfig};
use policy::Facts;
pub use policy::Store;

use crate::clock::Moment;
use crate::wire::{Answer, Flags, HEADER, Key, Kind, Lifetime, Outline};
use table::{Draft, Found, Table};

/// How long one refresh of an entry keeps others from being started, milliseconds: a little more
/// than an upstream exchange may take.
const REFRESH_LEASE_MS: u64 = 5_000;
/// How long after a failure the upstream is not asked again for an answer that can still be served
/// (the failure recheck timer of RFC 8767 §5), milliseconds: as long as a failure itself is kept.
const RECHECK_MS: u64 = 1_000 * Config::SERVFAIL_TTL as u64;

/// The cache of one server block.
pub struct Cache {
    config: Config,
    success: Table,
    denial: Table,
}

/// What [`Cache::insert`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Insertion {
    /// Where the answer is kept; `None`: nowhere.
    pub store: Option<Store>,
    /// The TTL that this and every later reply shows, seconds.
    pub ttl: u32,
    /// Entries of that store which had to make room.
    pub evicted: u64,
}

/// What [`Cache::get`] found. The answer's octets then stand at the front of the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// A live answer, to be shown with this TTL; `refresh`: it is popular and about to expire, and it
    /// is the caller's to ask the upstream again.
    Fresh {
        /// Of the answer.
        outline: Outline,
        /// Seconds to show.
        ttl: u32,
        /// Where it was.
        store: Store,
        /// Whether the caller refreshes it.
        refresh: bool,
    },
    /// An expired answer within its stale window, to be used as [`ServeStale`] says, or at once if the
    /// upstream has just failed; `refresh` as above.
    Stale {
        /// Of the answer.
        outline: Outline,
        /// Where it was.
        store: Store,
        /// What to do with it.
        mode: StaleMode,
        /// Whether the caller refreshes it.
        refresh: bool,
    },
    /// Nothing.
    Miss,
}

impl Cache {
    /// An empty cache. Fails if the kernel has no address space for it.
    pub fn new(config: Config) -> io::Result<Cache> {
        let success = Table::new(config.success.capacity)?;
        let denial = Table::new(config.denial.capacity)?;
        Ok(Cache { config, success, denial })
    }

    /// What it was made from.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether names below that of `key` are cached here at all.
    #[inline]
    pub fn covers(&self, key: &Key) -> bool {
        self.config.zones.is_empty() || self.config.zones.iter().any(|zone| zone.contains(key.name()))
    }

    /// Looks `key` up at `now` and writes what it finds to `out`, which has
    /// [`REPLY_ROOM`](crate::wire::REPLY_ROOM).
    ///
    /// An entry that is replaced at this very moment may be missed.
    #[inline(always)]
    pub fn get(&self, key: &Key, now: Moment, out: &mut [u8]) -> Lookup {
        let success = self.success.find(key);
        match &success {
            Some(found) if found.remaining(now) > 0 => self.fresh(found, Store::Success, key, now, out),
            _ => self.denial_or_stale(success, key, now, out),
        }
    }

    /// The part of [`Cache::get`] for what has no live answer.
    #[inline(never)]
    fn denial_or_stale(&self, success: Option<Found<'_>>, key: &Key, now: Moment, out: &mut [u8]) -> Lookup {
        let stale = success.filter(|found| self.is_servable(found, now));
        // A denial that came since is newer than an answer only kept for bad times; a failure does not
        // count against one.
        let denial = self.denial.find(key).filter(|found| stale.is_none() || !is_failure(found));
        match (denial, stale) {
            (Some(found), _) if found.remaining(now) > 0 => self.fresh(&found, Store::Denial, key, now, out),
            (_, Some(found)) => self.stale(&found, Store::Success, key, now, out),
            (Some(found), _) if self.is_servable(&found, now) => {
                self.stale(&found, Store::Denial, key, now, out)
            }
            _ => Lookup::Miss,
        }
    }

    /// Whether `found` is an answer or a denial that has not expired for longer than it may be served.
    fn is_servable(&self, found: &Found<'_>, now: Moment) -> bool {
        let window = self.config.serve_stale.map_or(0, |stale| i64::from(stale.window));
        -found.remaining(now) < window && !is_failure(found)
    }

    #[inline(always)]
    fn fresh(&self, found: &Found<'_>, store: Store, key: &Key, now: Moment, out: &mut [u8]) -> Lookup {
        if !self.table(store).copy(found, key, out) {
            return Lookup::Miss;
        }
        found.touch();
        let ttl = if self.config.keep_ttl { found.ttl } else { found.remaining(now) as u32 };
        let refresh =
            self.config.prefetch.as_ref().is_some_and(|prefetch| wants_prefetch(prefetch, found, now));
        Lookup::Fresh { outline: found.outline, ttl, store, refresh }
    }

    fn stale(&self, found: &Found<'_>, store: Store, key: &Key, now: Moment, out: &mut [u8]) -> Lookup {
        if !self.table(store).copy(found, key, out) {
            return Lookup::Miss;
        }
        found.touch();
        let (mode, refresh) = match self.config.serve_stale.map(|stale| stale.mode) {
            Some(StaleMode::Verify) if !found.is_deferred(now) => (StaleMode::Verify, false),
            Some(StaleMode::Verify) => (StaleMode::Immediate, false),
            _ => (StaleMode::Immediate, found.claim_refresh(now, REFRESH_LEASE_MS)),
        };
        Lookup::Stale { outline: found.outline, store, mode, refresh }
    }

    /// Takes note that the upstream could not answer `key`.
    pub fn note_failure(&self, key: &Key, now: Moment) {
        for table in [&self.success, &self.denial] {
            if let Some(found) = table.find(key) {
                found.defer(now.plus_ms(RECHECK_MS));
            }
        }
    }

    /// Whether there is an answer for `key` that a failure must not displace.
    fn holds_good(&self, key: &Key, now: Moment) -> bool {
        let good =
            |found: Found| self.is_servable(&found, now) || found.remaining(now) > 0 && !is_failure(&found);
        [&self.success, &self.denial].into_iter().filter_map(|table| table.find(key)).any(good)
    }

    /// Judges the answer to `key` and keeps it if it may be kept.
    ///
    /// `unix_now` is the time in seconds since 1970.
    pub fn insert(
        &self,
        key: &Key,
        answer: &Answer,
        lifetime: Lifetime,
        dnssec_ok: bool,
        now: Moment,
        unix_now: u32,
    ) -> Insertion {
        let facts = Facts {
            kind: answer.kind(),
            lifetime,
            name: key.name(),
            truncated: answer.flags().has(Flags::TC),
            dnssec_ok,
        };
        let verdict = policy::judge(&self.config, &facts, unix_now);
        let refused = Insertion { store: None, ttl: verdict.ttl, evicted: 0 };
        let Some(store) = verdict.store else {
            return refused;
        };
        if matches!(answer.kind(), Kind::ServerFailure | Kind::Empty) && self.holds_good(key, now) {
            return refused;
        }
        let (home, other) = match store {
            Store::Success => (&self.success, &self.denial),
            Store::Denial => (&self.denial, &self.success),
        };
        let popularity = [home, other].into_iter().find_map(|table| Some(table.find(key)?.popularity()));
        let mut octets = answer.octets().to_vec();
        octets[HEADER..answer.outline().question_end()].copy_from_slice(key.question());
        let draft = Draft {
            key,
            outline: answer.outline(),
            octets: &octets,
            ttl: verdict.ttl,
            now,
            popularity: popularity.unwrap_or(0),
        };
        let Some(evicted) = home.insert(&draft) else {
            return refused;
        };
        if answer.kind() != Kind::ServerFailure {
            other.remove(key);
        }
        Insertion { store: Some(store), ttl: verdict.ttl, evicted }
    }

    /// Entries in a store, expired ones included, as CoreDNS counts them.
    pub fn len(&self, store: Store) -> usize {
        self.table(store).len()
    }

    /// Whether both stores are empty.
    pub fn is_empty(&self) -> bool {
        self.success.len() + self.denial.len() == 0
    }

    fn table(&self, store: Store) -> &Table {
        match store {
            Store::Success => &self.success,
            Store::Denial => &self.denial,
        }
    }
}

fn is_failure(found: &Found<'_>) -> bool {
    found.outline.kind() == Kind::ServerFailure
}

fn wants_prefetch(prefetch: &Prefetch, found: &Found<'_>, now: Moment) -> bool {
    let hits = found.hit(now, prefetch.gap_ms);
    let threshold = (u64::from(found.ttl) * u64::from(prefetch.percentage)).div_ceil(100);
    hits >= u64::from(prefetch.amount)
        && found.remaining(now) as u64 <= threshold
        && found.claim_refresh(now, REFRESH_LEASE_MS)
}
