//! Questions that are with the upstream, and who waits for each.

use std::cell::RefCell;
use std::collections::HashMap;

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
/// with who asked first.
pub struct Inflight<W> {
    flights: RefCell<HashMap<FlightKey, Vec<W>, foldhash::fast::RandomState>>,
}

impl<W> Default for Inflight<W> {
    fn default() -> Inflight<W> {
        Inflight { flights: RefCell::default() }
    }
}

impl<W> Inflight<W> {
    /// Adds `waiter` to the flight `key`, or gives it back if there is none.
    pub fn follow(&self, key: &FlightKey, waiter: W) -> Option<W> {
        match self.flights.borrow_mut().get_mut(key) {
            Some(waiters) => {
                waiters.push(waiter);
                None
            }
            None => Some(waiter),
        }
    }

    /// Starts the flight `key`, which nobody follows yet.
    pub fn lead(&self, key: FlightKey) {
        self.flights.borrow_mut().insert(key, Vec::new());
    }

    /// Takes those off the flight `key` for whom `leaves` holds. The flight goes on.
    pub fn leave(&self, key: &FlightKey, mut leaves: impl FnMut(&W) -> bool) -> Vec<W> {
        match self.flights.borrow_mut().get_mut(key) {
            Some(waiters) => waiters.extract_if(.., |waiter| leaves(waiter)).collect(),
            None => Vec::new(),
        }
    }

    /// Whether the flight `key` is under way.
    pub fn is_flying(&self, key: &FlightKey) -> bool {
        self.flights.borrow().contains_key(key)
    }

    /// Ends the flight `key` and gives back who followed.
    pub fn land(&self, key: &FlightKey) -> Vec<W> {
        self.flights.borrow_mut().remove(key).unwrap_or_default()
    }
}
