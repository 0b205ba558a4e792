//! The change from node-cache and back, on a node where the old one still runs when the new one starts: a rollout
//! that surges, for the manifest names no ports that would keep two pods apart. node-cache's part is played with
//! its own words: sockets with `SO_REUSEPORT`, its link, its rules, and the order of its end.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use doorstep::demo::Transport;
use doorstep::demo::network::{KUBE_DNS_VIP, NODE_LOCAL};
use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, SockRef, Socket, Type};

use super::crash::leave_as_node_cache;
use super::rig::{ADDRESSES, PATIENCE, RULES, Rig, eventually};

const METRICS: u16 = 9353;

/// A server that has the ports and answers nobody.
struct NodeCache {
    sockets: Vec<Socket>,
}

impl NodeCache {
    fn start(rig: &Rig) -> NodeCache {
        leave_as_node_cache(rig);
        let sockets = rig.cluster.node().run(|| {
            let dns = ADDRESSES.iter().flat_map(|ip| [Type::DGRAM, Type::STREAM].map(|kind| (*ip, 53, kind)));
            let mut sockets: Vec<Socket> = dns.map(|at| open(at, true).expect("a socket")).collect();
            // Somebody else may have this one: it is logged, and that is all.
            sockets.extend(open((Ipv4Addr::UNSPECIFIED, METRICS, Type::STREAM), false));
            sockets
        });
        NodeCache { sockets: sockets.expect("entered") }
    }

    /// SIGTERM: rules, link, sockets.
    fn stop(self, rig: &Rig) {
        for rule in rig.commented_rules() {
            let rule = rule.replacen("-A", "-D", 1);
            let table = if rule.contains("ACCEPT") { "filter" } else { "raw" };
            // Whoever else is to keep the rules may have been faster.
            rig.node(&format!("iptables -w -t {table} {rule} || true"));
        }
        rig.node("ip link delete nodelocaldns");
        drop(self.sockets);
    }

    fn has_its_link(rig: &Rig) -> bool {
        let shown = rig.node("ip -o address show");
        ADDRESSES.iter().all(|ip| shown.contains(&format!("{ip}/32")))
    }
}

fn open((ip, port, kind): (Ipv4Addr, u16, Type), shares: bool) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, kind, None)?;
    SockRef::from(&socket).set_reuse_port(shares)?;
    socket.set_reuse_address(kind == Type::STREAM)?;
    socket.bind(&SocketAddr::from((ip, port)).into())?;
    if kind == Type::STREAM {
        socket.listen(16)?;
    }
    Ok(socket)
}

fn serving_beside(rig: &Rig, backend: &str) -> super::rig::Daemon {
    rig.serve(&["-rules-backend", backend, "-metrics-listen-address", &format!("0.0.0.0:{METRICS}")])
}

#[test]
fn what_node_caches_late_end_takes_away_is_restored() {
    let rig = Rig::new("late");
    let before = rig.listing();
    for backend in ["nftables", "iptables"] {
        let old = NodeCache::start(&rig);
        let new = serving_beside(&rig, backend);
        let is_told = || new.log().contains("another server answers at 169.254.20.10:53, too");
        assert!(eventually(PATIENCE, is_told), "{}", new.log());
        old.stop(&rig);
        let restored = || match backend {
            "nftables" => rig.has_table() && NodeCache::has_its_link(&rig),
            _ => rig.commented_rules().len() == RULES * ADDRESSES.len() && NodeCache::has_its_link(&rig),
        };
        assert!(eventually(PATIENCE, restored), "{backend}:\n{}", new.log());
        rig.everybody_resolves();
        // It had this port for itself.
        let is_served = || matches!(rig.http(METRICS, "/metrics"), Ok((200, _)));
        assert!(eventually(PATIENCE, is_served), "{backend}:\n{}", new.log());
        new.stop();
        assert_eq!(rig.listing(), before, "{backend}");
    }
}

