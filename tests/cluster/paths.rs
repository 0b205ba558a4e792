//! A pod's queries are answered and not tracked, whoever carries the rules.

use doorstep::demo::network::{KUBE_DNS, KUBE_DNS_VIP, NODE_LOCAL, POD};
use doorstep::demo::{Entry, QueryCounts, Transport, dns_entries, flush};

use super::rig::{ADDRESSES, PATIENCE, RULES, Rig, TRANSPORTS, ask};
use std::time::Duration;

/// Entries of everybody but the cache's own connections to kube-dns.
fn clients_entries(rig: &Rig) -> Vec<Entry> {
    let entries = dns_entries(rig.cluster.node()).expect("the table");
    let clients = |entry: &Entry| [NODE_LOCAL, KUBE_DNS_VIP, POD].iter().any(|end| entry.involves(*end));
    entries.into_iter().filter(clients).collect()
}

/// Everything that a pod and a host-network pod do, and what it leaves behind.
fn answered_and_untracked(rig: &Rig) {
    flush(rig.cluster.node()).expect("an empty table");
    let start = rig.cluster.queries();
    rig.resolves(rig.cluster.pod(), KUBE_DNS_VIP, Transport::Udp);
    let miss = rig.cluster.queries().since(start);
    assert_eq!(miss, QueryCounts { udp: 0, tcp: 1 }, "a miss goes up once, over TCP");

    rig.everybody_resolves();
    let hits = rig.cluster.queries().since(start);
    assert_eq!(hits, miss, "hits stay here");

    for (count, transport) in TRANSPORTS.into_iter().enumerate() {
        let name = format!("slow-1.{count}.cluster.local.");
        ask(rig.cluster.pod(), NODE_LOCAL.into(), &name, transport, PATIENCE).expect("an answer");
    }
    let misses = rig.cluster.queries().since(start);
    assert_eq!(misses, QueryCounts { udp: 0, tcp: 3 }, "a miss goes up over TCP, however it came");

    // The kubelet's probe of the health port is spared too.
    let health = rig.http_at(NODE_LOCAL, 8080, "/health").expect("a listener");
    assert_eq!(health, (200, "OK".to_owned()));

    assert_eq!(clients_entries(rig), []);
    let table = rig.node("conntrack -L");
    for end in [NODE_LOCAL, KUBE_DNS_VIP, POD] {
        assert!(!table.contains(&format!("={end} ")), "{table}");
    }
    // The table works: our own connection to kube-dns is in it.
    let upstream = |entry: &Entry| entry.tcp && table.contains(&KUBE_DNS.to_string());
    assert!(dns_entries(rig.cluster.node()).expect("the table").iter().any(upstream), "{table}");
}

#[test]
fn nftables_rules_spare_pods_the_tracking() {
    let rig = Rig::new("nft");
    let daemon = rig.serve(&["-rules-backend", "nftables"]);
    assert!(rig.has_table());
    assert_eq!(rig.commented_rules(), Vec::<String>::new());
    answered_and_untracked(&rig);
    daemon.stop();
}

#[test]
fn iptables_rules_spare_pods_the_tracking() {
    let rig = Rig::new("ipt");
    let daemon = rig.serve(&["-rules-backend", "iptables"]);
    assert!(!rig.has_table());
    assert_eq!(rig.commented_rules().len(), RULES * ADDRESSES.len());
    answered_and_untracked(&rig);
    daemon.stop();
}

/// The same with the other `iptables`, whose tables nftables knows nothing of.
#[test]
fn legacy_iptables_rules_spare_pods_the_tracking() {
    let rig = Rig::new("legacy");
    let mut daemon = rig.start_with_path(&["-rules-backend", "iptables"], Some(&rig.legacy_tools()));
    rig.wait_until_ready(&mut daemon);
    let saved = rig.node("iptables-legacy-save");
    assert_eq!(saved.matches("NodeLocal DNS Cache:").count(), RULES * ADDRESSES.len());
    answered_and_untracked(&rig);
    daemon.stop();
    assert!(!rig.node("iptables-legacy-save").contains("NodeLocal"));
}

