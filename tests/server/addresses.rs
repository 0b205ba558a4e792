//! Both protocols on both families; replies leave from the address that was asked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::client::{Tcp, Udp, tcp, udp};
use super::loopback;
use super::message::{Answer, ask};
use super::scripted::{Scripted, answer};
use super::server::Setup;
use super::upstream::Step;

#[test]
fn udp_and_tcp_on_both_families() {
    let upstream = Scripted::start(answer);
    let (v4, v6) = (loopback::fresh(), IpAddr::from(Ipv6Addr::LOCALHOST));
    let port = loopback::free_port(v6);
    let corefile = format!(".:{port} {{\n bind {v4} {v6}\n cache\n forward . {}\n}}\n", upstream.address);
    let _server = Setup::new(v4, &corefile).start();
    for ip in [v4, v6] {
        let address = SocketAddr::new(ip, port);
        assert_eq!(udp(address, &ask("a.test")).section(1).len(), 1);
        assert_eq!(tcp(address, &ask("a.test")).section(1).len(), 1);
        assert_eq!(udp(address, &ask("a.test").edns(4096)).section(1).len(), 1);
    }
    // One block, one cache, whatever the way in.
    assert_eq!(upstream.asked().len(), 1);
}

/// Two blocks for the same names are two worlds: whoever asks at one address must not hear the other's answers.
#[test]
fn blocks_that_differ_by_address_alone_keep_their_own_cache() {
    let upstreams = [Scripted::start(answer), Scripted::start(|asked| vec![Step::Send(asked.reply(3))])];
    let [one, other] = [loopback::fresh(), loopback::fresh()];
    let port = loopback::free_port(one);
    let text = |directive: &str| {
        let block = |ip, upstream: &Scripted| {
            format!(".:{port} {{\n bind {ip}\n cache\n forward . {}\n {directive}\n}}\n", upstream.address)
        };
        block(one, &upstreams[0]) + &block(other, &upstreams[1])
    };
    let server = Setup::new(one, &text("")).start();
    let rcodes = || [one, other].map(|ip| udp(SocketAddr::new(ip, port), &ask("a.test")).rcode());
    // From one alone, before; from both, after.
    udp(SocketAddr::new(one, port), &ask("a.test"));
    server.rewrite(&text("errors"));
    server.signal(rustix::process::Signal::USR1);
    server.wait_for_log_times("running configuration", 2);
    assert_eq!(rcodes(), [0, 3]);
    assert_eq!(upstreams[0].asked().len(), 1);
}

#[test]
fn a_wildcard_answers_from_the_address_that_was_asked() {
    let upstream = Scripted::start(answer);
    let port = loopback::free_port(Ipv4Addr::UNSPECIFIED.into());
    let corefile = format!(".:{port} {{\n cache\n forward . {}\n}}\n", upstream.address);
    let ip = loopback::fresh();
    let _server = Setup::new(ip, &corefile).start();
    let asked = [ip, loopback::fresh(), Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    for (number, ip) in asked.into_iter().enumerate() {
        let server = SocketAddr::new(ip, port);
        // Connected sockets: an answer from anywhere else never arrives. First a miss, then a hit.
        for _ in 0..2 {
            let query = ask(&format!("n{number}.test"));
            assert_eq!(udp(server, &query).rcode(), 0, "{ip}");
            assert_eq!(tcp(server, &query).rcode(), 0, "{ip}");
        }
    }
    assert_eq!(upstream.asked().len(), asked.len());
}

#[test]
fn one_client_socket_may_ask_many_addresses() {
    let upstream = Scripted::start(answer);
    let port = loopback::free_port(Ipv4Addr::UNSPECIFIED.into());
    let corefile = format!(".:{port} {{\n cache\n forward . {}\n}}\n", upstream.address);
    let servers: Vec<IpAddr> = (0..20).map(|_| loopback::fresh()).collect();
    let _server = Setup::new(servers[0], &corefile).start();
    let client = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    client.set_read_timeout(Some(super::client::PATIENCE)).unwrap();
    // One batch of many addresses: each reply carries its own.
    for (number, server) in (0..).zip(&servers) {
        client.send_to(&ask("a.test").id(number).build(), (*server, port)).unwrap();
    }
    let mut buffer = [0; 512];
    for _ in &servers {
        let (length, from) = client.recv_from(&mut buffer).unwrap();
        let number = Answer::read(&buffer[..length]).id();
        assert_eq!(from.ip(), servers[usize::from(number)]);
    }
}

#[test]
fn a_burst_on_one_socket_is_answered_to_the_last() {
    let upstream = Scripted::start(answer);
    let served = super::Served::start(upstream.address, "");
    udp(served.address, &ask("a.test"));
    // As many answers as a socket's buffer holds.
    let client = Udp::to(served.address);
    (0..100).for_each(|id| client.send(&ask("a.test").id(id).build()));
    let mut ids: Vec<u16> = (0..100).map(|_| Answer::read(&client.receive()).id()).collect();
    ids.sort_unstable();
    assert_eq!(ids, Vec::from_iter(0..100));
    let mut stream = Tcp::to(served.address);
    (0..300).for_each(|id| stream.send(&ask("a.test").id(id).build()));
    let mut ids: Vec<u16> = (0..300).map(|_| Answer::read(&stream.receive()).id()).collect();
    ids.sort_unstable();
    assert_eq!(ids, Vec::from_iter(0..300));
}