/// What comes with the port is a new worker, which may come to nothing for a reason of its own.
#[test]
fn a_port_that_was_held_is_had_even_if_the_first_attempt_fails() {
    let rig = Rig::new("held");
    let old = NodeCache::start(&rig);
    let listen = format!("0.0.0.0:{METRICS}");
    let new = rig.serve(&["-metrics-listen-address", &listen, "-syncinterval", "1s"]);
    let serving = worker_of(new.pid());
    old.stop(&rig);
    let start = Instant::now();
    let next = loop {
        if let Some(next) = workers(new.pid()).into_iter().find(|worker| *worker != serving) {
            break next;
        }
        assert!(start.elapsed() < PATIENCE, "{}", new.log());
    };
    kill_process(next, Signal::KILL).expect("sent");
    assert!(eventually(PATIENCE, || new.log().contains("ended: signal: 9")), "{}", new.log());
    let is_served = || matches!(rig.http(METRICS, "/metrics"), Ok((200, _)));
    assert!(eventually(PATIENCE, is_served), "{}", new.log());
    assert_ne!(worker_of(new.pid()), serving);
    new.stop();
}

/// It has looked at its rules once more before: they would be a black hole after our own end.
#[test]
fn what_a_node_cache_leaves_that_is_killed_beside_us_is_removed() {
    let rig = Rig::new("killed");
    let before = rig.listing();
    let old = NodeCache::start(&rig);
    let new = serving_beside(&rig, "nftables");
    assert_eq!(rig.commented_rules().len(), RULES * ADDRESSES.len(), "it lives, and needs its rules");
    drop(old);
    assert!(eventually(PATIENCE, || rig.commented_rules().is_empty()), "{}", new.log());
    rig.everybody_resolves();
    new.stop();
    assert_eq!(rig.listing(), before);
}

/// They would keep the ClusterIP from kube-proxy once we have ended, or have been killed in our turn.
#[test]
fn what_a_killed_node_cache_left_goes_without_the_tools_of_iptables() {
    let rig = Rig::new("toolless");
    rig.node(
        "iptables -t raw -A OUTPUT -d 192.0.2.1 -j NOTRACK
         ip6tables -A INPUT -p udp --dport 53 -m comment --comment 'DNS' -j ACCEPT",
    );
    let (before, saved) = (rig.listing(), rig.iptables_rules());
    leave_as_node_cache(&rig);
    rig.node(
        "ip6tables -t raw -I PREROUTING -p udp -d fd00::10 --dport 53 -j NOTRACK \
             -m comment --comment 'NodeLocal DNS Cache: skip conntrack'",
    );
    assert!(!rig.pod_is_answered(KUBE_DNS_VIP, Duration::from_secs(1)), "a black hole");
    let daemon = rig.serve_without_tools(&[]);
    assert_eq!(rig.iptables_rules(), saved, "{}", daemon.log());
    assert!(daemon.log().contains("25 leftover rules deleted"), "{}", daemon.log());
    rig.everybody_resolves();
    daemon.stop();
    assert!(rig.pod_is_answered(KUBE_DNS_VIP, PATIENCE));
    assert_eq!(rig.listing(), before);
}

/// The tables of iptables-legacy are out of reach then; only that they are there is known.
#[test]
fn tables_of_iptables_legacy_are_told_of_where_nobody_can_look_into_them() {
    let rig = Rig::new("toldof");
    rig.serve_without_tools(&[]).stop();
    let told = |daemon: &super::rig::Daemon| daemon.log().contains("iptables-legacy has a table `raw`");
    let daemon = rig.serve_without_tools(&[]);
    assert!(!told(&daemon), "{}", daemon.log());
    daemon.stop();
    rig.node("iptables-legacy -t raw -A OUTPUT -d 192.0.2.1 -j NOTRACK");
    let daemon = rig.serve_without_tools(&[]);
    assert!(told(&daemon), "{}", daemon.log());
    daemon.stop();
}

#[test]
fn a_node_cache_that_comes_later_is_seen_to_come_and_go() {
    let rig = Rig::new("newcomer");
    let before = rig.listing();
    let new = rig.serve_without_tools(&["-syncinterval", "1s"]);
    for _ in 0..2 {
        let seen = new.log().matches("another server answers").count();
        let old = NodeCache::start(&rig);
        let is_seen = || new.log().matches("another server answers").count() > seen;
        assert!(eventually(PATIENCE, is_seen), "{}", new.log());
        assert_eq!(rig.commented_rules().len(), RULES * ADDRESSES.len());
        // SIGKILL.
        drop(old);
        assert!(eventually(PATIENCE, || rig.commented_rules().is_empty()), "{}", new.log());
    }
    assert_eq!(new.log().matches("the other server has ended").count(), 2);
    new.stop();
    assert_eq!(rig.listing(), before);
}

