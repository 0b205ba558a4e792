//! EDNS (RFC 6891): answered to those who speak it, and hop by hop.

use super::client::{tcp, udp};
use super::message::{Answer, Ask, ask};
use super::upstream::Step;
use super::{Scripted, Served};

/// A cookie, a client subnet, keepalive and padding.
const OPTIONS: &[u8] = &[
    0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8, //
    0, 8, 0, 7, 0, 1, 24, 0, 192, 0, 2, //
    0, 11, 0, 0, //
    0, 12, 0, 4, 0, 0, 0, 0,
];

/// Answers with an OPT of its own, full of options.
fn talkative() -> Scripted {
    Scripted::start(|asked| {
        let mut reply = asked.answer();
        reply[11] = 1;
        reply.extend([0, 0, 41, 0x10, 0, 0, 0, 0x80, 0, 0, u8::try_from(OPTIONS.len()).unwrap()]);
        reply.extend(OPTIONS);
        vec![Step::Send(reply)]
    })
}

/// Asks twice over each transport, so that misses and hits are seen.
fn each_way(served: &Served, query: &Ask) -> Vec<Answer> {
    let ways: [fn(_, &Ask) -> Answer; 4] = [udp, udp, tcp, tcp];
    ways.iter().map(|way| way(served.address, query)).collect()
}

#[test]
fn an_opt_is_for_those_who_sent_one() {
    let upstream = talkative();
    let served = Served::start(upstream.address, "");
    for answer in each_way(&served, &ask("plain.test")) {
        assert_eq!(answer.opt(), None);
        assert_eq!((answer.rcode(), answer.section(1).len()), (0, 1));
    }
    for answer in each_way(&served, &ask("edns.test").edns(1400)) {
        let opt = answer.opt().expect("an OPT");
        assert_eq!((opt.class, opt.ttl, opt.owner.as_slice()), (1400, 0, &[0][..]));
    }
}

#[test]
fn the_do_bit_comes_back_and_goes_upstream() {
    let upstream = talkative();
    let served = Served::start(upstream.address, "");
    for answer in each_way(&served, &ask("do.test").opt(1232, 0, true, &[])) {
        assert_eq!(answer.opt().unwrap().ttl, 0x8000);
    }
    each_way(&served, &ask("do.test").edns(1232));
    let asked = upstream.asked();
    let sent: Vec<u32> = asked.iter().map(|asked| Answer::read(&asked.message).opt().unwrap().ttl).collect();
    // With and without DO are two answers.
    assert_eq!(sent, [0x8000, 0]);
}

#[test]
fn options_neither_pass_nor_come_back() {
    let upstream = talkative();
    let served = Served::start(upstream.address, "");
    for answer in each_way(&served, &ask("a.test").opt(1232, 0, false, OPTIONS)) {
        assert_eq!(answer.opt().unwrap().rdata, []);
    }
    let asked = upstream.asked();
    assert_eq!(asked.len(), 1);
    let sent = Answer::read(&asked[0].message);
    assert_eq!(sent.opt().unwrap().rdata, []);
}

#[test]
fn an_unknown_version_is_badvers() {
    let upstream = talkative();
    let served = Served::start(upstream.address, "");
    for answer in each_way(&served, &ask("a.test").opt(1232, 1, true, OPTIONS)) {
        assert_eq!(answer.rcode(), 16);
        // Version 0 is what the server speaks; the DO bit is the client's.
        assert_eq!(answer.opt().unwrap().ttl, 0x0100_8000);
        assert!(answer.section(1).is_empty());
    }
    assert!(upstream.asked().is_empty());
}

#[test]
fn bufsize_caps_what_clients_may_have() {
    let upstream = Scripted::start(|asked| {
        let mut reply = asked.reply(0);
        reply[7] = 5;
        (0..5).for_each(|_| {
            reply.extend([0xc0, 12, 0xff, 0, 0, 1, 0, 0, 0, 30, 1, 0x2c]);
            reply.extend([7; 300]);
        });
        vec![Step::Send(reply)]
    });
    let served = Served::start(upstream.address, "bufsize 1100");
    let answer = udp(served.address, &ask("a.test").edns(4096));
    assert_eq!((answer.section(1).len(), answer.has(super::message::bit::TC)), (3, true));
    assert_eq!(tcp(served.address, &ask("a.test").edns(4096)).section(1).len(), 5);
    let sent = Answer::read(&upstream.asked()[0].message);
    assert_eq!(sent.opt().unwrap().class, 1100);
}
