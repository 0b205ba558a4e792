//! `hosts [FILE [ZONE...]] { IP NAME...; ttl SECONDS; no_reverse; reload DURATION; fallthrough [ZONE...] }`

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;

use super::Scope;
use super::arguments::{number, zones};
use crate::config::corefile::Directive;
use crate::plugin::Hosts;
use crate::wire::Name;

/// Octets of a file; some 400 000 names.
const LIMIT: usize = 16 << 20;
const OPTIONS: &[&str] = &["fallthrough", "no_reverse", "reload", "ttl"];

pub(super) fn hosts(directive: &Directive, scope: &mut Scope<'_>) {
    let mut hosts = Hosts::default();
    if let Some((_, below)) = directive.args.split_first() {
        hosts.zones = zones(below, scope);
    }
    file(directive, &mut hosts, scope);
    for option in directive.options() {
        read(option, &mut hosts, scope);
    }
    scope.block.steps.hosts = Some(hosts);
}

/// As in CoreDNS, the node's own file counts unless another is named.
fn file(directive: &Directive, hosts: &mut Hosts, scope: &mut Scope<'_>) {
    let (path, span) = match directive.args.first() {
        Some(word) => (word.text.as_str(), word.span),
        None => ("/etc/hosts", directive.name.span),
    };
    match scope.env.read(Path::new(path), LIMIT) {
        Ok(octets) if octets.len() > LIMIT => {
            scope.error(span, format!("{path} is larger than 16 MiB"), "make it smaller");
        }
        Ok(octets) => {
            for line in String::from_utf8_lossy(&octets).lines() {
                let line = line.split('#').next().unwrap_or_default();
                let mut words = line.split_whitespace();
                if let Some(address) = words.next().and_then(address) {
                    let names = words.filter_map(|name| Name::from_text(name).ok());
                    hosts.entries.extend(names.map(|name| (address, name)));
                }
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            scope.warn(span, format!("{path} does not exist"));
        }
        Err(error) => scope.error(span, format!("cannot read {path}: {error}"), "name another file"),
    }
}

/// An address, less an interface after it.
fn address(word: &str) -> Option<IpAddr> {
    let address: IpAddr = word.split('%').next()?.parse().ok()?;
    Some(address.to_canonical())
}

fn read(option: &Directive, hosts: &mut Hosts, scope: &mut Scope<'_>) {
    let name = option.name.text.as_str();
    if let Some(address) = address(name) {
        hosts.entries.extend(zones(&option.args, scope).into_iter().map(|name| (address, name)));
        return;
    }
    match name {
        "fallthrough" => {
            let below = zones(&option.args, scope);
            hosts.fallthrough = if option.args.is_empty() { vec![Name::root()] } else { below };
        }
        "no_reverse" => hosts.reverse = option.arguments(0..=0, name, scope).is_none(),
        "ttl" => {
            if let Some([word]) = option.arguments(1..=1, "ttl SECONDS", scope) {
                hosts.ttl = number(word, 1..=65535, scope).unwrap_or(hosts.ttl);
            }
        }
        "reload" => {
            let message = "`reload` of hosts is accepted but has no effect: the file is read again when the \
                           block's `reload` looks";
            scope.warn(option.name.span, message);
        }
        _ => option.unknown_option(OPTIONS, scope),
    }
}
