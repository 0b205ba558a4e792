//! The store's behaviour at chosen moments; what clients see over time is in `tests/scenarios`.

use super::*;
use crate::wire::Query;

const START: Moment = Moment(1_000_000);

/// `name` asked for its A records with RD.
fn query(name: &str) -> Vec<u8> {
    let mut octets = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    octets.extend_from_slice(crate::wire::Name::from_text(name).unwrap().as_wire());
    octets.extend_from_slice(&[0, 1, 0, 1]);
    octets
}

/// A response with `rcode`, one A record unless `ttl` is `None`, and an SOA if `denial`.
fn response(name: &str, rcode: u8, ttl: Option<u32>, denial: bool) -> Vec<u8> {
    let mut octets = query(name);
    octets[2..4].copy_from_slice(&[0x81, 0x80 | rcode]);
    if let Some(ttl) = ttl.filter(|_| !denial) {
        octets[7] = 1;
        octets.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
        octets.extend_from_slice(&ttl.to_be_bytes());
        octets.extend_from_slice(&[0, 4, 192, 0, 2, 1]);
    }
    if denial {
        octets[9] = 1;
        octets.extend_from_slice(&[0, 0, 6, 0, 1]);
        octets.extend_from_slice(&ttl.unwrap_or(30).to_be_bytes());
        octets.extend_from_slice(&[0, 22, 0, 0]);
        octets.extend_from_slice(&[0; 16]);
        octets.extend_from_slice(&3600u32.to_be_bytes());
    }
    octets
}

struct Bench {
    cache: Cache,
    name: &'static str,
}

impl Bench {
    fn new(config: Config) -> Bench {
        Bench { cache: Cache::new(config).unwrap(), name: "a.test" }
    }

    fn key(&self) -> Key {
        Key::of(&Query::parse(&query(self.name)).unwrap())
    }

    fn insert(&self, response: &[u8], now: Moment) -> Insertion {
        let asked = query(self.name);
        let (answer, lifetime) = Answer::scan(response, Query::parse(&asked).unwrap().question()).unwrap();
        self.cache.insert(&self.key(), &answer, lifetime, false, now, 0)
    }

    fn good(&self, ttl: u32, now: Moment) {
        self.insert(&response(self.name, 0, Some(ttl), false), now);
    }

    fn get(&self, now: Moment) -> Lookup {
        self.cache.get(&self.key(), now, &mut [0; 4096])
    }
}

fn stale(mode: StaleMode) -> Config {
    Config { serve_stale: Some(ServeStale { window: 100, mode, verify_wait_ms: 0 }), ..Config::default() }
}

fn seconds(count: u64) -> Moment {
    START.plus_ms(count * 1000)
}

#[test]
fn an_entry_lives_for_its_ttl() {
    let bench = Bench::new(Config::default());
    bench.good(30, START);
    assert!(matches!(bench.get(START), Lookup::Fresh { ttl: 30, store: Store::Success, refresh: false, .. }));
    assert!(matches!(bench.get(START.plus_ms(999)), Lookup::Fresh { ttl: 30, .. }));
    assert!(matches!(bench.get(seconds(29)), Lookup::Fresh { ttl: 1, .. }));
    assert!(matches!(bench.get(seconds(30)), Lookup::Miss));
}

#[test]
fn keepttl_shows_the_first_ttl() {
    let bench = Bench::new(Config { keep_ttl: true, ..Config::default() });
    bench.good(30, START);
    assert!(matches!(bench.get(seconds(29)), Lookup::Fresh { ttl: 30, .. }));
    assert!(matches!(bench.get(seconds(30)), Lookup::Miss));
}

#[test]
fn between_answer_and_denial_the_newer_stands() {
    let bench = Bench::new(Config::default());
    bench.good(300, START);
    bench.insert(&response("a.test", 3, None, true), seconds(1));
    assert!(matches!(bench.get(seconds(2)), Lookup::Fresh { store: Store::Denial, .. }));
    bench.good(300, seconds(3));
    assert!(matches!(bench.get(seconds(4)), Lookup::Fresh { store: Store::Success, .. }));
    assert_eq!(bench.cache.len(Store::Denial), 0);
}

#[test]
fn a_failure_does_not_displace_a_good_answer() {
    let bench = Bench::new(stale(StaleMode::Immediate));
    bench.good(30, START);
    bench.insert(&response("a.test", 2, None, false), seconds(10));
    assert!(matches!(bench.get(seconds(11)), Lookup::Fresh { store: Store::Success, .. }));
    bench.insert(&response("a.test", 2, None, false), seconds(31));
    assert!(matches!(bench.get(seconds(32)), Lookup::Stale { store: Store::Success, .. }));
}

#[test]
fn a_failure_alone_is_kept_for_five_seconds_and_never_stale() {
    let bench = Bench::new(stale(StaleMode::Immediate));
    bench.insert(&response("a.test", 2, None, false), START);
    assert!(matches!(bench.get(seconds(4)), Lookup::Fresh { store: Store::Denial, .. }));
    assert!(matches!(bench.get(seconds(5)), Lookup::Miss));
}

