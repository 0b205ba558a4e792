//! `dns64 [PREFIX] { prefix PREFIX; translate_all; allow_ipv4 }`

use super::Scope;
use crate::config::corefile::{Directive, Word};
use crate::plugin::{Dns64, Prefix};

pub(super) fn dns64(directive: &Directive, scope: &mut Scope<'_>) {
    let mut config = Dns64::default();
    if let Some([word]) = directive.arguments(0..=1, "dns64 [PREFIX]", scope) {
        config.prefix = prefix(word, scope).unwrap_or(config.prefix);
    }
    for option in directive.options() {
        match option.name.text.as_str() {
            "prefix" => {
                if let Some([word]) = option.arguments(1..=1, "prefix PREFIX", scope) {
                    config.prefix = prefix(word, scope).unwrap_or(config.prefix);
                }
            }
            "translate_all" => {
                config.translate_all = option.arguments(0..=0, "translate_all", scope).is_some()
            }
            "allow_ipv4" => config.allow_ipv4 = option.arguments(0..=0, "allow_ipv4", scope).is_some(),
            _ => option.unknown_option(&["allow_ipv4", "prefix", "translate_all"], scope),
        }
    }
    scope.block.steps.dns64 = Some(config);
}

fn prefix(word: &Word, scope: &mut Scope<'_>) -> Option<Prefix> {
    let parts = word.text.split_once('/');
    let found = parts.and_then(|(address, bits)| Prefix::new(address.parse().ok()?, bits.parse().ok()?));
    if found.is_none() {
        let message = format!("`{}` is not a prefix for IPv4 addresses", word.text);
        scope.error(word.span, message, "write an IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits");
    }
    found
}
