//! A warm server without sockets: the zones of the stock Corefile, and answers in their cache.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Weak};

use doorstep::cache::{Cache, Config, ServeStale, StaleMode};
use doorstep::clock::Moment;
use doorstep::metrics::{Registry, Snapshot, Transport, Value, ZoneLabels, ZoneShard, names};
use doorstep::plugin::Steps;
use doorstep::server::zones::{Block, BlockId, Zone, Zones};
use doorstep::server::{Client, Outcome, QueryLogger, Responder, Timing};
use doorstep::wire::{Answer, Key, Name, Query};

/// The names of the stock Corefile's blocks.
const ZONES: [&str; 4] = ["cluster.local.", "in-addr.arpa.", "ip6.arpa.", "."];
/// What answers live for, seconds.
const TTL: u32 = 30;
const FILLED: Moment = Moment(1_000_000);
const UNIX: u32 = 1_800_000_000;

/// Record types.
pub const A: u16 = 1;
pub const AAAA: u16 = 28;
const SOA: u16 = 6;

/// EDNS for 1232 octets (RFC 6891 §6.1.2).
const OPT: [u8; 11] = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];

/// Answers queries as a UDP thread does.
pub struct Fixture {
    pub zones: Zones,
    pub shard: Arc<ZoneShard>,
    responder: Responder,
    client: Client,
    timing: Timing,
    out: Vec<u8>,
}

/// What one look-up is about.
pub struct Case {
    pub query: Vec<u8>,
    pub answer: Vec<u8>,
}

impl Case {
    /// `name` has `addresses`.
    pub fn addresses(name: &str, qtype: u16, addresses: u8) -> Case {
        let query = query(name, qtype, false);
        let mut answer = response(&query, 0, addresses, 0);
        for host in 0..addresses {
            let data: &[u8] = if qtype == A { &[10, 0, 0, host] } else { &[253; 16] };
            record(&mut answer, qtype, data);
        }
        Case { query, answer }
    }

    /// `name` does not exist.
    pub fn nxdomain(name: &str) -> Case {
        let query = query(name, A, false);
        let mut answer = response(&query, 3, 0, 1);
        // Two root names, then serial, refresh, retry, expire, minimum (RFC 1035 §3.3.13).
        let mut data = vec![0, 0];
        (0..5).for_each(|_| data.extend(TTL.to_be_bytes()));
        record(&mut answer, SOA, &data);
        Case { query, answer }
    }

    /// The same, asked in another spelling.
    pub fn in_mixed_case(mut self) -> Case {
        let name = self.query.len() - 5;
        self.query[12..name].iter_mut().step_by(2).for_each(u8::make_ascii_uppercase);
        self
    }

    /// The same, asked with EDNS for 1232 octets.
    pub fn with_edns(mut self) -> Case {
        self.query[11] = 1;
        self.query.extend(OPT);
        self
    }
}

impl Fixture {
    /// With the answers to `cases`; `stale`: they have expired, and are served at once.
    pub fn new(cases: &[&Case], stale: bool) -> Fixture {
        let registry = Registry::new();
        let zones = ZONES.map(|name| zone(&registry, name, cases, stale)).to_vec();
        let zones = Zones::new(zones, shard(&registry, "dropped"), true);
        let age = if stale { TTL * 2 } else { TTL / 2 };
        let now = FILLED.plus_ms(u64::from(age) * 1000);
        let timing = Timing { now, arrived_ns: now.0 * 1_000_000, hit_ns: 1000 };
        let (shard, out) = (shard(&registry, ZONES[0]), vec![0; 1 << 18]);
        Fixture { zones, shard, responder: Responder::default(), client: client(), timing, out }
    }

    /// What a hit is: from a query's octets to a reply's, and all counting. The reply's length; `None`: a
    /// miss.
    #[inline(never)]
    pub fn answer(&mut self, query: &[u8]) -> Option<usize> {
        match self.responder.answer(&self.zones, &self.client, query, &self.timing, &mut self.out) {
            Outcome::Reply { len, .. } => Some(len),
            _ => None,
        }
    }

