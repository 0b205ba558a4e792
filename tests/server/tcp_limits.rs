//! More connections than there is room for: the rest is served.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::client::{PATIENCE, Tcp, tcp, udp};
use super::loopback;
use super::message::{Answer, ask};
use super::server::{Setup, wait};
use super::{Served, corefile, patient_upstream};

/// Connections one client may have, and all together.
const SHARE: usize = 128;
const ALL: usize = 1024;

/// Thousands of connections take more descriptors than the usual soft limit.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

/// Opens `count` connections and has a query answered on each.
fn connect(from: IpAddr, server: SocketAddr, count: usize) -> Vec<Tcp> {
    let connection = |_| {
        let mut client = Tcp::from(from, server).unwrap();
        client.send(&ask("a.test").build());
        client.receive();
        client
    };
    (0..count).map(connection).collect()
}

/// Whether a query on a new connection is answered.
fn is_served(from: IpAddr, server: SocketAddr) -> bool {
    let Ok(mut client) = Tcp::from(from, server) else { return false };
    client.send(&ask("a.test").build());
    client.try_receive().is_ok()
}

#[test]
fn one_clients_share_leaves_room_for_others() {
    raise_descriptor_limit();
    let upstream = patient_upstream();
    let served = Served::start(upstream.address, "");
    let (greedy, other) = (loopback::fresh(), loopback::fresh());
    let mut held = connect(greedy, served.address, SHARE);
    assert!(!is_served(greedy, served.address));
    assert!(is_served(other, served.address));
    assert_eq!(udp(served.address, &ask("a.test")).rcode(), 0);
    held.truncate(SHARE / 2);
    assert!(wait(PATIENCE, || is_served(greedy, served.address)), "room was not given back");
}

#[test]
fn a_full_house_goes_on_serving_who_is_in() {
    raise_descriptor_limit();
    let upstream = patient_upstream();
    let served = Served::start(upstream.address, "");
    let clients: Vec<IpAddr> = (0..ALL / SHARE).map(|_| loopback::fresh()).collect();
    let mut held: Vec<Tcp> =
        clients.iter().flat_map(|client| connect(*client, served.address, SHARE)).collect();
    assert!(!is_served(loopback::fresh(), served.address));
    assert_eq!(udp(served.address, &ask("a.test")).rcode(), 0);
    for client in held.iter_mut().step_by(50) {
        client.send(&ask("a.test").id(9).build());
        assert_eq!(Answer::read(&client.receive()).id(), 9);
    }
    held.clear();
    let newcomer = loopback::fresh();
    assert!(wait(PATIENCE, || is_served(newcomer, served.address)), "room was not given back");
}

#[test]
fn without_descriptors_it_serves_on_and_idles() {
    let upstream = patient_upstream();
    let address = loopback::fresh_dns();
    let text = corefile(address, upstream.address, "");
    let server = Setup::new(address.ip(), &text).before("ulimit -n 40").start();
    assert_eq!(udp(address, &ask("a.test")).rcode(), 0);
    let held: Vec<Tcp> = (0..60).map(|_| Tcp::to(address)).collect();
    server.wait_for_log("accept: ");
    let before = server.cpu();
    for _ in 0..10 {
        // A hit, and a miss over the connection that is open.
        assert_eq!(udp(address, &ask("a.test")).rcode(), 0);
        std::thread::sleep(Duration::from_millis(100));
    }
    let used = server.cpu() - before;
    assert!(used < Duration::from_millis(80), "{used:?} of CPU time in a second");
    drop(held);
    assert_eq!(tcp(address, &ask("b.test")).rcode(), 0);
}
