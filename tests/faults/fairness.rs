//! One client asks for fifty thousand names a second; what another one notices.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::client::{bound, udp};
use super::exposition::{parse, scrape};
use super::load::{Load, Outcome};
use super::loopback;
use super::message::{Ask, ask};
use super::plain_upstream::PlainUpstream;
use super::server::Doorstep;
use super::{alone, is_long};

/// Queries per second of the noisy client. Unoptimised code takes a whole CPU for fifty thousand, and then the
/// kernel drops what it has no time for, whoever sent it.
const FLOOD: usize = if cfg!(debug_assertions) { 20_000 } else { 50_000 };
/// Between two looks at how many are due; the kernel adds its timer slack of 50 us. Five are sent at a time: who
/// asks behind a burst waits for the burst.
const PAUSE: Duration = Duration::from_micros(50);
/// Queries per second of the quiet one: hits, and misses.
const HITS: u32 = 1000;
const MISSES: u32 = 200;

/// A ceiling for memory under flood, in KiB.
const MAX_RESIDENT: usize = 96 * 1024;

/// Microseconds by which medians of a few rounds on a busy machine differ.
const SLACK: f64 = 3000.0;

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
                thread::sleep(PAUSE);
            }
        });
    }
}

/// What the quiet client saw.
struct Seen {
    hits: Outcome,
    misses: Outcome,
}

fn look(server: SocketAddr, from: IpAddr, lasting: Duration, query: fn(usize) -> Ask) -> Seen {
    let hits = Load { query: |_| ask("hit.test"), ..Load::new(server, from, HITS, lasting) };
    let misses = Load { query, ..Load::new(server, from, MISSES, lasting) };
    thread::scope(|scope| {
        let hits = scope.spawn(|| hits.run(|_| ()));
        Seen { misses: misses.run(|_| ()), hits: hits.join().unwrap() }
    })
}

/// A server that does nothing but send back what it gets, from one thread and one socket as Doorstep does.
/// What a flood makes of its answers is the machine's doing.
fn start_bare() -> SocketAddr {
    let socket = UdpSocket::bind(loopback::fresh_dns()).unwrap();
    let address = socket.local_addr().unwrap();
    // As Doorstep's: it holds what comes while the machine does something else.
    SockRef::from(&socket).set_recv_buffer_size(4 << 20).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            buffer[2] |= 0x80;
            // A client may be gone.
            let _ = socket.send_to(&buffer[..length], peer);
        }
    });
    address
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
fn look_beside(flooded: SocketAddr, flood: &Flood, look: impl FnOnce() -> Seen) -> Seen {
    let noisy = loopback::fresh();
    flood.stop.store(false, Relaxed);
    thread::scope(|scope| {
        scope.spawn(|| flood.run(flooded, noisy));
        // The burst that any client may have is over.
        thread::sleep(Duration::from_millis(500));
        let seen = look();
        flood.stop.store(true, Relaxed);
        seen
    })
}

/// A name that nobody asked for before.
fn ask_anew(_: usize) -> Ask {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    ask(&format!("{}.quiet.test", COUNT.fetch_add(1, Relaxed)))
}

/// What was done while the quiet client asked, in this order in each round.
const CASES: [&str; 5] = [
    "no flood",
    "flood of another process",
    "flood of this one",
    "bare server, no flood",
    "bare server, flood",
];
/// For each case the one without a flood.
const QUIET: [usize; 5] = [0, 0, 0, 3, 3];
/// Hits' and misses' quantiles, in thousandths.
const RANKS: [usize; 2] = [500, 990];

/// By case: hit p50, hit p99, miss p50, miss p99, microseconds.
type Round = [[f64; 4]; CASES.len()];

fn micros(seen: &Seen) -> [f64; 4] {
    let of = |outcome: &Outcome, rank| outcome.quantile(rank).as_secs_f64() * 1e6;
    let [low, high] = RANKS;
    [of(&seen.hits, low), of(&seen.hits, high), of(&seen.misses, low), of(&seen.misses, high)]
}

