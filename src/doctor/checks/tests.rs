use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::super::facts::*;
use super::super::{diagnose, exit_status};
use super::*;
use crate::node;
use crate::node::rules::{Chain, Protocol, RuleSet, Table, Verdict};

const LINK_LOCAL: &str = "169.254.20.10";
const VIP: &str = "10.96.0.10";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn rules(addresses: &[&str], nftables: bool) -> Vec<LiveRule> {
    let config = node::Config {
        local_ips: addresses.iter().map(|text| ip(text)).collect(),
        interface: "nodelocaldns".into(),
        setup_interface: true,
        setup_rules: true,
        backend: None,
        sync_interval: Duration::ZERO,
        dns_port: 53,
        health_port: 8080,
    };
    RuleSet::new(&config).rules().iter().map(|&rule| LiveRule { rule, nftables, packets: 7 }).collect()
}

fn listener(protocol: Protocol, address: &str, port: u16, owner: (u32, &str)) -> Listener {
    let owner = Some((owner.0, owner.1.to_owned()));
    Listener { protocol, address: ip(address), port, owner }
}

fn sample() -> Sample {
    Sample {
        conntrack: Some(Conntrack {
            clash_resolve: Some(9),
            insert_failed: 3,
            drop: 3,
            early_drop: 1,
            count: 100,
            max: 1000,
        }),
        udp: Some(Udp { no_ports: 5, receive_buffer_errors: 5, checksum_errors: 5 }),
        pods: [20, 21].map(|pid| (pid, Udp { no_ports: 4, checksum_errors: 4, ..Udp::default() })).into(),
        spared: 10,
        lock_holder: None,
    }
}

fn link(name: &str) -> Link {
    Link { name: name.into(), mtu: 1500, is_up: true, ..Link::default() }
}

/// kube-proxy in iptables mode, Doorstep on both addresses with all its rules, one pod that asks it.
fn healthy() -> Facts {
    let doorstep = (10, "doorstep");
    let sockets = [LINK_LOCAL, VIP].into_iter().flat_map(|address| {
        [Protocol::Udp, Protocol::Tcp].map(|protocol| listener(protocol, address, 53, doorstep))
    });
    let health = listener(Protocol::Tcp, LINK_LOCAL, 8080, doorstep);
    Facts {
        wanted: Wanted { local_ips: vec![ip(LINK_LOCAL), ip(VIP)], ..Wanted::default() },
        kernel: Some(Kernel { release: "6.12.0".into(), version: (6, 12) }),
        processors: 2,
        samples: vec![sample(), sample()],
        entries: Some(Entries { all: 100, dns: 2, local: 0 }),
        links: vec![
            Link { kind: VETH.into(), steered: Some(false), ..link("veth1") },
            link("nodelocaldns"),
            Link { mtu: 65536, ..link("lo") },
        ],
        addresses: vec![ip(LINK_LOCAL), ip(VIP), ip("192.0.2.2")],
        caches: vec![Process {
            pid: 10,
            name: "doorstep".into(),
            arguments: vec!["/doorstep".into(), "-setupiptables=true".into()],
            outdated: false,
        }],
        listeners: sockets.chain([health]).collect(),
        iptables: Iptables { kube_proxy: true, ..Iptables::default() },
        nft_tables: vec!["nodelocaldns".into()],
        rules: rules(&[LINK_LOCAL, VIP], true),
        ipvs: Vec::new(),
        largest_answer: None,
        cluster_dns: vec![ip(VIP)],
        kube_dns: vec![ip(VIP)],
        resolv_conf: ResolvConf { servers: vec![ip("192.0.2.53")], ..ResolvConf::default() },
        pods: vec![Pod {
            pid: 20,
            resolv_conf: ResolvConf {
                servers: vec![ip(VIP)],
                search: vec!["svc.cluster.local".into()],
                ndots: Some(5),
            },
        }],
        dummy_driver: Some(true),
        remedies: Vec::new(),
        version: Some(env!("CARGO_PKG_VERSION").into()),
        silent: Vec::new(),
        answers: vec![Answer { path: "/health", outcome: Ok((200, "OK".into())) }],
        unread: Vec::new(),
    }
}

