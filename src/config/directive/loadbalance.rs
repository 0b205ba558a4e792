//! `loadbalance [round_robin] { prefer SUBNET... }`

use std::net::IpAddr;

use super::Scope;
use crate::config::corefile::{Directive, Word};
use crate::server::Subnet;

const USAGE: &str = "loadbalance [round_robin]";

/// Several lines in a block are one, as in CoreDNS.
pub(super) fn loadbalance(directive: &Directive, scope: &mut Scope<'_>) {
    match directive.args.as_slice() {
        [] => {}
        [policy] if policy.text == "round_robin" => {}
        [policy, ..] if policy.text == "weighted" => {
            let message = "`loadbalance weighted` is not served by this version";
            let remedy = "take round_robin, or give addresses their weights in the cluster's CoreDNS";
            scope.error(policy.span, message, remedy);
            return;
        }
        [policy] => {
            let message = format!("`{}` is not a policy of `loadbalance`", policy.text);
            scope.error(policy.span, message, format!("write: {USAGE}"));
        }
        _ => drop(directive.arguments(0..=1, USAGE, scope)),
    }
    scope.block.loadbalance.get_or_insert_default();
    for option in directive.options() {
        if option.name.text != "prefer" {
            option.unknown_option(&["prefer"], scope);
            continue;
        }
        let found: Vec<Subnet> = option.args.iter().filter_map(|word| subnet(word, scope)).collect();
        scope.block.loadbalance.get_or_insert_default().prefer.extend(found);
    }
}

fn subnet(word: &Word, scope: &mut Scope<'_>) -> Option<Subnet> {
    let parts = word.text.split_once('/');
    let found =
        parts.and_then(|(address, len)| Subnet::new(address.parse::<IpAddr>().ok()?, len.parse().ok()?));
    if found.is_none() {
        let message = format!("`{}` is not an address prefix", word.text);
        scope.error(word.span, message, "write one such as 10.0.0.0/8 or fd00::/8");
    }
    found
}