fn median(rounds: &[Round], figure: impl Fn(&Round) -> f64) -> f64 {
    let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn table(rounds: &[Round]) -> String {
    let mut table = String::from(
        "quiet client, us, medians   hit p50  hit p99   of quiet  miss p50  miss p99   of quiet\n",
    );
    for (case, name) in CASES.iter().enumerate() {
        write!(table, "{name:<25}").unwrap();
        for column in 0..RANKS.len() * 2 {
            write!(table, " {:>9.0}", median(rounds, |round| round[case][column])).unwrap();
            if column % 2 == 1 {
                let over_quiet = |round: &Round| round[case][column] / round[QUIET[case]][column];
                write!(table, " {:>9.2}x", median(rounds, over_quiet)).unwrap();
            }
        }
        writeln!(table).unwrap();
    }
    table
}

/// The flood costs the machine as much as it costs Doorstep. What the machine makes of it shows in two
/// controls: the flood of a Doorstep that the quiet client does not ask, and a bare server in Doorstep's place.
#[test]
fn a_noisy_client_leaves_the_others_their_answers() {
    let _turn = alone();
    let (node, other, bare) = (Node::start(), Node::start(), start_bare());
    let quiet = loopback::fresh();
    let (count, milliseconds) = if is_long() { (11, 2000) } else { (3, 500) };
    let lasting = Duration::from_millis(milliseconds);
    let look = |server| look(server, quiet, lasting, ask_anew);
    let _warm = look(node.address);
    let [elsewhere, flood, of_bare] = <[Flood; 3]>::default();
    let mut rounds: Vec<Round> = Vec::new();
    for _ in 0..count {
        let seen = [
            look(node.address),
            look_beside(other.address, &elsewhere, || look(node.address)),
            look_beside(node.address, &flood, || look(node.address)),
            look(bare),
            look_beside(bare, &of_bare, || look(bare)),
        ];
        for outcome in seen[..3].iter().flat_map(|seen| [&seen.hits, &seen.misses]) {
            assert_eq!((outcome.lost(), outcome.with(0)), (0, outcome.sent), "{:?}", outcome.rcodes);
        }
        rounds.push(seen.each_ref().map(micros));
    }
    let resident = node.doorstep.resident();
    let refusals =
        node.sum("doorstep_client_share_refusals_total") + node.sum("doorstep_queue_overflows_total");
    let [sent, answered, refused] =
        [&flood.sent, &flood.answered, &flood.refused].map(|count| count.load(Relaxed));
    let flooded = format!("{sent} sent, {answered} answered, {refused} refused; {resident} KiB resident");
    writeln!(std::io::stdout(), "\n{}flood of this one: {flooded}\n", table(&rounds)).unwrap();

    assert!(resident < MAX_RESIDENT, "{resident} KiB");
    assert!(refusals > 0.0 && refusals >= refused as f64 * 0.9, "{refused} refused, {refusals} counted");
    // This machine runs the flood, both upstreams, and perhaps unoptimised code: what Doorstep adds shows
    // beside what a server that does nothing takes, and beside the same flood elsewhere.
    let [hit, floor] = [2, 4].map(|case| median(&rounds, |round| round[case][1]));
    assert!(hit < 2.0 * floor + SLACK, "a hit's p99 is {hit:.0} us, a bare server's {floor:.0} us");
    let slack = if is_long() { 0.0 } else { SLACK };
    for (what, column, times) in [("hit", 1, 1.2), ("miss", 3, 2.0)] {
        let [flooded, beside] = [2, 1].map(|case| median(&rounds, |round| round[case][column]));
        assert!(
            flooded < times * beside + slack,
            "a {what}'s p99 is {flooded:.0} us, {beside:.0} us beside another's flood"
        );
    }
}
