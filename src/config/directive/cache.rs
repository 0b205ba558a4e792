//! `cache [TTL] [ZONE...] { success denial servfail prefetch serve_stale keepttl disable }`

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Scope;
use super::arguments::{duration, number, zones};
use crate::cache::{Config, Prefetch, ServeStale, StaleMode, StoreConfig};
use crate::config::corefile::{Directive, Word};
use crate::wire::Name;

/// TTLs are 31 bits (RFC 2181 §8).
const TTL_RANGE: RangeInclusive<u32> = 1..=i32::MAX as u32;
const MIN_TTL_RANGE: RangeInclusive<u32> = 0..=i32::MAX as u32;
/// Sixteen million entries of some 220 octets are 3.5 GiB, more than a node's cache should be.
const CAPACITY_RANGE: RangeInclusive<usize> = 0..=1 << 24;
/// CoreDNS spreads a store over this many shards of equal size.
const SHARDS: usize = 256;
const PERCENTAGE_RANGE: RangeInclusive<u8> = 10..=90;
/// CoreDNS's default for the gap that ends a streak of hits.
const PREFETCH_GAP: Duration = Duration::from_secs(60);
const PREFETCH_PERCENTAGE: u8 = 10;
const STALE_WINDOW: Duration = Duration::from_secs(3600);
const SERVFAIL_RANGE: RangeInclusive<Duration> =
    Duration::ZERO..=Duration::from_secs(Config::MAX_SERVFAIL_TTL as u64);
const GAP_RANGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 3600);
/// A year; RFC 8767 §5 suggests one to three days.
const STALE_RANGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(365 * 86400);
const OPTIONS: &[&str] = &["success", "denial", "prefetch", "serve_stale", "servfail", "disable", "keepttl"];

pub(super) fn cache(directive: &Directive, scope: &mut Scope<'_>) {
    let mut config = Config::default();
    let mut names = directive.args.as_slice();
    if let Some((first, rest)) = names.split_first()
        && first.text.parse::<i64>().is_ok()
    {
        names = rest;
        if let Some(ttl) = number(first, TTL_RANGE, scope) {
            config.success.max_ttl = ttl;
            config.denial.max_ttl = ttl;
        }
    }
    config.zones = zones(names, scope);
    for line in directive.options() {
        option(line, &mut config, scope);
    }
    scope.block.cache = Some(config);
}

fn option(line: &Directive, config: &mut Config, scope: &mut Scope<'_>) {
    match line.name.text.as_str() {
        "success" => store(line, &mut config.success, scope),
        "denial" => store(line, &mut config.denial, scope),
        "prefetch" => config.prefetch = prefetch(line, scope),
        "serve_stale" => config.serve_stale = serve_stale(line, scope),
        "servfail" => {
            if let Some([word]) = line.arguments(1..=1, "servfail DURATION", scope)
                && let Some(kept) = duration(word, SERVFAIL_RANGE, scope)
            {
                config.servfail_ttl = whole_seconds(kept);
            }
        }
        "disable" => disable(line, config, scope),
        "keepttl" => config.keep_ttl = line.arguments(0..=0, "keepttl", scope).is_some(),
        "serve_stale_policy" => {
            let message = "`serve_stale_policy` has no effect: a failure never replaces a good answer";
            scope.warn(line.name.span, message);
        }
        _ => line.unknown_option(OPTIONS, scope),
    }
}

/// `success|denial CAPACITY [TTL [MINTTL]]`
fn store(line: &Directive, store: &mut StoreConfig, scope: &mut Scope<'_>) {
    let usage = format!("{} CAPACITY [TTL [MINTTL]]", line.name.text);
    let Some(words) = line.arguments(1..=3, &usage, scope) else {
        return;
    };
    if let Some(capacity) = number(&words[0], CAPACITY_RANGE, scope) {
        store.capacity = effective_capacity(capacity);
    }
    if let Some(ttl) = words.get(1) {
        store.max_ttl = number(ttl, TTL_RANGE, scope).unwrap_or(store.max_ttl);
    }
    if let Some(ttl) = words.get(2) {
        store.min_ttl = number(ttl, MIN_TTL_RANGE, scope).unwrap_or(store.min_ttl);
    }
}

