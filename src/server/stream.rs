//! DNS over TCP (RFC 7766): many queries on a connection, answers in the order they are ready.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout, timeout_at};

use super::client::Client;
use super::clients::{Clients, Pass};
use super::config::Timeouts;
use super::miss::{Miss, Misses};
use super::reply_to::{Frame, ReplySlot, ReplyTo};
use super::responder::{Outcome, Responder, Timing};
use super::scratch::scratch;
use super::zones::Zones;
use crate::clock::{self, Clock};
use crate::forward::FrameReader;
use crate::metrics::{Counter, Gauge, Registry, Transport, names};

/// Connections at most; one more is closed at once.
const MAX_CONNECTIONS: usize = 1024;
/// Of these, one client's at most.
const CLIENT_CONNECTIONS: u32 = 128;
/// Queries of one connection under way at most; then it is not read any further.
const PIPELINE: usize = 64;
/// Octets of a query at most, far above any real one; a longer frame ends the connection.
const MAX_QUERY: usize = 4096;
/// How long answers wait for each other at the end, and how often those that came are counted.
const GATHER: Duration = Duration::from_secs(1);
const COUNT: Duration = Duration::from_millis(5);
/// Pause after `accept` failed, as it does while file descriptors are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all connections share, on whatever address.
pub struct Streams {
    misses: Rc<Misses>,
    clock: Clock,
    timeouts: Timeouts,
    places: Arc<Semaphore>,
    clients: Clients,
    open: Arc<Gauge>,
    refused: Arc<Counter>,
    scratch: RefCell<Vec<u8>>,
    gathering: Cell<Option<Instant>>,
}

impl Streams {
    /// Prepares to serve; counts in `registry`.
    pub fn new(misses: Rc<Misses>, clock: Clock, timeouts: Timeouts, registry: &Registry) -> Rc<Streams> {
        Rc::new(Streams {
            misses,
            clock,
            timeouts,
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            clients: Clients::new(CLIENT_CONNECTIONS),
            open: registry.gauge(&names::TCP_CONNECTIONS, []),
            refused: registry.counter(&names::TCP_REFUSED, []),
            scratch: scratch(),
            gathering: Cell::new(None),
        })
    }

    /// Open connections.
    pub fn open(&self) -> i64 {
        self.open.get()
    }

    /// From now on a connection's answers wait for each other, a second at most, and are written together.
    ///
    /// Once the rules for queries are gone, whatever a pod sends to the ClusterIP goes to kube-dns. That includes its
    /// acknowledgement of the first answer, and kube-dns resets connections that it does not know.
    pub fn gather_answers(&self) {
        self.gathering.set(Some(Instant::now() + GATHER));
    }

