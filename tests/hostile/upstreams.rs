//! Garbage from upstreams: the client that asked gets some answer, the others theirs.

use std::time::Duration;

use super::client::{Udp, framed};
use super::garbage::Garbage;
use super::message::{Answer, ask};
use super::scripted::Scripted;
use super::upstream::{Asked, Step};
use super::{SocketAddr, Victim, message};

/// `KIND.NUMBER.evil.test` is what this upstream does to the question; other names get their answer.
fn misbehave(asked: &Asked) -> Vec<Step> {
    let mut labels = asked.name.split('.');
    let (kind, number) = (labels.next().unwrap(), labels.next().unwrap_or_default());
    if !asked.name.ends_with(".evil.test.") {
        return vec![Step::Send(asked.answer())];
    }
    let mut garbage = Garbage::seeded(number.parse().unwrap());
    let good = asked.answer();
    let head = asked.reply(0).len();
    let spoilt = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut reply = good.clone();
        change(&mut reply);
        vec![Step::Send(reply)]
    };
    match kind {
        "noise" => {
            let length = 1 + garbage.below(600);
            vec![Step::Send(garbage.octets(length))]
        }
        "spoilt" => vec![Step::Send(garbage.spoilt(&good, head))],
        "id" => spoilt(&|reply| reply[0] ^= 0x55),
        "question" => spoilt(&|reply| reply[13] ^= 1),
        "type" => spoilt(&|reply| reply[head - 3] ^= 1),
        "query" => vec![Step::Send(asked.message.clone())],
        "opcode" => spoilt(&|reply| reply[2] |= 0x10),
        "header" => spoilt(&|reply| reply.truncate(12)),
        "counts" => spoilt(&|reply| reply[6..12].fill(0xff)),
        "pointer" => spoilt(&|reply| reply[head + 1] = u8::try_from(head).unwrap()),
        "length" => spoilt(&|reply| reply[head + 10] = 0xff),
        "lies" => vec![Step::Raw([&[0xff, 0xff], &good[..]].concat()), Step::Close],
        "short" => vec![Step::Raw(framed(&good)[..20].to_vec()), Step::Close],
        "zero" => vec![Step::Raw(vec![0, 0]), Step::Send(good)],
        "twice" => vec![Step::Send(good.clone()), Step::Send(good)],
        "close" => vec![Step::Close],
        "reset" => vec![Step::Reset],
        "huge" => spoilt(&|reply| reply.resize(60_000, 0)),
        other => panic!("what is {other}?"),
    }
}

const KINDS: [&str; 18] = [
    "noise", "spoilt", "id", "question", "type", "query", "opcode", "header", "counts", "pointer", "length",
    "lies", "short", "zero", "twice", "close", "reset", "huge",
];

/// Asks for `count` names of each of `kinds`, all at once, and waits for every answer.
fn attack(server: SocketAddr, kinds: &[&str], count: usize, seed: usize) {
    let client = Udp::to(server);
    let names = kinds
        .iter()
        .flat_map(|kind| (seed..seed + count).map(move |number| format!("{kind}.{number}.evil.test")));
    let names: Vec<String> = names.collect();
    for (id, name) in (0..).zip(&names) {
        client.send(&ask(name).id(id).edns(1232).build());
    }
    let mut missing: Vec<&String> = names.iter().collect();
    for _ in &names {
        let reply = client.receive();
        let name = &names[usize::from(u16::from_be_bytes([reply[0], reply[1]]))];
        assert!(reply[12..].starts_with(&message::wire_name(name)), "{name}: {reply:02x?}");
        missing.retain(|other| *other != name);
    }
    assert_eq!(missing, Vec::<&String>::new());
}

#[test]
fn garbage_over_tcp() {
    let upstream = Scripted::start(misbehave);
    let mut victim = Victim::start(upstream.address, "force_tcp");
    for round in 0..3 {
        attack(victim.address, &KINDS, 4, 10 * round);
        victim.expect_service();
    }
    victim.expect_nothing_lost();
}

#[test]
fn garbage_over_udp() {
    let upstream = Scripted::start(misbehave);
    let mut victim = Victim::start(upstream.address, "prefer_udp");
    attack(victim.address, &KINDS, 10, 1000);
    victim.expect_service();
    victim.expect_nothing_lost();
}

#[test]
fn records_that_cannot_be_read_are_passed_on_and_not_kept() {
    let upstream = Scripted::start(misbehave);
    let victim = Victim::start(upstream.address, "force_tcp");
    for kind in ["counts", "length"] {
        let query = ask(&format!("{kind}.1.evil.test"));
        let octets: Vec<Vec<u8>> =
            (0..2).map(|_| super::client::udp_octets(victim.address, &query.build())).collect();
        assert_eq!(octets[0], octets[1]);
        assert_eq!(octets[0][2] & 0x80, 0x80);
        assert_eq!(upstream.count(&format!("{kind}.1.evil.test.")), 2, "{kind}: kept");
    }
}

/// An answer to another question, or with another id, is never given to a client nor kept.
#[test]
fn answers_to_other_questions_reach_nobody() {
    let upstream = Scripted::start(|asked| {
        let forged = |id: u8, name: &str| {
            let mut reply = ask(name).flags(message::bit::QR).build();
            reply[..2].copy_from_slice(&[asked.message[0] ^ id, asked.message[1]]);
            reply[7] = 1;
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 6, 6, 6, 6]);
            Step::Send(reply)
        };
        let own = asked.name.trim_end_matches('.').to_owned();
        if own == "bank.test" {
            return vec![Step::Send(asked.answer())];
        }
        let late = Step::Wait(Duration::from_millis(20));
        vec![
            forged(0, "bank.test"),
            forged(1, &own),
            forged(1, "bank.test"),
            late,
            Step::Send(asked.answer()),
        ]
    });
    for transport in ["prefer_udp", "force_tcp"] {
        let address = super::loopback::fresh_dns();
        let text = format!(
            ". {{\n bind {}\n cache\n forward . {} {{\n {transport}\n }}\n}}\n",
            address.ip(),
            upstream.address
        );
        let _server = super::Doorstep::start(address.ip(), &text);
        for name in ["a.test", "b.test", "bank.test", "a.test"] {
            let answer: Answer = super::udp(address, &ask(name));
            for record in answer.section(1) {
                assert_ne!(record.rdata, [6, 6, 6, 6], "{name} by {transport}");
            }
            if transport == "prefer_udp" {
                assert_eq!(answer.section(1).len(), 1, "{name}: the right answer comes as well");
            }
        }
    }
}
