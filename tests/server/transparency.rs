//! What the upstream says comes through, whatever it is: compared with NSD's own answers.

use std::net::SocketAddr;

use hickory_proto::rr::RecordType;

use super::Served;
use super::client::{Tcp, tcp, udp, udp_octets};
use super::loopback;
use super::message::{Answer, Ask, Record, ask, bit, rr};
use super::nsd::Nsd;
use super::server::Doorstep;

const ORIGIN: &str = "every.test";
const ZONE: &str = include_str!("every.test.zone");

/// A question for each owner and type in the zone, and a few that have no answer.
fn questions() -> Vec<Ask> {
    let mut questions = Vec::new();
    for line in ZONE.lines().filter(|line| line.starts_with(|first: char| !" \t;$@".contains(first))) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let owner = format!("{}.{ORIGIN}", words[0].replace("*", "anything"));
        questions.push(ask(&owner).qtype(number(words[2])));
    }
    assert!(questions.len() > 80, "{} questions", questions.len());
    let more = [
        ("nothing", rr::A),
        ("a", 65280),
        ("sub.delegated", rr::A),
        ("deep.dname", rr::A),
        ("", 6),
        ("", 255),
    ];
    questions.extend(
        more.map(|(name, qtype)| ask(format!("{name}.{ORIGIN}").trim_start_matches('.')).qtype(qtype)),
    );
    questions
}

/// The number of a type as zone files write it.
fn number(text: &str) -> u16 {
    // Those that Hickory has no name for.
    const OTHERS: [(&str, u16); 12] = [
        ("RP", 17),
        ("AFSDB", 18),
        ("X25", 19),
        ("ISDN", 20),
        ("RT", 21),
        ("PX", 26),
        ("LOC", 29),
        ("KX", 36),
        ("DNAME", 39),
        ("APL", 42),
        ("EUI48", 108),
        ("EUI64", 109),
    ];
    if let Some((_, number)) = OTHERS.iter().find(|(name, _)| *name == text) {
        return *number;
    }
    match text.strip_prefix("TYPE").map(str::parse) {
        Some(number) => number.unwrap(),
        None => text.parse::<RecordType>().unwrap_or_else(|_| panic!("what is {text}?")).into(),
    }
}

/// What must be the same: question, records with their order and octets, and flags.
fn essence(answer: &Answer) -> (Vec<u8>, Vec<Record>, u16) {
    let mut records = answer.records.clone();
    records.retain(|record| record.rtype != rr::OPT);
    records.iter_mut().for_each(|record| record.ttl = 0);
    (answer.question.clone(), records, answer.flags() & !(bit::AA | bit::AD | bit::RD))
}

#[test]
fn every_type_comes_through_unchanged() {
    let nsd = Nsd::start(ORIGIN, ZONE);
    let served = Served::start(nsd.address, "");
    let over_udp = plain_forward(nsd.address);
    for query in questions() {
        // TCP and no size limit: the whole answer.
        let expected = essence(&tcp(nsd.address, &query));
        let question = &query.build()[12..];
        let big = query.clone().edns(65000);
        for (way, answer) in [
            ("UDP miss", udp(served.address, &big)),
            ("UDP hit", udp(served.address, &big)),
            ("TCP hit", tcp(served.address, &query)),
            ("TCP miss", tcp(over_udp.address, &query)),
        ] {
            assert_eq!(essence(&answer), expected, "{way} of {question:02x?}");
        }
        let signed = query.clone().opt(65000, 0, true, &[]);
        assert_eq!(essence(&udp(served.address, &signed)), essence(&tcp(nsd.address, &signed)));
    }
}

/// A server that asks in the client's own protocol.
fn plain_forward(upstream: SocketAddr) -> Served {
    let address = loopback::fresh_dns();
    let text = format!(". {{\n bind {}\n cache\n forward . {upstream}\n}}\n", address.ip());
    Served { address, server: Doorstep::start(address.ip(), &text) }
}

#[test]
fn an_answer_too_long_for_udp_upstream_comes_by_tcp() {
    let nsd = Nsd::start(ORIGIN, ZONE);
    let served = plain_forward(nsd.address);
    let query = ask(&format!("long.{ORIGIN}")).qtype(rr::TXT);
    let whole = tcp(nsd.address, &query);
    assert!(whole.octets.len() > 4096, "{} octets", whole.octets.len());
    assert_eq!(essence(&udp(served.address, &query.clone().edns(65000))), essence(&whole));
}

#[test]
fn a_zone_transfer_is_passed_as_far_as_one_message_goes() {
    const AXFR: u16 = 252;
    let nsd = Nsd::start(ORIGIN, ZONE);
    let served = plain_forward(nsd.address);
    let query = ask(ORIGIN).qtype(AXFR);
    // What comes is up to the upstream; that something comes, and not from a cache, is up to us.
    let answer = udp_octets(served.address, &query.build());
    assert_eq!(answer[..2], query.build()[..2]);
    let mut client = Tcp::to(served.address);
    client.send(&query.build());
    assert_eq!(client.receive()[..2], query.build()[..2]);
}