    /// Accepts connections until the task is dropped. Connections live on.
    pub async fn serve(self: Rc<Self>, listener: TcpListener, zones: Arc<Zones>) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => self.start(stream, peer, zones.clone()),
                Err(error) => {
                    tracing::warn!("accept: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn start(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr, zones: Arc<Zones>) {
        let place = self.places.clone().try_acquire_owned().ok();
        let (Some(place), Some(pass)) = (place, self.clients.enter(peer.ip())) else {
            self.refused.inc();
            return;
        };
        let streams = self.clone();
        tokio::task::spawn_local(async move {
            let _open = Open::new(&streams.open, place, pass);
            // Answers are written as they come; waiting to fill a segment would only delay them.
            let _ = stream.set_nodelay(true);
            let local = stream.local_addr().ok().map(|address| address.ip());
            let client = Client { peer, local, transport: Transport::Tcp };
            streams.converse(stream, client, zones).await;
        });
    }

    async fn converse(&self, stream: TcpStream, client: Client, zones: Arc<Zones>) {
        let (reader, writer) = stream.into_split();
        let (replies, frames) = mpsc::channel(PIPELINE);
        let pipeline = Arc::new(Semaphore::new(PIPELINE));
        let write = self.write_frames(writer, frames, &pipeline);
        let read = self.read_queries(reader, client, zones, replies, &pipeline);
        tokio::pin!(read, write);
        tokio::select! {
            // The client is gone or does not take its answers: nothing more to do.
            () = &mut write => {}
            // The client has asked its last; it still gets its answers.
            () = &mut read => write.await,
        }
    }

    async fn read_queries(
        &self,
        mut reader: impl AsyncRead + Unpin,
        client: Client,
        zones: Arc<Zones>,
        replies: mpsc::Sender<Frame>,
        pipeline: &Arc<Semaphore>,
    ) {
        let mut frames = FrameReader::limited(MAX_QUERY);
        let mut responder = Responder::default();
        let mut deadline = Instant::now() + self.timeouts.read;
        loop {
            while let Some(packet) = match frames.take() {
                Ok(packet) => packet,
                Err(_) => return,
            } {
                let Ok(permit) = pipeline.clone().acquire_owned().await else { return };
                let slot = ReplySlot::new(replies.clone(), permit);
                self.answer(&mut responder, &zones, client, packet, slot);
                deadline = Instant::now() + self.timeouts.idle;
            }
            match timeout_at(deadline, poll_fn(|context| frames.poll_fill(&mut reader, context))).await {
                Ok(Ok(1..)) => {}
                Ok(_) => return,
                // A connection that is owed answers is not idle (RFC 7766 §6.2.3).
                Err(_) if pipeline.available_permits() < PIPELINE && frames.is_empty() => {
                    deadline = Instant::now() + self.timeouts.idle;
                }
                Err(_) => return,
            }
        }
    }

    /// Writes replies until there are no more to come, together where several are ready.
    async fn write_frames(
        &self,
        mut writer: impl AsyncWrite + Unpin,
        mut frames: mpsc::Receiver<Frame>,
        pipeline: &Semaphore,
    ) {
        let mut ready = Vec::with_capacity(PIPELINE);
        while frames.recv_many(&mut ready, PIPELINE).await > 0 {
            // A query has its permit until its answer is written.
            while self.gathering.get().is_some_and(|end| Instant::now() < end)
                && PIPELINE - pipeline.available_permits() > ready.len()
            {
                let _ = timeout(COUNT, frames.recv_many(&mut ready, PIPELINE)).await;
            }
            let octets: Vec<u8> = ready.iter().flat_map(|frame| frame.octets()).copied().collect();
            if !matches!(timeout(self.timeouts.write, writer.write_all(&octets)).await, Ok(Ok(()))) {
                return;
            }
            ready.clear();
        }
    }

    fn answer(
        &self,
        responder: &mut Responder,
        zones: &Zones,
        client: Client,
        packet: &[u8],
        slot: ReplySlot,
    ) {
        let arrived_ns = clock::nanoseconds();
        let timing = Timing { now: self.clock.now(), arrived_ns, hit_ns: 0 };
        let miss = |zone, stale, reply_to| Miss::new(packet, zone, arrived_ns, stale, reply_to);
        let mut out = self.scratch.borrow_mut();
        match responder.answer(zones, &client, packet, &timing, &mut out) {
            Outcome::Reply { len, refresh } => {
                slot.fill(&out[..len]);
                if let Some(zone) = refresh {
                    self.misses.accept(miss(zone, None, None));
                }
            }
            Outcome::Miss { zone, stale } => {
                self.misses.accept(miss(zone, stale, Some(ReplyTo::Tcp(slot, client))));
            }
            Outcome::Ignore(_) => {}
        }
    }
}

/// Counts a connection while it is open, and holds its places.
struct Open {
    gauge: Arc<Gauge>,
    _places: (OwnedSemaphorePermit, Pass),
}

impl Open {
    fn new(gauge: &Arc<Gauge>, place: OwnedSemaphorePermit, pass: Pass) -> Open {
        gauge.add(1);
        Open { gauge: gauge.clone(), _places: (place, pass) }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.add(-1);
    }
}
