//! `forward FROM TO... { ... }`

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Scope;
use super::arguments::{duration, number, rcode, zones};
use super::upstream;
use crate::config::corefile::{Directive, Word};
use crate::forward::{Config, HealthCheck, Policy, Tls, Transport};
use crate::wire::Name;

const DAY: Duration = Duration::from_secs(24 * 3600);
const EXPIRE_RANGE: RangeInclusive<Duration> = Duration::ZERO..=DAY;
/// Below a millisecond probes would be a flood.
const HEALTH_RANGE: RangeInclusive<Duration> = Duration::from_millis(1)..=DAY;
/// Options of newer CoreDNS that change nothing here, with the reason.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("doh_method", "DNS over HTTPS is not spoken"),
    ("max_age", "connections always have a bounded, jittered age"),
    ("max_idle_conns", "idle connections are always bounded"),
    ("next_on_nodata", "an empty answer is final"),
    ("read_timeout", "time-outs adapt to the upstream"),
    ("resolver", "upstreams are given by address"),
    ("source_address", "the kernel chooses the source address"),
];
const OPTIONS: &[&str] = &[
    "except",
    "expire",
    "failfast_all_unhealthy_upstreams",
    "failover",
    "force_tcp",
    "health_check",
    "max_concurrent",
    "max_connect_attempts",
    "max_fails",
    "next",
    "policy",
    "prefer_udp",
    "tls",
    "tls_servername",
];
pub(super) fn forward(directive: &Directive, scope: &mut Scope<'_>) {
    let usage = "forward FROM TO...";
    let Some([from, to @ ..]) = directive.arguments(2..=usize::MAX, usage, scope) else {
        return;
    };
    let zones = zones(std::slice::from_ref(from), scope);
    if zones.len() > 1 {
        let message = format!("`{}` covers several zones, only {} is used", from.text, zones[0]);
        scope.warn(from.span, message);
    }
    let mut config = Config::new(zones.into_iter().next().unwrap_or(Name::root()), Vec::new());
    for word in to {
        upstream::read(word, &mut config, scope);
    }
    if config.to.len() > Config::MAX_UPSTREAMS {
        let count = config.to.len();
        let message = format!("{count} upstreams, at most {} are taken", Config::MAX_UPSTREAMS);
        scope.error(from.span, message, "name fewer");
    }
    for line in directive.options() {
        option(line, &mut config, scope);
    }
    let named = config.to.iter().any(|target| target.server_name.is_some());
    if named && config.tls.server_name.is_some() {
        let message = "both `tls_servername` and a %name in an upstream";
        scope.error(directive.name.span, message, "keep one of the two");
    }
    scope.block.forwards.push(config);
}

fn option(line: &Directive, config: &mut Config, scope: &mut Scope<'_>) {
    let name = line.name.text.as_str();
    match name {
        "except" => {
            let words = line.arguments(1..=usize::MAX, "except ZONE...", scope);
            config.except.extend(zones(words.unwrap_or_default(), scope));
        }
        "force_tcp" | "prefer_udp" => transport(line, config, scope),
        "expire" => set(&mut config.expire, duration_of(line, EXPIRE_RANGE, scope)),
        "max_fails" => set(&mut config.max_fails, count_of(line, scope)),
        "max_connect_attempts" => set(&mut config.max_connect_attempts, count_of(line, scope)),
        "max_concurrent" => {
            // 0 is CoreDNS's way to say "no limit".
            let most = count_of(line, scope).and_then(|most| usize::try_from(most).ok());
            config.max_concurrent = most.filter(|most| *most > 0);
        }
        "policy" => policy(line, config, scope),
        "health_check" => health_check(line, &mut config.health_check, scope),
        "next" => config.next.extend(rcodes(line, scope)),
        "failover" => failover(line, config, scope),
        "failfast_all_unhealthy_upstreams" => {
            config.failfast_all_unhealthy = line.arguments(0..=0, name, scope).is_some();
        }
        "tls" => tls(line, &mut config.tls, scope),
        "tls_servername" => {
            if let Some([word]) = line.arguments(1..=1, "tls_servername NAME", scope) {
                config.tls.server_name = Some(word.text.clone());
            }
        }
        _ => without_effect(line, scope),
    }
}

