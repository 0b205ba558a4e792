//! Others change our link and rules while we serve.

use std::time::{Duration, Instant};

use super::rig::{ADDRESSES, PATIENCE, RULES, Rig, eventually};

/// A change is announced, and acted on 100 ms later; the rest is the machine's.
const SOON: Duration = Duration::from_secs(3);

/// Makes a change, waits until the node looks as before, and sees who repaired it.
fn repaired(rig: &Rig, change: &str, kind: &str) {
    let (before, repairs) = (rig.listing(), rig.repairs(kind));
    rig.node(change);
    let start = Instant::now();
    let is_repaired = eventually(SOON, || rig.listing() == before && rig.repairs(kind) > repairs);
    assert!(is_repaired, "{change}: {repairs} repairs, now {}\n{:?}", rig.repairs(kind), rig.listing());
    println!("{change}: repaired after {:?}", start.elapsed());
    rig.everybody_resolves();
}

/// Link indexes and the order of links change when one is made anew.
fn link_is_whole(rig: &Rig, name: &str) -> bool {
    let shown = super::rig::shell(rig.cluster.node(), &format!("ip -o address show dev {name}"));
    shown.is_ok_and(|shown| ADDRESSES.iter().all(|address| shown.contains(&format!("{address}/32"))))
}

fn link_comes_back(rig: &Rig) {
    let repairs = rig.repairs("link");
    rig.node("ip link delete nodelocaldns");
    let is_repaired =
        eventually(SOON, || link_is_whole(rig, "nodelocaldns") && rig.repairs("link") > repairs);
    assert!(is_repaired, "{:?}", rig.listing());
    rig.everybody_resolves();
}

#[test]
fn iptables_rules_and_addresses_come_back() {
    let rig = Rig::new("fixipt");
    let daemon = rig.serve(&["-rules-backend", "iptables"]);
    assert_eq!((rig.repairs("rule"), rig.repairs("address"), rig.repairs("link")), (0, 0, 0));
    repaired(&rig, "iptables -t raw -F", "rule");
    assert_eq!(rig.repairs("rule"), 16, "eight of twelve rules per address are in raw");
    repaired(&rig, "iptables -D INPUT 1", "rule");
    assert_eq!(rig.repairs("rule"), 17);
    repaired(&rig, "iptables -F; iptables -t raw -F", "rule");
    assert_eq!(rig.commented_rules().len(), RULES * ADDRESSES.len());
    repaired(&rig, "ip address delete 10.96.0.10/32 dev nodelocaldns", "address");
    assert_eq!(rig.repairs("address"), 1);
    link_comes_back(&rig);
    daemon.stop();
}

#[test]
fn the_nftables_table_is_out_of_reach_and_addresses_come_back() {
    let rig = Rig::new("fixnft");
    let daemon = rig.serve(&["-rules-backend", "nftables"]);
    for attempt in [
        "nft delete table inet nodelocaldns",
        "nft flush table inet nodelocaldns",
        "nft flush chain inet nodelocaldns raw_prerouting",
        "nft add rule inet nodelocaldns raw_prerouting accept",
    ] {
        let refusal = rig.node_refuses(attempt);
        assert!(refusal.contains("Operation not permitted"), "{attempt}: {refusal}");
    }
    assert_eq!(rig.repairs("rule"), 0);
    repaired(&rig, "ip address delete 169.254.20.10/32 dev nodelocaldns", "address");
    repaired(&rig, "ip address flush dev nodelocaldns", "address");
    link_comes_back(&rig);
    // Rules of an address that went while the others were put back went with it.
    let repairs = rig.repairs("rule");
    // A whole firewall reload passes our table by. It takes kube-proxy's along, so only hits are left.
    rig.node("nft flush ruleset");
    assert_eq!(rig.node("nft list tables"), "table inet nodelocaldns\n");
    rig.everybody_resolves();
    assert_eq!(rig.repairs("rule"), repairs);
    daemon.stop();
}

/// `iptables-legacy` announces nothing: only the interval notices. Written as clusters write it.
#[test]
fn what_nobody_announces_is_repaired_at_the_interval() {
    let rig = Rig::new("interval");
    let flags = ["-rules-backend", "iptables", "-syncinterval", "1ns"];
    let mut daemon = rig.start_with_path(&flags, Some(&rig.legacy_tools()));
    rig.wait_until_ready(&mut daemon);
    let whole = || rig.node("iptables-legacy-save").matches("NodeLocal DNS Cache:").count() == 24;
    assert!(whole());
    for flush in ["iptables-legacy -t raw -F", "iptables-legacy -F"] {
        rig.node(flush);
        assert!(eventually(SOON, whole), "{}", daemon.log());
    }
    assert!(eventually(SOON, || rig.repairs("rule") == 24));
    rig.everybody_resolves();
    daemon.stop();
}

/// With the default interval of a minute the same stays broken: the test above does show the interval. The
/// start looks once more after it is ready, and the kernel tells of a new link for up to a second
/// (`linkwatch`): what these two repair is broken again.
#[test]
fn without_the_interval_nothing_would_be_noticed() {
    let rig = Rig::new("minute");
    let mut daemon = rig.start_with_path(&["-rules-backend", "iptables"], Some(&rig.legacy_tools()));
    rig.wait_until_ready(&mut daemon);
    let stays_broken = || {
        let repairs = rig.repairs("rule");
        rig.node("iptables-legacy -t raw -F");
        std::thread::sleep(Duration::from_millis(1500));
        rig.repairs("rule") == repairs
    };
    assert!((0..3).any(|_| stays_broken()), "{}", daemon.log());
    daemon.stop();
}

/// Somebody who undoes us again and again costs repairs, not service, and does not win the end.
#[test]
fn a_fight_over_the_link_is_won_in_the_end() {
    let rig = Rig::new("fight");
    let before = rig.listing();
    let daemon = rig.serve(&["-rules-backend", "iptables"]);
    for _ in 0..20 {
        rig.node("iptables -t raw -F; ip link delete nodelocaldns 2>/dev/null || true");
        std::thread::sleep(Duration::from_millis(20));
    }
    let whole = || link_is_whole(&rig, "nodelocaldns") && rig.commented_rules().len() == 24;
    assert!(eventually(PATIENCE, whole), "{}", daemon.log());
    rig.everybody_resolves();
    daemon.stop();
    assert_eq!(rig.listing(), before);
}

/// Two at once, as when a DaemonSet is rolled out with a surge: the end of the first takes link and rules
/// from under the second, which puts them back.
#[test]
fn a_second_one_beside_it_repairs_what_the_end_of_the_first_takes_away() {
    for backend in ["nftables", "iptables"] {
        let rig = Rig::new(&format!("two{}", &backend[..3]));
        let before = rig.listing();
        let first = rig.serve(&["-rules-backend", backend]);
        let second = rig.serve(&["-rules-backend", backend]);
        rig.everybody_resolves();
        first.stop();
        let whole = || {
            let rules =
                if backend == "nftables" { rig.has_table() } else { rig.commented_rules().len() == 24 };
            rules && link_is_whole(&rig, "nodelocaldns")
        };
        assert!(eventually(SOON, whole), "{backend}: {:?}", rig.listing());
        rig.everybody_resolves();
        second.stop();
        assert_eq!(rig.listing(), before, "{backend}");
    }
}
