//! The order in which a query tries a directive's upstreams.

use std::cell::Cell;

use super::config::Policy;
use super::random::Random;

/// A policy and its memory.
pub(super) struct Rotation {
    policy: Policy,
    turn: Cell<usize>,
}

impl Rotation {
    pub(super) fn new(policy: Policy) -> Rotation {
        Rotation { policy, turn: Cell::new(0) }
    }

    /// The indices `0..count` in the order the next query should use.
    ///
    /// Round robin moves the one whose turn it is to the front and keeps the others in the
    /// Corefile's order, as CoreDNS does.
    pub(super) fn order(&self, count: usize, random: &Random) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        match self.policy {
            Policy::Random => shuffle(&mut order, random),
            Policy::RoundRobin if count > 0 => {
                let turn = self.turn.get();
                self.turn.set((turn + 1) % count);
                order[..=turn].rotate_right(1);
            }
            Policy::RoundRobin | Policy::Sequential => {}
        }
        order
    }
}

/// Fisher and Yates's shuffle.
pub(super) fn shuffle(order: &mut [usize], random: &Random) {
    for last in (1..order.len()).rev() {
        order.swap(last, random.below(last + 1));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn round_robin_moves_one_to_the_front() {
        let rotation = Rotation::new(Policy::RoundRobin);
        let random = Random::new();
        let orders: Vec<_> = (0..4).map(|_| rotation.order(3, &random)).collect();
        assert_eq!(orders, [[0, 1, 2], [1, 0, 2], [2, 0, 1], [0, 1, 2]]);
    }

    #[test]
    fn random_reaches_every_order() {
        let rotation = Rotation::new(Policy::Random);
        let random = Random::new();
        let orders: HashSet<_> = (0..500).map(|_| rotation.order(3, &random)).collect();
        assert_eq!(orders.len(), 6);
    }

    #[test]
    fn sequential_keeps_the_order() {
        let rotation = Rotation::new(Policy::Sequential);
        let random = Random::new();
        assert_eq!(rotation.order(3, &random), [0, 1, 2]);
        assert_eq!(rotation.order(3, &random), [0, 1, 2]);
        assert!(Rotation::new(Policy::RoundRobin).order(0, &random).is_empty());
    }
}
