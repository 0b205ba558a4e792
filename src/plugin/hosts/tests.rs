use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use super::{Config, Hosts};
use crate::metrics::Registry;
use crate::plugin::Outcome;
use crate::wire::{Name, record_type};

struct Case {
    folder: tempfile::TempDir,
    registry: Registry,
}

impl Case {
    fn new() -> Case {
        Case { folder: tempfile::tempdir().unwrap(), registry: Registry::new() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("hosts")
    }

    fn write(&self, text: &[u8]) {
        let beside = self.folder.path().join("beside");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, self.path()).unwrap();
    }

    /// Looks at the file at every query.
    fn hosts(&self) -> Hosts {
        self.hosts_with(|_| {})
    }

    fn hosts_with(&self, change: impl Fn(&mut Config)) -> Hosts {
        let mut config = Config {
            path: self.path(),
            zones: vec![name("test")],
            reload: Duration::from_nanos(1),
            ..Config::default()
        };
        change(&mut config);
        Hosts::new(&config, &self.registry)
    }

    fn shows(&self, line: &str) -> bool {
        self.registry
            .scrape()
            .lines()
            .any(|shown| shown.starts_with("coredns_hosts_") && shown.ends_with(line))
    }
}

fn name(text: &str) -> Name {
    Name::from_text(text).unwrap()
}

/// Rcode and number of answers; `None`: left to others.
async fn asked(hosts: &Hosts, text: &str, qtype: u16) -> Option<(u8, usize)> {
    let name = name(text);
    let message = [&[0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], name.as_wire(), &qtype.to_be_bytes(), &[0, 1]];
    match hosts.reply(&message.concat(), name.as_wire()).await? {
        Outcome::Reply { message, .. } => Some((message[3] & 15, usize::from(message[7]))),
        Outcome::Failed(_) => Some((2, 0)),
    }
}

#[tokio::test]
async fn a_file_that_comes_changes_and_goes() {
    let case = Case::new();
    let hosts = case.hosts();
    assert_eq!(asked(&hosts, "a.test", record_type::A).await, Some((2, 0)));
    case.write(b"192.0.2.1 a.test\n");
    assert_eq!(asked(&hosts, "a.test", record_type::A).await, Some((0, 1)));
    case.write(b"192.0.2.1 a.test\n192.0.2.2 a.test\n");
    assert_eq!(asked(&hosts, "a.test", record_type::A).await, Some((0, 2)));
    assert!(case.shows(" 4"), "{}", case.registry.scrape());
    std::fs::remove_file(case.path()).unwrap();
    assert_eq!(asked(&hosts, "a.test", record_type::A).await, Some((0, 2)));
}

/// What is no hosts file takes nothing away.
#[tokio::test]
async fn a_file_that_cannot_be_one_is_left() {
    let case = Case::new();
    case.write(b"192.0.2.1 a.test\n");
    let hosts = case.hosts();
    for bad in [&b"192.0.2.2 a.test\n\0"[..], &vec![b'#'; (32 << 20) + 1]] {
        case.write(bad);
        assert_eq!(asked(&hosts, "a.test", record_type::A).await, Some((0, 1)));
        assert_eq!(hosts.file.table().await.names([192, 0, 2, 2].into()), []);
    }
    std::fs::remove_file(case.path()).unwrap();
    std::fs::create_dir(case.path()).unwrap();
    assert_eq!(asked(&hosts, "a.test", record_type::A).await, Some((0, 1)));
    std::fs::remove_dir(case.path()).unwrap();
    case.write(b"192.0.2.1 a.test\n192.0.2.2 a.test\n");
    assert_eq!(asked(&hosts, "a.test", record_type::A).await, Some((0, 2)));
}

#[tokio::test]
async fn without_reload_the_file_is_read_once() {
    let case = Case::new();
    case.write(b"192.0.2.1 a.test\n");
    let hosts = [Duration::ZERO, Duration::from_secs(60)]
        .map(|reload| case.hosts_with(|config| config.reload = reload));
    case.write(b"192.0.2.1 a.test\n192.0.2.2 a.test\n");
    for hosts in hosts {
        assert_eq!(asked(&hosts, "a.test", record_type::A).await, Some((0, 1)));
    }
}

#[tokio::test]
async fn what_is_known_what_is_not_and_what_is_elsewhere() {
    let case = Case::new();
    case.write(b"192.0.2.1 a.test\n2001:db8::1 six.test\n192.0.2.1 a.elsewhere\n");
    let hosts = case.hosts_with(|config| {
        config.inline = vec!["192.0.2.9 a.test inline.test".into()];
        config.fallthrough = vec![name("ft.test")];
    });
    let reverse =
        |address: [u8; 4]| Name::reverse(IpAddr::V4(Ipv4Addr::from(address)), 32).unwrap().to_string();
    for (text, qtype, expected) in [
        ("a.test", record_type::A, Some((0, 2))),
        ("inline.test", record_type::A, Some((0, 1))),
        ("a.test", record_type::AAAA, Some((0, 0))),
        ("six.test", record_type::AAAA, Some((0, 1))),
        ("six.test", record_type::NS, Some((0, 0))),
        ("b.test", record_type::A, Some((2, 0))),
        ("b.ft.test", record_type::A, None),
        ("a.elsewhere", record_type::A, None),
        (&reverse([192, 0, 2, 1]), record_type::PTR, Some((0, 1))),
        (&reverse([192, 0, 2, 9]), record_type::PTR, Some((0, 2))),
        (&reverse([192, 0, 2, 7]), record_type::PTR, None),
        ("a.test", record_type::PTR, None),
    ] {
        assert_eq!(asked(&hosts, text, qtype).await, expected, "{text} {qtype}");
    }
    let hosts = case.hosts_with(|config| config.reverse = false);
    assert_eq!(asked(&hosts, &reverse([192, 0, 2, 1]), record_type::PTR).await, None);
}

/// As lists of names that are to lead nowhere have it: who asks for all of them must not keep the thread busy.
#[tokio::test]
async fn no_more_is_looked_at_than_a_reply_can_hold() {
    let case = Case::new();
    let names: String = (0..20_000).map(|n| format!(" n{n}.test")).collect();
    case.write(format!("0.0.0.0{names}\n").as_bytes());
    let hosts = case.hosts();
    let table = hosts.file.table().await;
    let pointers = hosts.pointers(&table, name("0.0.0.0.in-addr.arpa").as_wire()).unwrap();
    assert!(pointers.len() < 4096, "{}", pointers.len());
}
