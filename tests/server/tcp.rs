//! TCP (RFC 7766): pipelining, answers as they come, and connections that stop talking.

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use super::client::{Tcp, framed, tcp, udp};
use super::message::{Answer, ask};
use super::{Served, patient_upstream};

/// `timeouts` of a second each, the least there is.
const SHORT: &str = "timeouts {\n read 1s\n idle 1s\n write 1s\n }";

#[test]
fn a_fast_answer_overtakes_a_slow_one() {
    let upstream = patient_upstream();
    let served = Served::start(upstream.address, "");
    let mut client = Tcp::to(served.address);
    let queries = [ask("slow.test").id(1), ask("fast.test").id(2), ask("fast.test").id(3)];
    let frames: Vec<u8> = queries.iter().flat_map(|query| framed(&query.build())).collect();
    client.0.write_all(&frames).unwrap();
    let mut ids: Vec<u16> = (0..3).map(|_| Answer::read(&client.receive()).id()).collect();
    assert_eq!(ids.pop(), Some(1));
    ids.sort_unstable();
    assert_eq!(ids, [2, 3]);
}

#[test]
fn a_query_may_come_octet_by_octet() {
    let upstream = patient_upstream();
    let served = Served::start(upstream.address, "");
    let mut client = Tcp::to(served.address);
    for octet in framed(&ask("a.test").build()) {
        client.0.write_all(&[octet]).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(Answer::read(&client.receive()).section(1).len(), 1);
}

#[test]
fn a_client_that_has_asked_its_last_gets_its_answers() {
    let upstream = patient_upstream();
    let served = Served::start(upstream.address, "");
    let mut client = Tcp::to(served.address);
    for id in 0..3 {
        client.send(&ask(&format!("slow{id}.test")).id(id).build());
    }
    client.0.shutdown(Shutdown::Write).unwrap();
    let mut ids: Vec<u16> = (0..3).map(|_| Answer::read(&client.receive()).id()).collect();
    ids.sort_unstable();
    assert_eq!(ids, [0, 1, 2]);
    assert_eq!(client.expect_closed(), []);
}

#[test]
fn silent_and_idle_connections_are_closed() {
    let upstream = patient_upstream();
    let served = Served::start(upstream.address, SHORT);
    let start = Instant::now();
    let mut silent = Tcp::to(served.address);
    let mut idle = Tcp::to(served.address);
    idle.send(&ask("a.test").build());
    idle.receive();
    assert_eq!(silent.expect_closed(), []);
    assert!(start.elapsed() >= Duration::from_millis(900), "closed before its time");
    assert_eq!(idle.expect_closed(), []);
    assert_eq!(udp(served.address, &ask("a.test")).rcode(), 0);
}

#[test]
fn a_connection_that_is_owed_an_answer_is_not_idle() {
    let upstream = super::Scripted::start(|asked| {
        let wait = super::upstream::Step::Wait(Duration::from_millis(1800));
        vec![wait, super::upstream::Step::Send(asked.answer())]
    });
    let served = Served::start(upstream.address, SHORT);
    assert_eq!(tcp(served.address, &ask("a.test")).section(1).len(), 1);
}

/// One octet at a time, each well within the time-out, must not keep a connection.
#[test]
fn slow_writers_are_closed() {
    let upstream = patient_upstream();
    let served = Served::start(upstream.address, SHORT);
    let mut fresh = Tcp::to(served.address);
    let mut after_a_query = Tcp::to(served.address);
    after_a_query.send(&ask("a.test").build());
    after_a_query.receive();
    let start = Instant::now();
    let frame = framed(&ask(&vec!["abcdefghi"; 25].join(".")).build());
    for client in [&mut fresh, &mut after_a_query] {
        let mut octets = frame.iter().cycle();
        let closed = loop {
            if client.0.write_all(&[*octets.next().unwrap()]).is_err() {
                break true;
            }
            if start.elapsed() > Duration::from_secs(8) {
                break false;
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        assert!(closed, "still open after {:?}", start.elapsed());
    }
}

#[test]
fn a_length_that_no_message_has_ends_the_connection() {
    let upstream = patient_upstream();
    let served = Served::start(upstream.address, "");
    for length in [0_u16, 1, 11, 4097, 65535] {
        let mut client = Tcp::to(served.address);
        client.send(&ask("a.test").build());
        // The query before it is answered all the same.
        client.0.write_all(&length.to_be_bytes()).unwrap();
        let _ = client.0.write_all(&[0; 64]);
        let start = Instant::now();
        assert_eq!(Answer::read(&client.receive()).rcode(), 0, "before a length of {length}");
        assert_eq!(client.expect_closed(), [], "after a length of {length}");
        assert!(start.elapsed() < Duration::from_secs(2), "{length}: closed by nothing but time");
    }
}

#[test]
fn a_message_shorter_than_its_length_is_not_waited_for() {
    let upstream = patient_upstream();
    let served = Served::start(upstream.address, SHORT);
    let query = ask("a.test").build();
    let mut half = Tcp::to(served.address);
    half.0.write_all(&framed(&query)[..10]).unwrap();
    half.0.shutdown(Shutdown::Write).unwrap();
    assert_eq!(half.expect_closed(), []);
    let mut waiting = Tcp::to(served.address);
    waiting.0.write_all(&[0, 200]).unwrap();
    waiting.0.write_all(&query).unwrap();
    assert_eq!(waiting.expect_closed(), []);
}

/// A client that sends without reading fills its own connection and nothing else.
#[test]
fn a_client_that_reads_nothing_is_closed() {
    let upstream = patient_upstream();
    let served = Served::start(upstream.address, SHORT);
    udp(served.address, &ask("a.test"));
    let mut deaf = Tcp::to(served.address);
    deaf.0.set_write_timeout(Some(Duration::from_secs(8))).unwrap();
    let frame = framed(&ask("a.test").build()).repeat(1000);
    let start = Instant::now();
    while deaf.0.write_all(&frame).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(8), "it reads on");
    }
    assert!(served.server.resident() < 100_000, "{} KiB", served.server.resident());
    assert_eq!(tcp(served.address, &ask("a.test")).rcode(), 0);
}