    /// Panics unless the reply that was just written has this response code and this many answers.
    pub fn check(&self, reply: Option<usize>, rcode: u8, answers: u8) {
        assert!(reply.is_some(), "this is no hit");
        assert_eq!((self.out[3] & 15, self.out[7]), (rcode, answers), "{:?}", &self.out[..12]);
    }
}

/// A zone called `name` whose cache has the answers to `cases`.
pub fn zone(registry: &Registry, name: &str, cases: &[&Case], stale: bool) -> Arc<Zone> {
    let mode = StaleMode::Immediate;
    let serve_stale = stale.then_some(ServeStale { window: 3600, mode, verify_wait_ms: 0 });
    let cache = Cache::new(Config { serve_stale, ..Config::default() }).expect("address space");
    cases.iter().for_each(|case| fill(&cache, case));
    Arc::new(Zone {
        origin: Name::from_text(name).expect("a name"),
        block: Arc::new(block(cache)),
        shard: shard(registry, name),
        miss_shard: shard(registry, name),
        local: None,
        server: String::new(),
        siblings: Weak::new(),
    })
}

fn shard(registry: &Registry, zone: &str) -> Arc<ZoneShard> {
    let labels =
        ZoneLabels { server: "dns://169.254.20.10:53".into(), zone: zone.into(), cache_zones: zone.into() };
    registry.zone_shard("udp0", &labels)
}

/// What a scrape of a busy node shows of its zones: 4 histograms and 160 numbers.
pub fn snapshot() -> Snapshot {
    let mut snapshot = Snapshot::default();
    for zone in ZONES {
        let server = "dns://169.254.20.10:53";
        for number in 0..40 {
            let labels = [server, zone, "", "udp", "1", &format!("TYPE{number}")];
            snapshot.number(names::DNS_REQUESTS.description(), &labels, f64::from(number) * 1e6);
        }
        let durations = Value::Histogram { counts: vec![1000; names::TIME_BUCKETS.len() + 1], sum: 1.5 };
        snapshot.add(names::DNS_REQUEST_DURATION.description(), &[server, zone, ""], durations);
    }
    snapshot
}

/// Who asks.
pub fn client() -> Client {
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000));
    Client { peer, local: None, transport: Transport::Udp }
}

fn block(cache: Cache) -> Block {
    Block {
        id: BlockId(0),
        cache: Some(Arc::new(cache)),
        bufsize: None,
        log: QueryLogger::default(),
        whoami: false,
        loadbalance: None,
        steps: Steps::default(),
        errors: None,
        loops: None,
        search_ahead: None,
        empty: false,
    }
}

fn fill(cache: &Cache, case: &Case) {
    let query = Query::parse(&case.query).expect("a query");
    let (answer, lifetime) = Answer::scan(&case.answer, query.question()).expect("an answer");
    let insertion = cache.insert(&Key::of(&query), &answer, lifetime, false, FILLED, UNIX);
    assert!(insertion.store.is_some());
}

/// A query (RFC 1035 §4.1), with RD.
pub fn query(name: &str, qtype: u16, edns: bool) -> Vec<u8> {
    let mut query = vec![18, 52, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)];
    query.extend(Name::from_text(name).expect("a name").as_wire());
    query.extend([0, qtype as u8, 0, 1]);
    query
}

/// A response to `query`: one address, and no OPT even if the query ends with one.
pub fn address(query: &[u8]) -> Vec<u8> {
    let extensions = if query[11] > 0 { OPT.len() } else { 0 };
    let mut answer = response(&query[..query.len() - extensions], 0, 1, 0);
    answer[11] = 0;
    record(&mut answer, A, &[10, 0, 0, 1]);
    answer
}

/// The start of a response to `query`: RA, AA, counts.
fn response(query: &[u8], rcode: u8, answers: u8, authorities: u8) -> Vec<u8> {
    let mut response = query.to_vec();
    response[2..4].copy_from_slice(&[0x85, 0x80 | rcode]);
    (response[7], response[9]) = (answers, authorities);
    response
}

/// A record whose name is the question's.
fn record(message: &mut Vec<u8>, rtype: u16, data: &[u8]) {
    message.extend([192, 12, 0, rtype as u8, 0, 1]);
    message.extend(TTL.to_be_bytes());
    message.extend([0, data.len() as u8]);
    message.extend(data);
}