fn without_effect(line: &Directive, scope: &mut Scope<'_>) {
    let name = line.name.text.as_str();
    match WITHOUT_EFFECT.iter().find(|(known, _)| *known == name) {
        Some((_, why)) => {
            let message = format!("`{name}` is accepted but has no effect: {why}");
            scope.warn(line.name.span, message);
        }
        None => line.unknown_option(OPTIONS, scope),
    }
}

/// `force_tcp` wins over `prefer_udp`.
fn transport(line: &Directive, config: &mut Config, scope: &mut Scope<'_>) {
    if line.arguments(0..=0, &line.name.text, scope).is_none() {
        return;
    }
    if line.name.text == "force_tcp" {
        config.transport = Transport::ForceTcp;
    } else if config.transport == Transport::AsClient {
        config.transport = Transport::PreferUdp;
    }
}

fn policy(line: &Directive, config: &mut Config, scope: &mut Scope<'_>) {
    let usage = "policy random|round_robin|sequential";
    let Some([word]) = line.arguments(1..=1, usage, scope) else {
        return;
    };
    config.policy = match word.text.as_str() {
        "random" => Policy::Random,
        "round_robin" => Policy::RoundRobin,
        "sequential" => Policy::Sequential,
        other => {
            let message = format!("unknown policy `{other}`");
            return scope.error(word.span, message, format!("write: {usage}"));
        }
    };
}

/// `health_check DURATION [no_rec] [domain FQDN]`
fn health_check(line: &Directive, check: &mut HealthCheck, scope: &mut Scope<'_>) {
    let usage = "health_check DURATION [no_rec] [domain FQDN]";
    let Some([interval, options @ ..]) = line.arguments(1..=4, usage, scope) else {
        return;
    };
    set(&mut check.interval, duration(interval, HEALTH_RANGE, scope));
    let mut options = options.iter();
    while let Some(word) = options.next() {
        match (word.text.as_str(), options.as_slice().first()) {
            ("no_rec", _) => check.recursion_desired = false,
            ("domain", Some(domain)) => {
                options.next();
                match Name::from_text(&domain.text) {
                    Ok(name) => check.domain = name,
                    Err(error) => {
                        let message = format!("`{}` is not a domain name: {error}", domain.text);
                        scope.error(domain.span, message, format!("write: {usage}"));
                    }
                }
            }
            (other, _) => {
                let message = format!("`{other}` is not understood here");
                scope.error(word.span, message, format!("write: {usage}"));
            }
        }
    }
}

fn failover(line: &Directive, config: &mut Config, scope: &mut Scope<'_>) {
    let codes = rcodes(line, scope);
    if codes.contains(&0) {
        let message = "`failover NOERROR` would never accept an answer";
        scope.error(line.name.span, message, "remove NOERROR");
    }
    config.failover.extend(codes);
}

fn rcodes(line: &Directive, scope: &mut Scope<'_>) -> Vec<u16> {
    let usage = format!("{} RCODE...", line.name.text);
    let words = line.arguments(1..=usize::MAX, &usage, scope);
    words.unwrap_or_default().iter().filter_map(|word| rcode(word, scope)).collect()
}

/// `tls [CA] | tls CERT KEY [CA]`
fn tls(line: &Directive, tls: &mut Tls, scope: &mut Scope<'_>) {
    let Some(words) = line.arguments(0..=3, "tls [CERT KEY] [CA]", scope) else {
        return;
    };
    let path = |word: &Word| word.text.clone().into();
    match words {
        [roots] => tls.roots = Some(path(roots)),
        [certificate, key, rest @ ..] => {
            tls.identity = Some((path(certificate), path(key)));
            tls.roots = rest.first().map(path);
        }
        [] => {}
    }
}

fn count_of(line: &Directive, scope: &mut Scope<'_>) -> Option<u32> {
    let usage = format!("{} NUMBER", line.name.text);
    let [word] = line.arguments(1..=1, &usage, scope)? else {
        return None;
    };
    number(word, 0..=u32::MAX, scope)
}

fn duration_of(line: &Directive, range: RangeInclusive<Duration>, scope: &mut Scope<'_>) -> Option<Duration> {
    let usage = format!("{} DURATION", line.name.text);
    let [word] = line.arguments(1..=1, &usage, scope)? else {
        return None;
    };
    duration(word, range, scope)
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}
