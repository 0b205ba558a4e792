//! The query pair that this project is about: A and AAAA at once, by two threads, from one socket.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use doorstep::demo::network::{KUBE_DNS_VIP, NODE_LOCAL, POD};
use doorstep::demo::race::{Expected, Origin, Pairs, Race, Subject, Tally};
use doorstep::demo::{Statistics, dns_entries, flush};

use super::rig::{KUBERNETES, Rig};

const PAIRS: u64 = 300;

/// What became of the pod's pairs at the servers.
fn race(rig: &Rig, servers: &[Ipv4Addr], name: &dyn Fn(u64) -> String) -> Tally {
    let servers: Vec<SocketAddr> = servers.iter().map(|server| (*server, 53).into()).collect();
    let pairs = Pairs {
        origin: Origin::TwoThreads(rig.cluster.pod()),
        servers: &servers,
        count: PAIRS,
        pace: Duration::ZERO,
        subject: &|number| Subject { name: name(number), expected: Expected::NoError },
    };
    let mut race = Race::start().expect("two threads");
    race.run(&pairs, &|| Ok(())).expect("sent");
    race.finish(&|| Ok(())).expect("waited").remove(0)
}

/// With the rules of either backend nothing is tracked, and so nothing clashes.
#[test]
fn no_pair_loses_an_answer_or_clashes() {
    for backend in ["nftables", "iptables"] {
        let rig = Rig::new(&format!("pairs-{}", &backend[..3]));
        let daemon = rig.serve(&["-rules-backend", backend]);
        flush(rig.cluster.node()).expect("an empty table");
        let before = Statistics::of(rig.cluster.node()).expect("counters");
        let hits = race(&rig, &[NODE_LOCAL, KUBE_DNS_VIP], &|_| KUBERNETES.to_owned());
        assert_eq!((hits.lost, hits.latencies.len() as u64), (0, 2 * PAIRS), "{}", daemon.log());
        let misses = race(&rig, &[NODE_LOCAL], &|number| format!("slow-0.{number}.cluster.local."));
        assert_eq!(misses.lost, 0, "{}", daemon.log());
        let counted = Statistics::of(rig.cluster.node()).expect("counters").since(before);
        let nothing = Statistics { clash_resolve: Some(0), ..Statistics::default() };
        assert_eq!(counted, nothing, "{backend}");
        let entries = dns_entries(rig.cluster.node()).expect("the table");
        assert!(entries.iter().all(|entry| entry.tcp && !entry.involves(POD)), "{entries:?}");
        // 600 misses went over a few connections at a time, replaced as they wore out: 16 in a second.
        assert!(entries.len() < 60, "{entries:?}");
        daemon.stop();
    }
}

/// What the same pairs leave where nobody is in between.
#[test]
fn without_us_every_pair_is_tracked() {
    let rig = Rig::new("plain");
    flush(rig.cluster.node()).expect("an empty table");
    race(&rig, &[KUBE_DNS_VIP], &|_| KUBERNETES.to_owned());
    assert!(dns_entries(rig.cluster.node()).expect("the table").len() as u64 > PAIRS / 2);
}
