//! The upstream side against scripted servers, over real sockets.
//!
//! Time bounds are wide: what they tell apart is "at once", "after a hedge" and "after a time-out",
//! on a machine that may be busy.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

#[path = "common/machine.rs"]
mod machine;
#[path = "common/upstream.rs"]
mod upstream;

#[path = "forward/failures.rs"]
mod failures;
#[path = "forward/health.rs"]
mod health;
#[path = "forward/in_order.rs"]
mod in_order;
#[path = "forward/rollout.rs"]
mod rollout;
#[path = "forward/tls.rs"]
mod tls;
#[path = "forward/transports.rs"]
mod transports;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use doorstep::forward::{
    Chain, ClientTransport, Config, ForwardError, Metrics, Policy, Protocol, Target, Transport,
};
use doorstep::wire::Name;
use futures_util::future::join_all;
use tokio::task::LocalSet;
use tokio::time::Instant;

use upstream::{Asked, Step, Upstream, query};

/// Runs a test on one thread, as Doorstep does.
fn run(test: impl Future<Output = ()>) {
    let _beside_others = machine::beside_others();
    run_on_one_thread(test);
}

/// The same where milliseconds matter: none of the others runs beside it.
fn run_alone(test: impl Future<Output = ()>) {
    let _alone = machine::alone();
    run_on_one_thread(test);
}

