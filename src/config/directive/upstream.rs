//! The `TO` of a `forward`: an address, with or without a scheme, or a resolv.conf(5).

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::Path;

use resolv_conf::ScopedIp;

use super::Scope;
use crate::config::corefile::Word;
use crate::config::corefile::limits;
use crate::forward::{Config, Source, Target};

const DNS_PORT: u16 = 53;
/// RFC 7858 §3.1.
const TLS_PORT: u16 = 853;

/// Adds what `word` stands for to `config`.
pub(super) fn read(word: &Word, config: &mut Config, scope: &mut Scope<'_>) {
    let text = word.text.as_str();
    let (tls, rest) = match text.split_once("://") {
        None => (false, text),
        Some(("dns", rest)) => (false, rest),
        Some(("tls", rest)) => (true, rest),
        Some((scheme, _)) => {
            let message = format!("{scheme}:// upstreams are not served");
            return scope.error(word.span, message, "use plain DNS or tls://");
        }
    };
    let target = match address(rest, tls) {
        None if !tls => scoped(rest, scope),
        target => target,
    };
    if let Some(target) = target {
        if is_ourselves(target.address, scope) {
            let message = format!("upstream {} is Doorstep itself", target.address);
            scope.warn(word.span, message);
        }
        config.sources.push(Source::Address(target.clone()));
        config.to.push(target);
    } else if !tls && (rest.contains('/') || scope.env.read(Path::new(rest), 0).is_ok()) {
        resolv_conf(rest, word, config, scope);
    } else {
        let message = format!("`{text}` is neither an IP address nor a file");
        let remedy = "write IP, IP:PORT, tls://IP or a file such as /etc/resolv.conf; \
                      host names are not resolved";
        scope.error(word.span, message, remedy);
    }
}

/// `IP`, `IP:PORT`, `[IPV6]:PORT`, and with TLS also `IP%NAME[:PORT]`.
fn address(text: &str, tls: bool) -> Option<Target> {
    let default_port = if tls { TLS_PORT } else { DNS_PORT };
    let target = |address, server_name| Target { address, tls, server_name };
    if let Some((ip, name)) = text.split_once('%').filter(|_| tls) {
        let (name, port) = match name.rsplit_once(':') {
            Some((name, port)) => (name, port.parse().ok()?),
            None => (name, default_port),
        };
        let ip = ip.trim_start_matches('[');
        let name = name.trim_end_matches(']');
        let address = SocketAddr::new(ip.parse().ok()?, port);
        return (!name.is_empty()).then(|| target(address, Some(name.to_owned())));
    }
    let bare = text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(text);
    let address = match bare.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, default_port),
        Err(_) => text.parse().ok()?,
    };
    Some(target(address, None))
}

/// `IPV6%INTERFACE` and `[IPV6%INTERFACE]:PORT`.
fn scoped(text: &str, scope: &Scope<'_>) -> Option<Target> {
    let (text, port) = match text.strip_prefix('[') {
        None => (text, DNS_PORT),
        Some(inner) => match inner.split_once(']')? {
            (text, "") => (text, DNS_PORT),
            (text, port) => (text, port.strip_prefix(':')?.parse().ok()?),
        },
    };
    let (ip, interface) = text.split_once('%')?;
    on_interface(ip.parse().ok()?, interface, port, scope).map(Target::plain)
}

/// `ip` on the link that `interface` names or numbers (RFC 4007 §11.2).
fn on_interface(ip: Ipv6Addr, interface: &str, port: u16, scope: &Scope<'_>) -> Option<SocketAddr> {
    let index = interface.parse().or_else(|_| scope.env.interface_index(interface)).ok()?;
    Some(SocketAddrV6::new(ip, port, 0, index).into())
}

/// Adds the nameservers of a file; its `search` and `options` have no say.
///
/// A nameserver that is one of our own addresses is left out: the query would come back forever.
fn resolv_conf(path: &str, word: &Word, config: &mut Config, scope: &mut Scope<'_>) {
    let bytes = match scope.env.read(Path::new(path), limits::BYTES) {
        Ok(bytes) => bytes,
        Err(error) => {
            let message = format!("cannot read {path}: {error}");
            return scope.error(word.span, message, "name an existing file or an IP address");
        }
    };
    // Lines it cannot read are none of ours: only the nameservers matter.
    let (file, _) = resolv_conf::Config::parse_with_errors(&bytes);
    let mut found = 0;
    for nameserver in file.nameservers {
        let address = match &nameserver {
            ScopedIp::V4(v4) => Some(SocketAddr::new(IpAddr::V4(*v4), DNS_PORT)),
            ScopedIp::V6(v6, None) => Some(SocketAddr::new(IpAddr::V6(*v6), DNS_PORT)),
            ScopedIp::V6(v6, Some(interface)) => on_interface(*v6, interface, DNS_PORT, scope),
        };
        let Some(address) = address else {
            let interface = nameserver.to_string();
            let interface = interface.split_once('%').map_or("", |(_, interface)| interface);
            let message = format!("{path}: {nameserver} is left out: there is no interface `{interface}`");
            scope.warn(word.span, message);
            continue;
        };
        if is_ourselves(address, scope) {
            let message = format!("{path}: {nameserver} is left out: it is Doorstep itself");
            scope.warn(word.span, message);
            continue;
        }
        config.to.push(Target::plain(address));
        found += 1;
    }
    config.sources.push(Source::ResolvConf(path.into()));
    if found == 0 {
        let message = format!("{path} names no usable nameserver");
        scope.error(word.span, message, "add one, or write the upstream's IP address here");
    }
}

fn is_ourselves(address: SocketAddr, scope: &Scope<'_>) -> bool {
    address.port() == scope.options.dns_port && scope.options.local_ips.contains(&address.ip())
}
