//! Rules are there only while somebody answers, and `/ready` says yes only once they are.
//!
//! A rule for queries without a listener is a black hole for the ClusterIP, so this is looked at in a tight
//! loop from another thread while the program starts and ends.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use doorstep::demo::network::{KUBE_DNS_VIP, NODE_LOCAL};
use doorstep::demo::notrack_rules;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};

use doorstep::demo::Transport;
use rustix::process::Signal;

use super::rig::{ADDRESSES, DOORSTEP, Daemon, KUBERNETES, PATIENCE, Rig, TRANSPORTS, ask, eventually};

/// Rules that spare tracking and stay until the last query is answered, of both addresses.
const FOR_ANSWERS: usize = 8;
/// Rules that spare tracking, of one address.
const NOTRACK: usize = 8;
/// More than an answer from the cache takes on a busy machine, a part of what queries in flight draw the
/// end out by: rules for queries must be gone well before the listener.
const PROMPT: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
struct Seen {
    /// Looks at all.
    looks: usize,
    /// Looks that met rules for queries.
    with_rules: usize,
    /// Questions that got no answer although those were there before and after.
    unanswered: Vec<Duration>,
    /// Looks at which `/ready` said yes before there were rules.
    ready_early: usize,
}

fn rules(rig: &Rig) -> usize {
    notrack_rules(rig.cluster.node()).expect("a listing").rules
}

/// Whether there are rules that bring queries here.
fn has_rules(rig: &Rig) -> bool {
    rules(rig) > FOR_ANSWERS
}

/// Looks on until `done`.
fn watch(rig: &Rig, starting: bool, done: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let start = Instant::now();
    while !done.load(Ordering::Relaxed) && start.elapsed() < LONGEST {
        seen.looks += 1;
        // Asked first: rules that come in between make no difference to a wrong yes.
        if starting && rig.is_ready() && !has_rules(rig) {
            seen.ready_early += 1;
        }
        let at = start.elapsed();
        if !has_rules(rig) {
            continue;
        }
        seen.with_rules += 1;
        for server in ADDRESSES {
            if !rig.pod_is_answered(server, PROMPT) && has_rules(rig) {
                seen.unanswered.push(at);
            }
        }
    }
    seen
}

/// What is seen while `action` runs.
fn during<T>(rig: &Rig, starting: bool, action: impl FnOnce() -> T) -> (T, Seen) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(rig, starting, &done));
        let result = action();
        done.store(true, Ordering::Relaxed);
        (result, watcher.join().expect("no panic"))
    })
}

/// Slow lookups of the pod, by both transports at both addresses; the results are whether it was answered.
fn in_flight(rig: &Rig) -> impl Iterator<Item = impl FnOnce() -> bool> {
    let ways = ADDRESSES.into_iter().flat_map(|server| TRANSPORTS.map(|transport| (server, transport)));
    ways.enumerate().map(move |(count, (server, transport))| {
        move || {
            let name = format!("slow-700.{count}.cluster.local.");
            let answer = ask(rig.cluster.pod(), server.into(), &name, transport, PATIENCE);
            answer.is_ok_and(|answer| answer.code() == ResponseCode::NoError)
        }
    })
}

fn rules_come_after_the_listener_and_go_before_it(backend: &str) {
    let rig = Rig::new(&format!("order{}", &backend[..3]));
    let (daemon, started) = during(&rig, true, || {
        let daemon = rig.serve(&["-rules-backend", backend]);
        thread::sleep(Duration::from_millis(50));
        daemon
    });
    assert_eq!((started.unanswered.len(), started.ready_early), (0, 0), "{started:?}\n{}", daemon.log());
    assert!(started.with_rules > 0 && started.with_rules < started.looks, "{started:?}");

    let (answered, stopped) = during(&rig, false, || {
        thread::scope(|scope| {
            let asked: Vec<_> = in_flight(&rig).map(|ask| scope.spawn(ask)).collect();
            thread::sleep(Duration::from_millis(200));
            daemon.stop();
            asked.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
        })
    });
    assert_eq!(answered, [true; 4], "queries in flight, UDP and TCP at {ADDRESSES:?}");
    assert!(stopped.unanswered.is_empty() && stopped.with_rules > 0, "{stopped:?}");
    assert!(rules(&rig) == 0 && !rig.is_ready());
}

#[test]
fn nftables_rules_come_after_the_listener_and_go_before_it() {
    rules_come_after_the_listener_and_go_before_it("nftables");
}

#[test]
fn iptables_rules_come_after_the_listener_and_go_before_it() {
    rules_come_after_the_listener_and_go_before_it("iptables");
}

/// Answers to two queries on one connection, the second slower than the first; the end comes before either.
fn answers_on_a_connection(rig: &Rig, server: Ipv4Addr, daemon: Daemon) -> usize {
    let connect = || TcpStream::connect_timeout(&(server, 53).into(), PROMPT);
    let mut stream = rig.cluster.pod().run(connect).expect("entered").expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    for name in ["slow-400.a.cluster.local.", "slow-700.b.cluster.local."] {
        let octets = query_for(name);
        let length = u16::try_from(octets.len()).expect("short").to_be_bytes();
        stream.write_all(&[&length[..], &octets].concat()).expect("sent");
    }
    thread::sleep(Duration::from_millis(200));
    daemon.stop();
    let mut received = Vec::new();
    // Closed, or reset by kube-dns, which does not know it, once our rules are gone.
    let _ = stream.read_to_end(&mut received);
    let (mut rest, mut answers) = (received.as_slice(), 0);
    while let [high, low, frame @ ..] = rest {
        rest = frame.get(usize::from(u16::from_be_bytes([*high, *low]))..).expect("a whole frame");
        answers += 1;
    }
    answers
}

