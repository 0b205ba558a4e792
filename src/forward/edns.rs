//! Which upstreams do not know EDNS.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// How long an upstream is asked without EDNS once it has shown that it does not know it: a resolver
/// behind the same address may be replaced by a better one.
const MEMORY: Duration = Duration::from_secs(300);

/// What one upstream showed (RFC 6891 §6.2.2 asks for such a memory).
#[derive(Default)]
pub(super) struct EdnsMemory {
    rejected: Cell<Option<Instant>>,
    accepted: Cell<Option<Instant>>,
}

impl EdnsMemory {
    /// A query with EDNS was not rejected.
    pub(super) fn accepted(&self, now: Instant) {
        self.accepted.set(Some(now));
    }

    /// A query was answered without EDNS after it had been rejected with it. Of a server that accepts EDNS for
    /// other names this says nothing.
    pub(super) fn rejected(&self, now: Instant) {
        if self.accepted.get().is_none_or(|at| now >= at + MEMORY) {
            self.rejected.set(Some(now));
        }
    }

    /// Whether to ask without EDNS.
    pub(super) fn avoids(&self, now: Instant) -> bool {
        self.rejected.get().is_some_and(|at| now < at + MEMORY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_is_remembered_for_a_while() {
        let now = Instant::now();
        let memory = EdnsMemory::default();
        assert!(!memory.avoids(now));
        memory.rejected(now);
        assert!(memory.avoids(now + Duration::from_secs(299)));
        assert!(!memory.avoids(now + Duration::from_secs(300)));
    }

    #[test]
    fn one_name_says_nothing_of_the_others() {
        let now = Instant::now();
        let memory = EdnsMemory::default();
        memory.accepted(now);
        memory.rejected(now + Duration::from_secs(1));
        assert!(!memory.avoids(now + Duration::from_secs(2)));
        memory.rejected(now + Duration::from_secs(300));
        assert!(memory.avoids(now + Duration::from_secs(301)));
    }
}
