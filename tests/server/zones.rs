//! Which server block answers, and what is refused.

use super::client::{tcp, udp};
use super::loopback;
use super::message::{Ask, ask, rr};
use super::scripted::{Scripted, answer};
use super::server::Doorstep;

const REFUSED: u16 = 5;

#[test]
fn names_outside_the_zones_are_refused() {
    let upstream = Scripted::start(answer);
    let address = loopback::fresh_dns();
    let corefile =
        format!("cluster.test {{\n bind {}\n cache\n forward . {}\n}}\n", address.ip(), upstream.address);
    let _server = Doorstep::start(address.ip(), &corefile);
    for name in ["", "test", "other.test", "xcluster.test", "cluster.test.example", r"x\.cluster.test"] {
        assert_eq!(udp(address, &ask(name)).rcode(), REFUSED, "{name:?}");
        let answer = tcp(address, &ask(name).edns(1232));
        assert_eq!((answer.rcode(), answer.opt().is_some()), (REFUSED, true), "{name:?}");
    }
    for name in ["cluster.test", "CLUSTER.test", "a.b.cluster.test"] {
        assert_eq!(udp(address, &ask(name)).rcode(), 0, "{name:?}");
    }
    assert_eq!(upstream.asked().len(), 2);
}

#[test]
fn a_ds_query_goes_to_the_parents_block() {
    let upstreams: Vec<Scripted> = (0..4).map(|_| Scripted::start(answer)).collect();
    let address = loopback::fresh_dns();
    let block = |(zone, upstream): (&str, &Scripted)| {
        format!("{zone} {{\n bind {}\n forward . {}\n}}\n", address.ip(), upstream.address)
    };
    let zones = [".", "test", "sub.test", "deep.sub.test"];
    let corefile: String = zones.into_iter().zip(&upstreams).map(block).collect();
    let _server = Doorstep::start(address.ip(), &corefile);
    let answered_by = |query: &Ask| {
        let before: Vec<usize> = upstreams.iter().map(|upstream| upstream.asked().len()).collect();
        udp(address, query);
        let moved = upstreams.iter().zip(before).position(|(upstream, count)| upstream.asked().len() > count);
        moved.map(|index| zones[index])
    };
    for (name, address_query, ds_query) in [
        ("a.deep.sub.test", "deep.sub.test", "test"),
        ("deep.sub.test", "deep.sub.test", "test"),
        ("sub.test", "sub.test", "test"),
        ("test", "test", "test"),
        ("example", ".", "."),
    ] {
        assert_eq!(answered_by(&ask(name)), Some(address_query), "A {name}");
        assert_eq!(answered_by(&ask(name).qtype(rr::DS)), Some(ds_query), "DS {name}");
    }
}

#[test]
fn other_classes_pass_where_something_forwards() {
    const CHAOS: u16 = 3;
    let upstream = Scripted::start(answer);
    let (forwarding, other) = (loopback::fresh_dns(), loopback::fresh_dns());
    let corefile = format!(
        "test {{\n bind {}\n cache\n forward . {}\n}}\ntest {{\n bind {}\n cache\n}}\n",
        forwarding.ip(),
        upstream.address,
        other.ip()
    );
    let _server = Doorstep::start(forwarding.ip(), &corefile);
    let chaos = ask("a.test").class(CHAOS);
    for query in [&chaos, &ask("a.test"), &chaos] {
        let answer = udp(forwarding, query);
        assert_eq!(answer.rcode(), 0);
        assert_eq!(answer.question, query.build()[12..]);
    }
    assert_eq!(udp(forwarding, &ask("example").class(CHAOS)).rcode(), REFUSED);
    assert_eq!(udp(other, &chaos).rcode(), REFUSED);
    // Two classes are two answers.
    assert_eq!(upstream.asked().len(), 2);
}
