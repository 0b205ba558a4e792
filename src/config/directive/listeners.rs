//! The HTTP ports: `prometheus`, `health`, `ready`.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::Scope;
use super::arguments::{duration, listen_address};
use crate::admin::Health;
use crate::config::corefile::{Directive, Span, Word};

/// CoreDNS's default for `prometheus`, which it writes `localhost:9153`.
const PROMETHEUS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9153);
/// CoreDNS's default for `health`.
const HEALTH: &str = ":8080";
/// CoreDNS's default for `ready`.
const READY: &str = ":8181";
/// An hour of lame duck is more than any termination grace period.
const LAMEDUCK_RANGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);

/// `prometheus [ADDRESS]`
pub(super) fn prometheus(directive: &Directive, scope: &mut Scope<'_>) {
    scope.block.metrics = true;
    directive.without_options(scope);
    let addresses = match directive.arguments(0..=1, "prometheus [ADDRESS]", scope) {
        Some([word]) => listen_address(word, scope),
        Some(_) => vec![PROMETHEUS],
        None => Vec::new(),
    };
    add_new(&mut scope.process.admin.prometheus, addresses);
}

/// `ready [ADDRESS]`
pub(super) fn ready(directive: &Directive, scope: &mut Scope<'_>) {
    // CoreDNS 1.12 added `monitor until-ready|continuously`; readiness is always continuous here.
    for option in directive.options() {
        if option.name.text != "monitor" {
            option.unknown_option(&["monitor"], scope);
        }
    }
    let addresses = match directive.arguments(0..=1, "ready [ADDRESS]", scope) {
        Some([word]) => listen_address(word, scope),
        Some(_) => listen_address(&written(READY, directive.name.span), scope),
        None => Vec::new(),
    };
    add_new(&mut scope.process.admin.ready, addresses);
}

/// `health [ADDRESS] { lameduck DURATION }`
///
/// Blocks that name the same address share it, with the longest lame duck.
pub(super) fn health(directive: &Directive, scope: &mut Scope<'_>) {
    let addresses = match directive.arguments(0..=1, "health [ADDRESS]", scope) {
        Some([word]) => listen_address(word, scope),
        Some(_) => listen_address(&written(HEALTH, directive.name.span), scope),
        None => Vec::new(),
    };
    let mut lameduck = Duration::ZERO;
    for option in directive.options() {
        if option.name.text != "lameduck" {
            option.unknown_option(&["lameduck"], scope);
        } else if let Some([word]) = option.arguments(1..=1, "lameduck DURATION", scope) {
            lameduck = duration(word, LAMEDUCK_RANGE, scope).unwrap_or(lameduck);
        }
    }
    let known = &mut scope.process.admin.health;
    for address in addresses {
        match known.iter_mut().find(|health| health.address == address) {
            Some(same) => same.lameduck = same.lameduck.max(lameduck),
            None => known.push(Health { address, lameduck }),
        }
    }
}

fn add_new(known: &mut Vec<SocketAddr>, addresses: Vec<SocketAddr>) {
    for address in addresses {
        if !known.contains(&address) {
            known.push(address);
        }
    }
}

/// A default, as if it had been written at `span`.
fn written(text: &str, span: Span) -> Word {
    Word { text: text.to_owned(), quoted: false, span }
}
