//! Which messages are answered at all, and how the others are turned away.

use super::client::{Tcp, Udp, udp, udp_octets};
use super::message::{Answer, Ask, ask, bit};
use super::scripted::answer;
use super::{Scripted, Served};

const FORMERR: u16 = 1;
const NOTIMP: u16 = 4;

/// A record of the question's name.
const RECORD: &[u8] = &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 192, 0, 2, 1];
const OPT: &[u8] = &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
const OPT_WITH_OWNER: &[u8] = &[1, b'a', 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
const OPT_THAT_LIES: &[u8] = &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 5, 0, 10, 0, 9, 1];

/// Messages that are turned away, each with the response code.
fn refused() -> Vec<(&'static str, Vec<u8>, u16)> {
    let good = || ask("a.test");
    let record = |query: Ask, count, times| (0..times).fold(query, |query, _| query.record(count, RECORD));
    let cut = |query: Ask, octets: usize| query.build()[..query.build().len() - octets].to_vec();
    let long_name = ask(&vec!["a23456789"; 26].join(".")).build();
    vec![
        ("inverse query", good().opcode(1).build(), NOTIMP),
        ("status", good().opcode(2).build(), NOTIMP),
        ("update", good().opcode(5).build(), NOTIMP),
        ("unassigned opcode", good().opcode(15).build(), NOTIMP),
        ("no question", good().octet(5, 0).build(), FORMERR),
        ("two questions", good().octet(5, 2).build(), FORMERR),
        ("two answers", record(good(), 7, 2).build(), FORMERR),
        ("two authorities", record(good(), 9, 2).build(), FORMERR),
        ("three additionals", record(good(), 11, 3).build(), FORMERR),
        ("two OPTs", good().additional(OPT).additional(OPT).build(), FORMERR),
        ("an OPT with an owner", good().additional(OPT_WITH_OWNER).build(), FORMERR),
        ("an OPT with an overlong option", good().additional(OPT_THAT_LIES).build(), FORMERR),
        ("an OPT among the answers", good().record(7, OPT).build(), FORMERR),
        ("a header alone", good().build()[..12].to_vec(), FORMERR),
        ("a question without its class", cut(good(), 2), FORMERR),
        ("a record without its end", cut(record(good(), 11, 1), 1), FORMERR),
        ("a record that was promised", good().octet(11, 1).build(), FORMERR),
        ("a compressed question", good().octet(12, 0xc0).octet(13, 12).build(), FORMERR),
        ("a label of type 01", good().octet(12, 0x41).build(), FORMERR),
        ("a label of type 10", good().octet(12, 0x81).build(), FORMERR),
        ("a name of 262 octets", long_name, FORMERR),
    ]
}

#[test]
fn what_is_no_query_is_turned_away() {
    let upstream = Scripted::start(answer);
    let served = Served::start(upstream.address, "");
    let mut stream = Tcp::to(served.address);
    for (what, message, rcode) in refused() {
        let asked = u16::from_be_bytes([message[2], message[3]]);
        let over_udp = udp_octets(served.address, &message);
        stream.send(&message);
        for octets in [over_udp, stream.receive()] {
            let answer = Answer::read(&octets);
            assert_eq!((answer.id(), answer.rcode()), (0x1234, rcode), "{what}");
            assert!(answer.has(bit::QR) && answer.has(bit::RD), "{what}");
            if rcode == NOTIMP {
                assert_eq!(answer.flags() & 0x7800, asked & 0x7800, "{what}: the opcode");
            }
            assert!(octets.len() <= message.len(), "{what}: an answer longer than its query");
        }
    }
    assert_eq!(upstream.asked().len(), 0);
}

#[test]
fn what_must_not_be_answered_is_not() {
    let upstream = Scripted::start(answer);
    let served = Served::start(upstream.address, "");
    let response = ask("a.test").flags(bit::QR).build();
    let client = Udp::to(served.address);
    client.send(&response);
    client.send(&ask("a.test").flags(bit::QR).opcode(2).build());
    client.send(&response[..12]);
    for length in 0..12 {
        client.send(&ask("a.test").build()[..length]);
    }
    client.expect_silence();
    let mut stream = Tcp::to(served.address);
    stream.send(&response);
    stream.send(&ask("b.test").id(7).build());
    assert_eq!(Answer::read(&stream.receive()).id(), 7);
    assert_eq!(upstream.asked().len(), 1);
}

#[test]
fn odd_but_allowed_queries_are_answered() {
    let upstream = Scripted::start(answer);
    let served = Served::start(upstream.address, "");
    let good = || ask("a.test");
    let longest = vec!["a23456789"; 25].join(".") + ".abc";
    let mut with_tail = good().build();
    with_tail.extend([0xde, 0xad]);
    let odd = [
        ("one answer, one authority", good().record(7, RECORD).record(9, RECORD).build()),
        ("a record and an OPT", good().additional(RECORD).additional(OPT).build()),
        ("an OPT and a record", good().additional(OPT).additional(RECORD).build()),
        ("notify", good().opcode(4).qtype(6).build()),
        ("stray octets behind", with_tail),
        ("all flags", good().flags(0x07f0).build()),
        ("a reserved type", good().qtype(0).build()),
        ("the root", ask("").build()),
        ("255 octets of name", ask(&longest).build()),
        ("high octets and dots", ask(r"a\.b\000\255.test").build()),
    ];
    for (what, message) in odd {
        let answer = Answer::read(&udp_octets(served.address, &message));
        assert_eq!((answer.rcode(), answer.section(1).len()), (0, 1), "{what}");
        assert!(!answer.has(bit::TC | 0x0040), "{what}: TC or Z");
    }
    // What stood behind the message stayed here.
    upstream.asked().iter().for_each(|asked| drop(Answer::read(&asked.message)));
}

#[test]
fn the_question_comes_back_as_it_was_spelt() {
    let upstream = Scripted::start(answer);
    let served = Served::start(upstream.address, "");
    for spelling in ["MiXeD.tEsT", "mixed.test", "MIXED.TEST", "mIxEd.TeSt"] {
        let query = ask(spelling);
        let answer = udp(served.address, &query);
        assert_eq!(answer.question, query.build()[12..]);
        let stream = super::client::tcp(served.address, &query);
        assert_eq!(stream.question, query.build()[12..]);
    }
    assert_eq!(upstream.asked().len(), 1);
}

#[test]
fn flags_are_the_clients_where_they_are_his() {
    let upstream = Scripted::start(|asked| {
        let mut reply = asked.answer();
        // AD: the upstream vouches for its answer.
        reply[3] |= 0x20;
        vec![super::upstream::Step::Send(reply)]
    });
    let served = Served::start(upstream.address, "");
    let flags = |query: &Ask| udp(served.address, query).flags();
    // A miss is not authoritative, a hit is, as CoreDNS has it.
    for own in [bit::QR | bit::RA, bit::QR | bit::RA | bit::AA] {
        let rd = own | bit::RD;
        assert_eq!(flags(&ask("ad.test").flags(bit::AD)), rd | bit::AD);
        assert_eq!(flags(&ask("do.test").opt(1232, 0, true, &[])), rd | bit::AD);
        assert_eq!(flags(&ask("plain.test")), rd, "AD is for those who ask");
        assert_eq!(flags(&ask("plain.test").octet(2, 0)), own);
        assert_eq!(flags(&ask("plain.test").flags(bit::CD)), rd | bit::CD);
    }
}
