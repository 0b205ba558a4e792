//! A changed Corefile, by signal and by itself.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::process::Signal;

use super::client::{Udp, tcp, udp};
use super::loopback;
use super::message::{Answer, ask};
use super::metric;
use super::scripted::{Scripted, answer};
use super::server::{Doorstep, wait};

/// Takes the new Corefile up by SIGUSR1 and waits until it is in effect, the `times`th one.
fn reload(server: &Doorstep, corefile: &str, times: usize) {
    server.rewrite(corefile);
    server.signal(Signal::USR1);
    server.wait_for_log_times("running configuration", times);
}

fn failures(server: &Doorstep) -> f64 {
    metric(server.metrics(), "coredns_reload_failed_total", None).unwrap_or_default()
}

#[test]
fn a_new_zone_is_served_and_the_cache_stays() {
    let (old, new) = (Scripted::start(answer), Scripted::start(answer));
    let address = loopback::fresh_dns();
    let ip = address.ip();
    let first = super::block("old.test", ip, old.address, "");
    let server = Doorstep::start(ip, &first);
    assert_eq!(udp(address, &ask("a.old.test")).rcode(), 0);
    assert_eq!(udp(address, &ask("a.new.test")).rcode(), 5);
    reload(&server, &(first.clone() + &super::block("new.test", ip, new.address, "")), 2);
    assert_eq!(udp(address, &ask("a.new.test")).rcode(), 0);
    assert_eq!(tcp(address, &ask("a.new.test")).rcode(), 0);
    assert_eq!(udp(address, &ask("a.old.test")).rcode(), 0);
    assert_eq!((old.asked().len(), new.asked().len()), (1, 1), "the cache was emptied");
    reload(&server, &first, 3);
    assert_eq!(udp(address, &ask("a.new.test")).rcode(), 5);
}

#[test]
fn a_changed_file_is_noticed() {
    let upstream = Scripted::start(answer);
    let address = loopback::fresh_dns();
    let ip = address.ip();
    let block = |zone| super::block(zone, ip, upstream.address, "reload 2s 0s");
    let server = Doorstep::start(ip, &block("old.test"));
    server.rewrite(&block("new.test"));
    server.wait_for_log_times("running configuration", 2);
    assert_eq!(udp(address, &ask("a.new.test")).rcode(), 0);
    assert_eq!(udp(address, &ask("a.old.test")).rcode(), 5);
    assert_eq!(failures(&server), 0.0);
}

#[test]
fn a_bad_corefile_is_refused_and_the_old_one_serves_on() {
    let upstream = Scripted::start(answer);
    let address = loopback::fresh_dns();
    let ip = address.ip();
    let good = super::block(".", ip, upstream.address, "");
    let mut server = Doorstep::start(ip, &good);
    server.rewrite(&good.replace("cache", "cahce"));
    server.signal(Signal::USR1);
    server.wait_for_log("the old configuration serves on, the new one is refused");
    server.wait_for_log("unknown directive");
    assert_eq!(failures(&server), 1.0);
    assert_eq!(udp(address, &ask("a.test")).rcode(), 0);
    // An address that somebody else has.
    let taken = loopback::fresh_dns();
    let _socket = std::net::UdpSocket::bind(taken).unwrap();
    server.rewrite(&(good.clone() + &super::block(".", taken.ip(), upstream.address, "")));
    server.signal(Signal::USR1);
    server.wait_for_log(&format!("cannot listen on udp {taken}"));
    assert_eq!(failures(&server), 2.0);
    assert_eq!(udp(address, &ask("b.test")).rcode(), 0);
    assert!(server.is_running());
    reload(&server, &good.replace("cache", "cache 30"), 2);
    assert_eq!(udp(address, &ask("c.test")).rcode(), 0);
}

#[test]
fn listeners_come_and_go_with_their_addresses() {
    let upstream = Scripted::start(answer);
    let [first, second] = [loopback::fresh_dns(), loopback::fresh_dns()];
    let health = |address: SocketAddr| SocketAddr::new(address.ip(), 8080);
    let block =
        |at: SocketAddr| super::block(".", at.ip(), upstream.address, &format!("health {}", health(at)));
    let server = Doorstep::start(first.ip(), &block(first));
    assert!(TcpStream::connect(second).is_err());
    reload(&server, &(block(first) + &block(second)), 2);
    for address in [first, second] {
        assert_eq!(udp(address, &ask("a.test")).rcode(), 0);
        assert_eq!(tcp(address, &ask("a.test")).rcode(), 0);
        assert_eq!(super::ports::get(health(address), "/health").0, 200);
    }
    reload(&server, &block(second), 3);
    assert_eq!(udp(second, &ask("a.test")).rcode(), 0);
    let refused = |address| {
        let error = TcpStream::connect(address).err();
        error.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    };
    for gone in [first, health(first)] {
        assert!(wait(Duration::from_secs(2), || refused(gone)), "{gone} is still there");
    }
    let left = std::net::UdpSocket::bind(first);
    assert!(left.is_ok(), "the UDP socket is still there");
}

/// Nobody's query is lost while configurations change under load.
#[test]
fn no_query_is_lost_in_a_reload() {
    let upstream = Scripted::start(answer);
    let address = loopback::fresh_dns();
    let ip = address.ip();
    let server = Doorstep::start(ip, &super::block(".", ip, upstream.address, ""));
    for round in 2..12 {
        let zone = format!("zone{round}.test");
        let corefile =
            super::block(".", ip, upstream.address, "") + &super::block(&zone, ip, upstream.address, "");
        server.rewrite(&corefile);
        server.signal(Signal::USR1);
        let client = Udp::to(address);
        for id in 0..50 {
            client.send(&ask("hit.test").id(id).build());
            assert_eq!(Answer::read(&client.receive()).rcode(), 0);
            client.send(&ask(&format!("{id}.{round}.test")).id(id).build());
            assert_eq!(Answer::read(&client.receive()).rcode(), 0);
        }
        server.wait_for_log_times("running configuration", round);
    }
}
