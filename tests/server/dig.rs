//! What operators type: dig and kdig ask us.

use std::process::Command;

use super::Served;
use super::nsd::Nsd;

/// Forty addresses, more than 512 octets hold.
fn zone() -> String {
    let many: String = (1..=40).map(|last| format!("many A 192.0.2.{last}\n")).collect();
    format!(
        "$ORIGIN dig.test.\n$TTL 300\n@ SOA ns host 1 2 3 4 60\n@ NS ns\nns A 192.0.2.1\n\
         host A 192.0.2.7\nhost AAAA 2001:db8::7\ntext TXT \"one; two\"\n{many}"
    )
}

fn run(program: &str, served: &Served, words: &str) -> String {
    let (ip, port) = (served.address.ip(), served.address.port());
    let output = Command::new(program)
        .arg(format!("@{ip}"))
        .args(["-p", &port.to_string()])
        .args(words.split(' '))
        .output()
        .expect("Debian packages bind9-dnsutils and knot-dnsutils");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {words}: {text}");
    text
}

#[test]
fn dig_gets_answers_over_udp_and_tcp() {
    let nsd = Nsd::start("dig.test", &zone());
    let served = Served::start(nsd.address, "");
    let dig = |words: &str| run("dig", &served, words);
    for transport in ["+notcp", "+tcp", "+notcp"] {
        assert_eq!(dig(&format!("+short {transport} host.dig.test A")), "192.0.2.7\n");
        assert_eq!(dig(&format!("+short {transport} host.dig.test AAAA")), "2001:db8::7\n");
        assert_eq!(dig(&format!("+short {transport} text.dig.test TXT")), "\"one; two\"\n");
        let whole = dig(&format!("{transport} host.dig.test"));
        assert!(whole.contains("status: NOERROR") && whole.contains("ANSWER: 1,"), "{whole}");
        let none = dig(&format!("{transport} none.dig.test"));
        assert!(none.contains("status: NXDOMAIN") && none.contains("SOA"), "{none}");
    }
}

#[test]
fn dig_follows_a_truncated_answer_over_tcp() {
    let nsd = Nsd::start("dig.test", &zone());
    let served = Served::start(nsd.address, "");
    let cut = run("dig", &served, "+noedns +ignore many.dig.test");
    assert!(cut.contains(" tc "), "{cut}");
    let whole = run("dig", &served, "+noedns +short many.dig.test");
    assert_eq!(whole.lines().count(), 40, "{whole}");
}

#[test]
fn dig_sees_no_option_of_its_own_again() {
    let nsd = Nsd::start("dig.test", &zone());
    let served = Served::start(nsd.address, "");
    for _ in 0..2 {
        let reply =
            run("dig", &served, "+cookie=0123456789abcdef +subnet=192.0.2.0/24 +keepalive host.dig.test");
        assert!(reply.contains("EDNS: version: 0") && reply.contains("192.0.2.7"), "{reply}");
        for option in ["COOKIE", "CLIENT-SUBNET", "KEEPALIVE", "WARNING: .* cookie"] {
            assert!(!reply.contains(option), "{reply}");
        }
    }
    let version = run("dig", &served, "+edns=1 +noednsneg host.dig.test");
    assert!(version.contains("status: BADVERS"), "{version}");
}

#[test]
fn kdig_asks_several_things_on_one_connection() {
    let nsd = Nsd::start("dig.test", &zone());
    let served = Served::start(nsd.address, "");
    let replies =
        run("kdig", &served, "+tcp +keepopen +short host.dig.test A host.dig.test AAAA many.dig.test A");
    let lines: Vec<&str> = replies.lines().collect();
    assert_eq!(lines.len(), 42, "{replies}");
    assert_eq!(lines[..2], ["192.0.2.7", "2001:db8::7"]);
}
