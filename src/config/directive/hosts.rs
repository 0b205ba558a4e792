//! `hosts [FILE [ZONE...]] { [ADDRESS NAME...] ttl SECONDS no_reverse reload DURATION fallthrough [ZONE...] }`

use std::time::Duration;

use super::Scope;
use super::arguments::{duration, number, zones};
use crate::config::corefile::Directive;
use crate::plugin::Hosts;
use crate::wire::Name;

const OPTIONS: &[&str] = &["fallthrough", "no_reverse", "reload", "ttl"];
/// A year: longer is never.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

pub(super) fn hosts(directive: &Directive, scope: &mut Scope<'_>) {
    let mut hosts = Hosts::default();
    if let [file, below @ ..] = directive.args.as_slice() {
        hosts.path = file.text.as_str().into();
        hosts.zones = zones(below, scope);
    }
    for option in directive.options() {
        read(option, &mut hosts, scope);
    }
    scope.block.steps.hosts = Some(hosts);
}

fn read(option: &Directive, hosts: &mut Hosts, scope: &mut Scope<'_>) {
    match option.name.text.as_str() {
        "ttl" => {
            let words = option.arguments(1..=1, "ttl SECONDS", scope).unwrap_or_default();
            if let Some(ttl) = words.first().and_then(|word| number(word, 1..=65535, scope)) {
                hosts.ttl = ttl;
            }
        }
        "reload" => {
            let words = option.arguments(1..=1, "reload DURATION", scope).unwrap_or_default();
            let reload = words.first().and_then(|word| duration(word, Duration::ZERO..=LONGEST, scope));
            hosts.reload = reload.unwrap_or(hosts.reload);
        }
        "no_reverse" => hosts.reverse = false,
        "fallthrough" => {
            let below = zones(&option.args, scope);
            hosts.fallthrough = if option.args.is_empty() { vec![Name::root()] } else { below };
        }
        _ if !hosts.fallthrough.is_empty() => {
            let message = "only options may follow `fallthrough`";
            match Hosts::is_address(&option.name.text) {
                true => scope.error(option.name.span, message, "put the entries before it"),
                false => option.unknown_option(OPTIONS, scope),
            }
        }
        // As in CoreDNS: a line like any in the file, where what is no entry means nothing.
        address => {
            if !Hosts::is_address(address) || option.args.is_empty() {
                let message = format!("`{address}` is neither an option nor an address with names");
                scope.warn(option.name.span, format!("{message}: the line has no effect"));
            }
            for word in option.args.iter().filter(|word| Name::from_text(&word.text).is_err()) {
                scope.warn(word.span, format!("`{}` is not a name and left out", word.text));
            }
            let words = std::iter::once(&option.name).chain(&option.args);
            let words: Vec<&str> = words.map(|word| word.text.as_str()).collect();
            hosts.inline.push(words.join(" "));
        }
    }
}
