//! Faults made for real in network namespaces, with Doorstep and the distribution's tools.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use doorstep::node::Kept;
use doorstep::node::remedy::Remedy;
use doorstep::node::remedy::random_fully::RandomFully;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tempfile::TempDir;

use super::command_line::DOORSTEP;
use super::common::netns::{eventually, isolated, run};

const LINK_LOCAL: &str = "169.254.20.10";
const VIP: &str = "10.96.0.10";
const COREFILE: &str = "\
.:53 {
    bind 169.254.20.10 10.96.0.10
    errors
    cache
    forward . 192.0.2.53
    health 169.254.20.10:8080
    ready :8181
    prometheus :9253
}
";
/// kube-proxy's chains, as far as the doctor looks at them.
const KUBE_PROXY: &str = "iptables -t nat -N KUBE-SERVICES; \
    iptables -t nat -A KUBE-SERVICES -d 10.96.0.10/32 -p udp --dport 53 \
        -m comment --comment 'kube-system/kube-dns:dns cluster IP' -j ACCEPT; \
    iptables -t nat -A POSTROUTING -j MASQUERADE --random-fully";
/// What kubelet tells pods, and what one of them reads.
const KUBELET: &str = "mount -t tmpfs none /var/lib && mkdir /var/lib/kubelet && \
    printf 'clusterDNS:\\n- 10.96.0.10\\n' > /var/lib/kubelet/config.yaml";

/// Findings by id: severity and evidence; and the exit status.
pub struct Diagnosis {
    pub findings: BTreeMap<String, (String, String)>,
    status: i32,
    whole: Value,
}

impl Diagnosis {
    pub fn ids(&self) -> Vec<&str> {
        self.findings.keys().map(String::as_str).collect()
    }

    #[track_caller]
    pub fn has(&self, id: &str, severity: &str, evidence: &str) {
        let Some((found, seen)) = self.findings.get(id) else { panic!("no {id}: {:#}", self.whole) };
        assert_eq!(found, severity, "{:#}", self.whole);
        assert!(seen.contains(evidence), "{:#}", self.whole);
    }
}

/// Runs the doctor in the calling thread's network namespace and a mount namespace of its own, after `setup`:
/// sysfs shows the namespace in which it was mounted, and `/run` is the machine's.
pub fn doctor(setup: &str, flags: &str) -> Diagnosis {
    let script = format!(
        "mount -t sysfs none /sys && mount -t tmpfs none /run && {setup} {DOORSTEP} doctor -json {flags}"
    );
    let mut command = Command::new("unshare");
    let output = command.args(["--mount", "sh", "-c", &script]).output().expect("unshare");
    let errors = String::from_utf8_lossy(&output.stderr);
    let whole: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"));
    let text = |finding: &Value, member: &str| finding[member].as_str().expect("text").to_owned();
    let findings = whole["findings"].as_array().expect("an array").iter();
    let findings = findings
        .map(|finding| (text(finding, "id"), (text(finding, "severity"), text(finding, "evidence"))))
        .collect();
    Diagnosis { findings, status: output.status.code().expect("no signal"), whole }
}

/// The doctor without a second reading.
fn once() -> Diagnosis {
    doctor("", "-interval 0")
}

/// A running Doorstep; dropping it kills it.
struct Daemon {
    child: Child,
    directory: TempDir,
}

impl Daemon {
    fn start(flags: &[&str]) -> Daemon {
        let directory = tempfile::tempdir().unwrap();
        let corefile = directory.path().join("Corefile");
        fs::write(&corefile, COREFILE).unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let child = Command::new(DOORSTEP)
            .args(["-localip", &format!("{LINK_LOCAL},{VIP}"), "-conf"])
            .arg(&corefile)
            .args(flags)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let daemon = Daemon { child, directory };
        eventually(|| ready().is_some_and(|answer| answer.contains(" 200 ")));
        daemon
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// To all of its processes at once.
    fn signal(&self, signal: Signal) {
        kill_process_group(Pid::from_child(&self.child), signal).unwrap();
    }

    /// SIGKILL, and its sockets are gone.
    fn kill(mut self) {
        self.signal(Signal::KILL);
        self.child.wait().unwrap();
        eventually(|| ready().is_none());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.directory.path().join("log")).unwrap_or_default());
        }
    }
}

