//! What the lines of `log` say, in the words CoreDNS has for it.

use super::Served;
use super::client::{tcp, udp};
use super::message::{ask, rr};
use super::scripted::Scripted;
use super::upstream::Step;

/// An upstream for which `empty.test` has neither answer nor SOA, and `nx.test` does not exist.
fn upstream() -> Scripted {
    Scripted::start(|asked| {
        vec![Step::Send(match asked.name.as_str() {
            "empty.test." => asked.reply(0),
            "nx.test." => asked.reply(3),
            _ => asked.answer(),
        })]
    })
}

#[test]
fn fields_have_coredns_words() {
    let upstream = upstream();
    let format =
        "<{type} {class} {name} {proto} {>bufsize} {local} {nonsense} {>nonsense} {/label} {{type}}>";
    let served = Served::start(upstream.address, &format!("log . \"{format}\""));
    let local = served.address.ip();
    let rest = format!("{local} {{nonsense}} {{>nonsense}} - ");
    // First a miss, then a hit: two places write the line.
    for _ in 0..2 {
        udp(served.address, &ask("a.test"));
        tcp(served.address, &ask("a.test"));
        udp(served.address, &ask("a.test").qtype(65280).edns(1400));
        udp(served.address, &ask("a.test").qtype(rr::AAAA).class(5));
    }
    // A line comes after its reply.
    for line in [
        format!("<A IN a.test. udp 512 {rest}{{A}}>"),
        // TCP has no limit but its own.
        format!("<A IN a.test. tcp 65535 {rest}{{A}}>"),
        // RFC 3597 §5.
        format!("<TYPE65280 IN a.test. udp 1400 {rest}{{TYPE65280}}>"),
        format!("<AAAA CLASS5 a.test. udp 512 {rest}{{AAAA}}>"),
    ] {
        served.server.wait_for_log_times(&line, 2);
    }
}

#[test]
fn an_empty_answer_is_no_denial() {
    let upstream = upstream();
    let log = |class: &str| format!("log . <{class}:{{name}}> {{\n class {class}\n }}");
    for (class, logged) in [("denial", false), ("success", true)] {
        let served = Served::start(upstream.address, &log(class));
        udp(served.address, &ask("empty.test"));
        udp(served.address, &ask("a.test"));
        udp(served.address, &ask("nx.test"));
        served.server.wait_for_log(if logged { "<success:a.test.>" } else { "<denial:nx.test.>" });
        assert_eq!(served.server.log().contains(":empty.test.>"), logged, "{}", served.server.log());
    }
}
