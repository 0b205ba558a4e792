//! `doorstep remedy` as an operator meets it, and the mode for nodes where nothing is to be set up.

use std::fs::File;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::common::netns::{eventually, isolated, run};
use crate::common::race::{self, Pairs};
use crate::pod::Pod;

const DOORSTEP: &str = env!("CARGO_BIN_EXE_doorstep");

/// The program in the caller's namespace, and what it says.
struct Program {
    child: Child,
    log: tempfile::NamedTempFile,
}

impl Program {
    fn start(words: &[&str]) -> Program {
        let log = tempfile::NamedTempFile::new().unwrap();
        let file = File::options().append(true).open(log.path()).unwrap();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        Program { child: command.spawn().unwrap(), log }
    }

    fn says(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    fn wait_for(&self, text: &str) {
        eventually(|| self.says().contains(text));
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn status(&mut self) -> i32 {
        eventually(|| {
            rustix::process::waitid(
                rustix::process::WaitId::Pid(Pid::from_child(&self.child)),
                rustix::process::WaitIdOptions::EXITED
                    | rustix::process::WaitIdOptions::NOHANG
                    | rustix::process::WaitIdOptions::NOWAIT,
            )
            .is_ok_and(|status| status.is_some())
        });
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn links() -> String {
    run("ip -oneline link | cut -d: -f2; tc qdisc show; nft list ruleset")
}

#[test]
fn a_signal_ends_a_remedy_and_undoes_it() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        isolated(move || {
            let _pod = Pod::start(1);
            let before = links();
            let mut program = Program::start(&[DOORSTEP, "remedy", "aaaa-delay", "-delay", "0s"]);
            program.wait_for("remedy aaaa-delay is in place");
            assert_ne!(links(), before);
            program.signal(signal);
            assert_eq!(program.status(), 0, "{}", program.says());
            assert!(program.says().contains("remedy aaaa-delay is undone"), "{}", program.says());
            assert_eq!(links(), before);
        });
    }
}

#[test]
fn a_signal_at_any_moment_leaves_nothing() {
    isolated(|| {
        let _pod = Pod::start(1);
        let before = links();
        for microseconds in (0..40).map(|step| step * 1500) {
            let mut program = Program::start(&[DOORSTEP, "remedy", "aaaa-delay", "-delay=0s"]);
            std::thread::sleep(Duration::from_micros(microseconds));
            program.signal(Signal::TERM);
            // Before it listens for signals there is nothing to undo, and the signal ends it.
            program.child.wait().unwrap();
            assert_eq!(links(), before, "after {microseconds} us: {}", program.says());
        }
    });
}

#[test]
fn what_a_remedy_cannot_do_without_is_said() {
    isolated(|| {
        let unprivileged = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", "--", DOORSTEP];
        for (before, words, status, parts) in [
            (&unprivileged[..], &["remedy", "rps"][..], 1, &["remedy rps", "CAP_NET_ADMIN"][..]),
            (&[DOORSTEP], &["remedy", "ipvs-notrack"], 1, &["ipvs-notrack", "-node-pod-cidr"]),
            (
                &[DOORSTEP],
                &["remedy", "ipvs-notrack", "-node-pod-cidr=10.244.0.0/24", "-cluster-cidr=10.244.0.0/16"],
                1,
                &["IPVS balances no UDP to port 53", "/proc/net/ip_vs"],
            ),
            (&[DOORSTEP], &["remedy", "aaaa-delay", "-on-uplink"], 1, &["aaaa-delay -on-uplink", "-links"]),
            (&[DOORSTEP], &["remedy", "netem"], 2, &["no remedy `netem`", "ipvs-notrack"]),
            (&[DOORSTEP], &["remedy", "random-fully"], 0, &["Every MASQUERADE rule"]),
        ] {
            let mut program = Program::start(&[before, words].concat());
            assert_eq!(program.status(), status, "{words:?}: {}", program.says());
            for part in parts {
                assert!(program.says().contains(part), "{words:?}: {}", program.says());
            }
        }
    });
}

/// As in Doorstep's own image, on a node whose rules others write with iptables.
#[test]
fn what_could_not_be_looked_at_is_not_called_well() {
    isolated(|| {
        run("iptables -t nat -A POSTROUTING -j MASQUERADE");
        let without = ["env", "PATH=/nowhere", DOORSTEP, "remedy"];
        let mut report = Program::start(&[&without[..], &["random-fully"]].concat());
        assert_eq!(report.status(), 0, "{}", report.says());
        assert!(report.says().contains("No iptables-save in PATH"), "{}", report.says());
        assert!(!report.says().contains("Every"), "{}", report.says());
        let apply = Program::start(&[&without[..], &["random-fully", "-apply"]].concat());
        apply.wait_for("random-fully is in place");
        assert!(apply.says().contains("no iptables-save in PATH: rules"), "{}", apply.says());
        // Nor is a link that is not there.
        let named = Program::start(&[DOORSTEP, "remedy", "aaaa-delay", "-delay=0s", "-links=eth7,cali*"]);
        named.wait_for("aaaa-delay is in place");
        assert!(named.says().contains("no link is called eth7 or cali*"), "{}", named.says());
    });
}

#[test]
fn teardown_takes_what_killed_remedies_left() {
    isolated(|| {
        let _pod = Pod::start(1);
        run("iptables -t nat -A POSTROUTING -s 10.244.0.0/24 -j MASQUERADE");
        let before = links();
        for (words, text) in [
            (&["remedy", "aaaa-delay", "-delay", "0s"][..], "aaaa-delay is in place"),
            (&["remedy", "random-fully", "-apply"], "random-fully is in place"),
        ] {
            let program = Program::start(&[&[DOORSTEP], words].concat());
            program.wait_for(text);
            program.signal(Signal::KILL);
        }
        assert_ne!(links(), before);
        run(&format!("{DOORSTEP} teardown"));
        assert_eq!(links(), before);
    });
}

/// kube-proxy and CNI plugins write their chains anew whenever they like.
#[test]
fn a_rule_that_goes_while_it_is_removed_keeps_no_other() {
    isolated(|| {
        run("iptables -t nat -N CNI; iptables -t nat -A POSTROUTING -j CNI; iptables -t nat -A CNI -j MASQUERADE
             iptables -t nat -A POSTROUTING -s 10.244.0.0/24 -j MASQUERADE");
        let program = Program::start(&[DOORSTEP, "remedy", "random-fully", "-apply"]);
        program.wait_for("random-fully is in place");
        program.signal(Signal::KILL);
        // Between what is read and what is written, once, the chain is emptied.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        run(&format!(
            "printf '#!/bin/sh\\nmkdir {path}/once 2>/dev/null && iptables -t nat -F CNI
             PATH=${{PATH#*:}} exec iptables-restore \"$@\"\\n' >{path}/iptables-restore
             chmod +x {path}/iptables-restore; PATH={path}:$PATH {DOORSTEP} teardown"
        ));
        let left = run("iptables-save");
        assert!(folder.path().join("once").exists() && !left.contains("random-fully"), "{left}");
    });
}

/// As Cilium's local redirect policy has it: pods' queries come to addresses that others see to, so
/// there is no link, no rule, and a wildcard to serve on.
#[test]
fn without_link_and_rules_every_address_of_the_node_answers() {
    isolated(|| {
        let (client, server) = (Pod::start(1), Pod::start(2));
        let upstream = server.v4();
        server.run(move || race::serve(7, upstream));
        client.reaches(upstream);
        run("ip addr add 192.0.2.7/32 dev lo; ip addr add fd00:7::7/128 dev lo");
        let folder = tempfile::tempdir().unwrap();
        let corefile = folder.path().join("Corefile");
        std::fs::write(&corefile, format!("race:53 {{\n cache 30\n forward . {upstream}\n}}\n")).unwrap();
        let before = links();
        let mut program = Program::start(&[
            DOORSTEP,
            "-setupinterface=false",
            "-setupiptables=false",
            "-conf",
            corefile.to_str().unwrap(),
        ]);
        program.wait_for(" serves");
        assert_eq!(links(), before, "nothing is set up");
        for address in ["169.254.1.1", "192.0.2.7", "fd00:7::7"] {
            let address: IpAddr = address.parse().unwrap();
            // Connected sockets: an answer from any other address would be lost.
            let pairs = Pairs { names: 20, ..Pairs::new(100) };
            let outcome = client.run(move || race::run(&pairs, address));
            assert_eq!(
                (outcome.queries, outcome.lost, outcome.wrong),
                (200, 0, 0),
                "{address} {}",
                outcome.line()
            );
        }
        program.signal(Signal::TERM);
        assert_eq!(program.status(), 0, "{}", program.says());
        assert_eq!(links(), before);
    });
}