fn run_on_one_thread(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

/// A directive for every name that asks `to` in order.
fn forward_to(to: &[&Upstream]) -> Config {
    let targets = to.iter().map(|upstream| Target::plain(upstream.address)).collect();
    Config { policy: Policy::Sequential, ..Config::new(Name::root(), targets) }
}

fn force_tcp(to: &[&Upstream]) -> Config {
    Config { transport: Transport::ForceTcp, ..forward_to(to) }
}

/// A chain with counters, and short ways to ask it.
struct Client {
    chain: Chain,
    counts: Rc<Counts>,
}

#[derive(Default)]
struct Counts {
    answered: Cell<u32>,
    reused: Cell<u32>,
    opened: Cell<u32>,
    probes_failed: Cell<u32>,
    all_down: Cell<u32>,
    overloaded: Cell<u32>,
    retried: Cell<u32>,
    hedged: Cell<u32>,
    unrelated: Cell<u32>,
    withheld: Cell<u32>,
}

fn count(cell: &Cell<u32>) {
    cell.set(cell.get() + 1);
}

impl Metrics for Counts {
    fn answered(&self, _to: SocketAddr, _rcode: u16, _elapsed: Duration) {
        count(&self.answered);
    }
    fn probe_failed(&self, _to: SocketAddr) {
        count(&self.probes_failed);
    }
    fn connection_reused(&self, _to: SocketAddr, _protocol: Protocol) {
        count(&self.reused);
    }
    fn connection_opened(&self, _to: SocketAddr, _protocol: Protocol) {
        count(&self.opened);
    }
    fn all_down(&self) {
        count(&self.all_down);
    }
    fn overloaded(&self) {
        count(&self.overloaded);
    }
    fn retried(&self, _to: SocketAddr) {
        count(&self.retried);
    }
    fn hedged(&self, _to: SocketAddr) {
        count(&self.hedged);
    }
    fn unrelated(&self, _to: SocketAddr) {
        count(&self.unrelated);
    }
    fn hedge_withheld(&self, _to: SocketAddr) {
        count(&self.withheld);
    }
}

impl Client {
    fn new(configs: &[Config]) -> Client {
        let counts = Rc::new(Counts::default());
        let metrics: Rc<dyn Metrics> = Rc::clone(&counts) as Rc<dyn Metrics>;
        Client { chain: Chain::new(configs, metrics).unwrap(), counts }
    }

    async fn send(&self, message: &[u8], by: ClientTransport) -> Result<Vec<u8>, ForwardError> {
        let end = message.iter().skip(12).position(|&octet| octet == 0).unwrap();
        self.chain.resolve(message, &message[12..=12 + end], by).await
    }

    async fn tcp(&self, name: &str) -> Result<Vec<u8>, ForwardError> {
        self.send(&query(4711, name), ClientTransport::Tcp).await
    }

    async fn udp(&self, name: &str) -> Result<Vec<u8>, ForwardError> {
        self.send(&query(4711, name), ClientTransport::Udp).await
    }
}

/// Answers everything.
fn answer(asked: &Asked) -> Vec<Step> {
    vec![Step::Send(asked.answer())]
}

/// Answers nothing.
fn silence(_: &Asked) -> Vec<Step> {
    Vec::new()
}

/// Answers everything with a response code.
fn refuse(rcode: u8) -> impl Fn(&Asked) -> Vec<Step> {
    move |asked| vec![Step::Send(asked.reply(rcode))]
}

/// A port where nobody listens.
fn closed_port() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// Asserts an answer with one record, under the client's id.
#[track_caller]
fn assert_answered(reply: Result<Vec<u8>, ForwardError>) {
    let reply = reply.unwrap();
    assert_eq!(reply[..2], 4711_u16.to_be_bytes(), "id");
    assert_eq!((reply[3] & 15, reply[7]), (0, 1), "rcode and answers");
    assert!(reply.ends_with(&[192, 0, 2, 7]), "the address");
}

#[track_caller]
fn assert_rcode(reply: Result<Vec<u8>, ForwardError>, rcode: u8) {
    assert_eq!(reply.unwrap()[3] & 15, rcode);
}

#[test]
fn answers_overtake_each_other_on_one_connection() {
    run(async {
        let server = Upstream::start(|asked| {
            let wait = if asked.name.starts_with("slow") { 80 } else { 0 };
            let wait = Step::Wait(Duration::from_millis(wait));
            vec![wait, Step::Send(asked.answer())]
        })
        .await;
        let client = Client::new(&[force_tcp(&[&server])]);
        assert_answered(client.tcp("warm").await);
        let finished = |name| {
            let client = &client;
            async move {
                assert_answered(client.tcp(name).await);
                Instant::now()
            }
        };
        // More slow ones than there are connections, so that the fast one follows some of them.
        let slow = join_all((0..8).map(|_| finished("slow")));
        let fast = async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            finished("fast").await
        };
        let (slow, fast) = tokio::join!(slow, fast);
        assert!(slow.iter().all(|slow| fast + Duration::from_millis(20) < *slow));
        // Four, and one more before it shows that nothing waits.
        assert!(server.connections() <= 5);
        assert_eq!(server.asked().len(), 10);
    });
}

#[test]
fn two_hundred_at_once_take_few_connections() {
    run(async {
        let server = Upstream::start(|asked| {
            let wait = Duration::from_millis(u64::from(asked.message[1]) % 50);
            vec![Step::Wait(wait), Step::Send(asked.answer())]
        })
        .await;
        let client = Client::new(&[force_tcp(&[&server])]);
        for round in 0..3 {
            let names: Vec<String> = (0..200).map(|n| format!("n{n}.r{round}")).collect();
            for reply in join_all(names.iter().map(|name| client.tcp(name))).await {
                assert_answered(reply);
            }
        }
        // Four at a time, each renewed after 32 queries, but not faster than every 60 ms.
        assert!(server.connections() <= 4 + 600 / 32, "{}", server.connections());
        assert_eq!(client.counts.answered.get(), 600);
    });
}

#[test]
fn ids_on_the_wire_are_not_the_clients() {
    run(async {
        let server = Upstream::start(answer).await;
        let client = Client::new(&[forward_to(&[&server])]);
        for _ in 0..4 {
            assert_answered(client.tcp("a").await);
            assert_answered(client.udp("a").await);
        }
        let asked = server.asked();
        let mut ids: Vec<&[u8]> = asked.iter().map(|asked| &asked.message[..2]).collect();
        ids.sort_unstable();
        ids.dedup();
        assert!(ids.len() >= 7, "8 random ids, {} distinct", ids.len());
    });
}

