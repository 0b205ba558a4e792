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

    /// Puts `upstreams`, which are in the Corefile's order, in the one the next query should use.
    ///
    /// Round robin moves the one whose turn it is to the front and keeps the others in the
    /// Corefile's order, as CoreDNS does.
    pub(super) fn arrange<T>(&self, upstreams: &mut [T], random: &Random) {
        match self.policy {
            Policy::Random => shuffle(upstreams, random),
            Policy::RoundRobin if !upstreams.is_empty() => {
                let turn = self.turn.get();
                self.turn.set((turn + 1) % upstreams.len());
                upstreams[..=turn].rotate_right(1);
            }
            Policy::RoundRobin | Policy::Sequential => {}
        }
    }
}

/// Fisher and Yates's shuffle.
pub(super) fn shuffle<T>(upstreams: &mut [T], random: &Random) {
    for last in (1..upstreams.len()).rev() {
        upstreams.swap(last, random.below(last + 1));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The order of `count` upstreams for the next query.
    fn order<const COUNT: usize>(rotation: &Rotation) -> [usize; COUNT] {
        let mut order = std::array::from_fn(|index| index);
        rotation.arrange(&mut order, &Random::new());
        order
    }

    #[test]
    fn round_robin_moves_one_to_the_front() {
        let rotation = Rotation::new(Policy::RoundRobin);
        let orders: Vec<[usize; 3]> = (0..4).map(|_| order(&rotation)).collect();
        assert_eq!(orders, [[0, 1, 2], [1, 0, 2], [2, 0, 1], [0, 1, 2]]);
    }

    #[test]
    fn random_reaches_every_order() {
        let rotation = Rotation::new(Policy::Random);
        let orders: HashSet<[usize; 3]> = (0..500).map(|_| order(&rotation)).collect();
        assert_eq!(orders.len(), 6);
    }

    #[test]
    fn sequential_keeps_the_order() {
        let rotation = Rotation::new(Policy::Sequential);
        assert_eq!(order(&rotation), [0, 1, 2]);
        assert_eq!(order(&rotation), [0, 1, 2]);
        assert!(order::<0>(&Rotation::new(Policy::RoundRobin)).is_empty());
    }
}
