//! The try-it cluster in the running kernel. Needs root and nf_tables; fails without.
#![cfg(feature = "demo")]
#![allow(clippy::expect_used, reason = "clippy exempts test functions, not their helpers")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use doorstep::demo::network::{KUBE_DNS, KUBE_DNS_PODS, KUBE_DNS_VIP, NODE, POD, UPSTREAM_VIP};
use doorstep::demo::race::{Standalone, standalone};
use doorstep::demo::{
    Cluster, ClusterConfig, DemoError, Lookup, Masquerade, Namespace, Options, Report, ServiceRules, Setting,
    Shape, Transport, dns_entries, flush, lookup, notrack_rules, run,
};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use rustix::process::{Pid, Signal, kill_process};

const KUBERNETES: &str = "kubernetes.default.svc.cluster.local.";

/// A prefix of this test and this process alone.
fn config(test: &str) -> ClusterConfig {
    ClusterConfig { prefix: format!("dt{}-{test}", std::process::id()) }
}

fn up(test: &str) -> Cluster {
    Cluster::up(&config(test)).expect("root, network namespaces and nf_tables with nat")
}

fn dns(address: Ipv4Addr) -> SocketAddr {
    SocketAddr::from((address, 53))
}

fn ask(cluster: &Cluster, name: &str, record_type: RecordType, transport: Transport) -> Lookup {
    let server = dns(KUBE_DNS_VIP);
    lookup(cluster.pod(), server, name, record_type, transport).expect("an answer")
}

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

/// What `doorstep demo race` does, between this cluster's pods, on its node.
fn race(cluster: &Cluster, options: Standalone) -> doorstep::demo::race::Verdict {
    flush(cluster.node()).expect("an empty table");
    cluster.node().run(|| standalone(&options)).expect("entered").expect("a race")
}

#[test]
fn two_threads_clash_and_one_does_not() {
    let cluster = up("race");
    let rules = ServiceRules { endpoints: 3, ..ServiceRules::default() };
    cluster.set_service_rules(rules).expect("rules");
    let options = Standalone {
        server: dns(KUBE_DNS_VIP),
        pairs: 300,
        pace: Duration::ZERO,
        name: KUBERNETES.into(),
        pod: Some(cluster.pod().name().into()),
        second_pod: None,
        one_thread: false,
    };
    let two = race(&cluster, options.clone());
    assert_eq!((two.tally.queries, two.tally.lost), (600, 0));
    assert!(two.statistics.clash_resolve > Some(0), "{:?}", two.statistics);
    assert_eq!(two.tally.latencies.len(), 600);

    let one = race(&cluster, Standalone { one_thread: true, ..options.clone() });
    assert_eq!((one.tally.lost, one.statistics.clash_resolve), (0, Some(0)));

    let wrong = Standalone { name: "nothing-#.cluster.local.".into(), pairs: 3, ..options };
    let wrong = race(&cluster, wrong).tally;
    assert_eq!((wrong.lost, wrong.wrong), (6, 6), "NXDOMAIN is no answer to a name that should be");
}

/// A name that is never answered is lost, asked for once more, and given up.
#[test]
fn silence_is_a_loss() {
    let cluster = up("silent");
    let options = Standalone {
        server: dns(KUBE_DNS_VIP),
        pairs: 2,
        pace: Duration::ZERO,
        name: "drop.cluster.local.".into(),
        pod: Some(cluster.pod().name().into()),
        second_pod: Some(cluster.pod2().name().into()),
        one_thread: false,
    };
    let start = Instant::now();
    let silent = race(&cluster, options).tally;
    assert!(start.elapsed() >= Duration::from_millis(7500));
    assert_eq!((silent.lost, silent.wrong, silent.past_5s), (4, 0, 4));
    assert_eq!(cluster.queries().udp, 8, "each was asked twice");
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

const UNBOUND: &str = "server:
  directory: \"\"
  username: \"\"
  chroot: \"\"
  interface: 169.254.20.10
  interface: 10.96.0.10
  access-control: 0.0.0.0/0 allow
  infra-cache-min-rtt: 3000
forward-zone:
  name: \"cluster.local\"
  forward-addr: 10.96.0.11
  forward-tcp-upstream: yes
forward-zone:
  name: \"example.org\"
  forward-addr: 10.96.0.11
";

/// Unbound on both addresses, with a cache and TCP towards kube-dns, in Doorstep's place.
/// `rules` is what nft gets before it starts, `settings` what else Unbound's server is told.
fn stand_in(test: &str, rules: &str, settings: &str) -> (Options, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    fs::write(path.join("unbound.conf"), format!("{UNBOUND}server:\n{settings}")).expect("written");
    fs::write(path.join("rules"), rules).expect("written");
    let script = "ip address add 169.254.20.10/32 dev lo && ip address add 10.96.0.10/32 dev lo && \
                  nft -f rules && exec unbound -ddpc unbound.conf";
    let script = format!("cd {} && {script}", path.display());
    let options = Options {
        prefix: config(test).prefix,
        pairs: 20,
        command: Some(["sh", "-c", &script].map(Into::into).to_vec()),
        ..Options::default()
    };
    (options, directory)
}

const NOTRACK: &str = "table ip stand-in {
  chain in { type filter hook prerouting priority raw
    ip daddr { 169.254.20.10, 10.96.0.10 } th dport 53 counter notrack
  }
  chain out { type filter hook output priority raw
    ip saddr { 169.254.20.10, 10.96.0.10 } th sport 53 counter notrack
  }
}
";

