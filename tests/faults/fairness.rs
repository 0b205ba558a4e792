//! One client asks for fifty thousand names a second; what another one notices.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::client::{bound, udp};
use super::exposition::{parse, scrape};
use super::load::{Load, Outcome};
use super::loopback;
use super::message::{Ask, ask};
use super::plain_upstream::PlainUpstream;
use super::server::Doorstep;
use super::{alone, is_long};

/// Queries per second of the noisy client.
const FLOOD: usize = 50_000;
/// Queries per second of the quiet one: hits, and misses.
const HITS: u32 = 1000;
const MISSES: u32 = 200;

/// A ceiling for memory under flood, in KiB.
const MAX_RESIDENT: usize = 96 * 1024;

/// What the noisy client sent and got.
#[derive(Default)]
struct Flood {
    sent: AtomicUsize,
    answered: AtomicUsize,
    refused: AtomicUsize,
    stop: AtomicBool,
}

impl Flood {
    /// Asks for a new name each time, [`FLOOD`] times a second, until told to stop.
    fn run(&self, server: SocketAddr, from: IpAddr) {
        let socket = bound(from, server);
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut buffer = [0; 512];
                while !self.stop.load(Relaxed) {
                    if socket.recv(&mut buffer).is_ok() {
                        let count = if buffer[3] & 15 == 0 { &self.answered } else { &self.refused };
                        count.fetch_add(1, Relaxed);
                    }
                }
            });
            // `NNNNNNNN.flood.test`, the digits written anew each time.
            let mut query = ask("00000000.flood.test").build();
            let started = Instant::now();
            let mut number = 0;
            while !self.stop.load(Relaxed) {
                let due = started.elapsed().as_micros() as usize * FLOOD / 1_000_000;
                while number < due {
                    write!(&mut query[13..21], "{number:08}").unwrap();
                    query[..2].copy_from_slice(&(number as u16).to_be_bytes());
                    // What the kernel has no room for was not sent.
                    self.sent.fetch_add(usize::from(socket.send(&query).is_ok()), Relaxed);
                    number += 1;
                }
                thread::sleep(Duration::from_micros(500));
            }
        });
    }
}

/// What the quiet client saw.
struct Seen {
    hits: Outcome,
    misses: Outcome,
    /// How much of the time Doorstep's threads waited for a CPU, in a hundred; several may at once.
    held_up: f64,
}

fn look(node: &Node, from: IpAddr, lasting: Duration, query: fn(usize) -> Ask) -> Seen {
    let hits = Load { query: |_| ask("hit.test"), ..Load::new(node.address, from, HITS, lasting) };
    let misses = Load { query, ..Load::new(node.address, from, MISSES, lasting) };
    let before = node.doorstep.held_up();
    thread::scope(|scope| {
        let hits = scope.spawn(|| hits.run(|_| ()));
        let (misses, hits) = (misses.run(|_| ()), hits.join().unwrap());
        let waited = node.doorstep.held_up() - before;
        Seen { misses, hits, held_up: 100.0 * waited.as_secs_f64() / lasting.as_secs_f64() }
    })
}

/// A Doorstep with an upstream of its own.
struct Node {
    address: SocketAddr,
    doorstep: Doorstep,
}

impl Node {
    fn start() -> Node {
        let (upstream, address) = (PlainUpstream::start(), loopback::fresh_dns());
        let (ip, to) = (address.ip(), upstream.address);
        let text = format!(". {{\n bind {ip}\n errors\n cache\n forward . {to} {{\n force_tcp\n }}\n}}\n");
        let doorstep = Doorstep::start(ip, &text);
        assert_eq!(udp(address, &ask("hit.test")).rcode(), 0);
        Node { address, doorstep }
    }

    fn sum(&self, family: &str) -> f64 {
        let families = parse(&scrape(self.doorstep.metrics()));
        let family = families.iter().find(|shown| shown.name == family);
        family.map_or(0.0, |family| family.samples.iter().map(|sample| sample.value).sum())
    }
}

/// What is seen while `flooded` is flooded.
fn look_beside(flooded: &Node, flood: &Flood, look: impl FnOnce() -> Seen) -> Seen {
    let noisy = loopback::fresh();
    thread::scope(|scope| {
        scope.spawn(|| flood.run(flooded.address, noisy));
        // The burst that any client may have is over.
        thread::sleep(Duration::from_millis(500));
        let seen = look();
        flood.stop.store(true, Relaxed);
        seen
    })
}

/// The flood costs the machine as much as it costs Doorstep. What the machine makes of it shows in the
/// second run, in which it floods a Doorstep that the quiet client does not ask.
#[test]
fn a_noisy_client_leaves_the_others_their_answers() {
    let _turn = alone();
    let (node, other) = (Node::start(), Node::start());
    let quiet = loopback::fresh();
    let lasting = Duration::from_secs(if is_long() { 5 } else { 2 });
    let _warm = look(&node, quiet, lasting / 4, |number| ask(&format!("{number}.warm.test")));
    let nobody = look(&node, quiet, lasting, |number| ask(&format!("{number}.quiet.test")));
    let (elsewhere, flood) = (Flood::default(), Flood::default());
    let query = |number| ask(&format!("{number}.beside.test"));
    let beside = look_beside(&other, &elsewhere, || look(&node, quiet, lasting, query));
    let query = |number| ask(&format!("{number}.flooded.test"));
    let flooded = look_beside(&node, &flood, || look(&node, quiet, lasting, query));
    let resident = node.doorstep.resident();
    let refusals =
        node.sum("doorstep_client_share_refusals_total") + node.sum("doorstep_queue_overflows_total");

    let mut table =
        String::from("quiet client, us          hit p50  hit p99  miss p50  miss p99  waiting for a CPU\n");
    for (name, seen) in
        [("no flood", &nobody), ("flood of another process", &beside), ("flood of this one", &flooded)]
    {
        let micros = |outcome: &Outcome, thousandths| outcome.quantile(thousandths).as_micros();
        let (hits, misses) = (&seen.hits, &seen.misses);
        let [hit, slow_hit] = [500, 990].map(|rank| micros(hits, rank));
        let [miss, slow_miss] = [500, 990].map(|rank| micros(misses, rank));
        writeln!(
            table,
            "{name:<25} {hit:>7}  {slow_hit:>7}  {miss:>8}  {slow_miss:>8}  {:>15.1} %",
            seen.held_up
        )
        .unwrap();
    }
    let [sent, answered, refused] =
        [&flood.sent, &flood.answered, &flood.refused].map(|count| count.load(Relaxed));
    writeln!(table, "flood: {sent} sent, {answered} answered, {refused} refused; {resident} KiB resident")
        .unwrap();
    writeln!(std::io::stdout(), "\n{table}").unwrap();

    assert!(resident < MAX_RESIDENT, "{resident} KiB");
    for outcome in [&flooded.hits, &flooded.misses] {
        assert_eq!((outcome.lost(), outcome.with(0)), (0, outcome.sent), "{:?}", outcome.rcodes);
    }
    assert!(refusals > 0.0 && refusals >= refused as f64 * 0.9, "{refused} refused, {refusals} counted");
    // Not a measurement: this machine runs the flood, both upstreams, and unoptimised code.
    let bound = 5 * beside.misses.quantile(500) + Duration::from_millis(20);
    assert!(flooded.misses.quantile(500) < bound, "a miss takes {:?}", flooded.misses.quantile(500));
}
