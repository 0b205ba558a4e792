//! Garbage from clients.

use std::io::Write;
use std::time::{Duration, Instant};

use super::client::{Tcp, Udp, framed};
use super::garbage::Garbage;
use super::scripted::{Scripted, answer};
use super::{Victim, ask, message};

#[test]
fn garbage_over_udp() {
    let upstream = Scripted::start(answer);
    let mut victim = Victim::start(upstream.address, "force_tcp");
    for batch in 0..20 {
        let mut garbage = Garbage::seeded(batch);
        let client = Udp::to(victim.address);
        client.0.set_nonblocking(true).unwrap();
        let mut reply = vec![0; 65535];
        for _ in 0..300 {
            client.send(&garbage.query());
            if let Ok(length) = client.0.recv(&mut reply) {
                assert!(length >= 12 && reply[2] & 0x80 != 0, "{:02x?}", &reply[..length]);
            }
        }
        victim.expect_service();
    }
    victim.expect_nothing_lost();
}

/// Whole frames of garbage, then a frame that is not whole.
#[test]
fn garbage_over_tcp() {
    let upstream = Scripted::start(answer);
    let mut victim = Victim::start(upstream.address, "force_tcp");
    for batch in 0..10 {
        let mut garbage = Garbage::seeded(1000 + batch);
        let mut clients: Vec<Tcp> = (0..20).map(|_| Tcp::to(victim.address)).collect();
        for client in &mut clients {
            let mut octets: Vec<u8> = (0..10).flat_map(|_| framed(&garbage.query())).collect();
            let length = garbage.below(100);
            octets.extend(garbage.octets(length));
            // A connection that is closed in the middle is an answer, too.
            let _ = client.0.write_all(&octets);
        }
        victim.expect_service();
        clients.iter_mut().for_each(|client| drop(client.expect_closed()));
    }
    victim.expect_nothing_lost();
}

/// What is well-formed is answered, whatever went before it on the connection or the socket.
#[test]
fn good_queries_between_bad_ones_are_answered() {
    let upstream = Scripted::start(answer);
    let mut victim = Victim::start(upstream.address, "force_tcp");
    let mut garbage = Garbage::seeded(7);
    let mut stream = Tcp::to(victim.address);
    for id in 0x7000..0x7100 {
        let good = ask("hit.good.test").id(id).build();
        let mut bad = garbage.octets(40);
        bad[0] = 0;
        let client = Udp::to(victim.address);
        client.send(&bad);
        client.send(&good);
        stream.send(&bad);
        stream.send(&good);
        loop {
            let reply = client.receive();
            if reply[..2] == id.to_be_bytes() {
                assert_eq!(message::Answer::read(&reply).section(1).len(), 1);
                break;
            }
        }
        while stream.receive()[..2] != id.to_be_bytes() {}
    }
    victim.expect_nothing_lost();
}

#[test]
fn connections_that_say_nothing_right_are_all_closed() {
    let upstream = Scripted::start(answer);
    let mut victim = Victim::start(upstream.address, "force_tcp");
    let mut clients: Vec<Tcp> = (0..100).map(|_| Tcp::to(victim.address)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        // Nothing, half a length, a length, a length and too little.
        let _ = client.0.write_all(&[0, 50, 1, 2, 3][..number % 5]);
    }
    victim.expect_service();
    let start = Instant::now();
    clients.iter_mut().for_each(|client| assert_eq!(client.expect_closed(), []));
    assert!(start.elapsed() < Duration::from_secs(5));
    victim.expect_nothing_lost();
}
