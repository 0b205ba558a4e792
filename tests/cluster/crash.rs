//! SIGKILL at full service, and the start after it.
//!
//! What is left when nobody could clean up: the link with both addresses, and with iptables the rules.
//! What a pod sees until the next start (found here, in the running kernel):
//!
//! | | pod, ClusterIP | pod, 169.254.20.10 | node, ClusterIP |
//! |---|---|---|---|
//! | nftables | kube-dns, through kube-proxy's DNAT, at once | refused at once | kube-dns |
//! | iptables | refused at once | refused at once | refused |
//!
//! nftables: the kernel took the table away with its owner. A ClusterIP that is still a local address
//! does no harm then: DNAT in PREROUTING and OUTPUT comes before the packet is delivered. iptables:
//! the notrack rules stay, so DNAT never sees the packet, and nobody listens.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use doorstep::demo::network::{KUBE_DNS_VIP, NODE_LOCAL};
use doorstep::demo::{DemoError, Namespace, Transport};

use super::rig::{ADDRESSES, KUBERNETES, RULES, Rig, TRANSPORTS, ask, eventually};

/// A pod may be without DNS for this long.
const GAP: Duration = Duration::from_secs(1);

fn is_refused(from: &Namespace, server: std::net::Ipv4Addr, transport: Transport) -> bool {
    match ask(from, server.into(), KUBERNETES, transport, GAP) {
        Err(DemoError::Query { source, .. }) => source.kind() == ErrorKind::ConnectionRefused,
        _ => false,
    }
}

fn addresses_are_left(rig: &Rig) {
    let link = rig.node("ip -o address show dev nodelocaldns");
    assert!(ADDRESSES.iter().all(|address| link.contains(&format!("{address}/32"))), "{link}");
}

#[test]
fn with_nftables_the_cluster_ip_falls_back_to_kube_dns_at_once() {
    let rig = Rig::new("killnft");
    let before = rig.listing();
    let daemon = rig.serve(&["-rules-backend", "nftables"]);
    rig.everybody_resolves();
    let start = rig.cluster.queries();
    let killed = Instant::now();
    daemon.kill();
    assert!(eventually(GAP, || !rig.has_table()), "the table outlived its owner");
    assert!(rig.pod_is_answered(KUBE_DNS_VIP, GAP));
    assert!(killed.elapsed() < GAP, "{:?}", killed.elapsed());
    addresses_are_left(&rig);
    for from in [rig.cluster.pod(), rig.cluster.node()] {
        for transport in TRANSPORTS {
            rig.resolves(from, KUBE_DNS_VIP, transport);
            assert!(is_refused(from, NODE_LOCAL, transport), "not dropped: a resolver goes on at once");
        }
    }
    let upstream = rig.cluster.queries().since(start);
    assert_eq!((upstream.udp, upstream.tcp), (3, 2));

    let daemon = rig.serve(&["-rules-backend", "nftables"]);
    rig.everybody_resolves();
    assert!(rig.has_table());
    daemon.stop();
    assert_eq!(rig.listing(), before);
}

#[test]
fn with_iptables_dns_is_refused_until_the_next_start() {
    let rig = Rig::new("killipt");
    let before = rig.listing();
    let daemon = rig.serve(&["-rules-backend", "iptables"]);
    let rules = rig.iptables_rules();
    daemon.kill();
    assert_eq!(rig.iptables_rules(), rules);
    addresses_are_left(&rig);
    for from in [rig.cluster.pod(), rig.cluster.node()] {
        for server in ADDRESSES {
            assert!(TRANSPORTS.iter().all(|transport| is_refused(from, server, *transport)), "{server}");
        }
    }

    let daemon = rig.serve(&["-rules-backend", "iptables"]);
    assert_eq!(rig.iptables_rules(), rules, "taken over, none twice");
    assert_eq!(rig.repairs("rule"), 0);
    rig.everybody_resolves();
    daemon.kill();
    // The next one may choose otherwise.
    let daemon = rig.serve(&["-rules-backend", "nftables"]);
    assert_eq!(rig.commented_rules(), Vec::<String>::new());
    rig.everybody_resolves();
    daemon.stop();
    assert_eq!(rig.listing(), before);
}

#[test]
fn killed_again_and_again_nothing_piles_up() {
    let rig = Rig::new("killall");
    let before = rig.listing();
    for backend in ["nftables", "iptables", "iptables", "nftables", "nftables", "iptables"] {
        rig.serve(&["-rules-backend", backend]).kill();
        assert!(rig.commented_rules().len() <= RULES * ADDRESSES.len());
    }
    // Also by a start that was itself cut short.
    for milliseconds in (5..80).step_by(15) {
        let daemon = rig.start(&["-rules-backend", "iptables"]);
        std::thread::sleep(Duration::from_millis(milliseconds));
        daemon.kill();
    }
    let daemon = rig.serve(&["-rules-backend", "iptables"]);
    assert_eq!(rig.commented_rules().len(), RULES * ADDRESSES.len());
    rig.everybody_resolves();
    daemon.stop();
    assert_eq!(rig.listing(), before);
}

