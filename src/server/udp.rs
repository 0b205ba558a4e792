//! One thread, one UDP socket: receive a batch, answer what is in the cache, hand in the rest.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::mpsc;

use super::batch::{Batch, Origin, Outbox, Wake, ask_for_short_slice};
use super::client::Client;
use super::miss::Miss;
use super::rates::Rates;
use super::refusals::Refusals;
use super::reply_to::ReplyTo;
use super::responder::{Outcome, Responder, Timing};
use super::zones::{Zone, Zones};
use crate::clock::{self, Moment};
use crate::metrics::{Counter, Registry, Transport, names};
use crate::wire::{Answer, Query, Rcode, Rejected, Reply};

/// Misses on their way to the thread that asks upstreams; one more is REFUSED.
pub const MISS_QUEUE: usize = 4096;
/// Misses one client among others may send a second, and at once; one more is REFUSED here, where that
/// is cheap.
/// Upstreams answer in order: what one client has with them is what the others wait behind.
const CLIENT_RATE: u64 = 3_000;
const CLIENT_BURST: u64 = 1024;
/// Replies to clients that can wait that are sent before it is seen whether others came.
const AT_ONCE: usize = 8;
/// Such replies at most; the oldest of what is more are sent at once.
const MAX_DEFERRED: usize = 64;
/// The time of one batch in so many is taken and stands for the others, so that the clock is read
/// once per batch.
const SAMPLE: u64 = 64;
/// Enough for a batch's call chain; its buffers are on the heap.
const STACK: usize = 256 * 1024;

/// What a UDP thread works with.
pub struct UdpWorker {
    /// Its socket, bound to a concrete or a wildcard address.
    pub socket: Arc<UdpSocket>,
    /// The zones on that address.
    pub zones: Arc<Zones>,
    /// Where misses go.
    pub misses: mpsc::Sender<Box<Miss>>,
    /// Who hears of clients that are refused.
    pub refusals: Arc<Refusals>,
}

/// A running UDP thread.
pub struct UdpThread {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

struct Counters {
    too_short: Arc<Counter>,
    response: Arc<Counter>,
    unanswerable: Arc<Counter>,
    unsendable: Arc<Counter>,
    overflow: Arc<Counter>,
    too_fast: Arc<Counter>,
    panics: Arc<Counter>,
}

struct Running {
    worker: UdpWorker,
    responder: Responder,
    counters: Counters,
    rates: Rates,
    /// Replies to clients that can wait.
    deferred: Outbox,
    batches: u64,
    hit_ns: u64,
}

impl UdpWorker {
    /// Starts the thread, which counts in `registry` as the writer `name`, and waits until it is about to
    /// receive.
    pub fn spawn(self, name: &str, registry: &Registry) -> io::Result<UdpThread> {
        let batch = Batch::new(&self.socket)?;
        let dropped = |reason| registry.counter_of(name, &names::DROPPED, [reason]);
        let counters = Counters {
            too_short: dropped("short"),
            response: dropped("response"),
            unanswerable: dropped("unanswerable"),
            unsendable: dropped("unsendable"),
            overflow: registry.counter_of(name, &names::QUEUE_OVERFLOWS, ["misses"]),
            too_fast: registry.counter_of(name, &names::CLIENT_REFUSALS, []),
            panics: registry.counter_of(name, &names::PANICS, []),
        };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let rates = Rates::new(CLIENT_RATE, CLIENT_BURST);
        let mut running = Running {
            worker: self,
            responder: Responder::default(),
            counters,
            rates,
            deferred: Outbox::default(),
            batches: 0,
            hit_ns: 0,
        };
        let (started, starts) = std::sync::mpsc::channel();
        let thread = thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(move || {
            // Nobody waits any more only if this is the last thing the process does.
            let _ = started.send(());
            ask_for_short_slice();
            running.run(batch, &stopped);
        })?;
        // An error means that the thread is gone, which joining it will tell.
        let _ = starts.recv();
        Ok(UdpThread { stop, thread })
    }
}

impl UdpThread {
    /// Ends the thread once it has answered what already waits in its socket.
    pub fn stop(self, wake: &Wake) {
        self.stop.store(true, Relaxed);
        // A signal that comes just before the system call does not interrupt it, hence the loop.
        while !self.thread.is_finished() {
            wake.interrupt(&self.thread);
            thread::sleep(Duration::from_millis(2));
        }
        // A panic was counted and reported where it happened.
        let _ = self.thread.join();
    }
}

impl Running {
    fn run(&mut self, mut batch: Batch, stop: &AtomicBool) {
        let (socket, zones) = (self.worker.socket.clone(), self.worker.zones.clone());
        while !stop.load(Relaxed) {
            let idle = self.deferred.is_empty();
            match if idle { batch.receive(&socket) } else { batch.receive_waiting(&socket) } {
                Ok(received) => self.handle(&mut batch, received, &zones),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.send_deferred(AT_ONCE),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!("receive: {error}");
                    thread::sleep(Duration::from_millis(10));
                }
            }
        }
        while let Ok(received) = batch.receive_waiting(&socket) {
            self.handle(&mut batch, received, &zones);
        }
        self.send_deferred(usize::MAX);
    }

