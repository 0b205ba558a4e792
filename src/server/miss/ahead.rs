//! Fetching what a pod that goes through its search path will ask for next.

use std::rc::Rc;

use super::{Ask, Miss, Misses};
use crate::cache::{Cache, Lookup, StaleMode};
use crate::clock;
use crate::server::inflight::FlightKey;
use crate::server::zones::Zone;
use crate::wire::{HEADER, Key, Query};

impl Misses {
    /// Starts what is still to be fetched of the search path that begins with the name of `ask`, a query
    /// to the block of `zone` whose name does not exist. Each name is asked for where the pod's own query
    /// would be.
    pub(super) fn fetch_ahead(self: &Rc<Self>, zone: &Zone, ask: &Ask) {
        let Some(search_ahead) = &zone.block.search_ahead else { return };
        // A configuration that no longer serves fetches nothing ahead.
        let Some(zones) = zone.siblings.upgrade() else { return };
        for name in search_ahead.names_after(ask.name()) {
            let Some(packet) = renamed(&ask.message, &name) else { return };
            let Ok(query) = Query::parse(&packet) else { return };
            let key = Key::of(&query);
            let Some(zone) = zones.find(key.name(), query.qtype()) else { continue };
            let Some(cache) = zone.block.cache.as_ref().filter(|cache| cache.covers(&key)) else { continue };
            let flight = FlightKey { block: zone.block.id, question: key.to_stored() };
            if self.inflight.is_flying(&flight) || self.has_answer(cache, &key) {
                continue;
            }
            if self.places.is_half_full() {
                return;
            }
            self.fetched_ahead.inc();
            let zone = zone.clone();
            let arrived_ns = clock::nanoseconds();
            self.accept(Miss { packet: packet.into(), zone, arrived_ns, stale: None, reply_to: None });
        }
    }

    /// Whether a query for `key` would not wait for the upstream. A refresh that is due is no reason to
    /// say no, but to fetch.
    fn has_answer(&self, cache: &Cache, key: &Key) -> bool {
        let mut out = self.scratch.borrow_mut();
        match cache.get(key, self.clock.now(), &mut out) {
            Lookup::Fresh { refresh, .. } | Lookup::Stale { mode: StaleMode::Immediate, refresh, .. } => {
                !refresh
            }
            Lookup::Stale { mode: StaleMode::Verify, .. } | Lookup::Miss => false,
        }
    }
}

/// The query `message` for another name, in wire octets.
fn renamed(message: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let own = Query::parse(message).ok()?.name().len();
    let (header, rest) = message.split_at_checked(HEADER)?;
    Some([header, name, rest.get(own..)?].concat())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::future::LocalBoxFuture;

    use super::super::places::Slot;
    use super::*;
    use crate::clock::{Clock, Moment};
    use crate::forward::{ClientTransport, ForwardError};
    use crate::metrics::{Registry, Transport, ZoneShard};
    use crate::server::zones::{Block, BlockId, Zones};
    use crate::server::{Client, QueryLogger, ReplyTo, Resolve, SearchAhead};
    use crate::wire::Name;

    /// Knows of no name.
    struct Nothing;

    impl Resolve for Nothing {
        fn resolve<'a>(
            &'a self,
            message: &'a [u8],
            _: &'a [u8],
            _: ClientTransport,
        ) -> LocalBoxFuture<'a, Result<Vec<u8>, ForwardError>> {
            let mut reply = message.to_vec();
            reply[2..4].copy_from_slice(&[0x81, 0x83]);
            Box::pin(async { Ok(reply) })
        }
    }

    fn zones() -> Arc<Zones> {
        let block = Block {
            id: BlockId(1),
            cache: Some(Arc::new(Cache::new(Default::default()).unwrap())),
            bufsize: None,
            log: QueryLogger::default(),
            errors: None,
            loops: None,
            search_ahead: Some(SearchAhead {
                domains: vec![Name::from_text("cluster.local").unwrap()],
                node_domains: vec![],
            }),
            empty: false,
        };
        Arc::new_cyclic(|siblings| {
            let zone = Zone {
                origin: Name::root(),
                block: Arc::new(block),
                shard: ZoneShard::detached(),
                miss_shard: ZoneShard::detached(),
                siblings: siblings.clone(),
            };
            Zones::new(vec![Arc::new(zone)], ZoneShard::detached(), true)
        })
    }

    /// Names fetched ahead of a query for `X.default.svc.cluster.local` while `busy` flights are under way.
    fn fetched_ahead(busy: usize) -> u64 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let clock = Clock::from_fn(|| Moment(1_000_000));
            let misses = Misses::new(&Registry::new(), clock, Rc::default());
            misses.set_upstreams([(BlockId(1), Rc::new(Nothing) as Rc<dyn Resolve>)].into());
            let _slots: Vec<Slot> = (0..busy).filter_map(|_| misses.places.depart()).collect();
            let zones = zones();
            let name = Name::from_text("example.com.default.svc.cluster.local").unwrap();
            let packet = [&[0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], name.as_wire(), &[0, 1, 0, 1]].concat();
            let socket = Arc::new(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
            let client =
                Client { peer: socket.local_addr().unwrap(), local: None, transport: Transport::Udp };
            misses.accept(Miss {
                packet: packet.into(),
                zone: zones.find(name.as_wire(), 1).unwrap().clone(),
                arrived_ns: 0,
                stale: None,
                reply_to: Some(ReplyTo::Udp(socket, client)),
            });
            for _ in 0..16 {
                tokio::task::yield_now().await;
            }
            assert_eq!(misses.waiting(), 0);
            misses.fetched_ahead.get()
        })
    }

    #[test]
    fn nothing_is_fetched_ahead_when_flights_are_many() {
        const HALF: usize = 4096;
        assert_eq!(fetched_ahead(0), 3);
        // Two more, and one that has landed: the last of the three finds half of the slots taken.
        assert_eq!(fetched_ahead(HALF - 3), 2);
        assert_eq!(fetched_ahead(HALF), 0);
    }
}
