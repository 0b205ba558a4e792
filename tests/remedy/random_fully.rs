//! `remedy random-fully` beside rules as kube-proxy, CNI plugins and others write them.

use std::net::{IpAddr, UdpSocket};
use std::sync::mpsc::channel;
use std::time::Duration;

use doorstep::node::remedy::random_fully::{Found, RandomFully, lacking, report};
use doorstep::node::remedy::{Remedy, clean};
use doorstep::node::{Kept, Reconciler};

use crate::common::netns::{isolated, run};
use crate::common::race::{self, Racers};
use crate::pod::Pod;
use crate::{iptables_listing, nft_listing};

/// Two rules in iptables that lack the flag, one that has it; one in ip6tables; two of three in nftables.
fn rules() {
    run("iptables -t nat -N KUBE-POSTROUTING; iptables -t nat -A POSTROUTING -j KUBE-POSTROUTING
         iptables -t nat -A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -m comment --comment 'cni \"x\"' -j MASQUERADE
         iptables -t nat -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
         iptables -t nat -A KUBE-POSTROUTING -p udp -j MASQUERADE --to-ports 1024-2047
         iptables -t nat -A POSTROUTING -s 192.0.2.0/24 -j MASQUERADE --random-fully
         ip6tables -t nat -A POSTROUTING -s fd00::/8 -j MASQUERADE");
    run("nft 'table inet flannel { set local { type ipv4_addr; elements = { 10.244.0.1 }; };
            chain post { type nat hook postrouting priority srcnat;
                ip saddr @local counter masquerade
                ip saddr 10.245.0.0/16 ip daddr != 10.245.0.0/16 masquerade comment \"pods\"
                ip saddr 10.246.0.0/16 masquerade fully-random; }; }'");
}

#[test]
fn every_rule_without_the_flag_is_reported() {
    isolated(|| {
        assert_eq!(lacking().unwrap(), Found::default());
        rules();
        let found = lacking().unwrap();
        assert_eq!(found.lacking.len(), 5, "{found:#?}");
        let text = report(&found);
        for part in
            ["5 MASQUERADE", "iptables: KUBE-POSTROUTING -p udp", "ip6tables: POSTROUTING", "inet flannel"]
        {
            assert!(text.contains(part), "{text}");
        }
    });
}

#[test]
fn ours_stand_before_theirs_and_go() {
    isolated(|| {
        rules();
        let listing = || (iptables_listing(), nft_listing());
        let before = listing();
        let mut remedy = RandomFully::new();
        assert!(remedy.reconcile().is_none());
        let (iptables, nft) = listing();
        let after = |first: &str| {
            let at =
                iptables.iter().position(|line| line.contains("remedy random-fully") && line.contains(first));
            iptables[at.unwrap_or_else(|| panic!("{first}: {iptables:#?}")) + 1].clone()
        };
        assert!(after("-p udp").ends_with("-p udp -j MASQUERADE --to-ports 1024-2047"));
        assert!(after("cni").ends_with("-j MASQUERADE"));
        assert!(after("fd00::/8").ends_with("fd00::/8 -j MASQUERADE"));
        let ours: Vec<&str> = nft.lines().filter(|line| line.contains("remedy random-fully")).collect();
        assert_eq!(ours.len(), 2, "{nft}");
        assert!(ours[0].contains("ip saddr @local masquerade fully-random"), "{nft}");
        assert!(ours[1].contains("ip daddr != 10.245.0.0/16 masquerade fully-random"), "{nft}");
        assert!(remedy.reconcile().is_none());
        assert_eq!(listing(), (iptables, nft), "the second time nothing is touched");
        assert_eq!(format!("{:?}", remedy.undo()), "[]");
        assert_eq!(listing(), before);
    });
}

/// What distributions' nftables.conf calls `ip nat` is not iptables' table of that name.
#[test]
fn a_table_that_is_called_nat_and_a_range_of_ports() {
    isolated(|| {
        run("nft 'table ip nat { chain postrouting { type nat hook postrouting priority srcnat;
                ip saddr 10.9.0.0/16 masquerade; meta l4proto udp masquerade to :1024-2047; }; }'");
        let listing = || run("nft list table ip nat");
        let before = listing();
        assert_eq!(lacking().unwrap().lacking.len(), 2, "{:?}", lacking());
        let mut remedy = RandomFully::new();
        assert!(remedy.reconcile().is_none());
        let after = listing();
        let ours: Vec<&str> = after.lines().filter(|line| line.contains("remedy random-fully")).collect();
        assert_eq!(ours.len(), 2, "{after}");
        assert!(ours[1].contains("masquerade to :1024-2047 fully-random"), "{after}");
        assert!(remedy.reconcile().is_none());
        assert_eq!(listing(), after, "the second time nothing is touched");
        assert!(remedy.undo().is_empty());
        assert_eq!(listing(), before);
    });
}

