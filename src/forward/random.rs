//! Unpredictable numbers: message ids (RFC 5452 §9.2), shuffles, jitter.

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use rustls::crypto::SecureRandom;

/// Numbers per refill: one getrandom(2) for this many.
const REFILL: usize = 256;

/// The kernel's random numbers, fetched in batches.
pub(super) struct Random {
    source: &'static dyn SecureRandom,
    unused: RefCell<Vec<u16>>,
}

impl Random {
    pub(super) fn new() -> Random {
        Random {
            source: rustls::crypto::ring::default_provider().secure_random,
            unused: RefCell::new(Vec::new()),
        }
    }

    /// A number nobody can guess.
    pub(super) fn number(&self) -> u16 {
        let mut unused = self.unused.borrow_mut();
        if unused.is_empty() {
            self.refill(&mut unused);
        }
        unused.pop().unwrap_or_default()
    }

    /// A number below `bound`, which must not be 0. The bias (at most `bound` / 65536) matters to
    /// nobody who shuffles or jitters.
    pub(super) fn below(&self, bound: usize) -> usize {
        usize::from(self.number()) % bound
    }

    /// `base`, a quarter more or less.
    pub(super) fn jitter(&self, base: Duration) -> Duration {
        base.mul_f64(0.75 + f64::from(self.number()) / f64::from(u16::MAX) / 2.0)
    }

    fn refill(&self, unused: &mut Vec<u16>) {
        let mut octets = [0; 2 * REFILL];
        if self.source.fill(&mut octets).is_err() {
            // No getrandom(2) and no /dev/urandom: the standard library's keyed hash still is a
            // secret of this process, and queries go on.
            for (count, pair) in octets.chunks_exact_mut(2).enumerate() {
                let [first, second, ..] = RandomState::new().hash_one(count).to_ne_bytes();
                pair.copy_from_slice(&[first, second]);
            }
        }
        let numbers = octets.chunks_exact(2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]]));
        unused.extend(numbers);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn numbers_cover_their_range() {
        let random = Random::new();
        let seen: HashSet<u16> = (0..2000).map(|_| random.number()).collect();
        assert!(seen.len() > 1900, "{} distinct numbers of 2000", seen.len());
        assert!((0..100).all(|_| random.below(3) < 3));
    }

    #[test]
    fn jitter_stays_within_a_quarter() {
        let random = Random::new();
        let base = Duration::from_secs(8);
        let spread: Vec<Duration> = (0..500).map(|_| random.jitter(base)).collect();
        assert!(spread.iter().all(|d| (6.0..=10.0).contains(&d.as_secs_f64())));
        assert!(spread.iter().any(|d| d.as_secs_f64() < 7.0));
        assert!(spread.iter().any(|d| d.as_secs_f64() > 9.0));
    }
}