/// CoreDNS rounds a capacity down to whole shards and up to its least, without a word.
fn effective_capacity(capacity: usize) -> usize {
    (capacity / SHARDS * SHARDS).max(Config::MIN_CAPACITY)
}

/// `prefetch AMOUNT [DURATION [PERCENTAGE%]]`; an amount of 0 turns it off.
fn prefetch(line: &Directive, scope: &mut Scope<'_>) -> Option<Prefetch> {
    let usage = "prefetch AMOUNT [DURATION [PERCENTAGE%]]";
    let words = line.arguments(1..=3, usage, scope)?;
    let amount = number(&words[0], 0..=u32::MAX, scope);
    let gap = match words.get(1) {
        Some(word) => duration(word, GAP_RANGE, scope),
        None => Some(PREFETCH_GAP),
    };
    let percentage = match words.get(2) {
        Some(word) => percentage(word, scope),
        None => Some(PREFETCH_PERCENTAGE),
    };
    Some(Prefetch {
        amount: amount.filter(|amount| *amount > 0)?,
        gap_ms: whole_milliseconds(gap?),
        percentage: percentage?,
    })
}

fn percentage(word: &Word, scope: &mut Scope<'_>) -> Option<u8> {
    let Some(digits) = word.text.strip_suffix('%') else {
        let message = format!("`{}` is not a percentage", word.text);
        scope.error(word.span, message, "write a number and %, such as 15%");
        return None;
    };
    let digits = Word { text: digits.to_owned(), ..word.clone() };
    number(&digits, PERCENTAGE_RANGE, scope)
}

/// `serve_stale [DURATION] [immediate|verify [TIMEOUT]]`
fn serve_stale(line: &Directive, scope: &mut Scope<'_>) -> Option<ServeStale> {
    let usage = "serve_stale [DURATION] [immediate|verify [TIMEOUT]]";
    let mut window = STALE_WINDOW;
    let mut mode = StaleMode::Immediate;
    let mut verify_wait_ms = ServeStale::VERIFY_WAIT_MS;
    for (index, word) in line.arguments(0..=3, usage, scope)?.iter().enumerate() {
        match word.text.as_str() {
            "immediate" => mode = StaleMode::Immediate,
            "verify" => mode = StaleMode::Verify,
            _ if index == 0 => window = duration(word, STALE_RANGE, scope)?,
            _ if index == 2 && mode == StaleMode::Verify => {
                verify_wait_ms = whole_milliseconds(duration(word, STALE_RANGE, scope)?);
            }
            other => {
                let message = format!("`{other}` is neither immediate nor verify");
                scope.error(word.span, message, format!("write: {usage}"));
            }
        }
    }
    Some(ServeStale { window: whole_seconds(window), mode, verify_wait_ms })
}

/// `disable success|denial [ZONE...]`
fn disable(line: &Directive, config: &mut Config, scope: &mut Scope<'_>) {
    let usage = "disable success|denial [ZONE...]";
    let Some([kind, names @ ..]) = line.arguments(1..=usize::MAX, usage, scope) else {
        return;
    };
    let zones = match names {
        [] => vec![Name::root()],
        names => zones(names, scope),
    };
    match kind.text.as_str() {
        "success" => config.disable_success.extend(zones),
        "denial" => config.disable_denial.extend(zones),
        other => {
            let message = format!("`{other}` is neither success nor denial");
            scope.error(kind.span, message, format!("write: {usage}"));
        }
    }
}

/// Milliseconds, rounded up so that a fraction of one does not turn into "never".
fn whole_milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}

/// Seconds, rounded up so that a fraction of one does not turn into "never".
fn whole_seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}
