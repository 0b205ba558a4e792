//! One client query's way through a directive's upstreams.
//!
//! ```text
//!   first upstream ──┬─ answered ──────────────► done      (or the next one, on a `failover` code)
//!                    ├─ failed ────────────────► next upstream at once
//!                    └─ silent for `patience` ─► next upstream too; the first one still counts
//! ```
//!
//! No attempt is given up before the query's deadline: an answer that took 3 s is still an answer.
//! What keeps this cheap is that each upstream gets two messages at most, whatever it sends.

mod attempts;

use std::cell::Cell;
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::directive::Directive;
use super::error::{Failure, ForwardError, Reason};
use super::health::Health;
use super::message::{self, Query};
use super::metrics::Protocol;
use super::policy;
use super::upstream::{Attempt, Tally, Upstream};
use attempts::Attempts;

/// An upstream that cannot be connected to is tried again, after a pause, for this long: the next
/// connection to a Service may reach a backend that is alive.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);

/// A datagram without an answer for this long is taken to be lost, and sent again whatever hedges may cost:
/// CoreDNS does so after 2 s.
const LOSS: Duration = Duration::from_secs(1);

/// The attempts of one query; see the [module](self).
pub(super) struct Exchange<'a> {
    directive: &'a Directive,
    query: &'a Query<'a>,
    /// Whether the query goes by UDP where it can.
    datagram: bool,
    /// In the policy's order.
    entrants: &'a [Entrant],
    /// Whether those that are down are asked too, because all are.
    ask_down: bool,
    started: Instant,
    deadline: Instant,
    connects_failed: u32,
    last_reply: Option<Vec<u8>>,
    last_failure: Option<Failure>,
    last_asked: usize,
}

/// An upstream in one exchange, with the count of what it got. Attempts share it with the loop.
pub(super) struct Entrant {
    upstream: Rc<Upstream>,
    tally: Tally,
    progress: Cell<Progress>,
}

/// For one or two of them, which is what most directives name, nothing is allocated.
pub(super) type Entrants = SmallVec<[Entrant; 2]>;

/// What the loop knows of an entrant.
#[derive(Clone, Copy, Default)]
struct Progress {
    /// When the latest attempt began; `None` when none is running.
    asked_at: Option<Instant>,
    running: u32,
    /// After a failed connect: not before.
    retry_at: Option<Instant>,
    /// Cannot be connected to.
    out: bool,
}

/// Whom to ask next.
enum Next {
    Upstream(usize),
    /// Somebody, then.
    At(Instant),
    Nobody,
}

type Outcome = (usize, Result<Vec<u8>, Attempt>);

impl Entrant {
    /// All of a directive's upstreams, in the order in which this query should try them.
    pub(super) fn all(directive: &Directive) -> Entrants {
        let entrant = |upstream: &Rc<Upstream>| Entrant {
            upstream: Rc::clone(upstream),
            tally: Tally::default(),
            progress: Cell::default(),
        };
        let mut entrants: Entrants = directive.upstreams.iter().map(entrant).collect();
        directive.rotation.arrange(&mut entrants, &directive.random);
        entrants
    }

    fn change(&self, change: impl FnOnce(&mut Progress)) {
        let mut progress = self.progress.get();
        change(&mut progress);
        self.progress.set(progress);
    }

    fn is_silent_since(&self, then: Instant) -> bool {
        self.upstream.is_silent_since(then)
    }
}

