//! One pipelined connection: many queries in flight, answers in any order (RFC 7766 §6.2.1.1).
//!
//! ```text
//!  exchange ─push─► outbox ─┐                  ┌─► stream
//!  exchange ─push─►         ├─ driver (a task) ┤
//!  exchange ◄─oneshot─ id ──┘                  └── stream
//! ```
//!
//! The driver alone touches the stream. A wake-up costs it the frames that came or go, never a look
//! at everything in flight.

mod driver;
mod in_flight;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::dial::Stream;
use super::error::Reason;
use super::flow::Flow;
use super::frame::FrameWriter;
use super::latency::MIN_PATIENCE;
use super::message;
use super::metrics::{Metrics, Protocol};
use super::random::Random;
use driver::Driver;
use in_flight::{Delivery, InFlight};

/// Octets waiting to be written at most.
const MAX_OUTBOX: usize = 1 << 20;
/// A peer that owes an answer and is silent for longer is busy with something slow, if it answers in order.
pub(super) const BUSY: Duration = Duration::from_millis(5);
/// Frames nobody asked for, in a row, that a peer may send.
const MAX_STRAYS: u32 = 256;

/// Why a connection did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken {
    /// What happened to it.
    pub(super) reason: Reason,
    /// Whether it had answered anything before. Then the peer merely closed a connection it was
    /// done with, and the query deserves a fresh one.
    pub(super) reused: bool,
}

/// A connection, shared by the queries on it and the pool.
///
/// It closes when it was idle for [`Remote::expire`], when it was [retired](Connection::retire) and nothing
/// waits any more, when the peer closes or breaks it, or when told to.
pub(super) struct Connection {
    serial: u64,
    opened: Instant,
    /// When it should make room for a new one.
    aged: Instant,
    remote: Rc<Remote>,
    state: RefCell<State>,
}

/// What the connections to one upstream have in common.
pub(super) struct Remote {
    /// Its address.
    pub(super) to: SocketAddr,
    /// What the connections speak.
    pub(super) protocol: Protocol,
    /// A connection closes when it was idle for this long.
    pub(super) expire: Duration,
    /// A connection that carried so many queries makes room for a new one.
    pub(super) max_queries: Option<u64>,
    /// When an answer last came before that to an earlier query on the same connection.
    pub(super) overtaken: Cell<Option<Instant>>,
    /// How fast its answers come.
    pub(super) flow: Flow,
    /// When an answer last came for which the peer had been silent for more than [`BUSY`].
    pub(super) slow: Cell<Option<Instant>>,
    pub(super) random: Rc<Random>,
    pub(super) metrics: Rc<dyn Metrics>,
}

struct State {
    in_flight: InFlight,
    answered: bool,
    strays: u32,
    outbox: FrameWriter,
    driver: Option<Waker>,
    retired: bool,
    closed: Option<Reason>,
    heard: Option<Instant>,
    /// When the first query was sent since the peer was last heard.
    silent_since: Option<Instant>,
    /// How long that had been the last time it was heard.
    lag: Duration,
    idle_since: Instant,
}

impl Connection {
    /// Starts a connection to `remote` on an open stream. Must run inside a
    /// [`tokio::task::LocalSet`].
    ///
    /// After `max_age` the pool replaces it.
    pub(super) fn start(
        stream: impl Stream + 'static,
        remote: &Rc<Remote>,
        serial: u64,
        max_age: Duration,
    ) -> Rc<Connection> {
        let now = Instant::now();
        let connection = Rc::new(Connection {
            serial,
            opened: now,
            aged: now + max_age,
            remote: Rc::clone(remote),
            state: RefCell::new(State::new(now)),
        });
        tokio::task::spawn_local(Driver::new(stream, Rc::clone(&connection)));
        connection
    }

