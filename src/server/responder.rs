//! From a query's octets to a reply's, or to the news that somebody must ask the upstream.
//!
//! Synchronous, without allocation, and the same for UDP and TCP.

use std::sync::Arc;

use super::client::Client;
use super::config::LoadBalance;
use super::querylog::Answered;
use super::zones::{Zone, Zones};
use crate::cache::{Lookup, StaleMode, Store};
use crate::clock::{Moment, nanoseconds};
use crate::metrics::{AnsweredBy, CacheType, ZoneShard};
use crate::wire::{Answer, ExtendedError, Key, Outline, Query, Rcode, Rejected, Reply, Terms};

/// When a query is answered.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// When it came.
    pub now: Moment,
    /// The same, in nanoseconds.
    pub arrived_ns: u64,
    /// What to put down as the time a hit takes.
    pub hit_ns: u64,
}

/// What becomes of a query.
pub enum Outcome {
    /// A reply of this many octets stands in the buffer; `refresh`: its entry is to be fetched anew.
    Reply {
        /// Octets.
        len: usize,
        /// The zone in which to fetch.
        refresh: Option<Arc<Zone>>,
    },
    /// The upstream must be asked.
    Miss {
        /// By this zone's block.
        zone: Arc<Zone>,
        /// To be served if the upstream fails.
        stale: Option<Answer>,
    },
    /// Not to be answered.
    Ignore(Rejected),
}

/// Answers from the cache. One per thread.
#[derive(Default)]
pub struct Responder {
    key: Key,
}

impl Responder {
    /// Answers `packet`; the reply goes to the front of `out`, which has
    /// [`REPLY_ROOM`](crate::wire::REPLY_ROOM).
    #[inline]
    pub fn answer(
        &mut self,
        zones: &Zones,
        client: &Client,
        packet: &[u8],
        timing: &Timing,
        out: &mut [u8],
    ) -> Outcome {
        let query = match Query::parse(packet) {
            Ok(query) => query,
            Err(_) => return reject(out, packet),
        };
        self.key.set(&query);
        let Some(zone) = zones.find(self.key.name(), query.qtype()) else {
            return refuse(&zones.dropped, client, packet, Rcode::REFUSED, out);
        };
        if query.qclass() != CLASS_IN && !zones.any_class {
            return refuse(&zones.dropped, client, packet, Rcode::REFUSED, out);
        }
        if query.edns().is_some_and(|edns| edns.version != 0) {
            return refuse(&zones.dropped, client, packet, Rcode::BADVERS, out);
        }
        self.look_up(zone, client, &query, timing, out)
    }

    #[inline(always)]
    fn look_up(
        &self,
        zone: &Arc<Zone>,
        client: &Client,
        query: &Query<'_>,
        timing: &Timing,
        out: &mut [u8],
    ) -> Outcome {
        let miss = |stale| Outcome::Miss { zone: zone.clone(), stale };
        let cache = match &zone.block.cache {
            Some(cache) if cache.covers(&self.key) && query.is_cacheable() => cache,
            _ if zone.block.empty => return refuse(&zone.shard, client, query.octets(), Rcode::REFUSED, out),
            _ => return miss(None),
        };
        let mut terms = Terms { ttl: Some(0), authoritative: true, extended_error: None };
        let (outline, store, refresh) = match cache.get(&self.key, timing.now, out) {
            Lookup::Fresh { outline, ttl, store, refresh } => {
                if refresh {
                    zone.shard.cache_prefetch();
                }
                terms.ttl = Some(ttl);
                (outline, store, refresh)
            }
            Lookup::Stale { outline, store, mode: StaleMode::Immediate, refresh } => {
                zone.shard.cache_served_stale();
                terms.extended_error = Some(ExtendedError::of_stale(outline.rcode()));
                (outline, store, refresh)
            }
            Lookup::Stale { outline, mode: StaleMode::Verify, .. } => {
                zone.shard.cache_miss();
                return miss(Answer::restore(outline, self.key.question(), out));
            }
            Lookup::Miss => {
                zone.shard.cache_miss();
                return miss(None);
            }
        };
        zone.shard.cache_hit(match store {
            Store::Success => CacheType::Success,
            Store::Denial => CacheType::Denial,
        });
        if let Some(loadbalance) = &zone.block.loadbalance {
            order(loadbalance, query.octets(), outline, out);
        }
        let edns = query.edns();
        let limit = || client.limit(edns, zone.block.bufsize);
        let len = Reply::from_octets(out, query, outline, terms, limit);
        let sent = Sent { rcode: outline.rcode(), by: AnsweredBy::Cache, duration_ns: timing.hit_ns };
        count(&zone.shard, client, query, len, sent);
        if !zone.block.log.is_off() {
            self.log(zone, client, query.octets(), &out[..len], sent.rcode, timing.arrived_ns);
        }
        Outcome::Reply { len, refresh: refresh.then(|| zone.clone()) }
    }

    /// What is not on the way of every hit reads the packet again: the query can then stay in registers.
    #[inline(never)]
    fn log(&self, zone: &Zone, client: &Client, packet: &[u8], reply: &[u8], rcode: Rcode, arrived_ns: u64) {
        let Ok(query) = Query::parse(packet) else { return };
        zone.block.log.log(&Answered {
            client: client.at(zone.local),
            query: &query,
            name: self.key.name(),
            reply,
            rcode,
            duration_ns: nanoseconds().saturating_sub(arrived_ns),
        });
    }
}

/// Gives the addresses of the answer in `out` another order; reads the packet again, as [`Responder::log`] does.
#[inline(never)]
fn order(loadbalance: &LoadBalance, packet: &[u8], outline: Outline, out: &mut [u8]) {
    let Ok(query) = Query::parse(packet) else { return };
    loadbalance.draw().apply(out, query.question(), outline);
}

/// The Internet (RFC 1035 §3.2.4).
const CLASS_IN: u16 = 1;

/// What is to be counted about a reply besides its size.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// The full response code.
    pub rcode: Rcode,
    /// Who produced it.
    pub by: AnsweredBy,
    /// From arrival to reply.
    pub duration_ns: u64,
}

/// Counts a query and its reply of `len` octets.
#[inline(always)]
pub fn count(shard: &ZoneShard, client: &Client, query: &Query<'_>, len: usize, sent: Sent) {
    shard.request(client.transport, client.family(), query.qtype(), query.len(), query.dnssec_ok());
    shard.response(client.transport, sent.rcode.0, sent.by, len, sent.duration_ns);
}

#[cold]
fn reject(out: &mut [u8], packet: &[u8]) -> Outcome {
    let rejected = Query::parse(packet).err().unwrap_or(Rejected::Malformed);
    match Reply::reject(out, packet, rejected) {
        Some(len) => Outcome::Reply { len, refresh: None },
        None => Outcome::Ignore(rejected),
    }
}

#[cold]
fn refuse(shard: &ZoneShard, client: &Client, packet: &[u8], rcode: Rcode, out: &mut [u8]) -> Outcome {
    let query = match Query::parse(packet) {
        Ok(query) => query,
        Err(rejected) => return Outcome::Ignore(rejected),
    };
    let len = Reply::error(out, &query, rcode, None);
    count(shard, client, &query, len, Sent { rcode, by: AnsweredBy::Server, duration_ns: 0 });
    Outcome::Reply { len, refresh: None }
}