impl<'a> Exchange<'a> {
    /// For the `time` given. Fails at once if all upstreams are down and the directive wants that.
    pub(super) fn new(
        directive: &'a Directive,
        query: &'a Query<'a>,
        datagram: bool,
        entrants: &'a mut [Entrant],
        time: Range<Instant>,
    ) -> Result<Exchange<'a>, ForwardError> {
        let ask_down = entrants.iter().all(|entrant| entrant.upstream.health() == Health::Down);
        if ask_down {
            directive.metrics.all_down();
            if directive.config.failfast_all_unhealthy || entrants.is_empty() {
                return Err(ForwardError::AllDown);
            }
            policy::shuffle(entrants, &directive.random);
        }
        Ok(Exchange {
            directive,
            query,
            datagram,
            entrants,
            ask_down,
            started: time.start,
            deadline: time.end,
            connects_failed: 0,
            last_reply: None,
            last_failure: None,
            last_asked: 0,
        })
    }

    /// Runs until there is an answer, nobody is left to ask, or the time is over.
    pub(super) async fn run(&mut self) -> Result<Vec<u8>, ForwardError> {
        let deadline = self.deadline;
        let place = pin!(None);
        let mut attempts = Attempts::new(place);
        let mut alarm = self.directive.alarms.lend(deadline);
        // When silence becomes suspicious, and how many times it did.
        let mut hedge_at = deadline;
        let mut hedges = 0;
        let mut hedging = false;
        let mut wanted = true;
        let mut now = self.started;
        loop {
            if now >= deadline {
                return self.timed_out();
            }
            let mut wake_at = hedge_at;
            if wanted {
                match self.next(now) {
                    Next::Upstream(index) => {
                        self.begin(index, now, hedging);
                        let entrant = &self.entrants[index];
                        attempts.add(attempt(index, entrant, self.query, self.datagram, now));
                        wanted = false;
                        hedge_at = self.hedge_at(now, hedges);
                        wake_at = hedge_at;
                    }
                    Next::At(at) => wake_at = at.min(hedge_at),
                    Next::Nobody if attempts.is_empty() => return self.failed(),
                    // Perhaps later: an attempt that still waits for a connection bars others.
                    Next::Nobody => {
                        wanted = false;
                        hedge_at = self.hedge_at(now, hedges);
                        wake_at = hedge_at;
                    }
                }
            }
            alarm.set(wake_at);
            match attempts.first(&mut alarm).await {
                Some((index, outcome)) => {
                    if let Some(reply) = self.note(index, outcome) {
                        return Ok(reply);
                    }
                    (wanted, hedging) = (true, false);
                }
                None if wake_at == hedge_at => {
                    self.suspect_the_silent();
                    hedges += 1;
                    (wanted, hedging) = (self.may_hedge(wake_at), true);
                    hedge_at = self.hedge_at(wake_at, hedges);
                }
                None => {}
            }
            now = Instant::now();
        }
    }

    /// The best upstream that may still be asked: healthy before suspect, fewer messages before
    /// more, and then the policy's order.
    fn next(&self, now: Instant) -> Next {
        let limit = self.directive.config.max_connect_attempts;
        if limit > 0 && self.connects_failed >= limit {
            return Next::Nobody;
        }
        let mut earliest: Option<Instant> = None;
        let askable = (0..self.entrants.len()).filter(|&index| {
            let entrant = &self.entrants[index];
            let retry_at = entrant.progress.get().retry_at.filter(|at| *at > now);
            let may = self.may_ask(entrant);
            if let Some(at) = retry_at.filter(|_| may) {
                earliest = Some(earliest.map_or(at, |earliest| earliest.min(at)));
            }
            may && retry_at.is_none()
        });
        let best = askable.min_by_key(|&index| {
            let entrant = &self.entrants[index];
            (entrant.upstream.health(), entrant.tally.sent())
        });
        match (best, earliest) {
            (Some(index), _) => Next::Upstream(index),
            (None, Some(at)) => Next::At(at),
            (None, None) => Next::Nobody,
        }
    }

    /// When to ask somebody else too, unless an answer comes. Doubling: when all are slow, asking
    /// the rest sooner helps nobody.
    fn hedge_at(&self, now: Instant, hedges: u32) -> Instant {
        let upstream = &self.entrants[self.last_asked].upstream;
        let patience = upstream.patience(now) * (1 << hedges.min(5));
        (now + patience).min(self.deadline)
    }

    fn may_ask(&self, Entrant { upstream, tally, progress }: &Entrant) -> bool {
        !progress.get().out
            && tally.has_room()
            && !tally.is_dialling()
            && (self.ask_down || upstream.health() != Health::Down)
    }

    fn begin(&mut self, index: usize, now: Instant, hedging: bool) {
        let entrant = &self.entrants[index];
        entrant.change(|progress| {
            progress.asked_at = Some(now);
            progress.running += 1;
        });
        self.last_asked = index;
        let claimed = entrant.tally.claim();
        debug_assert!(claimed, "only those with room are chosen");
        let to = entrant.upstream.address();
        if hedging {
            self.directive.metrics.hedged(to);
        } else if self.last_failure.is_some() || self.last_reply.is_some() {
            self.directive.metrics.retried(to);
        }
    }

    /// Takes note of how an attempt ended; gives the reply if it is the answer.
    fn note(&mut self, index: usize, outcome: Result<Vec<u8>, Attempt>) -> Option<Vec<u8>> {
        let entrant = &self.entrants[index];
        entrant.change(|progress| {
            progress.running -= 1;
            progress.asked_at = progress.asked_at.filter(|_| progress.running > 0);
        });
        let failure = match outcome {
            Ok(reply) => {
                if !self.directive.config.failover.contains(&message::rcode(&reply)) {
                    return Some(reply);
                }
                entrant.tally.exhaust();
                self.last_reply = Some(reply);
                return None;
            }
            Err(Attempt::Unconnected(unconnected)) => {
                self.connects_failed += 1;
                entrant.change(|progress| {
                    progress.retry_at = Some(unconnected.retry_at);
                    progress.out = unconnected.retry_at > self.started + CONNECT_PATIENCE;
                });
                unconnected.failure
            }
            Err(Attempt::Failed(failure)) => failure,
        };
        // Its being busy is our doing, not its.
        if failure.reason != Reason::Busy {
            entrant.upstream.suspect();
        }
        self.last_failure = Some(failure);
        None
    }

    /// Probes those that owe this query an answer and have answered nobody since.
    fn suspect_the_silent(&self) {
        for entrant in self.entrants {
            if entrant.progress.get().asked_at.is_some_and(|at| entrant.is_silent_since(at)) {
                entrant.upstream.suspect();
            }
        }
    }

    /// Whether a second message is worth its cost. An upstream that answers others is slow on this
    /// name, most likely; those that answer nobody are gone, and then no saving is due.
    fn may_hedge(&self, now: Instant) -> bool {
        let is_gone = self
            .entrants
            .iter()
            .all(|entrant| entrant.progress.get().asked_at.is_none_or(|at| entrant.is_silent_since(at)));
        let may = is_gone || self.is_lost(now) || self.directive.hedges.spend();
        if !may {
            let to = self.entrants[self.last_asked].upstream.address();
            self.directive.metrics.hedge_withheld(to);
        }
        may
    }

    /// Whether the query may never have reached an upstream: nobody sends a datagram again for us.
    fn is_lost(&self, now: Instant) -> bool {
        let Entrant { upstream, progress, .. } = &self.entrants[self.last_asked];
        upstream.protocol(self.datagram) == Protocol::Udp
            && progress.get().asked_at.is_some_and(|at| now >= at + LOSS)
    }

    fn timed_out(&mut self) -> Result<Vec<u8>, ForwardError> {
        let upstream = &self.entrants[self.last_asked].upstream;
        self.last_reply.take().ok_or(ForwardError::Timeout {
            protocol: upstream.protocol(self.datagram),
            to: upstream.address(),
        })
    }

    fn failed(&mut self) -> Result<Vec<u8>, ForwardError> {
        let error = self.last_failure.take().map_or(ForwardError::AllDown, ForwardError::from);
        self.last_reply.take().ok_or(error)
    }
}

async fn attempt(
    index: usize,
    entrant: &Entrant,
    query: &Query<'_>,
    datagram: bool,
    now: Instant,
) -> Outcome {
    let outcome = entrant.upstream.attempt(query, datagram, &entrant.tally, now);
    (index, outcome.await)
}
