//! The kube-dns ConfigMap: stub domains and upstream name servers.

use std::fs;

use super::client::udp;
use super::loopback::{self, DNS_PORT};
use super::message::ask;
use super::metric;
use super::scripted::{Scripted, answer};
use super::server::{Doorstep, Setup, replace};

const TEMPLATE: &str = ".:5300 {
    errors
    cache
    reload 2s 0s
    bind __PILLAR__LOCAL__DNS__
    forward . __PILLAR__UPSTREAM__SERVERS__
}
";

struct Cluster {
    stub: Scripted,
    outside: Scripted,
    server: Doorstep,
}

/// A server with a stub domain and a custom upstream, whose ConfigMap may be spoilt before the start.
fn start(stub_domains: impl Fn(&Scripted) -> String) -> Cluster {
    let stub = Scripted::start(answer);
    let outside = Scripted::start(answer);
    let ip = loopback::fresh();
    let setup = Setup::bare(ip).flag(format!("-localip={ip}"));
    let directory = setup.path("kube-dns");
    fs::create_dir(&directory).unwrap();
    fs::write(setup.path("Corefile.base"), TEMPLATE).unwrap();
    fs::write(directory.join("stubDomains"), stub_domains(&stub)).unwrap();
    fs::write(directory.join("upstreamNameservers"), format!("[\"{}\"]", outside.address)).unwrap();
    Cluster { stub, outside, server: setup.start() }
}

impl Cluster {
    /// How many queries the stub domain's server and the outside one have seen after one more.
    fn counts_after(&self, name: &str) -> (usize, usize) {
        let ip = self.server.metrics().ip();
        assert_eq!(udp((ip, DNS_PORT).into(), &ask(name)).rcode(), 0);
        (self.stub.asked().len(), self.outside.asked().len())
    }

    fn errors(&self) -> f64 {
        let label = Some(("errortype", "configmap"));
        metric(self.server.metrics(), "coredns_nodecache_setup_errors_total", label).unwrap()
    }
}

#[test]
fn stub_domains_and_upstreams_are_served_and_survive_a_bad_edit() {
    let good = |stub: &Scripted| format!("{{\"acme.test\": [\"{}\"]}}", stub.address);
    let cluster = start(good);
    assert_eq!(cluster.counts_after("a.acme.test"), (1, 0));
    assert_eq!(cluster.counts_after("example.test"), (1, 1));
    assert_eq!(cluster.errors(), 0.0);

    let file = cluster.server.setup.path("kube-dns").join("stubDomains");
    replace(&file, "{\"acme.test\": ");
    cluster.server.wait_for_log("the old configuration serves on");
    assert!(cluster.server.log().contains("stubDomains"), "{}", cluster.server.log());
    assert_eq!(cluster.errors(), 1.0);
    assert_eq!(cluster.counts_after("b.acme.test"), (2, 1));

    replace(&file, &good(&cluster.stub).replace("acme", "other"));
    cluster.server.wait_for_log_times("running configuration", 2);
    assert_eq!(cluster.counts_after("c.other.test"), (3, 1));
    assert_eq!(cluster.counts_after("c.acme.test"), (3, 2));
    assert_eq!(cluster.errors(), 1.0);
}

#[test]
fn a_bad_config_map_at_the_start_is_left_out_and_counted() {
    let cluster = start(|_| "[not json".to_owned());
    cluster.server.wait_for_log("the kube-dns ConfigMap is left out");
    assert_eq!(cluster.errors(), 1.0);
}
