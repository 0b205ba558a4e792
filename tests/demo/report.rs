//! The report, with stand-ins for Doorstep that keep its promises or break one.

use std::fs;

use doorstep::demo::{Options, Report, Setting, run};

use super::{assert_gone, config};

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
pub fn stand_in(test: &str, rules: &str, settings: &str) -> (Options, tempfile::TempDir) {
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

pub const NOTRACK: &str = "table ip stand-in {
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
    assert!(report.in_plain_words().contains("through Doorstep none of 160 was"), "{report}");
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
        pairs: 2,
        command: Some(["sh", "-c", "echo no such flag; exit 3"].map(Into::into).to_vec()),
        ..Options::default()
    };
    let error = run(options).expect_err("nobody answers").to_string();
    assert!(error.contains("exit status: 3") && error.contains("no such flag"), "{error}");
    assert_gone(&prefix);
}
