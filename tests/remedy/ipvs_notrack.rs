//! `remedy ipvs-notrack`. This kernel has no IPVS: a server on the ClusterIP stands in for it, and a
//! file for its table.

use std::net::IpAddr;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use doorstep::node::nftables::{Ownership, Table};
use doorstep::node::remedy::ipvs_notrack::{Config, IpvsNotrack, Shape, Sources};
use doorstep::node::remedy::{Refusal, Remedy, clean};
use doorstep::node::{Backend, Kept, Reconciler, Trigger};

use crate::common::netns::{eventually, isolated, run};
use crate::pod::{Pod, asks, serve};
use crate::{iptables_listing, nft_listing};

const VIP: &str = "10.96.0.10";
const VIP6: &str = "fd00:96::a";
const BALANCED: &str = "UDP  0A60000A:0035 rr\nUDP  [fd00:0096:0000:0000:0000:0000:0000:000a]:0035 rr\n";
const BACKENDS: [Backend; 2] = [Backend::Nftables, Backend::Iptables];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn config(backend: Option<Backend>) -> Config {
    Config {
        node_pods: vec!["10.244.0.0/24".parse().unwrap(), "fd00:244::/64".parse().unwrap()],
        pods: vec!["10.244.0.0/16".parse().unwrap(), "fd00:244::/48".parse().unwrap()],
        backend,
        ..Config::default()
    }
}

/// A file system in which IPVS balances both ClusterIPs.
fn balanced() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("proc/thread-self/net")).unwrap();
    balance(root.path(), BALANCED);
    root
}

fn balance(root: &Path, table: &str) {
    std::fs::write(root.join("proc/thread-self/net/ip_vs"), table).unwrap();
}

fn remedy(root: &Path, config: Config) -> IpvsNotrack {
    IpvsNotrack::new(config, Sources::new(root, |_| None)).unwrap()
}

/// Port 53's conntrack entries, after one query of the pod and one of the node to each ClusterIP.
fn entries(pod: &Pod) -> (usize, usize) {
    run("conntrack -F 2>/dev/null; conntrack -F -f ipv6 2>/dev/null");
    for vip in [VIP, VIP6] {
        assert!(pod.asks(ip(vip)), "the pod asks {vip}");
        assert!(asks(ip(vip)), "the node asks {vip}");
    }
    let all = run("conntrack -L -f ipv4 2>/dev/null; conntrack -L -f ipv6 2>/dev/null");
    // By the direction that made the entry: the answers of this stand-in come from the ClusterIP, and
    // leave one of their own.
    let asked =
        |line: &&str| line.split_whitespace().find(|word| word.starts_with("dport=")) == Some("dport=53");
    let dns: Vec<&str> = all.lines().filter(asked).collect();
    let of_pods =
        dns.iter().filter(|line| line.contains(" src=10.244.") || line.contains(" src=fd00:244:")).count();
    (of_pods, dns.len() - of_pods)
}

/// A node with a pod, tracking, and a server on both ClusterIPs.
fn node() -> Pod {
    run("nft 'table inet tracker { chain c { type filter hook input priority 0; ct state new counter; }; }'");
    for vip in [VIP, VIP6] {
        run(&format!("ip addr add {vip} dev lo"));
        eventually(|| std::net::UdpSocket::bind((ip(vip), 0)).is_ok());
        serve(ip(vip));
    }
    let pod = Pod::start(1);
    pod.reaches(ip(VIP));
    pod.reaches(ip(VIP6));
    pod
}

#[test]
fn pods_leave_no_entry_and_the_node_keeps_its_own() {
    for backend in BACKENDS {
        isolated(move || {
            let pod = node();
            let root = balanced();
            assert_eq!(entries(&pod), (2, 2));
            let mut remedy = remedy(root.path(), config(Some(backend)));
            assert!(remedy.reconcile().errors.is_empty());
            assert_eq!(entries(&pod), (0, 2), "{backend:?}");
            assert!(remedy.undo().is_empty());
            assert_eq!(entries(&pod), (2, 2), "{backend:?}");
        });
    }
}