/// Nothing was lost through the stand-in, and yet the report must not be content.
fn assert_complaint(report: &Report, complaint: &str) {
    let failures = report.failures().join("\n");
    assert!(failures.contains(complaint), "{failures}");
    assert!(report.to_string().contains("FAILED: "), "{report}");
    let json: serde_json::Value = serde_json::from_str(&report.to_json().to_string()).expect("JSON");
    assert_eq!(json["failures"].as_array().map(Vec::len), Some(report.failures().len()));
}

#[test]
fn past_a_cache_that_keeps_its_promises() {
    let (options, _directory) = stand_in("kept", NOTRACK, "");
    let prefix = options.prefix.clone();
    let report = run(options).expect("a report");
    assert_eq!(report.failures(), Vec::<String>::new());
    let total = report.doorstep.total();
    assert_eq!((total.queries, total.lost, total.wrong), (160, 0, 0));
    assert_eq!((report.doorstep.clashes(), report.doorstep.entries()), (0, 0));
    assert!(report.direct.entries() > 0);
    let slow = report.doorstep.of(Setting::SlowAnswers).expect("measured").total();
    assert_eq!((slow.past_1s, slow.past_5s), (40, 0), "each took 1.2 seconds");
    assert!(report.to_string().contains("through Doorstep none of 160 was"), "{report}");
    assert!(report.to_string().lines().all(|line| line.len() <= 92), "{report}");
    assert_gone(&prefix);
    assert!(!fs::exists(format!("/run/{prefix}-demo")).expect("a look"));
}

/// Without notrack rules kube-proxy's DNAT takes the ClusterIP's queries past the cache, and they race.
#[test]
fn past_a_cache_that_is_tracked() {
    let (options, _directory) = stand_in("track", "", "");
    let report = run(options).expect("a report");
    assert_complaint(&report, "conntrack entries");
    assert_complaint(&report, "raced");
    assert!(report.doorstep.clashes() > 0 && report.doorstep.entries() > 0);
}

/// The answer to an untracked query is a new flow to conntrack unless it is exempt as well.
#[test]
fn past_a_cache_whose_answers_are_tracked() {
    let (queries_only, _) = NOTRACK.split_once("  chain out").expect("the second chain");
    let (options, _directory) = stand_in("half", &format!("{queries_only}}}"), "");
    let report = run(options).expect("a report");
    assert_complaint(&report, "conntrack entries");
}

/// An answer counts only if it is the right one.
#[test]
fn past_a_cache_that_lies() {
    let lie = "  local-data: \"dual.default.svc.cluster.local. A 192.0.2.1\"\n";
    let (options, _directory) = stand_in("lie", NOTRACK, lie);
    let report = run(options).expect("a report");
    assert_complaint(&report, "answered wrongly");
    let total = report.doorstep.total();
    assert!(total.lost == total.wrong && total.wrong > 0, "{total:?}");
}

#[test]
fn a_program_that_ends_is_an_error_that_shows_its_log() {
    let prefix = config("ended").prefix;
    let options = Options {
        prefix: prefix.clone(),
        command: Some(["sh", "-c", "echo no such flag; exit 3"].map(Into::into).to_vec()),
        ..Options::default()
    };
    let error = run(options).expect_err("nobody answers").to_string();
    assert!(error.contains("exit status: 3") && error.contains("no such flag"), "{error}");
    assert_gone(&prefix);
}