/// What the tests above would see without our rules: every query tracked, and the ClusterIP's taken
/// to kube-dns past the cache.
#[test]
fn without_rules_everything_is_tracked_and_the_cluster_ip_is_bypassed() {
    let rig = Rig::new("bare");
    let daemon = rig.serve(&["-setupiptables=false"]);
    let start = rig.cluster.queries();
    for server in ADDRESSES {
        flush(rig.cluster.node()).expect("an empty table");
        for transport in TRANSPORTS {
            rig.resolves(rig.cluster.pod(), server, transport);
        }
        let entries = clients_entries(&rig);
        assert_eq!(entries.len(), 2, "{entries:?}");
        assert!(entries.iter().all(|entry| entry.source == POD && entry.destination == server));
    }
    assert_eq!(rig.cluster.queries().since(start).udp, 1);
    daemon.stop();
}

#[test]
fn of_itself_it_takes_nftables() {
    let rig = Rig::new("auto");
    let daemon = rig.serve(&[]);
    assert!(rig.has_table());
    assert!(daemon.log().contains("Nftables"), "{}", daemon.log());
    daemon.stop();
}

/// A firewall that drops what it does not know would drop DNS: an accept in a table of our own cannot
/// overrule it, one in the same chain can.
#[test]
fn where_a_firewall_drops_it_takes_iptables_and_gets_dns_through() {
    let rig = Rig::new("drop");
    rig.node("iptables -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT");
    rig.node("iptables -A INPUT -i lo -j ACCEPT; iptables -P INPUT DROP");
    let before = rig.listing();
    let daemon = rig.serve(&["-rules-backend", "nftables"]);
    assert!(!rig.pod_is_answered(NODE_LOCAL, Duration::from_millis(500)), "why iptables is needed");
    daemon.stop();

    let daemon = rig.serve(&[]);
    assert!(daemon.log().contains("the iptables INPUT policy is DROP"), "{}", daemon.log());
    assert!(!rig.has_table());
    answered_and_untracked(&rig);
    daemon.stop();
    assert_eq!(rig.listing(), before);
}

/// Both families at once. The cluster speaks IPv4, so IPv6 is asked from the node.
#[test]
fn ipv6_is_served_beside_ipv4_and_untracked() {
    let local = "fd00::53";
    let addresses = format!("{NODE_LOCAL},{KUBE_DNS_VIP},{local}");
    let server: std::net::IpAddr = local.parse().expect("an address");
    let tracked = |rig: &Rig| {
        let entries = dns_entries(rig.cluster.node()).expect("the table");
        entries.iter().filter(|entry| entry.involves(server)).count()
    };
    for backend in ["nftables", "iptables", "none"] {
        let rig = Rig::new(&format!("six{}", &backend[..3]));
        // IPv6 is only tracked where some rule asks for it.
        rig.node("ip6tables -A INPUT -m conntrack --ctstate NEW");
        let before = rig.listing();
        let rules: &[&str] = match backend {
            "none" => &["-setupiptables=false"],
            _ => &["-rules-backend", backend],
        };
        let daemon = rig.serve(&[&["-localip", &addresses], rules].concat());
        let link = rig.node("ip -6 address show dev nodelocaldns");
        assert!(link.contains("fd00::53/128") && !link.contains("tentative"), "{link}");
        flush(rig.cluster.node()).expect("an empty table");
        for transport in TRANSPORTS {
            rig.resolves(rig.cluster.node(), server, transport);
        }
        match backend {
            "none" => assert_eq!(tracked(&rig), 2, "the control"),
            _ => assert_eq!(tracked(&rig), 0, "{}", rig.node("conntrack -L -f ipv6")),
        }
        if backend == "iptables" {
            assert_eq!(rig.commented_rules().len(), RULES * 3);
            assert_eq!(rig.node("ip6tables-save").matches("NodeLocal DNS Cache:").count(), RULES);
        }
        if backend != "none" {
            answered_and_untracked_v4(&rig);
        }
        daemon.stop();
        assert_eq!(rig.listing(), before, "{backend}");
    }
}

/// IPv4 goes on as ever while IPv6 is there too.
fn answered_and_untracked_v4(rig: &Rig) {
    rig.everybody_resolves();
    assert_eq!(clients_entries(rig), []);
}
