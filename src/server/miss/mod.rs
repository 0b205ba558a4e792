//! Queries the cache could not answer: where cache and forward meet.
//!
//! ```text
//! accept  admission (total, per client) ─► loop guard ─► join the flight of the same question
//! fly     upstream message ─► Resolve ─► Answer::scan ─► cache ─► a Reply for each who waits
//! ```
//!
//! Everything here runs on one thread, in a tokio `LocalSet`. A refresh is a miss that nobody waits
//! for, and so is a name that is fetched ahead.

mod ahead;
mod ask;
mod crew;
mod flight;
mod landing;
mod places;
#[cfg(test)]
mod tests;
mod upstreams;

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::sync::mpsc;

use crate::cache::{Lookup, StaleMode, Store};
use crate::clock::{self, Clock};
use crate::forward::{Chain, ClientTransport, ForwardError};
use crate::metrics::{AnsweredBy, CacheType, Counter, Histogram, Registry, names};
use crate::plugin::Outcome;
use crate::server::batch::{Outbox, ask_for_short_slice};
use crate::server::inflight::{FlightKey, Inflight};
use crate::server::moderation::Moderation;
use crate::server::querylog::Answered;
use crate::server::refusals::Refusals;
use crate::server::reply_to::ReplyTo;
use crate::server::responder::{Sent, count};
use crate::server::scratch::scratch;
use crate::server::zones::{Block, BlockId, Zone};
use crate::wire::{Answer, ExtendedError, Key, Query, Rcode};
use ask::{Ask, upstream_size};
use crew::Crew;
use flight::{Flight, Passengers};
use landing::{Landing, write};
use places::{Place, Places};
use upstreams::Upstreams;

pub use upstreams::Resolve;

/// A query on its way to an upstream.
pub struct Miss {
    packet: SmallVec<[u8; USUAL_PACKET]>,
    zone: Arc<Zone>,
    arrived_ns: u64,
    stale: Option<Answer>,
    reply_to: Option<ReplyTo>,
}

impl Miss {
    /// `packet` as it came, to be asked of the block of `zone`; it came at `arrived_ns`, nanoseconds on the
    /// monotonic clock. `stale` is to be served if the upstream fails or takes too long. `reply_to` waits;
    /// `None`: a refresh, or a name fetched ahead.
    ///
    /// In a box, for it is handed on often.
    pub fn new(
        packet: &[u8],
        zone: Arc<Zone>,
        arrived_ns: u64,
        stale: Option<Answer>,
        reply_to: Option<ReplyTo>,
    ) -> Box<Miss> {
        Box::new(Miss { packet: SmallVec::from_slice(packet), zone, arrived_ns, stale, reply_to })
    }
}

/// Somebody who waits, and the place this takes.
pub struct Waiter {
    miss: Box<Miss>,
    _place: Place,
}

/// Misses moved at once from the queue.
const BATCH: usize = 64;
/// Octets of a query for which nothing more is allocated.
const USUAL_PACKET: usize = 96;

/// The desk where misses are handed in.
pub struct Misses<R: Resolve = Chain> {
    inflight: Inflight<Waiter>,
    places: Rc<Places>,
    upstreams: RefCell<Upstreams<R>>,
    clock: Clock,
    moderation: Rc<Moderation>,
    waits: Arc<Histogram>,
    unsendable: Arc<Counter>,
    fetched_ahead: Arc<Counter>,
    scratch: RefCell<Vec<u8>>,
    key: RefCell<Key>,
    outbox: RefCell<Outbox>,
    crew: Rc<Crew<R>>,
}

impl<R: Resolve> Misses<R> {
    /// A desk that counts in `registry`, tells the time by `clock`, `moderation` of its work, and `refusals`
    /// whom it refused.
    pub fn new(
        registry: &Registry,
        clock: Clock,
        moderation: Rc<Moderation>,
        refusals: Arc<Refusals>,
    ) -> Rc<Misses<R>> {
        Rc::new(Misses {
            inflight: Inflight::default(),
            places: Places::new(registry, refusals),
            upstreams: RefCell::default(),
            clock,
            moderation,
            waits: registry.histogram(&names::MISS_QUEUE_WAIT, []),
            unsendable: registry.counter(&names::DROPPED, ["unsendable"]),
            fetched_ahead: registry.counter(&names::SEARCH_AHEAD, []),
            scratch: scratch(),
            key: RefCell::default(),
            outbox: RefCell::default(),
            crew: Crew::new(),
        })
    }

