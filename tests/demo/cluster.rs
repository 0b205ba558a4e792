//! The cluster does what a real one does, and leaves nothing.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use doorstep::demo::network::{KUBE_DNS, KUBE_DNS_PODS, KUBE_DNS_VIP, NODE, POD, UPSTREAM_VIP};
use doorstep::demo::{
    Cluster, DemoError, Masquerade, Namespace, ServiceRules, Shape, Transport, dns_entries, flush,
    notrack_rules,
};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::{KUBERNETES, ask, assert_gone, config, dns, links, mounts, names, up};

#[test]
fn a_pod_resolves_through_the_cluster_ip_and_leaves_conntrack_entries() {
    let cluster = up("vip");
    flush(cluster.node()).expect("an empty table");
    for transport in [Transport::Udp, Transport::Tcp] {
        let answer = ask(&cluster, KUBERNETES, RecordType::A, transport);
        assert_eq!(answer.code(), ResponseCode::NoError);
        assert_eq!(answer.addresses(), [Ipv4Addr::new(10, 96, 0, 1)]);
        assert_eq!(answer.ttl(), Some(30));
    }
    let mut protocols = Vec::new();
    for entry in dns_entries(cluster.node()).expect("the table") {
        assert_eq!(entry.source, POD);
        assert_eq!(entry.destination, KUBE_DNS_VIP);
        protocols.push(entry.tcp);
    }
    protocols.sort_unstable();
    assert_eq!(protocols, [false, true]);
    let seen = cluster.queries();
    assert_eq!((seen.udp, seen.tcp), (1, 1));

    flush(cluster.node()).expect("an empty table");
    assert_eq!(dns_entries(cluster.node()).expect("the table"), []);
}

#[test]
fn kube_dns_answers_as_a_cluster_does() {
    let cluster = up("names");
    let udp = |name, record_type| ask(&cluster, name, record_type, Transport::Udp);

    let headless = udp("web.default.svc.cluster.local.", RecordType::A);
    assert_eq!(headless.addresses().len(), 3);

    let no_data = udp(KUBERNETES, RecordType::AAAA);
    assert_eq!(no_data.code(), ResponseCode::NoError);
    assert!(no_data.message.answers.is_empty());

    let no_name = udp("no.such.svc.cluster.local.", RecordType::A);
    assert_eq!(no_name.code(), ResponseCode::NXDomain);
    let authority = &no_name.message.authorities;
    assert_eq!(authority[0].record_type(), RecordType::SOA);

    let slow = udp("slow-150.x.cluster.local.", RecordType::A);
    assert!(slow.elapsed >= Duration::from_millis(150));

    let foreign = udp("example.com.", RecordType::A);
    assert_eq!(foreign.code(), ResponseCode::Refused);
    let failing = udp("servfail.x.cluster.local.", RecordType::A);
    assert_eq!(failing.code(), ResponseCode::ServFail);
}

/// Which of kube-dns's pods the first packet of each of many flows was sent to.
fn endpoints_used(cluster: &Cluster) -> BTreeSet<String> {
    flush(cluster.node()).expect("an empty table");
    for _ in 0..40 {
        ask(cluster, KUBERNETES, RecordType::A, Transport::Udp);
    }
    let mut command = cluster.node().command("conntrack");
    let table = command.args(["-L", "-p", "udp"]).output().expect("conntrack");
    let table = String::from_utf8(table.stdout).expect("text");
    let replies = table.lines().filter_map(|line| line.split("src=").nth(2)?.split(' ').next());
    replies.map(str::to_owned).collect()
}

/// Either shape of the Service rules uses every endpoint it is given, over UDP and TCP, and the next rules
/// take the place of the last.
#[test]
fn service_rules_of_either_shape_spread_queries() {
    let cluster = up("shapes");
    let all: BTreeSet<String> = KUBE_DNS_PODS.iter().map(Ipv4Addr::to_string).collect();
    assert_eq!(endpoints_used(&cluster), BTreeSet::from([KUBE_DNS.to_string()]));
    for shape in Shape::ALL {
        let rules = ServiceRules { shape, endpoints: 3, ..ServiceRules::default() };
        cluster.set_service_rules(rules).expect("rules");
        assert_eq!(endpoints_used(&cluster), all, "{shape:?}");
        assert_eq!(ask(&cluster, KUBERNETES, RecordType::A, Transport::Tcp).code(), ResponseCode::NoError);

        let masquerade = Masquerade::EveryoneKeepingPorts;
        cluster.set_service_rules(ServiceRules { masquerade, ..rules }).expect("rules");
        let whoami = ask(&cluster, "whoami.cluster.local.", RecordType::TXT, Transport::Udp);
        let whoami = whoami.message.answers[0].data.to_string();
        assert!(whoami.starts_with(&format!("udp {NODE}:")), "{shape:?}: {whoami}");
    }
}

