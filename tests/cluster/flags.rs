//! The flags that decide what is set up and what others hear of it.

use std::fs;

use doorstep::demo::Transport;
use doorstep::demo::network::{KUBE_DNS_VIP, NODE_LOCAL};

use super::rig::{Rig, TRANSPORTS};

#[test]
fn the_link_may_have_another_name() {
    let rig = Rig::new("name");
    let before = rig.listing();
    let daemon = rig.serve(&["-interfacename", "dns-cache0"]);
    let link = rig.node("ip -o address show dev dns-cache0");
    assert!(link.contains("169.254.20.10/32") && link.contains("10.96.0.10/32"), "{link}");
    rig.node_refuses("ip link show dev nodelocaldns");
    rig.everybody_resolves();
    rig.node("ip link delete dns-cache0");
    let back = || rig.node("ip -o address").contains("10.96.0.10/32");
    assert!(super::rig::eventually(super::rig::PATIENCE, back), "watched under that name");
    rig.everybody_resolves();
    daemon.stop();
    assert_eq!(rig.listing(), before);
}

/// The operator's addresses are the operator's to keep.
#[test]
fn without_setupinterface_addresses_of_others_serve_and_stay() {
    let rig = Rig::new("premade");
    rig.node("ip address add 169.254.20.10/32 dev lo; ip address add 10.96.0.10/32 dev lo");
    let before = rig.listing();
    let daemon = rig.serve(&["-setupinterface=false"]);
    rig.node_refuses("ip link show dev nodelocaldns");
    rig.everybody_resolves();
    rig.node("ip address delete 169.254.20.10/32 dev lo");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(rig.repairs("address"), 0);
    rig.node("ip address add 169.254.20.10/32 dev lo");
    rig.everybody_resolves();
    daemon.stop();
    assert_eq!(rig.listing(), before);
}

#[test]
fn without_setupiptables_no_rule_is_touched() {
    let rig = Rig::new("norules");
    rig.node("iptables -t raw -A OUTPUT -d 192.0.2.1 -j NOTRACK -m comment --comment 'NodeLocal DNS Cache: skip conntrack'");
    let (before, rules) = (rig.listing(), rig.iptables_rules());
    let daemon = rig.serve(&["-setupiptables=false"]);
    assert_eq!((rig.iptables_rules(), rig.has_table()), (rules, false));
    daemon.stop();
    assert_eq!(rig.listing(), before);
}

#[test]
fn the_pidfile_holds_the_pid_while_it_serves() {
    let rig = Rig::new("pid");
    let file = rig.path("pid");
    let daemon = rig.serve(&["-pidfile", &file]);
    let pid = daemon.pid().as_raw_nonzero().to_string();
    assert_eq!(fs::read_to_string(&file).expect("written before ready").trim(), pid);
    daemon.stop();
    assert!(!fs::exists(&file).expect("a look"));
}

/// `-localip` with the link-local address alone, as clusters with IPVS or Cilium run it.
#[test]
fn the_link_local_address_alone_leaves_the_cluster_ip_to_kube_proxy() {
    let rig = Rig::new("alone");
    let before = rig.listing();
    let daemon = rig.serve(&["-localip", "169.254.20.10"]);
    let start = rig.cluster.queries();
    for transport in TRANSPORTS {
        rig.resolves(rig.cluster.pod(), NODE_LOCAL, transport);
    }
    let miss = rig.cluster.queries().since(start);
    assert_eq!((miss.udp, miss.tcp), (0, 1));
    rig.resolves(rig.cluster.pod(), KUBE_DNS_VIP, Transport::Udp);
    assert_eq!(rig.cluster.queries().since(start).udp, 1);
    assert!(!rig.listing().contains("10.96.0.10/32"));
    daemon.stop();
    assert_eq!(rig.listing(), before);
}
