//! What is counted. Runs inside valgrind.

use std::hint::black_box;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use doorstep::metrics::{self, AnsweredBy, CacheType};
use doorstep::server::Batch;
use doorstep::wire::{Key, Query};

use crate::allocations;
use crate::fixture::{self, A, AAAA, Case, Fixture, client, query};
use crate::miss::{Desk, TOGETHER};

/// The function whose callees are counted, as its symbol reads.
pub const REGION: &str = concat!(module_path!(), "::counted_region");
/// Repetitions in one region.
pub const TIMES: u64 = 1000;
/// Datagrams of a full batch.
const FULL: usize = 32;
/// Batches in one region; a socket's queue holds few datagrams.
const BATCHES: usize = 8;

/// A service's name as pods ask for it.
const NAME: &str = "payments-api.production.svc.cluster.local.";

/// Everything that runs in here is counted; leaving it ends a part of callgrind's file.
#[inline(never)]
fn counted_region(times: u64, run: &mut dyn FnMut()) {
    for _ in 0..times {
        run();
    }
}

/// Runs all subjects, in the order in which they count; a line for each on standard output: name,
/// repetitions, allocations.
pub fn run() {
    controls();
    hits();
    parts();
    batches();
    misses();
}

fn subject(name: &str, times: u64, mut run: impl FnMut()) {
    let before = allocations::count();
    counted_region(times, &mut run);
    println!("{name}\t{times}\t{}", allocations::count() - before);
}

/// What the harness itself costs, and whether it sees what it looks for.
fn controls() {
    let (mut number, shared) = (0_u64, AtomicU64::new(0));
    subject("nothing", TIMES, || number = black_box(number + 1));
    subject("control: one atomic", TIMES, || _ = black_box(&shared).fetch_add(1, Relaxed));
    // An allocator may have atomics of its own: musl's has.
    subject("control: one allocation", TIMES, || drop(black_box(Box::new(1))));
}

/// Hits by shape.
fn hits() {
    let a = Case::addresses(NAME, A, 1);
    let nxdomain = Case::nxdomain("payments-api.production.svc.cluster.local.svc.cluster.local.");
    let large = Case::addresses("headless.production.svc.cluster.local.", A, 24).with_edns();
    let mixed = Case::addresses(NAME, A, 1).in_mixed_case();
    let edns = Case::addresses(NAME, A, 1).with_edns();
    hit("hit A", &a, false, (0, 1));
    hit("hit AAAA", &Case::addresses(NAME, AAAA, 1), false, (0, 1));
    hit("hit NXDOMAIN", &nxdomain, false, (3, 0));
    hit("hit mixed case", &mixed, false, (0, 1));
    hit("hit EDNS", &edns, false, (0, 1));
    hit("hit stale", &a, true, (0, 1));
    hit("hit 24 addresses", &large, false, (0, 24));
}

fn hit(name: &str, case: &Case, stale: bool, (rcode, answers): (u8, u8)) {
    let mut fixture = Fixture::new(&[case], stale);
    // The first one may claim a refresh, and binds what the dynamic linker left for later.
    fixture.answer(&case.query);
    subject(name, TIMES, || _ = black_box(fixture.answer(black_box(&case.query))));
    let reply = fixture.answer(&case.query);
    fixture.check(reply, rcode, answers);
}

/// The parts of a plain hit, as far as they are functions of their own.
fn parts() {
    let case = Case::addresses(NAME, A, 1);
    let mut fixture = Fixture::new(&[&case], false);
    let (mut key, unknown) = (Key::default(), query("unknown.production.svc.cluster.local.", A, false));
    let parsed = Query::parse(&case.query).expect("a query");
    key.set(&parsed);
    fixture.answer(&unknown);
    subject("parse", TIMES, || _ = black_box(Query::parse(black_box(&case.query))));
    subject("key", TIMES, || black_box(&mut key).set(black_box(&parsed)));
    subject("zone", TIMES, || _ = black_box(fixture.zones.find(black_box(key.name()), A)));
    let shard = fixture.shard.clone();
    subject("count", TIMES, || {
        let shard = black_box(&shard);
        let client = client();
        shard.request(client.transport, client.family(), A, black_box(60), false);
        shard.response(client.transport, 0, AnsweredBy::Cache, black_box(76), 1000);
        shard.cache_hit(CacheType::Success);
    });
    subject("look-up that finds nothing", TIMES, || _ = black_box(fixture.answer(black_box(&unknown))));
    let snapshot = fixture::snapshot();
    subject("encode a scrape", 10, || drop(black_box(metrics::encode(&snapshot))));
}

/// The batch around the hits, without the system calls' own work: 32 datagrams, and one.
fn batches() {
    for (name, datagrams) in [("batch of 32", FULL), ("batch of 1", 1)] {
        let pairs: Vec<_> = (0..BATCHES).map(|_| pair(datagrams)).collect();
        let mut batch = Batch::new(&pairs[0].0).expect("a batch");
        let mut sockets = pairs.iter();
        let mut pass = || {
            let (server, _client) = sockets.next().expect("a socket for each batch");
            let received = batch.receive(server).expect("datagrams");
            assert_eq!(received, datagrams);
            for slot in 0..received {
                if batch.has_room() && black_box(batch.origin(slot)).is_some() {
                    black_box(batch.packet_and_room(slot));
                    batch.push_reply(slot, 76);
                }
            }
            batch.send(server);
        };
        pass();
        subject(name, BATCHES as u64 - 1, pass);
    }
}

/// Misses, a few at a time, and the client that waits for them.
fn misses() {
    let desk = Desk::new().expect("a desk");
    (0..100).for_each(|_| desk.fetch());
    let before = allocations::count();
    counted_region(TIMES / u64::from(TOGETHER), &mut || desk.fetch());
    println!("miss\t{TIMES}\t{}", allocations::count() - before);
}

/// A socket with `datagrams` in its queue, and whose they are.
fn pair(datagrams: usize) -> (UdpSocket, UdpSocket) {
    let [server, client] = [(); 2].map(|()| UdpSocket::bind(("127.0.0.1", 0)).expect("a socket"));
    client.connect(server.local_addr().expect("an address")).expect("a route");
    (0..datagrams).for_each(|_| drop(client.send(&[0; 60])));
    (server, client)
}
