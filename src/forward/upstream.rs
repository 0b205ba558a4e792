//! One upstream server: its pool, its sockets, its health, its speed.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::config::{Config, HealthCheck, Target, Transport};
use super::connection::{Connection, Remote};
use super::datagram::Datagrams;
use super::dial::{Dial, dialer};
use super::edns::EdnsMemory;
use super::error::{Error, Failure, Operation, Reason};
use super::flow::Flow;
use super::health::{Health, HealthState};
use super::latency::Latency;
use super::message::{self, Query};
use super::metrics::{Metrics, Protocol};
use super::pool::{Need, Pool, Unconnected};
use super::random::Random;
use super::tls;
use crate::wire::HEADER;

/// Messages one upstream gets for one client query, at most.
pub(super) const MAX_ATTEMPTS: u8 = 2;
/// The full answer to a truncated one must come within this, else the truncated one is good enough.
const MAX_FOLLOW_UP: Duration = Duration::from_secs(1);
/// Queries after which a connection makes room for a new one. An uneven share hurts where the load
/// is heavy, and that is where this comes long before its maximum age: from 500 queries a second on as
/// often as the pool allows, which makes a thousand connections a minute.
const MAX_QUERIES: u64 = 32;
/// Each step of a probe, connect and answer, must end within this.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// See the [module](self).
pub(super) struct Upstream {
    remote: Rc<Remote>,
    pool: Rc<Pool>,
    datagrams: Datagrams,
    latency: Latency,
    edns: EdnsMemory,
    health: HealthState,
    /// When anything was last answered.
    answered: Cell<Option<Instant>>,
    last_probe: Cell<Option<Instant>>,
    prober: Prober,
    itself: Weak<Upstream>,
}

/// What probing takes.
struct Prober {
    check: HealthCheck,
    /// Over UDP unless the directive says TCP or the upstream speaks TLS.
    over_udp: bool,
    dial: Dial,
}

/// How an attempt failed.
#[derive(Debug)]
pub(super) enum Attempt {
    /// Nothing was sent: there is no connection.
    Unconnected(Unconnected),
    /// The query was sent, or could not be.
    Failed(Failure),
}

/// What one client query has done at one upstream so far.
#[derive(Default)]
pub(super) struct Tally {
    /// Messages sent or about to be.
    sent: Cell<u8>,
    /// Attempts that wait for a connection.
    dialling: Cell<u8>,
    /// The connection used last, and when; no time if it broke, and so is not silent.
    last: Cell<Option<(u64, Option<Instant>)>>,
}

impl Tally {
    /// Whether one more message may go out.
    pub(super) fn has_room(&self) -> bool {
        self.sent.get() < MAX_ATTEMPTS
    }

    /// Whether an attempt waits for a connection: another one would only wait beside it.
    pub(super) fn is_dialling(&self) -> bool {
        self.dialling.get() > 0
    }

    /// Messages sent or about to be.
    pub(super) fn sent(&self) -> u8 {
        self.sent.get()
    }

    /// Leaves no room for another message.
    pub(super) fn exhaust(&self) {
        self.sent.set(MAX_ATTEMPTS);
    }

    /// Counts one more message if there is room. It has to come before anything that may wait: two
    /// attempts must not take the same place.
    pub(super) fn claim(&self) -> bool {
        let room = self.has_room();
        self.sent.set(self.sent.get() + u8::from(room));
        room
    }

    fn hand_back(&self) {
        self.sent.set(self.sent.get() - 1);
    }

    /// The second message wants another connection than the first, and one that is alive if that was silent.
    fn need(&self) -> Need {
        match self.last.get() {
            None => Need::default(),
            Some((serial, at)) => Need { alive_since: at, avoid: Some(serial) },
        }
    }
}

