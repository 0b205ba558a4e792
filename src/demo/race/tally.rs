//! What became of the queries of a race.

use std::time::Duration;

/// Counts of queries, two for each pair.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Queries sent, repetitions aside.
    pub queries: u64,
    /// Queries without a right answer for five seconds, after which a resolver asks again.
    pub lost: u64,
    /// Of the lost ones, those that got another answer than the right one.
    pub wrong: u64,
    /// Queries whose right answer took longer than a second.
    pub past_1s: u64,
    /// Queries whose right answer took longer than five seconds, or did not come to the repetition either.
    pub past_5s: u64,
    /// Time to the right answer, microseconds, unsorted.
    pub latencies: Vec<u32>,
}

impl Tally {
    pub(super) fn answered(&mut self, after: Duration) {
        self.past_1s += u64::from(after > Duration::from_secs(1));
        self.past_5s += u64::from(after >= super::GIVE_UP);
        self.latencies.push(u32::try_from(after.as_micros()).unwrap_or(u32::MAX));
    }

    pub(super) fn never(&mut self) {
        self.past_1s += 1;
        self.past_5s += 1;
    }

    /// Adds another race's queries.
    pub fn add(&mut self, other: &Tally) {
        self.queries += other.queries;
        self.lost += other.lost;
        self.wrong += other.wrong;
        self.past_1s += other.past_1s;
        self.past_5s += other.past_5s;
        self.latencies.extend(&other.latencies);
    }

    /// The time within which `percent` of the right answers came, microseconds (nearest rank); 0 without any.
    pub fn percentile(&self, percent: usize) -> u64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100);
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let tally = Tally { latencies: (1..=200).rev().collect(), ..Tally::default() };
        assert_eq!((tally.percentile(50), tally.percentile(99), tally.percentile(100)), (100, 198, 200));
        assert_eq!(Tally::default().percentile(50), 0);
        let one = Tally { latencies: vec![7], ..Tally::default() };
        assert_eq!((one.percentile(1), one.percentile(99)), (7, 7));
    }

    #[test]
    fn slow_answers_are_counted_by_how_slow() {
        let mut tally = Tally::default();
        for milliseconds in [1, 1000, 1001, 4999, 5000, 6200] {
            tally.answered(Duration::from_millis(milliseconds));
        }
        tally.never();
        assert_eq!((tally.past_1s, tally.past_5s, tally.latencies.len()), (5, 3, 6));
    }
}
