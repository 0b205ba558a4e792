//! `template`: replies made up here.

use std::net::SocketAddr;

use rustix::process::Signal;

use super::client::udp;
use super::exposition::scrape;
use super::message::{Answer, ask, bit, rr, wire_name};
use super::scripted::{Scripted, answer};
use super::{Doorstep, Served, loopback};

const CNAME: u16 = 5;
const SOA: u16 = 6;

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
    let (address, name) = (loopback::fresh_dns(), "a.test");
    let text = format!("test {{\n bind {}\n template IN ANY {{\n rcode NXDOMAIN\n }}\n}}\n", address.ip());
    let _server = Doorstep::start(address.ip(), &text);
    assert_eq!(udp(address, &ask(name)).rcode(), 3);
}

/// Those who send no OPT could not read it.
#[test]
fn an_extended_error_says_why() {
    let address = loopback::fresh_dns();
    let template = "template IN ANY {\n rcode NXDOMAIN\n ederror 15 blocked\n }";
    let text = format!("test {{\n bind {}\n {template}\n}}\n", address.ip());
    let _server = Doorstep::start(address.ip(), &text);
    let told = udp(address, &ask("a.test").edns(1232));
    assert_eq!((told.rcode(), &told.opt().unwrap().rdata[..]), (3, &[0, 15, 0, 2, 0, 15][..]));
    assert!(udp(address, &ask("a.test")).opt().is_none());
}

#[test]
fn records_are_made_of_the_name() {
    let upstream = Scripted::start(answer);
    let directives = r#"template IN A pod.test {
        match ^ip-(?P<a>[0-9]+)-([0-9]+)\.(?P<rest>.*)$
        answer "{{ .Name }} 60 IN A 10.0.{{ .Group.a }}.{{ index .Match 2 }}"
        answer "{{ .Name }} 90 IN A 10.0.0.{{- parseInt .Group.a 16 8 }}"
        authority "{{ .Zone }} 60 IN NS ns.{{ .Zone }}"
        additional "ns.{{ .Zone }} 60 IN A 192.0.2.1"
        fallthrough
    }
    template IN ANY gone.test {
        rcode NXDOMAIN
        authority "gone.test. 60 IN SOA ns.gone.test. host.gone.test. 1 2 3 4 5"
    }"#;
    let served = Served::start(upstream.address, directives);
    for _ in 0..2 {
        let made = asked(&served, "iP-1-20.Pod.test", rr::A);
        let data: Vec<_> = made.section(1).iter().map(|record| record.rdata.clone()).collect();
        assert_eq!(data, [[10, 0, 1, 20], [10, 0, 0, 1]]);
        assert_eq!((made.rcode(), made.has(bit::AA)), (0, true));
        assert_eq!(made.section(2)[0].rdata, wire_name("ns.pod.test"));
        assert_eq!(made.section(3)[0].rdata, [192, 0, 2, 1]);
    }
    let gone = asked(&served, "a.gone.test", rr::A);
    assert_eq!((gone.rcode(), gone.section(2)[0].rtype), (3, SOA));
    // No match, and something comes after.
    assert_eq!(asked(&served, "other.pod.test", rr::A).section(1).len(), 1);
    assert_eq!(upstream.asked().len(), 1);
}

#[test]
fn what_is_no_record_is_a_failure_that_nobody_keeps() {
    let upstream = Scripted::start(answer);
    let directives =
        "template IN A bad.test {\n match (.*)\\.bad\\.test\n answer \"a. 60 IN A {{ index .Match 1 }}\"\n }";
    let served = Served::start(upstream.address, directives);
    for _ in 0..2 {
        let failed = asked(&served, "x.bad.test", rr::A);
        assert_eq!((failed.rcode(), failed.has(bit::AA)), (2, false));
    }
    let line =
        "plugin/errors: 2 x.bad.test. A: plugin/template: answer `a. 60 IN A x`: expected IPv4 address";
    served.server.wait_for_log_times(line, 2);
    assert_eq!(asked(&served, "192.0.2.7.bad.test", rr::A).section(1)[0].rdata, [192, 0, 2, 7]);
    assert_eq!(upstream.asked().len(), 0);
}

/// A stub resolver does not follow an alias itself.
#[test]
fn an_alias_comes_with_its_addresses() {
    let (upstream, cluster) = (Scripted::start(answer), Scripted::start(answer));
    let address = loopback::fresh_dns();
    let ip = address.ip();
    let alias = r#"template IN ANY alias.test {
        match ^(.*)\.alias\.test\.$
        answer "{{ .Name }} 60 IN CNAME {{ index .Match 1 }}.cluster.test."
    }
    template IN A loop.test {
        answer "{{ .Name }} 60 IN CNAME {{ .Name }}"
    }"#;
    let text = super::corefile(address, upstream.address, alias)
        + &format!("cluster.test {{\n bind {ip}\n cache\n forward . {}\n}}\n", cluster.address);
    let _server = Doorstep::start(ip, &text);
    for _ in 0..2 {
        let made = udp(address, &ask("web.alias.test"));
        let types: Vec<_> = made.section(1).iter().map(|record| record.rtype).collect();
        assert_eq!(types, [CNAME, rr::A]);
        assert_eq!(made.section(1)[1].owner, wire_name("web.cluster.test"));
    }
    assert_eq!((upstream.asked().len(), cluster.count("web.cluster.test.")), (0, 1));
    // Who asks for something else gets the alias alone.
    assert_eq!(udp(address, &ask("web.alias.test").qtype(rr::TXT)).section(1).len(), 1);
    let types: Vec<_> = udp(address, &ask("a.loop.test")).section(1).iter().map(|r| r.rtype).collect();
    assert!(types.len() < 12 && types.iter().all(|rtype| *rtype == CNAME), "{types:?}");
}