impl Upstream {
    /// `tls` is the directive's TLS configuration, needed if the target is a `tls://` one.
    pub(super) fn new(
        target: &Target,
        config: &Config,
        tls: Option<&Arc<ClientConfig>>,
        random: &Rc<Random>,
        metrics: &Rc<dyn Metrics>,
    ) -> Result<Rc<Upstream>, Error> {
        let to = target.address;
        let tls = match tls.filter(|_| target.tls) {
            Some(tls) => Some((Arc::clone(tls), tls::server_name(target, &config.tls)?)),
            None => None,
        };
        let stream_protocol = if tls.is_some() { Protocol::Tls } else { Protocol::Tcp };
        let prober = Prober {
            check: config.health_check.clone(),
            over_udp: tls.is_none() && config.transport != Transport::ForceTcp,
            dial: dialer(to, tls.clone()),
        };
        let remote = Remote {
            to,
            protocol: stream_protocol,
            expire: config.expire,
            // A TLS handshake costs a thousand queries.
            max_queries: tls.is_none().then_some(MAX_QUERIES),
            overtaken: Cell::default(),
            flow: Flow::default(),
            slow: Cell::default(),
            random: Rc::clone(random),
            metrics: Rc::clone(metrics),
        };
        let remote = Rc::new(remote);
        let pool = Pool::new(Rc::clone(&remote), dialer(to, tls));
        Ok(Rc::new_cyclic(|itself| Upstream {
            remote,
            pool,
            datagrams: Datagrams::new(to, Rc::clone(random)),
            latency: Latency::new(),
            edns: EdnsMemory::default(),
            health: HealthState::new(config.max_fails),
            answered: Cell::new(None),
            last_probe: Cell::new(None),
            prober,
            itself: itself.clone(),
        }))
    }

    /// Its address.
    pub(super) fn address(&self) -> SocketAddr {
        self.remote.to
    }

    /// What a query to it travels over: TLS whatever is asked for, if it is a `tls://` upstream.
    pub(super) fn protocol(&self, datagram: bool) -> Protocol {
        if datagram && self.remote.protocol != Protocol::Tls { Protocol::Udp } else { self.remote.protocol }
    }

    /// What is known about its health.
    pub(super) fn health(&self) -> Health {
        self.health.get()
    }

    /// How long to wait for it, from `now`, before asking someone else too.
    pub(super) fn patience(&self, now: Instant) -> Duration {
        self.latency
            .patience(self.answered.get().map_or(Duration::ZERO, |at| now.saturating_duration_since(at)))
    }

    /// Whether it has answered nothing since `then`.
    pub(super) fn is_silent_since(&self, then: Instant) -> bool {
        self.answered.get().is_none_or(|at| at < then)
    }

    /// One attempt at an answer, begun `now`: at most [`MAX_ATTEMPTS`] messages together with what `tally`
    /// counts already, the first one of this attempt included. A connection that had answered before and
    /// broke is replaced at once; a truncated datagram is followed up over TCP; a server that rejects EDNS
    /// is asked without.
    ///
    /// Waits without end for a silent server: the caller holds the clock.
    pub(super) async fn attempt(
        &self,
        query: &Query<'_>,
        datagram: bool,
        tally: &Tally,
        now: Instant,
    ) -> Result<Vec<u8>, Attempt> {
        let datagram = self.protocol(datagram) == Protocol::Udp;
        let send = async |message: &[u8], now| {
            if datagram {
                self.by_datagram(message, query, tally).await
            } else {
                self.by_stream(message, query, tally, now).await
            }
        };
        let plain = self.edns.avoids(now).then(|| query.without_opt());
        let message = plain.as_deref().unwrap_or(query.message());
        let mut reply = send(message, now).await?;
        if plain.is_none() && !query.edns_is_rejected_by(&reply) {
            self.edns.accepted(now);
        } else if plain.is_none()
            && tally.claim()
            && let Ok(answer) = send(&query.without_opt(), Instant::now()).await
        {
            if !query.edns_is_rejected_by(&answer) {
                self.edns.rejected(Instant::now());
            }
            reply = answer;
        }
        if datagram
            && message::is_truncated(&reply)
            && tally.claim()
            && let Ok(Ok(full)) =
                timeout(MAX_FOLLOW_UP, self.by_stream(message, query, tally, Instant::now())).await
        {
            reply = full;
        }
        self.note_answer(&reply, now);
        Ok(reply)
    }

    async fn by_datagram(
        &self,
        message: &[u8],
        query: &Query<'_>,
        tally: &Tally,
    ) -> Result<Vec<u8>, Attempt> {
        tally.last.set(None);
        self.remote.metrics.connection_opened(self.remote.to, Protocol::Udp);
        let reply = self.datagrams.exchange(message, |reply| query.is_answered_by(reply));
        reply.await.map_err(Attempt::Failed)
    }