fn ready() -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", 8181)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    stream.write_all(b"GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// A process in a network namespace of its own whose resolv.conf is a pod's.
struct Pod(Child);

impl Pod {
    fn start(nameserver: &str) -> Pod {
        let script = format!(
            "mount -t tmpfs none /mnt && printf 'search a.svc.cluster.local svc.cluster.local\\n\
             nameserver {nameserver}\\noptions ndots:5\\n' > /mnt/resolv.conf && \
             mount --bind /mnt/resolv.conf /etc/resolv.conf && echo && exec sleep 60"
        );
        let mut command = Command::new("unshare");
        let mut child =
            command.args(["--net", "--mount", "sh", "-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).expect("a pod");
        Pod(child)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_healthy_node_is_silent_with_either_backend() {
    for backend in ["nftables", "iptables"] {
        isolated(|| {
            run(KUBE_PROXY);
            let daemon = Daemon::start(&["-rules-backend", backend]);
            let _pod = Pod::start(VIP);
            let found = doctor(&format!("{KUBELET} &&"), "-interval 200ms");
            assert!(found.findings.is_empty() && found.status == 0, "{backend}: {:#}", found.whole);
            assert_eq!(found.whole["kube_proxy"], "iptables");
            assert_eq!(found.whole["cache"]["pid"], daemon.pid());
            assert_eq!(found.whole["cache"]["version"], env!("CARGO_PKG_VERSION"));
            assert_eq!(found.whole["local_ips"], serde_json::json!([LINK_LOCAL, VIP]));
        });
    }
}

#[test]
fn a_host_that_is_no_node_is_silent() {
    isolated(|| {
        let found = once();
        assert!(found.findings.is_empty() && found.status == 0, "{:#}", found.whole);
        assert!(found.whole["kube_proxy"].is_null());
        let output = Command::new(DOORSTEP).args(["doctor", "-interval", "0"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.starts_with("Nothing found: ") && text.lines().count() == 1, "{text}");
    });
}

#[test]
fn what_sigkill_leaves() {
    isolated(|| {
        run(KUBE_PROXY);
        Daemon::start(&["-rules-backend", "iptables"]).kill();
        let found = once();
        assert_eq!(found.status, 2);
        found.has("notrack-without-listener", "critical", "10.96.0.10:53: no udp socket, no tcp socket");
        found.has("notrack-without-listener", "critical", "169.254.20.10:53");
        found.has("leftover-rules", "warning", "NodeLocal DNS Cache: ");
        found.has("leftover-link", "warning", "nodelocaldns");
        found.has("cache-absent", "warning", "iptables");
        run(&format!("{DOORSTEP} teardown -localip {LINK_LOCAL},{VIP}"));
        assert_eq!(once().ids(), ["cache-absent"]);
    });
}

#[test]
fn rules_of_node_cache_by_hand() {
    isolated(|| {
        run(&format!("ip address add {LINK_LOCAL}/32 dev lo"));
        for chain in ["PREROUTING", "OUTPUT"] {
            run(&format!(
                "iptables -t raw -I {chain} -p udp -d {LINK_LOCAL} --dport 53 -j NOTRACK \
                 -m comment --comment 'NodeLocal DNS Cache: skip conntrack'"
            ));
        }
        let found = once();
        found.has("leftover-rules", "warning", "raw PREROUTING -d 169.254.20.10/32");
        found.has("notrack-without-listener", "critical", "no udp socket");
        run("iptables -t raw -F");
        assert_eq!(once().ids(), ["address-without-listener"]);
    });
}

#[test]
fn a_table_that_outlived_its_process() {
    isolated(|| {
        Daemon::start(&["-rules-backend", "nftables", "-skipteardown"]).kill();
        let found = once();
        found.has("notrack-without-listener", "critical", "10.96.0.10:53");
        found.has("leftover-rules", "warning", "24 rules in nftables table inet nodelocaldns");
    });
}

#[test]
fn a_rule_that_somebody_removed_and_a_process_that_hangs() {
    isolated(|| {
        let daemon = Daemon::start(&["-rules-backend", "iptables"]);
        // It would put the rule back.
        daemon.signal(Signal::STOP);
        run(&format!(
            "iptables -t raw -D OUTPUT -s {LINK_LOCAL}/32 -p udp -m udp --sport 53 \
             -m comment --comment 'NodeLocal DNS Cache: skip conntrack' -j NOTRACK"
        ));
        let found = once();
        assert_eq!(found.ids(), ["no-answer", "not-ready", "rules-missing"]);
        found.has("no-answer", "critical", "169.254.20.10: no answer in 2 s");
        found.has("rules-missing", "warning", "1 of 20 rules are missing\nraw OUTPUT -s 169.254.20.10/32");
        found.has("not-ready", "critical", "/health does not answer");
        // The ClusterIP's alone.
        run(&format!("iptables-save -t raw | grep -v {VIP} | iptables-restore -T raw"));
        once().has("clusterip-bypassed", "warning", VIP);
    });
}

#[test]
fn masquerade_without_random_fully() {
    isolated(|| {
        run("iptables -t nat -A POSTROUTING -s 10.244.0.0/16 -j MASQUERADE");
        run(
            "nft add table inet cni; nft add chain inet cni post '{ type nat hook postrouting priority 100; }'",
        );
        run("nft add rule inet cni post ip saddr 10.244.0.0/16 masquerade");
        let found = once();
        found.has("masquerade-not-random", "note", "nat POSTROUTING -s 10.244.0.0/16 -j MASQUERADE");
        found.has("masquerade-not-random", "note", "nftables table inet cni, chain post, handle ");
        assert_eq!(found.status, 0);
        let mut remedy = RandomFully::new();
        assert!(remedy.reconcile().is_none());
        assert!(once().findings.is_empty(), "cured");
        assert!(remedy.undo().is_empty());
        run("iptables -t nat -F; iptables -t nat -A POSTROUTING -j MASQUERADE --random-fully");
        run("nft flush chain inet cni post; nft add rule inet cni post masquerade fully-random");
        assert!(once().findings.is_empty());
    });
}

#[test]
fn another_program_on_port_53() {
    isolated(|| {
        let socket = UdpSocket::bind("0.0.0.0:53").unwrap();
        let found = once();
        assert_eq!(found.ids(), ["port-conflict"]);
        found.has("port-conflict", "warning", &format!("udp 0.0.0.0:53, {}", own_name()));
        assert_eq!(found.status, 1);
        drop(socket);
        assert!(once().findings.is_empty());
    });
}

/// As `/proc` has it, and this process's number.
fn own_name() -> String {
    let pid = std::process::id();
    format!("{} (process {pid})", fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim())
}

#[test]
fn links_of_pods() {
    isolated(|| {
        run(KUBE_PROXY);
        run("ip link add veth1 type veth peer name veth2; ip link set veth1 up; ip link set veth2 up");
        run("ip link set veth2 mtu 1200");
        let found = once();
        assert_eq!(found.ids(), ["cache-absent", "mtu-below-edns", "rps-off"]);
        found.has("rps-off", "note", "veth1: rps_cpus is 0");
        found.has("mtu-below-edns", "warning", "veth2 has an MTU of 1200");
        // With the machine's own /sys.
        let output = Command::new(DOORSTEP).args(["doctor", "-json", "-interval", "0"]).output().unwrap();
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let unread = "packet steering: /sys shows the links of another network namespace";
        assert_eq!(found["could_not_read"], serde_json::json!([unread]));
        assert!(found.to_string().contains("veth2 has an MTU of 1200"));
        let steer = "for link in veth1 veth2; do echo 1 > /sys/class/net/$link/queues/rx-0/rps_cpus; done;";
        assert_eq!(doctor(steer, "-interval 0").ids(), ["cache-absent", "mtu-below-edns"]);
    });
}

#[test]
fn a_lock_that_is_held() {
    isolated(|| {
        let found = doctor("flock -x /run/xtables.lock", "-interval 100ms");
        assert_eq!(found.ids(), ["xtables-lock-held"]);
        found.has("xtables-lock-held", "warning", "at each of 2 readings");
        assert!(doctor("flock -x /run/xtables.lock true;", "-interval 100ms").findings.is_empty());
    });
}

#[test]
fn firewalls_that_drop() {
    isolated(|| {
        let _daemon = Daemon::start(&["-rules-backend", "nftables"]);
        run("iptables -P INPUT DROP; iptables -A INPUT -i lo -j ACCEPT");
        let found = once();
        assert_eq!(found.ids(), ["firewall-drops-dns"]);
        found.has("firewall-drops-dns", "critical", "INPUT: its policy is DROP, no accept for 169.254.20.10");
        run("iptables -A INPUT -p udp --dport 53 -j ACCEPT");
        assert!(once().findings.is_empty());

        run(
            "iptables -P INPUT ACCEPT; iptables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        );
        run("iptables -A FORWARD -j REJECT; iptables -t raw -A PREROUTING -p udp --sport 53 -j CT --notrack");
        let found = once();
        assert_eq!(found.ids(), ["forward-drops-untracked"]);
        found.has("forward-drops-untracked", "critical", "FORWARD: it ends in REJECT");
    });
}

#[test]
fn whom_pods_and_the_node_ask() {
    isolated(|| {
        let _daemon = Daemon::start(&["-rules-backend", "nftables"]);
        let pod = Pod::start("10.96.0.99");
        let found = doctor(&format!("{KUBELET} &&"), "-interval 0");
        assert_eq!(found.ids(), ["pods-ask-elsewhere"]);
        let seen = format!("process {}: nameserver 10.96.0.99", pod.0.id());
        found.has("pods-ask-elsewhere", "note", &seen);

        let elsewhere = KUBELET.replace(VIP, "10.96.0.99");
        let found = doctor(&format!("{elsewhere} &&"), "-interval 0");
        assert_eq!(found.ids(), ["kubelet-asks-elsewhere"]);

        let looping = "echo nameserver 169.254.20.10 > /run/r && mount --bind /run/r /etc/resolv.conf &&";
        doctor(looping, "-interval 0").has("resolv-conf-loop", "warning", LINK_LOCAL);
    });
}

/// Which kube-proxy it is, with tools and without them.
#[test]
fn kube_proxy_by_its_traces() {
    isolated(|| {
        run(KUBE_PROXY);
        let found = doctor("", "-interval 0");
        assert_eq!((found.ids(), &found.whole["kube_proxy"]), (vec!["cache-absent"], &"iptables".into()));
        // As in an image that holds nothing but Doorstep; iptables-nft keeps its rules in nftables.
        let found = doctor("PATH=/nowhere", "-interval 0");
        assert_eq!(found.ids(), ["cache-absent", "could-not-read"]);
        assert_eq!(found.whole["kube_proxy"], "iptables");
        found.has("could-not-read", "note", "iptables-save: no such program in PATH");
        run("iptables -t nat -F; iptables -t nat -X");
        assert!(once().whole["kube_proxy"].is_null());
        run(&KUBE_PROXY.replace("iptables", "iptables-legacy"));
        assert_eq!(once().whole["kube_proxy"], "iptables");
        run("nft add table ip kube-proxy");
        assert_eq!(once().whole["kube_proxy"], "nftables");
    });
}

/// Flags win over the running process, and that over the defaults.
#[test]
fn which_addresses_are_meant() {
    isolated(|| {
        let shown = |flags: &str| doctor("", &format!("-interval 0 {flags}")).whole["local_ips"].to_string();
        assert_eq!(shown(""), "[\"169.254.20.10\"]");
        let _daemon = Daemon::start(&["-rules-backend", "nftables"]);
        assert_eq!(shown(""), "[\"169.254.20.10\",\"10.96.0.10\"]");
        assert_eq!(shown("-localip 10.96.0.7"), "[\"10.96.0.7\"]");
    });
}
