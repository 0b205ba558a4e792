//! What is kept, where, and for how long. Pure.

use super::config::{Config, StoreConfig};
use crate::wire::{Kind, Lifetime, Name};

/// Which of the two stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// Answers with data.
    Success,
    /// Denials and failures.
    Denial,
}

impl Store {
    /// The store for answers of `kind`.
    #[inline]
    pub fn of(kind: Kind) -> Store {
        match kind {
            Kind::Success | Kind::Delegation | Kind::Empty => Store::Success,
            Kind::NoData | Kind::NxDomain | Kind::ServerFailure | Kind::Other => Store::Denial,
        }
    }
}

/// The verdict on one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Where to keep it; `None`: not at all.
    pub store: Option<Store>,
    /// The TTL that this and every later reply shows, seconds.
    pub ttl: u32,
}

/// TTL of what has none of its own (CoreDNS's `MinimalDefaultTTL`), seconds.
const FALLBACK_TTL: u32 = 5;
/// No TTL is longer, whatever `cache TTL` says (CoreDNS's `MaximumDefaultTTL`), seconds.
const LONGEST_TTL: u32 = 3600;

/// Decides on an answer of `kind` for `name` (folded wire octets) at `unix_now` (seconds since 1970).
///
/// `dnssec_ok` and `truncated` are the reply's DO and TC.
pub fn judge(config: &Config, facts: &Facts<'_>, unix_now: u32) -> Verdict {
    let store = Store::of(facts.kind);
    let ttl = match facts.kind {
        Kind::Success => clamp(config.success, own_ttl(facts)),
        Kind::Delegation | Kind::Empty => clamp(config.success, FALLBACK_TTL),
        Kind::NoData | Kind::NxDomain => clamp(config.denial, own_ttl(facts)),
        Kind::ServerFailure => config.servfail_ttl,
        Kind::Other => return Verdict { store: None, ttl: clamp(config.success, FALLBACK_TTL) },
    };
    let disabled = match store {
        Store::Success => &config.disable_success,
        Store::Denial => &config.disable_denial,
    };
    let refused = facts.truncated
        || ttl == 0
        || disabled.iter().any(|zone: &Name| zone.contains(facts.name))
        || facts.dnssec_ok && signature_expired(&facts.lifetime, unix_now);
    Verdict { store: (!refused).then_some(store), ttl }
}

/// What the verdict depends on.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// What the answer says.
    pub kind: Kind,
    /// Its TTLs.
    pub lifetime: Lifetime,
    /// The question's name, folded wire octets.
    pub name: &'a [u8],
    /// TC is set.
    pub truncated: bool,
    /// The question had DO.
    pub dnssec_ok: bool,
}

/// The least TTL of the records; for denials no more than the SOA's MINIMUM (RFC 2308 §5).
fn own_ttl(facts: &Facts<'_>) -> u32 {
    let ttl = facts.lifetime.min_ttl.unwrap_or(FALLBACK_TTL).min(LONGEST_TTL);
    match (facts.kind, facts.lifetime.soa_minimum) {
        (Kind::NoData | Kind::NxDomain, Some(minimum)) => ttl.min(minimum),
        _ => ttl,
    }
}

fn clamp(store: StoreConfig, ttl: u32) -> u32 {
    ttl.max(store.min_ttl).min(store.max_ttl)
}

