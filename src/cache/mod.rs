//! Answers kept as wire bytes (the semantics of CoreDNS's `cache`).
//!
//! ```text
//! insert   policy::judge ─► success store   an answer here removes the denial of the same key,
//!                       └─► denial store    and a denial the answer; a failure removes nothing
//! get      success, then denial ─► Fresh | Stale | Miss
//! ```
//!
//! So a SERVFAIL never displaces a good answer that may still be served (as CoreDNS does from 1.14.4
//! on), while between an answer and a real denial the newer one stands.

mod config;
mod entry;
mod policy;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use config::{Config, Prefetch, ServeStale, StaleMode, StoreConfig};
pub use entry::Entry;
use policy::Facts;
pub use policy::Store;

use crate::clock::Moment;
use crate::wire::{Answer, Flags, Key, Kind, Lifetime};
use store::EntryStore;

/// How long one refresh of an entry keeps others from being started, milliseconds: a little more
/// than an upstream exchange may take.
const REFRESH_LEASE_MS: u64 = 5_000;

/// The cache of one server block.
pub struct Cache {
    config: Config,
    success: EntryStore,
    denial: EntryStore,
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

/// What [`Cache::get`] found.
#[derive(Debug)]
pub enum Lookup {
    /// A live answer, to be shown with this TTL; `refresh`: it is popular and about to expire, and it
    /// is the caller's to ask the upstream again.
    Fresh {
        /// The answer.
        entry: Arc<Entry>,
        /// Seconds to show.
        ttl: u32,
        /// Where it was.
        store: Store,
        /// Whether the caller refreshes it.
        refresh: bool,
    },
    /// An expired answer within its stale window, to be used as [`ServeStale`] says; `refresh` as
    /// above.
    Stale {
        /// The answer.
        entry: Arc<Entry>,
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
    /// An empty cache.
    pub fn new(config: Config) -> Cache {
        let success = EntryStore::new(config.success.capacity);
        let denial = EntryStore::new(config.denial.capacity);
        Cache { config, success, denial }
    }

    /// What it was made from.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether names below `name` (folded wire octets) are cached here at all.
    #[inline]
    pub fn covers(&self, name: &[u8]) -> bool {
        self.config.zones.is_empty() || self.config.zones.iter().any(|zone| zone.contains(name))
    }

    /// Looks `key` up at `now`.
    #[inline]
    pub fn get(&self, key: &Key, now: Moment) -> Lookup {
        if let Some(entry) = self.success.get(key) {
            let found = self.assess(entry, Store::Success, now);
            if !matches!(found, Lookup::Miss) {
                return match found {
                    // A denial that came since is newer than an answer only kept for bad times.
                    Lookup::Stale { .. } => self.denial_or(key, found, now),
                    fresh => fresh,
                };
            }
        }
        self.denial_or(key, Lookup::Miss, now)
    }

    /// A fresh denial, or `otherwise`. A failure does not count against a stale answer.
    fn denial_or(&self, key: &Key, otherwise: Lookup, now: Moment) -> Lookup {
        let Some(entry) = self.denial.get(key) else {
            return otherwise;
        };
        let failure = entry.answer().kind() == Kind::ServerFailure;
        if failure && matches!(otherwise, Lookup::Stale { .. }) {
            return otherwise;
        }
        match self.assess(entry, Store::Denial, now) {
            Lookup::Miss => otherwise,
            found => found,
        }
    }

    #[inline]
    fn assess(&self, entry: Arc<Entry>, store: Store, now: Moment) -> Lookup {
        let remaining = entry.remaining(now);
        if remaining > 0 {
            let ttl = if self.config.keep_ttl { entry.ttl() } else { remaining as u32 };
            let refresh = self
                .config
                .prefetch
                .is_some_and(|prefetch| wants_prefetch(&prefetch, &entry, remaining, now));
            return Lookup::Fresh { entry, ttl, store, refresh };
        }
        match self.config.serve_stale {
            Some(stale)
                if -remaining < i64::from(stale.window) && entry.answer().kind() != Kind::ServerFailure =>
            {
                let refresh = entry.claim_refresh(now, REFRESH_LEASE_MS);
                Lookup::Stale { entry, store, mode: stale.mode, refresh }
            }
            _ => Lookup::Miss,
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
        let Some(store) = verdict.store else {
            return Insertion { store: None, ttl: verdict.ttl, evicted: 0 };
        };
        let (home, other) = match store {
            Store::Success => (&self.success, &self.denial),
            Store::Denial => (&self.denial, &self.success),
        };
        let entry = Entry::new(answer.clone(), verdict.ttl, now);
        if self.config.prefetch.is_some()
            && let Some(old) = self.success.get(key).or_else(|| self.denial.get(key))
        {
            entry.inherit(&old);
        }
        let evicted_before = home.evictions();
        home.insert(key, Arc::new(entry));
        if answer.kind() != Kind::ServerFailure {
            other.remove(key);
        }
        let evicted = home.evictions() - evicted_before;
        Insertion { store: Some(store), ttl: verdict.ttl, evicted }
    }

    /// Entries in a store, expired ones included, as CoreDNS counts them.
    pub fn len(&self, store: Store) -> usize {
        self.store(store).len()
    }

    /// Whether both stores are empty.
    pub fn is_empty(&self) -> bool {
        self.success.len() + self.denial.len() == 0
    }

    fn store(&self, store: Store) -> &EntryStore {
        match store {
            Store::Success => &self.success,
            Store::Denial => &self.denial,
        }
    }
}

fn wants_prefetch(prefetch: &Prefetch, entry: &Entry, remaining: i64, now: Moment) -> bool {
    let hits = entry.hit(now, prefetch.gap_ms);
    let threshold = (u64::from(entry.ttl()) * u64::from(prefetch.percentage)).div_ceil(100);
    hits >= prefetch.amount && remaining as u64 <= threshold && entry.claim_refresh(now, REFRESH_LEASE_MS)
}
