//! Questions that are with the upstream, and who waits for each.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::zones::BlockId;
use crate::wire::StoredKey;

/// The same question to the same block.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FlightKey {
    /// Whose upstreams are asked.
    pub block: BlockId,
    /// What.
    pub question: StoredKey,
}

/// The table of flights. One query goes out per key; those who ask the same meanwhile, the `W`s, wait
/// with it.
pub struct Inflight<W> {
    flights: RefCell<HashMap<Rc<FlightKey>, Vec<W>, foldhash::fast::RandomState>>,
}

impl<W> Default for Inflight<W> {
    fn default() -> Inflight<W> {
        Inflight { flights: RefCell::default() }
    }
}

/// The part a query plays in its flight.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// Nobody asked yet: go and ask.
    Leader,
    /// Somebody did: the reply will come.
    Follower,
}

impl<W> Inflight<W> {
    /// Adds `waiter` to the flight `key`, which starts here if there is none.
    pub fn join(&self, key: &Rc<FlightKey>, waiter: W) -> Part {
        let mut flights = self.flights.borrow_mut();
        if let Some(waiters) = flights.get_mut(key) {
            waiters.push(waiter);
            return Part::Follower;
        }
        flights.insert(Rc::clone(key), vec![waiter]);
        Part::Leader
    }

    /// Ends the flight `key` and gives back who waited.
    pub fn land(&self, key: &FlightKey) -> Vec<W> {
        self.flights.borrow_mut().remove(key).unwrap_or_default()
    }
}
