//! The kernel's own counters, made to grow while the doctor looks.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::common::netns::{Namespace, isolated, own_path, run};
use super::node::{Diagnosis, doctor};

/// Runs `load` again and again while the doctor reads twice.
fn meanwhile(load: impl Fn() + Send + Sync) -> Diagnosis {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                load();
            }
        });
        let found = doctor("", "-interval 1s");
        done.store(true, Ordering::Relaxed);
        found
    })
}

#[test]
fn a_socket_that_overflows() {
    isolated(|| {
        let reader = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = reader.local_addr().unwrap();
        let found = meanwhile(|| drop(sender.send_to(&[0; 1400], address)));
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

/// The race itself: a second of pairs, and the doctor beside them.
fn race(listening: bool) -> Diagnosis {
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
        server.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        thread::spawn(move || while server.recv(&mut [0; 64]).is_ok() {});
    }
    let racing = thread::spawn(move || {
        pod.run(|| {
            let end = Instant::now() + Duration::from_secs(3);
            while Instant::now() < end {
                pair();
            }
        });
    });
    let found = node.run(|| doctor("", "-interval 1500ms"));
    racing.join().unwrap();
    found
}

#[test]
fn pairs_that_clash() {
    let found = race(true);
    found.has("conntrack-race", "warning", "clash_resolve grew by ");
}

/// Where answers, here the servers' sockets, are missing too, it is a loss.
#[test]
fn pairs_that_clash_and_datagrams_that_nobody_waits_for() {
    let found = race(false);
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
    let socket = |namespace: &Namespace, number: u8, port: u16| {
        namespace.run(move || {
            let socket = UdpSocket::bind((Ipv4Addr::new(10, 244, number, 11), port)).unwrap();
            socket.connect("10.244.2.11:53").unwrap();
            socket
        })
    };
    let racing = thread::spawn(move || {
        let end = Instant::now() + Duration::from_secs(3);
        // Below the ports that the kernel gives away.
        for port in (2000..32000).take_while(|_| Instant::now() < end) {
            together([&socket(&one, 0, port), &socket(&two, 1, port)]);
        }
        outside
    });
    let found = node.run(|| doctor("", "-interval 1500ms"));
    racing.join().unwrap();
    found.has("snat-collision", "critical", "insert_failed grew by ");
    found.has("masquerade-not-random", "warning", "-o link2 -j MASQUERADE");
}