#[test]
fn network_node_managers_rules_take_the_nodes_entries_too() {
    isolated(|| {
        let pod = node();
        let root = balanced();
        let config = Config { shape: Shape::NetworkNodeManager, ..config(None) };
        let mut remedy = remedy(root.path(), config);
        assert!(remedy.reconcile().errors.is_empty());
        assert_eq!(entries(&pod), (0, 0));
    });
}

#[test]
fn the_listing_afterwards_is_the_one_before() {
    for backend in BACKENDS {
        isolated(move || {
            run("iptables -t raw -A PREROUTING -s 192.0.2.1 -j ACCEPT; iptables -A FORWARD -s 192.0.2.1 -j DROP
                 ip6tables -A FORWARD -s fd01::1 -j DROP; nft add table inet other");
            let listing = || (iptables_listing(), nft_listing());
            let before = listing();
            let root = balanced();
            let mut remedy = remedy(root.path(), config(Some(backend)));
            assert!(remedy.reconcile().is_none());
            assert_ne!(listing(), before);
            assert!(remedy.reconcile().is_none(), "the second time nothing is touched");
            let started = Instant::now();
            assert!(remedy.undo().is_empty());
            let took = started.elapsed();
            assert!(took < Duration::from_millis(200), "{backend:?}: {took:?}");
            assert_eq!(listing(), before, "{backend:?}");
            assert!(remedy.undo().is_empty(), "a second time there is nothing to undo");
            assert_eq!(listing(), before, "{backend:?}");
        });
    }
}

#[test]
fn the_nftables_table_reads_well() {
    isolated(|| {
        let root = balanced();
        let mut remedy = remedy(root.path(), config(Some(Backend::Nftables)));
        remedy.reconcile();
        let listed = run("nft list table inet doorstep-ipvs-notrack");
        let listed: Vec<&str> = listed.lines().filter(|line| !line.contains("progname")).collect();
        insta::assert_snapshot!(listed.join("\n"));
    });
}

#[test]
fn a_killed_remedy_leaves_nothing_that_the_next_or_teardown_does_not_take() {
    isolated(|| {
        let root = balanced();
        let mut killed = remedy(root.path(), config(Some(Backend::Nftables)));
        killed.reconcile();
        drop(killed);
        eventually(|| run("nft list tables").is_empty());
        let mut killed = remedy(root.path(), config(Some(Backend::Iptables)));
        killed.reconcile();
        let left = iptables_listing();
        drop(killed);
        assert_eq!(iptables_listing(), left);
        // Somebody's hand in it makes no difference.
        run("iptables -t raw -A DOORSTEP-NOTRACK -j RETURN; iptables -t raw -A OUTPUT -j DOORSTEP-NOTRACK
             ip6tables -F FORWARD");
        assert_eq!(format!("{:?}", clean()), "[]");
        assert_eq!(iptables_listing(), [""; 0]);
        assert_eq!(format!("{:?}", clean()), "[]");
    });
    isolated(|| {
        let root = balanced();
        let mut killed = remedy(root.path(), config(Some(Backend::Iptables)));
        killed.reconcile();
        drop(killed);
        // The successor carries its rules elsewhere.
        let mut next = remedy(root.path(), config(Some(Backend::Nftables)));
        next.reconcile();
        assert_eq!(iptables_listing(), [""; 0]);
    });
}

#[test]
fn a_forward_chain_that_drops_gets_accepts_without_a_state() {
    isolated(|| {
        run("iptables -P FORWARD DROP; ip6tables -P FORWARD DROP
             iptables -A FORWARD -m conntrack --ctstate NEW,RELATED,ESTABLISHED -j ACCEPT
             ip6tables -A FORWARD -m conntrack --ctstate NEW,RELATED,ESTABLISHED -j ACCEPT
             ip6tables -A FORWARD -p ipv6-icmp -j ACCEPT");
        let (client, server) = (Pod::start(1), Pod::start(2));
        for address in [server.v4(), server.v6()] {
            eventually(|| server.run(move || std::net::UdpSocket::bind((address, 0)).is_ok()));
            server.run(move || serve(address));
            client.reaches(address);
        }
        let root = balanced();
        // With nftables forced, the answers have no state and nothing lets them through.
        let mut blocked = remedy(root.path(), config(Some(Backend::Nftables)));
        blocked.reconcile();
        assert!(!client.asks(server.v4()) && !client.asks(server.v6()));
        assert!(blocked.undo().is_empty());
        let mut remedy = remedy(root.path(), config(None));
        remedy.reconcile();
        assert!(iptables_listing().iter().any(|line| line.contains("DOORSTEP-FORWARD")));
        assert!(client.asks(server.v4()) && client.asks(server.v6()));
        assert!(remedy.undo().is_empty());
    });
}

#[test]
fn what_others_change_is_put_back_at_once() {
    isolated(|| {
        let root = balanced();
        let mut remedy = remedy(root.path(), config(Some(Backend::Iptables)));
        remedy.reconcile();
        let right = iptables_listing();
        let (sender, events) = channel();
        let reconciler = Reconciler::spawn(remedy, Duration::from_secs(3600), move |event| {
            let _ = sender.send(event);
        });
        let reconciler = reconciler.unwrap();
        for damage in
            ["iptables -t raw -F", "ip6tables -F DOORSTEP-FORWARD", "iptables -t raw -D PREROUTING 1"]
        {
            run(damage);
            let event = events.iter().find(|event| !event.drift.is_none()).unwrap();
            assert_eq!(event.trigger, Trigger::Notification);
            assert!(event.drift.errors.is_empty(), "{event:?}");
            let mut now = iptables_listing();
            let mut right = right.clone();
            now.sort();
            right.sort();
            assert_eq!(now, right, "after {damage}");
        }
        assert!(reconciler.stop().undo().is_empty());
        assert_eq!(iptables_listing(), [""; 0]);
    });
}

#[test]
fn without_ipvs_there_are_no_rules() {
    for backend in BACKENDS {
        isolated(move || {
            let root = balanced();
            let mut remedy = remedy(root.path(), config(Some(backend)));
            remedy.reconcile();
            balance(root.path(), "UDP  0A60000A:0035 rr\n");
            assert!(remedy.reconcile().is_none(), "{backend:?}");
            let listing = || run("nft list ruleset; iptables-save; ip6tables-save");
            assert!(listing().contains(VIP) && !listing().contains(VIP6), "{backend:?}");
            balance(root.path(), "");
            remedy.reconcile();
            assert!(!listing().contains(VIP), "{backend:?}: kube-proxy's DNAT would be cut off");
            balance(root.path(), BALANCED);
            remedy.reconcile();
            assert!(listing().contains(VIP) && listing().contains(VIP6), "{backend:?}");
            assert!(remedy.undo().is_empty());
        });
        let root = balanced();
        balance(root.path(), "TCP  0A60000A:0035 rr\n");
        let refused =
            IpvsNotrack::new(config(Some(backend)), Sources::new(root.path(), |_| None)).unwrap_err();
        assert!(matches!(refused, Refusal::NoVirtualServer { .. }), "{refused}");
        let unknown = IpvsNotrack::new(Config::default(), Sources::new(root.path(), |_| None)).unwrap_err();
        assert!(unknown.to_string().contains("-node-pod-cidr"), "{unknown}");
    }
}

#[test]
fn a_chain_of_anybody_that_drops_forwarded_packets_is_seen() {
    isolated(|| {
        let drops = || Table::open(Ownership::Plain).unwrap().forward_drops().unwrap();
        run("nft 'table inet quiet { chain f { type filter hook forward priority 0; policy accept; };
                 chain i { type filter hook input priority 0; policy drop; }; chain own { }; }'");
        assert_eq!(drops(), [""; 0]);
        run("nft 'table inet strict { chain f { type filter hook forward priority 0; policy drop; }; }'");
        assert_eq!(drops(), ["strict f"]);
    });
}
