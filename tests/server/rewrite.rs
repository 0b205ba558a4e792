//! `rewrite`: questions changed on their way to the upstream, answers on their way back.

use super::Served;
use super::client::udp;
use super::exposition::scrape;
use super::message::{Answer, ask, rr, wire_name};
use super::scripted::Scripted;
use super::upstream::{Asked, Step};

/// Says, in the name's alias, what was asked: `NAME. CNAME TYPE-CLASS.NAME.`, and an address of that.
fn echo(asked: &Asked) -> Vec<Step> {
    let mut reply = asked.reply(if asked.name.starts_with("no.") { 3 } else { 0 });
    let [.., 0, qtype, 0, class] = *reply else { panic!("{reply:?}") };
    reply[7] = 2;
    let label = format!("t{qtype}-{class}");
    let target = (reply.len() + 12) as u8;
    reply.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 100, 0, label.len() as u8 + 3, label.len() as u8]);
    reply.extend(label.bytes());
    reply.extend([0xc0, 12]);
    reply.extend([0xc0, target, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 192, 0, 2, 7]);
    vec![Step::Send(reply)]
}

/// The name at `at`, its pointers followed.
fn name(octets: &[u8], mut at: usize) -> String {
    let mut text = String::new();
    loop {
        match usize::from(octets[at]) {
            0 => return text,
            len @ 1..=63 => {
                text += std::str::from_utf8(&octets[at + 1..at + 1 + len]).unwrap();
                text.push('.');
                at += 1 + len;
            }
            high => at = (high & 0x3f) << 8 | usize::from(octets[at + 1]),
        }
    }
}

/// Owner and target of the alias, and the address's owner and TTL.
fn records(answer: &Answer) -> (String, String, String, u32) {
    let records = answer.section(1);
    let alias = answer.octets.len()
        - (records[0].owner.len() + 10 + records[0].rdata.len())
        - answer.records[1..]
            .iter()
            .map(|record| record.owner.len() + 10 + record.rdata.len())
            .sum::<usize>();
    let target = alias + records[0].owner.len() + 10;
    let address = target + records[0].rdata.len();
    let name = |at| name(&answer.octets, at);
    (name(alias), name(target), name(address), records[1].ttl)
}

