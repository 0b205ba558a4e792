//! `doorstep demo`, as one types it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

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

/// Figures that both ways have, as the documentation promises them.
const FIGURES: [&str; 8] = [
    "queries",
    "lost",
    "insert_failed",
    "clash_resolve",
    "conntrack_entries",
    "p50_us",
    "p99_us",
    "cpu_us_per_query",
];

fn start(flags: &str) -> Child {
    Command::new("unshare")
        .args(["--mount", "--net", "--propagation", "private", "bash", "-c", SCRIPT, DOORSTEP, flags])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("unshare, of util-linux")
}

fn run(command: &mut Command) -> (Output, String, String) {
    let output = command.stdin(Stdio::null()).output().expect("started");
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    (output, stdout, stderr)
}

/// The promise that this project is about, over a hundred thousand look-ups: right names, fresh ones and
/// missing ones, at both addresses, from one thread, two threads and two pods. And its reason: what the
/// same kernel loses without us.
#[test]
fn a_hundred_thousand_queries_lose_nothing_that_the_kernel_loses_without_us() {
    let output = start("--json --pairs 20000 --direct-pairs 1000").wait_with_output().expect("bash");
    let text = String::from_utf8_lossy(&output.stdout);
    let progress = String::from_utf8_lossy(&output.stderr);
    assert!(text.ends_with("status 0\nleft 0\n"), "{text}{progress}");
    let json = text.lines().find(|line| line.starts_with('{')).expect("JSON");
    let json: Value = serde_json::from_str(json).expect("JSON");
    let count =
        |path: &str| json.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {path}"));

    assert!(count("/doorstep/queries") >= 100_000);
    for figure in ["lost", "wrong", "past_5s", "clash_resolve", "insert_failed", "conntrack_entries"] {
        assert_eq!(count(&format!("/doorstep/{figure}")), 0, "{figure}: {json}");
    }
    // Never a rate: it is the scheduler's.
    for lost in ["slow_answers/lost", "snat/lost", "snat/insert_failed", "two_threads/clash_resolve"] {
        assert!(count(&format!("/direct/settings/{lost}")) > 0, "{lost}: {json}");
    }
    assert_eq!(count("/direct/settings/slow_answers/insert_failed"), 0, "no counter tells of those: {json}");

    for way in ["direct", "doorstep"] {
        assert!(FIGURES.iter().all(|figure| json[way][figure].is_number()), "{way}: {json}");
        for setting in ["one_thread", "two_threads", "slow_answers", "snat"] {
            let queries = ["iptables", "nftables"]
                .map(|shape| count(&format!("/{way}/settings/{setting}/kube_proxy/{shape}/queries")));
            assert_eq!(queries.iter().sum::<u64>(), count(&format!("/{way}/settings/{setting}/queries")));
        }
    }
    assert_eq!(json["failures"], serde_json::json!([]));
    assert!(json["configuration"]["kernel"].is_string());
    assert_eq!(progress.lines().filter(|line| line.contains(" queries lost")).count(), 8, "{progress}");
}

#[test]
fn a_held_cluster_goes_with_sigint() {
    let mut child = start("--hold --pairs 2");
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

/// A copy of the program where somebody without rights can run it.
fn public_copy() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("opened to all");
    let path = directory.path().join("doorstep").display().to_string();
    fs::copy(DOORSTEP, &path).expect("copied");
    (directory, path)
}

const NOBODY: [&str; 5] = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];

#[test]
fn without_root_it_makes_a_user_namespace() {
    let (_directory, program) = public_copy();
    let (output, stdout, stderr) =
        run(Command::new("setpriv").args(NOBODY).args([&program, "demo", "--pairs", "2"]));
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    assert!(stderr.contains("user namespace"), "{stderr}");
    // Where the line breaks depends on what was lost without a cache.
    let words = stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("through Doorstep none of 16 was"), "{stdout}");
}

#[test]
fn where_users_may_not_have_namespaces_it_says_what_to_do() {
    let (_directory, program) = public_copy();
    // Who is in a chroot may not (user_namespaces(7)).
    let script = "mount --rbind / $0 && exec chroot $0 setpriv \"$@\"";
    let root = tempfile::tempdir().expect("a directory");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(root.path());
    let (output, stdout, stderr) = run(command.args(NOBODY).args([&program, "demo"]));
    assert_eq!(output.status.code(), Some(1), "{stdout}{stderr}");
    assert!(stderr.contains("sudo doorstep demo") && stderr.contains("max_user_namespaces"), "{stderr}");
}

#[test]
fn a_wrong_flag_is_a_usage_error() {
    for words in [
        "--hodl",
        "--pairs 0",
        "--pairs",
        "now",
        "race",
        "race nowhere",
        "race ::1 --second-pod x --one-thread",
    ] {
        let (output, stdout, stderr) = run(Command::new(DOORSTEP).arg("demo").args(words.split(' ')));
        assert_eq!(output.status.code(), Some(2), "{words}: {stdout}{stderr}");
        assert!(stderr.contains("Usage: doorstep demo"), "{words}: {stderr}");
    }
}
