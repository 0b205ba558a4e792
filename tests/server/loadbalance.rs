//! `loadbalance`: addresses in another order in each reply.

use std::collections::HashMap;

use super::Served;
use super::client::{tcp, udp};
use super::message::{Answer, ask, bit};
use super::scripted::{Scripted, answer};
use super::upstream::{Asked, Step};

/// An alias and `count` addresses of what it stands for.
fn addresses(asked: &Asked, count: u8) -> Vec<Step> {
    let mut reply = asked.reply(0);
    reply[7] = count + 1;
    let target = (reply.len() + 12) as u8;
    reply.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 30, 0, 4, 1, b'x', 0xc0, 12]);
    for last in 1..=count {
        reply.extend([0xc0, target, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 192, 0, 2, last]);
    }
    vec![Step::Send(reply)]
}

/// The last octets of its addresses, behind the alias that must come first.
fn order(answer: &Answer) -> Vec<u8> {
    let records = answer.section(1);
    assert_eq!(records[0].rtype, 5);
    records[1..].iter().map(|record| record.rdata[3]).collect()
}

#[test]
fn each_reply_has_another_order() {
    let upstream = Scripted::start(|asked| addresses(asked, 3));
    let served = Served::start(upstream.address, "loadbalance round_robin");
    let mut seen: HashMap<Vec<u8>, usize> = HashMap::new();
    for turn in 0..120 {
        let query = ask("a.test");
        let said =
            if turn % 2 == 0 { udp(served.address, &query) } else { tcp(served.address, &query.edns(1232)) };
        *seen.entry(order(&said)).or_default() += 1;
    }
    assert_eq!(upstream.asked().len(), 1);
    // One of the six is missing in less than one of 10^8 runs.
    assert_eq!(seen.len(), 6, "{seen:?}");
}

#[test]
fn without_it_the_upstreams_order_stays() {
    let upstream = Scripted::start(|asked| addresses(asked, 3));
    let served = Served::start(upstream.address, "");
    for _ in 0..12 {
        assert_eq!(order(&udp(served.address, &ask("a.test"))), [1, 2, 3]);
    }
}

/// Misses are shuffled too, and so are answers that are not kept.
#[test]
fn misses_have_an_order_of_their_own() {
    let upstream = Scripted::start(|asked| addresses(asked, 2));
    let served = Served::start(upstream.address, "loadbalance");
    let first = |turn| order(&udp(served.address, &ask(&format!("{turn}.test"))))[0];
    let ones = (0..60).filter(|turn| first(*turn) == 1).count();
    assert!((8..53).contains(&ones), "{ones}");
}

#[test]
fn what_is_cut_is_whole_and_not_always_the_same() {
    let upstream = Scripted::start(|asked| addresses(asked, 60));
    let served = Served::start(upstream.address, "loadbalance");
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..30 {
        let said = udp(served.address, &ask("a.test"));
        assert!(said.has(bit::TC) && said.octets.len() <= 512);
        seen.extend(order(&said));
    }
    assert!(seen.len() > 50, "{seen:?}");
    assert_eq!(order(&tcp(served.address, &ask("a.test"))).len(), 60);
}

#[test]
fn preferred_subnets_come_first() {
    let upstream = Scripted::start(|asked| addresses(asked, 9));
    let directives = "loadbalance {\n prefer 192.0.2.8/32 192.0.2.0/30\n }";
    let served = Served::start(upstream.address, directives);
    for _ in 0..20 {
        let order = order(&udp(served.address, &ask("a.test")));
        assert_eq!(order[0], 8);
        assert!(order[1..4].iter().all(|last| *last < 4), "{order:?}");
    }
}

/// As in the Corefiles of CoreDNS.
#[test]
fn one_address_is_no_work() {
    let upstream = Scripted::start(answer);
    let served = Served::start(upstream.address, "loadbalance");
    for _ in 0..2 {
        assert_eq!(udp(served.address, &ask("a.test")).section(1)[0].rdata, [192, 0, 2, 7]);
    }
}
