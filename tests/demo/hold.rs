//! A cluster that is held: how one gets in, and how it goes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use doorstep::demo::{Cluster, ClusterConfig, Options, run};
use rustix::process::{Pid, Signal, kill_process};

use super::report::{NOTRACK, stand_in};
use super::{KUBERNETES, assert_gone, names};

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
        .args(["--exact", "hold::held", "--nocapture"])
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
