//! The process as an operator meets it: flags, files, signals, ports, messages.

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
#[path = "../common/scripted.rs"]
mod scripted;
#[path = "../common/server.rs"]
mod server;
#[path = "../common/upstream.rs"]
mod upstream;

mod command_line;
mod configuration;
mod handover;
mod kube_dns;
mod loops;
mod ports;
mod privileges;
mod relay;
mod reload;
mod signals;

use std::net::{IpAddr, SocketAddr};

use exposition::{parse, scrape};

/// The value of the only sample of `name` that carries `label`, `None` if there is none.
fn metric(address: SocketAddr, name: &str, label: Option<(&str, &str)>) -> Option<f64> {
    let families = parse(&scrape(address));
    let family = families.iter().find(|family| family.name == name)?;
    let wanted =
        |(name, value): (&str, &str)| family.samples.iter().find(move |sample| sample.label(name) == value);
    let sample = match label {
        Some(label) => wanted(label),
        None => family.samples.first(),
    };
    sample.map(|sample| sample.value)
}

/// A block for `zone` on `ip` that asks `upstream`.
fn block(zone: &str, ip: IpAddr, upstream: SocketAddr, directives: &str) -> String {
    format!("{zone} {{\n bind {ip}\n errors\n cache\n forward . {upstream}\n {directives}\n}}\n")
}
