//! `hosts`: addresses from a file and from the Corefile.

use std::net::Ipv4Addr;

use super::client::udp;
use super::message::{Answer, ask, bit, rr, wire_name};
use super::scripted::{Scripted, answer};
use super::server::{Doorstep, Setup, replace};
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
    std::fs::write(&file, "192.0.2.1 a.test\n").unwrap();
    let text = format!(
        ". {{\n bind {}\n hosts {} {{\n no_reverse\n }}\n reload 2s 1s\n}}\n",
        address.ip(),
        file.display()
    );
    std::fs::write(setup.corefile(), text).unwrap();
    let server: Doorstep = setup.start();
    assert_eq!(data(&udp(address, &ask("a.test"))), [vec![192, 0, 2, 1]]);
    replace(&file, "192.0.2.2 a.test\n");
    server.wait_for_log_times("plugin/reload: running configuration", 2);
    assert_eq!(data(&udp(address, &ask("a.test"))), [vec![192, 0, 2, 2]]);
    assert_eq!(udp(address, &ask("1.2.0.192.in-addr.arpa").qtype(PTR)).rcode(), 2);
}
