//! What is to be survived.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::Scale;
use super::node::Node;
use super::rig::{PATIENCE, eventually};
use super::traffic::Traffic;

/// Logged by a worker once nobody but it answers.
const IN_EFFECT: &str = "running configuration";
/// Between two events of a kind, so that each meets a node at rest.
const PAUSE: Duration = Duration::from_millis(300);

pub fn nothing(_: &mut Node, _: Scale) -> usize {
    std::thread::sleep(Duration::from_secs(1));
    1
}

pub fn reload(node: &mut Node, scale: Scale) -> usize {
    let descriptors = node.descriptors();
    for round in 0..scale.times {
        let (old, new) = if round % 2 == 0 { ("cache 30", "cache 31") } else { ("cache 31", "cache 30") };
        let before = node.logged(IN_EFFECT);
        node.rewrite(|text| text.replace(old, new));
        node.signal(Signal::USR1);
        node.wait_for_log(IN_EFFECT, before + 1);
    }
    let all_closed = || node.descriptors() <= descriptors;
    assert!(
        eventually(PATIENCE, all_closed),
        "the guardian had {descriptors} files open: {}",
        node.descriptors()
    );
    let hits = node.metric("coredns_cache_hits_total{server=\"dns://169.254.20.10:53\",type=\"success\",view=\"\",zones=\"cluster.local.\"}");
    assert!(hits > 0.0, "the counters did not go along");
    scale.times
}

pub fn bad_corefile(node: &mut Node, scale: Scale) -> usize {
    let pids = node.workers();
    for _ in 0..scale.times {
        node.rewrite(|text| text.replace("cache", "cash"));
        let before = node.logged("the new one is refused");
        node.signal(Signal::USR1);
        node.wait_for_log("the new one is refused", before + 1);
        node.rewrite(|text| text.replace("cash", "cache"));
    }
    assert_eq!(node.metric("coredns_reload_failed_total"), scale.times as f64);
    assert_eq!(node.workers(), pids, "a worker was replaced");
    scale.times
}

pub fn worker_killed(node: &mut Node, scale: Scale) -> usize {
    for _ in 0..scale.times {
        std::thread::sleep(PAUSE);
        let before = node.logged(IN_EFFECT);
        kill(&node.workers(), Signal::KILL);
        node.wait_for_log(IN_EFFECT, before + 1);
    }
    scale.times
}

pub fn worker_stopped(node: &mut Node, scale: Scale) -> usize {
    let times = scale.times.min(10);
    for _ in 0..times {
        std::thread::sleep(PAUSE);
        let (stopped, started) = (node.workers(), Instant::now());
        kill(&stopped, Signal::STOP);
        let replaced = || !node.workers().iter().any(|pid| stopped.contains(pid));
        assert!(eventually(PATIENCE, replaced), "nobody noticed");
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    }
    times
}

/// Kills whatever worker comes up for two seconds. The relay answers meanwhile.
pub fn worker_dies_again_and_again(node: &mut Node, _: Scale) -> usize {
    let (mut killed, end) = (0, Instant::now() + Duration::from_secs(2));
    while Instant::now() < end {
        killed += kill(&node.workers(), Signal::KILL);
        std::thread::sleep(Duration::from_millis(1));
    }
    node.wait_for_log("queries are relayed to", 1);
    node.wait_for_log("the relay has ended", 1);
    let relayed = || node.metric("doorstep_relayed_queries_total{proto=\"udp\"}") > 0.0;
    assert!(eventually(PATIENCE, relayed), "nothing was relayed");
    killed
}

/// A Corefile is broken, and then the worker dies.
pub fn worker_cannot_start(node: &mut Node, _: Scale) -> usize {
    node.rewrite(|text| text.replace("cache", "cash"));
    let before = node.logged(IN_EFFECT);
    kill(&node.workers(), Signal::KILL);
    node.wait_for_log("queries are relayed to", 1);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(node.workers(), [], "a worker stands with a broken Corefile");
    node.rewrite(|text| text.replace("cash", "cache"));
    node.wait_for_log(IN_EFFECT, before + 1);
    1
}

pub fn upgrade(node: &mut Node, scale: Scale) -> usize {
    let times = scale.times;
    for _ in 0..times {
        node.launch(&[]);
    }
    times
}

/// The successor finds a Corefile that it cannot read.
pub fn upgrade_that_fails(node: &mut Node, scale: Scale) -> usize {
    let pids = node.workers();
    let broken = node.rig.path("Corefile.broken");
    std::fs::write(&broken, "cluster.local {\n  cash\n}\n").unwrap();
    let handover = node.rig.path("handover");
    let times = scale.times.min(10);
    for _ in 0..times {
        let mut successor = node.rig.start(&["-handover", &handover, "-basecorefile", &broken]);
        assert_eq!(successor.wait().code(), Some(64));
    }
    assert_eq!(node.workers(), pids);
    times
}

/// From one UDP thread to two, and back.
pub fn upgrade_with_other_threads(node: &mut Node, scale: Scale) -> usize {
    let times = scale.times.min(10);
    for round in 0..times {
        node.rewrite(|text| match round % 2 {
            0 => text.replace("errors\n", "errors\n    multisocket 2\n"),
            _ => text.replace("    multisocket 2\n", ""),
        });
        node.launch(&[]);
    }
    times
}

/// A block whose upstream is itself. Its neighbour's queries are answered as ever.
pub fn loop_in_one_block(node: &mut Node, _: Scale) -> usize {
    let pids = node.workers();
    node.rewrite(|text| {
        text + "looping.test:53 {\n    loop\n    bind 169.254.20.10\n    forward . 169.254.20.10\n    prometheus :9253\n}\n"
    });
    node.signal(Signal::USR1);
    let looping = || node.metric("doorstep_loop_detected{zone=\"looping.test.\"}") == 1.0;
    assert!(eventually(PATIENCE, looping), "the loop was not noticed:\n{}", node.log());
    assert_ne!(node.workers(), pids);
    1
}

pub fn guardian_killed(node: &mut Node) {
    node.daemon.take().expect("a daemon").kill();
    std::thread::sleep(Duration::from_secs(2));
}

pub fn ended_then_started(node: &mut Node) {
    node.daemon.take().expect("a daemon").stop();
    std::thread::sleep(Duration::from_secs(1));
    node.launch(&[]);
}

/// Names whose answers take a while, all asked for at once.
pub fn slow_queries(node: &Node, rate: u32) -> Traffic {
    let pod = node.rig.cluster.pod();
    let server = (doorstep::demo::network::NODE_LOCAL, 53).into();
    let traffic = Traffic::slow(pod, server, rate);
    std::thread::sleep(Duration::from_millis(200));
    traffic
}

fn kill(pids: &[Pid], signal: Signal) -> usize {
    // One that has just ended is as good as killed.
    pids.iter().filter(|pid| kill_process(**pid, signal).is_ok()).count()
}
