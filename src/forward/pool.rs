//! The connections to one upstream.
//!
//! A few, not one: CoreDNS answers each connection in order, so a slow name holds up what is behind
//! it. Not one a query: handshakes cost both sides. They live for a while only, because a Service's
//! address hands out its pods when connections open, and new pods should get their share.

mod opening;
mod pace;

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};

use super::connection::{BUSY, Connection, Remote};
use super::dial::{Dial, Stream};
use super::error::{Failure, Operation, Reason};
use super::latency::MIN_PATIENCE;
use super::proof;
use pace::{MIN_PAUSE, Pace};

/// Connections in ordinary use.
const MAX_CONNECTIONS: usize = 4;
/// Connections in all. Where a peer answers each in order, as CoreDNS does, a slow name takes one for
/// itself: so many names of a second each may be asked for in a second.
const MAX_TOTAL: usize = 64;
/// Queries in flight on a connection whose answers are flowing, before the next one is used.
const FLOWING: usize = 32;
/// A connection is flowing if an answer came within this: longer than the thread rests between two turns under
/// load.
const FRESH: Duration = Duration::from_micros(2600);
/// A peer that let one answer overtake another will do so again, for this long at least. So will one that was busy.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Nor is it tested again before that.
const TEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a query that would have to go behind something slow waits for a connection of its own.
const SPREAD_PATIENCE: Duration = Duration::from_millis(50);
/// The age at which a connection is replaced, a quarter more or less.
const MAX_AGE: Duration = Duration::from_secs(10);
/// Connections are not replaced faster. Under load they wear out sooner, and then each minute has a
/// thousand chances for each of a Service's pods to come to its share.
const RENEWAL: Duration = Duration::from_millis(60);
/// A connection that owes an answer and is silent for this long is given up.
const MAX_SILENCE: Duration = Duration::from_secs(2);

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

pub(super) type Outcome = Result<Rc<Connection>, Unconnected>;

/// See the [module](self).
pub(super) struct Pool {
    remote: Rc<Remote>,
    dial: Dial,
    connections: RefCell<Vec<Rc<Connection>>>,
    serial: Cell<u64>,
    /// When the peer was last tested for answering in order.
    tested: Cell<Option<Instant>>,
    /// When a connection was last replaced for its age.
    renewed: Cell<Instant>,
    /// Since when a connect is under way: there is never more than one.
    connecting: Cell<Option<Instant>>,
    /// Who waits for it.
    waiters: RefCell<VecDeque<oneshot::Sender<Outcome>>>,
    /// How long the upstream may be silent before it is late, as the latest query had it.
    patience: Cell<Duration>,
    pace: Pace,
    /// Whether connections are being asked for a sign of life, when that began, and news of it.
    pub(super) proving: Cell<bool>,
    pub(super) proof_began: Cell<Option<Instant>>,
    pub(super) proof: Notify,
}

impl Pool {
    pub(super) fn new(remote: Rc<Remote>, dial: Dial) -> Rc<Pool> {
        Rc::new(Pool {
            remote,
            dial,
            connections: RefCell::default(),
            serial: Cell::new(0),
            tested: Cell::new(None),
            renewed: Cell::new(Instant::now()),
            connecting: Cell::new(None),
            waiters: RefCell::default(),
            patience: Cell::new(MIN_PATIENCE),
            pace: Pace::new(),
            proving: Cell::new(false),
            proof_began: Cell::new(None),
            proof: Notify::new(),
        })
    }

    /// A connection to send one query on: an unused one, a new one, or the least loaded one.
    ///
    /// One whose peer has been silent for `patience` although it owes an answer is avoided.
    pub(super) async fn acquire(
        self: &Rc<Pool>,
        need: Need,
        patience: impl FnOnce() -> Duration,
        now: Instant,
    ) -> Outcome {
        if let Some(flowing) = self.flowing(need, now) {
            self.remote.metrics.connection_reused(self.remote.to, self.remote.protocol);
            return Ok(flowing);
        }
        // In a box, or each of the queries in flight would carry the room for it.
        Box::pin(self.find(need, patience(), now)).await
    }

