//! Directives that set one value of a server block.

use super::Scope;
use super::arguments::{number, zones};
use crate::config::corefile::Directive;

/// `bufsize`'s default, the size that avoids fragments (DNS flag day 2020).
const BUFSIZE: u16 = 1232;
/// What `bufsize` may be set to (CoreDNS's limits; 512 is RFC 1035's UDP limit).
const BUFSIZE_RANGE: std::ops::RangeInclusive<u16> = 512..=4096;

/// `bufsize [SIZE]`
pub(super) fn bufsize(directive: &Directive, scope: &mut Scope<'_>) {
    directive.without_options(scope);
    scope.block.bufsize = match directive.arguments(0..=1, "bufsize [SIZE]", scope) {
        Some([size]) => number(size, BUFSIZE_RANGE, scope),
        Some(_) => Some(BUFSIZE),
        None => None,
    };
}

/// `loop`
pub(super) fn detect_loops(directive: &Directive, scope: &mut Scope<'_>) {
    directive.without_options(scope);
    scope.block.detect_loops = directive.arguments(0..=0, "loop", scope).is_some();
}

/// `search_ahead [DOMAIN...]`: the domains are the node's own search domains.
pub(super) fn search_ahead(directive: &Directive, scope: &mut Scope<'_>) {
    directive.without_options(scope);
    scope.block.search_ahead = directive
        .arguments(0..=usize::MAX, "search_ahead [DOMAIN...]", scope)
        .map(|domains| zones(domains, scope));
}

/// `whoami`
pub(super) fn whoami(directive: &Directive, scope: &mut Scope<'_>) {
    directive.without_options(scope);
    scope.block.whoami = directive.arguments(0..=0, "whoami", scope).is_some();
}
