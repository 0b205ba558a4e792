//! How fast each client may go on.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;

/// Clients remembered before those that need not be are looked for.
const MIN_SWEEP: usize = 1024;

/// A client is alone when no other one was seen for this long, in nanoseconds.
const ALONE: u64 = 1_000_000_000;

/// Somebody sends too much if he was refused in this time, in nanoseconds.
const EXCESS: u64 = 100_000_000;

/// A bound on each client's rate, with bursts (the generic cell rate algorithm of ITU-T I.371). A client
/// that is alone takes nothing from anybody and is not bounded.
///
/// Of a client is kept when it would have sent its last query at the steady rate. A client for which
/// that is in the past is as good as unknown.
pub struct Rates {
    /// Nanoseconds between two queries at the steady rate.
    interval: u64,
    /// How far a client may be ahead of it, in nanoseconds.
    tolerance: u64,
    due: RefCell<HashMap<IpAddr, u64, foldhash::fast::RandomState>>,
    sweep_at: Cell<usize>,
    /// Who was seen last, and until when nobody is alone.
    last: Cell<Option<IpAddr>>,
    company_until: Cell<u64>,
    /// Until when it matters that a client was refused.
    excess_until: Cell<u64>,
}

impl Rates {
    /// Lets each client have `rate` queries a second, and `burst` at once.
    pub fn new(rate: u64, burst: u64) -> Rates {
        let interval = 1_000_000_000 / rate;
        let tolerance = interval * burst.saturating_sub(1);
        Rates {
            interval,
            tolerance,
            due: RefCell::default(),
            sweep_at: Cell::new(MIN_SWEEP),
            last: Cell::new(None),
            company_until: Cell::new(0),
            excess_until: Cell::new(0),
        }
    }

    /// Whether one more query of `client` keeps to its rate at `now`, in nanoseconds on the monotonic
    /// clock. One that does not is not counted.
    pub fn allows(&self, client: IpAddr, now: u64) -> bool {
        if self.is_alone(client, now) {
            return true;
        }
        let mut due = self.due.borrow_mut();
        if due.len() >= self.sweep_at.get() {
            due.retain(|_, due| *due > now);
            self.sweep_at.set(MIN_SWEEP.max(2 * due.len()));
        }
        let due = due.entry(client).or_insert(now);
        let ahead = due.saturating_sub(now);
        if ahead > self.tolerance {
            self.excess_until.set(now + EXCESS);
            return false;
        }
        *due = now + ahead + self.interval;
        true
    }

    /// Which of the queries of a batch can wait until the others are answered: a bit for each, 64 at most, by
    /// the clients who sent them. Those can who have used up their burst, or nearly so, while anybody has.
    #[inline]
    pub fn who_can_wait(&self, clients: impl Iterator<Item = Option<IpAddr>>, now: u64) -> u64 {
        if now >= self.excess_until.get() {
            return 0;
        }
        let due = self.due.borrow();
        let is_ahead =
            |client| due.get(&client).is_some_and(|due| due.saturating_sub(now) > self.tolerance / 2);
        let waits = |client: Option<IpAddr>| client.is_some_and(is_ahead);
        clients.enumerate().fold(0, |all, (place, client)| all | u64::from(waits(client)) << place)
    }

    fn is_alone(&self, client: IpAddr, now: u64) -> bool {
        if self.last.replace(Some(client)).is_some_and(|last| last != client) {
            self.company_until.set(now + ALONE);
        }
        now >= self.company_until.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn client(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let rates = Rates::new(100, 10);
        let allowed = |client, now| (0..50).filter(|_| rates.allows(client, now)).count();
        assert_eq!(allowed(client(1), 0), 50, "it is alone");
        assert!(rates.allows(client(3), SECOND));
        assert_eq!(allowed(client(1), SECOND), 10);
        assert_eq!(allowed(client(2), SECOND), 10, "each has its own");
        assert_eq!(allowed(client(1), SECOND + SECOND / 20), 5);
        assert!(rates.allows(client(3), 3 * SECOND));
        assert_eq!(allowed(client(1), 3 * SECOND), 10, "no more is saved up");
        assert_eq!(allowed(client(1), 4 * SECOND), 50, "alone again");
    }

    #[test]
    fn who_keeps_to_the_rate_is_never_refused() {
        let rates = Rates::new(1000, 2);
        assert!((0..10_000).all(|number| {
            rates.allows(client(2), number * SECOND / 1000) && rates.allows(client(1), number * SECOND / 1000)
        }));
    }

    #[test]
    fn who_sends_too_much_waits_for_the_others() {
        let rates = Rates::new(1000, 10);
        let batch = [2, 1, 1, 3, 1].map(|number| Some(client(number)));
        let waiting = |now| rates.who_can_wait(batch.into_iter().chain([None]), now);
        assert!(rates.allows(client(2), SECOND) && rates.allows(client(1), SECOND));
        let within = (0..5).all(|_| rates.allows(client(1), SECOND));
        assert_eq!((within, waiting(SECOND)), (true, 0), "nobody was refused");
        while rates.allows(client(1), SECOND) {}
        assert_eq!(waiting(SECOND), 0b10110);
        assert_eq!(waiting(SECOND + SECOND / 50), 0, "within its burst again");
    }

    #[test]
    fn those_who_need_not_be_remembered_are_forgotten() {
        let rates = Rates::new(1000, 10);
        for number in 0..100_000 {
            assert!(rates.allows(client(number), u64::from(number) * SECOND / 1_000_000));
        }
        assert!(rates.due.borrow().len() <= 2 * MIN_SWEEP, "a thousand are within the interval");
    }
}
