//! Directives that speak for the whole process, whichever block they stand in.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Scope;
use super::arguments::{duration, number, seconds_or_duration};
use crate::config::Reload;
use crate::config::corefile::Directive;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// CoreDNS's bounds for `timeouts`.
const TIMEOUT_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=DAY;
/// CoreDNS's least interval between two looks at the Corefile.
const RELOAD_RANGE: RangeInclusive<Duration> = Duration::from_secs(2)..=DAY;
/// CoreDNS's least jitter; 0 turns it off.
const JITTER_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=DAY;
/// CoreDNS's bounds for `multisocket`.
const SOCKETS_RANGE: RangeInclusive<usize> = 1..=1024;

/// `debug`
pub(super) fn debug(directive: &Directive, scope: &mut Scope<'_>) {
    directive.without_options(scope);
    if directive.arguments(0..=0, "debug", scope).is_some() {
        scope.process.debug = true;
    }
}

/// `reload [INTERVAL [JITTER]]`; of several blocks the last one speaks.
///
/// A jitter of more than half the interval is cut to half, as CoreDNS does.
pub(super) fn reload(directive: &Directive, scope: &mut Scope<'_>) {
    directive.without_options(scope);
    let usage = "reload [INTERVAL [JITTER]]";
    let Some(words) = directive.arguments(0..=2, usage, scope) else {
        return;
    };
    let mut reload = Reload::default();
    if let Some(interval) = words.first() {
        reload.interval = duration(interval, RELOAD_RANGE, scope).unwrap_or(reload.interval);
    }
    if let Some(jitter) = words.get(1) {
        let off = matches!(jitter.text.as_str(), "0" | "0s");
        reload.jitter = match off {
            true => Duration::ZERO,
            false => duration(jitter, JITTER_RANGE, scope).unwrap_or(reload.jitter),
        };
    }
    reload.jitter = reload.jitter.min(reload.interval / 2);
    scope.process.reload = Some(reload);
}

/// `timeouts { read|write|idle DURATION }`
pub(super) fn timeouts(directive: &Directive, scope: &mut Scope<'_>) {
    let usage = "timeouts { read|write|idle DURATION }";
    directive.arguments(0..=0, usage, scope);
    if directive.options().is_empty() {
        let message = "`timeouts` without a value";
        scope.error(directive.name.span, message, format!("write: {usage}"));
    }
    for option in directive.options() {
        let name = option.name.text.as_str();
        match name {
            "read" | "write" | "idle" => {}
            "maxtcpqueries" => {
                scope.warn(option.name.span, "`maxtcpqueries` is accepted but has no effect");
                continue;
            }
            _ => {
                option.unknown_option(&["read", "write", "idle"], scope);
                continue;
            }
        }
        let Some([word]) = option.arguments(1..=1, &format!("{name} DURATION"), scope) else {
            continue;
        };
        let Some(value) = seconds_or_duration(word, TIMEOUT_RANGE, scope) else {
            continue;
        };
        let timeouts = &mut scope.process.timeouts;
        match name {
            "read" => timeouts.read = value,
            "write" => timeouts.write = value,
            _ => timeouts.idle = value,
        }
    }
}

/// `multisocket [N]`; without N one socket per processor.
pub(super) fn multisocket(directive: &Directive, scope: &mut Scope<'_>) {
    directive.without_options(scope);
    let sockets = match directive.arguments(0..=1, "multisocket [N]", scope) {
        Some([count]) => number(count, SOCKETS_RANGE, scope),
        Some(_) => std::thread::available_parallelism().ok().map(usize::from),
        None => None,
    };
    scope.process.udp_threads = sockets.max(scope.process.udp_threads);
}