/// A node with kube-proxy and nothing of ours.
fn bare() -> Facts {
    let facts = healthy();
    Facts {
        wanted: Wanted::default(),
        links: vec![Link { kind: VETH.into(), steered: Some(false), ..link("veth1") }],
        addresses: vec![ip("192.0.2.2")],
        caches: Vec::new(),
        listeners: Vec::new(),
        rules: Vec::new(),
        answers: Vec::new(),
        ..facts
    }
}

fn last(facts: &mut Facts) -> &mut Sample {
    facts.samples.last_mut().unwrap()
}

fn pod(facts: &mut Facts) -> &mut Udp {
    last(facts).pods.get_mut(&20).unwrap()
}

fn conntrack(facts: &mut Facts) -> &mut Conntrack {
    last(facts).conntrack.as_mut().unwrap()
}

fn old(facts: &mut Facts, version: (u32, u32)) {
    facts.kernel = Some(Kernel { release: "old".into(), version });
}

fn without_udp(facts: &mut Facts, address: &str) {
    facts.listeners.retain(|l| l.protocol != Protocol::Udp || l.address != ip(address));
}

fn untracked_no_more(facts: &mut Facts, address: &str) {
    facts.rules.retain(|live| live.rule.address != ip(address));
}

fn killed(facts: &mut Facts) {
    facts.caches.clear();
    facts.listeners.clear();
    facts.answers.clear();
}

