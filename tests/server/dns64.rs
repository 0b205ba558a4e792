//! `dns64`: IPv6 addresses made of IPv4 addresses.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::client::udp;
use super::exposition::scrape;
use super::message::{Answer, ask, rr};
use super::scripted::Scripted;
use super::server::Doorstep;
use super::upstream::{Asked, Step};
use super::{Served, loopback};

/// Has AAAA records for `six…`, A records for all but `six…` and `none…`, and failures for `bad…`.
fn world(asked: &Asked) -> Vec<Step> {
    let has = |front: &str| asked.name.starts_with(front);
    let mut reply = asked.reply(if has("nx") {
        3
    } else if has("bad") {
        2
    } else {
        0
    });
    let mut add = |count: usize, octets: &[u8]| {
        reply[count] += 1;
        reply.extend(octets);
    };
    match asked.message[asked.name.len() + 14] {
        1 if has("four") || has("both") => {
            add(7, &[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 100, 0, 4, 1, b'x', 0xc0, 12]);
            for last in [7, 8] {
                add(7, &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 100, 0, 4, 192, 0, 2, last]);
            }
        }
        28 if has("six") || has("both") => {
            let mut record = vec![0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 100, 0, 16];
            record.extend(Ipv6Addr::LOCALHOST.octets());
            add(7, &record);
        }
        _ => {
            // An SOA with a TTL of 60 and a minimum of 20.
            let mut record = vec![0xc0, 12, 0, 6, 0, 1, 0, 0, 0, 60, 0, 22, 0, 0];
            record.extend([0; 19]);
            record.push(20);
            add(9, &record);
        }
    }
    vec![Step::Send(reply)]
}

fn addresses(answer: &Answer) -> Vec<Ipv6Addr> {
    let records = answer.section(1).into_iter().filter(|record| record.rtype == rr::AAAA);
    records.map(|record| <[u8; 16]>::try_from(&record.rdata[..]).unwrap().into()).collect()
}

fn asked(server: SocketAddr, name: &str) -> Answer {
    udp(server, &ask(name).qtype(rr::AAAA))
}

const MADE: [&str; 2] = ["64:ff9b::192.0.2.7", "64:ff9b::192.0.2.8"];

fn texts(addresses: &[&str]) -> Vec<Ipv6Addr> {
    addresses.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn names_without_get_those_that_are_made() {
    let upstream = Scripted::start(world);
    let served = Served::start(upstream.address, "dns64 {\n allow_ipv4\n }");
    for _ in 0..2 {
        let said = asked(served.address, "four.test");
        assert_eq!(addresses(&said), texts(&MADE));
        // The alias is kept, and no record lasts longer than the news that there is none.
        assert_eq!((said.section(1).len(), said.ttl(), said.rcode()), (3, 20, 0));
        assert_eq!(said.section(1)[1].ttl, 20);
    }
    assert_eq!(upstream.asked().len(), 2);
    assert_eq!(addresses(&asked(served.address, "both.test")), [Ipv6Addr::LOCALHOST]);
    let nothing = asked(served.address, "none.test");
    assert_eq!((nothing.rcode(), nothing.section(1).len(), nothing.section(2).len()), (0, 0, 1));
    assert_eq!(asked(served.address, "nx.test").rcode(), 3);
    assert_eq!(upstream.count("nx.test."), 1);
    assert_eq!(asked(served.address, "bad.test").rcode(), 2);
    // Other types are as they were.
    assert_eq!(udp(served.address, &ask("four.test")).section(1).len(), 3);
}

#[test]
fn all_are_translated_where_that_is_wanted() {
    let upstream = Scripted::start(world);
    let directives = "dns64 {\n prefix 2001:db8:122:344::/64\n translate_all\n allow_ipv4\n }";
    let served = Served::start(upstream.address, directives);
    let made = texts(&["2001:db8:122:344:c0:2:700::", "2001:db8:122:344:c0:2:800::"]);
    assert_eq!(addresses(&asked(served.address, "both.test")), made);
    assert_eq!(addresses(&asked(served.address, "six.test")), [Ipv6Addr::LOCALHOST]);
}

/// Names are rewritten for both questions.
#[test]
fn it_stands_before_rewrite() {
    let upstream = Scripted::start(world);
    let directives = "rewrite name old.test four.test\n dns64 {\n allow_ipv4\n }";
    let served = Served::start(upstream.address, directives);
    assert_eq!(addresses(&asked(served.address, "old.test")), texts(&MADE));
    assert_eq!(upstream.count("four.test."), 2);
}

#[test]
fn translations_are_counted() {
    let upstream = Scripted::start(world);
    let address = loopback::fresh_dns();
    let metrics = SocketAddr::new(address.ip(), 9253);
    let directives = format!("prometheus {metrics}\n dns64 {{\n allow_ipv4\n }}");
    let _server = Doorstep::start(address.ip(), &super::corefile(address, upstream.address, &directives));
    for name in ["four.test", "four.test", "five.test", "six.test", "nx.test"] {
        asked(address, name);
    }
    let shown = scrape(metrics);
    let own = format!("server=\"dns://{address}\"");
    for line in [
        format!("coredns_dns64_requests_translated_total{{{own}}} 2"),
        format!(r#"coredns_dns_responses_total{{plugin="dns64",rcode="NOERROR",{own},view="",zone="."}} 2"#),
        // The name that has one.
        format!(
            r#"coredns_dns_responses_total{{plugin="forward",rcode="NOERROR",{own},view="",zone="."}} 1"#
        ),
    ] {
        assert!(shown.lines().any(|shown| shown == line), "no {line} in\n{shown}");
    }
}

/// Who asks over IPv4 can reach IPv4 addresses, and has no use for others.
#[test]
fn each_family_has_its_answers() {
    let upstream = Scripted::start(world);
    let v4 = loopback::fresh();
    let port = loopback::free_port(Ipv6Addr::LOCALHOST.into());
    let text = format!(".:{port} {{\n bind {v4} ::1\n cache\n dns64\n forward . {}\n}}\n", upstream.address);
    let _server = Doorstep::start(v4, &text);
    for _ in 0..2 {
        let ask = |ip: IpAddr| asked(SocketAddr::new(ip, port), "four.test");
        assert_eq!(addresses(&ask(Ipv6Addr::LOCALHOST.into())), texts(&MADE));
        assert_eq!(addresses(&ask(v4)), texts(&[]));
    }
}
