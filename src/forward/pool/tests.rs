use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

use std::net::SocketAddr;

use super::super::metrics::{NoMetrics, Protocol};
use super::super::random::Random;
use super::pace::{MAX_CONNECT, MIN_CONNECT};
use super::*;

/// A message that is its own answer.
const RESPONSE: [u8; 12] = [0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const PATIENCE: Duration = Duration::from_millis(200);

/// A pool that dials into `accept`, with what it dialled.
struct Bed {
    pool: Rc<Pool>,
    /// The connect time-outs it allowed itself, one a dial.
    dialled: Rc<RefCell<Vec<Duration>>>,
}

/// How the peer meets a connection.
#[derive(Clone, Copy)]
enum Peer {
    Echo,
    /// The same, but late.
    Slow,
    Silent,
    Refuse,
    Unreachable,
}

impl Bed {
    /// `peers` meet the connections in turn, the last one all the rest.
    fn new(peers: &'static [Peer]) -> Bed {
        let dialled = Rc::new(RefCell::new(Vec::new()));
        let record = Rc::clone(&dialled);
        let to: SocketAddr = "192.0.2.1:53".parse().unwrap();
        let dial: Dial = Box::new(move |patience| {
            let mut dialled = record.borrow_mut();
            let peer = peers[dialled.len().min(peers.len() - 1)];
            dialled.push(patience);
            Box::pin(async move {
                let failure =
                    |reason| Failure { operation: Operation::Dial, protocol: Protocol::Tcp, to, reason };
                let (near, far) = duplex(4096);
                match peer {
                    Peer::Refuse => return Err(failure(Reason::Refused)),
                    Peer::Unreachable => {
                        sleep(patience).await;
                        return Err(failure(Reason::Timeout));
                    }
                    Peer::Echo | Peer::Slow | Peer::Silent => {}
                }
                sleep(Duration::from_millis(5)).await;
                spawn_local(meet(far, peer));
                Ok(Box::new(near) as Box<dyn Stream>)
            })
        });
        let remote = Remote {
            to,
            protocol: Protocol::Tcp,
            expire: Duration::from_secs(60),
            max_queries: None,
            overtaken: Cell::default(),
            flow: Default::default(),
            slow: Cell::default(),
            random: Rc::new(Random::new()),
            metrics: Rc::new(NoMetrics),
        };
        Bed { pool: Pool::new(Rc::new(remote), dial), dialled }
    }

    fn dials(&self) -> usize {
        self.dialled.borrow().len()
    }

    async fn acquire(&self) -> Outcome {
        self.pool.acquire(Need::default(), || PATIENCE, Instant::now()).await
    }

    async fn exchange(&self) -> u64 {
        let connection = self.acquire().await.unwrap();
        connection.exchange(&RESPONSE, &[]).await.unwrap();
        connection.serial()
    }
}

async fn meet(mut far: DuplexStream, peer: Peer) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = far.read(&mut buffer).await {
        if let Peer::Echo | Peer::Slow = peer {
            sleep(if let Peer::Slow = peer { 2 * PATIENCE } else { Duration::from_millis(1) }).await;
            // A query becomes its own answer.
            buffer[4] |= 0x80;
            let _ = far.write_all(&buffer[..length]).await;
        }
    }
}

