//! The connections to one upstream.
//!
//! A few, not one: CoreDNS answers each connection in order, so a slow name holds up what is behind
//! it. Not one a query: handshakes cost both sides. They live for a while only, because a Service's
//! address hands out its pods when connections open, and new pods should get their share.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::connection::Connection;
use super::dial::{Dial, Stream};
use super::error::{Failure, Operation, Reason};
use super::metrics::{Metrics, Protocol};
use super::random::Random;

/// Connections in ordinary use.
const MAX_CONNECTIONS: usize = 4;
/// Connections in all, when some do not answer.
const MAX_TOTAL: usize = 8;
/// Queries in flight on the least loaded connection that call for another one.
const SPREAD_AT: usize = 4;
/// The age at which a connection is replaced, a quarter more or less.
const MAX_AGE: Duration = Duration::from_secs(10);
/// A connection that owes an answer and is silent for this long is given up.
const MAX_SILENCE: Duration = Duration::from_secs(2);

const MIN_CONNECT: Duration = Duration::from_millis(300);
const MAX_CONNECT: Duration = Duration::from_secs(1);
const MIN_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_millis(250);

/// What a query demands of its connection.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Need {
    /// The peer must have shown a sign of life on it since then.
    pub(super) alive_since: Option<Instant>,
    /// Not this one.
    pub(super) avoid: Option<u64>,
}

/// No connection could be had.
#[derive(Debug, Clone)]
pub(super) struct Unconnected {
    pub(super) failure: Failure,
    /// When the next attempt is allowed.
    pub(super) retry_at: Instant,
}

type Outcome = Result<Rc<Connection>, Unconnected>;

/// See the [module](self).
pub(super) struct Pool {
    to: SocketAddr,
    protocol: Protocol,
    expire: Duration,
    dial: Dial,
    random: Rc<Random>,
    metrics: Rc<dyn Metrics>,
    connections: RefCell<Vec<Rc<Connection>>>,
    serial: Cell<u64>,
    /// Whether a connect is under way: there is never more than one.
    connecting: Cell<bool>,
    /// Who waits for it.
    waiters: RefCell<Vec<oneshot::Sender<Outcome>>>,
    pace: Pace,
}

impl Pool {
    pub(super) fn new(
        (to, protocol): (SocketAddr, Protocol),
        expire: Duration,
        dial: Dial,
        random: Rc<Random>,
        metrics: Rc<dyn Metrics>,
    ) -> Rc<Pool> {
        Rc::new(Pool {
            to,
            protocol,
            expire,
            dial,
            random,
            metrics,
            connections: RefCell::default(),
            serial: Cell::new(0),
            connecting: Cell::new(false),
            waiters: RefCell::default(),
            pace: Pace::new(),
        })
    }

    /// A connection to send one query on: the least loaded one, or a new one.
    ///
    /// One whose peer has been silent for `patience` although it owes an answer is avoided.
    pub(super) async fn acquire(self: &Rc<Pool>, need: Need, patience: Duration) -> Outcome {
        let now = Instant::now();
        self.prune(now);
        if let Some(connection) = self.choose(need, patience, now) {
            if self.wants_another(&connection, now) {
                self.connect(now);
            }
            self.metrics.connection_reused(self.to, self.protocol);
            return Ok(connection);
        }
        if !self.connecting.get()
            && let Some(unconnected) = self.pace.refusal(now)
        {
            return Err(unconnected);
        }
        let (sender, outcome) = oneshot::channel();
        self.waiters.borrow_mut().push(sender);
        self.connect(now);
        self.metrics.connection_opened(self.to, self.protocol);
        outcome.await.unwrap_or_else(|_| {
            Err(Unconnected { failure: self.failure(Reason::Closed), retry_at: now + MIN_PAUSE })
        })
    }

