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

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::dial::Stream;
use super::error::Reason;
use super::frame::FrameWriter;
use super::latency::MIN_PATIENCE;
use super::message;
use super::metrics::{Metrics, Protocol};
use super::random::Random;
use driver::Driver;

/// Ids in use at most, of 65 536: a random one is free at the first or second try.
const MAX_IN_FLIGHT: usize = 4096;
/// Octets waiting to be written at most.
const MAX_OUTBOX: usize = 1 << 20;
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
    pub(super) random: Rc<Random>,
    pub(super) metrics: Rc<dyn Metrics>,
}

struct State {
    /// Every id an answer may still come for. CoreDNS answers in order, so a query that nobody
    /// waits for any more still stands before the others, and still counts.
    in_flight: HashMap<u16, Waiter, foldhash::fast::RandomState>,
    /// How many of those somebody waits for.
    waiting: usize,
    sent: u64,
    answered: bool,
    /// The latest query that was answered, by number.
    latest: u64,
    strays: u32,
    outbox: FrameWriter,
    driver: Option<Waker>,
    retired: bool,
    closed: Option<Reason>,
    heard: Option<Instant>,
    /// When the first query was sent since the peer was last heard.
    silent_since: Option<Instant>,
    /// Whether that was late the last time it was heard.
    late: bool,
    idle_since: Instant,
}

struct Waiter {
    /// Tells this query from a later one under the same id.
    number: u64,
    /// Name, type and class.
    question: Box<[u8]>,
    /// `None` once nobody waits.
    reply: Option<oneshot::Sender<Vec<u8>>>,
}

/// What a frame was.
#[derive(Debug, PartialEq, Eq)]
enum Delivery {
    /// An answer, later queries' answers not yet seen.
    InOrder,
    /// An answer to an earlier query than another answer before it.
    Overtaken,
    /// It answers nobody's question.
    Stray,
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
        let (ticket, reply) = self.send(query, question)?;
        match reply.await {
            Ok(mut reply) => {
                message::set_id(&mut reply, message::id(query));
                Ok(reply)
            }
            Err(_) => {
                drop(ticket);
                Err(self.broken())
            }
        }
    }

    fn send(
        &self,
        query: &[u8],
        question: &[u8],
    ) -> Result<(Ticket<'_>, oneshot::Receiver<Vec<u8>>), Broken> {
        if !self.is_open() {
            return Err(self.broken());
        }
        let mut state = self.state.borrow_mut();
        if state.is_full() {
            return Err(Broken { reason: Reason::Busy, reused: false });
        }
        let (reply, receiver) = oneshot::channel();
        let number = state.sent;
        let waiter = Waiter { number, question: question.into(), reply: Some(reply) };
        let id = loop {
            let id = self.remote.random.number();
            if let Entry::Vacant(free) = state.in_flight.entry(id) {
                free.insert(waiter);
                break id;
            }
        };
        state.sent += 1;
        state.waiting += 1;
        state.silent_since.get_or_insert_with(Instant::now);
        state.outbox.push(id, query);
        state.wake_driver();
        let ticket = Ticket { connection: self, id, number };
        Ok((ticket, receiver))
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
        state.in_flight.clear();
        state.waiting = 0;
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
        let worn = || self.remote.max_queries.is_some_and(|max| self.state.borrow().sent >= max);
        now >= self.aged || worn()
    }

    /// Queries the peer has yet to answer.
    pub(super) fn load(&self) -> usize {
        self.state.borrow().in_flight.len()
    }

    /// How long the peer has owed an answer without sending any.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        let since = self.state.borrow().silent_since;
        since.map_or(Duration::ZERO, |since| now - since)
    }

    /// Whether the peer, when last heard, had owed an answer for so long that others get impatient.
    pub(super) fn was_late(&self) -> bool {
        self.state.borrow().late
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
            in_flight: HashMap::default(),
            waiting: 0,
            sent: 0,
            answered: false,
            latest: 0,
            strays: 0,
            outbox: FrameWriter::default(),
            driver: None,
            retired: false,
            closed: None,
            heard: None,
            silent_since: None,
            late: false,
            idle_since: now,
        }
    }

    fn is_full(&self) -> bool {
        self.in_flight.len() >= MAX_IN_FLIGHT || self.outbox.len() >= MAX_OUTBOX
    }

    fn wake_driver(&self) {
        if let Some(driver) = &self.driver {
            driver.wake_by_ref();
        }
    }

    /// Hands a frame to whoever waits for it.
    fn deliver(&mut self, frame: &[u8], now: Instant) -> Result<Delivery, Reason> {
        let waiter = match self.in_flight.entry(message::id(frame)) {
            Entry::Occupied(entry) if message::answers(frame, &entry.get().question) => entry.remove(),
            _ => {
                self.strays += 1;
                return if self.strays > MAX_STRAYS { Err(Reason::Garbage) } else { Ok(Delivery::Stray) };
            }
        };
        self.strays = 0;
        self.answered = true;
        self.heard = Some(now);
        self.late = self.silent_since.is_some_and(|since| now - since > MIN_PATIENCE);
        self.silent_since = (!self.in_flight.is_empty()).then_some(now);
        if let Some(reply) = waiter.reply {
            self.stop_waiting(now);
            // A receiver that is gone has been cancelled in this very turn.
            let _ = reply.send(frame.to_vec());
        }
        let overtaken = waiter.number < self.latest;
        self.latest = self.latest.max(waiter.number);
        Ok(if overtaken { Delivery::Overtaken } else { Delivery::InOrder })
    }

    fn stop_waiting(&mut self, now: Instant) {
        self.waiting -= 1;
        if self.waiting == 0 {
            self.idle_since = now;
        }
    }
}

/// One query's place in the id table; dropping it before the answer gives the answer up.
struct Ticket<'a> {
    connection: &'a Connection,
    id: u16,
    number: u64,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut state = self.connection.state.borrow_mut();
        let Some(waiter) = state.in_flight.get_mut(&self.id) else {
            return;
        };
        // The id stays taken: its answer may still come and must not meet another query.
        if waiter.number == self.number && waiter.reply.take().is_some() {
            state.stop_waiting(Instant::now());
            if state.retired && state.waiting == 0 {
                state.wake_driver();
            }
        }
    }
}

#[cfg(test)]
mod tests;
