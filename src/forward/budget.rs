//! How many queries may be sent a second time only because their answer takes long.

use std::cell::Cell;

/// Queries that pay for one hedge: 5 %.
const PRICE: u32 = 20;
/// Hedges that may be saved up. When a backend goes silent, what it was asked in the 200 ms before
/// anybody noticed is hedged at once: 500 are 2 500 queries a second.
const SAVINGS: u32 = 500;

/// A token bucket that queries fill and hedges empty.
pub(super) struct Budget {
    /// Tokens, [`PRICE`] to a hedge.
    tokens: Cell<u32>,
}

impl Budget {
    /// A full one.
    pub(super) fn new() -> Budget {
        Budget { tokens: Cell::new(SAVINGS * PRICE) }
    }

    /// A query was asked for the first time.
    pub(super) fn earn(&self) {
        self.tokens.set((self.tokens.get() + 1).min(SAVINGS * PRICE));
    }

    /// Whether one more hedge is within the budget, which then pays for it.
    pub(super) fn spend(&self) -> bool {
        let left = self.tokens.get().checked_sub(PRICE);
        left.inspect(|left| self.tokens.set(*left)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_query_in_twenty_is_hedged_in_the_long_run() {
        let budget = Budget::new();
        let mut hedges = 0;
        for _ in 0..100_000 {
            budget.earn();
            hedges += u32::from(budget.spend());
        }
        assert!((5_000..=5_000 + SAVINGS + 1).contains(&hedges), "{hedges}");
    }

    #[test]
    fn a_burst_is_paid_from_savings() {
        let budget = Budget::new();
        let burst = (0..2 * SAVINGS).filter(|_| budget.spend()).count();
        assert_eq!(burst, SAVINGS as usize);
    }
}