type Change = fn(&mut Facts);
type Fault = (&'static str, Severity, fn() -> Facts, Change);

/// Each fault alone, and the severity of what it must be found as.
const FAULTS: &[Fault] = &[
    ("slow-answer-loss", Severity::Critical, healthy, |f| {
        conntrack(f).clash_resolve = Some(12);
        pod(f).no_ports = 6;
    }),
    // A pod that ends takes its counts along.
    ("slow-answer-loss", Severity::Critical, healthy, |f| {
        conntrack(f).clash_resolve = Some(12);
        pod(f).no_ports = 6;
        last(f).pods.remove(&21);
    }),
    ("conntrack-race", Severity::Warning, healthy, |f| conntrack(f).clash_resolve = Some(12)),
    ("snat-collision", Severity::Critical, healthy, |f| {
        conntrack(f).insert_failed = 5;
        conntrack(f).drop = 5;
    }),
    ("race-drops", Severity::Critical, healthy, |f| {
        old(f, (5, 4));
        conntrack(f).insert_failed = 5;
    }),
    ("old-kernel", Severity::Warning, bare, |f| old(f, (5, 4))),
    ("old-kernel", Severity::Note, bare, |f| old(f, (6, 1))),
    ("conntrack-full", Severity::Warning, healthy, |f| conntrack(f).count = 800),
    ("conntrack-full", Severity::Critical, healthy, |f| conntrack(f).early_drop = 2),
    ("conntrack-dns", Severity::Note, healthy, |f| {
        f.entries = Some(Entries { all: 4000, dns: 1000, local: 0 })
    }),
    ("notrack-without-listener", Severity::Critical, healthy, killed),
    ("notrack-without-listener", Severity::Critical, healthy, |f| without_udp(f, VIP)),
    ("notrack-without-listener", Severity::Critical, healthy, |f| f.addresses.retain(|a| *a != ip(VIP))),
    ("address-without-listener", Severity::Critical, bare, |f| f.addresses.push(ip(LINK_LOCAL))),
    ("clusterip-bypassed", Severity::Warning, healthy, |f| untracked_no_more(f, VIP)),
    ("rules-missing", Severity::Warning, healthy, |f| {
        f.rules.remove(3);
    }),
    ("rules-missing", Severity::Warning, healthy, |f| untracked_no_more(f, LINK_LOCAL)),
    ("rules-ineffective", Severity::Warning, healthy, |f| {
        f.entries = Some(Entries { all: 9, dns: 2, local: 2 })
    }),
    ("leftover-rules", Severity::Warning, healthy, |f| f.iptables.commented = vec!["raw X".into()]),
    ("leftover-rules", Severity::Warning, healthy, killed),
    ("leftover-link", Severity::Warning, healthy, killed),
    ("cache-absent", Severity::Warning, bare, |_| {}),
    ("cache-absent", Severity::Note, bare, |f| f.remedies = vec!["random-fully".into(), "rps".into()]),
    ("cache-absent", Severity::Warning, bare, |f| f.remedies = vec!["random-fully".into()]),
    ("no-answer", Severity::Critical, healthy, |f| f.silent = vec![(ip(VIP), "refused".into())]),
    ("not-ready", Severity::Warning, healthy, |f| f.answers[0].outcome = Ok((503, "rules".into()))),
    ("not-ready", Severity::Critical, healthy, |f| f.answers[0].outcome = Err("timed out".into())),
    ("port-conflict", Severity::Critical, healthy, |f| {
        without_udp(f, LINK_LOCAL);
        without_udp(f, VIP);
        f.listeners.push(listener(Protocol::Udp, "0.0.0.0", 53, (9, "dnsmasq")));
    }),
    ("port-conflict", Severity::Warning, bare, |f| {
        f.listeners.push(listener(Protocol::Udp, "::", 53, (9, "named")));
    }),
    ("port-conflict", Severity::Warning, healthy, |f| {
        f.listeners.push(listener(Protocol::Tcp, "0.0.0.0", 9253, (9, "agent")));
    }),
    ("port-conflict", Severity::Note, bare, |f| {
        f.listeners.push(listener(Protocol::Tcp, "0.0.0.0", 8080, (9, "agent")));
    }),
    ("outdated-program", Severity::Note, healthy, |f| f.caches[0].outdated = true),
    ("outdated-program", Severity::Note, healthy, |f| f.version = Some("0.0.1".into())),
    ("receive-buffer-full", Severity::Warning, healthy, |f| {
        last(f).udp.as_mut().unwrap().receive_buffer_errors = 6;
    }),
    ("masquerade-not-random", Severity::Note, healthy, |f| f.iptables.masquerade = vec!["nat X".into()]),
    ("masquerade-not-random", Severity::Warning, healthy, |f| {
        f.iptables.masquerade = vec!["nat X".into()];
        conntrack(f).insert_failed = 4;
    }),
    ("firewall-drops-dns", Severity::Critical, healthy, |f| {
        f.iptables.drops = vec![("INPUT".into(), "policy".into())];
    }),
    ("forward-drops-untracked", Severity::Critical, healthy, |f| {
        f.iptables.drops = vec![("FORWARD".into(), "policy".into())];
        f.iptables.foreign_notrack = vec!["raw X".into()];
    }),
    ("xtables-lock-held", Severity::Warning, healthy, |f| {
        f.samples.iter_mut().for_each(|sample| sample.lock_holder = Some(8));
    }),
    ("ipvs-clusterip", Severity::Warning, healthy, |f| f.ipvs = vec![ip(VIP)]),
    ("cilium-clusterip", Severity::Warning, healthy, |f| {
        f.iptables.kube_proxy = false;
        f.links.push(link("cilium_host"));
    }),
    ("rps-off", Severity::Note, bare, |_| {}),
    ("rps-off", Severity::Warning, bare, |f| conntrack(f).clash_resolve = Some(12)),
    ("vxlan-checksum", Severity::Warning, healthy, |f| {
        f.links.push(Link { kind: VXLAN.into(), ..link("flannel.1") });
        pod(f).checksum_errors = 5;
    }),
    ("vxlan-checksum", Severity::Warning, healthy, |f| {
        f.links.push(Link { kind: VXLAN.into(), checksum_offload: Some(true), ..link("flannel.1") });
        old(f, (5, 6));
    }),
    ("mtu-below-edns", Severity::Warning, healthy, |f| f.links[0].mtu = 1279),
    ("mtu-below-edns", Severity::Warning, healthy, |f| f.largest_answer = Some(4096)),
    ("no-dummy-driver", Severity::Note, bare, |f| f.dummy_driver = Some(false)),
    ("kubelet-asks-elsewhere", Severity::Warning, healthy, |f| f.cluster_dns = vec![ip("10.96.0.99")]),
    ("pods-ask-elsewhere", Severity::Note, healthy, |f| f.pods[0].resolv_conf.servers = vec![ip("8.8.8.8")]),
    ("pods-ndots", Severity::Note, healthy, |f| f.pods[0].resolv_conf.ndots = Some(9)),
    ("resolv-conf-loop", Severity::Warning, healthy, |f| f.resolv_conf.servers = vec![ip(LINK_LOCAL)]),
    ("could-not-read", Severity::Note, healthy, |f| f.unread = vec!["conntrack: no".into()]),
];

fn found(facts: &Facts) -> Vec<(&'static str, Severity)> {
    diagnose(facts).into_iter().map(|finding| (finding.id, finding.severity)).collect()
}

#[test]
fn a_healthy_node_is_silent() {
    assert_eq!(found(&healthy()), []);
}

#[test]
fn every_fault_is_named() {
    for &(id, severity, start, break_it) in FAULTS {
        let mut facts = start();
        break_it(&mut facts);
        let found = found(&facts);
        assert!(found.contains(&(id, severity)), "{id} {severity:?}: {found:?}");
    }
}

/// What follows from one fault is no second finding.
#[test]
fn a_fault_of_a_healthy_node_is_one_finding() {
    // What a kill leaves is several things, and so is a firewall's drop with what it drops.
    let several = [
        "notrack-without-listener",
        "leftover-rules",
        "leftover-link",
        "masquerade-not-random",
        "port-conflict",
    ];
    for &(id, severity, start, break_it) in FAULTS {
        let mut facts = start();
        if facts != healthy() || several.contains(&id) {
            continue;
        }
        break_it(&mut facts);
        assert_eq!(found(&facts), [(id, severity)]);
    }
}

#[test]
fn every_check_has_a_fault_and_a_name_of_its_own() {
    let ids: Vec<&str> = all().map(|check| check.id).collect();
    let faults: BTreeSet<&str> = FAULTS.iter().map(|(id, ..)| *id).collect();
    assert_eq!(BTreeSet::from_iter(ids.iter().copied()), faults);
    assert_eq!(ids.len(), faults.len());
    for check in all() {
        assert!(check.id.bytes().all(|octet| octet.is_ascii_lowercase() || octet == b'-'), "{}", check.id);
        assert!(!check.meaning.contains("  ") && check.remedy.ends_with('.'), "{}", check.id);
    }
}

/// What looks like a fault and is none.
#[test]
fn what_is_no_fault() {
    let harmless: &[(&str, Change)] = &[
        ("one reading, however high its counters", |f| f.samples.truncate(1)),
        ("an old kernel where nothing is tracked", |f| old(f, (5, 4))),
        ("a drop in FORWARD", |f| f.iptables.drops = vec![("FORWARD".into(), "policy".into())]),
        ("a drop that accepts overrule", |f| {
            f.iptables.drops = vec![("INPUT".into(), "policy".into()), ("OUTPUT".into(), "policy".into())];
            f.rules = rules(&[LINK_LOCAL, VIP], false);
            f.iptables.commented = vec!["ours".into()];
        }),
        ("systemd-resolved", |f| {
            f.listeners.push(listener(Protocol::Udp, "127.0.0.53", 53, (8, "systemd-resolve")));
        }),
        ("node-cache with its own rules", |f| {
            f.caches[0].name = "node-cache".into();
            f.rules = rules(&[LINK_LOCAL, VIP], false);
            f.iptables.commented = vec!["ours".into()];
        }),
        ("a cache seen from another process namespace", |f| {
            f.caches.clear();
            f.listeners.iter_mut().for_each(|listener| listener.owner = None);
        }),
        ("a lock that is held for a moment", |f| last(f).lock_holder = Some(8)),
        ("two holders of the lock", |f| {
            f.samples[0].lock_holder = Some(8);
            f.samples[1].lock_holder = Some(9);
        }),
        ("VXLAN on a kernel that does it right", |f| {
            f.links.push(Link { kind: VXLAN.into(), checksum_offload: Some(true), ..link("flannel.1") });
        }),
        ("a narrow link, and a Corefile that minds it", |f| {
            f.links[0].mtu = 1200;
            f.largest_answer = Some(1152);
        }),
        ("a narrow link that is down", |f| f.links.push(Link { mtu: 576, is_up: false, ..link("x") })),
        ("a pod without ndots", |f| f.pods[0].resolv_conf.ndots = None),
        ("nothing known of the kernel", |f| {
            f.kernel = None;
            f.samples = vec![Sample::default(); 2];
            f.entries = None;
            f.dummy_driver = None;
        }),
        ("/health that is served by somebody's 404", |f| f.answers[0].outcome = Ok((404, String::new()))),
        ("no rules wanted", |f| {
            f.caches[0].arguments.push("-setupiptables=false".into());
            f.rules.clear();
            f.wanted.local_ips = vec![ip(LINK_LOCAL)];
            f.cluster_dns = vec![ip(LINK_LOCAL)];
            f.pods.clear();
        }),
    ];
    for (what, change) in harmless {
        let mut facts = healthy();
        change(&mut facts);
        assert_eq!(found(&facts), [], "{what}");
    }
    let plain = Facts { iptables: Iptables::default(), cluster_dns: Vec::new(), pods: Vec::new(), ..bare() };
    assert_eq!(found(&plain), [], "a host that is no node");
    assert_eq!(found(&Facts::default()), []);
}

/// Whose it is cannot be seen, but the cache's address is not on this node.
#[test]
fn another_servers_wildcard_is_not_taken_for_the_cache() {
    let mut facts = bare();
    let expected = found(&facts);
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        let hidden = Listener { owner: None, ..listener(protocol, "0.0.0.0", 53, (8, "dnsmasq")) };
        facts.listeners.push(hidden);
    }
    assert_eq!(found(&facts), expected);
}