/// Serial arithmetic, as RFC 4034 §3.1.5 asks.
fn signature_expired(lifetime: &Lifetime, unix_now: u32) -> bool {
    lifetime.signature_expires.is_some_and(|expires| (expires.wrapping_sub(unix_now) as i32) < 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Lifetime = Lifetime { min_ttl: Some(300), soa_minimum: None, signature_expires: None };

    fn facts(kind: Kind) -> Facts<'static> {
        Facts { kind, lifetime: LIFETIME, name: b"\x01a\x00", truncated: false, dnssec_ok: false }
    }

    fn ttl_of(kind: Kind, min_ttl: u32, soa_minimum: Option<u32>) -> u32 {
        let lifetime = Lifetime { min_ttl: Some(min_ttl), soa_minimum, ..LIFETIME };
        judge(&Config::default(), &Facts { lifetime, ..facts(kind) }, 0).ttl
    }

    #[test]
    fn floors_and_caps() {
        assert_eq!(ttl_of(Kind::Success, 0, None), 5);
        assert_eq!(ttl_of(Kind::Success, 300, None), 300);
        assert_eq!(ttl_of(Kind::Success, 86_400, None), 3600);
        assert_eq!(ttl_of(Kind::NxDomain, 86_400, None), 1800);
        assert_eq!(ttl_of(Kind::NxDomain, 3, None), 5);
        assert_eq!(ttl_of(Kind::Delegation, 86_400, None), 5);
    }

    #[test]
    fn an_hour_is_the_cap_even_for_a_longer_cache_ttl() {
        let mut config = Config::default();
        config.success.max_ttl = 86_400;
        let lifetime = Lifetime { min_ttl: Some(86_400), ..LIFETIME };
        assert_eq!(judge(&config, &Facts { lifetime, ..facts(Kind::Success) }, 0).ttl, 3600);
    }

    #[test]
    fn a_cap_below_the_floor_wins() {
        let mut config = Config::default();
        config.success.max_ttl = 3;
        assert_eq!(judge(&config, &facts(Kind::Success), 0).ttl, 3);
    }

    #[test]
    fn denials_take_the_soa_minimum() {
        assert_eq!(ttl_of(Kind::NoData, 300, Some(60)), 60);
        assert_eq!(ttl_of(Kind::NxDomain, 30, Some(60)), 30);
        assert_eq!(ttl_of(Kind::Success, 300, Some(60)), 300);
    }

    #[test]
    fn what_is_kept_where() {
        let store = |facts: Facts<'_>| judge(&Config::default(), &facts, 1000).store;
        assert_eq!(store(facts(Kind::Success)), Some(Store::Success));
        assert_eq!(store(facts(Kind::Empty)), Some(Store::Success));
        assert_eq!(store(facts(Kind::NoData)), Some(Store::Denial));
        assert_eq!(store(facts(Kind::ServerFailure)), Some(Store::Denial));
        assert_eq!(store(facts(Kind::Other)), None);
        assert_eq!(store(Facts { truncated: true, ..facts(Kind::Success) }), None);
    }

    #[test]
    fn servfail_0_keeps_no_failure() {
        let config = Config { servfail_ttl: 0, ..Config::default() };
        assert_eq!(judge(&config, &facts(Kind::ServerFailure), 0).store, None);
    }

    #[test]
    fn expired_signatures_are_not_kept_for_those_who_asked_for_them() {
        let signed = |expires| Lifetime { signature_expires: Some(expires), ..LIFETIME };
        let store = |expires, dnssec_ok| {
            let facts = Facts { lifetime: signed(expires), dnssec_ok, ..facts(Kind::Success) };
            judge(&Config::default(), &facts, 1000).store
        };
        assert_eq!(store(999, true), None);
        assert_eq!(store(999, false), Some(Store::Success));
        assert_eq!(store(1001, true), Some(Store::Success));
        // Past 2106 the counter has wrapped; 5 is then later than 4294967290.
        let facts = Facts { lifetime: signed(5), dnssec_ok: true, ..facts(Kind::Success) };
        assert_eq!(judge(&Config::default(), &facts, u32::MAX - 5).store, Some(Store::Success));
    }

    #[test]
    fn disabled_zones() {
        let a = Name::from_text("a").unwrap();
        let config = Config { disable_success: vec![a], ..Config::default() };
        assert_eq!(judge(&config, &facts(Kind::Success), 0).store, None);
        assert_eq!(judge(&config, &facts(Kind::NoData), 0).store, Some(Store::Denial));
    }
}
