//! Whether an upstream is worth asking.
//!
//! ```text
//!                 a query failed or went unanswered too long
//!          ┌────┐ ──────────────────────────────────────────► ┌─────────┐ ◄─┐ a probe failed,
//!          │ Up │                                             │ Suspect │ ──┘ max_fails not passed
//!          └────┘ ◄────────────────────────────────────────── └─────────┘
//!            ▲           a probe or a query was answered           │ a probe failed,
//!            │                                                     ▼ max_fails passed
//!            │        a probe or a query was answered          ┌──────┐ ◄─┐
//!            └──────────────────────────────────────────────── │ Down │ ──┘ a probe failed
//!                                                              └──────┘
//! ```
//!
//! As in CoreDNS, failed queries only start the probing and failed probes are what counts: a name
//! that the upstream cannot resolve takes nothing down. `max_fails 0` means no probes, always up.

use std::cell::Cell;

/// What is known about an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Health {
    /// Nothing is held against it.
    Up,
    /// It failed lately and is being probed; others are asked first.
    Suspect,
    /// It is asked only when every upstream is down.
    Down,
}

/// The machine above, for one upstream.
pub(super) struct HealthState {
    max_fails: u32,
    health: Cell<Health>,
    /// Probes failed in a row.
    fails: Cell<u32>,
    probing: Cell<bool>,
}

impl HealthState {
    pub(super) fn new(max_fails: u32) -> HealthState {
        HealthState {
            max_fails,
            health: Cell::new(Health::Up),
            fails: Cell::new(0),
            probing: Cell::new(false),
        }
    }

    pub(super) fn get(&self) -> Health {
        self.health.get()
    }

    /// A query failed. True if the caller has to start probing now, until
    /// [`probe_ended`](HealthState::probe_ended) says stop.
    pub(super) fn suspect(&self) -> bool {
        if self.max_fails == 0 {
            return false;
        }
        if self.health.get() == Health::Up {
            self.health.set(Health::Suspect);
        }
        !self.probing.replace(true)
    }

    /// A query was answered.
    pub(super) fn answered(&self) {
        self.health.set(Health::Up);
        self.fails.set(0);
    }

    /// Whether a probe is still needed: a query may have been answered since it was planned.
    pub(super) fn needs_probe(&self) -> bool {
        let needed = self.health.get() != Health::Up;
        self.probing.set(needed);
        needed
    }

    /// A probe was answered or not. True if probing goes on.
    pub(super) fn probe_ended(&self, answered: bool) -> bool {
        if answered {
            self.answered();
        } else {
            self.fails.set(self.fails.get().saturating_add(1));
            if self.fails.get() > self.max_fails {
                self.health.set(Health::Down);
            }
        }
        self.probing.set(!answered);
        !answered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failed_probes_take_an_upstream_down_and_one_success_brings_it_back() {
        let state = HealthState::new(2);
        assert!(state.suspect());
        assert!(!state.suspect(), "one prober is enough");
        for expected in [Health::Suspect, Health::Suspect, Health::Down, Health::Down] {
            assert!(state.probe_ended(false));
            assert_eq!(state.get(), expected);
        }
        assert!(!state.probe_ended(true));
        assert_eq!(state.get(), Health::Up);
        assert!(state.suspect(), "probing starts afresh");
    }

    #[test]
    fn an_answer_clears_the_record() {
        let state = HealthState::new(1);
        state.suspect();
        state.probe_ended(false);
        state.answered();
        assert_eq!(state.get(), Health::Up);
        assert!(!state.needs_probe());
        assert!(state.suspect());
        state.probe_ended(false);
        assert_eq!(state.get(), Health::Suspect);
    }

    #[test]
    fn max_fails_0_never_probes() {
        let state = HealthState::new(0);
        assert!(!state.suspect());
        assert_eq!(state.get(), Health::Up);
    }
}