/// Rules, a question, what comes of it and what the upstream was asked.
type Case = (&'static str, &'static str, [&'static str; 3], &'static str);

const CASES: &[Case] = &[
    ("name old.test new.test", "Old.Test", ["old.test.", "t1-1.old.test.", "t1-1.old.test."], "new.test."),
    (
        "name exact old.test new.test",
        "x.old.test",
        ["x.old.test.", "t1-1.x.old.test.", "t1-1.x.old.test."],
        "x.old.test.",
    ),
    (
        "name suffix .old.test .new.test",
        "a.old.test",
        ["a.new.test.", "t1-1.a.new.test.", "t1-1.a.new.test."],
        "a.new.test.",
    ),
    (
        "stop name suffix .old.test .new.test answer auto",
        "a.old.test",
        ["a.old.test.", "t1-1.a.old.test.", "t1-1.a.old.test."],
        "a.new.test.",
    ),
    (
        "name regex (.*)-([a-z]+)\\.old\\.test {2}.{1}.test answer name (.*)\\.test {1}.old",
        "x-y.old.test",
        ["y.x.old.", "t1-1.y.x.test.", "t1-1.y.x.old."],
        "y.x.test.",
    ),
    (
        "{\n name regex (.*)\\.old\\.test {1}.new.test\n answer value (.*)\\.new\\.test {1}.old.test\n }",
        "a.old.test",
        ["a.new.test.", "t1-1.a.old.test.", "t1-1.a.new.test."],
        "a.new.test.",
    ),
    (
        "name substring b.old. c.new. answer auto",
        "a.b.old.test",
        ["a.b.old.test.", "t1-1.a.b.old.test.", "t1-1.a.b.old.test."],
        "a.c.new.test.",
    ),
    ("type A AAAA", "a.test", ["a.test.", "t28-1.a.test.", "t28-1.a.test."], "a.test."),
    ("class IN CH", "a.test", ["a.test.", "t1-3.a.test.", "t1-3.a.test."], "a.test."),
    (
        "continue name suffix .one.test .two.test answer auto\n rewrite name suffix .two.test .three.test answer auto",
        "a.one.test",
        ["a.one.test.", "t1-1.a.one.test.", "t1-1.a.one.test."],
        "a.three.test.",
    ),
    (
        "name suffix .one.test .two.test answer auto\n rewrite name suffix .two.test .three.test answer auto",
        "a.one.test",
        ["a.one.test.", "t1-1.a.one.test.", "t1-1.a.one.test."],
        "a.two.test.",
    ),
];

#[test]
fn questions_change_there_and_answers_back() {
    for (rule, question, expected, asked) in CASES {
        let upstream = Scripted::start(echo);
        let served = Served::start(upstream.address, &format!("rewrite {rule}"));
        for _ in 0..2 {
            let said = udp(served.address, &ask(question));
            assert_eq!(said.question[..said.question.len() - 4], wire_name(question), "{rule}");
            let (alias, target, address, _) = records(&said);
            assert_eq!([alias, target, address].map(|name| name.to_lowercase()), *expected, "{rule}");
        }
        let names: Vec<String> = upstream.asked().into_iter().map(|asked| asked.name).collect();
        assert_eq!(names, [*asked], "{rule}");
    }
}

#[test]
fn ttls_come_into_their_range() {
    for (rule, least) in [
        ("ttl a.test 7", 7),
        ("ttl suffix .test 150-", 150),
        ("ttl regex ^b -10", 100),
        ("ttl exact a.test 5-20", 20),
    ] {
        let upstream = Scripted::start(echo);
        let served = Served::start(upstream.address, &format!("rewrite {rule}"));
        assert_eq!(udp(served.address, &ask("a.test")).ttl(), least, "{rule}");
    }
}

#[test]
fn response_codes_are_changed() {
    let upstream = Scripted::start(echo);
    let served = Served::start(upstream.address, "rewrite rcode suffix .test NXDOMAIN REFUSED");
    for (name, rcode) in [("no.test", 5), ("yes.test", 0), ("no.other", 3)] {
        assert_eq!(udp(served.address, &ask(name)).rcode(), rcode, "{name}");
    }
}

/// A name that is too long, and an answer that is none.
#[test]
fn what_cannot_be_is_a_failure() {
    let upstream = Scripted::start(|asked| {
        let mut broken = asked.answer();
        broken.truncate(broken.len() - 2);
        vec![Step::Send(broken)]
    });
    let long = "a23456789.".repeat(24);
    let directives = format!("rewrite name long.test {long}{long}test\n rewrite name old.test new.test");
    let served = Served::start(upstream.address, &directives);
    for name in ["long.test", "old.test"] {
        assert_eq!(udp(served.address, &ask(name).qtype(rr::A)).rcode(), 2, "{name}");
    }
    assert_eq!(upstream.count("old.test"), 0);
    served.server.wait_for_log("plugin/errors: 2 long.test. A: plugin/rewrite: ");
}

/// The other name goes on to `template`, and to the upstream of this block.
#[test]
fn templates_see_the_other_name() {
    let upstream = Scripted::start(echo);
    let directives =
        "template IN A gone.test {\n rcode NXDOMAIN\n }\n rewrite name suffix .old.test .gone.test";
    let served = Served::start(upstream.address, directives);
    for (name, rcode) in [("a.old.test", 3), ("a.gone.test", 3), ("a.test", 0)] {
        assert_eq!(udp(served.address, &ask(name)).rcode(), rcode, "{name}");
    }
    assert_eq!(upstream.asked().len(), 1);
}

/// Options for the upstream; the client's own stay here.
#[test]
fn options_are_sent_upstream() {
    let upstream = Scripted::start(echo);
    let directives = "rewrite continue edns0 local set 0xfff0 0x0102\n rewrite continue edns0 nsid set\n \
                      rewrite continue edns0 local replace 0xfff0 abc\n rewrite edns0 local append 65521 x revert";
    let served = Served::start(upstream.address, directives);
    let said = udp(served.address, &ask("a.test").opt(1232, 0, false, &[0, 10, 0, 1, 7]));
    assert_eq!((said.rcode(), said.opt().unwrap().rdata.len()), (0, 0));
    let asked = Answer::read(&upstream.asked()[0].message);
    let options = b"\xff\xf0\x00\x03abc\x00\x03\x00\x00\xff\xf1\x00\x01x";
    assert_eq!(asked.opt().unwrap().rdata, options);
}

/// What is kept was made by the rules of its time: it stays as long as they do.
#[test]
fn other_rules_have_another_cache() {
    let upstream = Scripted::start(echo);
    let served = Served::start(upstream.address, "");
    let asked = |directives: &str, configurations| {
        served.server.rewrite(&super::corefile(served.address, upstream.address, directives));
        served.server.signal(rustix::process::Signal::USR1);
        served.server.wait_for_log_times("running configuration", configurations);
        udp(served.address, &ask("a.test"));
        upstream.asked().len()
    };
    udp(served.address, &ask("a.test"));
    assert_eq!(asked("bufsize 1000", 2), 1);
    assert_eq!(asked("rewrite type A AAAA", 3), 2);
    assert_eq!(asked("bufsize 1000\n rewrite type A AAAA", 4), 2);
    assert_eq!(asked("rewrite type A TXT", 5), 3);
}

#[test]
fn who_answered_is_counted() {
    let upstream = Scripted::start(echo);
    let address = super::loopback::fresh_dns();
    let metrics = std::net::SocketAddr::new(address.ip(), 9253);
    let directives = format!("prometheus {metrics}\n rewrite name old.test new.test");
    let _server =
        super::Doorstep::start(address.ip(), &super::corefile(address, upstream.address, &directives));
    for name in ["old.test", "new.test"] {
        udp(address, &ask(name));
    }
    let shown = scrape(metrics);
    for plugin in ["forward", "rewrite"] {
        let line = format!(
            r#"coredns_dns_responses_total{{plugin="{plugin}",rcode="NOERROR",server="dns://{address}",view="",zone="."}} 1"#
        );
        assert!(shown.lines().any(|shown| shown == line), "no {line} in\n{shown}");
    }
}