    /// Names the upstreams of each block. Those named before stay known until the next call, for
    /// misses that were on their way while the blocks changed.
    pub fn set_upstreams(&self, upstreams: impl IntoIterator<Item = (BlockId, Rc<R>)>) {
        self.upstreams.borrow_mut().succeed(upstreams);
    }

    /// Queries that wait now.
    pub fn waiting(&self) -> usize {
        self.places.waiting()
    }

    /// Takes in what `queue` brings, until it is closed; has the calling thread scheduled for that.
    pub async fn serve(self: Rc<Self>, mut queue: mpsc::Receiver<Box<Miss>>) {
        ask_for_short_slice();
        let mut batch = Vec::with_capacity(BATCH);
        while queue.recv_many(&mut batch, BATCH).await > 0 {
            let now = clock::nanoseconds();
            for miss in batch.drain(..) {
                self.waits.observe(Duration::from_nanos(now.saturating_sub(miss.arrived_ns)));
                self.accept(miss);
            }
            if self.moderation.is_due() {
                // Until after the rest: one miss more in this turn would cost as much as all others.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Takes a miss in. Whoever waits gets a reply, sooner or later, but always.
    pub fn accept(self: &Rc<Self>, miss: Box<Miss>) {
        let client = miss.reply_to.as_ref().map(|reply_to| reply_to.client().peer.ip());
        self.accept_for(client, miss);
    }

    /// Takes in a miss that counts against the share of `client`, if it has one.
    fn accept_for(self: &Rc<Self>, client: Option<IpAddr>, miss: Box<Miss>) {
        let Ok(query) = Query::parse(&miss.packet) else {
            return;
        };
        self.moderation.taken_in();
        let mut key = self.key.borrow_mut();
        key.set(&query);
        let zone = miss.zone.clone();
        let block = &zone.block;
        if self.reply_from_cache(&miss, &query, &key, block) {
            return;
        }
        let Some(place) = self.places.enter(client) else {
            self.reply(&miss, &Landing::Failed(Rcode::REFUSED, None));
            return;
        };
        let probe = block.loops.as_ref().is_some_and(|guard| guard.notices(key.name(), query.qtype()));
        if block.loops.as_ref().is_some_and(|guard| guard.is_looping()) {
            self.reply(&miss, &Landing::Failed(Rcode::SERVFAIL, None));
            return;
        }
        let transport = match &miss.reply_to {
            Some(ReplyTo::Tcp(..)) => ClientTransport::Tcp,
            _ => ClientTransport::Udp,
        };
        let message = query.upstream_message(upstream_size(block));
        let shared = query.is_cacheable() && !probe;
        let flight_key = FlightKey { block: block.id, question: key.to_stored() };
        let searches = shared && miss.reply_to.is_some() && block.search_ahead.is_some();
        let searcher = client.filter(|_| searches);
        let waiter = Waiter { miss, _place: place };
        let waiter = if shared { self.inflight.follow(&flight_key, waiter) } else { Some(waiter) };
        let Some(waiter) = waiter else { return };
        let Some(slot) = self.places.depart() else {
            self.reply(&waiter.miss, &Landing::Failed(Rcode::REFUSED, None));
            return;
        };
        let passengers = Passengers::new(self, waiter, shared.then(|| flight_key.clone()));
        let ask = Ask { message, key: flight_key, transport, shared, searcher };
        self.crew.fly(Flight { passengers, zone, ask, _slot: slot });
    }

    /// Whether an answer landed since the client's thread looked, or is no longer waited for.
    fn reply_from_cache(self: &Rc<Self>, miss: &Miss, query: &Query<'_>, key: &Key, block: &Block) -> bool {
        let Some(cache) = block.cache.as_ref().filter(|_| miss.reply_to.is_some() && query.is_cacheable())
        else {
            return false;
        };
        let landing = {
            let mut out = self.scratch.borrow_mut();
            match cache.get(key, self.clock.now(), &mut out) {
                Lookup::Fresh { outline, ttl, .. } => {
                    let answer = Answer::restore(outline, key.question(), &out);
                    let by = AnsweredBy::Forward;
                    answer.map(|answer| Landing::Answer { answer, ttl: Some(ttl), by, told: None })
                }
                Lookup::Stale { mode: StaleMode::Immediate, refresh: false, .. } if miss.stale.is_some() => {
                    Some(Landing::Failed(Rcode::SERVFAIL, None))
                }
                _ => None,
            }
        };
        let Some(landing) = landing else {
            return false;
        };
        self.reply(miss, &landing);
        true
    }

    /// Reads what the upstream said, keeps it, and decides what the clients get.
    fn land(&self, block: &Block, zone: &Zone, ask: &Ask, result: Result<Outcome, ForwardError>) -> Landing {
        let (response, by, told) = match result {
            Ok(Outcome::Reply { message, by, told }) => (message, by, told),
            Ok(Outcome::Failed(error)) => {
                error.iter().for_each(|error| ask.report(block, Rcode::SERVFAIL, error));
                return Landing::Failed(Rcode::SERVFAIL, None);
            }
            Err(ForwardError::NotForwarded) if block.whoami => return Landing::Whoami,
            Err(error) => {
                let (rcode, told) = match error {
                    ForwardError::Overloaded { .. } => (Rcode::REFUSED, None),
                    ForwardError::Failed(_) => (Rcode::SERVFAIL, Some(ExtendedError::NETWORK_ERROR)),
                    _ => (Rcode::SERVFAIL, Some(ExtendedError::NO_REACHABLE_AUTHORITY)),
                };
                ask.report(block, rcode, &error);
                return Landing::Failed(rcode, told);
            }
        };
        let Ok(asked) = Query::parse(&ask.message) else {
            return Landing::Failed(Rcode::SERVFAIL, None);
        };
        let (answer, lifetime) = match Answer::scan(&response, asked.question()) {
            Ok(scanned) => scanned,
            Err(_) => {
                zone.miss_shard.cache_drop();
                return Landing::Opaque(response);
            }
        };
        // The message asks what the client asked, and so has its key.
        let mut key = self.key.borrow_mut();
        key.set(&asked);
        let cached = block.cache.as_ref().filter(|cache| ask.shared && cache.covers(&key));
        let Some(cache) = cached else {
            return Landing::Answer { answer, ttl: None, by, told };
        };
        let now = self.clock.now();
        let kept = cache.insert(&key, &answer, lifetime, asked.dnssec_ok(), now, clock::unix_seconds());
        let cache_type = match kept.store {
            Some(Store::Denial) => CacheType::Denial,
            _ => CacheType::Success,
        };
        (0..kept.evicted).for_each(|_| zone.miss_shard.cache_eviction(cache_type));
        // The next one, from the cache, would not hear it.
        Landing::Answer { answer, ttl: Some(kept.ttl), by, told: None }
    }

    /// Takes note that no answer came, or not in time.
    fn note_failure(&self, block: &Block, ask: &Ask) {
        if let Some(cache) = &block.cache
            && let Ok(asked) = Query::parse(&ask.message)
        {
            cache.note_failure(&Key::of(&asked), self.clock.now());
        }
    }

    /// Sends each of `waiters` what `landing` means for it.
    fn reply_to_each<'a>(self: &Rc<Self>, waiters: impl IntoIterator<Item = &'a Waiter>, landing: &Landing) {
        waiters.into_iter().for_each(|waiter| self.reply(&waiter.miss, landing));
    }

    /// Sends `miss` its reply.
    fn reply(self: &Rc<Self>, miss: &Miss, landing: &Landing) {
        let Some(reply_to) = &miss.reply_to else {
            return;
        };
        let Ok(query) = Query::parse(&miss.packet) else {
            return;
        };
        let client = reply_to.client();
        let limit = client.limit(query.edns(), miss.zone.block.bufsize);
        let mut out = self.scratch.borrow_mut();
        let (len, sent) = write(&mut out, &query, miss, landing, limit);
        let sent = Sent { duration_ns: clock::nanoseconds().saturating_sub(miss.arrived_ns), ..sent };
        count(&miss.zone.miss_shard, &client, &query, len, sent);
        if !miss.zone.block.log.is_off() {
            miss.zone.block.log.log(&Answered {
                client: client.at(miss.zone.local),
                query: &query,
                name: Key::of(&query).name(),
                reply: &out[..len],
                rcode: sent.rcode,
                duration_ns: sent.duration_ns,
            });
        }
        self.moderation.replied();
        self.send(reply_to, &out[..len]);
    }

    /// What is to be sent in this turn of the thread is sent together, at its end.
    fn send(self: &Rc<Self>, reply_to: &ReplyTo, reply: &[u8]) {
        let mut outbox = self.outbox.borrow_mut();
        let first = outbox.is_empty();
        reply_to.send(reply, &mut outbox);
        if outbox.is_full() {
            self.flush(&mut outbox);
        } else if first && !outbox.is_empty() {
            let misses = self.clone();
            // Whoever is ready to reply now runs before this does.
            tokio::task::spawn_local(async move { misses.flush(&mut misses.outbox.borrow_mut()) });
        }
    }

    fn flush(&self, outbox: &mut Outbox) {
        let refused = outbox.send();
        if refused > 0 {
            self.unsendable.add(refused as u64);
        }
    }
}
