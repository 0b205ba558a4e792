//! Answers kept as wire bytes (the semantics of CoreDNS's `cache`).
//!
//! ```text
//! insert   policy::judge ─► success store | denial store: what may be kept, for how long
//! get      Fresh | Stale | Miss
//! ```
//!
//! The stores share a table in which a key has one entry; each bounds its own number. So between an
//! answer and a denial the newer one stands. A failure, or a reply that says nothing, never displaces
//! what may still be served (CoreDNS keeps answers so from 1.14.4 on).

mod config;
mod eviction;
mod policy;
mod region;
mod table;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::OwnedFd;

pub use config::{Config, Prefetch, ServeStale, StaleMode, StoreConfig};
use policy::Facts;
pub use policy::Store;

use crate::clock::Moment;
use crate::wire::{Answer, Flags, Key, Kind, Lifetime, Outline};
use table::{Draft, Entry, Found, Heritage, Table};

/// How long one refresh of an entry keeps others from being started, milliseconds: a little more
/// than an upstream exchange may take.
const REFRESH_LEASE_MS: u64 = 5_000;
/// How long after a failure the upstream is not asked again for an answer that can still be served
/// (the failure recheck timer of RFC 8767 §5), milliseconds: as long as a failure itself is kept.
const RECHECK_MS: u64 = 1_000 * Config::SERVFAIL_TTL as u64;

/// The cache of one server block.
pub struct Cache {
    config: Config,
    table: Table,
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

/// What [`Cache::get`] found. The answer's octets then stand at their [`place`](Answer::place) in the buffer.
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
        let table = Table::new([config.success.capacity, config.denial.capacity])?;
        Ok(Cache { config, table })
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
        let Some(found) = self.table.find(key) else {
            return Lookup::Miss;
        };
        let remaining = found.remaining(now);
        if remaining <= 0 && !self.is_servable(found, now) || !self.table.copy(&found, key, out) {
            return Lookup::Miss;
        }
        found.touch();
        if remaining <= 0 {
            let (mode, refresh) = self.stale(found, now);
            return Lookup::Stale { outline: found.outline, store: found.store(), mode, refresh };
        }
        let ttl = if self.config.keep_ttl { found.ttl } else { remaining as u32 };
        let prefetch = self.config.prefetch.as_ref();
        let refresh = prefetch.is_some_and(|prefetch| wants_prefetch(prefetch, found, now));
        Lookup::Fresh { outline: found.outline, ttl, store: found.store(), refresh }
    }

    /// Whether a query for `key` would be answered from here at once. Asking this counts as no hit.
    pub fn holds(&self, key: &Key, now: Moment) -> bool {
        self.table.find(key).is_some_and(|found| {
            let verified = || self.config.serve_stale.is_some_and(|stale| stale.mode == StaleMode::Verify);
            let at_once = || !verified() || found.is_deferred(now);
            found.remaining(now) > 0 || self.is_servable(found, now) && at_once()
        })
    }

    /// What to do with the expired `found`, and whether the caller refreshes it.
    #[cold]
    fn stale(&self, found: Found<'_>, now: Moment) -> (StaleMode, bool) {
        match self.config.serve_stale.map(|stale| stale.mode) {
            Some(StaleMode::Verify) if !found.is_deferred(now) => (StaleMode::Verify, false),
            Some(StaleMode::Verify) => (StaleMode::Immediate, false),
            _ => (StaleMode::Immediate, found.claim_refresh(now, REFRESH_LEASE_MS)),
        }
    }

    /// Whether `found` is an answer or a denial that has not expired for longer than it may be served.
    fn is_servable(&self, found: Found<'_>, now: Moment) -> bool {
        let window = self.config.serve_stale.map_or(0, |stale| i64::from(stale.window));
        -found.remaining(now) < window && found.outline.kind() != Kind::ServerFailure
    }

    /// Takes note that the upstream could not answer `key`.
    pub fn note_failure(&self, key: &Key, now: Moment) {
        if let Some(found) = self.table.find(key) {
            found.defer(now.plus_ms(RECHECK_MS));
        }
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
        let old = self.table.find(key);
        let says_nothing = matches!(answer.kind(), Kind::ServerFailure | Kind::Empty);
        if says_nothing && old.is_some_and(|old| self.is_servable(old, now)) {
            return refused;
        }
        let draft = Draft {
            store,
            key,
            outline: answer.outline(),
            octets: answer.octets(),
            ttl: verdict.ttl,
            now,
            popularity: old.map_or(0, |old| old.popularity()),
        };
        match self.table.insert(&draft) {
            Some(evicted) => Insertion { store: Some(store), ttl: verdict.ttl, evicted },
            None => refused,
        }
    }

    /// The memory with all entries, and its shape, for [`Cache::inherit`] in another process.
    pub fn share(&self) -> io::Result<(String, OwnedFd)> {
        self.table.share()
    }

    /// Takes over from the cache of another process what can still be served and is not older than what
    /// is here; says how many entries that were. A `shape` of another version is none.
    pub fn inherit(&self, shape: &str, memory: OwnedFd, now: Moment) -> usize {
        let Some(heritage) = Heritage::open(shape, memory) else { return 0 };
        heritage.entries().filter(|entry| self.inherit_one(entry, now)).count()
    }

    fn inherit_one(&self, entry: &Entry<'_>, now: Moment) -> bool {
        let Entry { key, octets, found } = entry;
        let old = self.table.find(key);
        let newer = |old: Found<'_>| old.stored() >= found.stored();
        if found.remaining(now) <= 0 && !self.is_servable(*found, now) || old.is_some_and(newer) {
            return false;
        }
        let draft = Draft {
            store: found.store(),
            key,
            outline: found.outline,
            octets,
            ttl: found.ttl,
            now: found.stored(),
            popularity: found.popularity(),
        };
        self.table.insert(&draft).is_some()
    }

    /// Entries in a store, expired ones included, as CoreDNS counts them.
    pub fn len(&self, store: Store) -> usize {
        self.table.len(store)
    }

    /// Whether both stores are empty.
    pub fn is_empty(&self) -> bool {
        self.len(Store::Success) + self.len(Store::Denial) == 0
    }
}

fn wants_prefetch(prefetch: &Prefetch, found: Found<'_>, now: Moment) -> bool {
    let hits = found.hit(now, prefetch.gap_ms);
    let threshold = (u64::from(found.ttl) * u64::from(prefetch.percentage)).div_ceil(100);
    hits >= u64::from(prefetch.amount)
        && found.remaining(now) as u64 <= threshold
        && found.claim_refresh(now, REFRESH_LEASE_MS)
}
