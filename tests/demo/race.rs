//! Racing pairs, as `doorstep demo race` sends them.

use std::time::{Duration, Instant};

use doorstep::demo::network::KUBE_DNS_VIP;
use doorstep::demo::race::{Standalone, Verdict, standalone};
use doorstep::demo::{Cluster, ServiceRules, flush};

use super::{KUBERNETES, dns, up};

/// What `doorstep demo race` does, between this cluster's pods, on its node.
fn race(cluster: &Cluster, options: Standalone) -> Verdict {
    flush(cluster.node()).expect("an empty table");
    cluster.node().run(|| standalone(&options)).expect("entered").expect("a race")
}

#[test]
fn two_threads_clash_and_one_does_not() {
    let cluster = up("race");
    let rules = ServiceRules { endpoints: 3, ..ServiceRules::default() };
    cluster.set_service_rules(rules).expect("rules");
    let options = Standalone {
        server: dns(KUBE_DNS_VIP),
        pairs: 300,
        pace: Duration::ZERO,
        name: KUBERNETES.into(),
        pod: Some(cluster.pod().name().into()),
        second_pod: None,
        one_thread: false,
    };
    let two = race(&cluster, options.clone());
    assert_eq!((two.tally.queries, two.tally.lost), (600, 0));
    assert!(two.statistics.clash_resolve > Some(0), "{:?}", two.statistics);
    assert_eq!(two.tally.latencies.len(), 600);

    let one = race(&cluster, Standalone { one_thread: true, ..options.clone() });
    assert_eq!((one.tally.lost, one.statistics.clash_resolve), (0, Some(0)));

    let wrong = Standalone { name: "nothing-#.cluster.local.".into(), pairs: 3, ..options };
    let wrong = race(&cluster, wrong).tally;
    assert_eq!((wrong.lost, wrong.wrong), (6, 6), "NXDOMAIN is no answer to a name that should be");
}

/// A name that is never answered is lost, asked for once more, and given up.
#[test]
fn silence_is_a_loss() {
    let cluster = up("silent");
    let options = Standalone {
        server: dns(KUBE_DNS_VIP),
        pairs: 2,
        pace: Duration::ZERO,
        name: "drop.cluster.local.".into(),
        pod: Some(cluster.pod().name().into()),
        second_pod: Some(cluster.pod2().name().into()),
        one_thread: false,
    };
    let start = Instant::now();
    let silent = race(&cluster, options).tally;
    assert!(start.elapsed() >= Duration::from_millis(7500));
    assert_eq!((silent.lost, silent.wrong, silent.past_5s), (4, 0, 4));
    assert_eq!(cluster.queries().udp, 8, "each was asked twice");
}

#[test]
fn what_went_wrong_is_told_with_its_cause() {
    let mut doorstep = std::process::Command::new(env!("CARGO_BIN_EXE_doorstep"));
    let output = doorstep.args(["demo", "race", "192.0.2.1", "--pod", "no-such-pod"]).output().expect("run");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout), (Some(1), Vec::new()), "{told}");
    assert!(told.contains("network namespace `no-such-pod`: cannot find it: No such file"), "{told}");
}
