//! What scenarios and whole processes cannot bring about: a full desk, and a query that comes to it late.

use std::cell::Cell;
use std::net::UdpSocket;

use super::*;
use crate::cache::{Cache, Config, ServeStale, StaleMode};
use crate::clock::Moment;
use crate::forward::{ClientTransport, ForwardError};
use crate::metrics::{Transport, ZoneShard};
use crate::plugin::Steps;
use crate::server::zones::Zones;
use crate::server::{Client, QueryLogger, SearchAhead};
use crate::wire::Name;

const NOW: Moment = Moment(1_000_000);
const CLIENT_NAME: &str = "example.com.default.svc.cluster.local";

/// An upstream that knows of no name.
#[derive(Default)]
struct Nothing {
    asked: Cell<usize>,
    panics: Cell<bool>,
}

impl Resolve for Nothing {
    async fn resolve(&self, message: &[u8], _: &[u8], _: ClientTransport) -> Result<Vec<u8>, ForwardError> {
        self.asked.set(self.asked.get() + 1);
        assert!(!self.panics.get(), "a bug");
        let mut reply = message.to_vec();
        reply[2..4].copy_from_slice(&[0x81, 0x83]);
        Ok(reply)
    }
}

/// A desk, one block behind it, and a client before it.
struct Desk {
    misses: Rc<Misses<Nothing>>,
    upstream: Rc<Nothing>,
    zones: Arc<Zones>,
    cache: Arc<Cache>,
    client: Arc<UdpSocket>,
}

impl Desk {
    fn new() -> Desk {
        let verify = ServeStale { window: 3600, mode: StaleMode::Verify, verify_wait_ms: 1800 };
        let cache = Cache::new(Config { serve_stale: Some(verify), ..Config::default() });
        let cache = Arc::new(cache.unwrap());
        let misses = Misses::new(&Registry::new(), Clock::from_fn(|| NOW), Rc::default(), Arc::default());
        let upstream = Rc::new(Nothing::default());
        misses.set_upstreams([(BlockId(1), upstream.clone())]);
        let client = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        client.set_nonblocking(true).unwrap();
        Desk { misses, upstream, zones: zones(cache.clone()), cache, client }
    }

    /// Hands in the client's query, with an expired answer if it has one, and lets all tasks run.
    async fn accept(&self, stale: Option<Answer>) {
        let peer = self.client.local_addr().unwrap();
        let client = Client { peer, local: None, transport: Transport::Udp };
        let zone = self.zones.find(&[0], 1).unwrap().clone();
        let reply_to = Some(ReplyTo::Udp(self.client.clone(), client));
        self.misses.accept(Miss::new(&query(), zone, 0, stale, reply_to));
        for _ in 0..16 {
            tokio::task::yield_now().await;
        }
    }
}

fn zones(cache: Arc<Cache>) -> Arc<Zones> {
    let domains = vec![Name::from_text("cluster.local").unwrap()];
    let block = Block {
        id: BlockId(1),
        cache: Some(cache),
        bufsize: None,
        log: QueryLogger::default(),
        whoami: false,
        loadbalance: None,
        steps: Steps::default(),
        errors: None,
        loops: None,
        search_ahead: Some(SearchAhead { domains, node_domains: Vec::new() }),
        empty: false,
    };
    Arc::new_cyclic(|siblings| {
        let [shard, miss_shard] = [(); 2].map(|()| ZoneShard::detached());
        let (origin, block, siblings) = (Name::root(), Arc::new(block), siblings.clone());
        let zone = Zone { origin, block, shard, miss_shard, local: None, server: String::new(), siblings };
        Zones::new(vec![Arc::new(zone)], ZoneShard::detached(), true)
    })
}

fn query() -> Vec<u8> {
    let name = Name::from_text(CLIENT_NAME).unwrap();
    [&[0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], name.as_wire(), &[0, 1, 0, 1]].concat()
}

/// Runs `test` on a `LocalSet`.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

#[test]
fn nothing_is_fetched_ahead_when_flights_are_many() {
    const HALF: usize = 4096;
    let fetched_ahead = |busy: usize| {
        run(async {
            let desk = Desk::new();
            let _slots: Vec<_> = (0..busy).filter_map(|_| desk.misses.places.depart()).collect();
            desk.accept(None).await;
            assert_eq!(desk.misses.waiting(), 0);
            desk.misses.fetched_ahead.get()
        })
    };
    assert_eq!(fetched_ahead(0), 3);
    // With the client's own flight and two more, half of the slots are taken.
    assert_eq!(fetched_ahead(HALF - 3), 2);
    assert_eq!(fetched_ahead(HALF), 0);
}

#[test]
fn nothing_is_fetched_ahead_for_a_client_with_much_under_way() {
    const HALF_A_SHARE: usize = 512;
    let asked = |busy: usize| {
        run(async {
            let desk = Desk::new();
            let client = Some(desk.client.local_addr().unwrap().ip());
            let _places: Vec<Place> = (0..busy).filter_map(|_| desk.misses.places.enter(client)).collect();
            desk.accept(None).await;
            desk.upstream.asked.get()
        })
    };
    assert_eq!(asked(0), 1 + 3);
    assert_eq!(asked(HALF_A_SHARE - 2), 1 + 2, "each of them counts");
    assert_eq!(asked(HALF_A_SHARE), 1);
}

/// Between the client's thread and the desk there is a queue: meanwhile the upstream may have been found
/// to be slow.
#[test]
fn who_comes_when_nobody_waits_any_more_does_not_wait() {
    run(async {
        let desk = Desk::new();
        let packet = query();
        let asked = Query::parse(&packet).unwrap();
        let mut response = packet.clone();
        response[2..8].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1]);
        response.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 192, 0, 2, 7]);
        let (answer, lifetime) = Answer::scan(&response, asked.question()).unwrap();
        let key = Key::of(&asked);
        desk.cache.insert(&key, &answer, lifetime, false, Moment(NOW.0 - 60_000), 0);
        desk.cache.note_failure(&key, NOW);
        desk.accept(Some(answer)).await;
        let mut reply = [0; 512];
        let len = desk.client.recv(&mut reply).unwrap();
        assert_eq!((desk.upstream.asked.get(), &reply[3..8]), (0, &[0x80, 0, 1, 0, 1][..]));
        assert_eq!(reply[len - 10..len], [0, 0, 0, 0, 0, 4, 192, 0, 2, 7], "TTL 0");
    });
}

#[test]
fn a_bug_costs_one_answer() {
    run(async {
        let desk = Desk::new();
        let rcode = async |panics| {
            desk.upstream.panics.set(panics);
            desk.accept(None).await;
            let mut reply = [0; 512];
            desk.client.recv(&mut reply).map(|_| reply[3] & 15).ok()
        };
        let [nxdomain, servfail] = [Rcode::NXDOMAIN, Rcode::SERVFAIL].map(|rcode| Some(rcode.0 as u8));
        assert_eq!(rcode(true).await, servfail);
        assert_eq!(rcode(false).await, nxdomain);
    });
}
