//! `remedy rps` on veths of namespaces.

use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::Duration;

use doorstep::node::remedy::rps::{Config, Rps};
use doorstep::node::remedy::{Remedy, Selection};
use doorstep::node::{Kept, Reconciler};

use crate::common::netns::{attempt, eventually, isolated, run};
use crate::common::race::{self, Pairs};
use crate::pod::Pod;

/// sysfs of the caller's namespace; `/sys` is the machine's.
struct Sys(PathBuf);

impl Sys {
    fn mount() -> Sys {
        let folder = tempfile::tempdir().unwrap().keep();
        run(&format!("mount -t sysfs sysfs {}", folder.display()));
        Sys(folder)
    }

    fn mask(&self, link: &str) -> u32 {
        let path = self.0.join(format!("class/net/{link}/queues/rx-0/rps_cpus"));
        u32::from_str_radix(std::fs::read_to_string(path).unwrap().trim(), 16).unwrap()
    }

    fn set(&self, link: &str, mask: u32) {
        let path = self.0.join(format!("class/net/{link}/queues/rx-0/rps_cpus"));
        std::fs::write(path, format!("{mask:x}")).unwrap();
    }
}

impl Drop for Sys {
    fn drop(&mut self) {
        attempt(&format!("umount {0}; rmdir {0}", self.0.display()));
    }
}

fn rps(sys: &Path, config: Config) -> Rps {
    Rps::new(config, sys).unwrap()
}

#[test]
fn pods_links_get_the_mask_and_their_own_back() {
    isolated(|| {
        let (one, two) = (Pod::start(1), Pod::start(2));
        // Both ends here: nobody's pod.
        run("ip link add veth0 type veth peer name veth1; ip link add bridge0 type bridge");
        let sys = Sys::mount();
        sys.set(&two.link, 1);
        let mut remedy = rps(&sys.0, Config { mask: Some("3".parse().unwrap()), ..Config::default() });
        assert!(remedy.reconcile().is_none());
        assert_eq!((sys.mask(&one.link), sys.mask(&two.link)), (3, 3));
        assert_eq!((sys.mask("veth0"), sys.mask("bridge0")), (0, 0));
        sys.set(&one.link, 0);
        assert_eq!(remedy.reconcile().links, 1);
        assert_eq!(sys.mask(&one.link), 3);
        run(&format!("ip link delete {}", one.link));
        assert!(remedy.reconcile().is_none());
        assert_eq!(format!("{:?}", remedy.undo()), "[]");
        assert_eq!(sys.mask(&two.link), 1);
    });
}

#[test]
fn a_link_that_is_renamed_gets_its_own_mask_back() {
    isolated(|| {
        let pod = Pod::start(1);
        let sys = Sys::mount();
        let mut remedy = rps(&sys.0, Config::default());
        assert!(remedy.reconcile().is_none());
        run(&format!("ip link set {} name cali1", pod.link));
        assert!(remedy.reconcile().is_none());
        assert_ne!(sys.mask("cali1"), 0);
        assert!(remedy.undo().is_empty());
        assert_eq!(sys.mask("cali1"), 0);
    });
}

/// `nsenter --net` brings no sysfs along: what it shows is not this node's.
#[test]
fn the_sysfs_of_another_namespace_is_not_written_to() {
    isolated(|| {
        let _pod = Pod::start(1);
        let sys = Sys::mount();
        isolated(move || {
            // The pod there has another index.
            run(
                "ip link add first type bridge; ip link add second type bridge; ip link add third type bridge",
            );
            let pod = Pod::start(1);
            let mut remedy = rps(&sys.0, Config::default());
            let errors = remedy.reconcile().errors;
            assert_eq!(errors.len(), 1);
            assert!(errors[0].to_string().contains("another network namespace"), "{}", errors[0]);
            assert_eq!(sys.mask(&pod.link), 0);
        });
    });
}

#[test]
fn a_new_pods_link_gets_the_mask_at_once() {
    isolated(|| {
        let sys = Sys::mount();
        let mut remedy = rps(&sys.0, Config::default());
        assert!(remedy.reconcile().is_none());
        let (sender, events) = channel();
        let reconciler = Reconciler::spawn(remedy, Duration::from_secs(3600), move |event| {
            let _ = sender.send(event);
        });
        let pod = Pod::start(1);
        // All CPUs of the machine: `auto`.
        eventually(|| sys.mask(&pod.link) != 0);
        assert!(reconciler.unwrap().stop().undo().is_empty());
        assert_eq!(sys.mask(&pod.link), 0);
        assert!(events.iter().all(|event| event.drift.is_none()), "a new link is no drift");
    });
}

#[test]
fn links_can_be_named() {
    isolated(|| {
        run("ip link add cali1 type veth peer name other; ip link add cali2 type bridge");
        let sys = Sys::mount();
        let links = Selection::Named(vec!["cali*".into()]);
        let mut remedy = rps(&sys.0, Config { mask: Some("1".parse().unwrap()), links });
        assert!(remedy.reconcile().is_none());
        assert_eq!((sys.mask("cali1"), sys.mask("cali2"), sys.mask("other")), (1, 1, 0));
    });
}

/// A ClusterIP with three servers behind it, as kube-proxy has it in nftables mode.
fn service(servers: &[Pod]) {
    let map: Vec<String> = servers.iter().enumerate().map(|(n, pod)| format!("{n} : {}", pod.v4())).collect();
    run(&format!(
        "nft 'table ip proxy {{ chain c {{ type nat hook prerouting priority dstnat;
             ip daddr 10.96.0.10 udp dport 53 dnat to numgen random mod {} map {{ {} }} : 53; }}; }}'
         ip route add default dev lo",
        servers.len(),
        map.join(", ")
    ));
}

#[test]
fn racing_pairs_clash_without_the_mask_and_not_with_it() {
    isolated(|| {
        let client = Pod::start(1);
        let servers: Vec<Pod> = (2..5).map(Pod::start).collect();
        for (id, pod) in (1..).zip(&servers) {
            let address = pod.v4();
            pod.run(move || race::serve(id, address));
            client.reaches(address);
        }
        service(&servers);
        let sys = Sys::mount();
        // One address and port in use for 30 s cannot race again.
        let clashes_of = |pairs: Pairs| {
            run("conntrack -F 2>/dev/null");
            let before = race::counters()["clashres"];
            let outcome = client.run(move || race::run(&pairs, "10.96.0.10".parse().unwrap()));
            (race::counters()["clashres"] - before, outcome)
        };
        let (clashes, outcome) = clashes_of(Pairs::new(300));
        println!("without: {clashes} clashes, {}", outcome.line());
        assert!(clashes > 0);
        assert_eq!((outcome.lost, outcome.wrong, outcome.servers.len()), (0, 0, 3), "{}", outcome.line());
        let (_, outcome) = clashes_of(Pairs::slow(60, 1300, Duration::from_secs(2)));
        println!("without, answers after 1.3 s: {}", outcome.line());
        assert!(outcome.lost > 0, "{}", outcome.line());
        let mut remedy = rps(&sys.0, Config::default());
        assert!(remedy.reconcile().is_none());
        let (clashes, outcome) = clashes_of(Pairs::new(2000));
        println!("with: {clashes} clashes, {}", outcome.line());
        assert_eq!((clashes, outcome.lost, outcome.wrong), (0, 0, 0), "{}", outcome.line());
        let (clashes, outcome) = clashes_of(Pairs::slow(60, 1300, Duration::from_secs(2)));
        println!("with, answers after 1.3 s: {}", outcome.line());
        assert_eq!((clashes, outcome.lost), (0, 0), "{}", outcome.line());
    });
}