/// kube-proxy leaves a pod's address alone; everybody else reaches kube-dns as the node.
#[test]
fn only_the_node_is_masqueraded() {
    let cluster = up("masq");
    let whoami = "whoami.cluster.local.";
    let pod = ask(&cluster, whoami, RecordType::TXT, Transport::Tcp);
    let pod = pod.message.answers[0].data.to_string();
    assert!(pod.starts_with(&format!("tcp {POD}:")), "{pod}");

    let mut command = cluster.node().command("ip");
    let added = command.args(["address", "add", "198.51.100.7/32", "dev", "lo"]);
    assert!(added.status().expect("ip").success());
    let mut command = cluster.node().command("dig");
    let server = format!("@{UPSTREAM_VIP}");
    let dig = command.args(["-b", "198.51.100.7", &server, "+short", "whoami.cluster.local", "TXT"]);
    let node = String::from_utf8(dig.output().expect("dig").stdout).expect("text");
    assert!(node.starts_with(&format!("\"udp {NODE}:")), "{node}");
}

#[test]
fn notrack_rules_of_iptables_are_counted() {
    let cluster = up("raw");
    let mut command = cluster.node().command("iptables");
    let rule = "-t raw -A OUTPUT -d 10.96.0.10 -p udp --dport 53 -j CT --notrack";
    let added = command.args(rule.split(' ')).status();
    assert!(added.expect("iptables").success());
    // Nobody listens there and nothing rewrites it any more: only the rule sees the query.
    let send = || UdpSocket::bind("0.0.0.0:0")?.send_to(b"?", dns(KUBE_DNS_VIP));
    cluster.node().run(send).expect("entered").expect("sent");
    let found = notrack_rules(cluster.node()).expect("the rules");
    assert_eq!((found.rules, found.packets), (1, Some(1)));
}

#[test]
fn commands_and_closures_run_inside() {
    let cluster = up("inside");
    let mut command = cluster.pod().command("cat");
    let devices = command.arg("/proc/net/dev").output().expect("cat");
    let devices = String::from_utf8_lossy(&devices.stdout).into_owned();
    assert!(devices.contains("eth0:"), "{devices}");
    let bind = |address| move || UdpSocket::bind((address, 0)).is_ok();
    assert!(cluster.node().run(bind(NODE)).expect("entered"));
    assert!(!cluster.pod().run(bind(NODE)).expect("entered"));
    assert!(cluster.kube_dns().run(bind(KUBE_DNS)).expect("entered"));
}

#[test]
fn one_prefix_is_one_cluster() {
    let cluster = up("claim");
    let second = Cluster::up(&config("claim"));
    assert!(matches!(second, Err(DemoError::Busy(_))), "{second:?}");
    drop(cluster);
    drop(up("claim"));
}

#[test]
fn teardown_leaves_nothing() {
    let before = links();
    let prefix = config("down").prefix;
    let cluster = up("down");
    assert_eq!(names(&prefix).len(), 4);
    assert_eq!(mounts(&prefix).len(), 4);
    drop(cluster);
    assert_gone(&prefix);
    assert_eq!(links(), before);
}

#[test]
fn what_a_killed_run_left_is_replaced() {
    let prefix = config("stale").prefix;
    let stale = Namespace::create(&format!("{prefix}-pod")).expect("a namespace");
    std::mem::forget(stale);
    fs::write(format!("/run/netns/{prefix}-node"), "").expect("a name without a mount");
    let cluster = up("stale");
    let answer = ask(&cluster, KUBERNETES, RecordType::A, Transport::Udp);
    assert_eq!(answer.code(), ResponseCode::NoError);
    drop(cluster);
    assert_gone(&prefix);
}