    /// Sends `query` and waits for an answer to `question`, which is the query's, under its id.
    /// The reply carries the query's own id again. Dropping the future gives the query up.
    ///
    /// What comes under the id but answers another question is ignored, and so is the hurt it could
    /// do to the others on this connection.
    pub(super) async fn exchange(&self, query: &[u8], question: &[u8]) -> Result<Vec<u8>, Broken> {
        let ticket = self.send(query, question)?;
        let answer = poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            state.in_flight.poll_answer(ticket.id, context)
        });
        let mut reply = answer.await.ok_or_else(|| self.broken())?;
        message::set_id(&mut reply, message::id(query));
        Ok(reply)
    }

    fn send(&self, query: &[u8], question: &[u8]) -> Result<Ticket<'_>, Broken> {
        if !self.is_open() {
            return Err(self.broken());
        }
        let mut state = self.state.borrow_mut();
        if state.is_full() {
            return Err(Broken { reason: Reason::Busy, reused: false });
        }
        let id = state.in_flight.add(question, &self.remote.random);
        state.silent_since.get_or_insert_with(Instant::now);
        state.outbox.push(id, query);
        state.wake_driver();
        Ok(Ticket { connection: self, id })
    }

    /// Takes no more queries; closes once nobody waits.
    pub(super) fn retire(&self) {
        let mut state = self.state.borrow_mut();
        state.retired = true;
        state.wake_driver();
    }

    /// Breaks the connection for everyone on it.
    pub(super) fn close(&self, reason: Reason) {
        let mut state = self.state.borrow_mut();
        state.closed.get_or_insert(reason);
        state.in_flight.close();
        state.wake_driver();
    }

    /// A number of its own within its pool.
    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    /// Whether it takes queries.
    pub(super) fn is_open(&self) -> bool {
        let state = self.state.borrow();
        state.closed.is_none() && !state.retired
    }

    /// Whether one more query would be too many.
    pub(super) fn is_full(&self) -> bool {
        self.state.borrow().is_full()
    }

    /// Whether it lived longer, or served more queries, than it should.
    pub(super) fn is_aged(&self, now: Instant) -> bool {
        let worn = || self.remote.max_queries.is_some_and(|max| self.state.borrow().in_flight.sent() >= max);
        now >= self.aged || worn()
    }

    /// Queries the peer has yet to answer.
    pub(super) fn load(&self) -> usize {
        self.state.borrow().in_flight.unanswered()
    }

    /// Whether it has answered nothing but, perhaps, a question about its life.
    pub(super) fn is_untried(&self) -> bool {
        let state = self.state.borrow();
        state.in_flight.sent().saturating_sub(state.in_flight.unanswered() as u64) <= 1
    }

    /// How long the peer has owed an answer without sending any.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        let since = self.state.borrow().silent_since;
        since.map_or(Duration::ZERO, |since| now - since)
    }

    /// Whether the peer, when last heard, had owed an answer for so long that others get impatient.
    pub(super) fn was_late(&self) -> bool {
        self.lag() > MIN_PATIENCE
    }

    /// How long the peer, when last heard, had owed an answer without sending any.
    pub(super) fn lag(&self) -> Duration {
        self.state.borrow().lag
    }

    /// When the peer last answered anything.
    pub(super) fn heard(&self) -> Option<Instant> {
        self.state.borrow().heard
    }

    /// Whether anything was ever answered on it.
    pub(super) fn has_answered(&self) -> bool {
        self.state.borrow().answered
    }

    /// Whether an answer came in the time `span` before `now`.
    pub(super) fn heard_within(&self, span: Duration, now: Instant) -> bool {
        self.state.borrow().heard.is_some_and(|heard| now - heard <= span)
    }

    /// Whether the peer has answered anything at `then` or later. That it took a connection proves
    /// little: its kernel did.
    pub(super) fn was_heard_since(&self, then: Instant) -> bool {
        self.state.borrow().heard.is_some_and(|at| at >= then)
    }

    fn broken(&self) -> Broken {
        let state = self.state.borrow();
        Broken { reason: state.closed.clone().unwrap_or(Reason::Closed), reused: state.answered }
    }
}

impl State {
    fn new(now: Instant) -> State {
        State {
            in_flight: InFlight::default(),
            answered: false,
            strays: 0,
            outbox: FrameWriter::default(),
            driver: None,
            retired: false,
            closed: None,
            heard: None,
            silent_since: None,
            lag: Duration::ZERO,
            idle_since: now,
        }
    }

    fn is_full(&self) -> bool {
        self.in_flight.is_full() || self.outbox.len() >= MAX_OUTBOX
    }

    fn wake_driver(&self) {
        if let Some(driver) = &self.driver {
            driver.wake_by_ref();
        }
    }

    /// Hands a frame to whoever waits for it. `None`: nobody asked for it.
    fn deliver(&mut self, frame: &[u8], now: Instant) -> Result<Option<Delivery>, Reason> {
        let Some(delivery) = self.in_flight.deliver(frame) else {
            self.strays += 1;
            return if self.strays > MAX_STRAYS { Err(Reason::Garbage) } else { Ok(None) };
        };
        self.strays = 0;
        self.answered = true;
        self.heard = Some(now);
        self.lag = self.silent_since.map_or(Duration::ZERO, |since| now - since);
        self.silent_since = (self.in_flight.unanswered() > 0).then_some(now);
        if self.in_flight.waiting() == 0 {
            self.idle_since = now;
        }
        Ok(Some(delivery))
    }
}

/// One query's place; dropping it before the answer gives the answer up.
struct Ticket<'a> {
    connection: &'a Connection,
    id: u16,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut state = self.connection.state.borrow_mut();
        if !state.in_flight.give_up(self.id) || state.in_flight.waiting() > 0 {
            return;
        }
        state.idle_since = Instant::now();
        if state.retired {
            state.wake_driver();
        }
    }
}

#[cfg(test)]
mod tests;
