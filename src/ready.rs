//! Readiness: what the process still waits for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Ready while no [`Latch`] is held. Clones look at the same latches.
#[derive(Debug, Clone, Default)]
pub struct Ready(Arc<Mutex<Latches>>);

#[derive(Debug, Default)]
struct Latches {
    held: BTreeMap<u64, String>,
    taken: u64,
}

/// Something that has yet to happen; drop it once it has.
#[derive(Debug)]
#[must_use = "dropping the latch says that it is done"]
pub struct Latch {
    ready: Ready,
    id: u64,
}

impl Ready {
    /// Ready, until the first latch is taken.
    pub fn new() -> Ready {
        Ready::default()
    }

    /// Not ready until the latch is dropped. `name` is what operators read in `/ready`.
    ///
    /// Latches may be taken at any time: one taken for a reload makes a ready process unready.
    pub fn latch(&self, name: impl Into<String>) -> Latch {
        let mut latches = self.lock();
        latches.taken += 1;
        let id = latches.taken;
        latches.held.insert(id, name.into());
        Latch { ready: self.clone(), id }
    }

    /// The names still held, in the order in which they were taken; empty when ready.
    pub fn pending(&self) -> Vec<String> {
        self.lock().held.values().cloned().collect()
    }

    /// Whether no latch is held.
    pub fn is_ready(&self) -> bool {
        self.lock().held.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Latches> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        self.ready.lock().held.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_once_every_latch_is_dropped() {
        let ready = Ready::new();
        assert!(ready.is_ready());
        let link = ready.latch("link");
        let upstream = ready.latch("upstream");
        assert_eq!(ready.pending(), ["link", "upstream"]);
        drop(link);
        assert_eq!(ready.clone().pending(), ["upstream"]);
        assert!(!ready.is_ready());
        drop(upstream);
        assert!(ready.is_ready());
    }

    #[test]
    fn the_same_name_may_be_held_twice_and_again() {
        let ready = Ready::new();
        let first = ready.latch("reload");
        let second = ready.latch("reload");
        drop(first);
        assert_eq!(ready.pending(), ["reload"]);
        drop(second);
        let again = ready.latch("reload");
        assert!(!ready.is_ready());
        drop(again);
        assert!(ready.is_ready());
    }
}
