//! Which server block answers a name.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use super::config::LoadBalance;
use super::errors::ErrorLog;
use super::querylog::QueryLogger;
use super::search_ahead::SearchAhead;
use crate::cache::Cache;
use crate::metrics::ZoneShard;
use crate::plugin::Steps;
use crate::wire::{Name, record_type};

/// The zones of one listening address, for one thread that counts in their shards.
pub struct Zones {
    /// Longest name first, so that the first match is the best.
    zones: Vec<Arc<Zone>>,
    /// Counts the queries that no zone takes.
    pub dropped: Arc<ZoneShard>,
    /// Classes other than IN are taken, as on any CoreDNS server with a `forward` (contract of
    /// node-cache: CH and HS pass to the upstream).
    pub any_class: bool,
}

/// A zone on one listening address.
pub struct Zone {
    /// Its name.
    pub origin: Name,
    /// What serves it.
    pub block: Arc<Block>,
    /// Counters of the thread that holds this value.
    pub shard: Arc<ZoneShard>,
    /// Counters of the thread that answers misses.
    pub miss_shard: Arc<ZoneShard>,
    /// Its listening address, unless that is every one.
    pub local: Option<IpAddr>,
    /// Its listening address as label `server`.
    pub server: String,
    /// All zones of its listening address.
    pub siblings: Weak<Zones>,
}

/// Names a block among all that ever were, so that the thread of misses finds its upstreams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockId(pub u64);

/// What a server block's zones and addresses share.
pub struct Block {
    /// Its identity.
    pub id: BlockId,
    /// `cache`.
    pub cache: Option<Arc<Cache>>,
    /// `bufsize`.
    pub bufsize: Option<u16>,
    /// `log`.
    pub log: QueryLogger,
    /// `loadbalance`.
    pub loadbalance: Option<LoadBalance>,
    /// What is done between cache and upstreams.
    pub steps: Steps,
    /// `errors`.
    pub errors: Option<ErrorLog>,
    /// `loop`, until its probes are over.
    pub loops: Option<LoopGuard>,
    /// `whoami`: what no other directive answers tells clients who they are.
    pub whoami: bool,
    /// `search_ahead`.
    pub search_ahead: Option<SearchAhead>,
    /// The block has no directive that could answer or report: everything is REFUSED.
    pub empty: bool,
}

/// What `loop` knows: its probes carry a name nobody else asks for. Seeing it more often than it was
/// sent means that the upstream sends our queries back to us.
pub struct LoopGuard {
    /// The probes' name.
    pub probe: Name,
    /// Times it came in since the last one was sent.
    pub seen: AtomicU32,
    /// A loop was found: this block forwards nothing.
    pub looping: AtomicBool,
}

impl LoopGuard {
    /// Sightings that can be the probes' own.
    const HARMLESS: u32 = 2;

    /// Another probe is about to be sent. Only what comes back of one and the same is a loop: while an
    /// upstream is silent, our own repetitions must not add up to one.
    pub fn start_probe(&self) {
        self.seen.store(0, Relaxed);
    }

    /// Takes note of a query for `name`, folded wire octets, and says whether it is a probe.
    pub fn notices(&self, name: &[u8], qtype: u16) -> bool {
        let probe = qtype == record_type::HINFO && name == self.probe.as_wire();
        if probe && self.seen.fetch_add(1, Relaxed) >= LoopGuard::HARMLESS {
            self.looping.store(true, Relaxed);
        }
        probe
    }

    /// Whether a loop was found.
    pub fn is_looping(&self) -> bool {
        self.looping.load(Relaxed)
    }
}

impl Zones {
    /// Orders `zones`.
    pub fn new(mut zones: Vec<Arc<Zone>>, dropped: Arc<ZoneShard>, any_class: bool) -> Zones {
        zones.sort_by_key(|zone| std::cmp::Reverse(zone.origin.as_wire().len()));
        Zones { zones, dropped, any_class }
    }

    /// The zone for `name`, folded wire octets.
    ///
    /// DS records live above a zone cut (RFC 4035 §3.1.4.1), so DS queries go to the shortest match
    /// that is not the root, as CoreDNS sends them.
    #[inline(always)]
    pub fn find(&self, name: &[u8], qtype: u16) -> Option<&Arc<Zone>> {
        if qtype == record_type::DS {
            return self.find_above_cut(name);
        }
        self.zones.iter().find(|zone| zone.origin.contains(name))
    }

    #[cold]
    fn find_above_cut(&self, name: &[u8]) -> Option<&Arc<Zone>> {
        let mut matching = self.zones.iter().rev().filter(|zone| zone.origin.contains(name));
        let shortest = matching.clone().find(|zone| !zone.origin.is_root());
        shortest.or_else(|| matching.next())
    }
}