#[test]
fn clashes_beside_a_cache_are_not_laid_to_its_queries() {
    for (mut facts, exempt) in [(healthy(), true), (bare(), false)] {
        conntrack(&mut facts).clash_resolve = Some(12);
        let findings = diagnose(&facts);
        let race = findings.iter().find(|finding| finding.id == "conntrack-race").unwrap();
        assert_eq!(race.evidence.contains("is exempt"), exempt, "{}", race.evidence);
    }
}

#[test]
fn the_gravest_comes_first_and_decides_the_status() {
    let mut facts = healthy();
    assert_eq!(exit_status(&diagnose(&facts)), 0);
    facts.unread = vec!["x".into()];
    assert_eq!(exit_status(&diagnose(&facts)), 0);
    facts.links[0].mtu = 576;
    assert_eq!(exit_status(&diagnose(&facts)), 1);
    conntrack(&mut facts).insert_failed = 4;
    let findings = diagnose(&facts);
    assert_eq!(exit_status(&findings), 2);
    let severities: Vec<Severity> = findings.iter().map(|finding| finding.severity).collect();
    assert_eq!(severities, [Severity::Critical, Severity::Warning, Severity::Note]);
}

#[test]
fn kube_proxy_is_told_by_what_it_makes() {
    let mut facts = Facts::default();
    assert_eq!(facts.kube_proxy(), None);
    facts.links = vec![link("cilium_net")];
    assert_eq!(facts.kube_proxy(), Some(KubeProxy::Cilium));
    facts.iptables.kube_proxy = true;
    assert_eq!(facts.kube_proxy(), Some(KubeProxy::Iptables));
    facts.nft_tables = vec!["kube-proxy".into()];
    assert_eq!(facts.kube_proxy(), Some(KubeProxy::Nftables));
    facts.links.push(link("kube-ipvs0"));
    assert_eq!(facts.kube_proxy(), Some(KubeProxy::Ipvs));
}

#[test]
fn many_lines_are_cut() {
    let symptom = some_lines(Severity::Note, 0..9).unwrap();
    assert_eq!(symptom.evidence, "0\n1\n2\n3\nand 5 more");
    assert!(some_lines(Severity::Note, Vec::<String>::new()).is_none());
}

#[test]
fn a_rule_that_is_no_notrack_of_arriving_queries_does_not_protect() {
    let mut facts = healthy();
    assert!(facts.is_protected());
    facts.rules.retain(|live| live.rule.table == Table::Filter || live.rule.chain != Chain::Prerouting);
    assert!(facts.rules.iter().any(|live| live.rule.verdict == Verdict::NoTrack) && !facts.is_protected());
}
