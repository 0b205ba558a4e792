//! `template`: replies made up here, without records.

use super::Served;
use super::client::udp;
use super::message::{Answer, ask, bit, rr};
use super::scripted::{Scripted, answer};

fn asked(served: &Served, name: &str, qtype: u16) -> Answer {
    udp(served.address, &ask(name).qtype(qtype))
}

/// As charts switch IPv6 off.
#[test]
fn a_type_can_be_answered_with_nothing() {
    let upstream = Scripted::start(answer);
    let served = Served::start(upstream.address, "template IN AAAA . {\n rcode NOERROR\n }");
    for _ in 0..2 {
        let nothing = asked(&served, "a.test", rr::AAAA);
        assert_eq!((nothing.rcode(), nothing.records.len()), (0, 0));
        assert!(nothing.has(bit::AA));
        assert_eq!(asked(&served, "a.test", rr::A).section(1).len(), 1);
    }
    assert_eq!(upstream.asked().len(), 1);
}

/// As AKS ends search paths.
#[test]
fn names_that_match_do_not_exist() {
    let upstream = Scripted::start(answer);
    let directives = "template ANY ANY internal.test other.test {\n \
                      match \"^(?:[^.]+\\.){4,}internal\\.test\\.$\" \"^x\\.\"\n rcode NXDOMAIN\n \
                      fallthrough internal.test\n }\n template IN A last.test {\n rcode REFUSED\n }";
    let served = Served::start(upstream.address, directives);
    for (name, rcode) in [
        ("a.b.c.D.Internal.test", 3),
        ("x.other.test", 3),
        ("c.d.internal.test", 0),
        // No pattern matches, and for this zone nothing comes after.
        ("y.other.test", 2),
        ("internal.test.elsewhere", 0),
        ("a.last.test", 5),
    ] {
        let said = asked(&served, name, rr::A);
        assert_eq!((said.rcode(), said.has(bit::AA)), (rcode, [3, 5].contains(&rcode)), "{name}");
    }
    assert_eq!(upstream.asked().len(), 2);
}

/// There need not be an upstream.
#[test]
fn a_block_may_have_nothing_else() {
    let (address, name) = (super::loopback::fresh_dns(), "a.test");
    let text = format!("test {{\n bind {}\n template IN ANY {{\n rcode NXDOMAIN\n }}\n}}\n", address.ip());
    let _server = super::Doorstep::start(address.ip(), &text);
    assert_eq!(udp(address, &ask(name)).rcode(), 3);
}