    async fn by_stream(
        &self,
        message: &[u8],
        query: &Query<'_>,
        tally: &Tally,
        mut now: Instant,
    ) -> Result<Vec<u8>, Attempt> {
        loop {
            let connection = self.connection(tally, now).await?;
            let serial = connection.serial();
            tally.last.set(Some((serial, Some(Instant::now()))));
            let reason = match connection.exchange(message, query.question()).await {
                Ok(reply) => {
                    // It may carry the follow-up too.
                    tally.last.set(None);
                    return Ok(reply);
                }
                Err(broken) => {
                    tally.last.set(Some((serial, None)));
                    if broken.reused && tally.claim() {
                        self.remote.metrics.retried(self.remote.to);
                        now = Instant::now();
                        continue;
                    }
                    broken.reason
                }
            };
            return Err(Attempt::Failed(self.failure(reason)));
        }
    }

    /// A connection for one message, which `tally` counts unless there is none.
    async fn connection(&self, tally: &Tally, now: Instant) -> Result<Rc<Connection>, Attempt> {
        tally.dialling.set(tally.dialling.get() + 1);
        let acquired = self.pool.acquire(tally.need(), || self.patience(now), now).await;
        tally.dialling.set(tally.dialling.get() - 1);
        acquired.map_err(|unconnected| {
            tally.hand_back();
            Attempt::Unconnected(unconnected)
        })
    }

    fn note_answer(&self, reply: &[u8], started: Instant) {
        let now = Instant::now();
        let took = now - started;
        self.answered.set(Some(now));
        self.health.answered();
        self.latency.observe(took);
        self.remote.metrics.answered(self.remote.to, message::rcode(reply), took);
    }

    fn failure(&self, reason: Reason) -> Failure {
        Failure { operation: Operation::Read, protocol: self.remote.protocol, to: self.remote.to, reason }
    }

    /// A query failed here: probes it, unless that is under way, until something is answered.
    pub(super) fn suspect(&self) {
        if self.health.suspect() {
            tokio::task::spawn_local(probe_until_up(self.itself.clone()));
        }
    }

    /// When the next probe is due: not sooner than an interval after the last one.
    fn next_probe(&self) -> Instant {
        let now = Instant::now();
        let last = self.last_probe.get();
        last.map_or(now, |last| now.max(last + self.prober.check.interval))
    }

    /// One probe. Any answer to its question is good: it need not know the name.
    async fn probe(&self) -> bool {
        self.last_probe.set(Some(Instant::now()));
        let message = self.prober.message();
        let question = &message[HEADER..];
        if self.prober.over_udp {
            let answer = self.datagrams.exchange(&message, |reply| message::answers(reply, question));
            return matches!(timeout(PROBE_TIMEOUT, answer).await, Ok(Ok(_)));
        }
        let Ok(stream) = (self.prober.dial)(PROBE_TIMEOUT).await else {
            return false;
        };
        let connection = Connection::start(stream, &self.remote, 0, PROBE_TIMEOUT);
        let answer = timeout(PROBE_TIMEOUT, connection.exchange(&message, question)).await;
        connection.retire();
        matches!(answer, Ok(Ok(_)))
    }
}

impl Prober {
    /// `DOMAIN IN NS`, a query without EDNS.
    fn message(&self) -> Vec<u8> {
        let recursion_desired = u8::from(self.check.recursion_desired);
        let mut message = vec![0, 0, recursion_desired, 0, 0, 1];
        message.resize(HEADER, 0);
        message.extend(self.check.domain.as_wire());
        message.extend([0, 2, 0, 1]);
        message
    }
}

/// The prober's task. It ends when the upstream is up or gone.
async fn probe_until_up(upstream: Weak<Upstream>) {
    let Some(due) = upstream.upgrade().map(|upstream| upstream.next_probe()) else {
        return;
    };
    sleep_until(due).await;
    loop {
        let Some(upstream) = upstream.upgrade().filter(|up| up.health.needs_probe()) else {
            return;
        };
        let answered = upstream.probe().await;
        if !answered {
            upstream.remote.metrics.probe_failed(upstream.remote.to);
        }
        if !upstream.health.probe_ended(answered) {
            return;
        }
        let interval = upstream.prober.check.interval;
        drop(upstream);
        sleep(interval).await;
    }
}
