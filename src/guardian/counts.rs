//! What is counted outside the worker and shown by it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::message::Count;

/// Counters by what and which kind. Clones are the same counters.
#[derive(Debug, Clone)]
pub struct Counts(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    totals: BTreeMap<(&'static str, String), u64>,
    changed: bool,
}

/// The names under which they travel.
pub mod what {
    /// Failed attempts to change the node; by error type.
    pub const SETUP_ERRORS: &str = "setup-errors";
    /// Repairs; by kind.
    pub const REPAIRS: &str = "repairs";
    /// Workers started; by cause.
    pub const STARTS: &str = "starts";
    /// Queries relayed; by transport.
    pub const RELAYED: &str = "relayed";
}

impl Default for Counts {
    /// What can be repaired shows from the start, so that a first repair is an increase.
    fn default() -> Counts {
        let repairs = ["link", "address", "rule"].map(|kind| ((what::REPAIRS, kind.to_owned()), 0));
        Counts(Arc::new(Mutex::new(Inner { totals: repairs.into(), changed: false })))
    }
}

impl Counts {
    /// Adds `n`.
    pub fn add(&self, what: &'static str, label: &str, n: u64) {
        if n == 0 {
            return;
        }
        let mut inner = self.lock();
        *inner.totals.entry((what, label.to_owned())).or_default() += n;
        inner.changed = true;
    }

    /// All of them.
    pub fn all(&self) -> Vec<Count> {
        let inner = self.lock();
        let count = |((what, label), total): (&(&str, String), &u64)| Count {
            what: (*what).to_owned(),
            label: label.clone(),
            total: *total,
        };
        inner.totals.iter().map(count).collect()
    }

    /// Whether there was a change since this was last asked.
    pub fn take_changed(&self) -> bool {
        std::mem::take(&mut self.lock().changed)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
