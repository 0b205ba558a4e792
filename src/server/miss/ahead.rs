//! Fetching what a pod that goes through its search path will ask for next.

use std::net::IpAddr;
use std::rc::Rc;

use super::{Ask, Miss, Misses, Resolve};
use crate::clock;
use crate::server::inflight::FlightKey;
use crate::server::zones::Zone;
use crate::wire::{HEADER, Key, Query};

impl<R: Resolve> Misses<R> {
    /// Starts what is still to be fetched of the search path that begins with the name of `ask`, a query
    /// to the block of `zone` whose name does not exist. Each name is asked for where the pod's own query
    /// would be, and counts against the share of `client`.
    pub(super) fn fetch_ahead(self: &Rc<Self>, zone: &Zone, ask: &Ask, client: IpAddr) {
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
            if self.inflight.is_flying(&flight) || cache.holds(&key, self.clock.now()) {
                continue;
            }
            if self.places.is_half_full(client) {
                return;
            }
            self.fetched_ahead.inc();
            let zone = zone.clone();
            let arrived_ns = clock::nanoseconds();
            self.accept_for(Some(client), Miss::new(&packet, zone, arrived_ns, None, None));
        }
    }
}

/// The query `message` for another name, in wire octets.
fn renamed(message: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let own = Query::parse(message).ok()?.name().len();
    let (header, rest) = message.split_at_checked(HEADER)?;
    Some([header, name, rest.get(own..)?].concat())
}
