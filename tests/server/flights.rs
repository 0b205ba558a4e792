//! The same question by many at once is one question upstream.

use std::time::Duration;

use super::client::{Tcp, Udp, tcp, udp};
use super::message::{Answer, ask};
use super::upstream::Step;
use super::{Scripted, Served, patient_upstream};

#[test]
fn two_hundred_clients_are_one_upstream_query() {
    let upstream = patient_upstream();
    let served = Served::start(upstream.address, "");
    let spelling = |number: u16| if number.is_multiple_of(2) { "slow.TEST" } else { "SLOW.test" };
    let query = |number: u16| ask(spelling(number)).id(number).build();
    let clients: Vec<Udp> = (0..200).map(|_| Udp::to(served.address)).collect();
    let mut streams: Vec<Tcp> = (0..20).map(|_| Tcp::to(served.address)).collect();
    for (number, client) in (0..).zip(&clients) {
        client.send(&query(number));
    }
    for (number, stream) in (0..).zip(&mut streams) {
        stream.send(&query(number));
    }
    let over_udp = clients.iter().map(Udp::receive).zip(0..);
    let over_tcp = streams.iter_mut().map(Tcp::receive).zip(0..);
    for (octets, number) in over_udp.chain(over_tcp) {
        let answer = Answer::read(&octets);
        assert_eq!((answer.id(), answer.section(1).len()), (number, 1));
        assert_eq!(answer.question, query(number)[12..]);
    }
    // On a busy machine the answer may be late enough for a second attempt.
    assert!(upstream.asked().len() <= 2, "{} upstream queries", upstream.asked().len());
}

/// How often the upstream, which takes so long, is asked for a name that ten thousand ask for in half a
/// second.
fn asked_for_ten_thousand(takes: Duration) -> usize {
    const SOCKETS: usize = 100;
    const EACH: u16 = 100;
    let upstream = Scripted::start(move |asked| vec![Step::Wait(takes), Step::Send(asked.answer())]);
    let served = Served::start(upstream.address, "");
    // One client's share is less; a socket's buffer holds what each of these is sent.
    let addresses: Vec<_> = (0..20).map(|_| super::loopback::fresh()).collect();
    let clients: Vec<Udp> = (0..SOCKETS)
        .map(|index| Udp(super::client::bound(addresses[index % addresses.len()], served.address)))
        .collect();
    for number in 0..EACH {
        for client in &clients {
            client.send(&ask("popular.test").id(number).build());
        }
        // The server's buffer is finite, too.
        std::thread::sleep(Duration::from_millis(5));
    }
    for client in &clients {
        let mut seen: Vec<u16> = (0..EACH).map(|_| Answer::read(&client.receive()).id()).collect();
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..EACH));
    }
    upstream.asked().len()
}

#[test]
fn ten_thousand_clients_are_one_upstream_query() {
    assert_eq!(asked_for_ten_thousand(Duration::from_millis(20)), 1);
}

/// The second is the hedge of an answer that took three seconds.
#[test]
fn ten_thousand_clients_of_a_slow_upstream_are_two_upstream_queries_at_most() {
    assert!(asked_for_ten_thousand(Duration::from_secs(3)) <= 2);
}

#[test]
fn different_questions_are_not_shared() {
    let upstream = patient_upstream();
    let served = Served::start(upstream.address, "");
    let client = Udp::to(served.address);
    let queries = [
        ask("slow.test"),
        ask("slow.test").qtype(28),
        ask("slow.test").class(3),
        ask("slow.test").flags(super::message::bit::CD),
        ask("slow.test").octet(2, 0),
        ask("slow.test").opt(1232, 0, true, &[]),
        // One that is not a plain question has an answer of its own.
        ask("slow.test").additional(&[0, 0, 16, 0, 1, 0, 0, 0, 0, 0, 1, 0]),
    ];
    queries.iter().for_each(|query| client.send(&query.build()));
    queries.iter().for_each(|_| drop(client.receive()));
    let mut asked: Vec<Vec<u8>> = upstream.asked().iter().map(|asked| asked.message[2..].to_vec()).collect();
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(asked.len(), queries.len());
}

#[test]
fn a_failure_reaches_everybody_and_is_not_kept() {
    let upstream = Scripted::start(|asked| match asked.name.as_str() {
        "closes.test." => vec![Step::Wait(Duration::from_millis(100)), Step::Close],
        _ => vec![Step::Send(asked.answer())],
    });
    let served = Served::start(upstream.address, "");
    let clients: Vec<Udp> = (0..50).map(|_| Udp::to(served.address)).collect();
    clients.iter().for_each(|client| client.send(&ask("closes.test").build()));
    for client in &clients {
        assert_eq!(Answer::read(&client.receive()).rcode(), 2);
    }
    let before = upstream.count("closes.test.");
    assert_eq!(tcp(served.address, &ask("closes.test")).rcode(), 2);
    assert!(upstream.count("closes.test.") > before, "a failure of ours was kept");
    assert_eq!(udp(served.address, &ask("good.test")).rcode(), 0);
    served.server.wait_for_log("plugin/errors: 2 closes.test. A: ");
}

#[test]
fn one_client_cannot_take_every_place() {
    let upstream = Scripted::start(|asked| match asked.name.starts_with("stuck") {
        true => vec![],
        false => vec![Step::Send(asked.answer())],
    });
    let served = Served::start(upstream.address, "");
    let greedy = Udp::to(served.address);
    // More than one client's share. Those above it are refused at once.
    for number in 0..1100 {
        greedy.send(&ask(&format!("stuck{number}.test")).id(number).build());
        // The kernel's buffers are finite.
        std::thread::sleep(Duration::from_micros(200));
    }
    let refused = Answer::read(&greedy.receive());
    assert_eq!(refused.rcode(), 5);
    let other = Udp(super::client::bound(super::loopback::fresh(), served.address));
    other.send(&ask("other.test").build());
    assert_eq!(Answer::read(&other.receive()).rcode(), 0);
}