    /// As [`Pool::acquire`], where there is something to think about.
    async fn find(self: &Rc<Pool>, need: Need, patience: Duration, now: Instant) -> Outcome {
        self.patience.set(patience);
        self.prune(now);
        let need = self.tightened(need, now);
        let Some(best) = self.choose(need, patience, now) else {
            return match need.alive_since {
                Some(then) => self.acquire_proven(need, then).await,
                None => self.acquire_new(now).await,
            };
        };
        if best.is_aged(now) && now >= self.renewed.get() + RENEWAL && self.pace.refusal(now).is_none() {
            self.renewed.set(now);
            self.connect(now);
        }
        self.test_order(now);
        if best.load() == 0 || self.flows(&best, now) || !self.may_spread(now) {
            self.remote.metrics.connection_reused(self.remote.to, self.remote.protocol);
            return Ok(best);
        }
        if let Some(another) = self.acquire_another(need, now).await {
            return Ok(another);
        }
        self.remote.metrics.connection_reused(self.remote.to, self.remote.protocol);
        // What was best may have become busier, or closed, in the meantime.
        Ok(self.choose(need, patience, Instant::now()).unwrap_or(best))
    }

    /// Under load, what there is nothing to think about: the first connection on which answers flow, unless
    /// the time has come to replace it.
    fn flowing(&self, need: Need, now: Instant) -> Option<Rc<Connection>> {
        if need.avoid.is_some() || need.alive_since.is_some() {
            return None;
        }
        let connections = self.connections.borrow();
        let flowing =
            connections.iter().find(|connection| self.flows(connection, now) && connection.is_open())?;
        let stays = now < self.renewed.get() + RENEWAL || !flowing.is_aged(now);
        stays.then(|| Rc::clone(flowing))
    }

    /// After a break, too, the other connections have to show that they live: they may end as the first
    /// one did. A new one need not where there are no others: a server may take one query on each.
    fn tightened(&self, need: Need, now: Instant) -> Need {
        let broke = need.avoid.is_some() && need.alive_since.is_none();
        let alive_since =
            if broke && !self.connections.borrow().is_empty() { Some(now) } else { need.alive_since };
        Need { alive_since, ..need }
    }

    /// Waits for a connect, starting it if need be.
    async fn acquire_new(self: &Rc<Pool>, now: Instant) -> Outcome {
        if self.connecting.get().is_none()
            && let Some(unconnected) = self.pace.refusal(now)
        {
            return Err(unconnected);
        }
        let (sender, outcome) = oneshot::channel();
        self.waiters.borrow_mut().push_back(sender);
        self.connect(now);
        self.remote.metrics.connection_opened(self.remote.to, self.remote.protocol);
        outcome.await.unwrap_or_else(|_| {
            Err(Unconnected { failure: self.failure(Reason::Closed), retry_at: now + MIN_PAUSE })
        })
    }

