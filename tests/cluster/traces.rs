//! What a stopped process leaves behind.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use doorstep::demo::network::{KUBE_DNS_VIP, NODE_LOCAL};
use rustix::process::Signal;

use super::rig::{ADDRESSES, DOORSTEP, Listing, RULES, Rig};

const BACKENDS: [&str; 2] = ["nftables", "iptables"];

/// Rules of the node's own, which must be there afterwards as before.
fn with_foreign_rules(test: &str) -> (Rig, Listing) {
    let rig = Rig::new(test);
    rig.node("iptables -A INPUT -s 203.0.113.9 -j DROP; iptables -t raw -N MINE; iptables -t raw -A PREROUTING -j MINE");
    rig.node("ip6tables -A OUTPUT -d 2001:db8::9 -j DROP");
    rig.node(
        "nft 'table inet mine { chain c { type filter hook input priority 5; tcp dport 53 counter; }; }'",
    );
    let before = rig.listing();
    for mine in ["203.0.113.9", "-j MINE", "2001:db8::9", "table inet mine"] {
        assert!(before.contains(mine), "the listing shows nothing: {before:?}");
    }
    (rig, before)
}

fn teardown(rig: &Rig) -> Command {
    let mut command = rig.cluster.node().command(DOORSTEP);
    command.args(["-localip", &format!("{NODE_LOCAL},{KUBE_DNS_VIP}"), "teardown"]);
    command
}

#[test]
fn sigterm_leaves_the_node_as_it_was() {
    let (rig, before) = with_foreign_rules("trace");
    for backend in BACKENDS {
        let daemon = rig.serve(&["-rules-backend", backend]);
        rig.everybody_resolves();
        assert_ne!(rig.listing(), before);
        daemon.stop();
        assert_eq!(rig.listing(), before, "{backend}");
    }
}

#[test]
fn sigint_and_sigquit_do_too() {
    let (rig, before) = with_foreign_rules("signals");
    for backend in BACKENDS {
        for signal in [Signal::INT, Signal::QUIT] {
            let mut daemon = rig.serve(&["-rules-backend", backend]);
            daemon.signal(signal);
            assert_eq!(daemon.wait().code(), Some(0), "{signal:?}\n{}", daemon.log());
            assert_eq!(rig.listing(), before, "{backend} {signal:?}");
        }
    }
}

/// A pod that is deleted while it starts gets its SIGTERM at any moment.
#[test]
fn sigterm_during_the_start_leaves_nothing_either() {
    let (rig, before) = with_foreign_rules("early");
    for backend in BACKENDS {
        // A start takes about 30 ms with nftables and 100 ms with iptables.
        for delay in (0..160).step_by(8).map(Duration::from_millis) {
            let mut daemon = rig.start(&["-rules-backend", backend]);
            std::thread::sleep(delay);
            daemon.signal(Signal::TERM);
            let status = daemon.wait();
            // Before anything is set up the signal may simply end it.
            let in_order = status.code() == Some(0) || status.signal() == Some(Signal::TERM.as_raw());
            assert!(in_order, "{backend} after {delay:?}: {status}\n{}", daemon.log());
            assert_eq!(rig.listing(), before, "{backend} after {delay:?}: {status}");
        }
    }
}

/// Repairs run on a thread of their own: none may put back what the end takes away.
#[test]
fn sigterm_during_a_repair_leaves_nothing_either() {
    let (rig, before) = with_foreign_rules("rush");
    for delay in (80..180).step_by(10).map(Duration::from_millis) {
        let daemon = rig.serve(&["-rules-backend", "iptables", "-syncinterval", "1s"]);
        rig.node(
            "iptables -t raw -D OUTPUT 1; iptables -D INPUT 1; ip address del 169.254.20.10 dev nodelocaldns",
        );
        // Notifications are acted on after 100 ms.
        std::thread::sleep(delay);
        daemon.stop();
        assert_eq!(rig.listing(), before, "{delay:?}");
    }
}

#[test]
fn skipteardown_leaves_everything_for_teardown_to_remove() {
    let (rig, before) = with_foreign_rules("skip");
    for backend in BACKENDS {
        rig.serve(&["-rules-backend", backend, "-skipteardown"]).stop();
        let link = rig.node("ip -4 -o address show dev nodelocaldns");
        for address in ADDRESSES {
            assert!(link.contains(&format!("{address}/32")), "{link}");
        }
        match backend {
            "nftables" => {
                let table = rig.node("nft list table inet nodelocaldns");
                assert_eq!(table.matches("NodeLocal DNS Cache:").count(), RULES * ADDRESSES.len());
            }
            _ => assert_eq!(rig.commented_rules().len(), RULES * ADDRESSES.len()),
        }
        let output = teardown(&rig).output().expect("doorstep");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(rig.listing(), before, "{backend}");
        // Again, with nothing there.
        let output = teardown(&rig).output().expect("doorstep");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
}

/// The next start takes over what `-skipteardown` left, and leaves nothing of it.
#[test]
fn a_start_after_skipteardown_takes_over() {
    let (rig, before) = with_foreign_rules("after");
    for left in BACKENDS {
        for backend in BACKENDS {
            rig.serve(&["-rules-backend", left, "-skipteardown"]).stop();
            let daemon = rig.serve(&["-rules-backend", backend]);
            rig.everybody_resolves();
            assert_eq!(rig.has_table(), backend == "nftables");
            let expected = if backend == "iptables" { RULES * ADDRESSES.len() } else { 0 };
            assert_eq!(rig.commented_rules().len(), expected, "{left} then {backend}");
            daemon.stop();
            assert_eq!(rig.listing(), before, "{left} then {backend}");
        }
    }
}