#[test]
fn the_end_answers_every_query_of_a_connection() {
    for server in ADDRESSES {
        for backend in ["nftables", "iptables"] {
            let rig = Rig::new(&format!("both{}", &backend[..3]));
            let daemon = rig.serve(&["-rules-backend", backend]);
            assert_eq!(answers_on_a_connection(&rig, server, daemon), 2, "{server}, {backend}");
        }
    }
}

fn query_for(name: &str) -> Vec<u8> {
    let query = Query::query(Name::from_ascii(name).expect("a name"), RecordType::A);
    Message::query().add_query(query).to_vec().expect("a message")
}

/// The worker before answers there for a while. An answer that is tracked would make its client's next query a reply,
/// which no DNAT takes to kube-dns.
#[test]
fn an_address_that_a_reload_leaves_is_kube_proxys_at_once() {
    for backend in ["nftables", "iptables"] {
        let rig = Rig::new(&format!("left{}", &backend[..3]));
        let daemon = rig.serve(&["-rules-backend", backend]);
        let socket =
            rig.cluster.pod().run(|| UdpSocket::bind("0.0.0.0:0")).expect("entered").expect("a socket");
        socket.connect((KUBE_DNS_VIP, 53)).expect("a route");
        socket.set_read_timeout(Some(PATIENCE)).expect("set");
        socket.send(&query_for("slow-900.a.cluster.local.")).expect("sent");
        thread::sleep(Duration::from_millis(100));
        let template = std::fs::read_to_string(rig.path("Corefile.base")).expect("a template");
        let template = template.replace("bind __PILLAR__LOCAL__DNS__", "bind 169.254.20.10");
        std::fs::write(rig.path("Corefile.base"), template).expect("written");
        daemon.signal(Signal::USR1);
        assert!(eventually(PATIENCE, || daemon.log().matches("running configuration").count() == 2));
        let mut answer = [0; 512];
        let first = socket.recv(&mut answer);
        assert!(first.is_ok(), "{backend}: the worker before answers: {first:?}");
        assert!(eventually(PATIENCE, || rules(&rig) == NOTRACK), "{backend}: {}", rules(&rig));
        for _ in 0..3 {
            socket.send(&query_for(KUBERNETES)).expect("sent");
            let next = socket.recv(&mut answer);
            assert!(next.is_ok(), "{backend}: kube-dns answers: {next:?}\n{}", daemon.log());
        }
        assert!(rig.pod_is_answered(NODE_LOCAL, PROMPT));
        daemon.stop();
    }
}

/// Rules for answers are there while queries in flight draw the end out, and then something else ends it.
#[test]
fn an_end_that_is_cut_short_leaves_nothing() {
    for (backend, signal) in [
        ("nftables", Signal::TERM),
        ("iptables", Signal::TERM),
        ("nftables", Signal::KILL),
        ("iptables", Signal::KILL),
    ] {
        let rig = Rig::new(&format!("short{}", &backend[..3]));
        let before = rig.listing();
        let mut daemon = rig.serve(&["-rules-backend", backend]);
        thread::scope(|scope| {
            let asked = scope.spawn(|| {
                let name = "slow-5000.cluster.local.";
                ask(rig.cluster.pod(), KUBE_DNS_VIP.into(), name, Transport::Udp, Duration::from_secs(1))
            });
            thread::sleep(Duration::from_millis(200));
            daemon.signal(Signal::TERM);
            assert!(eventually(PATIENCE, || rules(&rig) == FOR_ANSWERS), "{backend}: {}", rules(&rig));
            assert!(rig.pod_is_answered(KUBE_DNS_VIP, PROMPT), "{backend}: kube-proxy's path");
            daemon.signal(signal);
            daemon.wait();
            assert!(asked.join().expect("no panic").is_err());
        });
        if signal == Signal::KILL {
            assert!(eventually(PATIENCE, || rules(&rig) == 0 || backend == "iptables"));
            rig.node(&format!("{DOORSTEP} teardown -localip {NODE_LOCAL},{KUBE_DNS_VIP}"));
        }
        assert_eq!(rig.listing(), before, "{backend}, {signal:?}");
    }
}

/// A pod that asks the ClusterIP all the while notices neither the start nor the end.
#[test]
fn a_pod_at_the_cluster_ip_notices_neither_start_nor_end() {
    for backend in ["nftables", "iptables"] {
        let rig = Rig::new(&format!("quiet{}", &backend[..3]));
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let pod = scope.spawn(|| {
                let mut asked = 0;
                while !done.load(Ordering::Relaxed) {
                    assert!(rig.pod_is_answered(KUBE_DNS_VIP, PROMPT), "query {asked} with {backend}");
                    asked += 1;
                }
                asked
            });
            for _ in 0..3 {
                let daemon = rig.serve(&["-rules-backend", backend]);
                assert!(rig.pod_is_answered(NODE_LOCAL, PROMPT));
                daemon.stop();
            }
            done.store(true, Ordering::Relaxed);
            assert!(pod.join().expect("every query answered") > 20);
        });
    }
}

/// A start that cannot get its port sets nothing up.
#[test]
fn a_taken_port_ends_the_start_before_anything_is_set_up() {
    let rig = Rig::new("taken");
    rig.node("ip address add 10.96.0.10/32 dev lo");
    let taken = rig.cluster.node().run(|| std::net::UdpSocket::bind((KUBE_DNS_VIP, 53)));
    let _taken = taken.expect("entered").expect("a socket");
    let before = rig.listing();
    let mut daemon = rig.start(&[]);
    assert_eq!(daemon.wait().code(), Some(1));
    assert!(daemon.log().contains("cannot listen on udp 10.96.0.10:53"), "{}", daemon.log());
    assert_eq!(rig.listing(), before);
}