/// What node-cache 1.26 leaves after SIGKILL: its link, without our mark on it, and its rules. As with it, what is
/// there already is left as it is.
pub fn leave_as_node_cache(rig: &Rig) {
    // A bridge stands in for the dummy where the kernel has none; nobody looks at the kind.
    rig.node(
        "ip link show nodelocaldns >/dev/null 2>&1 || ip link add nodelocaldns type dummy 2>/dev/null \
         || ip link add nodelocaldns type bridge",
    );
    for address in ADDRESSES {
        rig.node(&format!("ip address replace {address}/32 dev nodelocaldns"));
        let (skip, allow) = ("NodeLocal DNS Cache: skip conntrack", "NodeLocal DNS Cache: allow DNS traffic");
        let rule = |table: &str, chain: &str, matches: &str, target: &str, comment: &str| {
            let rule = format!("{matches} -j {target} -m comment --comment '{comment}'");
            let tool = format!("iptables -w -t {table}");
            rig.node(&format!("{tool} -C {chain} {rule} 2>/dev/null || {tool} -I {chain} 1 {rule}"));
        };
        for protocol in ["tcp", "udp"] {
            let to = format!("-p {protocol} -d {address} --dport 53");
            let from = format!("-p {protocol} -s {address} --sport 53");
            rule("raw", "PREROUTING", &to, "NOTRACK", skip);
            rule("filter", "INPUT", &to, "ACCEPT", allow);
            rule("raw", "OUTPUT", &from, "NOTRACK", skip);
            rule("filter", "OUTPUT", &from, "ACCEPT", allow);
            rule("raw", "OUTPUT", &to, "NOTRACK", skip);
        }
        rule("raw", "OUTPUT", &format!("-p tcp -d {address} --dport 8080"), "NOTRACK", skip);
        rule("raw", "OUTPUT", &format!("-p tcp -s {address} --sport 8080"), "NOTRACK", skip);
    }
    assert_eq!(rig.commented_rules().len(), RULES * ADDRESSES.len());
}

#[test]
fn what_node_cache_left_is_taken_over_and_removed_at_the_end() {
    let rig = Rig::new("leftover");
    let before = rig.listing();
    for backend in ["iptables", "nftables"] {
        leave_as_node_cache(&rig);
        let rules = rig.iptables_rules();
        let daemon = rig.serve(&["-rules-backend", backend]);
        rig.everybody_resolves();
        match backend {
            "iptables" => assert_eq!(rig.iptables_rules(), rules, "they are the very rules we want"),
            _ => assert_eq!(rig.commented_rules(), Vec::<String>::new()),
        }
        assert_eq!(rig.has_table(), backend == "nftables");
        daemon.stop();
        assert_eq!(rig.listing(), before, "{backend}");
    }
}

/// On a slow node. The worker speaks up meanwhile, and is heard.
#[test]
fn time_spent_on_what_node_cache_left_is_no_silence_of_the_worker() {
    let rig = Rig::new("slowtools");
    leave_as_node_cache(&rig);
    let tools = rig.path("tools");
    fs::create_dir(&tools).expect("a directory");
    for tool in ["iptables", "iptables-save", "iptables-restore"] {
        let slow = format!("#!/bin/sh\nsleep 0.3\nexec /usr/sbin/{tool} \"$@\"\n");
        let path = format!("{tools}/{tool}");
        fs::write(&path, slow).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
    }
    let mut daemon = rig.start_with_path(&["-rules-backend", "nftables"], Some(&tools));
    rig.wait_until_ready(&mut daemon);
    assert_eq!(rig.commented_rules(), Vec::<String>::new());
    std::thread::sleep(Duration::from_millis(500));
    let log = daemon.log();
    assert!(!log.contains("is started"), "another worker:\n{log}");
    assert!(log.contains("24 leftover rules deleted"), "one by one:\n{log}");
    daemon.stop();
}

/// Only some of it, as after a SIGKILL in the middle of node-cache's teardown.
#[test]
fn half_of_what_node_cache_left_is_completed() {
    let rig = Rig::new("halfleft");
    let before = rig.listing();
    leave_as_node_cache(&rig);
    rig.node(
        "iptables -F INPUT; iptables -t raw -D OUTPUT 3; ip address delete 10.96.0.10/32 dev nodelocaldns",
    );
    let daemon = rig.serve(&["-rules-backend", "iptables"]);
    assert_eq!(rig.commented_rules().len(), RULES * ADDRESSES.len());
    rig.everybody_resolves();
    daemon.stop();
    assert_eq!(rig.listing(), before);
}
