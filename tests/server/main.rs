//! What clients see of a running server: right answers, whole ones, and none where none is due.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here fails the test")]

#[path = "../common/client.rs"]
mod client;
#[allow(dead_code, reason = "each suite uses its own part")]
#[path = "../common/exposition.rs"]
mod exposition;
#[path = "../common/loopback.rs"]
mod loopback;
#[path = "../common/message.rs"]
mod message;
#[path = "../common/nsd.rs"]
mod nsd;
#[path = "../common/scripted.rs"]
mod scripted;
#[path = "../common/server.rs"]
mod server;
#[path = "../common/unbound.rs"]
mod unbound;
#[path = "../common/upstream.rs"]
mod upstream;

mod acceptance;
mod addresses;
mod counters;
mod dig;
mod dns64;
mod edns;
mod flights;
mod hosts;
mod loadbalance;
mod query_log;
mod rewrite;
mod search_ahead;
mod stub;
mod tcp;
mod tcp_limits;
mod template;
mod transparency;
mod truncation;
mod upstreams;
mod whoami;
mod zones;

use std::net::SocketAddr;

use scripted::Scripted;
use server::Doorstep;
use upstream::Step;

/// A server for every name with `directives` and one upstream.
struct Served {
    address: SocketAddr,
    server: Doorstep,
}

impl Served {
    #[track_caller]
    fn start(upstream: SocketAddr, directives: &str) -> Served {
        let address = loopback::fresh_dns();
        let server = Doorstep::start(address.ip(), &corefile(address, upstream, directives));
        Served { address, server }
    }
}

/// The Corefile of [`Served`].
fn corefile(address: SocketAddr, upstream: SocketAddr, directives: &str) -> String {
    let ip = address.ip();
    format!(
        ". {{\n bind {ip}\n errors\n cache\n forward . {upstream} {{\n force_tcp\n }}\n {directives}\n}}\n"
    )
}

/// An upstream that knows every name: `slow…` after 150 ms, which is not yet slow enough for
/// a second attempt, the others at once.
fn patient_upstream() -> Scripted {
    Scripted::start(|asked| {
        let wait = if asked.name.starts_with("slow") { 150 } else { 0 };
        vec![Step::Wait(std::time::Duration::from_millis(wait)), Step::Send(asked.answer())]
    })
}
