//! kube-dns grows from two pods to four behind its Service address.
//!
//! The address is a real one: the kernel deals each new connection to one of the pods at random, as
//! kube-proxy makes it do.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::load::Load;
use super::netns::{isolated, run};
use super::plain_upstream::PlainUpstream;
use super::rig::{CLIENT, NODE};
use super::server::Doorstep;
use super::{alone, is_long};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const PODS: [Ipv4Addr; 4] = [pod(1), pod(2), pod(3), pod(4)];
/// Pods before.
const BEFORE: usize = 2;

const fn pod(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, 0, number)
}

/// A load on a rollout.
struct Shape {
    /// Misses per second.
    rate: u32,
    window: Duration,
    windows: usize,
    /// What a pod's share of all may be off, in a hundred of an even one; none is promised where
    /// connections are too few.
    off: Option<f64>,
}

impl Shape {
    fn of_mode() -> Vec<Shape> {
        let minute = |rate, off| Shape { rate, window: Duration::from_secs(10), windows: 6, off };
        if is_long() {
            vec![minute(2000, Some(20.0)), minute(500, Some(20.0)), minute(100, None)]
        } else {
            // Some hundred connections are dealt in this time: the bound is for chance.
            vec![Shape { rate: 1000, window: Duration::from_secs(3), windows: 2, off: Some(60.0) }]
        }
    }
}

/// Has the kernel deal connections to the first `count` pods.
fn publish(count: usize) {
    let map: Vec<String> = (0..).zip(&PODS[..count]).map(|(at, pod)| format!("{at} : {pod}")).collect();
    let deal = format!("dnat to numgen random mod {count} map {{ {} }}", map.join(", "));
    run(&format!("nft 'flush chain ip service out; add rule ip service out ip daddr {VIP} {deal}'"));
}

/// Doorstep before pods that all listen, and how many queries each has had.
struct Cluster {
    pods: Vec<PlainUpstream>,
    _doorstep: Doorstep,
}

impl Cluster {
    fn start() -> Cluster {
        for pod in PODS {
            run(&format!("ip addr add {pod}/32 dev lo"));
        }
        run(&format!("ip route add {VIP} dev lo"));
        run("nft add table ip service");
        run("nft 'add chain ip service out { type nat hook output priority -100; }'");
        publish(BEFORE);
        let pods = PODS.map(|pod| PlainUpstream::start_at(SocketAddr::from((pod, 53)))).into();
        // Without a cache every query is a miss.
        let text = format!(". {{\n bind {}\n errors\n forward . {VIP} {{\n force_tcp\n }}\n}}\n", NODE.ip());
        Cluster { pods, _doorstep: Doorstep::start(NODE.ip(), &text) }
    }

    /// What each pod is asked by so much load.
    fn shares(&self, rate: u32, lasting: Duration) -> Vec<usize> {
        let before: Vec<usize> = self.pods.iter().map(PlainUpstream::asked).collect();
        let outcome = Load::new(NODE, CLIENT, rate, lasting).run(|_| ());
        assert_eq!((outcome.lost(), outcome.with(0)), (0, outcome.sent), "{:?}", outcome.rcodes);
        self.pods.iter().zip(before).map(|(pod, before)| pod.asked() - before).collect()
    }
}

/// How far each share is off an even one, in a hundred of it.
fn off(shares: &[usize]) -> Vec<f64> {
    let even = shares.iter().sum::<usize>() as f64 / shares.len() as f64;
    shares.iter().map(|share| (*share as f64 / even - 1.0) * 100.0).collect()
}

fn line(rate: u32, time: &str, shares: &[usize]) -> String {
    let mut line = format!("{rate:>8}  {time:<12}");
    for (share, off) in shares.iter().zip(off(shares)) {
        write!(line, " {share:>7} {off:>+6.1} %").unwrap();
    }
    line
}

#[test]
fn new_pods_come_to_their_share() {
    let _turn = alone();
    let mut table =
        String::from("misses/s  time         queries to each of the pods, and how far that is off even\n");
    let mut violations = Vec::new();
    for Shape { rate, window, windows, off: bound } in Shape::of_mode() {
        let (lines, shares) = isolated(|| {
            let cluster = Cluster::start();
            let mut lines = vec![line(rate, "before", &cluster.shares(rate, window / 2)[..BEFORE])];
            publish(PODS.len());
            let mut all = vec![0; PODS.len()];
            for number in 0..windows {
                let shares = cluster.shares(rate, window);
                let [from, to] = [number, number + 1].map(|at| window.as_secs() * at as u64);
                lines.push(line(rate, &format!("{from} to {to} s"), &shares));
                all.iter_mut().zip(&shares).for_each(|(all, share)| *all += share);
            }
            lines.push(line(rate, "all of it", &all));
            (lines, all)
        });
        writeln!(table, "{}", lines.join("\n")).unwrap();
        let worst = off(&shares).into_iter().map(f64::abs).fold(0.0, f64::max);
        if bound.is_some_and(|bound| worst > bound) {
            violations.push(format!("at {rate}/s a pod's share is {worst:.1} % off"));
        }
    }
    // Past the capture of the test runner: this is for people.
    writeln!(std::io::stdout(), "\n{table}").unwrap();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}