/// Each of two aliases that lead back doubles the work at every step; there are few steps in all.
#[test]
fn aliases_of_aliases_come_to_an_end() {
    let upstream = Scripted::start(answer);
    let directive = "template IN A loop.test {\n answer \"{{ .Name }} CNAME up.test\" \"{{ .Name }} CNAME a.loop.test\" \
                     \"{{ .Name }} CNAME b.loop.test\"\n }";
    let served = Served::start(upstream.address, directive);
    assert_eq!(asked(&served, "a.loop.test", rr::A).rcode(), 0);
    assert!((1..=8).contains(&upstream.asked().len()), "{} queries", upstream.asked().len());
}

#[test]
fn matches_and_failures_are_counted() {
    let address = loopback::fresh_dns();
    let metrics = SocketAddr::new(address.ip(), 9253);
    let text = format!(
        r#"test {{
            bind {}
            prometheus {metrics}
            template IN ANY a.test b.test {{
                match ^(?P<n>[^.]*)
                answer "{{{{ .Name }}}} 60 IN TXT {{{{parseInt (index .Match 1) 16 8}}}}"
                additional "{{{{ .Name }}}} 60 IN A \"{{{{- .Group.n }}}}.0.0.1\""
            }}
            template IN AAAA {{
                rcode SERVFAIL
            }}
        }}"#,
        address.ip()
    );
    let _server = Doorstep::start(address.ip(), &text);
    for (name, qtype) in
        [("1.a.test", rr::TXT), ("ff.b.test", 255), ("x.a.test", rr::TXT), ("c.test", rr::AAAA)]
    {
        udp(address, &ask(name).qtype(qtype));
    }
    let shown = scrape(metrics);
    let own = format!("server=\"dns://{address}\"");
    for line in [
        format!(r#"matches_total{{class="IN",{own},type="TXT",view="",zone="a.test."}} 2"#),
        format!(r#"matches_total{{class="IN",{own},type="ANY",view="",zone="b.test."}} 1"#),
        format!(r#"matches_total{{class="IN",{own},type="AAAA",view="",zone="test."}} 1"#),
        format!(
            r#"template_failures_total{{class="IN",section="answer",{own},template="{{{{.Name}}}} 60 IN TXT {{{{parseInt (index .Match 1) 16 8}}}}",type="TXT",view="",zone="a.test."}} 1"#
        ),
        format!(
            r#"rr_failures_total{{class="IN",section="additional",{own},template="{{{{.Name}}}} 60 IN A \"{{{{.Group.n}}}}.0.0.1\"",type="ANY",view="",zone="b.test."}} 1"#
        ),
    ] {
        let line = format!("coredns_template_{line}");
        assert!(shown.lines().any(|shown| shown == line), "no {line} in\n{shown}");
    }
}

/// Another configuration must not say what this one said.
#[test]
fn a_block_that_answers_otherwise_begins_with_an_empty_cache() {
    let upstream = Scripted::start(answer);
    let address = loopback::fresh_dns();
    let text = |last: u8| {
        let template =
            format!("template IN A made.test {{\n answer \"{{{{ .Name }}}} A 192.0.2.{last}\"\n }}");
        super::corefile(address, upstream.address, &template)
            + &format!("kept.test {{\n bind {}\n cache\n forward . {}\n}}\n", address.ip(), upstream.address)
    };
    let server = Doorstep::start(address.ip(), &text(1));
    let made = |last: u8| {
        assert_eq!(udp(address, &ask("a.made.test")).section(1)[0].rdata, [192, 0, 2, last]);
        udp(address, &ask("a.kept.test"));
    };
    made(1);
    server.rewrite(&text(2));
    server.signal(Signal::USR1);
    server.wait_for_log_times("running configuration", 2);
    made(2);
    assert_eq!(upstream.count("a.kept.test."), 1, "the cache of a block that is as it was is kept");
    // What is as it was is kept with its steps, too.
    server.rewrite(
        &(text(2) + &format!("more.test {{\n bind {}\n whatever\n}}\n", address.ip()))
            .replace("whatever", "errors"),
    );
    server.signal(Signal::USR1);
    server.wait_for_log_times("running configuration", 3);
    made(2);
}
