//! What one `cache` directive asks for.

use std::time::Duration;

use crate::wire::Name;

/// One cache, shared by every zone and address of its server block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Only names below these are cached; empty: every name of the block.
    pub zones: Vec<Name>,
    /// NOERROR answers with data, and delegations.
    pub success: StoreConfig,
    /// NXDOMAIN, NODATA, and server failures.
    pub denial: StoreConfig,
    /// Seconds a SERVFAIL or NOTIMP is kept; 0: not at all.
    pub servfail_ttl: u32,
    /// Refresh popular entries before they expire.
    pub prefetch: Option<Prefetch>,
    /// Answer from expired entries.
    pub serve_stale: Option<ServeStale>,
    /// Serve the stored TTL instead of the remaining one.
    pub keep_ttl: bool,
    /// Positive answers below these names are not stored.
    pub disable_success: Vec<Name>,
    /// Negative answers below these names are not stored.
    pub disable_denial: Vec<Name>,
}

/// Bounds of one of the two stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreConfig {
    /// Entries kept at most.
    pub capacity: usize,
    /// TTL cap, seconds.
    pub max_ttl: u32,
    /// TTL floor, seconds.
    pub min_ttl: u32,
}

/// `prefetch AMOUNT [DURATION [PERCENTAGE%]]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefetch {
    /// Hits, with no gap longer than `gap_ms` between two, that make an entry popular.
    pub amount: u32,
    /// Milliseconds without a hit that start the count anew.
    pub gap_ms: u64,
    /// A popular entry is refreshed once its remaining TTL is at most this share (10 to 90) of the
    /// original one.
    pub percentage: u8,
}

/// `serve_stale [DURATION] [immediate|verify [TIMEOUT]]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServeStale {
    /// Seconds after expiry during which an entry may still be served.
    pub window: u32,
    /// Whether the client waits for the upstream first.
    pub mode: StaleMode,
    /// Milliseconds after which whoever waits for the upstream, with an expired answer at hand, gets that;
    /// 0: when the upstream's own time is over.
    pub verify_wait_ms: u64,
}

impl ServeStale {
    /// Milliseconds to wait for the upstream when the Corefile does not say: the client response timer of
    /// RFC 8767 §5, less than the time after which stub resolvers ask again.
    pub const VERIFY_WAIT_MS: u64 = 1_800;

    /// How long whoever has an expired answer at hand waits for the upstream; `None`: until that fails.
    pub fn patience(&self) -> Option<Duration> {
        let bounded = self.mode == StaleMode::Verify && self.verify_wait_ms > 0;
        bounded.then(|| Duration::from_millis(self.verify_wait_ms))
    }
}

/// How a stale entry is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StaleMode {
    /// Answer at once, refresh behind the client's back.
    Immediate,
    /// Ask the upstream first; answer stale only if that fails or takes too long.
    Verify,
}

impl Config {
    /// Entries of each store when the Corefile does not say (256 shards of 39 in CoreDNS).
    pub const DEFAULT_CAPACITY: usize = 9984;
    /// Least entries a store can be given.
    pub const MIN_CAPACITY: usize = 1024;
    /// TTL cap of positive answers, seconds.
    pub const MAX_SUCCESS_TTL: u32 = 3600;
    /// TTL cap of negative answers, seconds.
    pub const MAX_DENIAL_TTL: u32 = 1800;
    /// TTL floor of both, seconds.
    pub const MIN_TTL: u32 = 5;
    /// Seconds a SERVFAIL is kept unless the Corefile says otherwise.
    pub const SERVFAIL_TTL: u32 = 5;
    /// Longest `servfail`, seconds.
    pub const MAX_SERVFAIL_TTL: u32 = 300;
}

impl Default for Config {
    fn default() -> Config {
        let store =
            |max_ttl| StoreConfig { capacity: Config::DEFAULT_CAPACITY, max_ttl, min_ttl: Config::MIN_TTL };
        Config {
            zones: Vec::new(),
            success: store(Config::MAX_SUCCESS_TTL),
            denial: store(Config::MAX_DENIAL_TTL),
            servfail_ttl: Config::SERVFAIL_TTL,
            prefetch: None,
            serve_stale: None,
            keep_ttl: false,
            disable_success: Vec::new(),
            disable_denial: Vec::new(),
        }
    }
}
