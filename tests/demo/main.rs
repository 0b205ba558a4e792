//! The laboratory of `doorstep demo` in the running kernel: its cluster, its races, its report. The program
//! itself is in the suite `cluster`.
//!
//! Needs root, two processors, nf_tables with nat, `ip`, `nft`, `iptables`, `conntrack`, `dig` and `unbound`;
//! fails without.
#![cfg(feature = "demo")]
#![allow(clippy::expect_used, reason = "clippy exempts test functions, not their helpers")]

mod cluster;
mod hold;
mod race;
mod report;

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use doorstep::demo::network::KUBE_DNS_VIP;
use doorstep::demo::{Cluster, ClusterConfig, Lookup, Transport, lookup};
use hickory_proto::rr::RecordType;

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