/// Names the cluster that [`held`] keeps up, in the process that a test starts for it.
const HELD: &str = "DOORSTEP_TEST_HELD";

/// Not a test of its own: what the tests below run in a process that they can kill.
#[test]
fn held() {
    let Ok(test) = std::env::var(HELD) else {
        return;
    };
    let (options, _directory) = stand_in(&test, NOTRACK, "");
    run(Options { hold: true, pairs: 2, ..options }).expect("a report");
}

/// Starts [`held`] and returns when it has printed what to type, with the prefix it uses.
fn hold(test: &str) -> (Child, String) {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "held", "--nocapture"])
        .env(HELD, test)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let mut lines = output.lines().map(|line| line.expect("UTF-8"));
    let hint = lines.find(|line| line.contains("dig @10.96.0.10"));
    let hint = hint.expect("the lines that invite to try");
    let pod = hint.split_whitespace().nth(3).expect("a namespace");
    let prefix = pod.strip_suffix("-pod").expect("the pod's").to_owned();
    // Read on, or the child's next line meets a closed pipe.
    std::thread::spawn(move || lines.for_each(drop));
    (child, prefix)
}

#[test]
fn a_held_cluster_is_there_for_ip_netns_and_goes_with_its_input() {
    let (mut child, prefix) = hold("eof");
    let pod = format!("{prefix}-pod");
    let dig = Command::new("ip")
        .args(["netns", "exec", &pod, "dig", "+short", "@169.254.20.10"])
        .arg(KUBERNETES)
        .output()
        .expect("ip and dig");
    assert_eq!(String::from_utf8_lossy(&dig.stdout), "10.96.0.1\n");
    drop(child.stdin.take());
    assert!(child.wait().expect("ended").success());
    assert_gone(&prefix);
}

#[test]
fn a_held_cluster_goes_with_sigterm() {
    let (mut child, prefix) = hold("term");
    kill_process(Pid::from_child(&child), Signal::TERM).expect("sent");
    assert!(child.wait().expect("ended").success());
    assert_gone(&prefix);
}

#[test]
fn a_killed_demo_takes_its_program_along_and_the_next_one_cleans_up() {
    let (mut child, prefix) = hold("kill");
    let unbound = pids_in(&format!("{prefix}-node"));
    assert_eq!(unbound.len(), 1);
    child.kill().expect("sent");
    child.wait().expect("ended");
    let deadline = Instant::now() + Duration::from_secs(10);
    while !pids_in(&format!("{prefix}-node")).is_empty() {
        assert!(Instant::now() < deadline, "{unbound:?} is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(names(&prefix).len(), 4);
    let cluster = Cluster::up(&ClusterConfig { prefix: prefix.clone() });
    drop(cluster.expect("a cluster over the leftovers"));
    assert_gone(&prefix);
    fs::remove_dir_all(format!("/run/{prefix}-demo")).expect("what only a next run removes");
}

/// Processes that live in a named namespace.
fn pids_in(namespace: &str) -> Vec<String> {
    let mut command = Command::new("ip");
    let pids = command.args(["netns", "pids", namespace]).output();
    let pids = String::from_utf8(pids.expect("ip").stdout).expect("numbers");
    pids.lines().map(str::to_owned).collect()
}

/// Neither a name nor a mount of the prefix is left.
fn assert_gone(prefix: &str) {
    assert_eq!(names(prefix), BTreeSet::new());
    assert_eq!(mounts(prefix), BTreeSet::new());
}

/// Namespaces that `ip netns` would list.
fn names(prefix: &str) -> BTreeSet<String> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten();
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.into_string().expect("UTF-8"));
    names.filter(|name| name.starts_with(prefix)).collect()
}

fn mounts(prefix: &str) -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("the mount table");
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let points = points.filter(|point| point.contains(prefix));
    points.map(str::to_owned).collect()
}

/// Links of the namespace that the test runs in.
fn links() -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/thread-self/net/dev").expect("the link table");
    let names = table.lines().filter_map(|line| line.split_once(':'));
    names.map(|(name, _)| name.trim().to_owned()).collect()
}
