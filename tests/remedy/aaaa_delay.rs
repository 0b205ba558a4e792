//! `remedy aaaa-delay` at pods' links. This kernel has no netem, so nothing waits on the detour here:
//! what takes it and what does not, and that it leaves no trace. The wait is for `tests/vm`.

use std::net::{IpAddr, UdpSocket};
use std::sync::mpsc::channel;
use std::time::Duration;

use doorstep::node::remedy::aaaa_delay::{AaaaDelay, Config, IFB};
use doorstep::node::remedy::{Remedy, clean};
use doorstep::node::{Kept, Reconciler};

use crate::common::netns::{eventually, isolated, run, unspecified};
use crate::pod::{Pod, serve};

fn remedy() -> AaaaDelay {
    AaaaDelay::new(&Config { delay: Duration::ZERO, ..Config::default() })
}

/// A query for `name.example.` that the pod sends, and whether it is answered.
fn asks(pod: &Pod, server: IpAddr, kind: u8) -> bool {
    pod.run(move || {
        let socket = UdpSocket::bind((unspecified(server), 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x04name\x07example\0\0".to_vec();
        query.extend([kind, 0, 1]);
        socket.send_to(&query, (server, 53)).unwrap();
        let mut buffer = [0; 512];
        socket.recv_from(&mut buffer).is_ok_and(|(length, _)| buffer[..length] == query)
    })
}

/// Packets that took the detour so far.
fn detoured() -> u64 {
    let shown = run(&format!("ip -statistics link show dev {IFB}"));
    let count = shown.lines().skip_while(|line| !line.contains("TX:")).nth(1).unwrap();
    count.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What is on links, without counts.
fn listing() -> String {
    run("ip -oneline link | cut -d: -f2; tc qdisc show
         for link in $(ls /proc/thread-self/net/dev_snmp6); do echo $link; tc filter show dev $link ingress; done")
}

const KINDS: [(u8, u64); 4] = [(1, 0), (28, 1), (65, 0), (28, 1)];

#[test]
fn aaaa_queries_alone_take_the_detour_and_are_answered() {
    isolated(|| {
        let pods = [Pod::start(1), Pod::start(2).on_bridge()];
        for vip in ["10.96.0.10", "fd00:96::a"] {
            let vip: IpAddr = vip.parse().unwrap();
            run(&format!("ip addr add {vip} dev lo"));
            eventually(|| UdpSocket::bind((vip, 0)).is_ok());
            serve(vip);
            pods.iter().for_each(|pod| pod.reaches(vip));
        }
        let mut remedy = remedy();
        assert_eq!(format!("{:?}", remedy.reconcile().errors), "[]");
        let mut expected = 0;
        for pod in &pods {
            for vip in ["10.96.0.10", "fd00:96::a"] {
                for (kind, detours) in KINDS {
                    assert!(asks(pod, vip.parse().unwrap(), kind), "{vip} {kind}");
                    expected += detours;
                    assert_eq!(detoured(), expected, "{vip} {kind}");
                }
            }
        }
    });
}

#[test]
fn afterwards_links_are_as_before() {
    isolated(|| {
        let (one, two) = (Pod::start(1), Pod::start(2));
        // Somebody's own filter, as CNI plugins have it.
        run(&format!(
            "tc qdisc add dev {0} clsact; tc filter add dev {0} ingress prio 9 bpf bytecode '1,6 0 0 0'",
            two.link
        ));
        let mut remedy = remedy();
        assert!(remedy.reconcile().is_none());
        assert_eq!(listing().matches("mirred").count(), 2, "{}", listing());
        assert!(remedy.reconcile().is_none());
        run(&format!("ip link delete {}; ip link add name {} type bridge", one.link, one.link));
        assert!(remedy.reconcile().is_none(), "the pod ended, a bridge is none");
        let undone = remedy.undo();
        assert_eq!(format!("{undone:?}"), "[]");
        let after = listing();
        assert!(!after.contains(IFB) && !after.contains("mirred"), "{after}");
        assert!(after.contains("pref 9"), "{after}");
        assert_eq!(after.matches("clsact").count(), 1, "{after}");
    });
    isolated(|| {
        let _pod = Pod::start(1);
        let before = listing();
        let mut remedy = remedy();
        remedy.reconcile();
        assert_ne!(listing(), before);
        assert!(remedy.undo().is_empty());
        assert_eq!(listing(), before);
    });
}

#[test]
fn new_pods_and_damage_are_seen_at_once() {
    isolated(|| {
        let first = Pod::start(1);
        let mut remedy = remedy();
        remedy.reconcile();
        let (sender, events) = channel();
        let reconciler = Reconciler::spawn(remedy, Duration::from_secs(3600), move |event| {
            let _ = sender.send(event);
        });
        let filtered =
            |pod: &Pod| run(&format!("tc filter show dev {} ingress", pod.link)).contains("mirred");
        let second = Pod::start(2);
        eventually(|| filtered(&second));
        // A redirection to a link that is gone drops: this must be repaired first of all.
        run(&format!("ip link delete {IFB}"));
        let event = events.iter().find(|event| event.drift.links > 0).unwrap();
        assert!(event.drift.errors.is_empty(), "{event:?}");
        for pod in [&first, &second] {
            let filters = run(&format!("tc filter show dev {} ingress", pod.link));
            assert!(filters.contains(IFB), "{filters}");
        }
        assert!(reconciler.unwrap().stop().undo().is_empty());
        assert!(!filtered(&first) && !filtered(&second));
    });
}

#[test]
fn a_killed_remedy_is_adopted_or_cleaned() {
    isolated(|| {
        let pod = Pod::start(1);
        let before = listing();
        let mut killed = remedy();
        killed.reconcile();
        drop(killed);
        let left = listing();
        assert_ne!(left, before);
        let mut next = remedy();
        assert!(next.reconcile().is_none());
        assert_eq!(listing(), left);
        assert!(next.undo().is_empty());
        assert_eq!(listing(), before);
        let mut killed = remedy();
        killed.reconcile();
        drop(killed);
        run(&format!("ip link delete {IFB}"));
        assert_eq!(format!("{:?}", clean()), "[]");
        assert_eq!(listing(), before, "{}", pod.link);
        assert_eq!(format!("{:?}", clean()), "[]");
    });
}

#[test]
fn without_netem_it_says_so_and_leaves_nothing() {
    isolated(|| {
        let _pod = Pod::start(1);
        let before = listing();
        let mut remedy = AaaaDelay::new(&Config::default());
        let drift = remedy.reconcile();
        if let Some(error) = drift.errors.first() {
            assert!(error.to_string().contains("sch_netem"), "{error}");
        }
        assert!(remedy.undo().is_empty());
        assert_eq!(listing(), before);
    });
}
