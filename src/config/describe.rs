//! A configuration in words, for `doorstep check`.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Config, Origin, duration};
use crate::cache::{self, StaleMode, StoreConfig};
use crate::forward::{self, Policy, Source, Transport};
use crate::server::Block;
use crate::wire::Name;

/// What was understood, one paragraph per block.
pub fn describe(config: &Config) -> String {
    let mut out = match &config.origin {
        Origin::Template(path) => format!("Template {}\n", path.display()),
        Origin::Corefile(path) => format!("Corefile {}\n", path.display()),
        Origin::Builtin => "Built-in Corefile\n".to_owned(),
    };
    for block in &config.server.blocks {
        out.push('\n');
        for line in block_lines(block) {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{line}");
        }
    }
    let _ = writeln!(out, "\n{}", process_lines(config).join("\n"));
    out
}

fn block_lines(block: &Block) -> Vec<String> {
    let mut lines: Vec<String> =
        block.zones.iter().map(|(zone, addresses)| format!("{zone} on {}", sockets(addresses))).collect();
    lines.push(match &block.cache {
        Some(cache) => format!("  cache    {}", cache_words(cache)),
        None => "  cache    none".to_owned(),
    });
    for forward in &block.forwards {
        lines.push(format!("  forward  {}", forward_words(forward)));
    }
    if block.forwards.is_empty() {
        lines.push("  forward  nowhere: every query is REFUSED".to_owned());
    }
    for rule in &block.log {
        lines.push(format!("  log      queries for {}", rule.scope));
    }
    if !block.steps.templates.is_empty() {
        lines.push(format!("  template {} of them", block.steps.templates.len()));
    }
    if let Some(hosts) = &block.steps.hosts {
        lines.push(format!("  hosts    {}, {} lines here", hosts.path.display(), hosts.inline.len()));
    }
    let mut also = Vec::new();
    if block.errors.is_some() {
        also.push("errors logged".to_owned());
    }
    if block.detect_loops {
        also.push("loops detected".to_owned());
    }
    if let Some(domains) = &block.search_ahead {
        let then = if domains.is_empty() { "" } else { ", then " };
        also.push(format!("search paths fetched ahead{then}{}", names(domains)));
    }
    if block.metrics {
        also.push("queries counted".to_owned());
    }
    if let Some(size) = block.bufsize {
        also.push(format!("UDP payload at most {size} octets"));
    }
    if !also.is_empty() {
        lines.push(format!("  also     {}", also.join(", ")));
    }
    lines
}

fn cache_words(config: &cache::Config) -> String {
    let store = |name: &str, store: &StoreConfig| {
        format!("{name} {} entries for {} to {} s", store.capacity, store.min_ttl, store.max_ttl)
    };
    let mut words = vec![
        store("success", &config.success),
        store("denial", &config.denial),
        format!("failures {} s", config.servfail_ttl),
    ];
    if let Some(prefetch) = config.prefetch {
        words
            .push(format!("refreshed after {} hits at {}% of the TTL", prefetch.amount, prefetch.percentage));
    }
    if let Some(stale) = config.serve_stale {
        let mode = match stale.mode {
            StaleMode::Immediate => "at once".to_owned(),
            StaleMode::Verify => match stale.patience() {
                Some(patience) => {
                    format!("when the upstream fails or takes {}", duration::show(patience))
                }
                None => "when the upstream fails".to_owned(),
            },
        };
        words.push(format!("stale for {} s {mode}", stale.window));
    }
    if !config.zones.is_empty() {
        words.push(format!("only below {}", names(&config.zones)));
    }
    words.join(", ")
}

fn forward_words(config: &forward::Config) -> String {
    let targets: Vec<String> = config
        .to
        .iter()
        .map(|target| match target.tls {
            true => format!("tls://{}", target.address),
            false => target.address.to_string(),
        })
        .collect();
    let mut words = vec![format!("{} to {}", config.from, targets.join(" "))];
    for source in &config.sources {
        if let Source::ResolvConf(path) = source {
            words.push(format!("from {}", path.display()));
        }
    }
    words.push(match config.transport {
        Transport::AsClient => "over the client's transport".to_owned(),
        Transport::ForceTcp => "over TCP".to_owned(),
        Transport::PreferUdp => "over UDP if it fits".to_owned(),
    });
    if config.to.len() > 1 {
        let policy = match config.policy {
            Policy::Random => "in random order",
            Policy::RoundRobin => "in turn",
            Policy::Sequential => "in this order",
        };
        words.push(policy.to_owned());
    }
    if !config.except.is_empty() {
        words.push(format!("except {}", names(&config.except)));
    }
    words.join(", ")
}

fn process_lines(config: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    let admin = &config.admin;
    if !admin.prometheus.is_empty() {
        lines.push(format!("/metrics on {}", sockets(&admin.prometheus)));
    }
    for health in &admin.health {
        let lameduck = match health.lameduck {
            Duration::ZERO => String::new(),
            time => format!(", serving on for {} after a stop", duration::show(time)),
        };
        lines.push(format!("/health on {}{lameduck}", health.address));
    }
    if !admin.ready.is_empty() {
        lines.push(format!("/ready on {}", sockets(&admin.ready)));
    }
    lines.push(match config.reload {
        Some(reload) => format!("reload every {}", duration::show(reload.interval)),
        None => "no reload".to_owned(),
    });
    lines
}

fn names(names: &[Name]) -> String {
    let shown: Vec<String> = names.iter().map(ToString::to_string).collect();
    shown.join(" ")
}

fn sockets(addresses: &[SocketAddr]) -> String {
    let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    shown.join(" ")
}
