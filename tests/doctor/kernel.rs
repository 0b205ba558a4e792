//! The kernel's own counters, made to grow while the doctor looks.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::common::netns::{Namespace, isolated, own_path, run};
use super::node::{Diagnosis, doctor};

/// Long enough for a race to happen on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `load` again and again while the doctor reads twice, as often as it takes to find `id`.
fn meanwhile(id: &str, look: impl Fn() -> Diagnosis, mut load: impl FnMut() + Send) -> Diagnosis {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                load();
            }
        });
        let _stop = Stop(&done);
        let end = Instant::now() + PATIENCE;
        let mut found = look();
        while !found.findings.contains_key(id) && Instant::now() < end {
            found = look();
        }
        found
    })
}

/// Ends the load, after a panic too.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn look() -> Diagnosis {
    doctor("", "-interval 1s")
}

#[test]
fn a_socket_that_overflows() {
    isolated(|| {
        let reader = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = reader.local_addr().unwrap();
        let found = meanwhile("receive-buffer-full", look, || drop(sender.send_to(&[0; 1400], address)));
        assert_eq!(found.ids(), ["receive-buffer-full"]);
        found.has("receive-buffer-full", "warning", "RcvbufErrors grew by ");
    });
}

/// A node with a pod behind a veth, and a ClusterIP behind which are two servers.
fn cluster(node: &Namespace) -> Namespace {
    let pod = Namespace::start();
    let home = pod.run(own_path);
    node.run(move || {
        run(&format!("ip link add veth1 type veth peer name eth0 netns {home}"));
        run("ip address add 10.244.0.1/24 dev veth1; ip link set veth1 up");
        run("ip address add 10.244.1.11/32 dev lo; ip address add 10.244.1.12/32 dev lo");
        run("nft add table ip services; \
             nft add chain ip services pre '{ type nat hook prerouting priority -100; }'; \
             nft 'add rule ip services pre ip daddr 10.96.0.10 udp dport 53 \
                  dnat to numgen random mod 2 map { 0 : 10.244.1.11, 1 : 10.244.1.12 }'");
    });
    pod.run(|| {
        run("ip address add 10.244.0.11/24 dev eth0; ip link set eth0 up; ip route add default via 10.244.0.1");
    });
    pod
}

/// Both send at the same time, each from a thread that is hot on a processor of its own.
fn together(sockets: [&UdpSocket; 2]) {
    let here = AtomicUsize::new(0);
    let send = |socket: &UdpSocket| {
        here.fetch_add(1, Ordering::AcqRel);
        while here.load(Ordering::Acquire) < 2 {
            std::hint::spin_loop();
        }
        // A port where nobody waits is told by the next call on the socket.
        let _ = socket.send(b"query");
    };
    thread::scope(|scope| {
        scope.spawn(|| send(sockets[0]));
        send(sockets[1]);
    });
}

/// What a resolver with two threads does.
fn pair() {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.connect("10.96.0.10:53").unwrap();
    together([&socket, &socket]);
}

/// The race itself, and the doctor beside it.
fn race(id: &str, listening: bool) -> Diagnosis {
    let node = Namespace::start();
    let pod = cluster(&node);
    let servers: Vec<UdpSocket> = if listening {
        node.run(|| {
            ["10.244.1.11:53", "10.244.1.12:53"].map(|address| UdpSocket::bind(address).unwrap()).into()
        })
    } else {
        Vec::new()
    };
    for server in &servers {
        let server = server.try_clone().unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        thread::spawn(move || while server.recv(&mut [0; 64]).is_ok() {});
    }
    meanwhile(id, || node.run(look), move || pod.run(|| (0..100).for_each(|_| pair())))
}

#[test]
fn pairs_that_clash() {
    let found = race("conntrack-race", true);
    found.has("conntrack-race", "warning", "clash_resolve grew by ");
}

/// Where answers, here the servers' sockets, are missing too, it is a loss.
#[test]
fn pairs_that_clash_and_datagrams_that_nobody_waits_for() {
    let found = race("slow-answer-loss", false);
    found.has("slow-answer-loss", "critical", "NoPorts of node and pods by ");
    assert!(!found.findings.contains_key("conntrack-race"));
}

/// Two pods that ask one server from one port, masqueraded on the node's way out.
#[test]
fn flows_that_are_given_one_source_port() {
    let node = Namespace::start();
    let [one, two, outside] = [(); 3].map(|()| Namespace::start());
    let homes = [&one, &two, &outside].map(|namespace| namespace.run(own_path));
    node.run(move || {
        for (number, home) in homes.iter().enumerate() {
            run(&format!("ip link add link{number} type veth peer name eth0 netns {home}"));
            run(&format!(
                "ip address add 10.244.{number}.1/24 dev link{number}; ip link set link{number} up"
            ));
        }
        run("echo 1 > /proc/sys/net/ipv4/ip_forward; iptables -t nat -A POSTROUTING -o link2 -j MASQUERADE");
    });
    for (number, namespace) in [&one, &two, &outside].into_iter().enumerate() {
        namespace.run(move || {
            run(&format!("ip address add 10.244.{number}.11/24 dev eth0; ip link set eth0 up"));
            run(&format!("ip route add default via 10.244.{number}.1"));
        });
    }
    let socket = |namespace: &Namespace, number: u8, port: u16, server: u16| {
        namespace.run(move || {
            let socket = UdpSocket::bind((Ipv4Addr::new(10, 244, number, 11), port)).unwrap();
            socket.connect(("10.244.2.11", server)).unwrap();
            socket
        })
    };
    // A flow that conntrack knows does not race: each pair takes ports that none before it had, the source's
    // below those that the kernel gives away.
    let mut ports = (53..1000).flat_map(|server| (2000..32000).map(move |port| (server, port)));
    let found = meanwhile(
        "snat-collision",
        || node.run(look),
        || {
            let (server, port) = ports.next().unwrap();
            together([&socket(&one, 0, port, server), &socket(&two, 1, port, server)]);
        },
    );
    drop(outside);
    found.has("snat-collision", "critical", "insert_failed grew by ");
    found.has("masquerade-not-random", "warning", "-o link2 -j MASQUERADE");
}
