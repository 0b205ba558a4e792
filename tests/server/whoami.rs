//! `whoami`: each client is told its own address.

use super::client::{tcp, udp};
use super::loopback;
use super::message::{Answer, ask, bit, rr, wire_name};
use super::server::Doorstep;

/// Address, and port, of an additional section of two.
fn told(answer: &Answer, service: &str) -> (Vec<u8>, u16) {
    assert_eq!((answer.rcode(), answer.has(bit::AA), answer.section(1).len()), (0, true, 0));
    let records = answer.section(3);
    assert_eq!((records.len(), records[0].rtype, records[1].rtype), (2, rr::A, 33));
    assert_eq!(records[1].owner[..service.len() + 1], wire_name(service)[..service.len() + 1]);
    (records[0].rdata.clone(), u16::from_be_bytes([records[1].rdata[4], records[1].rdata[5]]))
}

/// With a cache, too: what one is told is nobody else's.
#[test]
fn clients_are_told_who_they_are() {
    let address = loopback::fresh_dns();
    let text = format!("health.test {{\n bind {}\n cache\n whoami\n}}\n", address.ip());
    let _server = Doorstep::start(address.ip(), &text);
    let mut ports = std::collections::BTreeSet::new();
    for name in ["health.test", "a.Health.test"] {
        for _ in 0..2 {
            let (ip, port) = told(&udp(address, &ask(name).edns(1232)), "_udp");
            assert_eq!(ip[0], 127);
            ports.insert(port);
        }
        assert_ne!(told(&tcp(address, &ask(name).qtype(rr::AAAA)), "_tcp").1, 0);
    }
    assert!(ports.len() > 1, "{ports:?}");
    assert_eq!(udp(address, &ask("a.test")).rcode(), 5);
}

/// As in CoreDNS, where it is the last in the chain.
#[test]
fn what_is_forwarded_is_not_its_business() {
    let upstream = super::Scripted::start(super::scripted::answer);
    let served = super::Served::start(upstream.address, "whoami");
    assert_eq!(udp(served.address, &ask("a.test")).section(1)[0].rdata, [192, 0, 2, 7]);
}

/// With the label for the port in front, it would be no name (RFC 1035 §2.3.4).
#[test]
fn the_longest_names_get_the_address_alone() {
    let address = loopback::fresh_dns();
    let text = format!("test {{\n bind {}\n whoami\n}}\n", address.ip());
    let _server = Doorstep::start(address.ip(), &text);
    let label = "a".repeat(61);
    // 250 octets with the last label and the root.
    let longest = format!("{label}.{label}.{label}.{}.test", "b".repeat(57));
    assert_eq!(wire_name(&longest).len(), 250);
    assert_eq!(udp(address, &ask(&longest)).section(3).len(), 2);
    let longer = udp(address, &ask(&format!("c.{longest}")));
    assert_eq!((longer.rcode(), longer.section(3).len(), longer.section(3)[0].rtype), (0, 1, rr::A));
}

/// RFC 1035 §4.1.1: the operation is copied into the response.
#[test]
fn a_notification_gets_the_reply_to_one() {
    let address = loopback::fresh_dns();
    let text = format!("test {{\n bind {}\n whoami\n}}\n", address.ip());
    let _server = Doorstep::start(address.ip(), &text);
    assert_eq!(udp(address, &ask("a.test").opcode(4)).flags() >> 11 & 15, 4);
}
