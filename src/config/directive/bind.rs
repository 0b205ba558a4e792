//! `bind ADDRESS|INTERFACE... { except ADDRESS|INTERFACE... }`

use std::io;
use std::net::IpAddr;

use super::Scope;
use crate::config::corefile::{Directive, Word};

/// Several `bind` lines add up. An interface stands for the addresses it has now.
pub(super) fn bind(directive: &Directive, scope: &mut Scope<'_>) {
    let usage = "bind ADDRESS|INTERFACE...";
    let Some(words) = directive.arguments(1..=usize::MAX, usage, scope) else {
        return;
    };
    let found = addresses(words, scope);
    let (bound, _) = scope.block.bind.get_or_insert_with(|| (Vec::new(), directive.name.span));
    for address in found {
        if !bound.contains(&address) {
            bound.push(address);
        }
    }
    for option in directive.options() {
        if option.name.text == "except" {
            let usage = "except ADDRESS|INTERFACE...";
            if let Some(words) = option.arguments(1..=usize::MAX, usage, scope) {
                let found = addresses(words, scope);
                scope.block.except.extend(found);
            }
        } else {
            option.unknown_option(&["except"], scope);
        }
    }
}

fn addresses(words: &[Word], scope: &mut Scope<'_>) -> Vec<IpAddr> {
    let mut all = Vec::new();
    for word in words {
        if let Ok(address) = word.text.parse() {
            all.push(address);
            continue;
        }
        let why = match scope.env.interface_addresses(&word.text) {
            Ok(found) if !found.is_empty() => {
                all.extend(found);
                continue;
            }
            Ok(_) => format!("interface `{}` has no address", word.text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                format!("`{}` is neither an IP address nor an interface", word.text)
            }
            Err(error) => format!("cannot read the addresses of `{}`: {error}", word.text),
        };
        scope.error(word.span, why, "write an IP address or the name of an interface");
    }
    all
}
