//! Octets that nobody should send, from clients and from upstreams: the process serves on.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here fails the test")]

#[path = "../common/client.rs"]
mod client;
#[path = "../common/loopback.rs"]
mod loopback;
#[path = "../common/message.rs"]
mod message;
#[path = "../common/scripted.rs"]
mod scripted;
#[path = "../common/server.rs"]
mod server;
#[path = "../common/upstream.rs"]
mod upstream;

mod clients;
mod garbage;
mod upstreams;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use client::{tcp, udp};
use message::ask;
use server::{Doorstep, wait};

/// A server under attack, and what it needed before.
struct Victim {
    address: SocketAddr,
    server: Doorstep,
    descriptors: usize,
    resident: usize,
    checks: usize,
}

impl Victim {
    /// A server that asks `upstream`, by `force_tcp` or `prefer_udp`.
    fn start(upstream: SocketAddr, transport: &str) -> Victim {
        let address = loopback::fresh_dns();
        let ip = address.ip();
        let text = format!(
            ". {{\n bind {ip}\n cache\n log\n timeouts {{\n read 1s\n idle 1s\n }}\n \
             forward . {upstream} {{\n {transport}\n max_fails 0\n }}\n}}\n"
        );
        let server = Doorstep::start(ip, &text);
        let mut victim = Victim { address, server, descriptors: 0, resident: 0, checks: 0 };
        victim.expect_service();
        victim.descriptors = victim.server.descriptors();
        victim.resident = victim.server.resident();
        victim
    }

    /// A hit and a miss, over UDP and over TCP, are answered within a second.
    #[track_caller]
    fn expect_service(&mut self) {
        self.checks += 1;
        let start = Instant::now();
        for query in [ask("hit.good.test"), ask(&format!("miss{}.good.test", self.checks))] {
            for way in [udp, tcp] {
                let answer = way(self.address, &query);
                assert_eq!((answer.rcode(), answer.section(1).len()), (0, 1));
            }
        }
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }

    /// The same process, with the descriptors it had and not much more memory.
    #[track_caller]
    fn expect_nothing_lost(&mut self) {
        assert!(self.server.is_running());
        // Connections to upstreams come and go; those of clients are closed within a second.
        let few = self.descriptors + 4;
        let closed = wait(client::PATIENCE, || self.server.descriptors() <= few);
        assert!(closed, "{} descriptors, {} at first", self.server.descriptors(), self.descriptors);
        let grown = self.server.resident().saturating_sub(self.resident);
        assert!(grown < 32 * 1024, "{grown} KiB more than before");
        assert!(!self.server.log().contains("panicked"));
    }
}
