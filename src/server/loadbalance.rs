//! `loadbalance`: each reply has a name's addresses in another order.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

use super::config::LoadBalance;
use crate::wire::Balance;

/// Odd, so that all seeds come before one comes again.
const STEP: u64 = 0xd134_2543_de82_ef95;

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
}

impl LoadBalance {
    /// The order of one reply.
    pub(super) fn draw(&self) -> Balance<'_> {
        let last = match SEED.get() {
            0 => RandomState::new().hash_one(0),
            last => last,
        };
        let seed = last.wrapping_add(STEP);
        SEED.set(seed);
        Balance { seed, prefer: &self.prefer }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_differ() {
        let draw = || LoadBalance::default().draw().seed;
        let elsewhere = std::thread::spawn(draw).join().unwrap();
        let drawn = std::collections::HashSet::from([draw(), draw(), draw(), elsewhere]);
        assert_eq!(drawn.len(), 4);
    }
}
