//! A node with Doorstep on it, and a pod that asks.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use doorstep::demo::network::{KUBE_DNS_VIP, NODE_LOCAL};
use rustix::process::{Pid, Signal, kill_process};

use super::Scale;
use super::rig::{Daemon, Listing, PATIENCE, Rig, eventually, shell};
use super::traffic::{Outcome, Traffic, WARM};

/// Queries of a new worker that are no client's.
const PROOFS: usize = 8;
/// What every process logs that begins to serve.
const SERVES: &str = concat!("doorstep ", env!("CARGO_PKG_VERSION"), " serves");
/// Calm before and after each event.
const CALM: Duration = Duration::from_millis(500);

pub struct Node {
    pub rig: Rig,
    pub daemon: Option<Daemon>,
    backend: &'static str,
    before: Listing,
    /// Queries that kube-dns got under the last load, and how many at most.
    upstream: usize,
    expected: usize,
}

impl Node {
    pub fn start(name: &str) -> Node {
        Node::start_with(name, "nftables")
    }

    /// With rules by `backend`.
    pub fn start_with(name: &str, backend: &'static str) -> Node {
        let rig = Rig::new(&name[..name.len().min(6)]);
        let before = rig.listing();
        let mut node = Node { rig, daemon: None, backend, before, upstream: 0, expected: 0 };
        node.launch(&[]);
        node
    }

    /// Starts another Doorstep beside, or in place of, the one that serves, and waits until it does.
    pub fn launch(&mut self, flags: &[&str]) {
        let handover = self.rig.path("handover");
        let flags = [&["-handover", &handover, "-rules-backend", self.backend], flags].concat();
        let served = self.logged(SERVES);
        let mut daemon = self.rig.start(&flags);
        self.wait_for_log(SERVES, served + 1);
        if let Some(mut old) = self.daemon.take() {
            let status = old.wait();
            assert_eq!(status.code(), Some(0), "{}", old.log());
        }
        self.rig.wait_until_ready(&mut daemon);
        self.daemon = Some(daemon);
    }

    /// What `event` returns, and how the load fared meanwhile.
    pub fn under_load<T>(&mut self, scale: Scale, event: impl FnOnce(&mut Node) -> T) -> (T, Outcome) {
        self.under_load_at(NODE_LOCAL, scale, event)
    }

    pub fn under_load_at_the_cluster_ip<T>(
        &mut self,
        scale: Scale,
        event: impl FnOnce(&mut Node) -> T,
    ) -> (T, Outcome) {
        self.under_load_at(KUBE_DNS_VIP, scale, event)
    }

    fn under_load_at<T>(
        &mut self,
        server: Ipv4Addr,
        scale: Scale,
        event: impl FnOnce(&mut Node) -> T,
    ) -> (T, Outcome) {
        let asked = self.rig.cluster.queries();
        let started = Instant::now();
        let traffic = Traffic::start(self.rig.cluster.pod(), SocketAddr::from((server, 53)), scale);
        thread::sleep(CALM);
        let result = event(self);
        thread::sleep(CALM);
        let outcome = traffic.stop();
        let asked = self.rig.cluster.queries().since(asked);
        self.upstream = usize::try_from(asked.udp + asked.tcp).unwrap();
        // What every name in the cache costs as it expires, and what is asked twice because it was slow.
        let lives = usize::try_from(started.elapsed().as_secs()).unwrap() / 29 + 1;
        self.expected = outcome.udp.unique * 21 / 20 + WARM * lives + 20;
        (result, outcome)
    }

    /// Hits were hits: kube-dns was asked for what was new, for what expired, and by each of so many new workers
    /// to prove its connections.
    pub fn hits_were_hits(&self, name: &str, workers: usize) {
        let (asked, expected) = (self.upstream, self.expected + workers * PROOFS);
        assert!(
            asked <= expected,
            "{name}: {asked} queries to kube-dns, of {expected} expected\n{}",
            self.log()
        );
    }

    /// Datagrams that kube-dns had no room for: on a busy machine its stand-in is slow.
    pub fn dropped_by_kube_dns(&self) -> usize {
        let line = shell(self.rig.cluster.kube_dns(), "grep '^Udp: [0-9]' /proc/net/snmp").expect("counters");
        // InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors (RFC 4113, and Linux).
        line.split(' ').nth(5).expect("RcvbufErrors").parse().expect("a number")
    }

    /// Open files of the guardian.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.guardian().as_raw_nonzero())).unwrap().count()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.rig.path("log")).unwrap_or_default()
    }

    /// Waits until the log has so many lines with `text`.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str, times: usize) {
        let there = eventually(PATIENCE, || self.logged(text) >= times);
        assert!(there, "{text} is not there {times} times:\n{}", self.log());
    }

    pub fn logged(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }

    pub fn guardian(&self) -> Pid {
        self.daemon.as_ref().expect("a daemon").pid()
    }

    /// The processes that the guardian has started and that live.
    pub fn workers(&self) -> Vec<Pid> {
        let pid = self.guardian().as_raw_nonzero();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.guardian(), signal).expect("sent");
    }

    pub fn rewrite(&self, change: impl FnOnce(String) -> String) {
        let path = self.rig.path("Corefile.base");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, change(text)).unwrap();
    }

    pub fn metric(&self, sample: &str) -> f64 {
        let (_, page) = self.rig.http(9253, "/metrics").expect("metrics");
        let line = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// No process of this node's is left.
    pub fn everybody_is_gone(&mut self) {
        let directory = self.rig.path("");
        let gone = || {
            let processes = fs::read_dir("/proc").unwrap().flatten();
            let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
            !lines.into_iter().any(|line| String::from_utf8_lossy(&line).contains(&directory))
        };
        assert!(eventually(PATIENCE, gone), "a worker outlived its guardian");
    }

    /// Ends it; nothing is left on the node.
    pub fn stop(self) {
        self.signal(Signal::TERM);
        self.end();
    }

    /// Waits for the end that it was told to come to; nothing is left on the node.
    pub fn end(mut self) {
        let started = Instant::now();
        let status = self.daemon.as_mut().expect("a daemon").wait();
        assert_eq!(status.code(), Some(0), "{}", self.log());
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        assert_eq!(self.rig.listing(), self.before);
    }
}
