//! `doorstep demo`, as one types it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::rig::DOORSTEP;

/// Runs the demonstration where its fixed names meet nobody else's: with a `/run` and a network of its
/// own. Afterwards the shell shows what is left there.
const SCRIPT: &str = "\
mount -t tmpfs run /run || exit 99
exec 3<&0
\"$0\" demo $1 <&3 &
echo pid $!
wait $!
echo status $?
echo left $(ls -A /run/netns /run | grep doorstep) $(grep -c doorstep /proc/self/mountinfo)
";

fn start(flag: &str) -> Child {
    Command::new("unshare")
        .args(["--mount", "--net", "--propagation", "private", "bash", "-c", SCRIPT, DOORSTEP, flag])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare, of util-linux")
}

#[test]
fn the_tour_meets_every_expectation_and_leaves_nothing() {
    let output = start("").wait_with_output().expect("bash");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("All as it should be.") && !text.contains("FAILED"), "{text}");
    assert!(text.contains("conntrack entries of all four        0"), "{text}");
    assert!(text.ends_with("status 0\nleft 0\n"), "{text}");
}

#[test]
fn a_held_cluster_goes_with_sigint() {
    let mut child = start("--hold");
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let mut lines = output.by_ref().lines().map(|line| line.expect("UTF-8"));
    let pid = lines.find_map(|line| line.strip_prefix("pid ")?.parse().ok()).expect("a pid");
    lines.find(|line| line.contains("dig @10.96.0.10")).expect("the lines that invite to try");
    kill_process(Pid::from_raw(pid).expect("a pid"), Signal::INT).expect("sent");
    let mut rest = String::new();
    output.read_to_string(&mut rest).expect("UTF-8");
    assert!(rest.ends_with("status 0\nleft 0\n"), "{rest}");
    child.wait().expect("ended");
}