#[test]
fn what_a_node_cache_left_that_came_and_went_unseen_goes_too() {
    let rig = Rig::new("unseen");
    let before = rig.listing();
    let daemon = rig.serve_without_tools(&["-syncinterval", "1s"]);
    leave_as_node_cache(&rig);
    assert!(eventually(PATIENCE, || rig.commented_rules().is_empty()), "{}", daemon.log());
    daemon.stop();
    assert_eq!(rig.listing(), before);
    let daemon = rig.serve_without_tools(&[]);
    leave_as_node_cache(&rig);
    daemon.stop();
    assert_eq!(rig.listing(), before, "at the end at the latest");
}

/// Link and rules were left to it; then nobody would answer there.
#[test]
fn a_node_cache_that_ends_before_we_have_leaves_no_black_hole() {
    for backend in ["nftables", "iptables"] {
        let rig = Rig::new("both");
        let before = rig.listing();
        let mut new = rig.serve(&["-rules-backend", backend]);
        let old = NodeCache::start(&rig);
        let worker = worker_of(new.pid());
        kill_process(worker, Signal::STOP).expect("sent");
        new.signal(Signal::TERM);
        let is_left = || new.log().contains("the link and iptables rules stay for it");
        assert!(eventually(PATIENCE, is_left), "{}", new.log());
        drop(old);
        kill_process(worker, Signal::CONT).expect("sent");
        assert_eq!(new.wait().code(), Some(0), "{}", new.log());
        assert!(rig.pod_is_answered(KUBE_DNS_VIP, PATIENCE), "{backend}");
        assert_eq!(rig.listing(), before, "{backend}");
    }
}

fn worker_of(guardian: Pid) -> Pid {
    workers(guardian).pop().expect("a worker")
}

fn workers(guardian: Pid) -> Vec<Pid> {
    let guardian = guardian.as_raw_nonzero();
    let path = format!("/proc/{guardian}/task/{guardian}/children");
    let children = std::fs::read_to_string(path).expect("children");
    // Others are tools of iptables, or have not become what they are to be.
    let is_worker = |child: &&str| {
        let command = std::fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
        command.split('\0').nth(1) == Some("worker")
    };
    let children = children.split_whitespace().filter(is_worker);
    children.filter_map(|child| Pid::from_raw(child.parse().ok()?)).collect()
}
#[test]
fn the_end_leaves_a_node_cache_that_serves_what_it_needs() {
    let rig = Rig::new("back");
    let before = rig.listing();
    for backend in ["nftables", "iptables"] {
        let new = rig.serve(&["-rules-backend", backend]);
        rig.resolves(rig.cluster.pod(), ADDRESSES[0], Transport::Udp);
        let old = NodeCache::start(&rig);
        new.stop();
        assert!(NodeCache::has_its_link(&rig), "{backend}: the link went");
        assert!(rig.commented_rules().len() == RULES * ADDRESSES.len(), "{backend}: the rules went");
        assert!(!rig.has_table(), "{backend}: the table stayed");
        old.stop(&rig);
        assert_eq!(rig.listing(), before, "{backend}");
    }
}

/// It has one of our addresses and knows nothing of the other, whose rules would be a black hole.
#[test]
fn what_is_left_to_a_node_cache_is_what_it_answers_at() {
    for backend in ["nftables", "iptables"] {
        let rig = Rig::new("part");
        let new = rig.serve(&["-rules-backend", backend]);
        let sockets = rig.cluster.node().run(|| {
            let open = |kind| open((NODE_LOCAL, 53, kind), true).expect("a socket");
            [Type::DGRAM, Type::STREAM].map(open)
        });
        new.stop();
        assert!(rig.pod_is_answered(KUBE_DNS_VIP, PATIENCE), "{backend}");
        let rules = rig.commented_rules();
        assert_eq!(rules.len(), if backend == "iptables" { RULES } else { 0 }, "{rules:?}");
        assert!(rules.iter().all(|rule| rule.contains(&NODE_LOCAL.to_string())), "{rules:?}");
        assert!(NodeCache::has_its_link(&rig), "{backend}");
        drop(sockets);
    }
}