fn run(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

#[test]
fn a_crowd_opens_a_few_connections() {
    run(async {
        let bed = Bed::new(&[Peer::Echo]);
        let connections = join_all((0..100).map(|_| bed.acquire())).await;
        assert!(connections.iter().all(Result::is_ok));
        assert_eq!(bed.dials(), MAX_CONNECTIONS);
    });
}

#[test]
fn load_spreads_over_a_few_connections_and_no_more() {
    run(async {
        let bed = Bed::new(&[Peer::Echo]);
        for _ in 0..20 {
            join_all((0..50).map(|_| bed.exchange())).await;
        }
        assert_eq!(bed.dials(), MAX_CONNECTIONS);
        sleep(2 * FRESH).await;
        let used = join_all((0..50).map(|_| bed.exchange())).await;
        for serial in 0..4 {
            let share = used.iter().filter(|used| **used == serial).count();
            assert!((10..=15).contains(&share), "connection {serial} got {share} of 50");
        }
    });
}

#[test]
fn light_load_keeps_to_one_connection() {
    run(async {
        let bed = Bed::new(&[Peer::Echo]);
        for _ in 0..50 {
            bed.exchange().await;
        }
        assert_eq!(bed.dials(), 1);
    });
}

#[test]
fn old_connections_are_replaced_before_they_are_missed() {
    run(async {
        let bed = Bed::new(&[Peer::Echo]);
        assert_eq!(bed.exchange().await, 0);
        sleep(MAX_AGE.mul_f64(0.7)).await;
        assert_eq!(bed.exchange().await, 0);
        assert_eq!(bed.dials(), 1);
        sleep(MAX_AGE.mul_f64(0.6)).await;
        assert_eq!(bed.exchange().await, 0, "the old one serves until the new one is there");
        sleep(Duration::from_millis(20)).await;
        assert_eq!(bed.exchange().await, 1);
        assert_eq!(bed.pool.connections.borrow().len(), 1);
    });
}

#[test]
fn a_silent_connection_is_avoided_and_then_given_up() {
    run(async {
        let bed = Bed::new(&[Peer::Silent, Peer::Echo]);
        let connection = bed.acquire().await.unwrap();
        let unanswered = timeout(Duration::from_secs(1), connection.exchange(&RESPONSE, &[]));
        assert!(unanswered.await.is_err());
        assert_eq!(bed.exchange().await, 1);
        assert!(connection.is_open());
        sleep(MAX_SILENCE).await;
        assert_eq!(bed.exchange().await, 1);
        assert!(!connection.is_open());
    });
}

#[test]
fn a_need_for_life_is_met_by_a_connection_that_answers() {
    run(async {
        let bed = Bed::new(&[Peer::Echo]);
        bed.exchange().await;
        sleep(Duration::from_secs(1)).await;
        let need = Need { alive_since: Some(Instant::now()), avoid: None };
        let asked = bed.pool.acquire(need, || PATIENCE, Instant::now()).await.unwrap();
        assert_eq!((asked.serial(), bed.dials()), (0, 1));
        assert!(asked.was_heard_since(need.alive_since.unwrap()));
    });
}

#[test]
fn a_need_for_life_is_not_met_by_a_connection_that_is_merely_new() {
    run(async {
        let bed = Bed::new(&[Peer::Silent, Peer::Unreachable, Peer::Silent, Peer::Echo]);
        let silent = bed.acquire().await.unwrap();
        let started = Instant::now();
        assert!(timeout(PATIENCE, silent.exchange(&[0; 12], &[])).await.is_err());
        let need = Need { alive_since: Some(started), avoid: Some(silent.serial()) };
        let asked = bed.pool.acquire(need, || PATIENCE, Instant::now()).await.unwrap();
        assert_eq!((asked.serial(), bed.dials()), (2, 4), "the one that never opened has no number");
        assert!(started.elapsed() < PATIENCE + Duration::from_millis(100), "{:?}", started.elapsed());
    });
}

#[test]
fn a_need_for_life_is_met_by_its_latest_sign() {
    run(async {
        let bed = Bed::new(&[Peer::Echo]);
        let started = Instant::now();
        let both = join_all([bed.acquire(), bed.acquire()]).await.into_iter().map(Result::unwrap);
        let both: Vec<_> = both.collect();
        for connection in &both {
            connection.exchange(&RESPONSE, &[]).await.unwrap();
        }
        let need = Need { alive_since: Some(started), avoid: None };
        let asked = bed.pool.acquire(need, || PATIENCE, Instant::now()).await.unwrap();
        assert_eq!(asked.serial(), both[1].serial());
    });
}

#[test]
fn who_was_late_comes_after_its_equals() {
    run(async {
        let bed = Bed::new(&[Peer::Slow, Peer::Echo]);
        bed.exchange().await;
        bed.pool.connect_beside().await.unwrap();
        for _ in 0..10 {
            assert_eq!(bed.exchange().await, 1);
        }
        sleep(2 * FRESH).await;
        assert_eq!(join_all([bed.exchange(), bed.exchange()]).await, [1, 0]);
    });
}

/// Three queries at a time, so many times, too far apart to flow; the longest way of one.
async fn slowest(bed: &Bed, times: usize) -> Duration {
    let mut slowest = Duration::ZERO;
    for _ in 0..times {
        let started = Instant::now();
        join_all((0..3).map(|_| bed.exchange())).await;
        slowest = slowest.max(started.elapsed());
        sleep(FRESH + Duration::from_millis(1)).await;
    }
    slowest
}

#[test]
fn nobody_is_given_a_connection_that_is_dead_from_the_start() {
    run(async {
        let bed = Bed::new(&[Peer::Echo, Peer::Silent]);
        bed.exchange().await;
        let slowest = timeout(Duration::from_secs(10), slowest(&bed, 1000)).await;
        assert!(slowest.expect("a query hangs") < Duration::from_millis(20));
        assert!(bed.dials() > 5, "{} dials", bed.dials());
    });
}

#[test]
fn a_connect_that_hangs_holds_up_nobody() {
    run(async {
        let bed = Bed::new(&[Peer::Echo, Peer::Unreachable]);
        bed.exchange().await;
        assert!(slowest(&bed, 20).await < Duration::from_millis(8));
        assert!(slowest(&bed, 20).await < Duration::from_millis(4), "it is known to hang");
        assert_eq!(bed.dials(), 2);
    });
}

#[test]
fn where_nobody_lives_the_search_ends() {
    run(async {
        let bed = Bed::new(&[Peer::Silent]);
        let silent = bed.acquire().await.unwrap();
        let started = Instant::now();
        let need = Need { alive_since: Some(started), avoid: Some(silent.serial()) };
        let waiting = (0..50).map(|_| bed.pool.acquire(need, || PATIENCE, Instant::now()));
        for outcome in join_all(waiting).await {
            assert!(outcome.err().unwrap().retry_at > Instant::now());
        }
        assert!(started.elapsed() < Duration::from_secs(1));
        assert_eq!(bed.dials(), 5, "one search for all who wait");
    });
}

#[test]
fn refused_connects_are_paced() {
    run(async {
        let bed = Bed::new(&[Peer::Refuse]);
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(10) {
            let unconnected = bed.acquire().await.err().unwrap();
            assert_eq!(unconnected.failure.reason, Reason::Refused);
            sleep(Duration::from_millis(1)).await;
        }
        // 10, 20, 40, 80, 160 ms, then 250 ms each.
        assert!((35..50).contains(&bed.dials()), "{} dials", bed.dials());
    });
}

#[test]
fn the_connect_timeout_starts_low_and_adapts() {
    run(async {
        let bed = Bed::new(&[Peer::Unreachable]);
        for _ in 0..12 {
            let unconnected = bed.acquire().await.err().unwrap();
            assert_eq!(unconnected.failure.reason, Reason::Timeout);
            tokio::time::sleep_until(unconnected.retry_at).await;
        }
        let dialled = bed.dialled.borrow();
        assert_eq!(dialled[0], MIN_CONNECT);
        assert!(dialled.is_sorted());
        assert_eq!(dialled.last(), Some(&MAX_CONNECT));
    });
}

#[test]
fn dropping_the_pool_closes_its_connections() {
    run(async {
        let bed = Bed::new(&[Peer::Echo]);
        let connection = bed.acquire().await.unwrap();
        drop(bed);
        assert!(!connection.is_open());
    });
}

#[test]
fn a_flowing_connection_is_filled_before_the_next_and_a_stopped_one_is_not() {
    run(async {
        let bed = Bed::new(&[Peer::Echo]);
        join_all((0..50).map(|_| bed.exchange())).await;
        sleep(Duration::from_secs(1)).await;
        for _ in 0..2 {
            let spread = join_all((0..8).map(|_| bed.exchange())).await;
            let count = |serial| spread.iter().filter(|used| **used == serial).count();
            assert!((0..4).all(|serial| count(serial) == 2), "few answers are no flow: {spread:?}");
        }
        for _ in 0..16 {
            join_all([bed.exchange(), bed.exchange()]).await;
            sleep(Duration::from_millis(1)).await;
        }
        let flowing = join_all((0..FLOWING + 1).map(|_| bed.exchange())).await;
        assert!(flowing[..FLOWING].iter().all(|serial| *serial == flowing[0]), "{flowing:?}");
        assert_ne!(flowing[FLOWING], flowing[0]);
    });
}

/// Where a Service's address leads: to a backend picked anew for each connection, as kube-proxy does.
struct Service {
    backends: Cell<usize>,
    queries: RefCell<Vec<u32>>,
    random: Cell<u64>,
}

impl Service {
    fn pick(&self) -> usize {
        // Knuth's MMIX generator: the same picks in every run.
        let next =
            self.random.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.random.set(next);
        usize::try_from((next >> 33) % self.backends.get() as u64).unwrap()
    }
}

fn pool_of(service: &Rc<Service>) -> Rc<Pool> {
    let service = Rc::clone(service);
    let dial: Dial = Box::new(move |_| {
        let service = Rc::clone(&service);
        Box::pin(async move {
            let (near, mut far) = duplex(4096);
            sleep(Duration::from_micros(300)).await;
            let backend = service.pick();
            spawn_local(async move {
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = far.read(&mut buffer).await {
                    service.queries.borrow_mut()[backend] += u32::try_from(length / 14).unwrap();
                    buffer[4] |= 0x80;
                    let _ = far.write_all(&buffer[..length]).await;
                }
            });
            Ok(Box::new(near) as Box<dyn Stream>)
        })
    });
    let remote = Remote {
        to: "192.0.2.1:53".parse().unwrap(),
        protocol: Protocol::Tcp,
        expire: Duration::from_secs(10),
        max_queries: Some(32),
        overtaken: Cell::default(),
        flow: Default::default(),
        slow: Cell::default(),
        random: Rc::new(Random::new()),
        metrics: Rc::new(NoMetrics),
    };
    Pool::new(Rc::new(remote), dial)
}

/// Asks `rate` queries a second for `seconds`.
async fn load(pool: &Rc<Pool>, rate: u32, seconds: u32) {
    for _ in 0..seconds * 1000 {
        join_all((0..rate / 1000).map(|_| async {
            let connection = pool.acquire(Need::default(), || PATIENCE, Instant::now()).await.unwrap();
            connection.exchange(&RESPONSE, &[]).await.unwrap();
        }))
        .await;
        sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn every_backend_gets_its_share_within_a_minute_of_a_rollout() {
    run(async {
        let service = Rc::new(Service {
            backends: Cell::new(2),
            queries: RefCell::new(vec![0; 4]),
            random: Cell::new(1),
        });
        let pool = pool_of(&service);
        load(&pool, 2000, 5).await;
        assert_eq!(service.queries.borrow()[2..], [0, 0]);
        service.backends.set(4);
        service.queries.borrow_mut().fill(0);
        load(&pool, 2000, 60).await;
        let queries = service.queries.borrow();
        let even = queries.iter().sum::<u32>() / 4;
        for share in &*queries {
            assert!((even * 4 / 5..=even * 6 / 5).contains(share), "{queries:?}");
        }
    });
}