#[test]
fn kube_proxys_rewrites_are_followed() {
    isolated(|| {
        rules();
        let mut remedy = RandomFully::new();
        assert!(remedy.reconcile().is_none());
        let (sender, events) = channel();
        let reconciler = Reconciler::spawn(remedy, Duration::from_secs(3600), move |event| {
            let _ = sender.send(event);
        });
        // As kube-proxy writes its chain anew.
        run("printf '*nat\n:KUBE-POSTROUTING - [0:0]\n-A KUBE-POSTROUTING -j MASQUERADE\nCOMMIT\n' |
             iptables-restore --noflush");
        let event = events.iter().find(|event| event.drift.rules > 0).unwrap();
        assert!(event.drift.errors.is_empty(), "{event:?}");
        let rules = run("iptables -t nat -S KUBE-POSTROUTING");
        assert_eq!(rules.matches("random-fully").count(), 2, "{rules}");
        run("nft flush chain inet flannel post");
        drop(reconciler);
        // A killed remedy's rules are found by their comment.
        assert!(iptables_listing().iter().any(|line| line.contains("remedy random-fully")));
        assert_eq!(format!("{:?}", clean()), "[]");
        assert!(!iptables_listing().iter().any(|line| line.contains("remedy random-fully")));
    });
}

/// Two pods that use one port toward a server outside the cluster; pairs of queries that lost an answer.
fn collisions(pods: [&Pod; 2], outside: IpAddr, first_port: u16, pairs: u16) -> (usize, u64) {
    run("conntrack -F 2>/dev/null");
    let before = race::counters()["insert_failed"];
    let racers = Racers::start();
    let lost = (0..pairs).map(|number| {
        let sockets = pods.map(|pod| {
            let address = (pod.v4(), first_port + number);
            pod.run(move || {
                let socket = UdpSocket::bind(address).unwrap();
                socket.connect((outside, 53)).unwrap();
                socket
            })
        });
        race::lost_of_two(&racers, [&sockets[0], &sockets[1]], number, Duration::from_millis(200))
    });
    (lost.sum(), race::counters()["insert_failed"] - before)
}

#[test]
fn two_pods_with_one_port_collide_without_the_flag_and_not_with_it() {
    for masquerade in [
        "iptables -t nat -A POSTROUTING -s 10.244.0.0/24 -d 10.244.0.14 -j MASQUERADE",
        "nft 'table ip cni { chain post { type nat hook postrouting priority srcnat;
             ip saddr 10.244.0.0/24 ip daddr 10.244.0.14 masquerade; }; }'",
    ] {
        isolated(move || {
            let (one, two, outside) = (Pod::start(1), Pod::start(2), Pod::start(4));
            let address = outside.v4();
            outside.run(move || race::serve(1, address));
            run(masquerade);
            one.reaches(address);
            two.reaches(address);
            let (lost, failed) = collisions([&one, &two], address, 20_000, 150);
            println!("without: {lost} lost, {failed} insert_failed, of 150 pairs");
            assert!(lost > 0 && failed > 0, "{lost} lost, {failed} insert_failed");
            let mut remedy = RandomFully::new();
            assert!(remedy.reconcile().is_none());
            let (lost, failed) = collisions([&one, &two], address, 30_000, 500);
            println!("with: {lost} lost, {failed} insert_failed, of 500 pairs");
            assert_eq!((lost, failed), (0, 0));
            assert!(remedy.undo().is_empty());
        });
    }
}