#[test]
fn stale_ends_with_its_window_and_one_caller_refreshes() {
    let bench = Bench::new(stale(StaleMode::Immediate));
    bench.good(30, START);
    assert!(matches!(bench.get(seconds(30)), Lookup::Stale { refresh: true, .. }));
    assert!(matches!(bench.get(seconds(31)), Lookup::Stale { refresh: false, .. }));
    // The refresh was lost; another one is due.
    assert!(matches!(bench.get(seconds(36)), Lookup::Stale { refresh: true, .. }));
    assert!(matches!(bench.get(seconds(129)), Lookup::Stale { .. }));
    assert!(matches!(bench.get(seconds(130)), Lookup::Miss));
}

#[test]
fn popular_entries_are_refreshed_once_before_they_expire() {
    let prefetch = Prefetch { amount: 3, gap_ms: 60_000, percentage: 10 };
    let bench = Bench::new(Config { prefetch: Some(prefetch), ..Config::default() });
    bench.good(100, START);
    let refresh = |at: u64| matches!(bench.get(seconds(at)), Lookup::Fresh { refresh: true, .. });
    assert!(!refresh(1) && !refresh(50) && !refresh(89), "too early");
    assert!(refresh(90));
    assert!(!refresh(91), "one in flight");
}

#[test]
fn a_gap_starts_the_count_anew_and_a_refresh_inherits_it() {
    let prefetch = Prefetch { amount: 2, gap_ms: 10_000, percentage: 90 };
    let bench = Bench::new(Config { prefetch: Some(prefetch), ..Config::default() });
    let refresh = |at: u64| matches!(bench.get(seconds(at)), Lookup::Fresh { refresh: true, .. });
    bench.good(100, START);
    assert!(!refresh(20) && !refresh(40), "each is the first of its row");
    assert!(refresh(45));
    bench.good(100, seconds(45));
    assert!(refresh(55), "the row goes on");
}

#[test]
fn entries_and_octets_are_bounded() {
    let mut config = Config::default();
    config.success.capacity = 1024;
    let cache = Cache::new(config).unwrap();
    let mut evicted = 0;
    for index in 0..5000 {
        let name = format!("n{index}.test");
        let asked = query(&name);
        let asked = Query::parse(&asked).unwrap();
        let octets = response(&name, 0, Some(300), false);
        let (answer, lifetime) = Answer::scan(&octets, asked.question()).unwrap();
        evicted += cache.insert(&Key::of(&asked), &answer, lifetime, false, START, 0).evicted;
    }
    assert!(cache.len(Store::Success) <= 1024);
    assert!(cache.len(Store::Success) >= 1000);
    assert_eq!(evicted as usize + cache.len(Store::Success), 5000);
}

#[test]
fn a_cache_goes_from_one_process_to_the_next() {
    let mut old = Bench::new(Config::default());
    let mut new = Bench::new(Config::default());
    for (name, ttl) in [("a.test", 30), ("b.test", 30), ("expired.test", 5)] {
        old.name = name;
        old.good(ttl, START);
    }
    let later = START.plus_ms(10_000);
    // What is here is newer.
    new.name = "b.test";
    new.good(30, later);
    let (shape, memory) = old.cache.share().unwrap();
    assert_eq!(new.cache.inherit(&shape, memory, later), 1);
    assert_eq!(new.cache.len(Store::Success), 2);
    new.name = "a.test";
    let mut out = vec![0; crate::wire::REPLY_ROOM];
    assert!(matches!(new.cache.get(&new.key(), later, &mut out), Lookup::Fresh { ttl: 20, .. }));
    new.name = "expired.test";
    assert_eq!(new.cache.get(&new.key(), later, &mut out), Lookup::Miss);
}

#[test]
fn memory_that_is_no_cache_is_no_harm() {
    let cache = Cache::new(Config::default()).unwrap();
    let file = |octets: &[u8]| {
        use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
        let file = memfd_create("test", MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::io::write(&file, octets).unwrap();
        (fcntl_add_seals(&file, SealFlags::SHRINK).is_ok(), file)
    };
    // Every word is 0x0101...: slots and blocks that lead to themselves and to nowhere.
    for octet in [0, 1, 2, 0xff] {
        assert_eq!(cache.inherit("1/16/16", file(&vec![octet; 1 << 20]).1, START), 0, "{octet}");
    }
    assert_eq!(cache.inherit("1/16/16", file(&[1; 100]).1, START), 0, "too short");
    let (shape, memory) = cache.share().unwrap();
    for other in ["", "1", "0/16/16", "1/x/16", "1/16/16/16"] {
        assert_eq!(cache.inherit(other, memory.try_clone().unwrap(), START), 0, "{other}");
    }
    assert_eq!(shape, "1/9984/9984");
}

#[test]
fn what_it_holds_is_what_it_answers_at_once() {
    let held = |mode: Option<StaleMode>, age: u64, failed: bool| {
        let serve_stale = mode.map(|mode| ServeStale { window: 60, mode, verify_wait_ms: 0 });
        let bench = Bench::new(Config { serve_stale, ..Config::default() });
        assert!(!bench.cache.holds(&bench.key(), START));
        bench.good(30, START);
        let now = START.plus_ms(age * 1000);
        if failed {
            bench.cache.note_failure(&bench.key(), now);
        }
        bench.cache.holds(&bench.key(), now)
    };
    assert!(held(None, 29, false) && !held(None, 31, false));
    assert!(held(Some(StaleMode::Immediate), 31, false) && !held(Some(StaleMode::Immediate), 91, false));
    assert!(!held(Some(StaleMode::Verify), 31, false) && held(Some(StaleMode::Verify), 31, true));
}
