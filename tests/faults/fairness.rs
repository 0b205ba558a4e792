//! One client asks for fifty thousand names a second; what another one notices.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::client::{bound, udp};
use super::exposition::{parse, scrape};
use super::is_long;
use super::load::{Load, Outcome};
use super::loopback;
use super::message::ask;
use super::plain_upstream::PlainUpstream;
use super::server::Doorstep;

/// Queries per second of the noisy client.
const FLOOD: usize = 50_000;
/// Queries per second of the quiet one: hits, and misses.
const HITS: u32 = 1000;
const MISSES: u32 = 200;

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
}

fn look(server: SocketAddr, from: IpAddr, lasting: Duration, round: u8) -> Seen {
    let hits = Load { query: |_| ask("hit.test"), ..Load::new(server, from, HITS, lasting) };
    let query = match round {
        0 => |number| ask(&format!("{number}.miss0.test")),
        1 => |number| ask(&format!("{number}.miss1.test")),
        _ => |number| ask(&format!("{number}.miss2.test")),
    };
    let misses = Load { query, ..Load::new(server, from, MISSES, lasting) };
    thread::scope(|scope| {
        let hits = scope.spawn(|| hits.run(|_| ()));
        Seen { misses: misses.run(|_| ()), hits: hits.join().unwrap() }
    })
}

fn sum(server: &Doorstep, family: &str) -> f64 {
    let families = parse(&scrape(server.metrics()));
    let family = families.iter().find(|shown| shown.name == family);
    family.map_or(0.0, |family| family.samples.iter().map(|sample| sample.value).sum())
}

#[test]
fn a_noisy_client_leaves_the_others_their_answers() {
    let upstream = PlainUpstream::start();
    let address = loopback::fresh_dns();
    let ip = address.ip();
    let text = format!(
        ". {{\n bind {ip}\n errors\n cache\n forward . {} {{\n force_tcp\n }}\n}}\n",
        upstream.address
    );
    let server = Doorstep::start(ip, &text);
    let [noisy, quiet] = [loopback::fresh(), loopback::fresh()];
    assert_eq!(udp(address, &ask("hit.test")).rcode(), 0);
    let lasting = Duration::from_secs(if is_long() { 5 } else { 2 });
    look(address, quiet, Duration::from_millis(300), 0);
    let before = look(address, quiet, lasting, 1);
    let flood = Flood::default();
    let (during, resident) = thread::scope(|scope| {
        scope.spawn(|| flood.run(address, noisy));
        thread::sleep(Duration::from_millis(300));
        let during = look(address, quiet, lasting, 2);
        let resident = server.resident();
        flood.stop.store(true, Relaxed);
        (during, resident)
    });
    let mut table = String::new();
    let micros = |outcome: &Outcome, thousandths| outcome.quantile(thousandths).as_micros();
    for (name, one, other) in [("hit", &before.hits, &during.hits), ("miss", &before.misses, &during.misses)]
    {
        writeln!(
            table,
            "{name:<5} quiet p50 {} p99 {} us; flooded p50 {} p99 {} us; lost {} failed {}",
            micros(one, 500),
            micros(one, 990),
            micros(other, 500),
            micros(other, 990),
            other.lost(),
            other.answered() - other.with(0)
        )
        .unwrap();
    }
    writeln!(table, "flood: sent {:?} answered {:?} refused {:?}; resident {resident} KiB; share refusals {} overflows {}",
        flood.sent, flood.answered, flood.refused, sum(&server, "doorstep_client_share_refusals_total"), sum(&server, "doorstep_queue_overflows_total")).unwrap();
    writeln!(std::io::stdout(), "\n{table}").unwrap();
}
