//! Finding a connection that works when those at hand may be dead.
//!
//! A query has two messages to spend on an upstream. When the first one meets silence, the second must
//! not go the same way, and behind a Service's address a new connection may lead to the same dead
//! backend as the old one. So the connections are asked for a sign of life first, new ones too, with
//! what a health check asks. The first one that answers carries the query.

use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, timeout};

use super::connection::Connection;
use super::error::Reason;
use super::pool::{Need, Outcome, Pool, Unconnected};
use crate::wire::HEADER;

/// Answers to come: true is a sign of life.
type Signs = FuturesUnordered<Pin<Box<dyn Future<Output = bool>>>>;

/// Time between two connects, as long as nothing answers.
const STAGGER: Duration = Duration::from_millis(30);
/// Connects at most. Of two backends in random turn, three in a row are the dead one once in eight times.
const MAX_CONNECTS: usize = 4;
/// Nothing is waited for any longer.
const PATIENCE: Duration = Duration::from_millis(500);
/// Before that, nobody looks again.
const PAUSE: Duration = Duration::from_millis(250);
/// `. IN NS`, a query without EDNS: whatever the answer is, it must be one to this question.
const PROBE: [u8; 17] = [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];

impl Pool {
    /// A connection other than the one to avoid on which the peer was heard at `then` or later.
    pub(super) async fn acquire_proven(self: &Rc<Pool>, need: Need, then: Instant) -> Outcome {
        // One that is under way will do if it asked after `then`; otherwise one that begins now.
        let asked = if self.proving.get() { then } else { Instant::now() };
        loop {
            let news = self.proof.notified();
            if let Some(connection) = self.heard_since(need, then) {
                return Ok(connection);
            }
            if !self.proving.get() {
                if self.proof_began.get().is_some_and(|at| at >= asked) {
                    let failure = self.failure(Reason::Timeout);
                    return Err(Unconnected { failure, retry_at: Instant::now() + PAUSE });
                }
                self.proving.set(true);
                self.proof_began.set(Some(Instant::now()));
                tokio::task::spawn_local(prove(Rc::clone(self)));
            }
            news.await;
        }
    }
}

/// Asks all connections, and new ones one after the other, until one answers.
async fn prove(pool: Rc<Pool>) {
    let end = Instant::now() + PATIENCE;
    let asked = pool.silent_less_than(STAGGER).into_iter();
    let mut signs: Signs = asked.map(|connection| sign(async { Some(connection) })).collect();
    for connects in 0.. {
        let pause =
            if connects < MAX_CONNECTS { STAGGER } else { end.saturating_duration_since(Instant::now()) };
        if any(&mut signs, pause).await || connects == MAX_CONNECTS {
            break;
        }
        let pool = Rc::clone(&pool);
        signs.push(sign(async move { pool.connect_beside().await }));
    }
    pool.proving.set(false);
    pool.proof.notify_waiters();
}

/// Whether a connection, once there, answers.
fn sign(
    connection: impl Future<Output = Option<Rc<Connection>>> + 'static,
) -> Pin<Box<dyn Future<Output = bool>>> {
    Box::pin(async {
        match connection.await {
            Some(connection) => is_alive(&connection).await,
            None => false,
        }
    })
}

/// Whether the peer answers on `connection`; waits without end for one that is silent.
pub(super) async fn is_alive(connection: &Connection) -> bool {
    connection.exchange(&PROBE, &PROBE[HEADER..]).await.is_ok()
}

/// Whether any of `signs` shows within `patience`; ends sooner when there is none left.
async fn any(signs: &mut Signs, patience: Duration) -> bool {
    let one = async {
        while let Some(alive) = signs.next().await {
            if alive {
                return true;
            }
        }
        false
    };
    timeout(patience, one).await == Ok(true)
}