    /// Drops what is closed and retires what is silent.
    fn prune(&self, now: Instant) {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| {
            if connection.silence(now) > MAX_SILENCE {
                connection.retire();
            }
            connection.is_open()
        });
    }

    fn choose(&self, need: Need, patience: Duration, now: Instant) -> Option<Rc<Connection>> {
        let connections = self.connections.borrow();
        let fitting = connections.iter().filter(|connection| {
            !connection.is_full()
                && need.avoid != Some(connection.serial())
                && need.alive_since.is_none_or(|then| connection.was_heard_since(then))
        });
        let load = |connection: &Connection| if self.flows(connection, now) { 0 } else { connection.load() };
        // Where life matters the latest sign of it counts: an idle connection may have died since its own.
        let proof = |connection: &Connection| need.alive_since.and(Some(Reverse(connection.heard())));
        // Equals go to the first, so that the others get idle and expire.
        let (stalled, best) = fitting
            .map(|connection| (connection.silence(now) > patience, connection))
            .min_by_key(|(stalled, connection)| {
                let is_busy = self.is_busy(connection, now);
                (*stalled, proof(connection), is_busy, load(connection), connection.was_late())
            })?;
        let room = connections.len() < MAX_TOTAL && self.pace.refusal(now).is_none();
        (!stalled || !room).then(|| Rc::clone(best))
    }

    /// The least loaded connection on which the peer was heard at `then` or later.
    pub(super) fn heard_since(&self, need: Need, then: Instant) -> Option<Rc<Connection>> {
        self.choose(Need { alive_since: Some(then), ..need }, Duration::MAX, Instant::now())
    }

    /// Connections whose peer has not owed an answer for as long as `span`.
    pub(super) fn silent_less_than(&self, span: Duration) -> Vec<Rc<Connection>> {
        let (now, connections) = (Instant::now(), self.connections.borrow());
        let promising = |connection: &&Rc<Connection>| {
            connection.is_open() && !connection.is_full() && connection.silence(now) < span
        };
        connections.iter().filter(promising).cloned().collect()
    }

    /// One more connection, whoever else is connecting.
    pub(super) async fn connect_beside(&self) -> Option<Rc<Connection>> {
        if self.connections.borrow().len() >= MAX_TOTAL {
            return None;
        }
        self.remote.metrics.connection_opened(self.remote.to, self.remote.protocol);
        let stream = (self.dial)(self.pace.patience()).await.ok()?;
        let connection = self.open(stream);
        self.connections.borrow_mut().push(Rc::clone(&connection));
        Some(connection)
    }

    /// A new connection, waited for as long as what there is to go behind may be slow, or is. A connect that
    /// takes longer may lead to a backend that is dead.
    async fn acquire_another(self: &Rc<Pool>, need: Need, now: Instant) -> Option<Rc<Connection>> {
        if self.connecting.get().is_some_and(|since| now > since + SPREAD_PATIENCE) {
            return None;
        }
        let mut another = pin!(self.acquire_new(now));
        if let Ok(outcome) = timeout(BUSY, &mut another).await {
            return outcome.ok();
        }
        let now = Instant::now();
        if self.choose(need, MIN_PATIENCE, now).is_some_and(|best| !self.is_busy(&best, now)) {
            return None;
        }
        timeout(SPREAD_PATIENCE - BUSY, another).await.ok()?.ok()
    }

    /// Whether one more connection may be opened although there is one to use: a few that are not busy are
    /// enough. One on which nothing was ever answered is not busy but bad, and more may be as bad.
    fn may_spread(&self, now: Instant) -> bool {
        let connections = self.connections.borrow();
        let is_busy =
            |connection: &&Rc<Connection>| connection.has_answered() && self.is_busy(connection, now);
        let busy = || connections.iter().filter(is_busy).count();
        connections.len() < MAX_TOTAL
            && (connections.len() < MAX_CONNECTIONS || connections.len() < MAX_CONNECTIONS + busy())
            && self.pace.refusal(now).is_none()
    }

    /// Finds out whether a peer that seems busy answers in order: if it does not, it answers this before
    /// what it owes.
    fn test_order(&self, now: Instant) {
        let connections = self.connections.borrow();
        if connections.len() < MAX_CONNECTIONS || self.tested.get().is_some_and(|at| now < at + TEST_PAUSE) {
            return;
        }
        if let Some(busy) = connections.iter().find(|connection| self.is_busy(connection, now)).cloned() {
            self.tested.set(Some(now));
            tokio::task::spawn_local(async move { proof::is_alive(&busy).await });
        }
    }

    /// Whether what is sent on `connection` would wait behind something slow. Where the last answer was slow, the
    /// next is taken to be so, too: what comes in one burst would else be behind it before that shows.
    fn is_busy(&self, connection: &Connection, now: Instant) -> bool {
        let lately = |at: Option<Instant>| at.is_some_and(|at| now < at + REMEMBERED);
        let was_slow =
            || connection.lag() > BUSY || connection.is_untried() && lately(self.remote.slow.get());
        (connection.silence(now) > BUSY || connection.load() > 0 && was_slow())
            && !lately(self.remote.overtaken.get())
    }

    /// Whether a query on `connection` will not wait for long although others are before it. Under load,
    /// queries that share a connection share its writes and reads; a slow one among them stops the flow,
    /// and the next query goes elsewhere. An answer that took long is no sign that the next will not.
    fn flows(&self, connection: &Connection, now: Instant) -> bool {
        connection.load() < FLOWING
            && connection.heard_within(FRESH, now)
            && connection.lag() <= BUSY
            && self.remote.flow.is_fast(now)
    }

    fn open(&self, stream: Box<dyn Stream>) -> Rc<Connection> {
        let serial = self.serial.get();
        self.serial.set(serial + 1);
        let max_age = self.remote.random.jitter(MAX_AGE);
        Connection::start(stream, &self.remote, serial, max_age)
    }

    pub(super) fn failure(&self, reason: Reason) -> Failure {
        let Remote { to, protocol, .. } = *self.remote;
        Failure { operation: Operation::Dial, protocol, to, reason }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for connection in self.connections.get_mut() {
            connection.retire();
        }
    }
}

#[cfg(test)]
mod tests;
