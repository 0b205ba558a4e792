//! The change from node-cache and back, on a node where the old one still runs when the new one starts: a rollout
//! that surges, for the manifest names no ports that would keep two pods apart. node-cache's part is played with
//! its own words: sockets with `SO_REUSEPORT`, its link, its rules, and the order of its end.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use doorstep::demo::Transport;
use doorstep::demo::network::NODE_LOCAL;
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
        assert!(new.log().contains("another server answers at 169.254.20.10:53, too"), "{}", new.log());
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

/// It has looked at its rules once more before: they would be a black hole after our own end.
#[test]
fn what_a_node_cache_leaves_that_is_killed_beside_us_is_removed() {
    let rig = Rig::new("killed");
    let before = rig.listing();
    let old = NodeCache::start(&rig);
    let new = serving_beside(&rig, "nftables");
    assert_eq!(rig.commented_rules(), Vec::<String>::new());
    leave_as_node_cache(&rig);
    drop(old);
    assert!(eventually(PATIENCE, || rig.commented_rules().is_empty()), "{}", new.log());
    rig.everybody_resolves();
    new.stop();
    assert_eq!(rig.listing(), before);
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

/// What comes after the decision to end is for the other alone, and what came before is answered.
#[test]
fn nothing_is_lost_when_the_other_goes_on_alone() {
    let rig = Rig::new("alone");
    let new = rig.serve(&[]);
    rig.resolves(rig.cluster.pod(), NODE_LOCAL, Transport::Udp);
    let old = NodeCache::start(&rig);
    let over = AtomicBool::new(false);
    let unanswered = std::thread::scope(|scope| {
        old.sockets.iter().filter(|socket| socket.r#type().is_ok_and(|kind| kind == Type::DGRAM)).for_each(
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
    });
    assert_eq!(unanswered, 0);
    old.stop(&rig);
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