    /// Drops what is closed, retires what is silent, and what is old once there is a younger one.
    fn prune(&self, now: Instant) {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| {
            if connection.silence(now) > MAX_SILENCE {
                connection.retire();
            }
            connection.is_open()
        });
        if connections.iter().any(|connection| !connection.is_aged(now)) {
            for aged in connections.extract_if(.., |connection| connection.is_aged(now)) {
                aged.retire();
            }
        }
    }

    fn choose(&self, need: Need, patience: Duration, now: Instant) -> Option<Rc<Connection>> {
        let connections = self.connections.borrow();
        let fitting = connections.iter().filter(|connection| {
            !connection.is_full()
                && need.avoid != Some(connection.serial())
                && need.alive_since.is_none_or(|then| connection.alive_since(then))
        });
        // Equal loads go to the first, so that the others get idle and expire.
        let (stalled, best) = fitting
            .map(|connection| (connection.silence(now) > patience, connection))
            .min_by_key(|(stalled, connection)| (*stalled, connection.load()))?;
        let room = connections.len() < MAX_TOTAL && self.pace.refusal(now).is_none();
        (!stalled || !room).then(|| Rc::clone(best))
    }

    fn wants_another(&self, best: &Connection, now: Instant) -> bool {
        let crowded = best.load() >= SPREAD_AT;
        let spread = crowded && self.connections.borrow().len() < MAX_CONNECTIONS;
        (spread || best.is_aged(now)) && self.pace.refusal(now).is_none()
    }

    /// Starts a connect unless one is under way. It goes on when the query that wanted it is gone.
    fn connect(self: &Rc<Pool>, now: Instant) {
        if self.connecting.replace(true) {
            return;
        }
        let dialling = (self.dial)(self.pace.patience());
        let pool = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            let outcome = dialling.await;
            if let Some(pool) = pool.upgrade() {
                pool.connected(outcome, now);
            }
        });
    }

    fn connected(&self, outcome: Result<Box<dyn Stream>, Failure>, started: Instant) {
        self.connecting.set(false);
        let outcome = match outcome {
            Ok(stream) => {
                self.pace.succeeded(started.elapsed());
                Ok(self.add(stream))
            }
            Err(failure) => Err(self.pace.failed(failure, Instant::now())),
        };
        for waiter in self.waiters.take() {
            // A waiter that is gone has been cancelled.
            let _ = waiter.send(outcome.clone());
        }
    }

    fn add(&self, stream: Box<dyn Stream>) -> Rc<Connection> {
        let serial = self.serial.get();
        self.serial.set(serial + 1);
        let max_age = self.random.jitter(MAX_AGE);
        let random = Rc::clone(&self.random);
        let connection = Connection::start(stream, serial, self.expire, max_age, random);
        self.connections.borrow_mut().push(Rc::clone(&connection));
        connection
    }

    fn failure(&self, reason: Reason) -> Failure {
        Failure { operation: Operation::Dial, protocol: self.protocol, to: self.to, reason }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for connection in self.connections.get_mut() {
            connection.retire();
        }
    }
}

/// How long a connect may take, and how soon after a failed one the next may start.
struct Pace {
    /// Moving average of connect times.
    average: Cell<Duration>,
    /// Failed in a row.
    failures: Cell<u32>,
    last: RefCell<Option<Unconnected>>,
}

impl Pace {
    fn new() -> Pace {
        Pace { average: Cell::new(MIN_CONNECT / 2), failures: Cell::new(0), last: RefCell::new(None) }
    }

    /// Twice the average, within bounds: CoreDNS's rule with bounds a pod can bear. The kernel
    /// repeats a lost SYN after a second; a connect anew is sooner and may meet another backend.
    fn patience(&self) -> Duration {
        (self.average.get() * 2).clamp(MIN_CONNECT, MAX_CONNECT)
    }

    /// The last failure, while it is too soon for another attempt.
    fn refusal(&self, now: Instant) -> Option<Unconnected> {
        self.last.borrow().clone().filter(|last| now < last.retry_at)
    }

    fn succeeded(&self, elapsed: Duration) {
        self.observe(elapsed);
        self.failures.set(0);
        self.last.replace(None);
    }

    fn failed(&self, failure: Failure, now: Instant) -> Unconnected {
        if failure.reason == Reason::Timeout {
            // It may only be far away: allow more next time.
            self.observe(self.patience() * 2);
        }
        let doublings = self.failures.get().min(8);
        self.failures.set(doublings + 1);
        let unconnected =
            Unconnected { failure, retry_at: now + (MIN_PAUSE * (1 << doublings)).min(MAX_PAUSE) };
        self.last.replace(Some(unconnected.clone()));
        unconnected
    }

    fn observe(&self, sample: Duration) {
        let sample = sample.min(MAX_CONNECT);
        self.average.set((self.average.get() * 3 + sample) / 4);
    }
}

#[cfg(test)]
mod tests;
