//! Whatever ends or changes, pods get their answers: each event under a steady load from a pod, UDP and
//! TCP, hits and misses. Prints one table.
//!
//! `DOORSTEP_LIFE=long cargo test --release --test life -- --nocapture` repeats each event 100 times under
//! 20 000 hits and 500 misses a second; `benches/results/life.txt` is its output.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here fails the test")]

#[path = "../cluster/rig.rs"]
#[allow(dead_code, reason = "that suite uses all of it")]
mod rig;

mod events;
mod node;
mod table;
mod traffic;

use node::Node;
use rustix::process::Signal;
use table::{Row, Table};

/// How much of everything.
#[derive(Clone, Copy)]
pub struct Scale {
    /// Hits a second over UDP.
    pub hits: u32,
    /// Misses a second over UDP.
    pub misses: u32,
    /// How long kube-dns takes for each of those, as a name's first label.
    pub miss: &'static str,
    /// Times that an event is repeated.
    pub times: usize,
}

impl Scale {
    /// For loads that kube-dns itself has to bear while nobody caches: its stand-in here is no match for a
    /// cache. Whenever a path changes, some misses are under way on it.
    fn for_kube_dns() -> Scale {
        Scale { hits: 2_000, misses: 100, miss: "slow-30", times: 1 }
    }

    fn chosen() -> Scale {
        match std::env::var("DOORSTEP_LIFE").as_deref() {
            Ok("long") => Scale { hits: 20_000, misses: 500, miss: "slow-0", times: 100 },
            _ => Scale { hits: 2_000, misses: 100, miss: "slow-0", times: 5 },
        }
    }
}

/// What an event may cost.
#[derive(Clone, Copy)]
enum Bound {
    /// No query at all.
    Nothing,
    /// The batch in each dead worker's hands.
    Batches,
}

/// Does to a node under load what is to be survived; says how often.
type Event = fn(&mut Node, Scale) -> usize;

const EVENTS: [(&str, Bound, Event); 11] = [
    ("nothing", Bound::Nothing, events::nothing),
    ("reload", Bound::Nothing, events::reload),
    ("bad Corefile", Bound::Nothing, events::bad_corefile),
    ("worker killed", Bound::Batches, events::worker_killed),
    ("worker stopped", Bound::Batches, events::worker_stopped),
    ("worker dies again and again", Bound::Batches, events::worker_dies_again_and_again),
    ("worker cannot start", Bound::Batches, events::worker_cannot_start),
    ("upgrade", Bound::Nothing, events::upgrade),
    ("upgrade that fails", Bound::Nothing, events::upgrade_that_fails),
    ("upgrade, other thread count", Bound::Nothing, events::upgrade_with_other_threads),
    ("loop in one block", Bound::Nothing, events::loop_in_one_block),
];

/// A batch, and a connection.
const IN_HAND: usize = 32;

#[test]
fn whatever_happens_pods_are_answered() {
    let scale = Scale::chosen();
    let mut table = Table::default();
    for (name, bound, event) in EVENTS {
        let mut node = Node::start(&name.replace([' ', ','], ""));
        let (times, outcome) = node.under_load(scale, |node| event(node, scale));
        let lost = outcome.udp.lost() + outcome.tcp.lost();
        let row = Row { name, times, outcome };
        eprintln!("{}", table.add(&row));
        let allowed = match bound {
            Bound::Nothing => 0,
            Bound::Batches => times * IN_HAND,
        };
        assert!(lost <= allowed, "{name}: {lost} lost of at most {allowed}\n{}", node.log());
        if matches!(bound, Bound::Nothing) {
            node.hits_were_hits(name, times);
        }
        assert_eq!(row.outcome.wrong(), 0, "{name}: wrong answers\n{}", node.log());
        node.stop();
    }
    println!("{table}");
}

#[test]
fn the_guardians_death_leaves_the_cluster_ip_to_kube_proxy() {
    let scale = Scale::for_kube_dns();
    let mut node = Node::start("guardian");
    let (_, outcome) = node.under_load_at_the_cluster_ip(scale, events::guardian_killed);
    assert!(outcome.udp.longest.as_secs() < 3, "{:?}", outcome.udp.longest);
    let lost = outcome.udp.lost().saturating_sub(node.dropped_by_kube_dns());
    assert!(lost <= 2 * IN_HAND, "{lost} lost");
    println!("{}", Table::default().add(&Row { name: "guardian killed, ClusterIP", times: 1, outcome }));
    node.everybody_is_gone();
}

#[test]
fn an_upgrade_without_surge_leaves_the_cluster_ip_to_kube_proxy() {
    for (name, backend) in
        [("ended, started, nftables", "nftables"), ("ended, started, iptables", "iptables")]
    {
        let mut node = Node::start_with("gap", backend);
        let scale = Scale::for_kube_dns();
        let (_, outcome) = node.under_load_at_the_cluster_ip(scale, events::ended_then_started);
        let lost = [outcome.udp.lost().saturating_sub(node.dropped_by_kube_dns()), outcome.tcp.lost()];
        println!("{}", Table::default().add(&Row { name, times: 1, outcome }));
        assert_eq!(lost, [0, 0], "lost over UDP and TCP, {name}\n{}", node.log());
        node.stop();
    }
}

#[test]
fn the_end_answers_what_was_asked() {
    let node = Node::start("end");
    let slow = events::slow_queries(&node, 100);
    node.signal(Signal::TERM);
    assert_eq!(slow.stop().udp.lost(), 0);
    node.end();
}