    /// A bug that a query triggers costs its batch, not the node's DNS.
    fn handle(&mut self, batch: &mut Batch, received: usize, zones: &Zones) {
        let answered = catch_unwind(AssertUnwindSafe(|| self.answer(batch, received, zones)));
        if answered.is_err() {
            self.counters.panics.inc();
        }
    }

    fn answer(&mut self, batch: &mut Batch, received: usize, zones: &Zones) {
        let arrived_ns = clock::nanoseconds();
        let clients = (0..received).map(|slot| batch.origin(slot).map(|origin| origin.peer.ip()));
        let waiting = self.rates.who_can_wait(clients, arrived_ns);
        for slot in (0..received).filter(|slot| waiting >> slot & 1 == 0) {
            if !batch.has_room() {
                self.send(batch);
            }
            if let Some(len) = self.answer_one(batch, slot, zones, arrived_ns) {
                batch.push_reply(slot, len);
            }
        }
        self.send(batch);
        if waiting != 0 {
            self.answer_later(
                batch,
                (0..received).filter(|slot| waiting >> slot & 1 != 0),
                zones,
                arrived_ns,
            );
        }
        self.batches += 1;
        if self.batches.is_multiple_of(SAMPLE) {
            self.hit_ns = clock::nanoseconds().saturating_sub(arrived_ns);
        }
    }

    /// Telling a client that floods that it is refused takes longer than all the rest, so this is done a few at
    /// a time, while nobody else asks.
    fn answer_later(
        &mut self,
        batch: &mut Batch,
        slots: impl Iterator<Item = usize>,
        zones: &Zones,
        arrived_ns: u64,
    ) {
        for slot in slots {
            let answered = self.answer_one(batch, slot, zones, arrived_ns);
            if let (Some(len), Some(origin)) = (answered, batch.origin(slot)) {
                let reply = &batch.packet_and_room(slot).1[..len];
                self.deferred.push(&self.worker.socket, origin, reply);
            }
        }
        self.send_deferred(self.deferred.len().saturating_sub(MAX_DEFERRED));
    }

    #[inline]
    fn answer_one(
        &mut self,
        batch: &mut Batch,
        slot: usize,
        zones: &Zones,
        arrived_ns: u64,
    ) -> Option<usize> {
        let Some(Origin { peer, local }) = batch.origin(slot) else {
            self.counters.unanswerable.inc();
            return None;
        };
        let client = Client { peer, local, transport: Transport::Udp };
        let timing = Timing { now: Moment(arrived_ns / 1_000_000), arrived_ns, hit_ns: self.hit_ns };
        let (packet, room) = batch.packet_and_room(slot);
        match self.responder.answer(zones, &client, packet, &timing, room) {
            Outcome::Reply { len, refresh } => {
                if let Some(zone) = refresh {
                    let miss = Miss::new(packet, zone, arrived_ns, None, None);
                    // A refresh that finds no place is tried again by a later hit.
                    let _ = self.worker.misses.try_send(miss);
                }
                return Some(len);
            }
            Outcome::Miss { zone, stale } => {
                return self.hand_in(packet, room, client, (zone, stale), arrived_ns);
            }
            Outcome::Ignore(Rejected::TooShort) => self.counters.too_short.inc(),
            Outcome::Ignore(_) => self.counters.response.inc(),
        }
        None
    }

    /// Queues a miss; if the queue is full or the client too fast, writes a refusal into `room`.
    fn hand_in(
        &self,
        packet: &[u8],
        room: &mut [u8],
        client: Client,
        (zone, stale): (Arc<Zone>, Option<Answer>),
        arrived_ns: u64,
    ) -> Option<usize> {
        if self.rates.allows(client.peer.ip(), arrived_ns) {
            let reply_to = Some(ReplyTo::Udp(self.worker.socket.clone(), client));
            let miss = Miss::new(packet, zone, arrived_ns, stale, reply_to);
            if self.worker.misses.try_send(miss).is_ok() {
                return None;
            }
            self.counters.overflow.inc();
        } else {
            self.counters.too_fast.inc();
            self.worker.refusals.note(client.peer.ip(), "among others it sends too many misses a second");
        }
        let query = Query::parse(packet).ok()?;
        Some(Reply::error(room, &query, Rcode::REFUSED, None))
    }

    fn send(&self, batch: &mut Batch) {
        let refused = batch.send(&self.worker.socket);
        self.note_refused(refused);
    }

    fn send_deferred(&mut self, count: usize) {
        let refused = self.deferred.send_first(count);
        self.note_refused(refused);
    }

    fn note_refused(&self, refused: usize) {
        if refused > 0 {
            self.counters.unsendable.add(refused as u64);
        }
    }
}

/// The name under which a thread for `address` counts and shows in `ps`.
pub fn thread_name(address: SocketAddr, index: usize) -> String {
    format!("udp{index} {address}")
}
