//! Machines written down: `machines/healthy.txt` whole, each other one as what differs from it, with the
//! findings that are expected of it, all of them and no other.
//!
//! ```text
//! === /proc/stat                a file; in `cmdline` an argument is a line; a symbolic link's text is its target
//! === /proc/10/net/udp          of a process: what tells its network namespace from others
//! === later /proc/stat          the same at the second reading
//! === no /proc/stat             it is not there
//! === link veth1                index, kind (- without one), MTU, up or down
//! === run iptables-save         what a program prints
//! === GET 8080 /health          status and body
//! === PING 10.96.0.10           nothing answers there
//! ```

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use doorstep::doctor::gather::{Host, gather};
use doorstep::doctor::{Options, diagnose, facts::Facts};
use doorstep::node::links::Listed;
use doorstep::node::nftables::survey::Survey;

struct Written {
    sections: BTreeMap<String, String>,
    later: Cell<bool>,
}

impl Written {
    fn get_section(&self, name: &str) -> io::Result<&str> {
        let later = self.sections.get(&format!("later {name}")).filter(|_| self.later.get());
        let found = later.or_else(|| self.sections.get(name)).map(String::as_str);
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Host for Written {
    fn text(&self, path: &str) -> io::Result<String> {
        let text = self.get_section(path)?;
        Ok(if path.ends_with("/cmdline") { text.replace('\n', "\0") } else { text.to_owned() })
    }

    fn lines(&self, path: &str, each: &mut dyn FnMut(&str)) -> io::Result<()> {
        self.get_section(path).map(|text| text.lines().for_each(each))
    }

    fn names(&self, directory: &str) -> io::Result<Vec<String>> {
        let below = self.sections.keys().filter_map(|path| path.strip_prefix(directory)?.strip_prefix('/'));
        let names: BTreeSet<&str> = below.filter_map(|rest| rest.split('/').next()).collect();
        if names.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    fn target(&self, link: &str) -> io::Result<String> {
        self.get_section(link).map(|text| text.trim().to_owned())
    }

    fn file_id(&self, path: &str) -> io::Result<String> {
        self.target(path)
    }

    fn run(&self, program: &str, _: &[&str]) -> io::Result<String> {
        self.get_section(&format!("run {program}")).map(str::to_owned)
    }

    fn links(&self) -> Result<Vec<Listed>, String> {
        let sections =
            self.sections.iter().filter_map(|(name, text)| Some((name.strip_prefix("link ")?, text)));
        let link = |(name, text): (&str, &String)| {
            let words: Vec<&str> = text.split_whitespace().collect();
            let [index, kind, mtu, state] = words[..] else { panic!("{name}: {text}") };
            Listed {
                name: name.to_owned(),
                index: index.parse().expect("an index"),
                kind: kind.trim_matches('-').to_owned(),
                mtu: mtu.parse().expect("an MTU"),
                is_up: state == "up",
            }
        };
        Ok(sections.map(link).collect())
    }

    fn nftables(&self) -> Result<Survey, String> {
        Ok(Survey::default())
    }

    fn ping(&self, address: SocketAddr) -> io::Result<()> {
        match self.get_section(&format!("PING {}", address.ip())) {
            Ok(_) => Err(io::ErrorKind::TimedOut.into()),
            Err(_) => Ok(()),
        }
    }

    fn get(&self, address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
        let answer = self.get_section(&format!("GET {} {path}", address.port()))?;
        let (status, body) = answer.trim().split_once(' ').expect("status and body");
        Ok((status.parse().expect("a status"), body.to_owned()))
    }
}

fn machines() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doctor/machines")
}

fn sections(name: &str) -> (String, Vec<(String, String)>) {
    let text = fs::read_to_string(machines().join(format!("{name}.txt"))).unwrap();
    let mut parts = text.split("=== ");
    let head = parts.next().unwrap().to_owned();
    let section = |part: &str| part.split_once('\n').map(|(name, text)| (name.to_owned(), text.to_owned()));
    (head, parts.map(|part| section(part).expect("a name and a text")).collect())
}

fn examine(name: &str) -> (String, Facts) {
    let (_, healthy) = sections("healthy");
    let mut machine = Written { sections: healthy.into_iter().collect(), later: Cell::new(false) };
    let (head, differences) = sections(name);
    for (section, text) in differences {
        match section.strip_prefix("no ") {
            Some(gone) => {
                assert!(machine.sections.remove(gone).is_some(), "{name}: {gone} is not there anyhow")
            }
            None => drop(machine.sections.insert(section, text)),
        }
    }
    let facts = gather(&machine, &Options::default(), Some(&|| machine.later.set(true)));
    (head, facts)
}

#[test]
fn each_machine_shows_what_is_expected_of_it() {
    let mut names: Vec<String> = fs::read_dir(machines())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    assert!(names.len() > 20);
    let mut wrong = Vec::new();
    for name in names {
        let (head, facts) = examine(&name);
        let expected: BTreeSet<String> =
            head.lines().filter_map(|line| line.strip_prefix("expect ")).map(str::to_owned).collect();
        let findings = diagnose(&facts);
        let found: BTreeSet<String> =
            findings.iter().map(|finding| format!("{} {}", finding.id, finding.severity.name())).collect();
        if found != expected {
            wrong.push(format!("{name}: expected {expected:?}, found {findings:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What the checks rest on is read, and not empty by accident.
#[test]
fn the_healthy_machine_is_read_whole() {
    let (_, facts) = examine("healthy");
    assert_eq!(facts.kernel.as_ref().unwrap().version, (6, 12));
    assert_eq!(facts.processors, 2);
    assert_eq!(facts.rules.len(), 24);
    assert!(facts.rules.iter().all(|live| live.packets == 40));
    assert_eq!(facts.listeners.len(), 7);
    assert!(facts.listeners.iter().all(|listener| listener.owner == Some((10, "doorstep".into()))));
    assert_eq!(facts.wanted.local_ips.len(), 2);
    assert_eq!(facts.caches.len(), 1);
    assert_eq!(facts.pods.len(), 1);
    let steered = |name: &str| facts.link(name).unwrap().steered;
    assert_eq!((facts.links.len(), steered("veth0a1b"), steered("eth0")), (5, Some(false), None));
    assert_eq!(facts.samples.len(), 2);
    let conntrack = facts.conntrack().unwrap();
    assert_eq!((conntrack.clash_resolve, conntrack.insert_failed, conntrack.max), (Some(6), 2, 262144));
    assert_eq!(facts.samples[0].udp.unwrap().no_ports, 7);
    assert_eq!((facts.samples[0].pods[&20].no_ports, facts.samples[0].spared), (7, 160));
    assert_eq!(facts.entries.map(|entries| (entries.all, entries.dns, entries.local)), Some((2, 1, 0)));
    assert_eq!((facts.cluster_dns.len(), facts.kube_dns.len(), facts.addresses.len()), (1, 1, 4));
    assert_eq!(facts.dummy_driver, Some(true));
    assert_eq!(facts.answers.len(), 1);
    assert_eq!(facts.unread, Vec::<String>::new());
}
