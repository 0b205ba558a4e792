//! `hosts`: addresses from a file and from the Corefile.

use std::net::Ipv4Addr;

use super::client::{PATIENCE, udp};
use super::exposition::scrape;
use super::message::{Answer, ask, bit, rr, wire_name};
use super::scripted::{Scripted, answer};
use super::server::{Doorstep, Setup, replace, wait};
use super::{Served, loopback};

const PTR: u16 = 12;

/// The addresses or names of the answer section.
fn data(answer: &Answer) -> Vec<Vec<u8>> {
    answer.section(1).iter().map(|record| record.rdata.clone()).collect()
}

#[test]
fn names_addresses_and_the_way_back() {
    let upstream = Scripted::start(answer);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hosts");
    std::fs::write(
        &file,
        "192.0.2.1 One.test two.test # three.test\nnonsense x.test\n2001:db8::1 one.test\n",
    )
    .unwrap();
    let directive = format!(
        "hosts {} test 10.in-addr.arpa {{\n 192.0.2.9 one.test\n ttl 7\n fallthrough later.test\n }}",
        file.display()
    );
    let served = Served::start(upstream.address, &directive);
    let asked = |name: &str, qtype| udp(served.address, &ask(name).qtype(qtype));
    let v4 = |last| Ipv4Addr::new(192, 0, 2, last).octets().to_vec();
    for _ in 0..2 {
        let one = asked("oNe.test", rr::A);
        assert_eq!((one.rcode(), one.has(bit::AA), one.ttl()), (0, true, 7));
        assert_eq!(data(&one), [v4(1), v4(9)]);
    }
    assert_eq!(data(&asked("one.test", rr::AAAA))[0][..4], [0x20, 1, 0xd, 0xb8]);
    assert_eq!(data(&asked("1.2.0.192.in-addr.arpa", PTR)), [wire_name("one.test"), wire_name("two.test")]);
    // The name is there, records of this type are not.
    let nothing = asked("two.test", rr::AAAA);
    assert_eq!((nothing.rcode(), nothing.records.len()), (0, 0));
    assert_eq!(asked("three.test", rr::A).rcode(), 2);
    assert_eq!(upstream.asked().len(), 0);
    for name in ["a.later.test", "elsewhere.example"] {
        assert_eq!(asked(name, rr::A).section(1).len(), 1, "{name}");
    }
    assert_eq!(asked("8.8.8.8.in-addr.arpa", PTR).rcode(), 0);
    assert_eq!(upstream.asked().len(), 3);
}

#[test]
fn a_changed_file_is_read_again() {
    let address = loopback::fresh_dns();
    let setup = Setup::bare(address.ip());
    let file = setup.path("hosts");
    let text = format!(
        ". {{\n bind {}\n hosts {} {{\n no_reverse\n reload 10ms\n }}\n}}\n",
        address.ip(),
        file.display()
    );
    std::fs::write(setup.corefile(), text).unwrap();
    let server: Doorstep = setup.start();
    server.wait_for_log("hosts is not read");
    assert_eq!(udp(address, &ask("a.test")).rcode(), 2);
    for last in [1, 2] {
        replace(&file, &format!("192.0.2.{last} a.test\n"));
        let seen = || {
            let said = udp(address, &ask("a.test"));
            (said.rcode() == 0).then(|| data(&said)) == Some(vec![vec![192, 0, 2, last]])
        };
        assert!(wait(PATIENCE, seen));
    }
    assert_eq!(udp(address, &ask("1.2.0.192.in-addr.arpa").qtype(PTR)).rcode(), 2);
    // What is no hosts file takes nothing away.
    replace(&file, "192.0.2.9 a.test\n\0");
    assert!(wait(PATIENCE, || {
        assert_eq!(data(&udp(address, &ask("a.test"))), [vec![192, 0, 2, 2]]);
        server.log().contains("NUL octets")
    }));
}

/// The rest of the file counts.
#[test]
fn a_line_that_is_no_entry_is_named() {
    let address = loopback::fresh_dns();
    let setup = Setup::bare(address.ip());
    let file = setup.path("hosts");
    let text = format!(". {{\n bind {}\n hosts {} {{\n reload 10ms\n }}\n}}\n", address.ip(), file.display());
    std::fs::write(setup.corefile(), text).unwrap();
    std::fs::write(&file, "# ours\n192.0.2.1 a.test\n192.0.2.300 b.test\n192.0.2.4 c..test d.test\n")
        .unwrap();
    let server: Doorstep = setup.start();
    server.wait_for_log(
        "hosts:3: `192.0.2.300` is not an address and left out, as is something in 1 more line",
    );
    assert_eq!(data(&udp(address, &ask("d.test"))), [vec![192, 0, 2, 4]]);
    replace(&file, "192.0.2.1 a.test b..test\n192.0.2.1\n");
    assert!(wait(PATIENCE, || {
        udp(address, &ask("a.test"));
        server.log().contains("hosts:1: `b..test` is not a name and left out\n")
    }));
}

#[test]
fn who_answered_is_counted() {
    let upstream = Scripted::start(answer);
    let address = loopback::fresh_dns();
    let metrics = std::net::SocketAddr::new(address.ip(), 9253);
    let text = format!(
        "test {{\n bind {}\n prometheus {metrics}\n hosts /none {{\n 192.0.2.1 a.test b.test\n fallthrough f.test\n }}\n \
         template IN AAAA {{\n rcode NOERROR\n }}\n forward . {}\n}}\n",
        address.ip(),
        upstream.address
    );
    let _server = Doorstep::start(address.ip(), &text);
    for (name, qtype) in [("a.test", rr::A), ("a.test", rr::AAAA), ("a.f.test", rr::A), ("c.test", rr::A)] {
        udp(address, &ask(name).qtype(qtype));
    }
    let shown = scrape(metrics);
    for line in [
        r#"coredns_hosts_entries{hostsfile="/none"} 4"#.to_owned(),
        "coredns_hosts_reload_timestamp_seconds 0".to_owned(),
        said("hosts", "NOERROR", address),
        said("template", "NOERROR", address),
        said("forward", "NOERROR", address),
        said("", "SERVFAIL", address),
        enabled("hosts", address),
        enabled("template", address),
    ] {
        assert!(shown.lines().any(|shown| shown == line), "no {line} in\n{shown}");
    }
}

fn said(plugin: &str, rcode: &str, server: std::net::SocketAddr) -> String {
    format!(
        "coredns_dns_responses_total{{plugin=\"{plugin}\",rcode=\"{rcode}\",server=\"dns://{server}\",view=\"\",zone=\"test.\"}} 1"
    )
}

fn enabled(plugin: &str, server: std::net::SocketAddr) -> String {
    format!(
        "coredns_plugin_enabled{{name=\"{plugin}\",server=\"dns://{server}\",view=\"\",zone=\"test.\"}} 1"
    )
}
