//! How connections come into a pool.

use std::iter;
use std::rc::Rc;

use tokio::time::{Instant, timeout};

use super::super::connection::BUSY;
use super::super::connection::Connection;
use super::super::dial::Stream;
use super::super::error::{Failure, Reason};
use super::super::proof;
use super::Pool;

impl Pool {
    /// Starts a connect unless one is under way. It goes on when the query that wanted it is gone.
    pub(super) fn connect(self: &Rc<Pool>, now: Instant) {
        if self.connecting.get().is_some() {
            return;
        }
        self.connecting.set(Some(now));
        let dialling = (self.dial)(self.pace.patience());
        let pool = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            let outcome = dialling.await;
            if let Some(pool) = pool.upgrade() {
                pool.connected(outcome, now);
            }
        });
    }

    fn connected(self: &Rc<Pool>, outcome: Result<Box<dyn Stream>, Failure>, started: Instant) {
        match outcome {
            Ok(stream) => {
                self.pace.succeeded(started.elapsed());
                let connection = self.open(stream);
                if self.connections.borrow().is_empty() {
                    // Who is first learns by itself what the peer is worth; and a server that takes one
                    // query per connection takes ours.
                    self.admit(&connection);
                } else {
                    self.try_out(connection);
                }
            }
            Err(failure) => self.turned_away(failure),
        }
    }

    fn turned_away(&self, failure: Failure) {
        self.connecting.set(None);
        let unconnected = self.pace.failed(failure, Instant::now());
        for waiter in self.waiters.take() {
            // A waiter that is gone has been cancelled.
            let _ = waiter.send(Err(unconnected.clone()));
        }
    }

    /// Admits a connection once it shows a sign of life: no query is spent on a backend that is dead, or
    /// slower than usual, as long as there are others. Where they show no life either it comes in, too, if
    /// queries wait for it; what it owes keeps it behind the others.
    fn try_out(self: &Rc<Pool>, connection: Rc<Connection>) {
        let wanted = !self.waiters.borrow().is_empty();
        let (pool, began, patience) = (Rc::downgrade(self), Instant::now(), self.patience.get());
        tokio::task::spawn_local(async move {
            let alive = timeout(patience, proof::is_alive(&connection)).await;
            let Some(pool) = pool.upgrade() else { return connection.retire() };
            let others_live =
                || pool.connections.borrow().iter().any(|connection| connection.was_heard_since(began));
            match alive {
                Ok(true) => pool.admit(&connection),
                Err(_) if wanted && !others_live() => {
                    pool.connecting.set(None);
                    pool.connections.borrow_mut().push(Rc::clone(&connection));
                    pool.hand_out(&connection);
                }
                Ok(false) | Err(_) => {
                    connection.retire();
                    pool.turned_away(pool.failure(Reason::Closed));
                }
            }
        });
    }

    fn admit(self: &Rc<Pool>, connection: &Rc<Connection>) {
        self.connecting.set(None);
        self.succeed(Instant::now());
        self.connections.borrow_mut().push(Rc::clone(connection));
        self.hand_out(connection);
    }

    /// Gives a new connection to the first who waits. The others get one each, too, as far as there may
    /// be more; the rest share what there is.
    fn hand_out(self: &Rc<Pool>, connection: &Rc<Connection>) {
        let now = Instant::now();
        if self.may_spread(now) {
            loop {
                let Some(waiter) = self.waiters.borrow_mut().pop_front() else { return };
                // A waiter that is gone has been cancelled.
                if waiter.send(Ok(Rc::clone(connection))).is_ok() {
                    break;
                }
            }
            if !self.waiters.borrow().is_empty() {
                self.connect(now);
            }
            return;
        }
        // The new one first: nobody uses it yet. None of those that may be dead.
        let connections = self.connections.borrow();
        let lives = |other: &&Rc<Connection>| other.silence(now) <= BUSY && !Rc::ptr_eq(other, connection);
        let shared = iter::once(connection).chain(connections.iter().rev().filter(lives));
        for (waiter, connection) in self.waiters.take().into_iter().zip(shared.cycle()) {
            let _ = waiter.send(Ok(Rc::clone(connection)));
        }
    }

    /// Retires the oldest connection if it has had its time: a new one is here.
    fn succeed(&self, now: Instant) {
        let mut connections = self.connections.borrow_mut();
        if let Some(oldest) = connections.extract_if(.., |connection| connection.is_aged(now)).next() {
            oldest.retire();
        }
    }
}
