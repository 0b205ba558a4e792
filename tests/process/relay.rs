//! While no worker stands: what is relayed, and what waits for the next worker.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::client::{PATIENCE, Tcp, Udp, tcp, udp};
use super::loopback;
use super::message::{Answer, ask};
use super::privileges::worker_of;
use super::scripted::{Scripted, answer};
use super::server::{Doorstep, wait};

/// Answers made here, where there is an upstream, too.
const HOSTS: &str = "hosts {\n 192.0.2.1 made.test\n fallthrough\n }";

/// The worker dies, and a broken Corefile keeps the next one from coming.
fn without_worker(server: &Doorstep, logged: &str) {
    server.rewrite(". {\n cash\n}\n");
    kill_process(Pid::from_raw(worker_of(server)).unwrap(), Signal::KILL).unwrap();
    server.wait_for_log(logged);
}

#[track_caller]
fn is_made_here(answer: &[u8]) {
    let answer = Answer::read(answer);
    let records = answer.section(1);
    assert_eq!(records.iter().map(|record| record.rdata.as_slice()).collect::<Vec<_>>(), [[192, 0, 2, 1]]);
}

/// What the upstream says would be wrong where a step answers, and a client that waits for the next worker is better
/// off than one that believes it.
#[test]
fn where_blocks_do_more_than_forward_queries_wait_for_the_next_worker() {
    let upstream = Scripted::start(answer);
    let (with_steps, plain) = (loopback::fresh_dns(), loopback::fresh_dns());
    let block = |ip, directives| super::block(".", ip, upstream.address, directives);
    let corefile = block(with_steps.ip(), HOSTS) + &block(plain.ip(), "");
    let server = Doorstep::start(plain.ip(), &corefile);
    without_worker(&server, "queries are relayed to");
    assert_eq!(udp(plain, &ask("a.test")).rcode(), 0);
    assert_eq!(tcp(plain, &ask("b.test")).rcode(), 0);
    let (datagrams, mut stream) = (Udp::to(with_steps), Tcp::to(with_steps));
    datagrams.send(&ask("made.test").build());
    stream.send(&ask("made.test").build());
    datagrams.expect_silence();
    server.rewrite(&corefile);
    is_made_here(&datagrams.receive());
    is_made_here(&stream.receive());
    assert_eq!((upstream.count("a.test."), upstream.count("b.test.")), (1, 1));
    assert_eq!(upstream.count("made.test."), 0, "asked although it is made here");
}

/// kube-dns knows all names. Another upstream denies the cluster's, and is asked not even when kube-dns is silent.
#[test]
fn the_clusters_upstream_is_asked_for_everything() {
    let (others, cluster) = (Scripted::start(answer), Scripted::start(|_| vec![]));
    let address = loopback::fresh_dns();
    let block = |zone, upstream: &Scripted| super::block(zone, address.ip(), upstream.address, "");
    let server = Doorstep::start(address.ip(), &(block(".", &others) + &block("cluster.test", &cluster)));
    without_worker(&server, "queries are relayed to");
    let client = Udp::to(address);
    for (name, silence) in
        [("a.cluster.test", Duration::ZERO), ("b.cluster.test", Duration::from_millis(2600))]
    {
        std::thread::sleep(silence);
        client.send(&ask(name).build());
        assert!(wait(PATIENCE, || cluster.count(&format!("{name}.")) == 1), "{name}");
    }
    assert_eq!(others.asked().len(), 0);
}

#[test]
fn where_no_block_only_forwards_nothing_is_relayed() {
    let upstream = Scripted::start(answer);
    let (address, other) = (loopback::fresh_dns(), loopback::fresh_dns());
    let without_upstream = format!(". {{\n bind {}\n whoami\n}}\n", other.ip());
    let corefile = super::block(".", address.ip(), upstream.address, HOSTS) + &without_upstream;
    let server = Doorstep::start(address.ip(), &corefile);
    without_worker(&server, "no worker stands: queries wait for the next one");
    let client = Udp::to(address);
    client.send(&ask("made.test").build());
    Udp::to(other).send(&ask("whoami.test").build());
    client.expect_silence();
    server.rewrite(&corefile);
    is_made_here(&client.receive());
    assert_eq!(upstream.asked().len(), 0);
    assert!(!server.log().contains("relay"), "{}", server.log());
}