#[test]
fn a_directive_is_chosen_by_name() {
    run(async {
        let inner = Upstream::start(refuse(3)).await;
        let outer = Upstream::start(answer).await;
        let cluster = Config {
            from: Name::from_text("cluster.local").unwrap(),
            except: vec![Name::from_text("skip.cluster.local").unwrap()],
            ..forward_to(&[&inner])
        };
        let rest = Config { from: Name::from_text("local").unwrap(), ..forward_to(&[&outer]) };
        let client = Client::new(&[cluster, rest]);
        assert_rcode(client.udp("a.cluster.local").await, 3);
        assert_answered(client.udp("a.skip.cluster.local").await);
        assert_answered(client.udp("other.local").await);
        assert_eq!(client.udp("example.com").await, Err(ForwardError::NotForwarded));
        assert!(client.chain.matches(b"\x05local\0"));
        assert!(!client.chain.matches(b"\x03com\0"));
    });
}

#[test]
fn failover_codes_go_to_the_next_upstream_and_the_last_reply_stands() {
    run(async {
        let (failing, good) = (Upstream::start(refuse(2)).await, Upstream::start(answer).await);
        let failover = |to: &[&Upstream]| Config { failover: vec![2, 5], ..forward_to(to) };
        let client = Client::new(&[failover(&[&failing, &good])]);
        assert_answered(client.udp("a").await);
        let refusing = Upstream::start(refuse(5)).await;
        let client = Client::new(&[failover(&[&failing, &refusing])]);
        assert_rcode(client.udp("a").await, 5);
        assert_eq!((failing.asked().len(), refusing.asked().len()), (2, 1));
    });
}

#[test]
fn next_codes_go_to_the_next_directive() {
    run(async {
        let (first, second) = (Upstream::start(refuse(3)).await, Upstream::start(answer).await);
        let next = Config { next: vec![3], ..forward_to(&[&first]) };
        let client = Client::new(&[next.clone(), forward_to(&[&second])]);
        assert_answered(client.udp("a").await);
        let alone = Client::new(&[next]);
        assert_rcode(alone.udp("a").await, 3);
    });
}

#[test]
fn max_concurrent_turns_the_rest_away() {
    run(async {
        let server =
            Upstream::start(|asked| vec![Step::Wait(Duration::from_millis(100)), Step::Send(asked.answer())])
                .await;
        let client = Client::new(&[Config { max_concurrent: Some(3), ..forward_to(&[&server]) }]);
        let replies = join_all((0..5).map(|_| client.udp("a"))).await;
        let refused = Err(ForwardError::Overloaded { limit: 3 });
        assert_eq!(replies.iter().filter(|reply| **reply == refused).count(), 2);
        assert_eq!(client.counts.overloaded.get(), 2);
        assert_answered(client.udp("a").await);
    });
}

#[test]
fn a_cancelled_query_leaves_nothing_behind() {
    run(async {
        let server = Upstream::start(|asked| {
            let wait = if asked.name == "slow." { 100 } else { 0 };
            vec![Step::Wait(Duration::from_millis(wait)), Step::Send(asked.answer())]
        })
        .await;
        let client = Client::new(&[Config { max_concurrent: Some(1), ..force_tcp(&[&server]) }]);
        assert_answered(client.tcp("warm").await);
        let cancelled = tokio::time::timeout(Duration::from_millis(30), client.tcp("slow"));
        assert!(cancelled.await.is_err());
        assert_answered(client.tcp("after").await);
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_answered(client.tcp("after").await);
        // What followed the cancelled one did not wait behind it.
        assert_eq!(server.connections(), 2);
    });
}
