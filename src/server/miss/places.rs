//! The bounds of what waits for upstreams.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::metrics::{Counter, Gauge, Registry, names};
use crate::server::clients::{Clients, Pass};
use crate::server::refusals::Refusals;

/// Queries that wait at most; one more is REFUSED. Together they take some 12 MiB.
const MAX_WAITING: usize = 32_768;
/// Of these, one client's at most.
const CLIENT_SHARE: u32 = 1024;
/// Different questions at most; a query that would be one more is REFUSED. Together they take some
/// 42 MiB while nobody answers: a flight costs far more than one who waits for it.
const MAX_FLIGHTS: usize = 8192;

/// Gives places out and takes them back.
pub(super) struct Places {
    clients: Clients,
    waiting: Limited,
    flights: Limited,
    refused_share: Arc<Counter>,
    refusals: Arc<Refusals>,
}

/// One who waits, and one of its client's share.
pub(super) struct Place {
    places: Rc<Places>,
    _pass: Option<Pass>,
}

/// A flight in the air.
pub(super) struct Slot(Rc<Places>);

struct Limited {
    limit: usize,
    count: Cell<usize>,
    gauge: Arc<Gauge>,
    refused: Arc<Counter>,
}

impl Places {
    /// All free. Counts in `registry` and tells `refusals`.
    pub(super) fn new(registry: &Registry, refusals: Arc<Refusals>) -> Rc<Places> {
        let limited = |limit, gauge, queue| Limited {
            limit,
            count: Cell::new(0),
            gauge,
            refused: registry.counter(&names::QUEUE_OVERFLOWS, [queue]),
        };
        Rc::new(Places {
            clients: Clients::new(CLIENT_SHARE),
            waiting: limited(MAX_WAITING, registry.gauge(&names::MISSES_INFLIGHT, []), "waiting"),
            flights: limited(MAX_FLIGHTS, registry.gauge(&names::FLIGHTS, []), "flights"),
            refused_share: registry.counter(&names::CLIENT_REFUSALS, []),
            refusals,
        })
    }

    /// How many wait now.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.count.get()
    }

    /// Whether there is no room for what `client` can do without.
    pub(super) fn is_half_full(&self, client: IpAddr) -> bool {
        self.clients.is_half_full(client)
            || [&self.waiting, &self.flights].iter().any(|limited| limited.count.get() * 2 >= limited.limit)
    }

    /// A place for a query of `client`; `None` when it, or all together, have theirs.
    pub(super) fn enter(self: &Rc<Self>, client: Option<IpAddr>) -> Option<Place> {
        let pass = match client {
            None => None,
            Some(client) => match self.clients.enter(client) {
                Some(pass) => Some(pass),
                None => {
                    self.refused_share.inc();
                    self.refusals.note(client, "it has too many misses under way");
                    return None;
                }
            },
        };
        self.waiting.enter().then(|| Place { places: self.clone(), _pass: pass })
    }

    /// A slot for one more question; `None` when all are taken.
    pub(super) fn depart(self: &Rc<Self>) -> Option<Slot> {
        self.flights.enter().then(|| Slot(self.clone()))
    }
}

impl Limited {
    fn enter(&self) -> bool {
        if self.count.get() >= self.limit {
            self.refused.inc();
            return false;
        }
        self.count.set(self.count.get() + 1);
        self.gauge.add(1);
        true
    }

    fn leave(&self) {
        self.count.set(self.count.get() - 1);
        self.gauge.add(-1);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.waiting.leave();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.flights.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back() {
        let registry = Registry::new();
        let places = Places::new(&registry, Arc::default());
        let client = |last| Some(IpAddr::from([10, 0, 0, last]));
        let idle = IpAddr::from([10, 0, 0, 3]);
        let greedy: Vec<Place> = (0..2 * CLIENT_SHARE).filter_map(|_| places.enter(client(1))).collect();
        assert_eq!(greedy.len(), CLIENT_SHARE as usize);
        assert!(places.enter(client(2)).is_some());
        let refreshes: Vec<Place> = std::iter::from_fn(|| places.enter(None)).collect();
        assert_eq!(greedy.len() + refreshes.len(), MAX_WAITING);
        assert!(places.enter(client(2)).is_none());
        drop((greedy, refreshes));
        assert_eq!(places.waiting(), 0);
        assert!(!places.is_half_full(idle));
        let half: Vec<Slot> = (0..MAX_FLIGHTS / 2).filter_map(|_| places.depart()).collect();
        assert!(places.is_half_full(idle));
        drop(half);
        assert!(!places.is_half_full(idle));
        let slots: Vec<Slot> = std::iter::from_fn(|| places.depart()).collect();
        assert_eq!(slots.len(), MAX_FLIGHTS);
        drop(slots);
        assert!(places.depart().is_some());
    }
}