/// It was given more than this process: without its address it would not start.
#[test]
fn an_address_that_a_node_cache_adds_to_our_link_stays() {
    let rig = Rig::new("more");
    let new = rig.serve(&["-syncinterval", "1s"]);
    rig.node("ip address add 169.254.25.10/32 dev nodelocaldns");
    new.signal(Signal::USR1);
    std::thread::sleep(Duration::from_millis(1_500));
    assert!(rig.node("ip address show dev nodelocaldns").contains("169.254.25.10/32"), "{}", new.log());
    new.stop();
}

/// What comes after the decision to end is for the other alone, and what came before is answered.
#[test]
fn nothing_is_lost_when_the_other_goes_on_alone() {
    let rig = Rig::new("alone");
    let new = rig.serve(&[]);
    rig.resolves(rig.cluster.pod(), NODE_LOCAL, Transport::Udp);
    let old = NodeCache::start(&rig);
    assert_eq!(unanswered_while_it_stops(&rig, new, &old.sockets), 0);
    old.stop(&rig);
}

/// Where Cilium brings the queries there are neither link nor rules of ours.
#[test]
fn nothing_is_lost_either_where_both_serve_a_wildcard() {
    let rig = Rig::new("wildcard");
    let corefile = rig.path("Corefile.base");
    let bound = std::fs::read_to_string(&corefile).expect("a Corefile");
    std::fs::write(&corefile, bound.replace("__PILLAR__LOCAL__DNS__", "0.0.0.0")).expect("written");
    rig.node(&format!("ip address add {NODE_LOCAL}/32 dev lo"));
    let new = rig.serve(&["-setupinterface=false", "-setupiptables=false", "-skipteardown=true"]);
    rig.resolves(rig.cluster.pod(), NODE_LOCAL, Transport::Udp);
    let sockets = rig.cluster.node().run(|| {
        let open = |kind| open((Ipv4Addr::UNSPECIFIED, 53, kind), true).expect("a socket");
        [Type::DGRAM, Type::STREAM].map(open)
    });
    assert_eq!(unanswered_while_it_stops(&rig, new, &sockets.expect("entered")), 0);
}

/// `other` are the sockets of one that answers.
fn unanswered_while_it_stops(rig: &Rig, new: super::rig::Daemon, other: &[Socket]) -> usize {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        other.iter().filter(|socket| socket.r#type().is_ok_and(|kind| kind == Type::DGRAM)).for_each(
            |socket| {
                let socket = UdpSocket::from(socket.try_clone().expect("a descriptor"));
                let over = &over;
                scope.spawn(move || reflect(&socket, over));
            },
        );
        let client = scope.spawn(|| rig.cluster.pod().run(|| ask_all_the_time(Duration::from_millis(1_500))));
        std::thread::sleep(Duration::from_millis(500));
        new.stop();
        let unanswered = client.join().expect("joined").expect("entered");
        over.store(true, Ordering::Relaxed);
        unanswered
    })
}

fn reflect(socket: &UdpSocket, over: &AtomicBool) {
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("set");
    let mut buffer = [0; 512];
    while !over.load(Ordering::Relaxed) {
        if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..length], peer).expect("sent");
        }
    }
}

/// A query a millisecond, each from a port of its own, by which the kernel deals them out. Returns how many stayed
/// without an answer.
fn ask_all_the_time(time: Duration) -> usize {
    let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\
                  \x0akubernetes\x07default\x03svc\x07cluster\x05local\0\0\x01\0\x01";
    let start = Instant::now();
    let mut clients = Vec::new();
    while start.elapsed() < time {
        let client = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        client.send_to(query, (NODE_LOCAL, 53)).expect("sent");
        clients.push(client);
        std::thread::sleep(Duration::from_millis(1));
    }
    let unanswered = |client: &UdpSocket| {
        client.set_read_timeout(Some(Duration::from_millis(500))).expect("set");
        client.recv(&mut [0; 512]).is_err()
    };
    clients.iter().filter(|client| unanswered(client)).count()
}

#[test]
fn a_start_that_fails_leaves_a_node_cache_that_serves_its_link() {
    let rig = Rig::new("failing");
    let old = NodeCache::start(&rig);
    let before = rig.listing();
    let health = rig.cluster.node().run(|| std::net::TcpListener::bind((ADDRESSES[0], 8080)));
    let _health = health.expect("entered").expect("a socket");
    let mut new = rig.start(&[]);
    assert_eq!(new.wait().code(), Some(1), "{}", new.log());
    assert_eq!(rig.listing(), before);
    old.stop(&rig);
}
